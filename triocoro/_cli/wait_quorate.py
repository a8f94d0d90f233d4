"""The command `wait-quorate`."""

from __future__ import annotations

from functools import partial
from math import inf

import click
import trio

from .._quorum import open_quorum
from .._sessions import sessions
from .._types import QuorumChange
from .job import Job, Status
from .output import Output, json_option


@click.command(
    "wait-quorate",
    short_help="Wait until this node's partition is quorate.",
    epilog="""\b
Examples:
  triocoro wait-quorate --timeout 60 && start-the-service
  ExecStartPre=triocoro wait-quorate        (in a systemd unit)
""",
)
@click.option("--timeout", type=click.FloatRange(min=0), default=inf, metavar="SECONDS", help="How long to wait.")
@json_option(version=1)
@click.pass_obj
def command(output: Output, timeout: float) -> Job:
    """Wait until this node's partition is quorate, also for a daemon that does not run yet or restarts.

    The exit status is 0 once it is quorate, and 1 if it was not within the timeout.
    """
    return partial(_wait, output, timeout)


async def _wait(output: Output, timeout: float) -> Status:  # noqa: ASYNC109 - an option of the user's
    last: QuorumChange | None = None
    with trio.move_on_after(timeout):
        async for session in sessions(open_quorum):
            last = None
            async with session as quorum, quorum.track() as changes:
                async for change in changes:
                    if isinstance(change, QuorumChange):
                        last = change
                        if last.quorate:
                            output.result({"quorate": True, "members": last.members}, lambda: "quorate")
                            return Status.YES
    reason = f"nodes {' '.join(map(str, last.members))} are together, which is too few" if last else "no daemon answers"
    output.result(
        {"quorate": False, "members": last.members if last else None},
        lambda: f"not quorate after {timeout:g} s: {reason}",
    )
    return Status.NO
