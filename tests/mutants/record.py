"""`python -m mutants.record SETTINGS SEED`: print a recorded chaos run on a fake cluster, which may be a mutant.

SETTINGS are those of the cluster, in JSON. The run uses virtual time.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import trio

from mutants import hook

_BOUND = 600
"""In seconds of virtual time."""


async def _record(settings: Any) -> str:
    from support.chaos import chaos

    from triocoro.testing import FakeCluster

    with trio.fail_after(_BOUND):
        async with FakeCluster(**settings) as cluster:
            history = await chaos(cluster)
    return history.to_json_lines()


def main() -> None:
    """Record a chaos run and print it as JSON lines."""
    hook.install()
    from triocoro.testing import seeded_run

    settings, seed = map(json.loads, sys.argv[1:])
    sys.stdout.write(seeded_run(_record, settings, seed=seed))


main()
