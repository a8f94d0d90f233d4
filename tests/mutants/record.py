"""`python -m mutants.record SETTINGS SEED`: prints a recording of chaos on a fake cluster, which may be a mutant.

SETTINGS are those of the cluster, in JSON. The time of the cluster passes at once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import trio

from mutants import hook

_BOUND = 600
"""Seconds of the fake's time."""


async def _record(settings: Any) -> str:
    from support.chaos import chaos

    from triocoro.testing import FakeCluster

    with trio.fail_after(_BOUND):
        async with FakeCluster(**settings) as cluster:
            history = await chaos(cluster)
    return history.to_json_lines()


def main() -> None:
    """Do it."""
    hook.install()
    from triocoro.testing import seeded_run

    settings, seed = map(json.loads, sys.argv[1:])
    sys.stdout.write(seeded_run(_record, settings, seed=seed))


main()
