"""The connection between a client and a service of a daemon, as libqb makes it.

Requests and events lie in rings of their own (shared memory in the real one, queues here); a socket carries one byte
for each, so that either side can poll. The byte of an event may be late: when the socket is full the daemon remembers
how many it owes, and pays when the client has read some.
"""

from __future__ import annotations

import select
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, TypeVar, cast

import trio

from ..._errors import CorosyncError, CsError, error_from_code
from .daemon import Errand, broken

if TYPE_CHECKING:
    from .daemon import Daemon, Job, Service

T = TypeVar("T")
RecordT = TypeVar("RecordT")
EventT = TypeVar("EventT")

REQUEST_RING_BYTES = 1024 * 1024 + 4096
"""What the ring of requests holds."""


class Connection:
    """Both ends of a connection."""

    def __init__(self, daemon: Daemon, service: Service) -> None:
        self.daemon = daemon
        self.service = service
        self.broken = False
        self._client, self._server = socket.socketpair()
        for end in (self._client, self._server):
            end.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._events: deque[object] = deque()
        self._announced = 0
        self._request_bytes = 0
        daemon.connections.append(self)

    # The daemon's end.

    def send(self, record: object) -> None:
        """Queue an event for the client."""
        self._events.append(record)
        self.notify()

    def notify(self) -> None:
        """Write the bytes that are owed for events, as far as the socket takes them."""
        owed = len(self._events) - self._announced
        if owed and not self.broken:
            with suppress(BlockingIOError, ConnectionError):
                self._announced += self._server.send(bytes(min(owed, 4096)))

    def hang_up(self) -> None:
        """The daemon's end is closed. What the client has not dispatched by then is lost."""
        self.broken = True
        self._events.clear()
        self._announced = 0
        self._server.close()

    # The client's end.

    def fileno(self) -> int:
        """The client's end of the socket; -1 once that is closed."""
        return self._client.fileno()

    def writable(self) -> bool:
        """Whether the daemon has room for the bytes of a burst of requests."""
        poll = select.poll()
        poll.register(self._client, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(0))

    def has_room(self, size: int) -> bool:
        """Whether a request of `size` bytes fits into the ring."""
        return self._request_bytes + size <= REQUEST_RING_BYTES

    def submit(self, job: Job, *, size: int = 0) -> None:
        """Put a request into the ring; a daemon that is not frozen works on it at once."""
        self.daemon.submit(_Request(self, job, size))

    def waiting(self) -> int:
        """How many events the client can take now."""
        return self._announced

    def take(self) -> object:
        """Take one of them; `taken` must follow."""
        return self._events.popleft()

    def taken(self, count: int) -> None:
        """Read the bytes of the events that were taken, which makes room for more."""
        if count:
            self._announced -= count
            while count:
                count -= len(self._client.recv(count))
            if not self.daemon.frozen:
                self.notify()

    def disconnect(self) -> None:
        """Close the client's end. The daemon notices when it is not frozen."""
        self._client.close()
        if not self.broken:
            self.daemon.submit(_Goodbye(self))

    # What a request does to the socket and to the ring.

    def announce(self, size: int) -> bool:
        """Write a request's byte. Where the real library would spin until there is room, the byte is left out."""
        self._request_bytes += size
        try:
            return self._client.send(b"\0") == 1
        except (BlockingIOError, ConnectionError):
            return False

    def fetch(self, size: int, *, announced: bool) -> None:
        """Read a request's byte."""
        self._request_bytes -= size
        if announced:
            self._server.recv(1)


class _Request:
    """A request in the ring of a connection."""

    def __init__(self, connection: Connection, job: Job, size: int) -> None:
        self._connection = connection
        self._job = job
        self._size = size
        self._announced = not connection.broken and connection.announce(size)

    def run(self) -> None:
        if self._connection.broken:
            self._job.abort()
            return
        self._connection.fetch(self._size, announced=self._announced)
        self._job.run()

    def abort(self) -> None:
        self._job.abort()


class _Goodbye:
    """The daemon's discovery that a client has closed its end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(self) -> None:
        if not self._connection.broken:
            self._connection.daemon.forget(self._connection)
            self._connection.hang_up()

    def abort(self) -> None:
        pass  # The daemon died first, and hung up.


class Handle(ABC, Generic[RecordT, EventT]):
    """What the client libraries have in common: a `RawHandle`.

    Args to the constructor: the connection, and the function to blame where dispatching fails.
    """

    dispatch_function = ""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lane = trio.CapacityLimiter(1)
        self._closing = False
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
        if self._closing:
            return
        self._closing = True
        if self._connection.broken:
            self._disconnect()
        else:
            self._finalize(leave=leave)

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
        """Take the steps that end in `_disconnect`."""

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
        await trio.lowlevel.checkpoint()
        borrower = object()
        await self._lane.acquire_on_behalf_of(borrower)

        def release() -> None:
            self._lane.release_on_behalf_of(borrower)
            self._lane_released()

        def unclaimed(success: object) -> None:
            if success and undo is not None:
                self._connection.submit(Afterthought(undo, over=release))
            else:
                release()

        try:
            self._check(function)
        except BaseException:
            release()
            raise
        errand = Errand[str](function)
        self._connection.submit(_Step(self._connection, errand, deque(actions)))
        try:
            await errand.wait(unclaimed=unclaimed)
        except trio.Cancelled:
            raise  # `unclaimed` releases the lane.
        except BaseException:
            release()
            raise
        release()

    def _lane_released(self) -> None:
        """The lane is free, or taken by the next in line."""


class _Step:
    """One request of a sequence whose end somebody waits for. The next is sent when this one has been answered."""

    def __init__(self, connection: Connection, errand: Errand[str], actions: deque[Callable[[], None]]) -> None:
        self._connection = connection
        self._errand = errand
        self._actions = actions

    def run(self) -> None:
        try:
            self._actions.popleft()()
        except CorosyncError as error:
            self._errand.finish(error)
            return
        if self._actions:
            self._connection.submit(self)
        else:
            self._errand.finish("done")

    def abort(self) -> None:
        self._errand.abort()


class Afterthought:
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
