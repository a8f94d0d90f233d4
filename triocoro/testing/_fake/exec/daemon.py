"""The daemon of one node: its services, its connections, and its queue of jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from .icmap import Icmap
from .jobs import Job
from .links import Links
from .ring import Ring
from .service import ClientConnection, Service
from .stats import Stats
from .timers import Timer, Timers

ServiceT = TypeVar("ServiceT", bound=Service)


class Transport(Protocol):
    """Totem, as a daemon and its services use it."""

    @property
    def timers(self) -> Timers:
        """The timers of the cluster and its lock."""
        ...

    @property
    def takes_time(self) -> bool:
        """Whether messages are in transit for a time."""
        ...

    def link_works(self, a: int, b: int, link: int) -> bool:
        """Whether packets of two daemons get through to each other on a link."""
        ...

    def enter(self, daemon: Daemon) -> None:
        """Take in a daemon that starts, in a ring of its own."""
        ...

    def leave(self, daemon: Daemon) -> None:
        """Remove a daemon that has died."""
        ...

    def reform(self) -> None:
        """Form the rings that the network and the daemons' health allow."""
        ...

    def gather(self, daemon: Daemon) -> None:
        """Give up a daemon's ring and form a new one."""
        ...

    def proceed(self, ring: Ring) -> None:
        """Continue the transition to a ring, unless a service still waits."""
        ...

    def multicast(self, sender: Daemon, service: str, message: object) -> None:
        """Send a message to a service on every member of the sender's ring."""
        ...

    def flush(self, daemon: Daemon) -> None:
        """Deliver everything that is in transit in a daemon's ring."""
        ...

    def after_delivery(self, action: Callable[[], None]) -> None:
        """Run `action` once the delivery in progress is over."""
        ...


class Daemon:
    """A corosync process, from its start to its death.

    Args:
        nodeid: the id of its node.
        totem: the network that it shares with the other daemons.
        log: writes a line to the node's log, given a subsystem and a text.
    """

    def __init__(self, nodeid: int, totem: Transport, log: Callable[[str, str], None]) -> None:
        self.nodeid = nodeid
        self.totem = totem
        self.log = log
        self.frozen: bool = False
        self.synchronising: bool = False
        self.alive: bool = True
        # Whether a clean shutdown has begun.
        self.stopping: bool = False
        self.icmap: Icmap = Icmap()
        self.links: Links = Links(nodeid, self.icmap)
        self.stats: Stats = Stats(self.links, connected=self.connected, call_after=self.call_after)
        self.services: dict[str, Service] = {}
        self.connections: list[ClientConnection] = []
        self._ring: Ring | None = None
        self._jobs: deque[tuple[Job, bool]] = deque()
        self._running_jobs = False
        self._timers: dict[Timer, None] = {}
        self.log("MAIN", "Corosync Cluster Engine (triocoro's fake): started and ready to provide service.")

    def start(self, services: Mapping[str, Service]) -> None:
        """Start the services and enter a ring. The services synchronise in the order of the mapping."""
        self.services = dict(services)
        self.totem.enter(self)

    def multicast(self, service: str, message: object) -> None:
        """Send `message` to `service` on every node of the ring."""
        self.totem.multicast(self, service, message)

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """The service of that class."""
        service = self.services[kind.name]
        if not isinstance(service, kind):
            raise TypeError(service)
        return service

    @property
    def in_ring(self) -> bool:
        """Whether the daemon has entered its first ring."""
        return self._ring is not None

    @property
    def ring(self) -> Ring:
        """The ring that this daemon believes it is in."""
        if self._ring is None:
            raise AssertionError("no ring before the start is over")
        return self._ring

    def connected(self, nodeid: int, link: int) -> bool:
        """Whether a link to a node is up. Without knet, it is if the node is in the ring."""
        if self.links.on_knet:
            return self.totem.link_works(self.nodeid, nodeid, link)
        return nodeid in self.ring.members

    def enter_ring(self, ring: Ring) -> None:
        """Enter a new ring that Totem has formed."""
        before = set(self._ring.members if self._ring is not None else ())
        after = set(ring.members)
        text = f"A new membership ({ring.ring_id.nodeid:x}.{ring.ring_id.seq:x}) was formed."
        for verb, nodeids in (("joined", after - before), ("left", before - after)):
            if nodeids:
                text += f" Members {verb}: {' '.join(map(str, sorted(nodeids)))}"
        self.log("TOTEM", text)
        self._ring = ring
        self.synchronising = True
        self.stats.ring_formed()

    def end_sync(self) -> None:
        """The transition is over: run the jobs that have waited for that."""
        self.synchronising = False
        self.run_jobs()

    def submit(self, job: Job, *, during_sync: bool = True) -> None:
        """Run `job` now, or once the daemon thaws: in this thread or another one, under the cluster's lock.

        Args:
            job: the job; it is aborted if the daemon dies first.
            during_sync: whether it may run in a transition, rather than after it.
        """
        with self.totem.timers.lock:
            if not self.alive:
                job.abort()
                return
            self._jobs.append((job, during_sync))
            self.run_jobs()

    def run_jobs(self) -> None:
        """Run the queued jobs in order of arrival, as far as they may run now."""
        if self._running_jobs:
            return
        self._running_jobs = True
        try:
            while self.alive and not self.frozen and (job := self._next_job()) is not None:
                job.run()
        finally:
            self._running_jobs = False

    def _next_job(self) -> Job | None:
        for index, (job, during_sync) in enumerate(self._jobs):
            if during_sync or not self.synchronising:
                del self._jobs[index]
                return job
        return None

    def call_after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` after a time, unless the daemon dies or the timer that this returns is cancelled.

        A frozen daemon calls it when it thaws.
        """

        def expire() -> None:
            del self._timers[timer]
            self.submit(_TimerJob(action, timer))

        timer = self.totem.timers.call_after(seconds, expire)
        self._timers[timer] = None
        return timer

    def freeze(self) -> None:
        """Do nothing more until `thaw`, as after SIGSTOP."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on, as after SIGCONT: run the queued jobs, in the ring that the daemon still believes it is in."""
        self.frozen = False
        for connection in list(self.connections):
            connection.notify()
        self.run_jobs()

    def shut_down(self) -> None:
        """Shut down cleanly: thaw, disconnect the clients while still in the ring, then leave the ring."""
        if self.stopping:
            return
        self.stopping = True
        self.thaw()
        for connection in list(self.connections):
            self.forget(connection)
            connection.hang_up()
        for service in self.services.values():
            service.exit()
        self.totem.flush(self)
        self.die()
        self.totem.reform()

    def forget(self, connection: ClientConnection) -> None:
        """Remove a connection that either side has closed."""
        if connection in self.connections:
            self.connections.remove(connection)
            connection.service.connection_closed(connection)
            self.stats.disconnected(connection.counters)

    def die(self) -> None:
        """Die at once: every connection breaks, and every queued job is aborted."""
        if not self.alive:
            return
        self.alive = False
        self.totem.leave(self)
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.hang_up()
        jobs, self._jobs = self._jobs, deque()
        for job, _ in jobs:
            job.abort()
        timers, self._timers = self._timers, {}
        for timer in timers:
            timer.cancel()


class _TimerJob:
    """The action of a timer that has expired."""

    def __init__(self, action: Callable[[], None], timer: Timer) -> None:
        self._action = action
        self._timer = timer

    def run(self) -> None:
        if not self._timer.cancelled:
            self._action()

    def abort(self) -> None:
        pass  # The timers of a dead daemon do nothing.
