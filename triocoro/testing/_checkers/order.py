"""Total order and virtual synchrony: what two members delivered, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import attrs

from ..._types import Address, Message, RingId, show_payload
from .._history.entries import Delivery
from .members import Key, Member, OrderedEvent, Segment, show
from .messages import Messages
from .rings import show_ring
from .violation import Rule, Violation


@attrs.define(eq=False)
class _Sequence:
    """What a member delivered in one ring, prepared for comparison."""

    segment: Segment
    keys: list[Key]
    unique: dict[Key, int]
    """Where each event is that cannot be confused with another one."""

    @property
    def member(self) -> Member:
        return self.segment.member

    @property
    def ordered(self) -> list[OrderedEvent]:
        return self.segment.ordered


def order_violations(members: Sequence[Member], messages: Messages) -> Iterator[Violation]:
    """The violations of total order and virtual synchrony."""
    by_ring: dict[tuple[bytes, RingId], list[_Sequence]] = {}
    for member in members:
        for segment in member.segments:
            if segment.view is not None or segment.ordered:
                key = (member.group, segment.change.ring_id)
                by_ring.setdefault(key, []).append(_sequence(segment, messages))
    for sequences in by_ring.values():
        yield from _total_order(sequences)
        yield from _virtual_synchrony([sequence.segment for sequence in sequences])


def _sequence(segment: Segment, messages: Messages) -> _Sequence:
    keys = [ordered.key for ordered in segment.ordered]
    counts = Counter(keys)
    group = segment.member.group

    def is_unique(ordered: OrderedEvent) -> bool:
        # The same members may come together again, so a change is never unmistakable.
        if ordered.change is not None or counts[ordered.key] > 1:
            return False
        message: Message = ordered.delivery.event
        return (messages.times_sent(group, message.sender, message.payload) or 1) == 1

    unique = {ordered.key: index for index, ordered in enumerate(segment.ordered) if is_unique(ordered)}
    return _Sequence(segment, keys, unique)


# -- total order -------------------------------------------------------------------------------------------------------


def _total_order(sequences: Sequence[_Sequence]) -> Iterator[Violation]:
    # A member that misses an event misses it in the comparison with every other member; report it once.
    reported: set[object] = set()
    for one, other in combinations(sequences, 2):
        for subject, violation in _compare(one, other):
            if reported.isdisjoint(subject):
                yield violation
            reported.update(subject)


def _compare(one: _Sequence, other: _Sequence) -> Iterator[tuple[set[object], Violation]]:
    """The violations between two members, from the first to the last message that they share, with their subjects."""
    if one.keys == other.keys:
        return
    # If both started with the ring, that is the first thing they share.
    both_started = one.segment.closed_transition and other.segment.closed_transition
    last = (-1, -1) if both_started else None
    for key, here in one.unique.items():
        there = other.unique.get(key)
        if there is None:
            continue
        if last is not None and there <= last[1]:
            before = one.ordered[last[0]]
            text = (
                f"{one.member} had {_describe(before)} before {_describe(one.ordered[here])},"
                f" and {other.member} the other way round"
            )
            events = (before, one.ordered[here], other.ordered[there], other.ordered[last[1]])
            evidence = tuple(ordered.delivery for ordered in events)
            yield {key, before.key}, Violation(Rule.TOTAL_ORDER, text, evidence)
            return
        if last is not None:
            yield from _gaps(one, other, last, (here, there))
        last = here, there


def _gaps(
    one: _Sequence, other: _Sequence, last: tuple[int, int], this: tuple[int, int]
) -> Iterator[tuple[set[object], Violation]]:
    """The violations between two shared messages: an event is missing, or the order differs."""
    mine = one.ordered[last[0] + 1 : this[0]]
    theirs = other.ordered[last[1] + 1 : this[1]]
    if [ordered.key for ordered in mine] == [ordered.key for ordered in theirs]:
        return
    after = (one.ordered[this[0]], other.ordered[this[1]])
    missing = False
    for has, lacks, here, there, (until, instead) in (
        (one, other, mine, theirs, after),
        (other, one, theirs, mine, after[::-1]),
    ):
        for ordered in _surplus(here, there):
            missing = True
            rest = lacks.ordered[(this[1] if lacks is other else this[0]) :]
            if not _is_excused(ordered, has.segment, lacks.segment, rest):
                text = f"{lacks.member} missed {_describe(ordered)}, which {has.member} had before {_describe(until)}"
                evidence = (ordered.delivery, until.delivery, instead.delivery)
                yield {(lacks.member.client, ordered.key)}, Violation(Rule.TOTAL_ORDER, text, evidence)
    if not missing:
        first, second = next(pair for pair in zip(mine, theirs, strict=True) if pair[0].key != pair[1].key)
        text = f"{one.member} had {_describe(first)} where {other.member} had {_describe(second)}, and that one later"
        events = (first.delivery, after[0].delivery, second.delivery, after[1].delivery)
        yield {first.key, second.key}, Violation(Rule.TOTAL_ORDER, text, events)


def _surplus(here: Iterable[OrderedEvent], there: Iterable[OrderedEvent]) -> Iterator[OrderedEvent]:
    """What is here more often than there, each event once."""
    surplus = Counter(ordered.key for ordered in here)
    surplus.subtract(ordered.key for ordered in there)
    for ordered in here:
        if surplus.pop(ordered.key, 0) > 0:
            yield ordered


def _is_excused(event: OrderedEvent, has: Segment, lacks: Segment, rest: Iterable[OrderedEvent]) -> bool:
    """Whether a member may lack an event because its node was cut off, and took its own messages along.

    At the end of a ring, totem leaves out what is missing and what comes from nodes that do not come along
    (exec/totemsrp.c, messages_deliver_to_app). So nothing more of that node may follow in the rest, unless the node
    came back at once: what it sends in the new ring may be delivered before the transition is announced.

    A member that leaves may do so right then, and is not told about nodes that go down after that. No member is told
    about a node without known members. Members on one node are told the same, however the ring ends.
    """
    if has.member.address.nodeid == lacks.member.address.nodeid or has.goes_with(lacks):
        return False
    nodes = _origins(event)
    if lacks.ends_with_leave:
        nodes -= {lacks.member.address.nodeid}
    else:
        nodes &= lacks.parted | lacks.gone | _nodes_elsewhere(has, lacks)
    if not nodes:
        return False
    gone = nodes if lacks.ends_with_leave else nodes & lacks.gone
    return not gone or all(gone.isdisjoint(_origins(later)) for later in rest)


def _nodes_elsewhere(one: Segment, other: Segment) -> frozenset[int]:
    """The nodes that go with `one` to its next ring, if that ring is older than the next one of `other`."""
    if one.next is None or other.next is None or one.next.ring_id.seq >= other.next.ring_id.seq:
        return frozenset()
    return frozenset(one.next.members)


def _origins(event: OrderedEvent) -> frozenset[int]:
    """The nodes that an event comes from."""
    if event.change is None:
        message: Message = event.delivery.event
        return frozenset({message.sender.nodeid})
    return frozenset(one.address.nodeid for one in (*event.change.joined, *event.change.left))


# -- virtual synchrony -------------------------------------------------------------------------------------------------


def _virtual_synchrony(segments: Sequence[Segment]) -> Iterator[Violation]:
    reported: set[object] = set()
    for one, other in combinations([segment for segment in segments if segment.next is not None], 2):
        pair = _shared_part(one, other) if one.goes_with(other) else None
        if pair is None or one.next_ring is None:
            continue
        for has, lacks, mine, theirs in ((one, other, *pair), (other, one, pair[1], pair[0])):
            for message in _surplus(mine, theirs):
                subject = (lacks.member.client, message.key)
                if subject not in reported:
                    reported.add(subject)
                    yield Violation(
                        Rule.VIRTUAL_SYNCHRONY,
                        f"{has.member} and {lacks.member} went together from ring {show_ring(one.change.ring_id)} to"
                        f" ring {show_ring(one.next_ring)}, but only the first had {_describe(message)} in between",
                        (message.delivery, *_ends(has), *_ends(lacks)),
                    )


def _shared_part(one: Segment, other: Segment) -> tuple[list[OrderedEvent], list[OrderedEvent]] | None:
    """The messages of each member while both were in the group; `None` if the history does not show when that was."""
    if one.closed_transition and other.closed_transition and one.view and other.view:
        return one.messages, other.messages
    for late, early in ((one, other), (other, one)):
        index = _index_of_join(late.member.address, early)
        if index is not None:
            rest = [ordered for ordered in early.ordered[index + 1 :] if ordered.change is None]
            pair = late.messages, rest
            return pair if late is one else (rest, late.messages)
    return None


def _index_of_join(address: Address, segment: Segment) -> int | None:
    """Where in a segment a member's join was last announced."""
    for index in range(len(segment.ordered) - 1, -1, -1):
        change = segment.ordered[index].change
        if change is not None and any(one.address == address for one in change.joined):
            return index
    return None


def _ends(segment: Segment) -> tuple[Delivery, ...]:
    """The totem changes before and after a segment."""
    deliveries = segment.member.deliveries
    start = next(index for index, delivery in enumerate(deliveries) if delivery is segment.opening)
    end = next(
        delivery
        for delivery in deliveries[start + 1 :]
        if getattr(delivery.event, "ring_id", segment.change.ring_id) != segment.change.ring_id
    )
    return segment.opening, end


def _describe(event: OrderedEvent) -> str:
    if event.change is not None:
        return f"the change to {len(event.change.members)} members"
    message: Message = event.delivery.event
    return f"{show_payload(message.payload)} from {show(message.sender)}"
