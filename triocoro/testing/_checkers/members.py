"""The members of process groups, reconstructed from a history: what each one sent, and what it delivered in each ring.

A member is one handle of one client, from its join to its own leave. Its ring is the one of its last totem change;
before the first totem change the ring is unknown.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, cast

import attrs

from ..._enums import Reason
from ..._types import Address, ConfigChange, MemberChange, Message, MessageLost, RingId, TotemChange
from .._history.entries import SENDS, Call, Delivery, Entry, Return
from .refusals import refusals

_TRANSITIONAL = (Reason.NODEDOWN, Reason.NODEUP)

Key: TypeAlias = "tuple[Address, bytes] | tuple[Address, ...]"
"""Identifies an ordered event at all members: a message's sender and payload, or the members after a change."""


@attrs.define(eq=False)
class Send:
    """A message that a member sent, or tried to send."""

    call: Call
    payload: bytes
    position: int
    """The index of the call in the history."""
    certain: bool = False
    """Whether the message was certainly sent: the sender was a member, and the call returned."""


@attrs.define(eq=False)
class OrderedEvent:
    """A message or a change of the group that a member delivered: the events that agreed order covers."""

    delivery: Delivery
    key: Key
    change: ConfigChange | None = None
    """The change; `None` for a message."""


@attrs.define(eq=False)
class Segment:
    """What a member delivered in one ring."""

    member: Member
    opening: Delivery
    """The totem change that opened the ring."""
    position: int
    """The index of the opening in the history."""
    closed_transition: bool
    """Whether the totem change closed a transition; otherwise the member joined, or connected, in this ring."""
    view: tuple[Address, ...] | None
    """The members of the group at the totem change, as far as this member had been told."""
    arrived: frozenset[int] | None
    """The nodes that came with the transition into this ring; `None` if the member started in it."""
    ordered: list[OrderedEvent] = attrs.field(factory=list[OrderedEvent])
    """Messages and regular changes of the group: JOIN, LEAVE and PROCDOWN."""
    parted: frozenset[int] = frozenset()
    """Nodes reported down or up in the transition out of this ring.

    They did not go on with the member. One that is in the next ring all the same was in another ring in between, so the
    two nodes need not have delivered the same messages.
    """
    next: TotemChange | None = None
    """The totem change that opened the next ring."""

    @property
    def change(self) -> TotemChange:
        """The totem change that opened this ring."""
        return cast("TotemChange", self.opening.event)

    @property
    def next_ring(self) -> RingId | None:
        """The ring after this one."""
        return None if self.next is None else self.next.ring_id

    @property
    def messages(self) -> list[OrderedEvent]:
        """The messages among the ordered events."""
        return [ordered for ordered in self.ordered if ordered.change is None]

    @property
    def gone(self) -> frozenset[int]:
        """Nodes of this ring, or reported as parted, that are not in the next ring: nothing more comes from them.

        The totem change is needed to find all of them, because the group's changes only name nodes with members in the
        group.
        """
        return frozenset() if self.next is None else (self.parted | {*self.change.members}) - {*self.next.members}

    @property
    def ends_with_leave(self) -> bool:
        """Whether the member leaves the group in this ring."""
        return self.next is None and self.member.leave is not None

    def add(self, ordered: OrderedEvent, *, in_transition: bool) -> None:
        """Add the member's next event. Changes in a transition only say which nodes part."""
        if ordered.change is not None:
            self.parted |= _parted_nodes(ordered.change)
        if not in_transition:
            self.ordered.append(ordered)

    def goes_with(self, other: Segment) -> bool:
        """Whether both members go from this ring to the same next one together."""
        return (
            self.next_ring is not None
            and self.change.ring_id == other.change.ring_id
            and self.next_ring == other.next_ring
            and self.member.address.nodeid not in other.parted
            and other.member.address.nodeid not in self.parted
        )


@attrs.define(eq=False)
class Member:
    """A CPG handle that joined a group, or tried to."""

    client: str
    address: Address
    group: bytes
    sends: list[Send] = attrs.field(factory=list[Send])
    deliveries: list[Delivery] = attrs.field(factory=list[Delivery])
    """What was delivered to it, up to its own leave."""
    positions: list[int] = attrs.field(factory=list[int])
    """The index of each delivery in the history."""
    lost: Counter[bytes] = attrs.field(factory=Counter[bytes])
    """The client's own messages that were reported to it as lost."""
    leave: Delivery | None = None
    """The change by which it left."""
    segments: list[Segment] = attrs.field(factory=list[Segment])

    def __str__(self) -> str:
        return f"{self.client!r} ({show(self.address)})"


def show(address: Address) -> str:
    """An address as part of a sentence."""
    return f"node {address.nodeid}, pid {address.pid}"


def members(history: Sequence[Entry]) -> list[Member]:
    """All members of all groups, in the order in which they connected."""
    return [member for handle in _handles(history) if (member := _member(handle)) is not None]


# -- from entries to handles -------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class _CpgHandle:
    """What a CPG handle did and was told, while the history is being read."""

    client: str
    address: Address
    group: bytes | None = None
    joined: bool = False
    leaving: bool = False
    sends: list[Send] = attrs.field(factory=list[Send])
    deliveries: list[Delivery] = attrs.field(factory=list[Delivery])
    positions: list[int] = attrs.field(factory=list[int])
    lost: Counter[bytes] = attrs.field(factory=Counter[bytes])


def _handles(history: Sequence[Entry]) -> Iterable[_CpgHandle]:
    reader = _Reader(refusals(history))
    for position, entry in enumerate(history):
        if isinstance(entry, Delivery):
            reader.read_delivery(entry, position)
        elif isinstance(entry, Call):
            reader.read_call(entry, position)
        elif isinstance(entry, Return):
            reader.read_return(entry)
    return reader.handles.values()


class _Reader:
    """Reads a history and collects its CPG handles."""

    def __init__(self, refused: set[tuple[str, int]]) -> None:
        self._refused = refused
        self.handles: dict[tuple[str, int], _CpgHandle] = {}
        self._losses: dict[str, Counter[bytes]] = {}
        self._calls: dict[tuple[str, int], tuple[Call, list[Send]]] = {}

    def read_delivery(self, delivery: Delivery, position: int) -> None:
        handle = self.handles.get((delivery.client, delivery.handle))
        if handle is not None:
            handle.deliveries.append(delivery)
            handle.positions.append(position)
        elif isinstance(delivery.event, MessageLost):
            self._losses_of(delivery.client)[delivery.event.payload] += 1

    def read_call(self, call: Call, position: int) -> None:
        handle = self.handles.get((call.client, call.handle))
        refused_join = call.function == "join" and (call.client, call.number) in self._refused
        sends = [] if handle is None or refused_join else _begin(handle, call, position)
        self._calls[call.client, call.number] = call, sends

    def read_return(self, entry: Return) -> None:
        key = entry.client, entry.handle
        call, sends = self._calls.pop((entry.client, entry.number), (None, list[Send]()))
        if call is None:
            return
        if call.function == "connect_cpg":
            self.handles[key] = _CpgHandle(entry.client, entry.result, lost=self._losses_of(entry.client))
        elif key in self.handles:
            handle = self.handles[key]
            handle.joined = handle.joined or call.function == "join"
            for send in sends:
                send.certain = handle.joined and not handle.leaving

    def _losses_of(self, client: str) -> Counter[bytes]:
        return self._losses.setdefault(client, Counter())


def _begin(handle: _CpgHandle, call: Call, position: int) -> list[Send]:
    """Note that a call begins; returns the messages that it sends."""
    if call.function == "join":
        handle.group = call.arguments["group"]
    elif call.function in {"leave", "close"}:
        handle.leaving = True
    if call.function not in SENDS:
        return []
    arguments = call.arguments
    payloads: Sequence[bytes] = arguments.get("payloads") or (arguments.get("payload", b""),)
    sends = [Send(call, payload, position) for payload in payloads]
    handle.sends += sends
    return sends


# -- from handles to members and their rings ---------------------------------------------------------------------------


def _member(handle: _CpgHandle) -> Member | None:
    if handle.group is None:
        return None
    member = Member(handle.client, handle.address, handle.group, handle.sends, lost=handle.lost)
    for delivery, position in zip(handle.deliveries, handle.positions, strict=True):
        member.deliveries.append(delivery)
        member.positions.append(position)
        if isinstance(delivery.event, ConfigChange) and _is_among(member.address, delivery.event.left):
            member.leave = delivery
            break
    member.segments = list(_segments(member))
    return member


def _is_among(address: Address, changes: Iterable[MemberChange]) -> bool:
    return any(change.address == address for change in changes)


def _superseded(deliveries: Sequence[Delivery]) -> set[int]:
    """The indices of totem changes that another one of the same ring follows: only the last one counts."""
    changes = [index for index, delivery in enumerate(deliveries) if isinstance(delivery.event, TotemChange)]
    return {
        index
        for index, following in itertools.pairwise(changes)
        if deliveries[index].event.ring_id == deliveries[following].event.ring_id
    }


def _segments(member: Member) -> Iterator[Segment]:
    """Split what a member delivered by ring."""
    superseded = _superseded(member.deliveries)
    segment: Segment | None = None
    view: tuple[Address, ...] | None = None
    own_join: OrderedEvent | None = None  # set while it is the latest event
    last_totem_change: TotemChange | None = None
    in_transition = False
    for index, delivery in enumerate(member.deliveries):
        event = delivery.event
        if not isinstance(event, TotemChange):
            ordered = _ordered(delivery)
            own_join = ordered if view is None and ordered.change is not None else None
            if ordered.change is not None:
                view = ordered.change.members
                in_transition = in_transition or bool(_parted_nodes(ordered.change))
            if segment is not None:
                segment.add(ordered, in_transition=in_transition)
            continue
        if index not in superseded:
            closed_transition = view is not None and last_totem_change is not None and event != last_totem_change
            arrived: frozenset[int] | None = None
            if segment is not None:
                segment.next = event
                yield segment
                if closed_transition:
                    arrived = segment.parted | frozenset(event.members) - frozenset(segment.change.members)
            segment = Segment(member, delivery, member.positions[index], closed_transition, view, arrived)
            if own_join is not None and not closed_transition:
                segment.ordered.append(own_join)
            in_transition = False
        last_totem_change, own_join = event, None
    if segment is not None:
        yield segment


def _ordered(delivery: Delivery) -> OrderedEvent:
    event = delivery.event
    if isinstance(event, Message):
        return OrderedEvent(delivery, (event.sender, event.payload))
    change = cast("ConfigChange", event)
    return OrderedEvent(delivery, change.members, change)


def _parted_nodes(change: ConfigChange) -> frozenset[int]:
    """Nodes that go down or come up in a change. Such a change is part of a transition, which a totem change closes."""
    return frozenset(one.address.nodeid for one in (*change.left, *change.joined) if one.reason in _TRANSITIONAL)
