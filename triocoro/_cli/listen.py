"""The command `listen`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Final

import attrs
import click

from .._sessions import sessions
from .._types import Address, ConfigChange, GroupEvent, MemberChange, Message, MessageLost, TotemChange
from .job import Job, Status
from .names import escape, group_argument
from .output import JsonValue, Output, json_bytes, json_option
from .status import ring_name
from .watching import Happening, look_for_daemon, loss

_FOREVER: Final = 0


@click.command(
    "listen",
    short_help="Show what happens in a process group.",
    epilog="""\b
Examples:
  triocoro listen chat
  triocoro listen chat --messages 1
  triocoro listen chat --json | jq -r 'select(.result.event == "message").result.payload.text'
""",
)
@group_argument
@click.option("--messages", type=click.IntRange(min=1), metavar="N", help="End after N messages.")
@click.option("--totem", is_flag=True, help="Show changes of the ring of nodes, too.")
@json_option(version=1)
@click.pass_obj
def command(output: Output, group: bytes, messages: int | None, totem: bool) -> Job:  # noqa: FBT001 - click calls it
    """Join GROUP, and show its messages and its changes of members until interrupted. We are a member meanwhile.

    A daemon that ends is waited for, and the group joined again. What happened in between is not shown.
    """
    return partial(_listen, output, group, messages or _FOREVER, totem=totem)


async def _listen(output: Output, name: bytes, limit: int, *, totem: bool) -> Status:
    async def report(happening: Happening) -> None:
        state, text = happening.about["state"], happening.about["text"]
        await output.event({"event": "daemon", "state": state, "text": text}, lambda: f"the daemon {text}")

    numbers = count(1)
    if (unavailable := await look_for_daemon()) is not None:
        await report(unavailable)
    async for session in sessions(name, totem_changes=totem):
        async with session as group:
            async for event in group:
                await output.event(event_as_json(event), partial(event_as_text, event))
                if isinstance(event, Message) and next(numbers) == limit:
                    return Status.YES
        await report(loss())
    raise AssertionError("sessions do not end")


def event_as_json(event: GroupEvent) -> JsonValue:
    """Return an event for JSON, as docs/command.md describes it."""
    match event:
        case Message():
            return {"event": "message", "sender": attrs.asdict(event.sender), "payload": json_bytes(event.payload)}
        case ConfigChange():
            return {
                "event": "members",
                "members": [attrs.asdict(member) for member in event.members],
                "joined": _changes(event.joined),
                "left": _changes(event.left),
            }
        case TotemChange():
            return {"event": "ring", "ring_id": attrs.asdict(event.ring_id), "nodes": list(event.members)}
        case MessageLost():
            return {"event": "message_lost", "payload": json_bytes(event.payload)}


def event_as_text(event: GroupEvent) -> str:
    """Return an event for people, on one line."""
    match event:
        case Message():
            return f"{_place(event.sender)}: {escape(event.payload)}"
        case ConfigChange():
            changes = [f"{_place(change.address)} joined" for change in event.joined]
            changes += [f"{_place(change.address)} left ({change.reason.name})" for change in event.left]
            return f"members: {len(event.members)}; {', '.join(changes) or 'no change'}"
        case TotemChange():
            return f"ring {ring_name(event.ring_id)} of nodes {' '.join(map(str, event.members))}"
        case MessageLost():
            return f"the daemon has dropped our message {escape(event.payload)}"


def _place(address: Address) -> str:
    return f"node {address.nodeid} pid {address.pid}"


def _changes(changes: Sequence[MemberChange]) -> JsonValue:
    return [{**attrs.asdict(change.address), "reason": change.reason.name.lower()} for change in changes]
