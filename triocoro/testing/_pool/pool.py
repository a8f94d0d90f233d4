"""A pool of real clusters: a clean one is reused for the next test that wants an equal one."""

from __future__ import annotations

import logging
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import attrs
import trio

from ... import _validate
from ..._errors import CorosyncError
from ..._forks import Origin
from .._cluster.cluster import Cluster
from .._cluster.options import ClusterOptions
from .._cluster.waits import stretched
from .._netns.background import BackgroundRun
from .._netns.cluster import NetnsCluster
from .source import ClusterLoan
from .state import Observer, Snapshot, is_whole

_MAX_IDLE: Final = 3
"""How many idle clusters to keep: their daemons use memory, and a little time."""

_SETTLING: Final = 3.0
"""Seconds that a cluster may take to settle after its network was healed; starting a new one takes less."""

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class _PooledCluster:
    """A cluster that runs, lent or idle."""

    cluster: NetnsCluster
    options: ClusterOptions
    """Its configuration when it was new."""
    observer: Observer
    borrower: str
    """The test that has it, or had it last."""
    initial: Snapshot | None = None
    """Its state when it was new; `None` if that could not be read."""
    disturbances: int = 0
    """The cluster's count of disturbances when it was last checked."""


class NetnsClusterPool:
    """Lends real clusters, and reuses those that are clean.

    A cluster is clean if its clients see the state that it had when it was new; docs/pytest.md has the details. It is
    checked when the next test borrows it. The work is done in threads, so the methods can be called inside a Trio run,
    whatever its clock, and outside. A forked child leaves its parent's clusters alone: there, `borrow` is a
    `RuntimeError`, and the other methods do nothing.

    Args:
        kept: a directory; clusters are then left running, and each has a file there that says how to inspect and end
            it. `None` ends all clusters.
        patience: how many seconds the traces of a test's clients may take to vanish.
    """

    def __init__(self, kept: Path | None, *, patience: float = 0.3) -> None:
        self._origin = Origin()
        self._kept = kept
        self._patience = patience
        self._lent: dict[Cluster, _PooledCluster] = {}
        self._idle: list[_PooledCluster] = []

    def borrow(self, options: ClusterOptions, borrower: str) -> ClusterLoan:
        """Lend an idle cluster with these options if there is a clean one, else a new one.

        Args:
            options: its configuration.
            borrower: the name of the test, for log messages.

        Raises:
            CorosyncUnavailableError: a new one cannot be started.
        """
        self._origin.check("this pool of clusters was made", "make one here, or start a NetnsCluster")
        _validate.instance(options, ClusterOptions, "options")
        # The one used last comes first, so that the others age and are ended.
        for pooled in [pooled for pooled in reversed(self._idle) if pooled.options == options]:
            self._idle.remove(pooled)
            self._lent[pooled.cluster] = pooled
            if self._is_clean(pooled):
                pooled.borrower = borrower
                return ClusterLoan(pooled.cluster, {node: node.log_size for node in pooled.cluster.nodes.values()})
            self._end(pooled)
        return ClusterLoan(self._start(options, borrower))

    def give_back(self, cluster: Cluster) -> None:
        """End a loan: the test is over. Its traces may take a moment to vanish, so the next loan checks the cluster."""
        if self._origin.forked:
            return
        _validate.instance(cluster, Cluster, "cluster")
        pooled = self._lent.pop(cluster, None)
        if pooled is None:
            cluster.__exit__(None, None, None)  # it was left running: this releases its nodes
            return
        self._idle.append(pooled)
        # A broken cluster is ended at once, unless it may be of interest after the session.
        if self._kept is None and not (is_whole(cluster) and cluster.options is pooled.options):
            self._end(pooled)
        elif len(self._idle) > _MAX_IDLE:
            self._end(self._idle[0])

    def leave_running(self, cluster: Cluster) -> str | None:
        """Leave a cluster as it is, for inspection after the session: its test has failed.

        Returns:
            how to inspect and end it; `None` if no clusters are to be left.
        """
        if self._kept is None or self._origin.forked:
            return None
        for pooled in [*self._idle, *self._lent.values()]:
            if pooled.cluster is cluster:
                self._forget(pooled)
                return pooled.cluster.how_to_enter
        return None

    def close(self) -> None:
        """End all clusters, or leave them running if they are to be kept: the session is over."""
        if self._origin.forked:
            return
        with ExitStack() as stack:  # so that one failure does not keep the others from being ended
            for pooled in [*self._idle, *self._lent.values()]:
                if self._kept is None:
                    stack.callback(self._end, pooled)
                else:
                    stack.callback(pooled.cluster.__exit__, None, None, None)
                    stack.callback(self._forget, pooled)

    def _start(self, options: ClusterOptions, borrower: str) -> Cluster:
        cluster = NetnsCluster(options=options).__enter__()
        pooled = self._lent[cluster] = _PooledCluster(cluster, options, Observer(cluster), borrower)
        if self._kept is not None:
            # Already now: if pytest is killed, there is no later moment.
            cluster.keep()
            (self._kept / cluster.name).write_text(cluster.how_to_enter, encoding="utf-8")
        pooled.initial = BackgroundRun(pooled.observer.first_snapshot).run_blocking()
        return cluster

    def _is_clean(self, pooled: _PooledCluster) -> bool:
        initial = pooled.initial
        # Nodes that were added or removed have changed its options.
        if initial is None or pooled.cluster.options is not pooled.options:
            return False
        differences = BackgroundRun(lambda: self._differences(pooled, initial)).run_blocking()
        if differences:
            _log.info("%r is not clean any more since %s:\n%s", pooled.cluster, pooled.borrower, "\n".join(differences))
        pooled.disturbances = pooled.cluster.disturbances
        return not differences

    async def _differences(  # noqa: ASYNC910 - in a run of its own
        self, pooled: _PooledCluster, initial: Snapshot
    ) -> list[str]:
        if pooled.disturbances != pooled.cluster.disturbances and is_whole(pooled.cluster):
            # Totem may notice a disturbance only now, when clients cannot see anything of it yet.
            seconds = stretched(_SETTLING, pooled.cluster.options)
            with trio.move_on_after(seconds) as limit:
                await pooled.cluster.settled()
            if limit.cancelled_caught:
                return [f"it has not settled within {seconds:g} seconds"]
        return await pooled.observer.differences(initial, self._patience)

    def _end(self, pooled: _PooledCluster) -> None:
        self._forget(pooled)
        if self._kept is not None:
            # If the test has left the cluster's block itself, its nodes keep running, and the file stays.
            with suppress(CorosyncError, RuntimeError):
                pooled.cluster.keep(kept=False)
                (self._kept / pooled.cluster.name).unlink()
        pooled.cluster.__exit__(None, None, None)

    def _forget(self, pooled: _PooledCluster) -> None:
        pooled.observer.close()
        if pooled in self._idle:
            self._idle.remove(pooled)
        self._lent.pop(pooled.cluster, None)
