"""Totem: the membership of rings, and messages in one agreed order within a ring.

A change of the network forms the new rings at once, and a transition takes no time. When `multicast` returns, every
member has received the message, with two exceptions. A message that is sent from within a delivery comes after the one
being delivered, as the agreed order demands. In a cluster with a latency, messages are in transit for a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from ...._types import RingId
from ..._cluster.network import Network
from .daemon import Daemon
from .ring import Multicast, Ring
from .service import Synchronised
from .timers import Timers
from .transit import Transit

SEQ_STEP = 4
"""How far a ring's seq is above the highest one that its members have seen; Totem uses those in between itself."""


class Totem:
    """The network and the protocol on it, for all daemons of a cluster: their `Transport`.

    Args:
        network: the network at the start.
        latency: the seconds that a message takes to each node.
        jitter: the maximum of the random seconds added to that.
        seed: the seed of these random numbers.
    """

    def __init__(self, network: Network, *, latency: float, jitter: float, seed: int) -> None:
        self._network = network
        self._daemons: dict[int, Daemon] = {}
        # The highest seq that each node has seen. Corosync stores it on disk, so it survives restarts.
        self._seqs = dict.fromkeys(network.nodeids, 0)
        self.timers: Timers = Timers(on_change=lambda: self._transit.arrive())  # noqa: PLW0108 - it is made below
        self._transit = Transit(
            self.timers,
            latency=latency,
            jitter=jitter,
            seed=seed,
            deliver=self._deliver_from_transit,
            frozen=lambda nodeid: self._daemons[nodeid].frozen,
        )
        # Messages that take no time, but wait for the one being delivered.
        self._undelivered: deque[Multicast] = deque()
        self._delivering = False
        self._deferred_actions: deque[Callable[[], None]] = deque()
        self._deferring = False
        # A daemon that thaws in a ring which others have left, and the messages that it sends meanwhile.
        self._thawing: Daemon | None = None
        self._unsent: list[tuple[str, object]] = []
        # The transitions in which a service waits.
        self._syncs: dict[Ring, Iterator[object]] = {}

    @property
    def takes_time(self) -> bool:
        """Whether messages are in transit for a time."""
        return self._transit.takes_time

    def set_network(self, network: Network) -> None:
        """Replace the network, and form the rings that it allows."""
        self._network = network
        self._seqs = {nodeid: self._seqs.get(nodeid, 0) for nodeid in network.nodeids}
        self.reform()

    def link_works(self, a: int, b: int, link: int) -> bool:
        """Whether packets of two daemons get through to each other on a link."""
        awake = all(nodeid in self._daemons and not self._daemons[nodeid].frozen for nodeid in (a, b))
        return awake and (a == b or self._network.link_works(a, b, link))

    def enter(self, daemon: Daemon) -> None:
        """Take in a daemon that starts, in a ring of its own. `reform` then brings it together with the others."""
        self._daemons[daemon.nodeid] = daemon
        # Totem does this at each start, so that a new incarnation never takes an old ring's id.
        self._seqs[daemon.nodeid] += 1
        self._form([daemon])

    def leave(self, daemon: Daemon) -> None:
        """Remove a daemon that has died. The others notice at the next `reform`."""
        del self._daemons[daemon.nodeid]
        self._transit.forget(daemon.nodeid)

    def reform(self) -> None:
        """Form the rings that the network and the daemons' health allow, unless they exist already.

        A frozen daemon takes no part. It stays in its old ring, which the others leave, until it thaws.
        """
        with self._deferring_actions():
            self._reform()
        self._transit.reschedule()

    def gather(self, daemon: Daemon) -> None:
        """Give up a daemon's ring and form a new one."""
        with self._deferring_actions():
            self._reform(given_up=daemon.ring)
        self._transit.reschedule()

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
        """Let a frozen daemon go on. If others have left its ring, what it sends is sent in the next ring."""
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
        # Messages of a transition take no time.
        if self._transit.takes_time and not sender.synchronising:
            self._transit.send(multicast, [daemon.nodeid for daemon in self._receivers(sender.ring)])
            return
        self._undelivered.append(multicast)
        if not self._delivering:
            self._deliver()

    def flush(self, daemon: Daemon) -> None:
        """Deliver everything that is in transit in a daemon's ring, which it is about to leave cleanly."""
        with self._deferring_actions():
            self._transit.flush([receiver.nodeid for receiver in self._receivers(daemon.ring)])

    def after_delivery(self, action: Callable[[], None]) -> None:
        """Run `action` once the delivery in progress is over, and all messages that take no time have arrived."""
        self._deferred_actions.append(action)

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
                # A transition to the old ring that is still in progress is given up.
                self._syncs.pop(daemon.ring, None)
            self._seqs[daemon.nodeid] = seq
            daemon.enter_ring(ring)
        # The services synchronise one after the other, each on all nodes at once.
        self._syncs[ring] = self._synchronise(ring, daemons, transitional)
        self.proceed(ring)

    def proceed(self, ring: Ring) -> None:
        """Continue the transition to a ring, if it is in progress and no service still waits."""
        sync = self._syncs.pop(ring, None)
        if sync is not None and next(sync, None) is not None:
            self._syncs[ring] = sync

    def _synchronise(
        self, ring: Ring, daemons: list[Daemon], transitional: dict[int, frozenset[int]]
    ) -> Iterator[object]:
        """Synchronise the services; yields when one has to wait."""
        token_order = deque(daemons)
        for name in daemons[0].services:
            engines = {
                daemon.nodeid: service
                for daemon in token_order
                if isinstance(service := daemon.services[name], Synchronised)
            }
            if not engines:
                continue
            for nodeid, engine in engines.items():
                engine.sync_init(transitional[nodeid], ring.members, ring.ring_id)
            self._delivering = True
            for engine in engines.values():
                engine.sync_process()
            self._deliver()
            while any(engine.sync_waits() for engine in engines.values()):
                yield engines
            for engine in engines.values():
                engine.sync_activate()
            # The token goes around in the order of the ids: the node that sends last for this service sends first for
            # the next one.
            token_order.rotate()
        for daemon in daemons:
            # A job that one of them runs now may lead to yet another ring.
            if daemon.ring is ring:
                daemon.end_sync()

    def _deliver(self) -> None:
        self._delivering = True
        try:
            while self._undelivered:
                multicast = self._undelivered.popleft()
                for daemon in self._receivers(multicast.ring):
                    daemon.services[multicast.service].deliver(multicast.message, multicast.sender)
        finally:
            self._delivering = False
        self._run_deferred_actions()

    def _deliver_from_transit(self, nodeid: int, multicast: Multicast) -> None:
        """Deliver a message that was in transit, after those before it."""
        self._daemons[nodeid].services[multicast.service].deliver(multicast.message, multicast.sender)
        self._run_deferred_actions()

    @contextmanager
    def _deferring_actions(self) -> Generator[None, None, None]:
        """Run the actions given to `after_delivery` at the end of the block only."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self._run_deferred_actions()

    def _run_deferred_actions(self) -> None:
        while self._deferred_actions and not self._deferring:
            self._deferred_actions.popleft()()

    def _receivers(self, ring: Ring) -> Iterator[Daemon]:
        for nodeid in ring.members:
            daemon = self._daemons.get(nodeid)
            # A daemon that is shut down while frozen is alone in its old ring, and receives only its own messages.
            if daemon is not None and not daemon.frozen and daemon.ring is ring:
                yield daemon


def _transitional(daemon: Daemon, daemons: list[Daemon]) -> frozenset[int]:
    """The ids of the daemons that come to the new ring from the same old one as `daemon` does."""
    if not daemon.in_ring:
        return frozenset({daemon.nodeid})
    return frozenset(other.nodeid for other in daemons if other.in_ring and other.ring is daemon.ring)
