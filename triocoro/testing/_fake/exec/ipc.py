"""The connection between a client and a service of a daemon, as libqb makes it.

Requests and events have a ring buffer each: shared memory in libqb, a queue here. A socket carries one byte for each
request and each event, so that either side can poll. When the socket is full, the daemon writes the bytes of further
events after the client has read some. Events that do not fit into the ring buffer wait in the daemon.
"""

from __future__ import annotations

import fcntl
import select
import socket
import sys
import termios
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from ...._runs import Run
from .daemon import Daemon
from .jobs import Job
from .ring import Ring
from .service import ClientConnection, Service

RING_BYTES = 1024 * 1024 + 4096 - 8
"""The capacity of each of the two ring buffers."""
REQUEST_BYTES = 48
"""What a request takes in the ring buffer besides its payload."""
EVENT_BYTES = 192
"""What a delivered message takes besides its payload, and roughly what other events take."""
SINGLE_BYTES = 278
"""How many bytes a socket holds that are written one by one."""
_WORD = 4


class IpcConnection:
    """Both ends of a connection. The daemon and its services see it as a `ClientConnection`.

    Args:
        daemon: the daemon.
        service: the service that the client connects to.
        pid: the client's process id.
        run: the client's Trio run.
    """

    def __init__(self, daemon: Daemon, service: Service, pid: int, run: Run) -> None:
        self.daemon = daemon
        self.service = service
        self.pid = pid
        self.run: Run = run
        """The run that the client is in: what it waits for is touched in there only."""
        self.broken = False
        # A transition holds up the connections that are there when it begins.
        self._opened_in_transition_to: Ring | None = daemon.ring if daemon.synchronising else None
        self._lock = daemon.totem.timers.lock
        daemon.totem.timers.introduce(run)
        self._client, self._server = socket.socketpair()
        for end in (self._client, self._server):
            end.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._room = select.poll()
        self._room.register(self._client, select.POLLOUT)
        # Events with the sizes of their payloads.
        self._queue: deque[tuple[object, int]] = deque()
        self._queue_bytes = 0
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
        self.send_all((record,), (size,))

    def send_all(self, records: Sequence[object], sizes: Sequence[int]) -> None:
        """Queue events, each with so many bytes of payload, for the client."""
        self._queue += zip(records, sizes, strict=True)
        self._queue_bytes += _size_in_ring(EVENT_BYTES, sizes)
        self.counters.events += len(records)
        self._fill_ring()
        # The daemon writes these bytes one by one, so the socket holds fewer of them.
        self._announce_events(SINGLE_BYTES - self._announced)

    def notify(self) -> None:
        """Move queued events into the ring buffer and write their bytes to the socket, as far as there is room."""
        self._fill_ring()
        self._announce_events(4096)

    def _fill_ring(self) -> None:
        if not self._queue:
            return
        if self._ring_bytes + self._queue_bytes <= RING_BYTES:
            self._ring += self._queue
            self._queue.clear()
            self._ring_bytes += self._queue_bytes
            self._queue_bytes = 0
        while self._queue:
            size = _size_in_ring(EVENT_BYTES, (self._queue[0][1],))
            if self._ring_bytes + size > RING_BYTES:
                break
            self._ring.append(self._queue.popleft())
            self._queue_bytes -= size
            self._ring_bytes += size

    def _announce_events(self, most: int) -> None:
        count = min(len(self._ring) - self._announced, most)
        if count > 0 and not self.broken:
            try:  # noqa: SIM105 - for each message, and `suppress` takes longer
                self._announced += self._server.send(bytes(count))
            except (BlockingIOError, ConnectionError):
                pass

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
        self._queue_bytes = 0
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

    def waiting(self) -> int:
        """How many events the client has been told of and has not taken."""
        return int.from_bytes(fcntl.ioctl(self._client, termios.FIONREAD, bytes(4)), sys.byteorder)

    def writable(self) -> bool:
        """Whether the socket has room for the bytes of a burst of requests."""
        return any(event & select.POLLOUT for _, event in self._room.poll(0))

    def room_for(self, sizes: Sequence[int]) -> int:
        """How many of these requests, by their sizes, the ring buffer takes; none while a transition is in progress."""
        if self.daemon.synchronising:
            return 0
        room = RING_BYTES - self._request_bytes
        if _size_in_ring(REQUEST_BYTES, sizes) <= room:
            return len(sizes)
        count = 0
        while (room := room - _size_in_ring(REQUEST_BYTES, (sizes[count],))) >= 0:
            count += 1
        return count

    def submit(self, job: Job, sizes: Sequence[int] = (0,), *, flow_control: bool = True) -> None:
        """Put requests into the ring buffer, which one job carries out; a daemon that is not frozen runs it at once.

        Args:
            job: the job.
            sizes: of the payload of each request.
            flow_control: whether a daemon refuses such a request in a transition. If it does not, the request waits
                only on a connection that is older than the transition.
        """
        with self._lock:
            unlimited = not flow_control and self._opened_in_transition_to is self.daemon.ring
            during_sync = self.service.serves_during_sync or unlimited
            self.daemon.submit(_Requests(self, job, sizes), during_sync=during_sync)

    def take_events(self, max_events: int, max_bytes: int) -> Sequence[object]:
        """Take events out of the ring buffer, until their payloads exceed `max_bytes`; `acknowledge` must follow."""
        ring = self._ring
        events: list[tuple[object, int]] = []
        with self._lock:
            limit = min(max_events, self._announced)
            if self._ring_bytes <= max_bytes:
                events = [ring.popleft() for _ in range(limit)]
            else:
                taken_bytes = 0
                while len(events) < limit and taken_bytes <= max_bytes:
                    events.append(ring.popleft())
                    taken_bytes += events[-1][1]
            if ring:
                self._ring_bytes -= _size_in_ring(EVENT_BYTES, [size for _, size in events])
            else:
                self._ring_bytes = 0
        return [record for record, _ in events]

    def acknowledge(self, count: int) -> None:
        """Read the bytes of `count` events that were taken, which makes room for more."""
        if count:
            with self._lock:
                self._announced -= count
                while count:
                    count -= len(self._client.recv(count))
                if (self._queue or self._ring) and not self.daemon.frozen:
                    self.notify()

    def disconnect(self) -> None:
        """Close the client's end. The daemon notices once it is not frozen."""
        self._client.close()
        if not self.broken:
            self.daemon.submit(_Disconnect(self.daemon, self))

    # The passage of a request through the ring buffer and the socket.

    def announce(self, count: int, size: int) -> int:
        """Write a byte for each request, unless the daemon will read it before anyone can look; returns how many.

        If the socket is full, the real library spins until there is room; the fake leaves the bytes out.

        Args:
            count: how many requests.
            size: the bytes that they take in the ring buffer.
        """
        self._request_bytes += size
        announced = 0
        if self.daemon.frozen or self.daemon.synchronising:
            with suppress(BlockingIOError, ConnectionError):
                for _ in range(count):
                    announced += self._client.send(b"\0")
        return announced

    def fetch(self, count: int, size: int, announced: int) -> None:
        """Take requests out of the ring buffer, and read those bytes of theirs that were written."""
        self._request_bytes -= size
        self.counters.requests += count
        while announced:
            announced -= len(self._server.recv(announced))


class _Requests:
    """Requests in the ring buffer of a connection, which one job carries out."""

    def __init__(self, connection: IpcConnection, job: Job, sizes: Sequence[int]) -> None:
        self._connection = connection
        self._job = job
        self._count = len(sizes)
        self._size = _size_in_ring(REQUEST_BYTES, sizes)
        self._announced = 0 if connection.broken else connection.announce(self._count, self._size)

    def run(self) -> None:
        if self._connection.broken:
            self._job.abort()
            return
        self._connection.fetch(self._count, self._size, self._announced)
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


def _size_in_ring(header: int, sizes: Sequence[int]) -> int:
    """The bytes that messages with such payloads take in a ring buffer, which is divided into words."""
    return sum([header + (size + _WORD - 1) // _WORD * _WORD for size in sizes])
