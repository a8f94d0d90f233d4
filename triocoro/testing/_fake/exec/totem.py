"""Totem: who is in a ring with whom, and messages in one agreed order within a ring.

A change of the topology forms the new rings at once, and in a transition nothing takes time. Otherwise a multicast has
been delivered to every member when it returns, unless it was sent from within a delivery: then it comes after the one
under way, as the agreed order demands; or unless the cluster has a latency: then it is in transit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager

from ...._types import RingId
from ..._cluster.network import Network
from .daemon import Daemon
from .ring import Multicast, Ring
from .service import Synchronised
from .transit import Transit

SEQ_STEP = 4
"""A ring's seq is this much above the highest one that its members have seen; Totem keeps the others for itself."""


class Totem:
    """The network and the protocol on it, for all nodes together.

    Args:
        nodeids: the nodes.
        latency: how many seconds a message takes to each node.
        jitter: up to how many seconds more, by chance.
        seed: of that chance.
    """

    def __init__(self, nodeids: Iterable[int], *, latency: float, jitter: float, seed: int) -> None:
        self._nodeids = frozenset(nodeids)
        self._network = Network(self._nodeids)
        self._daemons: dict[int, Daemon] = {}
        # The highest seq that each node has seen. Corosync keeps it on disk, so that it survives restarts.
        self._seqs = dict.fromkeys(self._nodeids, 0)
        self._transit = Transit(
            latency=latency,
            jitter=jitter,
            seed=seed,
            deliver=self._hand_over,
            frozen=lambda nodeid: self._daemons[nodeid].frozen,
        )
        # What takes no time, but has to wait for what is being delivered.
        self._in_flight: deque[Multicast] = deque()
        self._holding = False
        self._afterwards: deque[Callable[[], None]] = deque()
        self._busy = False
        # What a daemon sends that thaws out of a broken ring.
        self._thawing: Daemon | None = None
        self._unsent: list[tuple[str, object]] = []
        # The transitions that wait for something.
        self._syncs: dict[Ring, Iterator[object]] = {}

    def rewire(self, network: Network) -> None:
        """Let the network be so."""
        self._network = network
        self.reform()

    def enter(self, daemon: Daemon) -> None:
        """A daemon starts: it makes a ring of its own; `reform` brings it together with the others."""
        self._daemons[daemon.nodeid] = daemon
        # Totem does this at each start, so that a new incarnation never takes an old ring's id.
        self._seqs[daemon.nodeid] += 1
        self._form([daemon])

    def leave(self, daemon: Daemon) -> None:
        """A daemon is gone; the others notice at `reform`."""
        del self._daemons[daemon.nodeid]
        self._transit.forget(daemon.nodeid)

    def reform(self) -> None:
        """Form the rings that the topology and the daemons' health allow, where they are not there already.

        A frozen daemon takes no part: it stays in its ring, which the others leave, until it thaws.
        """
        with self._undisturbed():
            self._reform()
        self._transit.wake()

    def gather(self, daemon: Daemon) -> None:
        """Give up that daemon's ring, and form one anew."""
        with self._undisturbed():
            self._reform(given_up=daemon.ring)
        self._transit.wake()

    def _reform(self, *, given_up: Ring | None = None) -> None:
        awake = {daemon.nodeid: daemon for daemon in self._daemons.values() if not daemon.frozen}

        def stands(members: tuple[int, ...]) -> bool:
            ring = awake[members[0]].ring
            agreed = ring.members == members and all(awake[nodeid].ring is ring for nodeid in members)
            return agreed and ring is not given_up

        for members in list(self._network.rings(awake, stands)):
            if not stands(members):
                self._form([awake[nodeid] for nodeid in members])

    def thaw(self, daemon: Daemon) -> None:
        """Let a frozen daemon go on. If others have left its ring, what it sends now waits for the next one."""
        broken = any(
            other is None or other.ring is not daemon.ring for other in map(self._daemons.get, daemon.ring.members)
        )
        self._thawing = daemon if broken else None
        daemon.thaw()
        self._thawing = None
        self.reform()
        unsent, self._unsent = self._unsent, []
        for service, message in unsent:
            if daemon.alive:
                self.multicast(daemon, service, message)

    def multicast(self, sender: Daemon, service: str, message: object) -> None:
        """Send `message` to `service` on every member of the sender's ring, itself included."""
        if sender is self._thawing:
            self._unsent.append((service, message))
            return
        multicast = Multicast(sender.ring, sender.nodeid, service, message)
        # Nothing is in transit to a ring before its services have synchronised.
        if self._transit.takes_time and not sender.in_sync:
            self._transit.send(multicast, [daemon.nodeid for daemon in self._receivers(sender.ring)])
            return
        self._in_flight.append(multicast)
        if not self._holding:
            self._deliver()

    def arrive(self, daemon: Daemon) -> None:
        """Have all arrive that is in transit in that daemon's ring: it is about to leave that in good order."""
        with self._undisturbed():
            self._transit.arrive([receiver.nodeid for receiver in self._receivers(daemon.ring)])

    def afterwards(self, action: Callable[[], None]) -> None:
        """From within a delivery: do `action` when it is over, and all that takes no time has arrived."""
        self._afterwards.append(action)

    def _form(self, daemons: list[Daemon]) -> None:
        members = tuple(daemon.nodeid for daemon in daemons)
        seq = max(self._seqs[nodeid] for nodeid in members) + SEQ_STEP
        # The lowest member represents the ring.
        ring = Ring(RingId(members[0], seq), members)
        transitional = {daemon.nodeid: _transitional(daemon, daemons) for daemon in daemons}
        for nodeids in dict.fromkeys(transitional.values()):
            self._transit.recover([nodeid for nodeid in members if nodeid in nodeids])
        for daemon in daemons:
            if daemon.in_ring:
                # The transition to the ring of before comes to no end, if it is still under way.
                self._syncs.pop(daemon.ring, None)
            self._seqs[daemon.nodeid] = seq
            daemon.enter_ring(ring)
        # The services synchronise one after the other, each in step on all nodes.
        self._syncs[ring] = self._synchronise(ring, daemons, transitional)
        self.proceed(ring)

    def proceed(self, ring: Ring) -> None:
        """Go on with the transition to that ring, if it is under way and no service waits for anything."""
        sync = self._syncs.pop(ring, None)
        if sync is not None and next(sync, None) is not None:
            self._syncs[ring] = sync

    def _synchronise(
        self, ring: Ring, daemons: list[Daemon], transitional: dict[int, frozenset[int]]
    ) -> Iterator[object]:
        """Have the services synchronise; yields where one has to wait."""
        speakers = deque(daemons)
        for name in daemons[0].services:
            engines = {
                daemon.nodeid: service
                for daemon in speakers
                if isinstance(service := daemon.services[name], Synchronised)
            }
            if not engines:
                continue
            for nodeid, engine in engines.items():
                engine.sync_init(transitional[nodeid], ring.members, ring.ring_id)
            self._holding = True
            for engine in engines.values():
                engine.sync_process()
            self._deliver()
            while any(engine.sync_waits() for engine in engines.values()):
                yield engines
            for engine in engines.values():
                engine.sync_activate()
            # The token goes around in the order of the ids: who spoke last of this service speaks first of the next.
            speakers.rotate()
        for daemon in daemons:
            # What one of them has to do now may lead to yet another ring.
            if daemon.ring is ring:
                daemon.end_sync()

    def _deliver(self) -> None:
        self._holding = True
        try:
            while self._in_flight:
                multicast = self._in_flight.popleft()
                for daemon in self._receivers(multicast.ring):
                    daemon.services[multicast.service].deliver(multicast.message, multicast.sender)
        finally:
            self._holding = False
        self._do_afterwards()

    def _hand_over(self, nodeid: int, multicast: Multicast) -> None:
        """A message that was in transit has come, and those before it."""
        self._daemons[nodeid].services[multicast.service].deliver(multicast.message, multicast.sender)
        self._do_afterwards()

    @contextmanager
    def _undisturbed(self) -> Generator[None, None, None]:
        """Have what is to be done afterwards wait for the end of the block."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        self._do_afterwards()

    def _do_afterwards(self) -> None:
        while self._afterwards and not self._busy:
            self._afterwards.popleft()()

    def _receivers(self, ring: Ring) -> Iterator[Daemon]:
        for nodeid in ring.members:
            daemon = self._daemons.get(nodeid)
            # A daemon that was frozen and is stopped is alone in the old ring, and hears only itself.
            if daemon is not None and not daemon.frozen and daemon.ring is ring:
                yield daemon


def _transitional(daemon: Daemon, daemons: list[Daemon]) -> frozenset[int]:
    """Those who come to the new ring from the same old one as `daemon` does."""
    if not daemon.in_ring:
        return frozenset({daemon.nodeid})
    return frozenset(other.nodeid for other in daemons if other.in_ring and other.ring is daemon.ring)
