"""Compare the state of a cluster, as clients see it, with an earlier state: has a test left anything behind?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

import attrs
import trio

from ..._backoff import retry
from ..._enums import IterationType
from ..._errors import CorosyncError
from ..._raw import RawCmap, RawCpg, RawHandle, RawVotequorum
from ..._requests import connect
from ..._services import CPG, ICMAP, STATS, VOTEQUORUM, ServiceSpec
from ..._types import TypedValue
from .._cluster.cluster import Cluster
from .._cluster.node import Node
from .._cluster.waits import stretched

HandleT = TypeVar("HandleT", bound="RawHandle[Any]")

_COUNTERS: Final = re.compile(r"runtime\.services\..*\.[rt]x")
"""Keys that count messages: they change all the time."""

_JOIN_COUNTS: Final = re.compile(r"runtime\.members\.\d+\.join_count")
"""Keys that count how often each node has joined: they change with the membership, and do not change back."""

_ACTIVE: Final = "stats.ipcs.global.active"
"""The key of the number of connections. A client can reset it; then the number is wrong, and the cluster not clean."""

_RUNTIME: Final = "runtime"
"""The section (first part of the key) that daemons write themselves, some of it on messages from other nodes."""

_SECTIONS: Final = frozenset({"config", "nozzle", "uidgid"})
"""Sections that mean something to Corosync but may have no keys at first; see cmap_keys(7)."""

_POLL: Final = 0.01
_LIMIT: Final = 3.0
"""Seconds that the daemons may take to answer."""


@attrs.frozen
class _Handles:
    """The observer's connections to one node."""

    cpg: RawCpg
    votequorum: RawVotequorum
    icmap: RawCmap
    stats: RawCmap


@attrs.frozen
class Snapshot:
    """The state of a cluster at one time, as its clients see it."""

    facts: dict[str, object] = attrs.field(factory=dict[str, object])
    """Values by description, such as "node 1: votes of node 2"."""
    keys: dict[tuple[int, str], TypedValue] = attrs.field(factory=dict[tuple[int, str], TypedValue])
    """The keys of cmap, by node and name."""
    faults: list[str] = attrs.field(factory=list[str])
    """Whatever is wrong at any time and does not pass by itself, such as a node that is down."""
    clients: list[str] = attrs.field(factory=list[str])
    """Traces of other clients, which may be about to vanish."""

    def differences_from(self, before: Snapshot) -> list[str]:
        """Whatever is wrong, and whatever has changed since `before`, in words."""
        return [
            *sorted(self.faults),
            *sorted(self.clients),
            *_changes(before.facts, self.facts),
            *_changes(before._named_keys(), self._named_keys()),
        ]

    def differs_for_good(self, before: Snapshot) -> bool:
        """Whether some difference will not vanish by itself, as clients do, and what daemons tell each other."""
        return bool(self.faults) or any(
            before.keys.get(at) != self.keys.get(at)
            for at in before.keys.keys() | self.keys.keys()
            if _section(at[1]) != _RUNTIME
        )

    def added_by_clients(self, before: Snapshot) -> list[tuple[int, str]]:
        """The new keys in sections that mean nothing to Corosync."""
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
    """Whether all nodes are up and linked to the first one; quick."""
    return cluster.reachable(next(iter(cluster.nodes))) == frozenset(cluster.nodes)


class Observer:
    """Takes snapshots of a cluster, over connections that it opens once because opening them is slow.

    The connections are raw handles. They outlive the Trio run that opened them, so each snapshot may be taken in a run
    of its own. None of them joins or tracks anything, so other clients do not see them.

    A changed membership that has changed back is no difference, with one exception: some options let votequorum depend
    on past memberships, more than its clients can see. Then it is one.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        options = cluster.options
        self._depends_on_the_past = (
            options.two_node
            or options.wait_for_all is not None
            or options.last_man_standing
            or options.auto_tie_breaker
            or options.allow_downscale
            or options.qdevice_votes is not None
        )
        self._limit = stretched(_LIMIT, options)
        self._open: list[RawHandle[Any]] = []
        self._handles: dict[int, _Handles] = {}

    async def first_snapshot(self) -> Snapshot | None:
        """Connect to a new cluster, and take a snapshot once nothing is wrong; `None` if that takes too long.

        Cancelled: some connections may be open.
        """
        with trio.move_on_after(self._limit):
            async with trio.open_nursery() as nursery:
                for node in self._cluster.nodes.values():
                    nursery.start_soon(self._connect, node)
            # The connections that waited for the start may not have gone yet. No event says when they have.
            while (snapshot := await self.snapshot()).faults or snapshot.clients:  # noqa: ASYNC110
                await trio.sleep(_POLL)
            return snapshot
        return None

    async def differences(self, before: Snapshot, patience: float) -> list[str]:
        """Whatever is wrong, and whatever has changed since `before`, in words; empty if the cluster is clean.

        Keys that clients have added in sections of their own are deleted.

        Args:
            before: the first snapshot.
            patience: how many seconds differences may take to vanish that can vanish by themselves.
        """
        found = [f"the daemons have not answered within {self._limit:g} seconds"]
        with trio.move_on_after(self._limit):
            deadline = trio.current_time() + patience
            now = await self.snapshot()
            if added := now.added_by_clients(before):
                await self._delete(added)
                now = await self.snapshot()
            while (
                (found := now.differences_from(before))
                and not now.differs_for_good(before)
                and trio.current_time() < deadline
            ):
                await trio.sleep(_POLL)
                now = await self.snapshot()
        return found

    async def snapshot(self) -> Snapshot:
        """Take a snapshot. If a node is down, frozen or cut off, no daemon is asked, as it might not answer."""
        await trio.lowlevel.checkpoint()
        snapshot = Snapshot()
        snapshot.faults.extend(self._faults())
        if not snapshot.faults:
            async with trio.open_nursery() as nursery:
                for node in self._cluster.nodes.values():
                    nursery.start_soon(self._add_node, node, snapshot)
        return snapshot

    def close(self) -> None:
        """Disconnect, in the background; idempotent."""
        while self._open:
            self._open.pop().close()

    def _may_change(self, key: str) -> bool:
        """Whether another value of this key is no difference."""
        return bool(_COUNTERS.fullmatch(key) or (_JOIN_COUNTS.fullmatch(key) and not self._depends_on_the_past))

    def _faults(self) -> Iterator[str]:
        cluster = self._cluster
        for source, target in sorted(cluster.network.cut):
            yield f"node {target} does not hear node {source}"
        for source, target, link in sorted(cluster.network.cut_links):
            yield f"node {target} does not hear node {source} on link {link}"
        for nodeid, percent in cluster.network.loss.items():
            if percent:
                yield f"node {nodeid} loses {percent:g} per cent of what it should hear"
        # One check covers all nodes, unless it fails.
        if not is_whole(cluster):
            for nodeid in cluster.nodes:
                if not cluster.reachable(nodeid):
                    yield f"node {nodeid} is down or frozen"

    async def _connect(self, node: Node) -> None:  # noqa: ASYNC910 - it is a task of its own
        endpoint = node.endpoint

        async def opened(service: ServiceSpec[HandleT, object]) -> HandleT:  # noqa: ASYNC910 - `connect` may fail
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

    async def _delete(self, keys: list[tuple[int, str]]) -> None:  # noqa: ASYNC910 - the caller has checkpoints
        with suppress(CorosyncError):  # the next snapshot has the key, or the error again
            for nodeid, key in keys:
                await retry(partial(self._handles[nodeid].icmap.delete, key))

    async def _add_node(self, node: Node, snapshot: Snapshot) -> None:  # noqa: ASYNC910 - it is a task of its own
        """Add the state of one node to a snapshot."""
        of_node = f"node {node.nodeid}"
        handles = self._handles.get(node.nodeid)
        if handles is None:
            snapshot.faults.append(f"{of_node}: no client could connect to it")
            return  # noqa: ASYNC910 - it is a task of its own
        snapshot.facts[f"{of_node}: the daemon"] = node.pid
        try:
            # The process groups first: CPG answers only while no transition is under way.
            for member in await retry(lambda: handles.cpg.iterate(IterationType.ALL, None)):
                snapshot.clients.append(f"{of_node}: {member.address} is in the group {member.group!r}")
            for nodeid in self._cluster.nodes:
                votes = await retry(partial(handles.votequorum.info, nodeid))
                snapshot.facts[f"{of_node}: votes of node {nodeid}"] = votes
            for key, value in await retry(lambda: handles.icmap.items("")):
                if not self._may_change(key):
                    snapshot.keys[node.nodeid, key] = value
            active, ours = (await retry(lambda: handles.stats.get(_ACTIVE))).value, len(attrs.fields(_Handles))
            if active != ours:
                snapshot.clients.append(f"{of_node}: {active!r} connections, of which {ours} are ours")
        except CorosyncError as error:
            snapshot.faults.append(f"{of_node}: {error}")
