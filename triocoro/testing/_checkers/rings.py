"""Rings: every report of a ring, from any service, agrees with the others on its nodes and its order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import attrs

from ..._types import ConfigChange, NodelistChange, QuorumChange, RingId, TotemChange, VotequorumNodelist
from .._history.entries import Call, Delivery, Entry
from .violation import Rule, Violation


def show_ring(ring_id: RingId) -> str:
    """A ring id as part of a sentence."""
    return f"{ring_id.nodeid}.{ring_id.seq}"


_INITIAL_QUORUM_EVENTS = 2
"""Tracking of quorum begins with this many events: a node list and a QuorumChange."""


@attrs.define(eq=False)
class _RingHandle:
    """What a handle was told about rings."""

    last: Delivery | None = None
    """The latest ring."""
    last_is_initial: bool = False
    """Whether that may be the ring that comes with the handle's own join."""
    since_join: int | None = None
    """The number of events since the handle's own join."""
    since_track: int | None = None
    """The number of events since tracking was requested."""

    def count(self, delivery: Delivery) -> None:
        """Count another event."""
        if self.since_join is not None:
            self.since_join += 1
        elif isinstance(delivery.event, ConfigChange):
            self.since_join = 0
        if self.since_track is not None:
            self.since_track += 1

    def is_quorum_of_old_ring(self, delivery: Delivery) -> bool:
        """Whether tracking began in a transition: first comes the new ring, then quorum in the ring before it."""
        return (
            self.since_track == _INITIAL_QUORUM_EVENTS
            and isinstance(delivery.event, QuorumChange)
            and self.last is not None
            and isinstance(self.last.event, NodelistChange)
        )


class RingChecker:
    """Checks reports of rings: rings ascend and contain the node that is told, and an id stands for one set of nodes.

    One report is not reliable: a client that joins in a transition is told the new ring's id with the old ring's nodes
    until the transition is closed. That comes right after its own join, or before it if the client was connected and
    any group changed (exec/cpg.c, notify_lib_joinlist).
    """

    def __init__(self) -> None:
        self._reports: dict[RingId, Delivery] = {}
        """The first report of each ring."""
        self._handles: dict[tuple[str, int], _RingHandle] = {}
        self._initial: list[Delivery] = []
        """The unreliable reports."""
        self._formed: dict[int, dict[RingId, tuple[int, Delivery]]] = {}
        """For each node, the first totem change of each ring, with its position in the history."""
        self._totem_changes: dict[tuple[str, int], list[tuple[RingId, int, Delivery]]] = {}
        """For each handle, its totem changes, with their positions."""

    def check(self, history: Iterable[Entry]) -> Iterator[Violation]:
        """The violations of view agreement between reports of rings."""
        for position, entry in enumerate(history):
            if isinstance(entry, Delivery):
                yield from self._check_delivery(entry, position)
            elif isinstance(entry, Call) and entry.function == "trackstart":
                self._handle(entry).since_track = 0
        for totem_changes in self._totem_changes.values():
            yield from self._check_no_gap(totem_changes)
        for delivery in self._initial:
            if not self._may_have_old_nodes(delivery):
                yield from self._check_same_nodes(delivery)

    def _handle(self, entry: Call | Delivery) -> _RingHandle:
        return self._handles.setdefault((entry.client, entry.handle), _RingHandle())

    def _check_delivery(self, delivery: Delivery, position: int) -> Iterator[Violation]:
        handle = self._handle(delivery)
        handle.count(delivery)
        ring = ring_of(delivery.event)
        if ring is None:
            return
        ring_id, nodes = ring
        if delivery.node not in nodes:
            text = (
                f"{delivery.client!r} was told of ring {show_ring(ring_id)}, in which its own node {delivery.node}"
                " is not"
            )
            yield Violation(Rule.VIEW_AGREEMENT, text, (delivery,))
        is_totem_change = isinstance(delivery.event, TotemChange)
        is_initial = is_totem_change and handle.since_join in {None, 1}
        if handle.last is not None:
            before, _ = ring_of(handle.last.event) or ring
            if ring_id.seq < before.seq and handle.is_quorum_of_old_ring(delivery):
                yield from self._check_same_nodes(delivery)
                return
            if ring_id.seq < before.seq or (ring_id.seq == before.seq and ring_id != before):
                text = f"{delivery.client!r} came from ring {show_ring(before)} to {show_ring(ring_id)}, which is older"
                yield Violation(Rule.VIEW_AGREEMENT, text, (handle.last, delivery))
            elif ring_id == before and is_totem_change and not (is_initial or handle.last_is_initial):
                text = f"{delivery.client!r} was told twice that ring {show_ring(ring_id)} has formed"
                yield Violation(Rule.VIEW_AGREEMENT, text, (handle.last, delivery))
        handle.last, handle.last_is_initial = delivery, is_initial
        if is_totem_change:
            # Only CPG's reports are compared for gaps: another ring may form between CPG's report of one and
            # votequorum's.
            changes = self._totem_changes.setdefault((delivery.client, delivery.handle), [])
            changes.append((ring_id, position, delivery))
        if is_initial:
            self._initial.append(delivery)
        else:
            if is_totem_change:
                self._formed.setdefault(delivery.node, {}).setdefault(ring_id, (position, delivery))
            yield from self._check_same_nodes(delivery)

    def _check_same_nodes(self, delivery: Delivery) -> Iterator[Violation]:
        """Compare a report with the first one of the same ring."""
        ring_id, nodes = ring_of(delivery.event) or (RingId(0, 0), ())
        first = self._reports.setdefault(ring_id, delivery)
        first_nodes = (ring_of(first.event) or (ring_id, nodes))[1]
        if set(first_nodes) != set(nodes):
            text = (
                f"{first.client!r} and {delivery.client!r} were told of ring {show_ring(ring_id)} with different nodes,"
                f" {sorted(first_nodes)} and {sorted(nodes)}"
            )
            yield Violation(Rule.VIEW_AGREEMENT, text, (first, delivery))

    def _check_no_gap(self, totem_changes: Sequence[tuple[RingId, int, Delivery]]) -> Iterator[Violation]:
        """Check that a handle was told of every ring of its node between the first and the last that it was told of."""
        (oldest, start, first), (newest, end, last) = totem_changes[0], totem_changes[-1]
        known = {ring_id for ring_id, _, _ in totem_changes}
        for ring_id, (position, delivery) in self._formed.get(first.node, {}).items():
            # A restarted daemon may count its rings from the beginning, but it does not talk to the same handle.
            meanwhile = start < position < end and oldest.seq < ring_id.seq < newest.seq
            if meanwhile and ring_id not in known:
                text = (
                    f"{first.client!r} was not told of ring {show_ring(ring_id)}, as {delivery.client!r} on its node"
                    " was"
                )
                yield Violation(Rule.VIEW_AGREEMENT, text, (first, delivery, last))

    def _may_have_old_nodes(self, delivery: Delivery) -> bool:
        """Whether an unreliable report may have the nodes of an older ring of its node, as far as is known."""
        ring_id, nodes = ring_of(delivery.event) or (RingId(0, 0), ())
        rings = ((older, (ring_of(other.event) or (older, ()))[1]) for older, other in self._reports.items())
        old = [set(others) for older, others in rings if older.seq < ring_id.seq and delivery.node in others]
        return not old or set(nodes) in old


def ring_of(event: object) -> tuple[RingId, tuple[int, ...]] | None:
    """The ring that an event reports, and its nodes; `None` if there is none, as before a daemon's first ring."""
    if isinstance(event, VotequorumNodelist):
        return (event.ring_id, event.nodes) if event.nodes else None
    if isinstance(event, (TotemChange, NodelistChange, QuorumChange)):
        return (event.ring_id, event.members) if event.members else None
    return None
