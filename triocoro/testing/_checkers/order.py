"""Total order and virtual synchrony: what two members delivered, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import attrs

from ..._types import Address, Message, RingId, show_payload
from .._history.entries import Delivery
from .members import Key, Member, OrderedEvent, Segment, show
from .messages import MessageChecker
from .rings import show_ring
from .violation import Rule, Violation


@attrs.define(eq=False)
class _RingLog:
    """What a member delivered in one ring, prepared for comparison."""

    segment: Segment
    keys: list[Key]
    unique: dict[Key, int]
    """The messages that were sent and delivered only once, with their indices in `keys`: they are the same message at
    every member."""

    @property
    def member(self) -> Member:
        return self.segment.member

    @property
    def ordered(self) -> list[OrderedEvent]:
        return self.segment.ordered


def check_order(members: Sequence[Member], messages: MessageChecker) -> Iterator[Violation]:
    """The violations of total order and virtual synchrony."""
    by_ring: dict[tuple[bytes, RingId], list[_RingLog]] = {}
    for member in members:
        for segment in member.segments:
            if segment.view is not None or segment.ordered:
                key = (member.group, segment.change.ring_id)
                by_ring.setdefault(key, []).append(_ring_log(segment, messages))
    for logs in by_ring.values():
        yield from _check_total_order(logs, messages)
        yield from _check_virtual_synchrony([log.segment for log in logs], messages)


def _ring_log(segment: Segment, messages: MessageChecker) -> _RingLog:
    keys = [ordered.key for ordered in segment.ordered]
    counts = Counter(keys)
    group = segment.member.group

    def is_unique(ordered: OrderedEvent) -> bool:
        # A change is never unique: its key is the members after it, and the same members may come together again.
        if ordered.change is not None or counts[ordered.key] > 1:
            return False
        message: Message = ordered.delivery.event
        # None: the sender was not recorded, so only the deliveries can be counted. 0: the message was never sent. That
        # violates integrity, but its deliveries can be compared nevertheless.
        return messages.times_sent(group, message.sender, message.payload) in {None, 0, 1}

    unique = {ordered.key: index for index, ordered in enumerate(segment.ordered) if is_unique(ordered)}
    return _RingLog(segment, keys, unique)


# -- total order -------------------------------------------------------------------------------------------------------


def _check_total_order(logs: Sequence[_RingLog], messages: MessageChecker) -> Iterator[Violation]:
    # A member that misses an event misses it in the comparison with every other member; report it once.
    reported: set[object] = set()
    for one, other in combinations(logs, 2):
        for subject, violation in _check_pair(one, other, messages):
            if reported.isdisjoint(subject):
                yield violation
            reported.update(subject)


def _check_pair(one: _RingLog, other: _RingLog, messages: MessageChecker) -> Iterator[tuple[set[object], Violation]]:
    """Compare two members from the first to the last message that they share.

    Yields each violation with the events that it is about.
    """
    if one.keys == other.keys:
        return
    # If both started with the ring, that is the first thing they share.
    both_started = one.segment.closed_transition and other.segment.closed_transition
    last_shared = (-1, -1) if both_started else None
    for key, index in one.unique.items():
        other_index = other.unique.get(key)
        if other_index is None:
            continue
        if last_shared is not None and other_index <= last_shared[1]:
            before = one.ordered[last_shared[0]]
            text = (
                f"{one.member} had {_describe(before)} before {_describe(one.ordered[index])},"
                f" and {other.member} the other way round"
            )
            events = (before, one.ordered[index], other.ordered[other_index], other.ordered[last_shared[1]])
            evidence = tuple(ordered.delivery for ordered in events)
            yield {key, before.key}, Violation(Rule.TOTAL_ORDER, text, evidence)
            return
        if last_shared is not None:
            yield from _check_between(one, other, last_shared, (index, other_index), messages)
        last_shared = index, other_index


def _check_between(
    one: _RingLog, other: _RingLog, start: tuple[int, int], end: tuple[int, int], messages: MessageChecker
) -> Iterator[tuple[set[object], Violation]]:
    """Compare two members between two messages that they share: is an event missing, or does the order differ?

    Args:
        one: the one member's log.
        other: the other's.
        start: the indices of the first shared message in both logs.
        end: the indices of the next shared message.
        messages: what was sent.
    """
    one_part = one.ordered[start[0] + 1 : end[0]]
    other_part = other.ordered[start[1] + 1 : end[1]]
    if [ordered.key for ordered in one_part] == [ordered.key for ordered in other_part]:
        return
    one_surplus, other_surplus = list(_surplus(one_part, other_part)), list(_surplus(other_part, one_part))
    yield from _check_missing(one, other, one_surplus, end, messages)
    yield from _check_missing(other, one, other_surplus, (end[1], end[0]), messages)
    if not one_surplus and not other_surplus:
        pairs = zip(one_part, other_part, strict=True)
        first, second = next(pair for pair in pairs if pair[0].key != pair[1].key)
        text = f"{one.member} had {_describe(first)} where {other.member} had {_describe(second)}, and that one later"
        events = (first, one.ordered[end[0]], second, other.ordered[end[1]])
        evidence = tuple(ordered.delivery for ordered in events)
        yield {first.key, second.key}, Violation(Rule.TOTAL_ORDER, text, evidence)


def _check_missing(
    has: _RingLog, lacks: _RingLog, missing: Iterable[OrderedEvent], end: tuple[int, int], messages: MessageChecker
) -> Iterator[tuple[set[object], Violation]]:
    """Check that one member has an excuse for each event that only another one delivered.

    Args:
        has: the log of the member that delivered the events.
        lacks: the log of the other one.
        missing: the events.
        end: the indices of the next message that both delivered, in `has` and in `lacks`.
        messages: what was sent.
    """
    until, instead = has.ordered[end[0]], lacks.ordered[end[1]]
    rest = lacks.ordered[end[1] :]
    for event in missing:
        if not _began_before(event, lacks.segment, messages) and not _is_excused(
            event, has.segment, lacks.segment, rest
        ):
            text = f"{lacks.member} missed {_describe(event)}, which {has.member} had before {_describe(until)}"
            evidence = (event.delivery, until.delivery, instead.delivery)
            yield {(lacks.member.client, event.key)}, Violation(Rule.TOTAL_ORDER, text, evidence)


def _surplus(here: Iterable[OrderedEvent], there: Iterable[OrderedEvent]) -> Iterator[OrderedEvent]:
    """What is here more often than there, each event once."""
    surplus = Counter(ordered.key for ordered in here)
    surplus.subtract(ordered.key for ordered in there)
    for ordered in here:
        if surplus.pop(ordered.key, 0) > 0:
            yield ordered


def _is_excused(event: OrderedEvent, has: Segment, lacks: Segment, rest: Iterable[OrderedEvent]) -> bool:
    """Whether a member may lack an event, because the node that sent it did not go on with the member's node.

    At the end of a ring, totem skips messages that are missing, and all later ones of nodes that are not in the next
    ring (exec/totemsrp.c, messages_deliver_to_app). So if the member delivers a later event of the node in this ring,
    it has no excuse. Exception: the node is in the next ring. What it sends there may be delivered before the
    transition is announced.

    Members on the same node, or that go on together, deliver the same. For a member that leaves, any other node may
    have parted: after its leave it is not told of that.

    Args:
        event: what the member lacks.
        has: what a member in the same ring delivered, the event included.
        lacks: what the member itself delivered.
        rest: what it delivered later.
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


def _began_before(event: OrderedEvent, lacks: Segment, messages: MessageChecker) -> bool:
    """Whether the first parts of a message may have come before the member's ring, or its join in that ring.

    Then the member does not get the message. Parts are the fragments of libcpg (lib/cpg.c, cpg_dispatch), and the
    packets of totem (exec/totempg.c, totempg_deliver_fn). The packets matter only if the node that sent them came with
    this ring. Totem also drops whole messages that share a packet with the rest of another one.
    """
    message = event.delivery.event
    if not isinstance(message, Message):
        return False
    node = message.sender.nodeid
    came = node != lacks.member.address.nodeid if lacks.arrived is None else node in lacks.arrived
    sends = messages.sends_before(lacks.member.group, message, lacks.position)
    return any(came or send.call.function == "multicast_fragmented" for send in sends)


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


def _check_virtual_synchrony(segments: Sequence[Segment], messages: MessageChecker) -> Iterator[Violation]:
    reported: set[object] = set()
    for one, other in combinations([segment for segment in segments if segment.next is not None], 2):
        pair = _shared_part(one, other) if one.goes_with(other) else None
        if pair is None or one.next_ring is None:
            continue
        for has, lacks, mine, theirs in ((one, other, *pair), (other, one, pair[1], pair[0])):
            for message in _surplus(mine, theirs):
                subject = (lacks.member.client, message.key)
                if subject not in reported and not _began_before(message, lacks, messages):
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
