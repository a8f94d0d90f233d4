"""The memberships of process groups in a history: what each member sent, and what it delivered in which ring.

A member is one handle of one client from its join to its own leave. Its ring is that of its last totem change; before
the first one, nothing is known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, cast

import attrs

from ..._types import Address, ConfigChange, Message, MessageLost, Reason, RingId, TotemChange
from .._history import Call, Entry, Event, Return

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
class Delivery:
    """A message or a change of the group that a member was told of."""

    event: Event
    key: Key
    change: ConfigChange | None = None


@attrs.define(eq=False)
class Segment:
    """What a member delivered in one ring."""

    member: Member
    opening: Event
    """Its totem change."""
    closing: bool
    """Whether that closed a transition; else the member joined in this ring, or its client connected in it."""
    view: tuple[Address, ...] | None
    """Who was in the group then, as far as the member was told."""
    deliveries: list[Delivery] = attrs.field(factory=list)
    """Messages and regular changes of the group: JOIN, LEAVE and PROCDOWN."""
    parted: frozenset[int] = frozenset()
    """Nodes that were reported down in the transition out of this ring."""
    next: RingId | None = None
    """The ring after it."""

    @property
    def change(self) -> TotemChange:
        """The totem change that opened it."""
        return cast("TotemChange", self.opening.event)

    @property
    def messages(self) -> list[Delivery]:
        """The messages."""
        return [delivery for delivery in self.deliveries if delivery.change is None]

    def goes_with(self, other: Segment) -> bool:
        """Whether the two members go together from this ring to the next."""
        return (
            self.next is not None
            and self.change.ring_id == other.change.ring_id
            and self.next == other.next
            and self.member.address.nodeid not in other.parted
            and other.member.address.nodeid not in self.parted
        )


@attrs.define(eq=False)
class Member:
    """A handle of CPG that has joined a group, or asked to."""

    client: str
    address: Address
    group: bytes
    sends: list[Send] = attrs.field(factory=list)
    events: list[Event] = attrs.field(factory=list)
    """What it was told, to its own leave."""
    positions: list[int] = attrs.field(factory=list)
    """Where these are in the history."""
    lost: Counter[bytes] = attrs.field(factory=Counter)
    """Own messages of which the client was told that they are lost."""
    leave: Event | None = None
    """Its own leave."""
    segments: list[Segment] = attrs.field(factory=list)

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
    sends: list[Send] = attrs.field(factory=list)
    events: list[Event] = attrs.field(factory=list)
    positions: list[int] = attrs.field(factory=list)
    lost: Counter[bytes] = attrs.field(factory=Counter)


def members(history: Iterable[Entry]) -> list[Member]:
    """All members of all groups, in the order of their connecting."""
    return [member for handle in _handles(history) if (member := _member(handle)) is not None]


def _handles(history: Iterable[Entry]) -> Iterable[_Handle]:
    handles: dict[tuple[str, int], _Handle] = {}
    losses: dict[str, Counter[bytes]] = {}
    calls: dict[tuple[str, int], Call] = {}
    sends: dict[tuple[str, int], list[Send]] = {}
    for position, entry in enumerate(history):
        if isinstance(entry, Event):
            handle = handles.get((entry.client, entry.handle))
            if handle is not None:
                handle.events.append(entry)
                handle.positions.append(position)
            elif isinstance(entry.event, MessageLost):
                losses.setdefault(entry.client, Counter())[entry.event.payload] += 1
        elif isinstance(entry, Call):
            calls[entry.client, entry.number] = entry
            handle = handles.get((entry.client, entry.handle))
            if handle is not None:
                sends[entry.client, entry.number] = _begin(handle, entry, position)
        elif isinstance(entry, Return):
            call = calls.get((entry.client, entry.number))
            if call is not None and call.function == "connect_cpg":
                handles[entry.client, entry.handle] = _Handle(
                    entry.client, entry.result, lost=losses.setdefault(entry.client, Counter())
                )
            handle = handles.get((entry.client, entry.handle))
            if handle is not None and call is not None:
                handle.joined = handle.joined or call.function == "join"
                for send in sends.get((entry.client, entry.number), ()):
                    send.certain = handle.joined and not handle.leaving
    return handles.values()


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


def _superseded(events: Sequence[Event]) -> set[int]:
    """The totem changes that another one of the same ring follows: they are not the ones that count."""
    found: set[int] = set()
    last: int | None = None
    for index, event in enumerate(events):
        if isinstance(event.event, TotemChange):
            if last is not None and events[last].event.ring_id == event.event.ring_id:
                found.add(last)
            last = index
    return found


def _segments(member: Member) -> Iterator[Segment]:
    """What the member delivered, ring by ring."""
    superseded = _superseded(member.events)
    segment: Segment | None = None
    view: tuple[Address, ...] | None = None
    join: Delivery | None = None  # the own one, if it was the latest event
    before: TotemChange | None = None
    in_transition = False
    for index, event in enumerate(member.events):
        what = event.event
        if isinstance(what, TotemChange):
            if index not in superseded:
                closing = view is not None and before is not None and what != before
                if segment is not None:
                    segment.next = what.ring_id
                    yield segment
                segment = Segment(member, event, closing, view)
                if join is not None and not closing:
                    segment.deliveries.append(join)
                in_transition = False
            before = what
            join = None
            continue
        delivery = _delivery(event)
        join = None
        if delivery.change is not None:
            if view is None and _names(delivery.change.joined, member.address):
                join = delivery
            view = delivery.change.members
            in_transition = in_transition or _parts(delivery.change)
            if segment is not None:
                segment.parted |= _down(delivery.change)
        if segment is not None and not in_transition:
            segment.deliveries.append(delivery)
    if segment is not None:
        yield segment


def _delivery(event: Event) -> Delivery:
    what = event.event
    if isinstance(what, Message):
        return Delivery(event, (what.sender, what.payload))
    change = cast("ConfigChange", what)
    return Delivery(event, change.members, change)


def _parts(change: ConfigChange) -> bool:
    """Whether it is part of a transition, which a totem change will close."""
    return any(one.reason in _PARTING for one in (*change.joined, *change.left))


def _down(change: ConfigChange) -> frozenset[int]:
    return frozenset(one.address.nodeid for one in change.left if one.reason is Reason.NODEDOWN)
