"""Faults of every kind, chosen by a seed."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import trio

from triocoro.testing import History, NetnsCluster

_PAUSE = 0.5
"""Seconds for which things are left as they are, on average."""


class Faults:
    """Does things to a cluster, and notes them in a history.

    The daemon of the first node is never ended, so that its memory shows over the whole run.

    A fault that makes nodes lose each other comes when the memberships have settled. If a node is lost in the middle of
    a transition, its members can remain listed as ghosts (docs/divergences.md), which the checkers rightly find.
    """

    def __init__(self, cluster: NetnsCluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._nodes = sorted(cluster.nodes)
        self.history = History(clock=trio.current_time)
        self.count = 0
        self._verbs: tuple[Callable[[], Awaitable[None]], ...] = (
            self._partition,
            self._isolate,
            self._cut,
            self._lose,
            self._freeze_briefly,
            self._freeze_briefly,
            self._freeze,
            self._kill,
            self._stop,
            self._restart,
        )

    async def run(self) -> None:
        """One fault after the other, until cancelled."""
        while True:
            await self._cluster.settled()
            await self._pause()
            await self._chance.choice(self._verbs)()

    async def mend(self) -> None:
        """Make the cluster whole again."""
        await self._do("heal")
        for node in self._nodes:
            await self._do("thaw", node)
            await self._do("start", node)
        await self._cluster.settled()

    async def _do(self, verb: str, node: int | None = None, *arguments: object, **note: object) -> None:
        subject = self._cluster if node is None else self._cluster[node]
        with trio.CancelScope(shield=True):  # a daemon whose end was only asked for would end later
            await getattr(subject, verb)(*arguments)
        self.history.fault(verb, **({} if node is None else {"node": node}), **note)
        self.count += verb not in {"heal", "thaw", "start"}

    async def _pause(self) -> None:
        await trio.sleep(self._chance.expovariate(1 / _PAUSE))

    async def _settled_and_pause(self) -> None:
        await self._cluster.settled()
        await self._pause()

    def _mortal(self) -> int:
        return self._chance.choice(self._nodes[1:])

    async def _partition(self) -> None:
        alone = self._chance.choice(self._nodes)
        sides = [[alone], [node for node in self._nodes if node != alone]]
        await self._do("partition", None, *sides, sides=sides)
        await self._settled_and_pause()
        await self._do("heal")

    async def _isolate(self) -> None:
        node = self._chance.choice(self._nodes)
        await self._do("isolate", None, node, isolated=node)
        await self._settled_and_pause()
        await self._do("heal")

    async def _cut(self) -> None:
        # Nodes may take long to agree then.
        source, target = self._chance.sample(self._nodes, 2)
        await self._do("cut", None, source, target, source=source, target=target)
        await self._pause()
        await self._do("heal")

    async def _lose(self) -> None:
        percent = self._chance.choice((1, 3, 6))
        await self._do("lose", None, percent, percent=percent)
        await trio.sleep(self._chance.uniform(1, 4))
        await self._do("heal")

    async def _freeze_briefly(self) -> None:
        """For less than the token's time, so that no node is lost."""
        await self._freeze_for(self._chance.uniform(0, 0.4) * self._token)

    async def _freeze(self) -> None:
        await self._freeze_for(self._chance.uniform(2, 6) * self._token)

    async def _freeze_for(self, seconds: float) -> None:
        node = self._chance.choice(self._nodes)
        await self._do("freeze", node)
        await trio.sleep(seconds)
        await self._do("thaw", node)

    async def _kill(self) -> None:
        await self._end_and_start("kill")

    async def _stop(self) -> None:
        await self._end_and_start("stop")

    async def _end_and_start(self, verb: str) -> None:
        node = self._mortal()
        await self._do(verb, node)
        await self._settled_and_pause()
        await self._do("start", node)

    async def _restart(self) -> None:
        await self._do("restart", self._mortal())

    @property
    def _token(self) -> float:
        return self._cluster.options.token / 1000
