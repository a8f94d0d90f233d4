"""The C API one to one, in Trio's idiom: handles, callbacks, and the four dispatch types.

What blocks in C is awaited here; what returns an error code in C raises. Nothing is retried: `TryAgainError` comes out.
No queue stands between a handle and its callbacks: an event is fetched when its callback is about to start, so the
handle's `fd` tells the truth, and an event is consumed exactly then. Cancelled before, it is there for the next
dispatch; a callback that raises or is cancelled has had its event.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from enum import IntFlag
from typing import Any, Generic, TypeVar, final

import trio

from . import _validate
from ._connection import Connection, connect
from ._endpoint import resolve_endpoint
from ._errors import ExistError, LibraryError, NotExistError, TryAgainError
from ._raw import Endpoint, MulticastStatus, RawCpg, RawVotequorum
from ._types import (
    Address,
    Buffer,
    ConfigChange,
    CpgEvent,
    Dispatch,
    ExpectedVotesChange,
    FlowControlState,
    GroupMember,
    IterationType,
    Message,
    TotemChange,
    Track,
    VotequorumChange,
    VotequorumEvent,
    VotequorumInfo,
    VotequorumNodelist,
)

__all__ = [
    "CpgHandle",
    "CpgModelFlag",
    "Dispatch",
    "FlowControlState",
    "IterationType",
    "Track",
    "VotequorumHandle",
    "cpg_initialize",
    "votequorum_initialize",
]

T = TypeVar("T")
EventT = TypeVar("EventT")


class CpgModelFlag(IntFlag):
    """Flags of `cpg_initialize` (`CPG_MODEL_V1_*`)."""

    DELIVER_INITIAL_TOTEM_CONF = 0x01
    """Call `totem_confchg` with the present totem membership after the join."""


_NO_FLAGS = CpgModelFlag(0)


@trio.lowlevel.disable_ki_protection
async def _call(callback: Callable[[Any], Awaitable[object]], event: object) -> None:
    """The callback is the user's code: Control-C may end it, as it may end theirs elsewhere."""
    await callback(event)


class _Handle(Generic[EventT]):
    """What the handles of all services share."""

    context: Any
    """Anything of the caller's (cpg_context_get(3), votequorum_context_get(3))."""

    def __init__(
        self,
        connection: Connection[EventT],
        callbacks: Mapping[type, Callable[[Any], Awaitable[object]] | None],
        context: object,
    ) -> None:
        self._connection = connection
        self._callbacks = callbacks
        self.context = context

    @property
    def fd(self) -> int:
        """The fd that is readable while events wait (cpg_fd_get(3), votequorum_fd_get(3))."""
        return self._connection.fd

    async def dispatch(self, dispatch_types: Dispatch) -> None:
        """Call the callbacks for events that wait, one at a time, each awaited in this task.

        - `Dispatch.ONE`: wait until one callback has been dispatched.
        - `Dispatch.ALL`: dispatch what waits when it is called, without waiting for more.
        - `Dispatch.BLOCKING`: go on until the handle is finalized.
        - `Dispatch.ONE_NONBLOCKING`: dispatch at most one callback.

        Events for which no callback was given are passed over. A callback may use its own handle, but for `dispatch`;
        what it raises comes out unchanged.

        Raises:
            TryAgainError: `ONE_NONBLOCKING`, and no event waits.
            trio.BusyResourceError: another task (or a callback) dispatches this handle already.
            trio.ClosedResourceError: the handle is finalized.
            ConnectionLostError: the daemon died. Events that it had sent and nobody had fetched are gone.

        Cancelled: no event was consumed, but for the one whose callback was cancelled.

        Source: cpg_dispatch(3), votequorum_dispatch(3).
        """
        kind = Dispatch(dispatch_types)
        await trio.lowlevel.checkpoint()
        self._connection.check()
        with self._connection.dispatcher():
            if kind is Dispatch.ALL:
                await self._dispatch_all()
            elif kind is Dispatch.ONE_NONBLOCKING:
                if not await self._dispatch_one():
                    raise TryAgainError("dispatch: CS_ERR_TRY_AGAIN: no event waits")
            elif kind is Dispatch.ONE:
                await self._dispatch_one(wait=True)
            else:
                await self._dispatch_blocking()

    async def _dispatch_all(self) -> None:  # noqa: ASYNC910 - `dispatch` has been a checkpoint
        waiting = self._connection.waiting()
        while waiting > 0 and not self._connection.closed:
            taken, _ = await self._fetch_and_call()
            if not taken:
                return
            waiting -= taken
            await trio.lowlevel.checkpoint()

    async def _dispatch_one(self, *, wait: bool = False) -> bool:  # noqa: ASYNC910 - as above
        while True:
            taken, called = await self._fetch_and_call()
            if called:
                return True
            if taken:
                await trio.lowlevel.checkpoint()
            elif wait:
                await self._connection.wait_readable()
            else:
                return False

    async def _dispatch_blocking(self) -> None:  # noqa: ASYNC910 - as above
        while not self._connection.closed:
            taken, _ = await self._fetch_and_call()
            if taken:
                await trio.lowlevel.checkpoint()
            else:
                with suppress(trio.ClosedResourceError):  # finalized; one that a callback raises is its own
                    await self._connection.wait_readable()

    @trio.lowlevel.enable_ki_protection
    async def _fetch_and_call(self) -> tuple[int, bool]:
        """Fetch one event and call its callback, with no checkpoint in between."""
        taken, events = self._connection.take(max_events=1)
        if not events:
            return taken, False  # noqa: ASYNC910 - this is what must have no checkpoint
        callback = self._callbacks.get(type(events[0]))
        if callback is None:
            return taken, False  # noqa: ASYNC910 - this is what must have no checkpoint
        await _call(callback, events[0])
        return taken, True

    async def _request(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self._connection.request(call, retrying=False)

    async def finalize(self) -> None:
        """Give the handle up (cpg_finalize(3), votequorum_finalize(3)); idempotent.

        Tasks that use it get `trio.ClosedResourceError`; `Dispatch.BLOCKING` returns. A group is left with
        `Reason.PROCDOWN`.

        Cancelled: the handle is given up nevertheless, in the background.
        """
        self._connection.check_process()
        self._connection.close()
        await trio.lowlevel.checkpoint()
        await self._connection.wait_closed()


@final
class CpgHandle(_Handle[CpgEvent]):
    """A handle of libcpg. Objects of this class come from `cpg_initialize`.

    A handle can join one group, once: the daemon never lets it join again after it has left.
    """

    def __init__(
        self,
        raw: RawCpg,
        connection: Connection[CpgEvent],
        callbacks: Mapping[type, Callable[[Any], Awaitable[object]] | None],
        context: object,
    ) -> None:
        super().__init__(connection, callbacks, context)
        self._raw = raw
        self._group: bytes | None = None
        self._left = False
        self._turn = trio.StrictFIFOLock()

    async def join(self, group: bytes | str) -> None:
        """Ask to join; the own configuration change says when it is so (cpg_join(3)).

        Raises:
            ExistError: the handle has joined before, or this process is in that group by another handle.
            TryAgainError: an earlier membership of this process has not ended everywhere.

        Cancelled: we do not stay joined, and the handle cannot join again.
        """
        name = _validate.group_name(group)
        if self._left:
            raise ExistError(
                "cpg_join: CS_ERR_EXIST: this handle has been in a group before; use a new one", function="cpg_join"
            )
        try:
            await self._request(lambda: self._raw.join(name))
        except trio.Cancelled:
            self._left = True
            raise
        self._group = name

    async def leave(self, group: bytes | str) -> None:
        """Ask to leave; the own configuration change says when it is so (cpg_leave(3)).

        Raises:
            NotExistError: the handle is not in that group.
            TryAgainError: the daemon is busy, and we have not left.

        Cancelled: the leave may have been asked for.
        """
        name = _validate.group_name(group)
        if self._left or name != self._group:
            # The daemon would announce that we leave whatever group is named.
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
        """Send one message, gathered from `buffers`, to the joined group, in agreed order (cpg_mcast_joined(3)).

        Without a group, the daemon drops the message and says nothing. Waits while the daemon reads no requests; of
        several tasks, one at a time.

        Raises:
            TryAgainError: the daemon is under flow control.
            InterruptError: above `max_atomic_msgsize_get`, a membership change broke the message.

        Cancelled: the message was not sent (above the atomic size: it may have been).
        """
        payload = _validate.payload(buffers)
        if len(payload) > self._raw.max_atomic_message_size:
            await self._request(lambda: self._raw.multicast_fragmented(payload))
            return
        await self._connection.check_async()
        async with self._turn:
            while True:
                # One request at a time: never while a round trip is under way.
                with self._connection.interruptible():
                    await self._raw.lane.acquire_on_behalf_of(self)
                try:
                    self._connection.check()
                    sent, status = self._raw.multicast([payload])
                except LibraryError as exc:
                    await self._connection.fail(exc)
                finally:
                    self._raw.lane.release_on_behalf_of(self)
                if sent:
                    return
                if status is MulticastStatus.TRY_AGAIN:
                    raise TryAgainError(
                        "cpg_mcast_joined: CS_ERR_TRY_AGAIN: the daemon is under flow control",
                        function="cpg_mcast_joined",
                    )
                await self._connection.wait_writable()

    async def membership_get(self, group: bytes | str) -> tuple[Address, ...]:
        """Return the members of a group (cpg_membership_get(3))."""
        name = _validate.group_name(group)
        return await self._request(lambda: self._raw.membership(name))

    async def local_get(self) -> int:
        """Return the id of the daemon's node (cpg_local_get(3))."""
        return await self._request(self._raw.local_nodeid)

    async def iteration(self, iteration_type: IterationType, group: bytes | str | None = None) -> list[GroupMember]:
        """Return what cpg_iteration_initialize(3) walks over; `group` goes with `IterationType.ONE_GROUP` only."""
        kind = IterationType(iteration_type)
        if (group is None) is (kind is IterationType.ONE_GROUP):
            raise ValueError("give a group with IterationType.ONE_GROUP, and only then")
        name = None if group is None else _validate.group_name(group)
        return list(await self._request(lambda: self._raw.iterate(kind, name)))

    def flow_control_state_get(self) -> FlowControlState:
        """Return the flow control state (cpg_flow_control_state_get(3)); present libraries always say DISABLED."""
        self._connection.check()
        return self._raw.flow_control_state

    def max_atomic_msgsize_get(self) -> int:
        """Return the bytes that one message may have to be sent in one piece (cpg_max_atomic_msgsize_get(3))."""
        self._connection.check()
        return self._raw.max_atomic_message_size


@final
class VotequorumHandle(_Handle[VotequorumEvent]):
    """A handle of libvotequorum. Objects of this class come from `votequorum_initialize`."""

    def __init__(
        self,
        raw: RawVotequorum,
        connection: Connection[VotequorumEvent],
        callbacks: Mapping[type, Callable[[Any], Awaitable[object]] | None],
        context: object,
    ) -> None:
        super().__init__(connection, callbacks, context)
        self._raw = raw

    async def getinfo(self, nodeid: int) -> VotequorumInfo:
        """Return what is known of a node; 0 is the daemon's own (votequorum_getinfo(3)).

        Raises:
            NotExistError: no such node.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.info(nodeid))

    async def setexpected(self, expected_votes: int) -> None:
        """Set the expected votes (votequorum_setexpected(3)).

        Raises:
            InvalidParamError: 0, too few or too many.
        """
        _validate.uint32(expected_votes, "expected_votes")
        await self._request(lambda: self._raw.set_expected(expected_votes))

    async def setvotes(self, nodeid: int, votes: int) -> None:
        """Set a node's votes (votequorum_setvotes(3)).

        Raises:
            NameNotFoundError: no such node.
            InvalidParamError: too few or too many.
        """
        _validate.uint32(nodeid, "nodeid")
        _validate.uint32(votes, "votes")
        await self._request(lambda: self._raw.set_votes(nodeid, votes))

    async def trackstart(self, flags: Track) -> None:
        """Ask for notifications (votequorum_trackstart(3)).

        `Track.CURRENT` and `Track.CHANGES` send the present state at once: node list, then quorum.

        Raises:
            ExistError: the handle tracks already; the present state was sent again all the same.
        """
        _validate.uint32(flags, "flags")
        await self._request(lambda: self._raw.trackstart(Track(flags)))

    async def trackstop(self) -> None:
        """End what `trackstart` began (votequorum_trackstop(3)).

        Raises:
            NotExistError: the handle does not track.
        """
        await self._request(self._raw.trackstop)


async def cpg_initialize(
    *,
    deliver: Callable[[Message], Awaitable[object]] | None = None,
    confchg: Callable[[ConfigChange], Awaitable[object]] | None = None,
    totem_confchg: Callable[[TotemChange], Awaitable[object]] | None = None,
    flags: CpgModelFlag = _NO_FLAGS,
    context: object = None,
    endpoint: Endpoint | None = None,
) -> CpgHandle:
    """Connect to the CPG service (cpg_model_initialize(3)).

    Args:
        deliver: called with each `Message`.
        confchg: called with each `ConfigChange`.
        totem_confchg: called with each `TotemChange`.
        flags: see `CpgModelFlag`.
        context: the handle's `context`.
        endpoint: the daemon; without it, the default one.

    Raises:
        CorosyncUnavailableError: no daemon, or no library.
        TryAgainError: the daemon is starting.

    Cancelled: nothing is left open.
    """
    endpoint = resolve_endpoint(endpoint)
    initial = CpgModelFlag.DELIVER_INITIAL_TOTEM_CONF in CpgModelFlag(flags)
    raw = await connect(lambda: endpoint.connect_cpg(initial_totem_conf=initial), endpoint, retrying=False)
    callbacks = {Message: deliver, ConfigChange: confchg, TotemChange: totem_confchg}
    return CpgHandle(raw, Connection(raw, endpoint), callbacks, context)


async def votequorum_initialize(
    *,
    quorum_notify: Callable[[VotequorumChange], Awaitable[object]] | None = None,
    expectedvotes_notify: Callable[[ExpectedVotesChange], Awaitable[object]] | None = None,
    nodelist_notify: Callable[[VotequorumNodelist], Awaitable[object]] | None = None,
    context: object = None,
    endpoint: Endpoint | None = None,
) -> VotequorumHandle:
    """Connect to the votequorum service (votequorum_initialize(3)).

    Args:
        quorum_notify: called with each `VotequorumChange`.
        expectedvotes_notify: called with each `ExpectedVotesChange`.
        nodelist_notify: called with each `VotequorumNodelist`.
        context: the handle's `context`.
        endpoint: the daemon; without it, the default one.

    Raises, Cancelled: as `cpg_initialize`.
    """
    endpoint = resolve_endpoint(endpoint)
    raw = await connect(endpoint.connect_votequorum, endpoint, retrying=False)
    callbacks = {
        VotequorumChange: quorum_notify,
        ExpectedVotesChange: expectedvotes_notify,
        VotequorumNodelist: nodelist_notify,
    }
    return VotequorumHandle(raw, Connection(raw, endpoint), callbacks, context)
