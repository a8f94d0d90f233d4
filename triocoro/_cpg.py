"""Closed process groups: `open_group` joins one, `open_cpg` queries groups without joining."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import final

import attrs
import trio

from . import _validate
from ._connection import Connection, open_connection
from ._enums import IterationType
from ._gathering import gather, gather_each
from ._membership import Membership
from ._raw import RawCpg
from ._services import CPG, CpgSpec, Endpoint, HasEndpoint
from ._settling import private_group
from ._stream import StreamStatistics
from ._types import Address, Buffer, ConfigChange, CpgEvent, GroupEvent, GroupMember, Message, make_address

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


@final
class Group(trio.abc.ReceiveChannel[GroupEvent]):
    """A member of a process group, to send to it and receive from it. Objects of this class come from `open_group`."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def __repr__(self) -> str:
        return f"<triocoro.Group {self.name!r} as node {self.address.nodeid}, pid {self.address.pid}>"

    @property
    def name(self) -> bytes:
        """The name of the group."""
        return self._membership.name

    @property
    def address(self) -> Address:
        """Our own address in the group: the sender of our own messages."""
        return self._membership.address

    @property
    def view(self) -> ConfigChange:
        """The `ConfigChange` of our join, or the latest one received since (cpg_overview(3)).

        With `receive=False`, the latest one that has arrived.
        """
        return self._membership.view

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

    # -- receiving -----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> GroupEvent:
        """Wait for the next event and return it. The first is the `ConfigChange` of our own join.

        Raises:
            RuntimeError: the group was opened with `receive=False`.
            trio.ClosedResourceError: the group was closed.
            ConnectionLostError: the daemon died. Events that had arrived before are returned first.
            SlowConsumerError: events exceeded `max_buffered_bytes`. Those that fitted are returned first.

        Cancelled: no event was taken.
        """
        self._check_receive()
        return await self._membership.stream.receive()

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, *, max_events: int = 256) -> list[GroupEvent]:
        """Wait for events and return all that have arrived.

        Args:
            max_events: the most events to return.

        Returns:
            at least one event, oldest first.

        Raises: as `receive`.

        Cancelled: no event was taken.
        """
        self._check_receive()
        return await self._membership.stream.receive_batch(max_events=max_events)

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

    def _check_receive(self) -> None:
        if not self._membership.receive:
            raise RuntimeError(f"group {self.name!r} was opened with receive=False, to send only")


@asynccontextmanager
async def open_group(
    name: bytes | str,
    *,
    totem_changes: bool = False,
    receive: bool = True,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Group, None]:
    """Join a process group, and leave it at the end of the block.

    The block starts once the members have agreed on the join. Its end waits until they have agreed on the leave, for at
    most one second. If the daemon does not answer in that time, the leave completes in the background, and messages of
    ours that were not delivered back stay outstanding in `Group.statistics`. A process can join a group once on each
    node.

    Args:
        name: the name of the group, 1 to 127 bytes; text is encoded as UTF-8. Some programs send a trailing NUL as part
            of the name, which makes it another group.
        totem_changes: whether to receive `TotemChange` events.
        receive: `False` for a program that only sends: no events are buffered, and `receive` raises.
        max_buffered_bytes: the bound for events that wait to be received, in bytes. Each event counts for its payload
            and 256 bytes.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        ValueError, TypeError: the name or the bound is invalid.
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ExistError: this process is a member of that group already.
        ConnectionLostError: the daemon died; the block was cancelled.
        SlowConsumerError: at the end of the block: events exceeded `max_buffered_bytes`, and no call has raised this
            error yet.
        MessageLostError: at the end of the block: messages of ours were lost, and `receive` or `send_and_wait` have not
            reported them yet.

    Cancelled: we are not a member. If the block is cancelled, the leave completes in the background.

    Source: cpg_overview(3), cpg_join(3), cpg_leave(3).
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
        totem_changes=totem_changes,
        receive=receive,
        max_buffered_bytes=max_buffered_bytes,
        order=partial(_join_and_leave, address, connection.endpoint),
    )
    async with connection.serving(membership.handle, leave=membership.leave, beside=membership.settling.run):
        await membership.join()
        yield Group(membership)
    membership.raise_untold()


async def _join_and_leave(address: Address, endpoint: Endpoint) -> None:
    """Join a group of this process alone, and leave it."""
    async with open_group(private_group(address), receive=False, endpoint=endpoint):
        pass


@final
class Cpg:
    """Queries about process groups, without joining one. Objects of this class come from `open_cpg`.

    Cancelled: no effect, unless a method says otherwise.
    """

    def __init__(self, raw: RawCpg, connection: Connection[CpgEvent]) -> None:
        self._raw = raw
        self._connection = connection

    def __repr__(self) -> str:
        return f"<triocoro.Cpg on {self._connection.lifetime.describe()}>"

    @property
    def max_atomic_message_size(self) -> int:
        """The atomic size: the largest message in bytes that is sent in one piece (cpg_max_atomic_msgsize_get(3))."""
        self._connection.lifetime.check()
        return self._raw.max_atomic_message_size

    async def local_nodeid(self) -> int:
        """Return the id of the daemon's node.

        Source: cpg_local_get(3).
        """
        return await self._connection.requests.run(self._raw.local_nodeid)

    async def members(self, group: bytes | str) -> tuple[Address, ...]:
        """Return the members of a group on all nodes, as this node sees it.

        Args:
            group: the name of the group, 1 to 127 bytes; text is encoded as UTF-8.

        Returns:
            the addresses of the members; none if there is no such group.

        Raises:
            ValueError, TypeError: the name is invalid.

        Source: cpg_membership_get(3).
        """
        name = _validate.group_name(group)
        return await self._connection.requests.run(lambda: self._raw.membership(name))

    async def groups(self) -> tuple[GroupMember, ...]:
        """Return all members of all groups, ordered by group.

        Source: cpg_iteration_initialize(3).
        """
        return await self._connection.requests.run(lambda: self._raw.iterate(IterationType.ALL, None))


@asynccontextmanager
async def open_cpg(*, endpoint: Endpoint | HasEndpoint | None = None) -> AsyncGenerator[Cpg, None]:
    """Connect to the CPG service for the duration of the block, to query groups.

    Args:
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ConnectionLostError: the daemon died; the block was cancelled.

    Cancelled: no connection is left open. If the block is cancelled, the connection closes in the background.

    Source: cpg_initialize(3).
    """
    raw, connection = await open_connection(CPG, endpoint)
    # Totem changes arrive at every handle, requested or not. They are drained and dropped.
    async with connection.serving(lambda _: None):
        yield Cpg(raw, connection)
