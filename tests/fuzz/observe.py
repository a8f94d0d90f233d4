"""What is to be seen when all is quiet: the same on a real cluster and on a fake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import triocoro
from fuzz.agent import TRACKED_KEYS, name_of
from fuzz.clients import Membership
from fuzz.program import GROUPS, Step
from triocoro import (
    Address,
    ConfigChange,
    Endpoint,
    ExpectedVotesChange,
    Message,
    NodelistChange,
    QuorumChange,
    RingId,
    VotequorumChange,
    VotequorumNodelist,
)

MARKER = b"marker:"
"""Begins the payloads that show that all is quiet."""
SYNC_KEY = f"{TRACKED_KEYS}sync"
"""Set to show that all earlier changes of keys have been told of."""
FAULTS = {"partition", "isolate", "heal", "stop", "kill", "start", "restart", "freeze", "thaw"}

Name: TypeAlias = "Callable[[Address], str]"
"""Gives the name of the client with an address."""


def member(
    membership: Membership, events: Sequence[ConfigChange | Message], step: Step, view: list[str], name: Name
) -> dict[str, Any]:
    """What a client has been told in a group; of a fault in the middle of a storm, only what has come of it."""
    seen: dict[str, Any] = {"members": view, "nodes": [member.nodeid for member in membership.members]}
    if membership.ring is not None:
        seen["ring"] = _ring(membership.ring.ring_id, membership.ring.members)
    if step["do"] == "storm" and step["during"] is not None:
        return seen
    messages: dict[str, list[str]] = {}
    for event in events:
        if isinstance(event, Message) and (number := number_of(event)) is not None:
            # In the order of each sender. That of all together is left to the checkers.
            messages.setdefault(name(event.sender), []).append(f"{number}, {len(event.payload)} bytes")
    seen["messages"] = messages
    changes = [
        [kind, name(change.address), change.reason.name]
        for event in events
        if isinstance(event, ConfigChange)
        for kind, changes in (("joined", event.joined), ("left", event.left))
        for change in changes
    ]
    # Faults may take several rings; then only what has come of it is determined.
    seen["changes"] = _net(changes) if step["do"] in FAULTS else changes
    return seen


def number_of(message: Message) -> int | None:
    """The number of a payload that the program sends; `None` of those of ours."""
    return None if message.payload.startswith(MARKER) else int(message.payload.partition(b":")[0])


async def node(endpoint: Endpoint, nodeids: Iterable[int], name: Name) -> dict[str, Any]:
    """What a node says."""
    seen: dict[str, Any] = {}
    async with triocoro.open_votequorum(endpoint=endpoint) as votequorum:
        for other in nodeids:
            try:
                info = await votequorum.info(other)
            except triocoro.CorosyncError as error:
                seen[f"info {other}"] = name_of(error)
            else:
                seen[f"info {other}"] = {
                    "state": info.state.name,
                    "votes": info.votes,
                    "expected votes": info.expected_votes,
                    "highest expected": info.highest_expected,
                    "total votes": info.total_votes,
                    "quorum": info.quorum,
                    "flags": repr(info.flags),
                }
    async with triocoro.open_quorum(endpoint=endpoint) as quorum:
        seen["quorate"] = await quorum.is_quorate()
    async with triocoro.open_cpg(endpoint=endpoint) as cpg:
        seen["groups"] = await groups_of(cpg, name)
        seen["members"] = {group: sorted(map(name, await cpg.members(group))) for group in GROUPS}
    async with triocoro.open_cmap(endpoint=endpoint) as cmap:
        keys = await cmap.items_typed(TRACKED_KEYS)
        seen["keys"] = {key: f"{typed.type.name} {typed.value!r}" for key, typed in keys if key != SYNC_KEY}
    return seen


async def groups_of(cpg: triocoro.Cpg, name: Name) -> list[list[str]]:
    """Who is in the groups of the program."""
    # Whoever waits for the cluster to settle has a group, too.
    return sorted(
        [group, name(member.address)]
        for member in await cpg.groups()
        if member.address is not None and (group := member.group.decode()) in GROUPS
    )


def tracker(service: str, told: list[Any], *, told_of_votes: bool) -> Any:
    """What it was told of last; of keys, all that is new; of expected votes, what came first of a step that tells."""
    if service == "cmap":
        changes = [
            [event.change.event.name, event.change.key, repr(event.change.new), repr(event.change.old)]
            for event in told
            if event.change.key != SYNC_KEY
        ]
        told.clear()
        return changes
    if service == "quorum":
        change = last(told, QuorumChange)
        nodes = last(told, NodelistChange)
        return {
            "quorate": change.quorate,
            "ring": _ring(change.ring_id, change.members),
            "nodes": _ring(nodes.ring_id, nodes.members),
        }
    change, nodes = last(told, VotequorumChange), last(told, VotequorumNodelist)
    seen = {
        "quorate": change.quorate,
        "nodes": _ring(nodes.ring_id, nodes.nodes),
        "states": [f"{node.nodeid} {node.state.name}" for node in change.nodes],
    }
    votes = [event.expected_votes for event in told if isinstance(event, ExpectedVotesChange)]
    told[:] = [event for event in told if not isinstance(event, ExpectedVotesChange)]
    # In a transition, how often it comes varies.
    return {**seen, "expected votes": votes[0]} if told_of_votes else seen


def last(events: Iterable[Any], kind: type[Any]) -> Any:
    """The last one of a kind; `None` if there is none."""
    return next((event for event in reversed(list(events)) if isinstance(event, kind)), None)


def _ring(ring_id: RingId, nodes: Sequence[int]) -> list[int]:
    """Its representative, and its nodes in the order in which they are told; its number differs."""
    return [ring_id.nodeid, *nodes]


def _net(changes: list[list[str]]) -> dict[str, list[str]]:
    """Of each member that comes up an odd number of times, the last change: the others are as they were."""
    net: dict[str, list[str]] = {}
    for kind, name, reason in changes:
        if name in net:
            del net[name]
        else:
            net[name] = [kind, reason]
    return dict(sorted(net.items()))
