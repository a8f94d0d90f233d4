"""View agreement: which nodes are in a ring, and which members in a group."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from ..._enums import Reason
from ..._types import ConfigChange, Message, RingId, TotemChange, show_payload
from .._history.entries import Delivery, Entry
from .members import Member, Segment
from .rings import RingChecker, show_ring
from .violation import Rule, Violation


def check_views(history: Iterable[Entry], members: Sequence[Member]) -> Iterator[Violation]:
    """The violations of view agreement."""
    yield from RingChecker().check(history)
    for member in members:
        yield from _check_own_views(member)
    closed: dict[tuple[bytes, RingId], Segment] = {}
    for member in members:
        for segment in member.segments:
            yield from _check_closed_view(segment)
            if segment.closed_transition:
                first = closed.setdefault((member.group, segment.change.ring_id), segment)
                if first.view != segment.view:
                    yield Violation(
                        Rule.VIEW_AGREEMENT,
                        f"{first.member} and {member} came to the same ring {show_ring(segment.change.ring_id)}"
                        " with different members in the group",
                        (*_opening(first), *_opening(segment)),
                    )


def _opening(segment: Segment) -> tuple[Delivery, ...]:
    """The deliveries that told the member about the group's members and about the ring."""
    last: Delivery | None = None
    for delivery in segment.member.deliveries:
        if delivery is segment.opening:
            break
        if isinstance(delivery.event, ConfigChange):
            last = delivery
    return (segment.opening,) if last is None else (last, segment.opening)


def _check_own_views(member: Member) -> Iterator[Violation]:
    """One member's own views: each follows from the one before, and transitions are closed before anything else."""
    last: Delivery | None = None
    open_since: Delivery | None = None
    nodes: Collection[int] = ()
    for delivery in member.deliveries:
        event = delivery.event
        if isinstance(event, TotemChange):
            open_since, nodes = None, event.members
        elif isinstance(event, Message):
            if open_since is not None:
                text = (
                    f"{member} received {show_payload(event.payload)} in a transition that no totem change had closed"
                )
                yield Violation(Rule.VIEW_AGREEMENT, text, (open_since, delivery))
                open_since = None
        elif isinstance(event, ConfigChange):
            yield from _check_step(member, last, delivery, nodes)
            last = delivery
            reasons = {one.reason for one in (*event.joined, *event.left)}
            if open_since is not None and reasons & {Reason.JOIN, Reason.LEAVE}:
                text = f"{member} was told that a member joined or left in a transition that no totem change had closed"
                yield Violation(Rule.VIEW_AGREEMENT, text, (open_since, delivery))
                open_since = None
            if reasons & {Reason.NODEDOWN, Reason.NODEUP}:
                open_since = delivery


def _check_step(
    member: Member, last: Delivery | None, delivery: Delivery, nodes: Collection[int]
) -> Iterator[Violation]:
    """Check one change of the group against the last one, in a ring of these nodes."""
    change: ConfigChange = delivery.event
    joined = {one.address for one in change.joined}
    left = {one.address for one in change.left}
    if last is None:
        if member.address not in joined or member.address not in change.members:
            text = f"the first that {member} was told of its group is not its own join"
            yield Violation(Rule.VIEW_AGREEMENT, text, (delivery,))
        return
    before: ConfigChange = last.event
    # A process on a node outside the ring may leave before the transition that brings its node is announced
    # (exec/cpg.c, do_proc_leave).
    known = {one.address for one in change.left if one.reason is Reason.NODEDOWN or one.address.nodeid in nodes}
    if joined & set(before.members) or known - set(before.members):
        text = f"{member} was told that a process joined that was a member, or left that was not"
        yield Violation(Rule.VIEW_AGREEMENT, text, (last, delivery))
    elif set(change.members) != (set(before.members) | joined) - left:
        text = f"{member} was told of members that do not follow from those of before, and from who joined and left"
        yield Violation(Rule.VIEW_AGREEMENT, text, (last, delivery))


def _check_closed_view(segment: Segment) -> Iterator[Violation]:
    """Once the totem change has closed a view, all members of the group are on nodes of the ring."""
    strangers = sorted({one.nodeid for one in segment.view or () if one.nodeid not in segment.change.members})
    if strangers:
        yield Violation(
            Rule.VIEW_AGREEMENT,
            f"{segment.member} has members on {strangers} in its group, which are not in ring"
            f" {show_ring(segment.change.ring_id)}",
            _opening(segment),
        )
