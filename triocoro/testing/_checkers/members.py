"""The memberships of process groups in a history: what each member sent, and what it delivered in which ring.

A member is one handle of one client from its join to its own leave. Its ring is that of its last totem change; before
the first one, nothing is known.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, cast

import attrs

from ..._types import Address, ConfigChange, Message, MessageLost, Reason, RingId, TotemChange
from .._history.entries import Call, Delivery, Entry, Return
from .refusals import refusals

_SENDS = ("multicast", "multicast_fragmented", "zcb_mcast_joined")
_PARTING = (Reason.NODEDOWN, Reason.NODEUP)

Key: TypeAlias = "tuple[Address, bytes] | tuple[Address, ...]"
"""What is the same at all members: a message's sender and payload, or the members after a change."""


@attrs.define(eq=False)
class Send:
    """A message that somebody sent, or tried to."""

    call: Call
    payload: bytes
    position: int
    """Where the call is in the history."""
    certain: bool = False
    """The member was one, and the call returned."""


@attrs.define(eq=False)
class GroupDelivery:
    """A message or a change of the group that a member was told of."""

    event: Delivery
    key: Key
    change: ConfigChange | None = None


@attrs.define(eq=False)
class Segment:
    """What a member delivered in one ring."""

    member: Member
    opening: Delivery
    """Its totem change."""
    closing: bool
    """Whether that closed a transition; else the member joined in this ring, or its client connected in it."""
    view: tuple[Address, ...] | None
    """Who was in the group then, as far as the member was told."""
    deliveries: list[GroupDelivery] = attrs.field(factory=list[GroupDelivery])
    """Messages and regular changes of the group: JOIN, LEAVE and PROCDOWN."""
    parted: frozenset[int] = frozenset()
    """Nodes that were reported down, or up, in the transition out of this ring: they do not go along."""
    next: TotemChange | None = None
    """The one that closed it."""

    @property
    def change(self) -> TotemChange:
        """The totem change that opened it."""
        return cast("TotemChange", self.opening.event)

    @property
    def next_ring(self) -> RingId | None:
        """The ring after it."""
        return None if self.next is None else self.next.ring_id

    @property
    def messages(self) -> list[GroupDelivery]:
        """The messages."""
        return [delivery for delivery in self.deliveries if delivery.change is None]

    @property
    def gone(self) -> frozenset[int]:
        """Nodes that do not go along, and did not come back in the same transition.

        Of a node that had no member in the group, only the totem change tells.
        """
        return frozenset() if self.next is None else (self.parted | {*self.change.members}) - {*self.next.members}

    @property
    def ends_with_leave(self) -> bool:
        """Whether the member leaves in it."""
        return self.next is None and self.member.leave is not None

    def add(self, delivery: GroupDelivery, *, in_transition: bool) -> None:
        """Add what the member was told of next; what comes in a transition is the transition itself."""
        if delivery.change is not None:
            self.parted |= _parted(delivery.change)
        if not in_transition:
            self.deliveries.append(delivery)

    def goes_with(self, other: Segment) -> bool:
        """Whether the two members go together from this ring to the next."""
        return (
            self.next_ring is not None
            and self.change.ring_id == other.change.ring_id
            and self.next_ring == other.next_ring
            and self.member.address.nodeid not in other.parted
            and other.member.address.nodeid not in self.parted
        )


@attrs.define(eq=False)
class Member:
    """A handle of CPG that has joined a group, or asked to."""

    client: str
    address: Address
    group: bytes
    sends: list[Send] = attrs.field(factory=list[Send])
    events: list[Delivery] = attrs.field(factory=list[Delivery])
    """What it was told, to its own leave."""
    positions: list[int] = attrs.field(factory=list[int])
    """Where these are in the history."""
    lost: Counter[bytes] = attrs.field(factory=Counter[bytes])
    """Own messages of which the client was told that they are lost."""
    leave: Delivery | None = None
    """Its own leave."""
    segments: list[Segment] = attrs.field(factory=list[Segment])

    def __str__(self) -> str:
        return f"{self.client!r} ({show(self.address)})"


def show(address: Address) -> str:
    """Who that is, in a sentence."""
    return f"node {address.nodeid}, pid {address.pid}"


@attrs.define(eq=False)
class _Handle:
    """A handle of CPG while the history is read."""

    client: str
    address: Address
    group: bytes | None = None
    joined: bool = False
    leaving: bool = False
    sends: list[Send] = attrs.field(factory=list[Send])
    events: list[Delivery] = attrs.field(factory=list[Delivery])
    positions: list[int] = attrs.field(factory=list[int])
    lost: Counter[bytes] = attrs.field(factory=Counter[bytes])


def members(history: Sequence[Entry]) -> list[Member]:
    """All members of all groups, in the order of their connecting."""
    return [member for handle in _handles(history) if (member := _member(handle)) is not None]


def _handles(history: Sequence[Entry]) -> Iterable[_Handle]:
    reader = _Reader(refusals(history))
    for position, entry in enumerate(history):
        if isinstance(entry, Delivery):
            reader.event(entry, position)
        elif isinstance(entry, Call):
            reader.call(entry, position)
        elif isinstance(entry, Return):
            reader.answer(entry)
    return reader.handles.values()


class _Reader:
    """Reads a history, and finds the handles of CPG in it."""

    def __init__(self, refused: set[tuple[str, int]]) -> None:
        self._refused = refused
        self.handles: dict[tuple[str, int], _Handle] = {}
        self._losses: dict[str, Counter[bytes]] = {}
        self._calls: dict[tuple[str, int], tuple[Call, list[Send]]] = {}

    def event(self, event: Delivery, position: int) -> None:
        handle = self.handles.get((event.client, event.handle))
        if handle is not None:
            handle.events.append(event)
            handle.positions.append(position)
        elif isinstance(event.event, MessageLost):
            self._losses_of(event.client)[event.event.payload] += 1

    def call(self, call: Call, position: int) -> None:
        handle = self.handles.get((call.client, call.handle))
        refused_join = call.function == "join" and (call.client, call.number) in self._refused
        sends = [] if handle is None or refused_join else _begin(handle, call, position)
        self._calls[call.client, call.number] = call, sends

    def answer(self, answer: Return) -> None:
        key = answer.client, answer.handle
        call, sends = self._calls.pop((answer.client, answer.number), (None, list[Send]()))
        if call is None:
            return
        if call.function == "connect_cpg":
            self.handles[key] = _Handle(answer.client, answer.result, lost=self._losses_of(answer.client))
        elif key in self.handles:
            handle = self.handles[key]
            handle.joined = handle.joined or call.function == "join"
            for send in sends:
                send.certain = handle.joined and not handle.leaving

    def _losses_of(self, client: str) -> Counter[bytes]:
        return self._losses.setdefault(client, Counter())


def _begin(handle: _Handle, call: Call, position: int) -> list[Send]:
    """A call begins; returns what it sends."""
    if call.function == "join":
        handle.group = call.arguments["group"]
    elif call.function in {"leave", "close"}:
        handle.leaving = True
    if call.function not in _SENDS:
        return []
    arguments = call.arguments
    payloads: Sequence[bytes] = arguments.get("payloads") or (arguments.get("payload", b""),)
    begun = [Send(call, payload, position) for payload in payloads]
    handle.sends += begun
    return begun


def _member(handle: _Handle) -> Member | None:
    if handle.group is None:
        return None
    member = Member(handle.client, handle.address, handle.group, handle.sends, lost=handle.lost)
    for event, position in zip(handle.events, handle.positions, strict=True):
        member.events.append(event)
        member.positions.append(position)
        if isinstance(event.event, ConfigChange) and _names(event.event.left, member.address):
            member.leave = event
            break
    member.segments = list(_segments(member))
    return member


def _names(changes: Iterable[object], address: Address) -> bool:
    return any(getattr(change, "address", None) == address for change in changes)


def _superseded(events: Sequence[Delivery]) -> set[int]:
    """The totem changes that another one of the same ring follows: they are not the ones that count."""
    changes = [index for index, event in enumerate(events) if isinstance(event.event, TotemChange)]
    return {
        index
        for index, following in itertools.pairwise(changes)
        if events[index].event.ring_id == events[following].event.ring_id
    }


def _segments(member: Member) -> Iterator[Segment]:
    """What the member delivered, ring by ring."""
    superseded = _superseded(member.events)
    segment: Segment | None = None
    view: tuple[Address, ...] | None = None
    join: GroupDelivery | None = None  # the own one, if it was the latest event
    before: TotemChange | None = None
    in_transition = False
    for index, event in enumerate(member.events):
        what = event.event
        if not isinstance(what, TotemChange):
            delivery = _delivery(event)
            join = delivery if view is None and delivery.change is not None else None
            if delivery.change is not None:
                view = delivery.change.members
                in_transition = in_transition or _parts(delivery.change)
            if segment is not None:
                segment.add(delivery, in_transition=in_transition)
            continue
        if index not in superseded:
            if segment is not None:
                segment.next = what
                yield segment
            closing = view is not None and before is not None and what != before
            segment = Segment(member, event, closing, view)
            if join is not None and not closing:
                segment.deliveries.append(join)
            in_transition = False
        before, join = what, None
    if segment is not None:
        yield segment


def _delivery(event: Delivery) -> GroupDelivery:
    what = event.event
    if isinstance(what, Message):
        return GroupDelivery(event, (what.sender, what.payload))
    change = cast("ConfigChange", what)
    return GroupDelivery(event, change.members, change)


def _parts(change: ConfigChange) -> bool:
    """Whether it is part of a transition, which a totem change will close."""
    return any(one.reason in _PARTING for one in (*change.joined, *change.left))


def _parted(change: ConfigChange) -> frozenset[int]:
    """The nodes that do not come from our ring to the next: they are gone, or come from elsewhere."""
    return frozenset(one.address.nodeid for one in (*change.left, *change.joined) if one.reason in _PARTING)
