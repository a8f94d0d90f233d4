"""What the client libraries have in common: dispatching, the request lane, and closing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar, cast

import trio

from ...._errors import CorosyncError, CsError, error_from_code
from ..exec.ipc import IpcConnection
from ..exec.jobs import Job, PendingReply, Reply, broken

T = TypeVar("T")
RecordT = TypeVar("RecordT")
EventT = TypeVar("EventT")


class FakeHandle(ABC, Generic[RecordT, EventT]):
    """A `RawHandle`."""

    dispatch_function: str
    """The C function to name where dispatching fails."""

    def __init__(self, connection: IpcConnection) -> None:
        self._connection = connection
        self._lane = trio.CapacityLimiter(1)
        # Whether a round trip is; the lane's token may as well be in the caller's hands.
        self._under_way = False
        self._closing = False
        self._leave = False
        self._finalizing = False
        self._closed = trio.Event()

    @property
    def lane(self) -> trio.CapacityLimiter:
        return self._lane

    def fileno(self) -> int:
        return self._connection.fileno()

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[EventT]]:
        self._check(self.dispatch_function)
        connection = self._connection
        taken = 0
        size = 0
        events: list[EventT] = []
        limit = min(max_events, connection.waiting())
        while taken < limit and size <= max_bytes:
            record = cast("RecordT", connection.take())
            taken += 1
            size += self._size(record)
            event = self._decode(record)
            if event is not None:
                events.append(event)
        connection.taken(taken)
        return taken, events

    def close(self, *, leave: bool = False) -> None:
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
    def _size(self, record: RecordT) -> int:
        """The bytes of payload in an event."""

    @abstractmethod
    def _decode(self, record: RecordT) -> EventT | None:
        """What the client gets to see of an event."""

    @abstractmethod
    def _finalize(self, *, leave: bool) -> None:
        """Part from the daemon, which lives as far as we know; ends in `_disconnect`."""

    def _close_if_idle(self) -> None:
        """The round trip under way, if any, comes first; but not on a connection that is broken anyhow."""
        if self._finalizing or (self._under_way and not self._connection.broken):
            return
        self._finalizing = True
        if self._connection.broken:
            self._disconnect()
        else:
            self._finalize(leave=self._leave)

    def _disconnect(self) -> None:
        """The last step of closing."""
        self._connection.disconnect()
        self._closed.set()

    def _check(self, function: str) -> None:
        if self._closing:
            raise error_from_code(CsError.BAD_HANDLE, function)
        if self._connection.broken:
            raise broken(function)

    async def _round_trip(self, function: str, action: Callable[[], T]) -> T:
        """Have the daemon do `action`, and wait for its answer."""
        answers: list[T] = []
        await self._round_trips(function, [lambda: answers.append(action())])
        return answers[0]

    async def _round_trips(
        self, function: str, actions: Sequence[Callable[[], None]], *, undo: Callable[[], None] | None = None
    ) -> None:
        """Have the daemon do one of `actions` after the other, each a request of its own, until one fails.

        Args:
            function: the C function.
            actions: what the daemon does with the requests.
            undo: a further request, for the case that all succeeded and the caller was cancelled.
        """
        await self._request(function, lambda pending: _Step(self._connection, pending, deque(actions)), undo)

    async def _negotiation(self, function: str, action: Callable[[Reply], None]) -> None:
        """Have the daemon begin `action`, and wait until it calls what it is given, possibly with an error."""
        await self._request(function, lambda pending: _Negotiation(self._connection, pending, action))

    async def _request(
        self, function: str, make_job: Callable[[PendingReply[str]], Job], undo: Callable[[], None] | None = None
    ) -> None:
        await trio.lowlevel.checkpoint()
        borrower = object()
        await self._lane.acquire_on_behalf_of(borrower)

        def release() -> None:
            self._under_way = False
            self._lane.release_on_behalf_of(borrower)
            if self._closing:
                self._close_if_idle()

        def unclaimed(success: object) -> None:
            if success and undo is not None:
                self._connection.submit(OneWayRequest(undo, over=release))
            else:
                release()

        try:
            self._check(function)
        except BaseException:
            release()
            raise
        self._under_way = True
        pending = PendingReply[str](function)
        self._connection.submit(make_job(pending))
        try:
            await pending.wait(unclaimed=unclaimed)
        except trio.Cancelled:
            raise  # `unclaimed` releases the lane.
        except BaseException:
            release()
            raise
        release()


class _Step:
    """One request of a sequence whose end somebody waits for. The next is sent when this one has been answered."""

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


class _Negotiation:
    """A request that is answered when others have had their say."""

    def __init__(self, connection: IpcConnection, pending: PendingReply[str], action: Callable[[Reply], None]) -> None:
        self._connection = connection
        self._pending = pending
        self._action = action

    def run(self) -> None:
        self._connection.defer(self)
        try:
            self._action(self._answer)
        except CorosyncError as error:
            self._answer(error)

    def abort(self) -> None:
        self._pending.abort()

    def _answer(self, error: CorosyncError | None) -> None:
        self._connection.answered(self)
        self._pending.finish("done" if error is None else error)


class OneWayRequest:
    """A request whose answer nobody reads."""

    def __init__(self, action: Callable[[], None], *, over: Callable[[], None] | None = None) -> None:
        self._action = action
        self._over = over

    def run(self) -> None:
        with suppress(CorosyncError):
            self._action()
        self.abort()

    def abort(self) -> None:
        if self._over is not None:
            self._over()
