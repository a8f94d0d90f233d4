"""Views: a group's events and the news of quorum in one stream, joined by the id of the ring.

`Joining` is the part without I/O. The daemon tells CPG's clients of a ring before it tells those of the quorum service,
but these are two connections, so either may be read first. `Joining` is always in one of these states:

=========  ==========================================  ===============================================================
state      it has                                      what ends it
=========  ==========================================  ===============================================================
moving     no ring yet, or members that the change of  a `TotemChange`: undecided
           the ring took along
undecided  a `TotemChange`, and reads no further       a `QuorumChange` of that ring and these nodes: settled;
                                                       of that ring and other nodes, or of a later ring only: moving
settled    a ring whose quorum is known                a `TotemChange`: undecided; a `ConfigChange` because of nodes:
                                                       moving; a `ConfigChange` because of processes: another `View`
=========  ==========================================  ===============================================================

A `View` begins with each arrival in settled from another ring, or with other members. Messages pass in settled. In
moving they are kept for the next `View`; in undecided they wait until it is known whether the ring gets one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from functools import partial
from typing import Final, cast, final

import trio

from ._connection import open_connection
from ._enums import QuorumType, Reason, Track
from ._errors import NotSupportedError
from ._member import DEFAULT_MAX_BUFFERED_BYTES, Member, open_membership
from ._membership import Membership, payload_bytes
from ._services import QUORUM, Endpoint, HasEndpoint
from ._stream import EVENT_COST
from ._types import (
    Address,
    ConfigChange,
    GroupEvent,
    Message,
    MessageLost,
    PrimaryChange,
    QuorumChange,
    QuorumEvent,
    RingId,
    TotemChange,
    View,
    ViewEvent,
)

_OF_NODES: Final = {Reason.NODEDOWN, Reason.NODEUP}
_MESSAGES_ONLY: Final = {Message}


class _State(Enum):
    MOVING = auto()
    UNDECIDED = auto()
    SETTLED = auto()


def _order(ring_id: RingId) -> tuple[int, int]:
    return ring_id.seq, ring_id.nodeid


@final
class Joining:
    """Joins the events of one member's group, totem changes included, with the news of quorum of the same node."""

    def __init__(self) -> None:
        self.held: int = 0
        """How many events are held back."""
        self.held_bytes: int = 0
        """The bytes that they count for in a stream."""
        self._state = _State.MOVING
        self._members: tuple[Address, ...] = ()
        self._together: set[Address] = set()
        self._ring: QuorumChange | None = None  # the latest decision about the latest ring that was settled
        self._undecided: TotemChange | None = None
        self._decisions: dict[RingId, QuorumChange] = {}  # of that ring and later ones
        self._due = True  # a View, as soon as it is settled
        self._seen = False  # whether there has been a View
        self._unread: deque[GroupEvent] = deque()
        self._kept: list[Message | MessageLost] = []

    def on_group(self, events: Sequence[GroupEvent]) -> Sequence[ViewEvent]:
        """Take events of the group; what can be received now."""
        if self._state is _State.SETTLED and _MESSAGES_ONLY.issuperset(map(type, events)):
            return cast("Sequence[Message]", events)
        self._unread.extend(events)
        self._count(events, 1)
        out: list[ViewEvent] = []
        self._read(out)
        return out

    def on_quorum(self, events: Sequence[QuorumEvent]) -> Sequence[ViewEvent]:
        """Take news of quorum; what can be received now."""
        out: list[ViewEvent] = []
        for event in events:
            if isinstance(event, QuorumChange):
                self._decide(event, out)
                self._read(out)
        return out

    def _decide(self, event: QuorumChange, out: list[ViewEvent]) -> None:
        ring = self._ring
        if ring is not None and event.ring_id == ring.ring_id:
            self._ring = event
            if self._seen and event.quorate is not ring.quorate:
                out.append(PrimaryChange(event.ring_id, event.quorate))
        self._decisions[event.ring_id] = event

    def _read(self, out: list[ViewEvent]) -> None:
        """Read events until there are none, or a ring is undecided."""
        while True:
            if self._state is _State.UNDECIDED:
                self._settle()
            if self._state is _State.SETTLED:
                self._begin_view(out)
            if self._state is _State.UNDECIDED or not self._unread:
                return
            event = self._unread.popleft()
            if isinstance(event, ConfigChange):
                self._count((event,), -1)
                self._change_members(event)
            elif isinstance(event, TotemChange):
                self._count((event,), -1)
                self._undecided = event
                self._state = _State.UNDECIDED
            elif self._state is _State.SETTLED:
                self._count((event,), -1)
                out.append(event)
            else:
                self._kept.append(event)

    def _change_members(self, event: ConfigChange) -> None:
        self._members = event.members
        self._together.difference_update(change.address for change in event.left)
        self._due = True
        if any(change.reason in _OF_NODES for change in (*event.left, *event.joined)):
            self._state = _State.MOVING

    def _settle(self) -> None:
        """Leave the state undecided if what is known of quorum allows it."""
        if self._undecided is None:
            raise AssertionError("undecided without a ring")
        ring_id, nodes = self._undecided.ring_id, {*self._undecided.members}
        decision = self._decisions.get(ring_id)
        if decision is not None and {*decision.members} == nodes:
            self._due = self._due or self._ring is None or self._ring.ring_id != ring_id
            self._ring = decision
            self._decisions = {key: it for key, it in self._decisions.items() if _order(key) >= _order(ring_id)}
            self._state = _State.SETTLED
        elif decision is not None or any(_order(key) > _order(ring_id) for key in self._decisions):
            # There will be no news of this ring, or another totem change of it will come.
            self._due = True
            self._state = _State.MOVING

    def _begin_view(self, out: list[ViewEvent]) -> None:
        ring = self._ring
        # The first change of members is that of our own join.
        if not self._due or ring is None or not (self._members or self._seen):
            return
        together = frozenset(self._together)
        out.append(View(ring.ring_id, self._members, frozenset(ring.members), ring.quorate, together))
        self._together = {*self._members}
        self._due = False
        self._seen = True
        out.extend(self._kept)
        self._count(self._kept, -1)
        self._kept.clear()

    def _count(self, events: Sequence[GroupEvent], sign: int) -> None:
        self.held += sign * len(events)
        self.held_bytes += sign * sum(payload_bytes(event) + EVENT_COST for event in events)


@final
class Views(Member[ViewEvent]):
    """A member of a process group that knows its component. Objects of this class come from `open_views`."""

    @property
    def view(self) -> View | None:
        """The latest `View` received; `None` before the first one."""
        return self._membership.component

    # -- receiving -----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> ViewEvent:
        """Wait for the next event and return it. The first is a `View` that we are a member of.

        Raises:
            trio.ClosedResourceError: the group was closed.
            ConnectionLostError: the daemon died. Events that had arrived before are returned first, except for those
                of a ring whose quorum is not known.
            SlowConsumerError: events exceeded `max_buffered_bytes`. Those that fitted are returned first.

        Cancelled: no event was taken.
        """
        return await self._membership.stream.receive()

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, *, max_events: int = 256) -> list[ViewEvent]:
        """Wait for events and return all that have arrived.

        Args:
            max_events: the most events to return.

        Returns:
            at least one event, oldest first.

        Raises: as `receive`.

        Cancelled: no event was taken.
        """
        return await self._membership.stream.receive_batch(max_events=max_events)


@asynccontextmanager
async def open_views(
    name: bytes | str,
    *,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Views, None]:
    """Join a process group, and receive its messages in views: between changes of the members, the ring and quorum.

    What this does not promise:

    - `View.primary` is our own node's opinion. Two sides of a partition may be primary at once, for instance with
      `two_node` or `set_votes`, and of two nodes in one ring only one may be.
    - A node that was paused, or whose daemon is, does not know what it has missed. Its `View` is out of date.
    - That a message was delivered in a view does not say that it was delivered to all members of that view.
    - An `Address` is no identity. A program that starts again may have the same one, and if the daemon forms two rings
      at once, it may even be in `View.together`. Send a random number along where that matters.

    What it promises: the first event is a `View`; a view of a ring comes once this node's quorum in that very ring is
    known, and messages that the daemon delivered in the ring come after it. A ring that another one replaces before
    its quorum is known has no view, and its messages come after the next one. Members that leave or join, the ring
    staying the same, make another `View` of that ring. If quorum changes while the ring stays the same, there is a
    `PrimaryChange`, which comes as soon as it is known and is in no certain order with messages.

    The block starts once the members have agreed on the join. It ends as that of `open_group` does.

    Args:
        name: as for `open_group`.
        max_buffered_bytes: the bound for events that wait to be received, or for their view, in bytes. Each event
            counts for its payload and 256 bytes.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        NotSupportedError: no quorum provider is configured, so that nothing would ever be known about quorum.
        others: as `open_group`.

    Cancelled: we are not a member. If the block is cancelled, the leave completes in the background.

    Source: cpg_overview(3), quorum_overview(3), votequorum(5).
    """
    joining = Joining()
    membership: Membership[ViewEvent]

    def arrange(events: Sequence[GroupEvent]) -> Sequence[ViewEvent]:
        out = joining.on_group(events)
        membership.stream.hold(joining.held, joining.held_bytes)
        return out

    def on_quorum(events: Sequence[QuorumEvent]) -> None:
        out = joining.on_quorum(events)
        membership.stream.hold(joining.held, joining.held_bytes)
        membership.put(out)

    async with open_membership(
        name, arrange, totem_changes=True, receive=True, max_buffered_bytes=max_buffered_bytes, endpoint=endpoint
    ) as membership:
        raw, connection = await open_connection(QUORUM, membership.connection.endpoint)
        connection.lifetime.count_unconfirmed = membership.count_unconfirmed
        async with connection.serving(on_quorum):
            if raw.type is QuorumType.FREE:
                raise NotSupportedError(
                    f"{membership.connection.label} has no quorum provider, so views would never come;"
                    " add quorum { provider: corosync_votequorum } to corosync.conf and restart Corosync, or use"
                    " open_group",
                    function="quorum_model_initialize",
                )
            # Before the join: quorum of the ring in which we join is known, or will be told.
            await connection.requests.run(partial(raw.trackstart, Track.CHANGES))
            await membership.join()
            yield Views(membership)
