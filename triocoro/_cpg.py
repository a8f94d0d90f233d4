"""Closed process groups: `open_group` to be a member, `open_cpg` to ask about groups."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import final

import attrs
import trio

from . import _validate
from ._connection import Connection, open_connection
from ._enums import IterationType
from ._membership import Membership
from ._raw import RawCpg
from ._sending import lost_error
from ._services import CPG, CpgSpec, Endpoint
from ._stream import StreamStatistics
from ._types import Address, Buffer, ConfigChange, CpgEvent, GroupEvent, GroupMember, Message

DEFAULT_MAX_BUFFERED_BYTES = 64 * 2**20


@attrs.frozen
class GroupStatistics:
    """What a group's connection has done, and what waits."""

    sent: int
    """Messages that the daemon has taken from us."""
    confirmed: int
    """Those of them that came back."""
    lost: int
    """Those of them that were dropped."""
    outstanding: int
    """Those of them whose fate is not known yet."""
    tasks_waiting_send: int
    """Tasks that wait for their turn to send."""
    stream: StreamStatistics
    """What waits to be received."""


@final
class Group(trio.abc.ReceiveChannel[GroupEvent]):
    """Our membership of a process group. Objects of this class come from `open_group`."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    def __repr__(self) -> str:
        return f"<triocoro.Group {self.name!r} as node {self.address.nodeid}, pid {self.address.pid}>"

    @property
    def name(self) -> bytes:
        """The group's name."""
        return self._membership.name

    @property
    def address(self) -> Address:
        """Our own address in the group: messages of ours carry it as their sender."""
        return self._membership.address

    @property
    def view(self) -> ConfigChange:
        """The configuration change of our join, or the latest one that was received since (cpg_overview(3))."""
        return self._membership.view

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(self, *buffers: Buffer) -> None:
        """Send one message, gathered from `buffers`, to every member of the group, ourselves included.

        Waits while the daemon is under flow control or too many of our messages are on their way. That it returns does
        not mean that the message was delivered: `MessageLost` reports one that was not.

        Source: cpg_mcast_joined(3), with agreed order.

        Raises:
            TypeError: a buffer is not bytes-like.
            InterruptedSendError: above `Cpg.max_atomic_message_size`, a membership change broke the message.
            trio.ClosedResourceError: the group was closed, or is being left.
            ConnectionLostError: the daemon died.

        Cancelled: the message was not sent (above the atomic size: it may have been).
        """
        await self._membership.sender.send(_validate.payload(buffers))

    async def send_batch(self, messages: Iterable[Buffer]) -> None:
        """Send several messages in their order, with one crossing into C for many. Otherwise as `send`.

        Cancelled: the first ones of the batch were sent, the others were not.
        """
        await self._membership.sender.send_batch(_validate.payloads(messages))

    def send_nowait(self, *buffers: Buffer) -> None:
        """As `send`, but never wait.

        Raises:
            trio.WouldBlock: `send` would have waited (above the atomic size it always does); nothing was sent.
        """
        self._membership.sender.send_nowait(_validate.payload(buffers))

    async def send_and_wait(self, *buffers: Buffer) -> Message:
        """Send one message and wait until it has been delivered to ourselves, in the group's agreed order.

        Other members get it at the same place of that order, unless their node fails or is cut off before.
        The message is received below as well.

        Raises:
            MessageLostError: the daemon dropped the message; nobody gets it.
            others: as `send`.

        Cancelled: the message may have been sent.
        """
        settled = trio.Event()
        own = await self._membership.sender.send(_validate.payload(buffers), settled=settled)
        if not settled.is_set():
            with self._membership.connection.lifetime.interruptible():
                await settled.wait()
        if own.delivery is None:
            raise lost_error([own.payload])
        return own.delivery

    # -- receiving -----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> GroupEvent:
        """Return the next event: the first is the `ConfigChange` of our own join.

        Raises:
            RuntimeError: the group was opened with `receive=False`.
            trio.ClosedResourceError: the group was closed.
            ConnectionLostError: the daemon died; events that had arrived before come first.
            SlowConsumerError: more than `max_buffered_bytes` waited; events that fitted come first.

        Cancelled: no event was taken.
        """
        self._check_receive()
        return await self._membership.stream.receive()

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, *, max_events: int = 256) -> list[GroupEvent]:
        """Return the events that wait: at least one, at most `max_events`. Otherwise as `receive`."""
        self._check_receive()
        return await self._membership.stream.receive_batch(max_events=max_events)

    async def aclose(self) -> None:
        """Leave the group in the background and close the connection. The end of the `async with` does it more gently.

        Other tasks get `trio.ClosedResourceError`. What becomes of messages that have not come back is not waited for:
        `statistics` counts them as outstanding.
        """
        self._membership.connection.lifetime.check_process()
        self._membership.close()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> GroupStatistics:
        """What this connection has done, and what waits."""
        return GroupStatistics(
            sent=self._membership.sender.sent,
            confirmed=self._membership.sender.confirmed,
            lost=self._membership.sender.lost,
            outstanding=self._membership.sender.outstanding,
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
    endpoint: Endpoint | None = None,
) -> AsyncGenerator[Group, None]:
    """Join a process group, be a member for the length of the block, and leave it.

    The block is entered once the join has been agreed on. Its end waits until the leave has been, for at most a second:
    if the daemon does not answer in that time, it leaves in the background, and messages of ours that had not come back
    stay outstanding in `Group.statistics`. A process can be in a group once on each node.

    Args:
        name: the group, 1 to 127 bytes; text is encoded as UTF-8. Some programs count a trailing NUL: that is another
            group.
        totem_changes: whether to receive `TotemChange` too.
        receive: `False` for those who only send: nothing is buffered, and `receive` is refused.
        max_buffered_bytes: how much may wait to be received, in bytes (each event counts its payload and 256 bytes).
        endpoint: the daemon; without it, the default one.

    Raises:
        ValueError, TypeError: the name or the bound are not right.
        CorosyncUnavailableError: no daemon, or no library.
        ExistError: this process is in that group already.
        ConnectionLostError: the daemon died; the block was cancelled.
        SlowConsumerError: at the end of the block: too much had waited to be received, and nobody was told before.
        MessageLostError: at the end of the block: messages of ours were dropped that nobody was told of before.

    Cancelled: we do not stay joined. A block that is cancelled leaves in the background.

    Source: cpg_overview(3), cpg_join(3), cpg_leave(3).
    """
    encoded = _validate.group_name(name)
    _validate.positive(max_buffered_bytes, "max_buffered_bytes")
    raw, connection = await open_connection(CpgSpec(initial_totem_conf=totem_changes), endpoint)
    try:
        nodeid = await connection.requests.run(raw.local_nodeid)
    except BaseException:
        connection.lifetime.close()
        raise
    membership = Membership(
        encoded,
        Address(nodeid, connection.endpoint.pid),
        raw,
        connection,
        totem_changes=totem_changes,
        receive=receive,
        max_buffered_bytes=max_buffered_bytes,
    )
    async with connection.serving(membership.handle, leave=membership.leave):
        await membership.join()
        yield Group(membership)
    membership.raise_untold()


@final
class Cpg:
    """Questions about groups, without being a member of any. Objects of this class come from `open_cpg`."""

    def __init__(self, raw: RawCpg, connection: Connection[CpgEvent]) -> None:
        self._raw = raw
        self._connection = connection

    @property
    def max_atomic_message_size(self) -> int:
        """Bytes that one message may have to be sent in one piece (cpg_max_atomic_msgsize_get(3))."""
        self._connection.lifetime.check()
        return self._raw.max_atomic_message_size

    async def local_nodeid(self) -> int:
        """Return the id of the daemon's node (cpg_local_get(3))."""
        return await self._connection.requests.run(self._raw.local_nodeid)

    async def members(self, group: bytes | str) -> tuple[Address, ...]:
        """Return the members of `group` on all nodes, as this node sees it; none if there is no such group.

        Source: cpg_membership_get(3).
        """
        name = _validate.group_name(group)
        return await self._connection.requests.run(lambda: self._raw.membership(name))

    async def groups(self) -> tuple[GroupMember, ...]:
        """Return every member of every group, grouped by name (cpg_iteration_initialize(3))."""
        return await self._connection.requests.run(lambda: self._raw.iterate(IterationType.ALL, None))


@asynccontextmanager
async def open_cpg(*, endpoint: Endpoint | None = None) -> AsyncGenerator[Cpg, None]:
    """Connect to the CPG service for the length of the block, to ask about groups.

    Args:
        endpoint: the daemon; without it, the default one.

    Raises:
        CorosyncUnavailableError: no daemon, or no library.
        ConnectionLostError: the daemon died; the block was cancelled.

    Source: cpg_initialize(3).
    """
    raw, connection = await open_connection(CPG, endpoint)
    # Totem changes come to every handle, asked for or not; they are drained, and dropped.
    async with connection.serving(lambda _: None):
        yield Cpg(raw, connection)
