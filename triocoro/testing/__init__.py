"""Throwaway Corosync clusters for tests, demonstrations and experiments.

`FakeCluster` runs in memory and starts at once. `NetnsCluster` runs real daemons, each in its own network and mount
namespaces. Both are a `Cluster`: the same test runs on either. A `History` records what clients do and see, and `check`
reports what Corosync would not have done. `seeded_run` makes a run that can be repeated.

A test framework can build its own fixtures on the rest, as the pytest plugin does: a `ClusterSource` lends clusters to
tests, and reuses real ones; `missing_requirements` says what real clusters lack on this machine.
"""

from .._endpoint import process_default_endpoint as process_default_endpoint
from ._checkers import Rule as Rule, Violation as Violation, check as check
from ._cluster.cluster import Cluster as Cluster
from ._cluster.node import Node as Node
from ._cluster.options import ClusterOptions as ClusterOptions, ClusterSettings as ClusterSettings
from ._fake.cluster import FakeCluster as FakeCluster
from ._history.entries import (
    Call as Call,
    Cancellation as Cancellation,
    Delivery as Delivery,
    Entry as Entry,
    Failure as Failure,
    Fault as Fault,
    Loss as Loss,
    Return as Return,
)
from ._history.history import History as History
from ._history.recording import RecordingEndpoint as RecordingEndpoint
from ._netns.cluster import NetnsCluster as NetnsCluster
from ._netns.installation import describe_daemon as describe_daemon, describe_libraries as describe_libraries
from ._netns.requirements import missing_requirements as missing_requirements
from ._netns.supervisor_process import end_with_parent as end_with_parent
from ._pool.pool import NetnsClusterPool as NetnsClusterPool
from ._pool.source import (
    ClusterLoan as ClusterLoan,
    ClusterSource as ClusterSource,
    FakeClusterSource as FakeClusterSource,
)
from ._seeded import seeded as seeded, seeded_run as seeded_run
