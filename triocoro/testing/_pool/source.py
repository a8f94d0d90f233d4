"""Where tests get their clusters from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from ... import _validate
from .._checkers import Violation
from .._cluster.cluster import Cluster
from .._cluster.node import Node
from .._cluster.options import ClusterOptions
from .._fake.cluster import FakeCluster, FakeNode
from .._netns.node import NetnsNode
from .._timeline.logs import timed
from .._timeline.text import LEAST
from .explanation import explain


@attrs.frozen
class ClusterLoan:
    """A running cluster that a test has to itself until it gives it back."""

    cluster: Cluster
    """The cluster; its block has been entered."""
    _log_sizes: Mapping[Node, int] = attrs.field(factory=dict[Node, int])
    """The sizes of the logs when the loan began, for nodes that ran before."""

    def log(self, node: Node) -> str:
        """The log of one of the cluster's nodes since the loan began.

        Raises:
            TypeError: it is no node.
        """
        _validate.instance(node, Node, "node")
        if isinstance(node, NetnsNode) and node in self._log_sizes:
            return node.log_since(self._log_sizes[node])
        return node.log

    def explain(self, *, failure: str | None = None, violations: Sequence[Violation] = (), limit: int = 40) -> str:
        """What happened in the cluster since the loan began, as text for the report of a failed test.

        The text has the violations that `check` finds in the cluster's history, if there are any; then the timeline of
        the history, with warnings and errors of the daemons; then the state of the network and the nodes.

        Args:
            failure: why the test failed. What was recorded of the test's clean-up comes after it.
            violations: those that the failure is about. The timeline shows what they are made of.
            limit: the greatest number of lines of the timeline.

        Raises:
            ValueError, TypeError: an argument is invalid.
        """
        if failure is not None:
            _validate.instance(failure, str, "failure")
        logs = {
            node.nodeid: node.timed_log if isinstance(node, FakeNode) else timed(self.log(node))
            for node in self.cluster.nodes.values()
        }
        for violation in violations:
            _validate.instance(violation, Violation, "a violation")
        return explain(self.cluster, logs, failure, violations, _validate.integer(limit, "limit", LEAST, 2**31 - 1))


class ClusterSource(Protocol):
    """Lends running clusters to tests. Its methods are synchronous; they work inside a Trio run and outside."""

    def borrow(self, options: ClusterOptions, borrower: str) -> ClusterLoan:
        """Lend a cluster with these options; blocks until it runs.

        Args:
            options: its configuration.
            borrower: the name of the test, for log messages.

        Raises:
            CorosyncUnavailableError: a real cluster cannot be started.
        """
        ...

    def give_back(self, cluster: Cluster) -> None:
        """End a loan: the test is over."""
        ...

    def leave_running(self, cluster: Cluster) -> str | None:
        """Leave a cluster as it is, for inspection after the session: its test has failed.

        Returns:
            how to inspect and end it; `None` if this source leaves no clusters running.
        """
        ...

    def close(self) -> None:
        """End all clusters: the session is over."""
        ...


class FakeClusterSource:
    """Lends fake clusters: always new ones, since they cost next to nothing.

    Args:
        latency: as `FakeCluster` takes it, and so are the others.
        jitter: see there.
        seed: see there.
    """

    def __init__(self, *, latency: float = 0, jitter: float = 0, seed: int = 0) -> None:
        self._latency = latency
        self._jitter = jitter
        self._seed = seed

    def borrow(self, options: ClusterOptions, borrower: str) -> ClusterLoan:
        """Lend a new cluster with these options."""
        del borrower
        _validate.instance(options, ClusterOptions, "options")
        cluster = FakeCluster(options=options, latency=self._latency, jitter=self._jitter, seed=self._seed)
        return ClusterLoan(cluster.__enter__())

    def give_back(self, cluster: Cluster) -> None:
        """End a cluster: its test is over."""
        _validate.instance(cluster, Cluster, "cluster")
        cluster.__exit__(None, None, None)

    def leave_running(self, cluster: Cluster) -> str | None:
        """Do nothing, and return `None`: a fake cluster ends with its process."""
        del cluster
        return None

    def close(self) -> None:
        """Do nothing: each cluster ends with its test."""
