"""Rings: what nodes say of who is in them, in all services."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from ..._types import ConfigChange, NodelistChange, QuorumChange, RingId, TotemChange, VotequorumNodelist
from .._history.entries import Call, Delivery, Entry
from .violation import Rule, Violation


def show_ring(ring_id: RingId) -> str:
    """Which ring that is, in a sentence."""
    return f"{ring_id.nodeid}.{ring_id.seq}"


_INITIAL = 2
"""How many events tracking of quorum begins with: a node list and a QuorumChange."""


@attrs.define(eq=False)
class _Handle:
    """What a handle was told of rings."""

    last: Delivery | None = None
    """The latest ring."""
    initial: bool = False
    """Whether that may be the one that is told with the own join."""
    since_join: int | None = None
    """How many events came after the own join."""
    since_track: int | None = None
    """How many events came after tracking was asked for."""

    def count(self, event: Delivery) -> None:
        """Another event."""
        if self.since_join is not None:
            self.since_join += 1
        elif isinstance(event.event, ConfigChange):
            self.since_join = 0
        if self.since_track is not None:
            self.since_track += 1

    def is_quorum_of_old(self, event: Delivery) -> bool:
        """Whether that is how tracking begins in a transition: the ring to come, then quorum in the one before."""
        return (
            self.since_track == _INITIAL
            and isinstance(event.event, QuorumChange)
            and self.last is not None
            and isinstance(self.last.event, NodelistChange)
        )


class Rings:
    """Rings ascend, contain who is told of them, and their ids stand for one set of nodes."""

    def __init__(self) -> None:
        self._nodes: dict[RingId, Delivery] = {}
        self._handles: dict[tuple[str, int], _Handle] = {}
        # Who joins in a transition is told of the new ring with the nodes of the old one, until that is closed: right
        # after its own join, or before that, when it was connected and any group changed (exec/cpg.c,
        # notify_lib_joinlist).
        self._initial: list[Delivery] = []
        # What each node told its clients that a ring had formed, and what it told each handle.
        self._formed: dict[int, dict[RingId, tuple[int, Delivery]]] = {}
        self._told: dict[tuple[str, int], list[tuple[RingId, int, Delivery]]] = {}

    def violations(self, history: Iterable[Entry]) -> Iterator[Violation]:
        """What is wrong."""
        for position, entry in enumerate(history):
            if isinstance(entry, Delivery):
                yield from self._event(entry, position)
            elif isinstance(entry, Call) and entry.function == "trackstart":
                self._handle(entry).since_track = 0
        for told in self._told.values():
            yield from self._gaps(told)
        for event in self._initial:
            if not self._may_be_of_old(event):
                yield from self._one_ring(event)

    def _handle(self, entry: Call | Delivery) -> _Handle:
        return self._handles.setdefault((entry.client, entry.handle), _Handle())

    def _event(self, event: Delivery, position: int) -> Iterator[Violation]:
        handle = self._handle(event)
        handle.count(event)
        told = ring_of(event.event)
        if told is None:
            return
        ring_id, members = told
        if event.node not in members:
            text = f"{event.client!r} was told of ring {show_ring(ring_id)}, in which its own node {event.node} is not"
            yield Violation(Rule.VIEW_AGREEMENT, text, (event,))
        is_totem = isinstance(event.event, TotemChange)
        initial = is_totem and handle.since_join in {None, 1}
        if handle.last is not None:
            before, _ = ring_of(handle.last.event) or told
            if ring_id.seq < before.seq and handle.is_quorum_of_old(event):
                yield from self._one_ring(event)
                return
            if ring_id.seq < before.seq or (ring_id.seq == before.seq and ring_id != before):
                text = f"{event.client!r} came from ring {show_ring(before)} to {show_ring(ring_id)}, which is older"
                yield Violation(Rule.VIEW_AGREEMENT, text, (handle.last, event))
            elif ring_id == before and is_totem and not (initial or handle.initial):
                text = f"{event.client!r} was told twice that ring {show_ring(ring_id)} has formed"
                yield Violation(Rule.VIEW_AGREEMENT, text, (handle.last, event))
        handle.last, handle.initial = event, initial
        if is_totem:
            # Another ring may come between when CPG tells of one and when votequorum does.
            self._told.setdefault((event.client, event.handle), []).append((ring_id, position, event))
        if initial:
            self._initial.append(event)
        else:
            if is_totem:
                self._formed.setdefault(event.node, {}).setdefault(ring_id, (position, event))
            yield from self._one_ring(event)

    def _one_ring(self, event: Delivery) -> Iterator[Violation]:
        ring_id, members = ring_of(event.event) or (RingId(0, 0), ())
        first = self._nodes.setdefault(ring_id, event)
        others = (ring_of(first.event) or (ring_id, members))[1]
        if set(others) != set(members):
            text = (
                f"{first.client!r} and {event.client!r} were told of ring {show_ring(ring_id)} with different nodes,"
                f" {sorted(others)} and {sorted(members)}"
            )
            yield Violation(Rule.VIEW_AGREEMENT, text, (first, event))

    def _gaps(self, told: Sequence[tuple[RingId, int, Delivery]]) -> Iterator[Violation]:
        """Whoever was told of rings before and after one was told of that as well."""
        (oldest, start, first), (newest, end, last) = told[0], told[-1]
        known = {ring_id for ring_id, _, _ in told}
        for ring_id, (position, event) in self._formed.get(first.node, {}).items():
            # A daemon that starts anew may count its rings from the beginning; it does not talk to the same handle.
            meanwhile = start < position < end and oldest.seq < ring_id.seq < newest.seq
            if meanwhile and ring_id not in known:
                text = (
                    f"{first.client!r} was not told of ring {show_ring(ring_id)}, as {event.client!r} on its node was"
                )
                yield Violation(Rule.VIEW_AGREEMENT, text, (first, event, last))

    def _may_be_of_old(self, event: Delivery) -> bool:
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
