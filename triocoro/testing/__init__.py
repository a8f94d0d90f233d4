"""Throwaway Corosync clusters for tests, demonstrations and experiments.

`FakeCluster` is in memory, and starts at once; `NetnsCluster` runs real daemons, each in network and mount namespaces
of its own. Both are a `Cluster`, and what works on one works on the other.
"""

from ._cluster import Cluster as Cluster, Node as Node
from ._fake.cluster import FakeCluster as FakeCluster
from ._netns.cluster import NetnsCluster as NetnsCluster
from ._options import ClusterOptions as ClusterOptions, ClusterSettings as ClusterSettings
