"""Agreed total order and virtual synchrony: what two members delivered, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import attrs

from ..._types import Address, Message, RingId, show_payload
from .._history.entries import Delivery
from .members import GroupDelivery, Key, Member, Segment, show
from .messages import Messages
from .rings import show_ring
from .violation import Rule, Violation


@attrs.define(eq=False)
class _Sequence:
    """What a member delivered in one ring, prepared for comparing."""

    segment: Segment
    keys: list[Key]
    unique: dict[Key, int]
    """Where what cannot be mistaken for something else is."""

    @property
    def member(self) -> Member:
        return self.segment.member

    @property
    def deliveries(self) -> list[GroupDelivery]:
        return self.segment.deliveries


def order_violations(members: Sequence[Member], messages: Messages) -> Iterator[Violation]:
    """What is wrong with the order, and with who has delivered what."""
    by_ring: dict[tuple[bytes, RingId], list[_Sequence]] = {}
    for member in members:
        for segment in member.segments:
            if segment.view is not None or segment.deliveries:
                key = (member.group, segment.change.ring_id)
                by_ring.setdefault(key, []).append(_sequence(segment, messages))
    for sequences in by_ring.values():
        yield from _total_order(sequences)
        yield from _virtual_synchrony([sequence.segment for sequence in sequences])


def _sequence(segment: Segment, messages: Messages) -> _Sequence:
    keys = [delivery.key for delivery in segment.deliveries]
    counts = Counter(keys)
    group = segment.member.group

    def is_unique(delivery: GroupDelivery) -> bool:
        # The same members may come together repeatedly; only a message is unmistakable.
        if delivery.change is not None or counts[delivery.key] > 1:
            return False
        what: Message = delivery.event.event
        return (messages.times_sent(group, what.sender, what.payload) or 1) == 1

    unique = {delivery.key: index for index, delivery in enumerate(segment.deliveries) if is_unique(delivery)}
    return _Sequence(segment, keys, unique)


def _total_order(sequences: Sequence[_Sequence]) -> Iterator[Violation]:
    # One that misses something misses it in comparison with everybody else, too.
    told: set[object] = set()
    for one, other in combinations(sequences, 2):
        for subject, violation in _compare(one, other):
            if told.isdisjoint(subject):
                yield violation
            told.update(subject)


def _compare(one: _Sequence, other: _Sequence) -> Iterator[tuple[set[object], Violation]]:
    """What is wrong between two members, from what they first have in common to the last; and what it is about."""
    if one.keys == other.keys:
        return
    # Where both began with the ring, that is what they have in common.
    both_began = one.segment.closing and other.segment.closing
    last = (-1, -1) if both_began else None
    for key, here in one.unique.items():
        there = other.unique.get(key)
        if there is None:
            continue
        if last is not None and there <= last[1]:
            before = one.deliveries[last[0]]
            text = (
                f"{one.member} had {_what(before)} before {_what(one.deliveries[here])},"
                f" and {other.member} the other way round"
            )
            events = (before, one.deliveries[here], other.deliveries[there], other.deliveries[last[1]])
            evidence = tuple(delivery.event for delivery in events)
            yield {key, before.key}, Violation(Rule.TOTAL_ORDER, text, evidence)
            return
        if last is not None:
            yield from _gaps(one, other, last, (here, there))
        last = here, there


def _gaps(
    one: _Sequence, other: _Sequence, last: tuple[int, int], this: tuple[int, int]
) -> Iterator[tuple[set[object], Violation]]:
    """What is wrong between two common messages: that something is missing, or in another order."""
    mine = one.deliveries[last[0] + 1 : this[0]]
    theirs = other.deliveries[last[1] + 1 : this[1]]
    if [delivery.key for delivery in mine] == [delivery.key for delivery in theirs]:
        return
    after = (one.deliveries[this[0]], other.deliveries[this[1]])
    missing = False
    for has, lacks, here, there, (until, instead) in (
        (one, other, mine, theirs, after),
        (other, one, theirs, mine, after[::-1]),
    ):
        for delivery in _surplus(here, there):
            missing = True
            rest = lacks.deliveries[(this[1] if lacks is other else this[0]) :]
            if not _is_excused(delivery, has.segment, lacks.segment, rest):
                text = f"{lacks.member} missed {_what(delivery)}, which {has.member} had before {_what(until)}"
                evidence = (delivery.event, until.event, instead.event)
                yield {(lacks.member.client, delivery.key)}, Violation(Rule.TOTAL_ORDER, text, evidence)
    if not missing:
        first, second = next(pair for pair in zip(mine, theirs, strict=True) if pair[0].key != pair[1].key)
        text = f"{one.member} had {_what(first)} where {other.member} had {_what(second)}, and that one later"
        events = (first.event, after[0].event, second.event, after[1].event)
        yield {first.key, second.key}, Violation(Rule.TOTAL_ORDER, text, events)


def _surplus(here: Iterable[GroupDelivery], there: Iterable[GroupDelivery]) -> Iterator[GroupDelivery]:
    """What is here more often than there, each once."""
    surplus = Counter(delivery.key for delivery in here)
    surplus.subtract(delivery.key for delivery in there)
    for delivery in here:
        if surplus.pop(delivery.key, 0) > 0:
            yield delivery


def _is_excused(delivery: GroupDelivery, has: Segment, lacks: Segment, rest: Iterable[GroupDelivery]) -> bool:
    """Whether the loss goes with a node that was cut off, and took its own messages along.

    At the end of a ring totem leaves out what is missing, and what comes from nodes that do not go along
    (exec/totemsrp.c, messages_deliver_to_app). So there is nothing more of that node in the rest, unless it came back
    at once: what it sends in the new ring may come before the transition is told of. Whoever leaves may do so just
    there, and is told of no node that is down any more; of one without known members, nobody is. Members on one node
    are told the same, however the ring ends.
    """
    if has.member.address.nodeid == lacks.member.address.nodeid or has.goes_with(lacks):
        return False
    nodes = _authors(delivery)
    if lacks.ends_with_leave:
        nodes -= {lacks.member.address.nodeid}
    else:
        nodes &= lacks.parted | lacks.gone | _elsewhere(has, lacks)
    if not nodes:
        return False
    gone = nodes if lacks.ends_with_leave else nodes & lacks.gone
    return not gone or all(gone.isdisjoint(_authors(later)) for later in rest)


def _elsewhere(one: Segment, other: Segment) -> frozenset[int]:
    """The nodes that go with `one` to a ring which is there before the next one of `other`."""
    if one.next is None or other.next is None or one.next.ring_id.seq >= other.next.ring_id.seq:
        return frozenset()
    return frozenset(one.next.members)


def _authors(delivery: GroupDelivery) -> frozenset[int]:
    """The nodes that it comes from."""
    if delivery.change is None:
        message: Message = delivery.event.event
        return frozenset({message.sender.nodeid})
    return frozenset(one.address.nodeid for one in (*delivery.change.joined, *delivery.change.left))


def _virtual_synchrony(segments: Sequence[Segment]) -> Iterator[Violation]:
    told: set[object] = set()
    for one, other in combinations([segment for segment in segments if segment.next is not None], 2):
        pair = _common_part(one, other) if one.goes_with(other) else None
        if pair is None or one.next_ring is None:
            continue
        for has, lacks, mine, theirs in ((one, other, *pair), (other, one, pair[1], pair[0])):
            for delivery in _surplus(mine, theirs):
                subject = (lacks.member.client, delivery.key)
                if subject not in told:
                    told.add(subject)
                    yield Violation(
                        Rule.VIRTUAL_SYNCHRONY,
                        f"{has.member} and {lacks.member} went together from ring {show_ring(one.change.ring_id)} to"
                        f" ring {show_ring(one.next_ring)}, but only the first had {_what(delivery)} in between",
                        (delivery.event, *_ends(has), *_ends(lacks)),
                    )


def _common_part(one: Segment, other: Segment) -> tuple[list[GroupDelivery], list[GroupDelivery]] | None:
    """What messages each had while both were in the group; `None` where that cannot be told."""
    if one.closing and other.closing and one.view and other.view:
        return one.messages, other.messages
    for late, early in ((one, other), (other, one)):
        index = _join_of(late.member.address, early)
        if index is not None:
            rest = [delivery for delivery in early.deliveries[index + 1 :] if delivery.change is None]
            pair = late.messages, rest
            return pair if late is one else (rest, late.messages)
    return None


def _join_of(address: Address, segment: Segment) -> int | None:
    """Where a member heard of another one's join."""
    for index in range(len(segment.deliveries) - 1, -1, -1):
        change = segment.deliveries[index].change
        if change is not None and any(one.address == address for one in change.joined):
            return index
    return None


def _ends(segment: Segment) -> tuple[Delivery, ...]:
    """The totem changes before and after."""
    events = segment.member.events
    start = next(index for index, event in enumerate(events) if event is segment.opening)
    end = next(
        event
        for event in events[start + 1 :]
        if getattr(event.event, "ring_id", segment.change.ring_id) != segment.change.ring_id
    )
    return segment.opening, end


def _what(delivery: GroupDelivery) -> str:
    if delivery.change is not None:
        return f"the change to {len(delivery.change.members)} members"
    message: Message = delivery.event.event
    return f"{show_payload(message.payload)} from {show(message.sender)}"
