"""One node's corosync process: its services, and the requests that wait for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeAlias, TypeVar, cast

import trio

from ...._errors import CorosyncError, CsError, error_from_code
from ...._types import RingId
from .icmap import Icmap
from .stats import Stats

if TYPE_CHECKING:
    from .ipc import Connection
    from .totem import Ring, Totem

T = TypeVar("T")
ServiceT = TypeVar("ServiceT", bound="Service")

Answer: TypeAlias = Callable[[CorosyncError | None], None]
"""Tells who waits for something how it has ended."""


class Job(Protocol):
    """Something that the daemon does as soon as it is not frozen."""

    def run(self) -> None:
        """Do it."""

    def abort(self) -> None:
        """The daemon died before it could."""


class Service(ABC):
    """A service engine: it talks to its peers through totem, and to its clients through their connections."""

    name: str
    """Unique within a daemon."""
    serves_during_sync: ClassVar[bool] = False
    """Whether requests are served in the middle of a transition."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def multicast(self, message: object) -> None:
        """Send `message` to this service on every node of the ring."""
        self.daemon.totem.multicast(self.daemon, self.name, message)

    @abstractmethod
    def deliver(self, message: object, sender: int) -> None:
        """A message from node `sender`, in agreed order."""

    @abstractmethod
    def connection_closed(self, connection: Connection) -> None:
        """A client is gone."""

    def exit(self) -> None:  # noqa: B027 - most have nobody to tell
        """The daemon stops in good order, and has parted from its clients: tell the other nodes what they must know."""


class Synchronised(Service):
    """A service that has to come to terms with its peers in each new ring."""

    @abstractmethod
    def sync_init(self, transitional: frozenset[int], members: tuple[int, ...], ring_id: RingId) -> None:
        """A new ring begins; `transitional` are those who come from our old one with us."""

    @abstractmethod
    def sync_process(self) -> None:
        """Send what the others must know."""

    def sync_waits(self) -> bool:
        """Whether the transition must not end yet. When that changes, call `Totem.proceed`."""
        return False

    @abstractmethod
    def sync_activate(self) -> None:
        """All that was sent has arrived everywhere: tell the clients."""


class Daemon:
    """A corosync process, from its start to its death."""

    def __init__(self, nodeid: int, totem: Totem, log: Callable[[str, str], None]) -> None:
        self.nodeid = nodeid
        self.totem = totem
        self.log = log
        self.frozen = False
        self.in_sync = False
        self.alive = True
        # Whether it is about to stop in good order.
        self.stopping = False
        self.icmap = Icmap()
        self.stats = Stats(self)
        self.services: dict[str, Service] = {}
        self.connections: list[Connection] = []
        self._ring: Ring | None = None
        self._jobs: deque[tuple[Job, bool]] = deque()
        self._working = False
        self._timers: dict[trio.CancelScope, None] = {}
        self.log("MAIN", "Corosync Cluster Engine (triocoro's fake): started and ready to provide service.")

    def begin(self, services: Mapping[str, Service]) -> None:
        """Start the services, in the order in which they synchronise, and enter a ring."""
        self.services = dict(services)
        self.totem.enter(self)

    def service(self, kind: type[ServiceT]) -> ServiceT:
        """One of the services."""
        service = self.services[kind.name]
        if not isinstance(service, kind):
            raise TypeError(service)
        return service

    @property
    def in_ring(self) -> bool:
        """Whether there has been a ring yet."""
        return self._ring is not None

    @property
    def ring(self) -> Ring:
        """The ring that this daemon believes to be in."""
        if self._ring is None:
            raise AssertionError("no ring before the start is over")
        return self._ring

    def enter_ring(self, ring: Ring) -> None:
        """Totem has formed a new ring with us in it."""
        before = set(self._ring.members if self._ring is not None else ())
        after = set(ring.members)
        text = f"A new membership ({ring.ring_id.nodeid:x}.{ring.ring_id.seq:x}) was formed."
        for verb, nodeids in (("joined", after - before), ("left", before - after)):
            if nodeids:
                text += f" Members {verb}: {' '.join(map(str, sorted(nodeids)))}"
        self.log("TOTEM", text)
        self._ring = ring
        self.in_sync = True
        self.stats.ring_formed()

    def end_sync(self) -> None:
        """The transition is over: do what has waited for that."""
        self.in_sync = False
        self.work()

    def submit(self, job: Job, *, during_sync: bool = True) -> None:
        """Have `job` done: now, or when the daemon thaws, or after the transition, unless it is done in one too."""
        if not self.alive:
            job.abort()
            return
        self._jobs.append((job, during_sync))
        self.work()

    def work(self) -> None:
        """Do what waits, in order of arrival."""
        if self._working:
            return
        self._working = True
        try:
            while self.alive and not self.frozen and (job := self._next_job()) is not None:
                job.run()
        finally:
            self._working = False

    def _next_job(self) -> Job | None:
        for index, (job, during_sync) in enumerate(self._jobs):
            if during_sync or not self.in_sync:
                del self._jobs[index]
                return job
        return None

    def call_after(self, seconds: float, action: Callable[[], None]) -> trio.CancelScope:
        """Do `action` when that time has passed, unless the daemon dies or the scope that this returns is cancelled.

        A frozen daemon does it when it thaws. Only within a Trio run, whose clock it goes by.
        """
        scope = trio.CancelScope()
        self._timers[scope] = None
        trio.lowlevel.spawn_system_task(self._run_timer, seconds, action, scope)
        return scope

    async def _run_timer(self, seconds: float, action: Callable[[], None], scope: trio.CancelScope) -> None:
        try:
            with scope:
                await trio.sleep(seconds)
                self.submit(_TimerJob(action, scope))
        finally:
            self._timers.pop(scope, None)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: work off what has come in, as far as we know still in the ring of before."""
        self.frozen = False
        for connection in list(self.connections):
            connection.notify()
        self.work()

    def shut_down(self) -> None:
        """Stop in good order: thaw, part from the clients while still in the ring, then leave that."""
        if self.stopping:
            return
        self.stopping = True
        self.thaw()
        for connection in list(self.connections):
            self.forget(connection)
            connection.hang_up()
        for service in self.services.values():
            service.exit()
        self.totem.arrive(self)
        self.die()
        self.totem.reform()

    def forget(self, connection: Connection) -> None:
        """A connection is over, by either side."""
        if connection in self.connections:
            self.connections.remove(connection)
            connection.service.connection_closed(connection)
            self.stats.disconnected(connection)

    def die(self) -> None:
        """Cease to exist: every connection breaks, and nothing that waits is done."""
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
        for timer in list(self._timers):
            timer.cancel()


class _TimerJob:
    """What a timer is for."""

    def __init__(self, action: Callable[[], None], scope: trio.CancelScope) -> None:
        self._action = action
        self._scope = scope

    def run(self) -> None:
        if not self._scope.cancel_called:
            self._action()

    def abort(self) -> None:
        pass  # A dead daemon's timers do nothing.


class Errand(Generic[T]):
    """The outcome of what somebody asked of the daemon, who waits for it and may lose patience."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._done = trio.Event()
        self._outcome: T | CorosyncError | None = None
        self._unclaimed: Callable[[T | None], None] | None = None

    def finish(self, outcome: T | CorosyncError) -> None:
        """It is over: wake the one who waits."""
        self._outcome = outcome
        self._done.set()
        self._dispose()

    def abort(self) -> None:
        """The daemon died."""
        self.finish(broken(self._function))

    async def wait(self, *, unclaimed: Callable[[T | None], None]) -> T:
        """Wait for the outcome of the action.

        Args:
            unclaimed: called once the action is over if the wait was cancelled; with the result, `None` if it failed.
        """
        if not self._done.is_set():
            try:
                await self._done.wait()
            except trio.Cancelled:
                self._unclaimed = unclaimed
                # It may have come to its end in the very moment of the cancellation.
                if self._done.is_set():
                    self._dispose()
                raise
        if isinstance(self._outcome, CorosyncError):
            raise self._outcome
        return cast("T", self._outcome)  # noqa: ASYNC910 - the round trip began with a checkpoint

    def _dispose(self) -> None:
        if self._unclaimed is not None:
            outcome = self._outcome
            self._unclaimed(None if isinstance(outcome, CorosyncError) else outcome)


def in_run() -> bool:
    """Whether this is called within a Trio run, where time passes."""
    # trio.lowlevel.in_trio_run is younger than the oldest Trio that we support.
    try:
        trio.current_time()
    except RuntimeError:
        return False
    return True


def broken(function: str) -> CorosyncError:
    """What a call on a broken connection raises."""
    return error_from_code(CsError.LIBRARY, function)
