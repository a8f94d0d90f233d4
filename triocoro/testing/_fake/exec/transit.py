"""Messages in transit, in clusters with a latency.

A message gets its place in the order of its ring when it is sent. It reaches each node after a time of its own, and
waits there for the messages before it. When a ring breaks, the nodes that stay together share the messages that any of
them has received (exec/totemsrp.c: memb_state_recovery_enter, memb_state_operational_enter, messages_deliver_to_app).
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from operator import itemgetter
from typing import Final

import attrs

from .ring import Multicast
from .timers import Timer, Timers

_NUMBER: Final = itemgetter(0)


@attrs.define
class _Packet:
    """A message on its way to one node."""

    number: int
    """Its place in the order of its ring."""
    arrival: float
    """When it reaches the node."""
    multicast: Multicast


class Transit:
    """The messages that are in transit to each node.

    Args:
        timers: the time of the cluster.
        latency: the seconds that a message takes to each node.
        jitter: the maximum of the random seconds added to that, for each message and node.
        seed: the seed of these random numbers; -1 is the same as 1.
        deliver: hands a message to a node's service.
        frozen: returns whether a node's daemon is frozen, so that it receives nothing.

    Raises:
        ValueError: a time is negative or not finite.
    """

    def __init__(
        self,
        timers: Timers,
        *,
        latency: float,
        jitter: float,
        seed: int,
        deliver: Callable[[int, Multicast], None],
        frozen: Callable[[int], bool],
    ) -> None:
        if not (0 <= latency < math.inf and 0 <= jitter < math.inf):
            raise ValueError(f"latency and jitter are seconds, 0 or more: {latency!r} and {jitter!r}")
        self._timers = timers
        self._latency = latency
        self._jitter = jitter
        self._random = random.Random(seed)  # noqa: S311 - it must be repeatable
        self._deliver = deliver
        self._frozen = frozen
        self._inboxes: dict[int, deque[_Packet]] = {}
        self._numbers = 0
        # The timer of the next delivery, while any is due.
        self._timer: Timer | None = None

    @property
    def takes_time(self) -> bool:
        """Whether messages take time at all. Outside of a Trio run they do not."""
        return (self._latency > 0 or self._jitter > 0) and self._timers.passes()

    def send(self, multicast: Multicast, nodeids: Iterable[int]) -> None:
        """Send a message to these nodes."""
        self._numbers += 1
        now = self._timers.now()
        for nodeid in nodeids:
            delay = self._latency
            if self._jitter:
                delay += self._jitter * self._random.random()
            self._inbox(nodeid).append(_Packet(self._numbers, now + delay, multicast))
        self.reschedule()

    def forget(self, nodeid: int) -> None:
        """Drop the messages to a node whose daemon has died."""
        self._inboxes.pop(nodeid, None)

    def flush(self, nodeids: Collection[int]) -> None:
        """Deliver everything that is in transit to these nodes now."""
        inboxes = {nodeid: self._inbox(nodeid) for nodeid in nodeids}
        while any(inboxes.values()):
            for nodeid, inbox in inboxes.items():
                while inbox:
                    self._deliver(nodeid, inbox.popleft().multicast)

    def recover(self, nodeids: Collection[int]) -> None:
        """Deliver to these nodes, which go on from a broken ring together, what they have received of its messages.

        These are the messages that have reached one of them at least, and those that one of them has sent. Behind the
        first message that none of them has, only those that they have sent themselves are delivered.
        """
        inboxes = {nodeid: self._inbox(nodeid) for nodeid in nodeids}
        # A delivery may make them send more, which belongs to the old ring as well.
        while any(inboxes.values()):
            hole = min(self._missing(inboxes.values(), nodeids), default=math.inf)
            for nodeid, inbox in inboxes.items():
                for packet in [inbox.popleft() for _ in range(len(inbox))]:
                    if packet.number < hole or packet.multicast.sender in nodeids:
                        self._deliver(nodeid, packet.multicast)

    def reschedule(self) -> None:
        """Set the time of the next delivery anew, after a send or a thaw."""
        due = self._next_due()
        if self._timer is not None and self._timer.due != due:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and due < math.inf:
            self._timer = self._timers.call_at(due, self._deliver_in_time)

    def _inbox(self, nodeid: int) -> deque[_Packet]:
        if nodeid not in self._inboxes:
            self._inboxes[nodeid] = deque()
        return self._inboxes[nodeid]

    def _missing(self, inboxes: Collection[Collection[_Packet]], members: Container[int]) -> Iterator[int]:
        """The numbers of the messages that no member has received or sent."""
        now = self._timers.now()
        # A message that is not in an inbox any more has been delivered.
        arrivals = [{packet.number: packet.arrival for packet in inbox} for inbox in inboxes]
        for packet in itertools.chain.from_iterable(inboxes):
            received = any(of_one.get(packet.number, now) <= now for of_one in arrivals)
            if not received and packet.multicast.sender not in members:
                yield packet.number

    def _next_due(self) -> float:
        due = math.inf
        for nodeid, inbox in self._inboxes.items():
            if inbox and inbox[0].arrival < due and not self._frozen(nodeid):
                due = inbox[0].arrival
        return due

    def arrive(self) -> None:
        """Let everything arrive at once, or at the thaw: the run whose time was ours is over."""
        self._deliver_due(math.inf)
        for inbox in self._inboxes.values():
            for packet in inbox:
                packet.arrival = -math.inf
        self.reschedule()

    def _deliver_in_time(self) -> None:
        self._timer = None
        self._deliver_due(self._timers.now())
        self.reschedule()

    def _deliver_due(self, now: float) -> None:
        while due := [
            (inbox[0].number, nodeid)
            for nodeid, inbox in self._inboxes.items()
            if inbox and inbox[0].arrival <= now and not self._frozen(nodeid)
        ]:
            _, nodeid = min(due, key=_NUMBER)
            self._deliver(nodeid, self._inboxes[nodeid].popleft().multicast)
