"""What is public and alike: the `open_*` functions, and the verbs of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import triocoro
import triocoro.recipes
from triocoro.testing import Cluster

OPENERS: Final[Mapping[str, Callable[[], Any]]] = {
    "group": lambda: triocoro.open_group("g"),
    "views": lambda: triocoro.open_views("views"),
    "calls": lambda: triocoro.recipes.open_calls("calls"),
    "cpg": triocoro.open_cpg,
    "votequorum": triocoro.open_votequorum,
    "quorum": triocoro.open_quorum,
    "cmap": triocoro.open_cmap,
    "cfg": triocoro.open_cfg,
}
"""What opens a connection to each service, on the default endpoint."""


def verbs_of(cluster: Cluster) -> dict[str, Callable[[], Awaitable[object]]]:
    """The verbs of a cluster with three nodes, and those of its first node."""
    return {
        "partition": lambda: cluster.partition({1}, {2, 3}),
        "isolate": lambda: cluster.isolate(1),
        "cut": lambda: cluster.cut(1, 2),
        "lose": lambda: cluster.lose(1),
        "heal": cluster.heal,
        "settled": cluster.settled,
        "start": cluster[1].start,
        "stop": cluster[1].stop,
        "kill": cluster[1].kill,
        "restart": cluster[1].restart,
        "freeze": cluster[1].freeze,
        "thaw": cluster[1].thaw,
    }
