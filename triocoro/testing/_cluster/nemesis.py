"""Plays schedules of faults on clusters."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

import trio

from .node import Node
from .schedule import NODE_VERBS, FaultSchedule, FaultStep

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class Troubled(Protocol):
    """A cluster, as far as schedules act on it."""

    @property
    def nodes(self) -> Mapping[int, Node]: ...
    async def partition(self, *sides: Iterable[int]) -> None: ...
    async def isolate(self, nodeid: int) -> None: ...
    async def cut(self, source: int, target: int, *, link: int | None = None) -> None: ...
    async def lose(self, percent: float, *, nodes: Iterable[int] | None = None) -> None: ...
    async def heal(self) -> None: ...


@asynccontextmanager
async def playing(cluster: Troubled, schedule: FaultSchedule) -> AsyncGenerator[trio.Event, None]:
    """Play a schedule beside the block; see `Cluster.nemesis`."""
    if unknown := schedule.nodeids.difference(cluster.nodes):
        raise ValueError(f"the schedule names nodes that the cluster does not have: {sorted(unknown)}")
    player = _Player(cluster)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(player.play, schedule)
            yield player.over
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure, *others = group.exceptions
        if others:
            raise
        context = failure.__context__
        try:
            raise failure
        finally:
            failure.__context__ = context  # which `raise` has replaced by the group
            del failure
    await player.repair()


_REPAIRS: Final = {"freeze": "thaw", "kill": "start", "stop": "start"}


class _Player:
    """Takes steps, and remembers what they have left broken."""

    def __init__(self, cluster: Troubled) -> None:
        self._cluster = cluster
        self._cut = False
        self._repairs: dict[int, str] = {}
        self.over = trio.Event()
        """Set when all steps have been taken."""

    async def play(self, schedule: FaultSchedule) -> None:
        began = trio.current_time()
        for step in schedule.steps:
            await trio.sleep_until(began + step.at)
            with trio.CancelScope(shield=True):  # half a step could not be undone
                await (self._take_at_node if step.verb in NODE_VERBS else self._take_at_network)(step)
        await trio.lowlevel.checkpoint()
        self.over.set()

    async def repair(self) -> None:
        """Undo what the steps have left broken."""
        if self._cut:
            await self._cluster.heal()
        for nodeid, verb in sorted(self._repairs.items()):
            if nodeid in self._cluster.nodes:
                await getattr(self._cluster.nodes[nodeid], verb)()
        await trio.lowlevel.checkpoint()

    async def _take_at_node(self, step: FaultStep) -> None:
        nodeid, verb = step.arguments[0], step.verb
        node = self._cluster.nodes.get(nodeid)
        await trio.lowlevel.checkpoint()
        if node is None or (verb == "freeze" and not node.running):
            return  # it was removed meanwhile, or there is nothing to freeze
        if verb in _REPAIRS:
            self._repairs[nodeid] = _REPAIRS[verb]
        elif verb in ("restart", self._repairs.get(nodeid)):
            self._repairs.pop(nodeid, None)
        await getattr(node, verb)()

    async def _take_at_network(self, step: FaultStep) -> None:
        cluster, arguments = self._cluster, step.arguments
        self._cut = step.verb != "heal"
        if step.verb == "partition":
            await cluster.partition(*arguments)
        elif step.verb == "isolate":
            await cluster.isolate(*arguments)
        elif step.verb == "cut":
            await cluster.cut(*arguments[:2], link=arguments[2] if arguments[2:] else None)
        elif step.verb == "lose":
            await cluster.lose(arguments[0], nodes=arguments[1] if arguments[1:] else None)
        else:
            await cluster.heal()
