"""View agreement: who is in a ring, and who in a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from ..._types import (
    ConfigChange,
    Message,
    NodelistChange,
    QuorumChange,
    Reason,
    RingId,
    TotemChange,
    VotequorumNodelist,
)
from .._history import Entry, Event
from ._members import Member, Segment
from ._violation import Rule, Violation


def view_violations(history: Iterable[Entry], members: Sequence[Member]) -> Iterator[Violation]:
    """What is wrong with views."""
    yield from _Rings().violations(history)
    for member in members:
        yield from _own_view(member)
    closed: dict[tuple[bytes, RingId], Segment] = {}
    for member in members:
        for segment in member.segments:
            yield from _closed_view(segment)
            if segment.closing:
                first = closed.setdefault((member.group, segment.change.ring_id), segment)
                if first.view != segment.view:
                    yield Violation(
                        Rule.VIEW_AGREEMENT,
                        f"{first.member} and {member} came to the same ring {_ring(segment.change.ring_id)}"
                        " with different members in the group",
                        (*_opening(first), *_opening(segment)),
                    )


def _ring(ring_id: RingId) -> str:
    return f"{ring_id.nodeid}.{ring_id.seq}"


def _opening(segment: Segment) -> tuple[Event, ...]:
    """What told the member of the group's members, and of the ring."""
    last: Event | None = None
    for event in segment.member.events:
        if event is segment.opening:
            break
        if isinstance(event.event, ConfigChange):
            last = event
    return (segment.opening,) if last is None else (last, segment.opening)


# -- rings -------------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Handle:
    """What a handle was told of rings."""

    last: Event | None = None
    """The latest ring."""
    initial: bool = False
    """Whether that may be the one that is told with the own join."""
    since_join: int | None = None
    """How many events came after the own join."""

    def count(self, event: Event) -> None:
        """Another event."""
        if self.since_join is not None:
            self.since_join += 1
        elif isinstance(event.event, ConfigChange):
            self.since_join = 0


class _Rings:
    """Rings ascend, contain who is told of them, and their ids stand for one set of nodes."""

    def __init__(self) -> None:
        self._nodes: dict[RingId, Event] = {}
        self._handles: dict[tuple[str, int], _Handle] = {}
        # Who joins in a transition is told of the new ring with the nodes of the old one, until that is closed: right
        # after its own join, or before that, when it was connected and any group changed (exec/cpg.c,
        # notify_lib_joinlist).
        self._initial: list[Event] = []

    def violations(self, history: Iterable[Entry]) -> Iterator[Violation]:
        for entry in history:
            if isinstance(entry, Event):
                yield from self._event(entry)
        for event in self._initial:
            if not self._may_be_of_old(event):
                yield from self._one_ring(event)

    def _event(self, event: Event) -> Iterator[Violation]:
        handle = self._handles.setdefault((event.client, event.handle), _Handle())
        handle.count(event)
        told = ring_of(event.event)
        if told is None:
            return
        ring_id, members = told
        if event.node not in members:
            text = f"{event.client!r} was told of ring {_ring(ring_id)}, in which its own node {event.node} is not"
            yield Violation(Rule.VIEW_AGREEMENT, text, (event,))
        is_totem = isinstance(event.event, TotemChange)
        initial = is_totem and handle.since_join in {None, 1}
        if handle.last is not None:
            before, _ = ring_of(handle.last.event) or told
            if ring_id.seq < before.seq or (ring_id.seq == before.seq and ring_id != before):
                text = f"{event.client!r} came from ring {_ring(before)} to {_ring(ring_id)}: their numbers must ascend"
                yield Violation(Rule.VIEW_AGREEMENT, text, (handle.last, event))
            elif ring_id == before and is_totem and not (initial or handle.initial):
                text = f"{event.client!r} was told twice that ring {_ring(ring_id)} has formed"
                yield Violation(Rule.VIEW_AGREEMENT, text, (handle.last, event))
        handle.last, handle.initial = event, initial
        if initial:
            self._initial.append(event)
        else:
            yield from self._one_ring(event)

    def _one_ring(self, event: Event) -> Iterator[Violation]:
        ring_id, members = ring_of(event.event) or (RingId(0, 0), ())
        first = self._nodes.setdefault(ring_id, event)
        others = (ring_of(first.event) or (ring_id, members))[1]
        if set(others) != set(members):
            text = (
                f"{first.client!r} and {event.client!r} were told of ring {_ring(ring_id)} with different nodes,"
                f" {sorted(others)} and {sorted(members)}"
            )
            yield Violation(Rule.VIEW_AGREEMENT, text, (first, event))

    def _may_be_of_old(self, event: Event) -> bool:
        """Whether the nodes are those of an older ring of that node, for all that is known."""
        ring_id, members = ring_of(event.event) or (RingId(0, 0), ())
        rings = ((older, (ring_of(other.event) or (older, ()))[1]) for older, other in self._nodes.items())
        old = [set(nodes) for older, nodes in rings if older.seq < ring_id.seq and event.node in nodes]
        return not old or set(members) in old


def ring_of(event: object) -> tuple[RingId, tuple[int, ...]] | None:
    """The ring that an event tells of, and its nodes; before its first ring, a daemon has none."""
    if isinstance(event, VotequorumNodelist):
        return (event.ring_id, event.nodes) if event.nodes else None
    if isinstance(event, (TotemChange, NodelistChange, QuorumChange)):
        return (event.ring_id, event.members) if event.members else None
    return None


# -- groups ------------------------------------------------------------------------------------------------------------


def _own_view(member: Member) -> Iterator[Violation]:
    """Each change of the members is told of, and transitions are closed before anything else happens."""
    last: Event | None = None
    open_since: Event | None = None
    for event in member.events:
        what = event.event
        if isinstance(what, TotemChange):
            open_since = None
        elif isinstance(what, Message):
            if open_since is not None:
                text = f"{member} received {what.payload!r} in a transition that no totem change had closed"
                yield Violation(Rule.VIEW_AGREEMENT, text, (open_since, event))
                open_since = None
        elif isinstance(what, ConfigChange):
            yield from _step(member, last, event)
            last = event
            if any(one.reason in {Reason.NODEDOWN, Reason.NODEUP} for one in (*what.joined, *what.left)):
                open_since = event


def _step(member: Member, last: Event | None, event: Event) -> Iterator[Violation]:
    change: ConfigChange = event.event
    joined = {one.address for one in change.joined}
    left = {one.address for one in change.left}
    if last is None:
        if member.address not in joined or member.address not in change.members:
            text = f"the first that {member} was told of its group is not its own join"
            yield Violation(Rule.VIEW_AGREEMENT, text, (event,))
        return
    before: ConfigChange = last.event
    if set(change.members) != (set(before.members) | joined) - left:
        text = f"{member} was told of members that do not follow from those of before, and from who joined and left"
        yield Violation(Rule.VIEW_AGREEMENT, text, (last, event))


def _closed_view(segment: Segment) -> Iterator[Violation]:
    """When the totem change has closed a view, nobody is in it whose node is not in the ring."""
    strangers = sorted({one.nodeid for one in segment.view or () if one.nodeid not in segment.change.members})
    if strangers:
        yield Violation(
            Rule.VIEW_AGREEMENT,
            f"{segment.member} has members on {strangers} in its group, which are not in ring"
            f" {_ring(segment.change.ring_id)}",
            _opening(segment),
        )
