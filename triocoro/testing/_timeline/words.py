"""Faults, nodes and members of groups in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..._enums import Reason
from ..._types import (
    Address,
    ConfigChange,
    ExpectedVotesChange,
    MemberChange,
    MessageLost,
    NodelistChange,
    QuorumChange,
    RingId,
    TotemChange,
    VotequorumChange,
    VotequorumNodelist,
)
from .._history.entries import Fault, Invocation
from .._history.values import show

_LONGEST: Final = 160
"""Characters of a value that are shown."""

_DONE: Final = {
    "kill": "is killed",
    "stop": "is stopped",
    "start": "is started",
    "restart": "is restarted",
    "freeze": "is frozen",
    "thaw": "is thawed",
    "add_node": "is added",
    "remove_node": "is removed",
    "isolate": "is cut off from all others",
}
_REASONS: Final = {
    Reason.UNDEFINED: "",
    Reason.JOIN: "joined",
    Reason.LEAVE: "left",
    Reason.NODEDOWN: "lost",
    Reason.NODEUP: "back",
    Reason.PROCDOWN: "disconnected",
}


def node_of_fault(fault: Fault) -> int | None:
    """The node that a fault is about; `None` if it is about the network or the cluster."""
    arguments = fault.arguments
    value: object = arguments.get("nodeid", arguments.get("node"))
    return value if isinstance(value, int) else None


def fault_in_words(fault: Fault) -> str:
    """What was done to the cluster, without the node that `node_of_fault` names."""
    arguments: Mapping[str, Any] = fault.arguments
    match fault.verb:
        case "partition" if "sides" in arguments:
            return f"the network is cut: {sides_in_words(arguments['sides'])}"
        case "heal":
            return "the network is healed"
        case "cut" if {"source", "target"} <= arguments.keys():
            link = arguments.get("link")
            on = "" if link is None else f" on link {link}"
            return f"what node {arguments['source']} sends to node {arguments['target']}{on} is dropped"
        case "lose" if "percent" in arguments:
            nodes = arguments.get("nodes")
            return f"{arguments['percent']:g} % of the packets to {nodes_in_words(nodes or ())} are lost"
        case verb if verb in _DONE and node_of_fault(fault) is not None:
            others = {name: value for name, value in arguments.items() if name not in {"node", "nodeid"} and value}
            return f"{_DONE[verb]}{_further(others)}"
        case verb:
            return f"{verb}({', '.join(f'{name}={show(value)}' for name, value in arguments.items())})"


def _further(arguments: Mapping[str, object]) -> str:
    return "".join(f", {name}={show(value)}" for name, value in arguments.items())


def sides_in_words(sides: Iterable[Iterable[int]]) -> str:
    """The sides of a partition, such as "1 | 2, 3"."""
    return " | ".join(numbers(side) for side in sides)


def nodes_in_words(nodes: Sequence[int], every: Iterable[int] = ()) -> str:
    """Such as "node 1", "nodes 1, 2", or "all nodes"."""
    if not nodes or (len(nodes) > 1 and set(nodes) == set(every)):
        return "all nodes"
    return f"{'node' if len(nodes) == 1 else 'nodes'} {numbers(nodes)}"


def numbers(values: Iterable[int]) -> str:
    """Such as "1, 2, 5"; three and more that follow on each other are a range, such as "1-5"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][-1] + 1:
            runs[-1].append(value)
        else:
            runs.append([value])
    return ", ".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run))  # noqa: PLR2004 - two are no range
        for run in runs
    )


def group_in_words(name: bytes | None) -> str:
    """A group's name, as text where it is text."""
    return "a group" if name is None else f"group {name.decode(errors='backslashreplace')}"


def members_in_words(members: Sequence[Address]) -> str:
    """The nodes of the members of a group, such as "1, 2, 2"; "nobody" if there are none."""
    nodes = [member.nodeid for member in members]
    if not nodes:
        return "no members"
    return ", ".join(map(str, nodes)) if len(set(nodes)) < len(nodes) else numbers(nodes)


def changes_in_words(changes: Iterable[MemberChange]) -> str:
    """Who joined or left and why, such as "node 2 joined; nodes 3, 4 lost"."""
    by_reason: dict[str, list[int]] = {}
    for change in changes:
        by_reason.setdefault(_REASONS[change.reason], []).append(change.address.nodeid)
    return "; ".join(f"{nodes_in_words(nodes)} {reason}".strip() for reason, nodes in by_reason.items())


def quorum_in_words(*, quorate: bool | None) -> str:
    """The end of a sentence about a ring."""
    return "" if quorate is None else ", quorate" if quorate else ", NOT quorate"


def client_in_words(client: str) -> str:
    """The name of a client; only the number for the client that is called like its node."""
    return client.removeprefix("node ") if client.startswith("node ") and client[5:].isdigit() else client


def operation_in_words(invocation: Invocation) -> str:
    """An operation of the application, such as "put('key', 1)"."""
    return f"{invocation.name}({', '.join(show(value) for value in invocation.arguments)})"


def call_in_words(function: str, arguments: Mapping[str, Any]) -> str:
    """A call, such as "set('key', 1)"; payloads are cut short."""
    return f"{function}({', '.join(show(value) for value in arguments.values())})"


def payload_in_words(payload: bytes, most: int = 48) -> str:
    """A payload, as text where it is text. The middle of a long one is left out, as its ends say more."""
    text = payload[: 8 * most].decode(errors="backslashreplace")
    text = text if text.isprintable() else repr(text)[1:-1]
    if len(payload) > 8 * most:
        text += f"... ({len(payload)} bytes)"
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


def message_in_words(payload: bytes) -> str:
    """A payload as Python writes it, or as text with its middle left out if it is long."""
    return show(payload) if len(payload) <= 64 else repr(payload_in_words(payload))  # noqa: PLR2004 - as show_payload


def event_in_words(event: object) -> str:
    """What a client was told, such as "ring 1.8 of nodes 1, 2"."""
    match event:
        case ConfigChange():
            changes = changes_in_words((*event.joined, *event.left))
            nodes = sorted({member.nodeid for member in event.members})
            members = f"members on {nodes_in_words(nodes)}" if nodes else "no members"
            text = f"{members} ({changes})" if changes else members
        case TotemChange() | NodelistChange():
            text = f"{ring_in_words(event.ring_id)} of {nodes_in_words(event.members)}"
        case VotequorumNodelist():
            text = f"{ring_in_words(event.ring_id)} of {nodes_in_words(event.nodes)}"
        case QuorumChange() | VotequorumChange():
            text = "quorate" if event.quorate else "NOT quorate"
        case ExpectedVotesChange():
            text = f"{event.expected_votes} expected votes"
        case MessageLost():
            text = f"message lost: {payload_in_words(event.payload)}"
        case _:
            text = value_in_words(event)
    return text


def ring_in_words(ring_id: RingId) -> str:
    """Such as "ring 1.8"."""
    return f"ring {ring_id.nodeid}.{ring_id.seq}"


def value_in_words(value: object) -> str:
    """A value, cut short."""
    text = show(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
