"""Observations of a quiet cluster. A real cluster and a fake must give the same ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import triocoro
from fuzz.agent import TRACKED_KEYS, name_of
from fuzz.clients import ObservedMember
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
"""The prefix of the messages that show that the cluster is quiet."""
SYNC_KEY = f"{TRACKED_KEYS}sync"
"""A key that is set to show that all earlier changes of keys have been announced."""
FAULTS = {"partition", "isolate", "heal", "stop", "kill", "start", "restart", "freeze", "thaw"}
"""The steps that change the network or a node."""

Name: TypeAlias = "Callable[[Address], str]"
"""Returns the name of the client with an address."""


def member(
    observed: ObservedMember, events: Sequence[ConfigChange | Message], step: Step, view: list[str], name: Name
) -> dict[str, Any]:
    """Observe what a client was told in a group. After a storm with a fault, only the final state is determined."""
    seen: dict[str, Any] = {"members": view, "nodes": [address.nodeid for address in observed.view]}
    if observed.ring is not None:
        seen["ring"] = _ring(observed.ring.ring_id, observed.ring.members)
    if step["do"] == "storm" and step["during"] is not None:
        return seen
    messages: dict[str, list[str]] = {}
    for event in events:
        if isinstance(event, Message) and (number := number_of(event)) is not None:
            # In the order of each sender; the checkers judge the order of all messages.
            messages.setdefault(name(event.sender), []).append(f"{number}, {len(event.payload)} bytes")
    seen["messages"] = messages
    changes = [
        [kind, name(change.address), change.reason.name]
        for event in events
        if isinstance(event, ConfigChange)
        for kind, changes in (("joined", event.joined), ("left", event.left))
        for change in changes
    ]
    # A fault may lead through several rings; then only the net change is determined.
    seen["changes"] = _net_changes(changes) if step["do"] in FAULTS else changes
    return seen


def number_of(message: Message) -> int | None:
    """Return the number of a message that the program sent; `None` for a marker."""
    return None if message.payload.startswith(MARKER) else int(message.payload.partition(b":")[0])


async def node(endpoint: Endpoint, nodeids: Iterable[int], name: Name) -> dict[str, Any]:
    """Observe the answers of a node."""
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
    """Return the members of the program's groups."""
    # Other groups are left out: `Cluster.settled` uses one.
    return sorted(
        [group, name(member.address)]
        for member in await cpg.groups()
        if member.address is not None and (group := member.group.decode()) in GROUPS
    )


def tracker(service: str, events: list[Any], *, votes_announced: bool) -> Any:
    """Observe a tracker: the latest events, all new changes of keys, and the first announcement of expected votes.

    Args:
        service: what is tracked.
        events: all events so far; those that are not needed again are removed.
        votes_announced: whether the step has expected votes announced.
    """
    if service == "cmap":
        changes = [
            [event.change.event.name, event.change.key, repr(event.change.new), repr(event.change.old)]
            for event in events
            if event.change.key != SYNC_KEY
        ]
        events.clear()
        return changes
    if service == "quorum":
        change = last(events, QuorumChange)
        nodes = last(events, NodelistChange)
        return {
            "quorate": change.quorate,
            "ring": _ring(change.ring_id, change.members),
            "nodes": _ring(nodes.ring_id, nodes.members),
        }
    change, nodes = last(events, VotequorumChange), last(events, VotequorumNodelist)
    seen = {
        "quorate": change.quorate,
        "nodes": _ring(nodes.ring_id, nodes.nodes),
        "states": [f"{node.nodeid} {node.state.name}" for node in change.nodes],
    }
    votes = [event.expected_votes for event in events if isinstance(event, ExpectedVotesChange)]
    events[:] = [event for event in events if not isinstance(event, ExpectedVotesChange)]
    # How often it is announced in a transition varies.
    return {**seen, "expected votes": votes[0]} if votes_announced else seen


def last(events: Iterable[Any], event_type: type[Any]) -> Any:
    """Return the last event of a type; `None` if there is none."""
    return next((event for event in reversed(list(events)) if isinstance(event, event_type)), None)


def _ring(ring_id: RingId, nodes: Sequence[int]) -> list[int]:
    """The ring's representative, and its nodes in the reported order. Its sequence number differs between clusters."""
    return [ring_id.nodeid, *nodes]


def _net_changes(changes: list[list[str]]) -> dict[str, list[str]]:
    """The last change of each member with an odd number of changes. The other members are as they were before."""
    net: dict[str, list[str]] = {}
    for kind, name, reason in changes:
        if name in net:
            del net[name]
        else:
            net[name] = [kind, reason]
    return dict(sorted(net.items()))
