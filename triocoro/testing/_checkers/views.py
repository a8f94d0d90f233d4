"""View agreement: who is in a ring, and who in a group."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from ..._types import ConfigChange, Message, Reason, RingId, TotemChange, show_payload
from .._history.entries import Delivery, Entry
from .members import Member, Segment
from .rings import Rings, show_ring
from .violation import Rule, Violation


def view_violations(history: Iterable[Entry], members: Sequence[Member]) -> Iterator[Violation]:
    """What is wrong with views."""
    yield from Rings().violations(history)
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
                        f"{first.member} and {member} came to the same ring {show_ring(segment.change.ring_id)}"
                        " with different members in the group",
                        (*_opening(first), *_opening(segment)),
                    )


def _opening(segment: Segment) -> tuple[Delivery, ...]:
    """What told the member of the group's members, and of the ring."""
    last: Delivery | None = None
    for event in segment.member.events:
        if event is segment.opening:
            break
        if isinstance(event.event, ConfigChange):
            last = event
    return (segment.opening,) if last is None else (last, segment.opening)


def _own_view(member: Member) -> Iterator[Violation]:
    """Each change of the members is told of, and transitions are closed before anything else happens."""
    last: Delivery | None = None
    open_since: Delivery | None = None
    nodes: Collection[int] = ()
    for event in member.events:
        what = event.event
        if isinstance(what, TotemChange):
            open_since, nodes = None, what.members
        elif isinstance(what, Message):
            if open_since is not None:
                text = f"{member} received {show_payload(what.payload)} in a transition that no totem change had closed"
                yield Violation(Rule.VIEW_AGREEMENT, text, (open_since, event))
                open_since = None
        elif isinstance(what, ConfigChange):
            yield from _step(member, last, event, nodes)
            last = event
            reasons = {one.reason for one in (*what.joined, *what.left)}
            if open_since is not None and reasons & {Reason.JOIN, Reason.LEAVE}:
                text = f"{member} was told that somebody joined or left in a transition that no totem change had closed"
                yield Violation(Rule.VIEW_AGREEMENT, text, (open_since, event))
                open_since = None
            if reasons & {Reason.NODEDOWN, Reason.NODEUP}:
                open_since = event


def _step(member: Member, last: Delivery | None, event: Delivery, nodes: Collection[int]) -> Iterator[Violation]:
    """What is wrong with a change of the group, after the last one, in a ring of these nodes."""
    change: ConfigChange = event.event
    joined = {one.address for one in change.joined}
    left = {one.address for one in change.left}
    if last is None:
        if member.address not in joined or member.address not in change.members:
            text = f"the first that {member} was told of its group is not its own join"
            yield Violation(Rule.VIEW_AGREEMENT, text, (event,))
        return
    before: ConfigChange = last.event
    # Somebody of a node that was not there may have left before the transition is told of (exec/cpg.c, do_proc_leave).
    sure = {one.address for one in change.left if one.reason is Reason.NODEDOWN or one.address.nodeid in nodes}
    if joined & set(before.members) or sure - set(before.members):
        text = f"{member} was told that somebody joined who was a member, or left who was none"
        yield Violation(Rule.VIEW_AGREEMENT, text, (last, event))
    elif set(change.members) != (set(before.members) | joined) - left:
        text = f"{member} was told of members that do not follow from those of before, and from who joined and left"
        yield Violation(Rule.VIEW_AGREEMENT, text, (last, event))


def _closed_view(segment: Segment) -> Iterator[Violation]:
    """When the totem change has closed a view, nobody is in it whose node is not in the ring."""
    strangers = sorted({one.nodeid for one in segment.view or () if one.nodeid not in segment.change.members})
    if strangers:
        yield Violation(
            Rule.VIEW_AGREEMENT,
            f"{segment.member} has members on {strangers} in its group, which are not in ring"
            f" {show_ring(segment.change.ring_id)}",
            _opening(segment),
        )
