"""The connection between a client and a service of a daemon, as libqb makes it.

Requests and events lie in rings of their own (shared memory in the real one, queues here); a socket carries one byte
for each, so that either side can poll. The byte of an event may be late: when the socket is full the daemon remembers
how many it owes, and pays when the client has read some. What does not even fit into the ring waits in the daemon.
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
"""What each of the two rings holds."""
REQUEST_BYTES = 48
"""What a message of ours takes in a ring on top of its payload."""
EVENT_BYTES = 192
"""What one that is delivered takes, and roughly what other events do."""
_WORD = 4


class IpcConnection:
    """Both ends of a connection."""

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
        self._queue.append((record, _taken(EVENT_BYTES, size)))
        self.counters.events += 1
        self.notify()

    def notify(self) -> None:
        """Move events into the ring, and write the bytes that are owed for them, as far as there is room."""
        while self._queue and self._ring_bytes + self._queue[0][1] <= RING_BYTES:
            event = self._queue.popleft()
            self._ring.append(event)
            self._ring_bytes += event[1]
        owed = len(self._ring) - self._announced
        if owed and not self.broken:
            with suppress(BlockingIOError, ConnectionError):
                self._announced += self._server.send(bytes(min(owed, 4096)))

    def defer(self, job: Job) -> None:
        """A request will be answered later: abort it if the daemon's end is closed before."""
        self._unanswered.append(job)

    def answered(self, job: Job) -> None:
        """Now it has been."""
        self._unanswered.remove(job)

    def hang_up(self) -> None:
        """The daemon's end is closed. What the client has not dispatched by then is lost."""
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
        """The client's end of the socket; -1 once that is closed."""
        return self._client.fileno()

    def writable(self) -> bool:
        """Whether the daemon has room for the bytes of a burst of requests."""
        poll = select.poll()
        poll.register(self._client, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(0))

    def has_room(self, size: int) -> bool:
        """Whether a request of `size` bytes fits into the ring, and no transition keeps requests out of it."""
        return not self.daemon.in_sync and self._request_bytes + _taken(REQUEST_BYTES, size) <= RING_BYTES

    def submit(self, job: Job, *, size: int = 0) -> None:
        """Put a request into the ring; a daemon that is not frozen works on it at once."""
        self.daemon.submit(_Request(self, job, size), during_sync=self.service.serves_during_sync)

    def waiting(self) -> int:
        """How many events the client can take now."""
        return self._announced

    def take(self) -> object:
        """Take one of them; `taken` must follow."""
        record, size = self._ring.popleft()
        self._ring_bytes -= size
        return record

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
            self.daemon.submit(_Disconnect(self.daemon, self))

    # What a request does to the socket and to the ring.

    def announce(self, size: int) -> bool:
        """Write a request's byte. Where the real library would spin until there is room, the byte is left out."""
        self._request_bytes += _taken(REQUEST_BYTES, size)
        try:
            return self._client.send(b"\0") == 1
        except (BlockingIOError, ConnectionError):
            return False

    def fetch(self, size: int, *, announced: bool) -> None:
        """Read a request's byte."""
        self._request_bytes -= _taken(REQUEST_BYTES, size)
        self.counters.requests += 1
        if announced:
            self._server.recv(1)


class _Request:
    """A request in the ring of a connection."""

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
    """The daemon's discovery that a client has closed its end."""

    def __init__(self, daemon: Daemon, connection: ClientConnection) -> None:
        self._daemon = daemon
        self._connection = connection

    def run(self) -> None:
        if not self._connection.broken:
            self._daemon.forget(self._connection)
            self._connection.hang_up()

    def abort(self) -> None:
        pass  # The daemon died first, and hung up.


def _taken(header: int, size: int) -> int:
    """What something takes in a ring, which counts in words."""
    return header + (size + _WORD - 1) // _WORD * _WORD
