"""Where the clusters of the tests come from, and what becomes of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from ... import CorosyncError
from .. import Cluster, ClusterOptions, FakeCluster, NetnsCluster, Node
from .._netns.background import BackgroundRun
from .._netns.node import NetnsNode
from .state import Observer, Snapshot, is_whole

_IDLE: Final = 3
"""How many clusters may wait for a test that wants them: each is some daemons that take memory, and a little time."""

_SETTLING: Final = 3.0
"""Seconds that a cluster may take to settle whose network was mended; a new one takes less."""

_log = logging.getLogger(__name__)


@attrs.frozen
class Loan:
    """A cluster, for the length of a test."""

    cluster: Cluster
    _logged: Mapping[Node, int] = attrs.field(factory=dict[Node, int])
    """What the size of the logs of nodes was that ran before."""

    def log(self, node: Node) -> str:
        """What the daemon of a node has logged since the test has it."""
        return node.log_since(self._logged[node]) if isinstance(node, NetnsNode) and node in self._logged else node.log


class FakeSource:
    """Fake clusters: always new ones, which cost next to nothing."""

    def take(self, options: ClusterOptions, user: str) -> Loan:
        """A cluster for a test, by the test's name."""
        del user
        return Loan(FakeCluster(options=options).__enter__())

    def give_back(self, cluster: Cluster) -> None:
        """The test is over."""
        cluster.__exit__(None, None, None)

    def withdraw(self, cluster: Cluster) -> str | None:
        """The test has failed: leave its cluster as it is, and say how to enter it. A fake one cannot be left."""
        del cluster
        return None

    def end(self) -> None:
        """The session is over."""


@attrs.define(eq=False)
class _Warm:
    """A cluster that runs."""

    cluster: NetnsCluster
    observer: Observer
    user: str
    """The test that has it, or had it last."""
    fresh: Snapshot | None = None
    """What there was to see of it when it was new."""
    disturbances: int = 0
    """How many there had been when it was last found clean."""


class Pool:
    """Real clusters, used again where what is wanted is the same and what is there is clean.

    Everything that takes time is done apart, so that it works within Trio runs, whatever their clocks, and outside.

    Args:
        kept: a directory for a file about each cluster that is left, which says how to enter it; `None` to end all.
        patience: how many seconds may pass until nothing is seen any more of the clients of the test before.
    """

    def __init__(self, kept: Path | None, *, patience: float = 0.3) -> None:
        self._kept = kept
        self._patience = patience
        self._lent: dict[Cluster, _Warm] = {}
        self._idle: list[_Warm] = []

    def take(self, options: ClusterOptions, user: str) -> Loan:
        """A cluster for a test, by the test's name: one that waits, if it is clean, else a new one."""
        # The latest first: it is the others that should age.
        for warm in [warm for warm in reversed(self._idle) if warm.cluster.options == options]:
            self._idle.remove(warm)
            self._lent[warm.cluster] = warm
            if self._is_clean(warm):
                warm.user = user
                return Loan(warm.cluster, {node: node.log_size for node in warm.cluster.nodes.values()})
            self._end(warm)
        return Loan(self._start(options, user))

    def give_back(self, cluster: Cluster) -> None:
        """The test is over. What it left may still be on its way out, so whoever takes the cluster next looks at it."""
        warm = self._lent.pop(cluster, None)
        if warm is None:
            cluster.__exit__(None, None, None)  # it was withdrawn, and lets go of its nodes
            return
        self._idle.append(warm)
        # Unless clusters are kept, in which case it may be of interest at the end, nobody needs one that is broken.
        if self._kept is None and not is_whole(cluster):
            self._end(warm)
        elif len(self._idle) > _IDLE:
            self._end(self._idle[0])

    def withdraw(self, cluster: Cluster) -> str | None:
        """The test has failed: leave its cluster as it is, and say how to enter it; `None` where that is not wanted."""
        if self._kept is None:
            return None
        for warm in [*self._idle, *self._lent.values()]:
            if warm.cluster is cluster:
                self._forget(warm)
                return warm.cluster.how_to_enter
        return None

    def end(self) -> None:
        """The session is over."""
        with ExitStack() as stack:  # all of it, though something may fail
            for warm in [*self._idle, *self._lent.values()]:
                if self._kept is None:
                    stack.callback(self._end, warm)
                else:
                    stack.callback(warm.cluster.__exit__, None, None, None)
                    stack.callback(self._forget, warm)

    def _start(self, options: ClusterOptions, user: str) -> Cluster:
        cluster = NetnsCluster(options=options).__enter__()
        warm = self._lent[cluster] = _Warm(cluster, Observer(cluster), user)
        if self._kept is not None:
            # Already now, since nobody is told before pytest is killed.
            cluster.keep()
            (self._kept / cluster.name).write_text(cluster.how_to_enter, encoding="utf-8")
        warm.fresh = BackgroundRun(warm.observer.first_look).run_blocking()
        return cluster

    def _is_clean(self, warm: _Warm) -> bool:
        fresh = warm.fresh
        if fresh is None:
            return False
        differences = BackgroundRun(lambda: self._differences(warm, fresh)).run_blocking()
        if differences:
            _log.info("%r is not clean any more since %s:\n%s", warm.cluster, warm.user, "\n".join(differences))
        warm.disturbances = warm.cluster.disturbances
        return not differences

    async def _differences(self, warm: _Warm, fresh: Snapshot) -> list[str]:  # noqa: ASYNC910 - in a run of its own
        if warm.disturbances != warm.cluster.disturbances and is_whole(warm.cluster):
            # Totem may only now find out what has been, though no client can see that yet.
            with trio.move_on_after(_SETTLING) as limit:
                await warm.cluster.settled()
            if limit.cancelled_caught:
                return [f"it has not settled within {_SETTLING:g} seconds"]
        return await warm.observer.differences(fresh, self._patience)

    def _end(self, warm: _Warm) -> None:
        self._forget(warm)
        if self._kept is not None:
            # Where the test has ended it itself, its nodes were left.
            with suppress(CorosyncError, RuntimeError):
                warm.cluster.keep(kept=False)
                (self._kept / warm.cluster.name).unlink()
        warm.cluster.__exit__(None, None, None)

    def _forget(self, warm: _Warm) -> None:
        warm.observer.close()
        if warm in self._idle:
            self._idle.remove(warm)
        self._lent.pop(warm.cluster, None)
