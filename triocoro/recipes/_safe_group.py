"""Safe groups: messages that a majority has before anyone receives them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeAlias, final

import attrs

from triocoro import Address, Endpoint, HasEndpoint, SlowConsumerError

from ._electorate import electorate
from ._frames import SAFE_GROUP
from ._member import Member
from ._participant import Participant
from ._validate import checked_integer, checked_payload

DEFAULT_MAX_BUFFERED_BYTES: Final = 64 * 2**20
_EVENT_COST: Final = 256


@final
@attrs.frozen
class Commit:
    """Where a message has its place in the log.

    Attributes:
        epoch: the sequence number of the ring in which it was sent.
        index: its number among all committed messages, from 1 on.
    """

    epoch: int
    index: int


@final
@attrs.frozen
class Delivery:
    """A committed message.

    Attributes:
        sender: the member that sent it.
        payload: what it sent.
        commit: where it has its place.
    """

    sender: Address
    payload: bytes
    commit: Commit


@final
@attrs.frozen
class Missed:
    """Messages that this member will not get: they were committed while it was away, and are no longer kept.

    If `first` is 1 although this member has received messages, others have begun without a part of these: an operator
    has bootstrapped the group, or members on all nodes had no state while this one was away. The log that it has
    received from is discarded, and another one has taken its place. A program must then begin anew, as one does that
    has just started.

    Attributes:
        first: the index of the first one.
        last: the index of the last one; 0 if the other log has none yet.
    """

    first: int
    last: int


SafeEvent: TypeAlias = "Delivery | Missed"


@final
class _Inbox:
    """Committed messages that wait to be received."""

    def __init__(self, max_bytes: int) -> None:
        self.events: deque[SafeEvent] = deque()
        self.overflown: bool = False
        self._max_bytes = max_bytes
        self._bytes = 0
        self._index = 0

    def apply(self, sender: Address, payload: bytes, epoch: int, index: int) -> Commit:
        self._index = index
        commit = Commit(epoch, index)
        self._put(Delivery(sender, payload, commit), len(payload))
        return commit

    def snapshot(self) -> Iterable[bytes]:
        return ()

    def restore(self, _chunks: Iterable[bytes], index: int, *, discards: bool) -> None:
        first = 1 if discards else self._index + 1
        if discards or index >= first:
            self._put(Missed(first, index), 0)
        self._index = index

    def _put(self, event: SafeEvent, size: int) -> None:
        if self.overflown:
            return
        if self._bytes + size + _EVENT_COST > self._max_bytes:
            self.overflown = True
            return
        self._bytes += size + _EVENT_COST
        self.events.append(event)

    def take(self) -> SafeEvent:
        event = self.events.popleft()
        self._bytes -= _EVENT_COST + (len(event.payload) if isinstance(event, Delivery) else 0)
        return event


@final
class SafeGroup(Participant[Commit], AsyncIterator[SafeEvent]):
    """A member of a group with safe delivery. Objects of this class come from `open_safe_group`."""

    def __init__(self, member: Member[Commit], inbox: _Inbox) -> None:
        super().__init__(member)
        self._inbox = inbox

    async def send(self, payload: bytes) -> Commit:
        """Send a message to all members, and wait until it is committed.

        What this does not promise: that any other member has received the message when it returns, or that one that was
        not committed in time never will be (`UncertainError`).

        Returns:
            where it has its place among all committed messages.

        Raises:
            TypeError: the payload is no bytes-like object.
            ValueError: it has more than 512 KiB.
            NotPrimaryError: there is no majority; nothing was sent, and no member will ever get the message.
            UncertainError: the message was sent, and then the majority or the connection was lost.
            trio.ClosedResourceError: the block that opened it has ended; nothing was sent.

        Cancelled: the message may be committed or not.
        """
        return await self._member.submit(checked_payload(payload))

    async def receive(self) -> SafeEvent:
        """Wait for the next committed message, and return it.

        What this does not promise: every message. A member that was away for long gets `Missed` in place of some.

        Returns:
            a `Delivery`, or `Missed` in place of those that this member cannot get.

        Raises:
            SlowConsumerError: messages that waited exceeded `max_buffered_bytes`. Those that fitted come first.
            trio.ClosedResourceError: the block that opened it has ended.

        Cancelled: no message was taken.
        """
        inbox = self._inbox
        await self._member.wait(lambda: bool(inbox.events or inbox.overflown))
        if not inbox.events:
            raise SlowConsumerError(f"{self._member.label}: received more slowly than messages were committed")
        return inbox.take()

    async def __anext__(self) -> SafeEvent:
        return await self.receive()


@asynccontextmanager
async def open_safe_group(
    name: bytes | str,
    *,
    nodes: Mapping[int, int] | Collection[int] | None = None,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[SafeGroup, None]:
    """Join a group whose messages are received only once members on a majority of the nodes have them.

    What this does not promise:

    - Memory is not durable. If members on nodes with a majority of the votes lose theirs, for instance because their
      programs have ended, nothing is committed any more until `bootstrap`; if all members on all nodes do, the group
      begins anew, empty.
    - A message that was not committed when the majority was lost may be committed later: `UncertainError`.
    - A member that was away for long does not get all that it missed: `Missed` says so.
    - A member that stands still holds up no other, but Corosync keeps all messages for it in the daemon's memory,
      without bound. `status` shows it; kill its process.
    - Any process that may connect to Corosync can send to the group. The frames are not signed.

    A message is committed once members on nodes with more than half of the votes have acknowledged it. Quorum as
    Corosync has it decides nothing here. Messages of one sender are committed in the order in which it has sent them;
    all members receive all messages in the same order. The connection is opened again when it is lost, and what this
    member has received or sent until then stays.

    A group begins once members on all nodes are there. After that, a majority suffices. On each node, one member
    votes; if it ends, another one on that node takes its vote.

    Args:
        name: of the group. All its members must be of this kind.
        nodes: the electorate: votes by node, or nodes with a vote each; by default, the node list of corosync.conf with
            its `quorum_votes`. It counts only where a log begins; later, `change_nodes` changes it.
        max_buffered_bytes: the bound for committed messages that wait to be received, in bytes. Each counts for its
            payload and 256 bytes.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        TypeError, ValueError: an argument is none of the above.
        ElectorateError: `nodes` is not given, and corosync.conf has no node list.
        ProtocolError: members that are there speak another version of the protocol.
        others: as `triocoro.open_views`, except that it waits while there is no daemon.

    Cancelled: we are not a member. At the end of the block, what was sent has up to a second to be committed.

    Source: cpg_mcast_joined(3) names safe delivery, and has none.
    """
    inbox = _Inbox(checked_integer(max_buffered_bytes, "max_buffered_bytes"))
    votes = await electorate(name, nodes, endpoint)
    member = Member(name, SAFE_GROUP, votes, inbox, endpoint)
    async with member.taking_part():
        yield SafeGroup(member, inbox)
