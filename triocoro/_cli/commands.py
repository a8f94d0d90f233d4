"""The group of commands, and what they have in common: how they run, how they fail, and their exit statuses.

A command is a module of this package with a click command named `command`, and a line in `_COMMANDS`. Its callback does
nothing by itself: it returns a `Job`, an async function that does the work and returns the exit status. So a test can
run a command inside its own Trio run, where the default endpoint leads to a node of a test cluster.

A module is imported once its command, or the list of all commands, is asked for: what one of them needs must not make
the others slow. For the same reason modules import rich and `triocoro.testing` inside the functions that need them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib import import_module
from typing import Final, cast

import click
import trio

from .. import __version__
from .._errors import CorosyncError
from .job import Job, Status
from .output import Output

if sys.version_info < (3, 11):
    # Trio depends on it there.
    from exceptiongroup import BaseExceptionGroup

_COMMANDS: Final = {
    "status": "status",
    "watch": "watch",
    "groups": "groups",
    "send": "send",
    "listen": "listen",
    "export": "export",
    "history": "history",
    "cluster": "cluster",
    "demo": "demo",
    "doctor": "doctor",
    "wait-quorate": "wait_quorate",
}
"""The commands, each with its module in this package."""


class _Commands(click.Group):
    """A group that imports the module of a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        module = _COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(f".{module}", __package__).command
        return command


_STATUSES: Final = """\b
Exit statuses:
  0    it worked, and the answer is yes
  1    it worked, and the answer is no; each command says what that means
  2    it was called wrongly, or something that it needs is not installed
  3    Corosync cannot be used: it does not run or answer, refuses this user, or went away
  130  interrupted
  141  the reader of the output has closed it
"""


@click.command(
    cls=_Commands, epilog=_STATUSES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", prog_name="triocoro")
def cli() -> None:
    """See and use a Corosync cluster from the shell.

    Commands talk to the Corosync daemon of this machine. Each has --help, with examples.
    """


def parse(arguments: Sequence[str] | None = None, *, output: Output) -> Job | Status:
    """Read the command line.

    Args:
        arguments: those after the program's name; `None` stands for those of the process.
        output: where the command's results go.

    Returns:
        the job to do, or the exit status if nothing is left to do, as after --help.
    """
    try:
        done: Job | int | None = cli.main(arguments, prog_name="triocoro", standalone_mode=False, obj=output)
    except click.ClickException as exc:
        exc.show()
        return Status.USAGE
    except click.Abort:
        return Status.INTERRUPTED
    return Status(done or 0) if done is None or isinstance(done, int) else done


async def perform(job: Job, output: Output) -> int:
    """Do a job. What Corosync does not allow, or this machine does not, becomes a line of text and a status."""
    try:
        return await job()
    except click.ClickException as exc:
        output.error(exc)
        return Status.USAGE
    except (CorosyncError, BrokenPipeError, BaseExceptionGroup) as exc:
        leaves = list(_leaves(exc))
        if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
            return Status.CLOSED_PIPE
        if not all(isinstance(leaf, CorosyncError) for leaf in leaves):
            raise
        output.error(leaves[0])
        return Status.UNAVAILABLE


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group and its groups; an exception that is no group stands for itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
            yield from _leaves(inner)
    else:
        yield exc


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line as a process of its own, and return its exit status."""
    output = Output.of_process()
    try:
        job = parse(arguments, output=output)
        status: int = job if isinstance(job, Status) else trio.run(_interruptible, job, output)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = Status.INTERRUPTED
    except BrokenPipeError:
        # What the stream still holds would fail again at the end of the process.
        with open(os.devnull, "wb") as null:  # noqa: PTH123 - its fd is needed, not its path
            os.dup2(null.fileno(), sys.stdout.fileno())
        status = Status.CLOSED_PIPE
    return status


async def _interruptible(job: Job, output: Output) -> int:
    """Do a job until it ends or a signal ends it. A signal becomes a cancellation, so that blocks are left properly."""
    status: int = Status.INTERRUPTED
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            status = await perform(job, output)
            nursery.cancel_scope.cancel()
    return status


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
