"""Throwaway Corosync clusters for tests, demonstrations and experiments.

`FakeCluster` is in memory, and starts at once; `NetnsCluster` runs real daemons, each in network and mount namespaces
of its own. Both are a `Cluster`, and what works on one works on the other. A `History` records what clients do and see,
and `check` says what of it could not have been Corosync. `seeded_run` has a program take the same course again.
"""

from ._checkers import Rule as Rule, Violation as Violation, check as check
from ._cluster.cluster import Cluster as Cluster, Node as Node
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
from ._seeded import seeded as seeded, seeded_run as seeded_run
