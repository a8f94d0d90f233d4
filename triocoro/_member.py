"""A member of a process group: what `Group` and `Views` have in common, which is all but what they receive."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

import attrs
import trio

from . import _validate
from ._connection import open_connection
from ._gathering import gather, gather_each
from ._membership import Membership
from ._services import CpgSpec, Endpoint, HasEndpoint
from ._settling import private_group
from ._stream import StreamStatistics
from ._types import Address, Buffer, GroupEvent, Message, make_address

EventT = TypeVar("EventT")

DEFAULT_MAX_BUFFERED_BYTES = 64 * 2**20


@attrs.frozen
class GroupStatistics:
    """Counters of a `Group`, and the state of its buffers."""

    sent: int
    """How many of our messages the daemon has accepted."""
    confirmed: int
    """How many of our messages have been delivered back to us."""
    lost: int
    """How many of our messages the daemon has dropped."""
    outstanding: int
    """How many of our messages have neither been delivered back to us nor are known to be lost."""
    send_window: int
    """How many bytes of our messages may be outstanding at once: their payloads, and 64 bytes for each message."""
    tasks_waiting_send: int
    """The number of tasks that wait for their turn to send."""
    stream: StreamStatistics
    """The buffer of events that wait to be received."""


class Member(trio.abc.ReceiveChannel[EventT]):
    """The base of `Group` and `Views`: it sends, and leaves."""

    def __init__(self, membership: Membership[EventT]) -> None:
        self._membership = membership

    def __repr__(self) -> str:
        kind, address = type(self).__name__, self.address
        return f"<triocoro.{kind} {self.name!r} as node {address.nodeid}, pid {address.pid}>"

    @property
    def name(self) -> bytes:
        """The name of the group."""
        return self._membership.name

    @property
    def address(self) -> Address:
        """Our own address in the group: the sender of our own messages."""
        return self._membership.address

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(self, *buffers: Buffer) -> None:
        """Send one message to all members of the group, ourselves included, in agreed order.

        Waits while the daemon is under flow control or too many of our messages are on their way. It returns when the
        daemon has accepted the message, which may still be lost: `MessageLost` reports that.

        Args:
            buffers: the payload, in one or several pieces. If they have more than 4 MiB, and are not one `bytes`
                object, other tasks run while they are copied: leave a `bytearray` unchanged until this returns.

        Raises:
            TypeError: a buffer is not bytes-like.
            InterruptedSendError: above `Cpg.max_atomic_message_size`, a membership change interrupted the message.
            trio.ClosedResourceError: the group was closed, or is being left.
            ConnectionLostError: the daemon died.

        Cancelled: the message was not sent. Above the atomic size it may have been sent.

        Source: cpg_mcast_joined(3).
        """
        payload = _validate.payload(buffers)
        await self._membership.sender.send(await gather(buffers) if payload is None else payload)

    async def send_batch(self, messages: Iterable[Buffer]) -> None:
        """Send several messages in order, more efficiently than with `send`.

        Args:
            messages: the payloads, one for each message.

        Raises: as `send`. Messages before the one that failed were sent.

        Cancelled: the first messages of the batch were sent, the others were not.

        Source: cpg_mcast_joined(3).
        """
        await self._membership.sender.send_batch(await gather_each(_validate.payloads(messages)))

    def send_nowait(self, *buffers: Buffer) -> None:
        """Send one message without waiting.

        Args:
            buffers: the payload, in one or several pieces.

        Raises:
            trio.WouldBlock: `send` would have waited, as it always does above the atomic size. Nothing was sent.
            TypeError, trio.ClosedResourceError, ConnectionLostError: as `send`.

        Source: cpg_mcast_joined(3).
        """
        self._membership.sender.send_nowait(_validate.payload(buffers))

    async def send_and_wait(self, *buffers: Buffer) -> Message:
        """Send one message and wait until it is delivered back to us, in the group's agreed order.

        This is no commit. Other members get the message at the same place in that order, unless their node fails or is
        cut off before. If it is *our* node that is cut off, no other member may get it at all.

        `receive` returns the message as well, perhaps after this call: a task that receives may have earlier events
        to handle first.

        Args:
            buffers: the payload, in one or several pieces.

        Returns:
            the message as it was delivered to us.

        Raises:
            MessageLostError: the daemon dropped the message; no member gets it. If none of our messages follows, that
                is found out after one to two seconds.
            others: as `send`.

        Cancelled: the message may have been sent. If it is lost, that is reported as with `send`.

        Source: cpg_mcast_joined(3).
        """
        payload = _validate.payload(buffers)
        return await self._membership.sender.send_and_wait(await gather(buffers) if payload is None else payload)

    # -- the end -------------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Leave the group in the background and close the connection.

        Other tasks get `trio.ClosedResourceError`. Messages of ours that have not been delivered back stay outstanding
        in `statistics`. The end of the `async with` block is gentler: it waits for them and for the leave.

        Cancelled: the group is closed nevertheless.
        """
        self._membership.connection.lifetime.enter()
        self._membership.close()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> GroupStatistics:
        """Return counters, and the state of the buffers."""
        return GroupStatistics(
            sent=self._membership.outstanding.sent,
            confirmed=self._membership.outstanding.confirmed,
            lost=self._membership.outstanding.lost,
            outstanding=self._membership.outstanding.certain,
            send_window=self._membership.outstanding.window.size,
            tasks_waiting_send=self._membership.sender.tasks_waiting,
            stream=self._membership.stream.statistics(),
        )


@asynccontextmanager
async def open_membership(
    name: bytes | str,
    arrange: Callable[[Sequence[GroupEvent]], Sequence[EventT]],
    *,
    totem_changes: bool,
    receive: bool,
    max_buffered_bytes: int,
    endpoint: Endpoint | HasEndpoint | None,
) -> AsyncGenerator[Membership[EventT], None]:
    """Connect for a membership, which the block begins with `Membership.join`. The end of the block leaves.

    Args:
        name: as for `open_group`; so are the other arguments without a description.
        arrange: turns the group's events into those that are received.
        totem_changes: see `open_group`.
        receive: see `open_group`.
        max_buffered_bytes: see `open_group`.
        endpoint: see `open_group`.
    """
    encoded = _validate.group_name(name)
    _validate.boolean(totem_changes, "totem_changes")
    _validate.boolean(receive, "receive")
    _validate.positive(max_buffered_bytes, "max_buffered_bytes")
    raw, connection = await open_connection(CpgSpec(initial_totem_conf=True), endpoint)
    try:
        nodeid = await connection.requests.run(raw.local_nodeid)
    except BaseException:
        connection.lifetime.close()
        raise
    address = make_address(nodeid, connection.endpoint.pid)
    membership = Membership(
        encoded,
        address,
        raw,
        connection,
        arrange,
        totem_changes=totem_changes,
        receive=receive,
        max_buffered_bytes=max_buffered_bytes,
        order=partial(_join_and_leave, address, connection.endpoint),
    )
    async with connection.serving(membership.handle, leave=membership.leave, beside=membership.settling.run):
        yield membership
    membership.raise_untold()


def as_they_come(events: Sequence[GroupEvent]) -> Sequence[GroupEvent]:
    """Arrange the events of a `Group`."""
    return events


async def _join_and_leave(address: Address, endpoint: Endpoint) -> None:
    """Join a group of this process alone, and leave it."""
    async with open_membership(
        private_group(address),
        as_they_come,
        totem_changes=False,
        receive=False,
        max_buffered_bytes=DEFAULT_MAX_BUFFERED_BYTES,
        endpoint=endpoint,
    ) as membership:
        await membership.join()
