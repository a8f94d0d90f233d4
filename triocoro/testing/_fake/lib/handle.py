"""The base class of the client libraries' handles: dispatching, the request lane, and closing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar, cast

import trio

from ...._enums import CsError
from ...._errors import CorosyncError, error_from_code
from ...._runs import Latch
from ..exec.ipc import IpcConnection
from ..exec.jobs import Job, PendingReply, Reply, broken

_FLOW_CONTROL: Final = frozenset(
    {
        *(f"cpg_{name}" for name in ("join", "leave", "mcast_joined", "zcb_alloc", "zcb_free", "zcb_mcast_joined")),
        *(f"corosync_cfg_{name}" for name in ("ring_status_get", "kill_node", "try_shutdown", "replyto_shutdown")),
        *(f"corosync_cfg_{name}" for name in ("reload_config", "trackstart", "trackstop")),
    }
)
"""The calls whose requests are CS_LIB_FLOW_CONTROL_REQUIRED in the services' tables (exec/cpg.c, exec/cfg.c)."""

T = TypeVar("T")
RecordT = TypeVar("RecordT")
EventT = TypeVar("EventT")


class FakeHandle(ABC, Generic[RecordT, EventT]):
    """A client's handle of one service of a fake daemon: a `RawHandle`.

    A further service implements `_decode` and `_finalize`, and adds its calls.
    """

    dispatch_function: str
    """The C function to name in errors of `dispatch`."""

    def __init__(self, connection: IpcConnection) -> None:
        self._connection = connection
        self._lane = trio.CapacityLimiter(1)
        # Whether a round trip is in progress. The lane does not say: the caller may hold its token.
        self._requesting = False
        self._closing = False
        self._leave = False
        self._finalizing = False
        self._closed = Latch()

    @property
    def lane(self) -> trio.CapacityLimiter:
        return self._lane

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def hangs_up(self) -> bool:
        return True

    def waiting(self) -> int:
        return self._connection.waiting()

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[EventT]]:
        self._check(self.dispatch_function)
        connection = self._connection
        records = cast("Sequence[RecordT]", connection.take_events(max_events, max_bytes))
        events = self._decode(records)
        connection.acknowledge(len(records))
        return len(records), events

    def complete(self) -> bool:
        return True

    def close(self, *, leave: bool = False, reason: str = "") -> None:  # noqa: ARG002 - for handles that record
        if not self._closing:
            self._closing = True
            self._leave = leave
            self._close_if_idle()

    async def wait_closed(self) -> None:
        await trio.lowlevel.checkpoint()
        await self._closed.wait()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    @abstractmethod
    def _decode(self, records: Sequence[RecordT]) -> Sequence[EventT]:
        """The events that the client gets for these records: at most one for each."""

    @abstractmethod
    def _finalize(self, *, leave: bool) -> None:
        """Do what the library's finalize does while the daemon is alive; ends in a call of `_disconnect`."""

    def _close_if_idle(self) -> None:
        """Finalize, unless a round trip is in progress on a connection that works: then its end calls this again."""
        if self._finalizing or (self._requesting and not self._connection.broken):
            return
        self._finalizing = True
        if self._connection.broken:
            self._disconnect()
        else:
            self._finalize(leave=self._leave)

    def _disconnect(self) -> None:
        """Close the connection, which is the last step of closing the handle."""
        self._connection.disconnect()
        self._closed.set()

    def _check(self, function: str) -> None:
        if self._closing:
            raise error_from_code(CsError.BAD_HANDLE, function)
        if self._connection.broken:
            raise broken(function)

    async def _round_trip(self, function: str, action: Callable[[], T]) -> T:
        """Run `action` in the daemon and return its result."""
        results: list[T] = []
        await self._round_trips(function, [lambda: results.append(action())])
        return results[0]

    async def _round_trips(
        self, function: str, actions: Sequence[Callable[[], None]], *, undo: Callable[[], None] | None = None
    ) -> None:
        """Send one request after the other, each when the one before has succeeded.

        Args:
            function: the C function, to name in errors.
            actions: what the daemon does for each request.
            undo: sent as a further request if all succeed but the caller has been cancelled.
        """
        await self._request(function, lambda pending: _RequestSequence(self._connection, pending, deque(actions)), undo)

    async def _deferred_round_trip(self, function: str, action: Callable[[Reply], None]) -> None:
        """Send a request that the daemon answers later, by calling the `Reply` that `action` is given."""
        await self._request(function, lambda pending: _DeferredRequest(self._connection, pending, action))

    async def _request(
        self, function: str, make_job: Callable[[PendingReply[str]], Job], undo: Callable[[], None] | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()
        run = self._connection.run
        run.enter()
        borrower = object()
        await self._lane.acquire_on_behalf_of(borrower)

        def release() -> None:
            self._requesting = False
            self._lane.release_on_behalf_of(borrower)
            if self._closing:
                self._close_if_idle()

        def unclaimed(success: object) -> None:
            if success and undo is not None:
                self._connection.submit(OneWayRequest(undo, done=lambda: run.call(release)))
            else:
                release()

        try:
            self._check(function)
        except BaseException:
            release()
            raise
        self._requesting = True
        pending = PendingReply[str](function, run)
        self._connection.submit(make_job(pending), flow_control=function in _FLOW_CONTROL)
        try:
            await pending.wait(unclaimed=unclaimed)
        except (trio.Cancelled, KeyboardInterrupt):
            raise  # `unclaimed` releases the lane.
        except BaseException:
            release()
            raise
        release()


class _RequestSequence:
    """A sequence of requests with one reply at its end. Each is sent when the one before has been answered."""

    def __init__(
        self, connection: IpcConnection, pending: PendingReply[str], actions: deque[Callable[[], None]]
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._actions = actions

    def run(self) -> None:
        try:
            self._actions.popleft()()
        except CorosyncError as error:
            self._pending.finish(error)
            return
        if self._actions:
            self._connection.submit(self)
        else:
            self._pending.finish("done")

    def abort(self) -> None:
        self._pending.abort()


class _DeferredRequest:
    """A request that is answered later, such as a shutdown that other clients must agree to."""

    def __init__(self, connection: IpcConnection, pending: PendingReply[str], action: Callable[[Reply], None]) -> None:
        self._connection = connection
        self._pending = pending
        self._action = action

    def run(self) -> None:
        self._connection.defer_reply(self)
        try:
            self._action(self._reply)
        except CorosyncError as error:
            self._reply(error)

    def abort(self) -> None:
        self._pending.abort()

    def _reply(self, error: CorosyncError | None) -> None:
        self._connection.reply_sent(self)
        self._pending.finish("done" if error is None else error)


class OneWayRequest:
    """A request without a reply; errors are dropped.

    Args:
        action: what the daemon does for the request.
        done: called afterwards, also if the daemon dies first.
    """

    def __init__(self, action: Callable[[], None], *, done: Callable[[], None] | None = None) -> None:
        self._action = action
        self._done = done

    def run(self) -> None:
        with suppress(CorosyncError):
            self._action()
        self.abort()

    def abort(self) -> None:
        if self._done is not None:
            self._done()
