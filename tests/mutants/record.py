"""`python -m mutants.record SETTINGS SEED`: prints a recording of chaos on a fake cluster, which may be a mutant.

SETTINGS are those of the cluster, in JSON. The time of the cluster passes at once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import mutants.hook  # noqa: F401 - it must come before triocoro

import trio  # isort: skip
from chaos import chaos  # isort: skip
from triocoro.testing import FakeCluster, History, seeded_run  # isort: skip

_BOUND = 600
"""Seconds of the fake's time."""


async def _record(settings: Any) -> History:
    with trio.fail_after(_BOUND):
        async with FakeCluster(**settings) as cluster:
            return await chaos(cluster)


def main() -> None:
    """Do it."""
    settings, seed = map(json.loads, sys.argv[1:])
    sys.stdout.write(seeded_run(_record, settings, seed=seed).to_json_lines())


main()
