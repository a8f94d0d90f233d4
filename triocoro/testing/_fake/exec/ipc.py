"""The connection between a client and a service of a daemon, as libqb makes it.

Requests and events have a ring buffer each: shared memory in libqb, a queue here. A socket carries one byte for each
request and each event, so that either side can poll. When the socket is full, the daemon writes the bytes of further
events after the client has read some. Events that do not fit into the ring buffer wait in the daemon.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from contextlib import suppress

from .daemon import Daemon
from .jobs import Job
from .service import ClientConnection, Service

RING_BYTES = 1024 * 1024 + 4096 - 8
"""The capacity of each of the two ring buffers."""
REQUEST_BYTES = 48
"""What a request takes in the ring buffer besides its payload."""
EVENT_BYTES = 192
"""What a delivered message takes besides its payload, and roughly what other events take."""
_WORD = 4


class IpcConnection:
    """Both ends of a connection. The daemon and its services see it as a `ClientConnection`.

    Args:
        daemon: the daemon.
        service: the service that the client connects to.
        pid: the client's process id.
    """

    def __init__(self, daemon: Daemon, service: Service, pid: int) -> None:
        self.daemon = daemon
        self.service = service
        self.pid = pid
        self.broken = False
        self._client, self._server = socket.socketpair()
        for end in (self._client, self._server):
            end.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._queue: deque[tuple[object, int]] = deque()
        self._ring: deque[tuple[object, int]] = deque()
        self._ring_bytes = 0
        self._announced = 0
        self._request_bytes = 0
        self._unanswered: list[Job] = []
        daemon.connections.append(self)
        self.counters = daemon.stats.connected(service.name, pid)

    # The daemon's end.

    def send(self, record: object, *, size: int = 0) -> None:
        """Queue an event, with `size` bytes of payload, for the client."""
        self._queue.append((record, _size_in_ring(EVENT_BYTES, size)))
        self.counters.events += 1
        self.notify()

    def notify(self) -> None:
        """Move queued events into the ring buffer and write their bytes to the socket, as far as there is room."""
        while self._queue and self._ring_bytes + self._queue[0][1] <= RING_BYTES:
            event = self._queue.popleft()
            self._ring.append(event)
            self._ring_bytes += event[1]
        unannounced = len(self._ring) - self._announced
        if unannounced and not self.broken:
            with suppress(BlockingIOError, ConnectionError):
                self._announced += self._server.send(bytes(min(unannounced, 4096)))

    def defer_reply(self, job: Job) -> None:
        """Note that a request will be answered later. It is aborted if the daemon's end is closed first."""
        self._unanswered.append(job)

    def reply_sent(self, job: Job) -> None:
        """Note that a request for which `defer_reply` was called has been answered."""
        self._unanswered.remove(job)

    def hang_up(self) -> None:
        """Close the daemon's end. Events that the client has not dispatched are lost."""
        self.broken = True
        self._queue.clear()
        self._ring.clear()
        self._announced = 0
        self._server.close()
        unanswered, self._unanswered = self._unanswered, []
        for job in unanswered:
            job.abort()

    # The client's end.

    def fileno(self) -> int:
        """The fd of the client's end of the socket; -1 once that is closed."""
        return self._client.fileno()

    def writable(self) -> bool:
        """Whether the socket has room for the bytes of a burst of requests."""
        poll = select.poll()
        poll.register(self._client, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(0))

    def has_room(self, size: int) -> bool:
        """Whether the ring buffer takes a request of `size` bytes: it has room, and no transition is in progress."""
        return not self.daemon.synchronising and self._request_bytes + _size_in_ring(REQUEST_BYTES, size) <= RING_BYTES

    def submit(self, job: Job, *, size: int = 0) -> None:
        """Put a request into the ring buffer; a daemon that is not frozen runs it at once."""
        self.daemon.submit(_Request(self, job, size), during_sync=self.service.serves_during_sync)

    def available(self) -> int:
        """How many events the client can take now."""
        return self._announced

    def take_event(self) -> object:
        """Take an event out of the ring buffer. A call of `acknowledge` must follow."""
        record, size = self._ring.popleft()
        self._ring_bytes -= size
        return record

    def acknowledge(self, count: int) -> None:
        """Read the bytes of `count` events that were taken, which makes room for more."""
        if count:
            self._announced -= count
            while count:
                count -= len(self._client.recv(count))
            if not self.daemon.frozen:
                self.notify()

    def disconnect(self) -> None:
        """Close the client's end. The daemon notices once it is not frozen."""
        self._client.close()
        if not self.broken:
            self.daemon.submit(_Disconnect(self.daemon, self))

    # The passage of a request through the ring buffer and the socket.

    def announce(self, size: int) -> bool:
        """Write a request's byte; returns whether it was written.

        If the socket is full, the real library spins until there is room; the fake leaves the byte out.
        """
        self._request_bytes += _size_in_ring(REQUEST_BYTES, size)
        try:
            return self._client.send(b"\0") == 1
        except (BlockingIOError, ConnectionError):
            return False

    def fetch(self, size: int, *, announced: bool) -> None:
        """Take a request out of the ring buffer, and read its byte if one was written."""
        self._request_bytes -= _size_in_ring(REQUEST_BYTES, size)
        self.counters.requests += 1
        if announced:
            self._server.recv(1)


class _Request:
    """A request in the ring buffer of a connection."""

    def __init__(self, connection: IpcConnection, job: Job, size: int) -> None:
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


class _Disconnect:
    """The daemon's reaction to a client that has closed its end."""

    def __init__(self, daemon: Daemon, connection: ClientConnection) -> None:
        self._daemon = daemon
        self._connection = connection

    def run(self) -> None:
        if not self._connection.broken:
            self._daemon.forget(self._connection)
            self._connection.hang_up()

    def abort(self) -> None:
        pass  # The daemon died first, which closed its end.


def _size_in_ring(header: int, size: int) -> int:
    """The bytes that a message takes in a ring buffer, which is divided into words."""
    return header + (size + _WORD - 1) // _WORD * _WORD
