"""The command `cluster`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click
import trio

from .demo import MIN_NODES
from .job import Job


@click.command(
    "cluster",
    short_help="Start a throwaway cluster of real nodes.",
    epilog="""\b
Examples:
  triocoro cluster
  triocoro cluster --nodes 5 --shell 1
  triocoro cluster --shell 1 -- corosync-quorumtool -s
""",
)
@click.option(
    "--nodes", type=click.IntRange(1, 16), default=3, show_default=True, metavar="N", help="The number of nodes."
)
@click.option(
    "--shell", type=click.IntRange(min=1), metavar="NODE", help="Run a shell in this node, and end the cluster with it."
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
def command(nodes: int, shell: int | None, program: tuple[str, ...]) -> Job:
    """Start a cluster of real Corosync daemons in network namespaces, to play with. It ends with this command.

    Without --shell it says how to enter the nodes, and waits until it is interrupted. With it, a shell runs in that
    node, or PROGRAM instead of the shell, and the exit status is that of the shell. The daemon of the machine is
    neither used nor disturbed.
    """
    if program and shell is None:
        raise click.UsageError("PROGRAM needs --shell NODE: in which node?")
    if shell is not None and shell > nodes:
        raise click.BadParameter(f"{shell}: the nodes are 1 to {nodes}", param_hint="--shell")
    return partial(_run, nodes, shell, program)


async def _run(nodes: int, shell: int | None, program: tuple[str, ...]) -> int:
    from ..testing import NetnsCluster, missing_requirements

    if missing := missing_requirements():
        reasons = "".join(f"\n  - {item}" for item in missing)
        raise click.ClickException(f"no real cluster can run here:{reasons}")
    async with NetnsCluster(nodes=nodes, two_node=nodes == MIN_NODES) as cluster:
        if shell is None:
            click.echo(cluster.how_to_enter)
            click.echo("It runs until this command is interrupted (Ctrl-C).")
            await trio.sleep_forever()
        if not program:
            click.echo(f"A shell in node {shell} of the cluster {cluster.name}, which ends with it.")
            program = (os.environ.get("SHELL", "/bin/sh"),)
        # Entering a node leads to the root folder.
        command = cluster[shell].inside("env", f"--chdir={Path.cwd()}", *program)
        done = await trio.run_process(command, stdin=None, check=False)
        return done.returncode if done.returncode >= 0 else 128 - done.returncode
