"""The command `send`."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf

import click
import trio

from .._cpg import open_group
from .._errors import MessageLostError
from .job import Job, Status, answering, timeout_option
from .names import group_argument, unescape
from .output import Output, json_option

_BLOCK = 65536


@click.command(
    "send",
    short_help="Send messages to a process group.",
    epilog="""\b
Examples:
  triocoro send chat hello
  tail -f events.log | triocoro send events
  triocoro send --nul 'name of C\\x00' hello
""",
)
@group_argument
@click.argument("messages", nargs=-1)
@click.option("--nul", is_flag=True, help="Append a NUL to each message, as C programs may expect.")
@timeout_option
@json_option(version=1)
@click.pass_obj
def command(output: Output, group: bytes, messages: tuple[str, ...], nul: bool, timeout: float) -> Job:  # noqa: FBT001 - click calls it
    r"""Join GROUP, send each of MESSAGES, and leave. Without MESSAGES, each line of the standard input is one.

    A backslash is written twice in GROUP and MESSAGES, and \xNN is any byte; lines of the standard input are sent as
    they are.

    The exit status is 0 once each message has been delivered to us, and 1 if the daemon has dropped one. That it was
    delivered to us does not mean that it was to others: see docs/promises.md.
    """
    try:
        payloads = [unescape(message) for message in messages]
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="MESSAGES") from None
    return partial(_send, output, group, payloads, b"\0" if nul else b"", timeout)


async def _send(
    output: Output,
    name: bytes,
    payloads: list[bytes],
    end: bytes,
    timeout: float,  # noqa: ASYNC109 - an option of the user's
) -> Status:
    sent = lost = 0
    with answering(timeout) as scope:
        async with open_group(name, receive=False) as group:

            async def send(payload: bytes) -> None:
                nonlocal sent, lost
                scope.deadline = trio.current_time() + timeout
                try:
                    await group.send_and_wait(payload, end)
                    sent += 1
                except MessageLostError:
                    lost += 1
                scope.deadline = inf  # stdin may take as long as it likes

            scope.deadline = inf
            if payloads:
                for payload in payloads:
                    await send(payload)
            else:
                await _each_line(send)
            members = len(group.view.members) - 1
    output.result(
        {"sent": sent, "lost": lost, "other_members": members},
        lambda: f"sent {sent} messages to {members} other members; {lost} were dropped by the daemon",
    )
    return Status.NO if lost else Status.YES


async def _each_line(use: Callable[[bytes], Awaitable[None]]) -> None:
    """Use the lines of stdin, without their ends, as soon as they are there."""
    rest = b""
    # Not by sys.stdin, whose lock a thread that is left behind would hold at the end of the process.
    while block := await trio.to_thread.run_sync(os.read, 0, _BLOCK, abandon_on_cancel=True):
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            await use(line)
    if rest:
        await use(rest)
