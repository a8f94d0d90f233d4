"""What clients can see of a cluster, to be compared with what they saw before: has somebody left something there?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import attrs
import trio

from ..._connection import connect, retry
from ..._errors import CorosyncError
from ..._raw import RawCmap, RawCpg, RawHandle, RawVotequorum
from ..._services import CPG, ICMAP, STATS, VOTEQUORUM, ServiceSpec
from ..._types import IterationType, TypedValue
from .._cluster.cluster import Cluster, Node

HandleT = TypeVar("HandleT", bound="RawHandle[Any]")

_COUNTERS: Final = re.compile(r"runtime\.services\..*\.[rt]x")
"""The keys that change although nobody has changed anything."""

_JOINS: Final = re.compile(r"runtime\.members\.\d+\.join_count")
"""The keys that tell memberships of before."""

_ACTIVE: Final = "stats.ipcs.global.active"
"""How many connections there are; unless somebody has reset it, which is to be seen as well, then."""

_TOLD: Final = "runtime"
"""The section (the first part of a key) in which a daemon notes what it does and hears of the others."""

_SECTIONS: Final = frozenset({"config", "nozzle", "uidgid"})
"""The sections that Corosync may read or write though there is nothing in them at first; see cmap_keys(7)."""

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
class Snapshot:
    """What one look at a cluster has seen."""

    facts: dict[str, object] = attrs.field(factory=dict[str, object])
    """By names such as "node 1: votes of node 2"."""
    keys: dict[tuple[int, str], TypedValue] = attrs.field(factory=dict[tuple[int, str], TypedValue])
    """The keys of cmap, by node and name."""
    faults: list[str] = attrs.field(factory=list[str])
    """What never is in order, and does not pass by itself, such as a node that is down."""
    clients: list[str] = attrs.field(factory=list[str])
    """Traces of clients other than who looks: they may be about to go."""

    def since(self, before: Snapshot) -> list[str]:
        """What is not in order, or not as it was before."""
        return [
            *sorted(self.faults),
            *sorted(self.clients),
            *_changes(before.facts, self.facts),
            *_changes(before._named_keys(), self._named_keys()),
        ]

    def lasts(self, before: Snapshot) -> bool:
        """Whether some of that does not pass by itself: clients go, and daemons have things to tell each other."""
        return bool(self.faults) or any(
            before.keys.get(at) != self.keys.get(at)
            for at in before.keys.keys() | self.keys.keys()
            if _section(at[1]) != _TOLD
        )

    def strays(self, before: Snapshot) -> list[tuple[int, str]]:
        """The keys that have been added in sections that mean nothing to Corosync."""
        known = _SECTIONS.union(_section(key) for _, key in before.keys)
        return [(nodeid, key) for nodeid, key in self.keys if _section(key) not in known]

    def _named_keys(self) -> dict[str, object]:
        return {f"node {nodeid}: the key {key}": value for (nodeid, key), value in self.keys.items()}


def _section(key: str) -> str:
    return key.partition(".")[0]


def _changes(before: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    for name in sorted(before.keys() | now.keys()):
        if name not in before:
            yield f"{name} is new: {now[name]}"
        elif name not in now:
            yield f"{name} is gone: it was {before[name]}"
        elif before[name] != now[name]:
            yield f"{name} is {now[name]}, and was {before[name]}"


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

    async def first_look(self) -> Snapshot | None:
        """Connect, and look at a cluster that has just been started, once all is in order; `None` if it never is.

        Cancelled: some connections may be open.
        """
        with trio.move_on_after(_LIMIT):
            async with trio.open_nursery() as nursery:
                for node in self._cluster.nodes.values():
                    nursery.start_soon(self._connect, node)
            # Who waited for the start may not have gone yet.
            while (look := await self.look()).faults or look.clients:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(_POLL)
            return look
        return None

    async def differences(self, before: Snapshot, patience: float) -> list[str]:
        """What is not in order, or not as it was before; empty if all is.

        Keys that clients have added in sections of their own are deleted.

        Args:
            before: what there was to see then.
            patience: how many seconds to wait for that: what a client has left may be about to vanish.
        """
        found = [f"the daemons have not answered within {_LIMIT:g} seconds"]
        with trio.move_on_after(_LIMIT):
            deadline = trio.current_time() + patience
            look = await self.look()
            if strays := look.strays(before):
                await self._delete(strays)
                look = await self.look()
            while (found := look.since(before)) and not look.lasts(before) and trio.current_time() < deadline:
                await trio.sleep(_POLL)
                look = await self.look()
        return found

    async def look(self) -> Snapshot:
        """Snapshot. Where a node is down, frozen or cut off, nobody is asked: who knows whether they answer."""
        await trio.lowlevel.checkpoint()
        look = Snapshot()
        look.faults.extend(self._faults())
        if not look.faults:
            async with trio.open_nursery() as nursery:
                for node in self._cluster.nodes.values():
                    nursery.start_soon(self._ask, node, look)
        return look

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

        async def opened(service: ServiceSpec[HandleT, object]) -> HandleT:  # noqa: ASYNC910 - as above
            handle = await connect(service, endpoint)
            self._open.append(handle)
            return handle

        with suppress(CorosyncError):
            self._handles[node.nodeid] = _Handles(
                await opened(CPG),
                await opened(VOTEQUORUM),
                await opened(ICMAP),
                await opened(STATS),
            )

    async def _delete(self, keys: list[tuple[int, str]]) -> None:  # noqa: ASYNC910 - whoever calls has looked
        with suppress(CorosyncError):  # the next look tells
            for nodeid, key in keys:
                await retry(partial(self._handles[nodeid].icmap.delete, key))

    async def _ask(self, node: Node, look: Snapshot) -> None:  # noqa: ASYNC910 - as above
        of_node = f"node {node.nodeid}"
        handles = self._handles.get(node.nodeid)
        if handles is None:
            look.faults.append(f"{of_node}: nobody could connect to it")
            return  # noqa: ASYNC910 - as above
        look.facts[f"{of_node}: the daemon"] = node.pid
        try:
            # This comes first, since it is answered only when no transition is under way.
            for member in await retry(lambda: handles.cpg.iterate(IterationType.ALL, None)):
                look.clients.append(f"{of_node}: {member.address} is in the group {member.group!r}")
            for nodeid in self._cluster.nodes:
                look.facts[f"{of_node}: votes of node {nodeid}"] = await retry(partial(handles.votequorum.info, nodeid))
            for key, value in await retry(lambda: handles.icmap.items("")):
                if not self._passes(key):
                    look.keys[node.nodeid, key] = value
            active, ours = (await retry(lambda: handles.stats.get(_ACTIVE))).value, len(attrs.fields(_Handles))
            if active != ours:
                look.clients.append(f"{of_node}: {active!r} connections, of which {ours} are ours")
        except CorosyncError as error:
            look.faults.append(f"{of_node}: {error}")
