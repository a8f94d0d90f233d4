"""The functions of libcpg, one to one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import IntFlag
from typing import final

import trio

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import FlowControlState, IterationType
from .._errors import ExistError, LibraryError, NotExistError, TryAgainError
from .._gathering import gather
from .._raw import MulticastStatus, RawCpg
from .._services import CpgSpec, Endpoint, HasEndpoint
from .._types import Address, Buffer, ConfigChange, CpgEvent, GroupMember, Message, TotemChange
from ._handle import Callbacks, Handle


class CpgModelFlag(IntFlag):
    """Flags of `cpg_initialize` (`CPG_MODEL_V1_*`)."""

    DELIVER_INITIAL_TOTEM_CONF = 0x01
    """Call `totem_confchg` with the current ring after the join."""


_NO_FLAGS = CpgModelFlag(0)


@final
class CpgHandle(Handle[CpgEvent]):
    """A handle of libcpg. Objects of this class come from `cpg_initialize`.

    A handle can join one group, once: the daemon does not let it join again after it has left.

    Cancelled: the request may have taken effect, unless a method says otherwise.
    """

    def __init__(
        self,
        raw: RawCpg,
        connection: Connection[CpgEvent],
        callbacks: Callbacks,
        context: object,
    ) -> None:
        super().__init__(connection, callbacks, context)
        self._raw = raw
        self._group: bytes | None = None
        self._left = False
        self._turn = trio.StrictFIFOLock()

    async def join(self, group: bytes | str) -> None:
        """Request to join a group (cpg_join(3)). A `ConfigChange` with our own address tells when it takes effect.

        Raises:
            ExistError: the handle has joined before, or this process is in that group with another handle.
            TryAgainError: an earlier membership of this process has not ended on all nodes.

        Cancelled: we are not a member, and the handle cannot join again.
        """
        name = _validate.group_name(group)
        if self._left:
            raise ExistError(
                "cpg_join: CS_ERR_EXIST: this handle has been in a group before; use a new one", function="cpg_join"
            )
        try:
            await self._request(lambda: self._raw.join(name))
        except (trio.Cancelled, KeyboardInterrupt):
            self._left = True
            raise
        self._group = name

    async def leave(self, group: bytes | str) -> None:
        """Request to leave a group (cpg_leave(3)). A `ConfigChange` with our own address tells when it takes effect.

        Raises:
            NotExistError: the handle is not in that group.
            TryAgainError: the daemon is busy, and we have not left.

        Cancelled: the request may have been sent.
        """
        name = _validate.group_name(group)
        if self._left or name != self._group:
            # The daemon would announce our leave of any group that is named.
            raise NotExistError(
                f"cpg_leave: CS_ERR_NOT_EXIST: this handle is not in group {name!r}", function="cpg_leave"
            )
        self._left = True
        try:
            await self._request(lambda: self._raw.leave(name))
        except TryAgainError:
            self._left = False
            raise

    @trio.lowlevel.enable_ki_protection
    async def mcast_joined(self, *buffers: Buffer) -> None:
        """Send one message to the joined group, in agreed order (cpg_mcast_joined(3)).

        If no group is joined, the daemon silently drops a message of up to `max_atomic_msgsize_get` bytes. Waits while
        the daemon reads no requests. Several tasks send one after another.

        Args:
            buffers: the payload, in one or several pieces; as for `Group.send`.

        Raises:
            TryAgainError: the daemon is under flow control.
            InterruptError: above `max_atomic_msgsize_get`, a membership change interrupted the message.
            NotExistError: above `max_atomic_msgsize_get`, if no group is joined.

        Cancelled: the message was not sent. Above the atomic size it may have been sent.
        """
        payload = _validate.payload(buffers)
        if payload is None:
            payload = await gather(buffers)
        if len(payload) > self._raw.max_atomic_message_size:
            await self._request(lambda: self._raw.multicast_fragmented(payload))
            return
        await self._connection.lifetime.check_async()
        async with self._turn:
            while True:
                async with self._connection.requests.lane():
                    try:
                        sent, status = self._raw.multicast([payload])
                    except LibraryError as exc:
                        await self._connection.lifetime.fail(exc)
                if sent:
                    return
                if status is MulticastStatus.TRY_AGAIN:
                    raise TryAgainError(
                        "cpg_mcast_joined: CS_ERR_TRY_AGAIN: the daemon is under flow control",
                        function="cpg_mcast_joined",
                    )
                await self._connection.lifetime.wait_writable()

    async def membership_get(self, group: bytes | str) -> tuple[Address, ...]:
        """Return the members of a group (cpg_membership_get(3))."""
        name = _validate.group_name(group)
        return await self._request(lambda: self._raw.membership(name))

    async def local_get(self) -> int:
        """Return the id of the daemon's node (cpg_local_get(3))."""
        return await self._request(self._raw.local_nodeid)

    async def iteration(self, iteration_type: IterationType, group: bytes | str | None = None) -> list[GroupMember]:
        """Return all results of an iteration (cpg_iteration_initialize(3)).

        Args:
            iteration_type: what to iterate over.
            group: the group, with `IterationType.ONE_GROUP` only.
        """
        kind = IterationType(iteration_type)
        if (group is None) is (kind is IterationType.ONE_GROUP):
            raise ValueError("give a group with IterationType.ONE_GROUP, and only then")
        name = None if group is None else _validate.group_name(group)
        return list(await self._request(lambda: self._raw.iterate(kind, name)))

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def zcb_alloc(self, size: int) -> AsyncGenerator[memoryview, None]:
        """Provide a writable buffer shared with the daemon, which `zcb_mcast_joined` sends without a copy.

        The buffer is freed (cpg_zcb_free(3)) and its view released at the end of the block. Slices of it must be
        released by then; slicing for the duration of a statement is safe.

        Args:
            size: the size in bytes, 1 to `max_atomic_msgsize_get`.

        Raises:
            BufferError: at the end of the block, if slices are alive. The buffer stays allocated until they are not.
            NotSupportedError: the installed library does not support zero-copy.

        Cancelled: nothing stays allocated.

        Source: cpg_zcb_alloc(3), cpg_zcb_free(3).
        """
        _validate.integer(size, "size", 1, self._raw.max_atomic_message_size)
        buffer = await self._request(lambda: self._raw.zcb_alloc(size))
        try:
            yield buffer
        finally:
            self._connection.lifetime.enter()
            if not self._connection.lifetime.ended:
                # The end of the connection frees the buffer as well.
                await self._connection.requests.undo(lambda: self._raw.zcb_free(buffer))  # noqa: ASYNC102

    async def zcb_mcast_joined(self, buffer: memoryview, length: int | None = None) -> None:
        """Send the first bytes of a buffer of `zcb_alloc` (cpg_zcb_mcast_joined(3)).

        The buffer can be filled and sent again.

        Args:
            buffer: the buffer.
            length: how many bytes to send; by default all.

        Raises:
            ValueError: it is not a buffer of this handle, or is shorter than `length`.
            TryAgainError: the daemon is under flow control.
            NotExistError: no group is joined. Libraries without shared buffers drop the message instead.

        Cancelled: the message may have been sent.
        """
        if length is None:
            length = len(buffer)
        _validate.integer(length, "length", 0, len(buffer))
        await self._request(lambda: self._raw.zcb_mcast_joined(buffer, length))

    def flow_control_state_get(self) -> FlowControlState:
        """Return the flow control state (cpg_flow_control_state_get(3)). Present libraries always return DISABLED."""
        self._connection.lifetime.check()
        return self._raw.flow_control_state

    def max_atomic_msgsize_get(self) -> int:
        """Return the atomic size: the largest message in bytes sent in one piece (cpg_max_atomic_msgsize_get(3))."""
        self._connection.lifetime.check()
        return self._raw.max_atomic_message_size


async def cpg_initialize(
    *,
    deliver: Callable[[Message], Awaitable[object]] | None = None,
    confchg: Callable[[ConfigChange], Awaitable[object]] | None = None,
    totem_confchg: Callable[[TotemChange], Awaitable[object]] | None = None,
    flags: CpgModelFlag = _NO_FLAGS,
    context: object = None,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> CpgHandle:
    """Connect to the CPG service (cpg_model_initialize(3)).

    Args:
        deliver: async function, called with each `Message`.
        confchg: async function, called with each `ConfigChange`.
        totem_confchg: async function, called with each `TotemChange`.
        flags: options, see `CpgModelFlag`.
        context: the initial value of the handle's `context`.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        TryAgainError: the daemon is starting.
        AccessError: the daemon does not admit this user.

    Cancelled: nothing is left open.
    """
    initial = CpgModelFlag.DELIVER_INITIAL_TOTEM_CONF in CpgModelFlag(flags)
    raw, connection = await open_connection(CpgSpec(initial_totem_conf=initial), endpoint, retrying=False)
    callbacks = {Message: deliver, ConfigChange: confchg, TotemChange: totem_confchg}
    return CpgHandle(raw, connection, callbacks, context)
