"""What clients can see of a cluster, to be compared with what they saw before: has somebody left something there?"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import attrs
import trio

from .._connection import connect, retry
from .._errors import CorosyncError
from .._raw import RawCmap, RawCpg, RawHandle, RawVotequorum
from .._types import CmapMap, IterationType
from ._cluster import Cluster, Node

HandleT = TypeVar("HandleT", bound="RawHandle[Any]")

_COUNTERS: Final = re.compile(r"runtime\.services\..*\.[rt]x")
"""The keys that change although nobody has changed anything."""

_JOINS: Final = re.compile(r"runtime\.members\.\d+\.join_count")
"""The keys that tell memberships of before."""

_ACTIVE: Final = "stats.ipcs.global.active"
"""How many connections there are; unless somebody has reset it, which is to be seen as well, then."""

_POLL: Final = 0.01
_LIMIT: Final = 3.0
"""Seconds after which daemons that do not answer are given up."""


@attrs.frozen
class _Handles:
    """Our connections to a node."""

    cpg: RawCpg
    votequorum: RawVotequorum
    icmap: RawCmap
    stats: RawCmap


@attrs.frozen
class Look:
    """What one look at a cluster has seen."""

    facts: Mapping[str, object]
    """By names such as "node 1: the key totem.token"."""
    troubles: tuple[str, ...]
    """What never is in order, such as a node that is down, or clients other than who looks."""

    def since(self, before: Look) -> list[str]:
        """What is not in order, or not as it was before."""
        return [*self.troubles, *self._changes(before.facts)]

    def _changes(self, before: Mapping[str, object]) -> Iterator[str]:
        for name in sorted(before.keys() | self.facts.keys()):
            old, new = before.get(name), self.facts.get(name)
            if name not in before:
                yield f"{name} is new: {new}"
            elif name not in self.facts:
                yield f"{name} is gone: it was {old}"
            elif old != new:
                yield f"{name} is {new}, and was {old}"


def is_whole(cluster: Cluster) -> bool:
    """Whether all nodes are up, and the first one and all others hear each other; quick."""
    return cluster.reachable(1) == frozenset(cluster.nodes)


class Observer:
    """Looks at a cluster again and again, over connections that it opens once: that is what takes the time.

    A membership that has changed and is as before is nothing to be seen, unless the cluster's options are such that
    votequorum goes by what has been, of which clients see no more than a part.

    They are bare handles, which outlive the Trio run that opened them, so each look may be in a run of its own. None of
    them joins or tracks anything: nobody is told of them.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        options = cluster.options
        self._remembers = (
            options.two_node
            or options.wait_for_all is not None
            or options.last_man_standing
            or options.auto_tie_breaker
            or options.allow_downscale
            or options.qdevice_votes is not None
        )
        self._open: list[RawHandle[Any]] = []
        self._handles: dict[int, _Handles] = {}

    async def first_look(self) -> Look | None:
        """Connect, and look at a cluster that has just been started, once all is in order; `None` if it never is.

        Cancelled: some connections may be open.
        """
        with trio.move_on_after(_LIMIT):
            async with trio.open_nursery() as nursery:
                for node in self._cluster.nodes.values():
                    nursery.start_soon(self._connect, node)
            # Who waited for the start may not have gone yet.
            while (look := await self.look()).troubles:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(_POLL)
            return look
        return None

    async def differences(self, before: Look, patience: float) -> list[str]:
        """What is not in order, or not as it was before; empty if all is.

        Args:
            before: what there was to see then.
            patience: how many seconds to wait for that: what a client has left may be about to vanish.
        """
        found = [f"the daemons have not answered within {_LIMIT:g} seconds"]
        with trio.move_on_after(_LIMIT):
            deadline = trio.current_time() + patience
            while found := (await self.look()).since(before):
                if trio.current_time() >= deadline:
                    break
                await trio.sleep(_POLL)
        return found

    async def look(self) -> Look:
        """Look. Where a node is down, frozen or cut off, nobody is asked: who knows whether they answer."""
        await trio.lowlevel.checkpoint()
        facts: dict[str, object] = {}
        troubles = list(self._faults())
        if not troubles:
            async with trio.open_nursery() as nursery:
                for node in self._cluster.nodes.values():
                    nursery.start_soon(self._ask, node, facts, troubles)
        return Look(facts, tuple(sorted(troubles)))

    def close(self) -> None:
        """Disconnect, in the background; idempotent."""
        while self._open:
            self._open.pop().close()

    def _passes(self, key: str) -> bool:
        """Whether a key may have any value."""
        return bool(_COUNTERS.fullmatch(key) or (_JOINS.fullmatch(key) and not self._remembers))

    def _faults(self) -> Iterator[str]:
        cluster = self._cluster
        for source, target in sorted(cluster.network.cut):
            yield f"node {target} does not hear node {source}"
        for nodeid, percent in cluster.network.loss.items():
            if percent:
                yield f"node {nodeid} loses {percent:g} per cent of what it should hear"
        # One question tells of all nodes, unless the answer is no.
        if not is_whole(cluster):
            for nodeid in cluster.nodes:
                if not cluster.reachable(nodeid):
                    yield f"node {nodeid} is down or frozen"

    async def _connect(self, node: Node) -> None:  # noqa: ASYNC910 - a task of our own
        endpoint = node.endpoint

        async def opened(call: Callable[[], Awaitable[HandleT]]) -> HandleT:  # noqa: ASYNC910 - as above
            handle = await connect(call, endpoint)
            self._open.append(handle)
            return handle

        with suppress(CorosyncError):
            self._handles[node.nodeid] = _Handles(
                await opened(endpoint.connect_cpg),
                await opened(endpoint.connect_votequorum),
                await opened(lambda: endpoint.connect_cmap(CmapMap.ICMAP)),
                await opened(lambda: endpoint.connect_cmap(CmapMap.STATS)),
            )

    async def _ask(  # noqa: ASYNC910 - as above
        self, node: Node, facts: dict[str, object], troubles: list[str]
    ) -> None:
        of_node = f"node {node.nodeid}"
        handles = self._handles.get(node.nodeid)
        if handles is None:
            troubles.append(f"{of_node}: nobody could connect to it")
            return  # noqa: ASYNC910 - as above
        facts[f"{of_node}: the daemon"] = node.pid
        try:
            # This comes first, since it is answered only when no transition is under way.
            for member in await retry(lambda: handles.cpg.iterate(IterationType.ALL, None)):
                facts[f"{of_node}: {member.address} in the group {member.group!r}"] = True
            for nodeid in self._cluster.nodes:
                facts[f"{of_node}: votes of node {nodeid}"] = await retry(partial(handles.votequorum.info, nodeid))
            for key, value in await retry(lambda: handles.icmap.items("")):
                if not self._passes(key):
                    facts[f"{of_node}: the key {key}"] = value
            active = (await retry(lambda: handles.stats.get(_ACTIVE))).value
            if active != len(attrs.fields(_Handles)):
                troubles.append(f"{of_node}: {active!r} connections, of which {len(attrs.fields(_Handles))} are ours")
        except CorosyncError as error:
            troubles.append(f"{of_node}: {error}")
