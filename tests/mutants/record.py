"""`python -m mutants.record SETTINGS SEED`: prints a recording of chaos on a fake cluster, which may be a mutant.

SETTINGS are those of the cluster, in JSON. The time of the cluster passes at once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from mutants import hook as hook  # before triocoro

import trio  # isort: skip
from chaos import chaos  # isort: skip
from trio.testing import MockClock  # isort: skip
from triocoro.testing import FakeCluster, History  # isort: skip

_BOUND = 600
"""Seconds of the fake's time."""


async def _record(settings: Any) -> History:
    with trio.fail_after(_BOUND):
        async with FakeCluster(**settings) as cluster:
            return await chaos(cluster)


def main() -> None:
    """Do it."""
    settings, seed = sys.argv[1:]
    trio._core._run._r.seed(int(seed))
    history = trio.run(_record, json.loads(settings), clock=MockClock(autojump_threshold=0))
    sys.stdout.write(history.to_json_lines())


main()
