"""Messages on their way, where that takes time.

Each message has its place in the order of its ring when it is sent, and comes to each node in a time of its own. There
it waits for those before it. When a ring breaks, those who go on together share what any of them has
(exec/totemsrp.c: memb_state_recovery_enter, memb_state_operational_enter, messages_deliver_to_app).
"""

from __future__ import annotations

import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Collection, Container, Iterable, Iterator

import attrs
import trio

from .jobs import in_run
from .ring import Multicast


@attrs.define
class _Packet:
    number: int
    """Where it is in the order of its ring."""
    arrival: float
    """When it comes to the node."""
    multicast: Multicast


class Transit:
    """The messages that are in flight to each node.

    Args:
        latency: how many seconds a message takes to each node.
        jitter: up to how many seconds more, by chance, for each message and node.
        seed: of that chance; -1 is the same as 1.
        deliver: hands a message to a node's service.
        frozen: whether a node's daemon is frozen, so that it receives nothing.

    Raises:
        ValueError: a time is negative or not finite.
    """

    def __init__(
        self,
        *,
        latency: float,
        jitter: float,
        seed: int,
        deliver: Callable[[int, Multicast], None],
        frozen: Callable[[int], bool],
    ) -> None:
        if not (0 <= latency < math.inf and 0 <= jitter < math.inf):
            raise ValueError(f"latency and jitter are seconds, 0 or more: {latency!r} and {jitter!r}")
        self._latency = latency
        self._jitter = jitter
        self._random = random.Random(seed)  # noqa: S311 - it has to be the same again
        self._deliver = deliver
        self._frozen = frozen
        self._inboxes: dict[int, deque[_Packet]] = {}
        self._numbers = 0
        # The sleep of the task that delivers what is due, while there is one.
        self._sleep: trio.CancelScope | None = None

    @property
    def takes_time(self) -> bool:
        """Whether messages are in flight at all. Outside of a Trio run no time passes."""
        return (self._latency > 0 or self._jitter > 0) and in_run()

    def send(self, multicast: Multicast, nodeids: Iterable[int]) -> None:
        """A message sets out to these daemons."""
        self._numbers += 1
        now = trio.current_time()
        for nodeid in nodeids:
            delay = self._latency
            if self._jitter:
                delay += self._jitter * self._random.random()
            self._inbox(nodeid).append(_Packet(self._numbers, now + delay, multicast))
        self.wake()

    def forget(self, nodeid: int) -> None:
        """A daemon is gone, and so is what was on its way to it."""
        self._inboxes.pop(nodeid, None)

    def arrive(self, nodeids: Collection[int]) -> None:
        """Have all arrive at once that is on its way to these daemons."""
        inboxes = {nodeid: self._inbox(nodeid) for nodeid in nodeids}
        while any(inboxes.values()):
            for nodeid, inbox in inboxes.items():
                while inbox:
                    self._deliver(nodeid, inbox.popleft().multicast)

    def recover(self, nodeids: Collection[int]) -> None:
        """These daemons go on from their ring to the next together: deliver what they still have of the old one.

        That is what has come to any of them, and what any of them has sent. Behind the first message that has not, only
        what they sent themselves counts.
        """
        inboxes = {nodeid: self._inbox(nodeid) for nodeid in nodeids}
        # What is delivered may make them send more; that is in the old ring as well.
        while any(inboxes.values()):
            hole = min(self._missing(inboxes.values(), nodeids), default=math.inf)
            for nodeid, inbox in inboxes.items():
                for packet in [inbox.popleft() for _ in range(len(inbox))]:
                    if packet.number < hole or packet.multicast.sender in nodeids:
                        self._deliver(nodeid, packet.multicast)

    def wake(self) -> None:
        """Something has been sent, or a daemon has thawed: see to it that it is delivered in time."""
        due = self._next_due()
        if self._sleep is not None:
            self._sleep.deadline = due
        elif due < math.inf:
            self._sleep = trio.CancelScope(deadline=due)
            trio.lowlevel.spawn_system_task(self._carry)

    def _inbox(self, nodeid: int) -> deque[_Packet]:
        return self._inboxes.setdefault(nodeid, deque())

    @staticmethod
    def _missing(inboxes: Collection[Collection[_Packet]], members: Container[int]) -> Iterator[int]:
        """The numbers of the messages that none of these members has."""
        now = trio.current_time()
        # What is not on its way any more has been delivered.
        arrivals = [{packet.number: packet.arrival for packet in inbox} for inbox in inboxes]
        for packet in itertools.chain.from_iterable(inboxes):
            has_come = any(of_one.get(packet.number, now) <= now for of_one in arrivals)
            if not has_come and packet.multicast.sender not in members:
                yield packet.number

    def _next_due(self) -> float:
        return min(
            (inbox[0].arrival for nodeid, inbox in self._inboxes.items() if inbox and not self._frozen(nodeid)),
            default=math.inf,
        )

    async def _carry(self) -> None:  # noqa: ASYNC910 - a task of our own
        """Deliver what is due, until nothing is in flight."""
        try:
            while self._sleep is not None:
                with self._sleep:
                    await trio.sleep_forever()
                self._deliver_due(trio.current_time())
                due = self._next_due()
                self._sleep = trio.CancelScope(deadline=due) if due < math.inf else None
        except trio.Cancelled:
            # The run is over, and with it this clock.
            self._sleep = None
            self._deliver_due(math.inf)
            for inbox in self._inboxes.values():
                for packet in inbox:
                    packet.arrival = -math.inf
            raise

    def _deliver_due(self, now: float) -> None:
        while due := [
            (inbox[0].number, nodeid)
            for nodeid, inbox in self._inboxes.items()
            if inbox and not self._frozen(nodeid) and inbox[0].arrival <= now
        ]:
            _, nodeid = min(due, key=lambda item: item[0])
            self._deliver(nodeid, self._inboxes[nodeid].popleft().multicast)
