"""The argument parser of `python -m triocoro`, and the commands that it calls.

A new command is a block in `main`: its parser, its arguments, and `set_defaults(run=...)`. The function given there
takes the parsed arguments and returns the exit status.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from .demo import MAX_NODES, MIN_NODES, run_demo
from .transcript import Transcript


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments after the program's name; `None` takes the process's own.

    Returns:
        the exit status: 0 if all went well, 1 if it did not, 2 for a usage error, 130 when interrupted.
    """
    parser = argparse.ArgumentParser(prog="python -m triocoro", description="Trio and the Corosync Cluster Engine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="watch several applications agree on an order, lose a node, and get it back",
        description=(
            "Start a throwaway cluster with an application on each node. They join a process group and exchange"
            " messages; one node is killed, comes back, and rejoins. The exit status is 0 only if every node saw the"
            " same messages in the same order."
        ),
    )
    demo.add_argument(
        "--corosync",
        choices=("real", "fake", "auto"),
        default="fake",
        help="real daemons in network namespaces, the in-memory fake, or real ones where they can run (default: fake)",
    )
    demo.add_argument(
        "--nodes",
        type=_node_count,
        default=3,
        help=f"how many, {MIN_NODES} to {MAX_NODES} (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)

    args = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    return run(args)


def _demo(args: argparse.Namespace) -> int:
    # The transcript says which connections are lost; a warning of each would only repeat that.
    logging.getLogger("triocoro").setLevel(logging.ERROR)
    return run_demo(mode=args.corosync, nodes=args.nodes, transcript=Transcript(sys.stdout))


def _node_count(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if number < MIN_NODES:
        raise argparse.ArgumentTypeError(f"{number}: to agree on an order it takes at least {MIN_NODES} nodes")
    if number > MAX_NODES:
        raise argparse.ArgumentTypeError(f"{number}: a transcript of more than {MAX_NODES} nodes would be unreadable")
    return number
