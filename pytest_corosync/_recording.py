"""The histories of a test's clusters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

from . import _options

if TYPE_CHECKING:
    from triocoro.testing import Cluster, History

LIMIT: Final = 100_000
"""The limit of each history: few tests get so far, and it takes some tens of megabytes."""

FIXTURE: Final = "corosync_history"
"""The name of the fixture."""

_HISTORY: Final = pytest.StashKey["History"]()
"""The history of a test's first cluster."""


def record(item: pytest.Item, cluster: Cluster, *, first: bool) -> None:
    """Record a cluster that was lent to a test. A test that has the fixture is recorded in any case."""
    if first and FIXTURE in getattr(item, "fixturenames", ()):
        cluster.record(history(item))
    elif not _options.history(item.config):
        cluster.record(None)  # it may have been lent before
    else:
        cluster.record(history(item) if first else _new(item.config))


def history(item: pytest.Item) -> History:
    """The history of a test's first cluster, which may come later."""
    if _HISTORY not in item.stash:
        item.stash[_HISTORY] = _new(item.config)
    return item.stash[_HISTORY]


def forget(item: pytest.Item) -> None:
    """Forget the history: the test may run again, and pytest keeps the item until the end of the session."""
    if _HISTORY in item.stash:
        del item.stash[_HISTORY]


def _new(config: pytest.Config) -> History:
    from triocoro.testing import History

    # Real clusters live in real time, whatever the clock of the test is.
    return History(limit=LIMIT, clock=time.monotonic if _options.mode(config) == "real" else None)
