"""`make recordings N=200`: chaos on real clusters, recorded and checked; what the checkers find is a false alarm.

Or it is a bug of Corosync's, or of triocoro. Such a recording is kept.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import trio

from support.chaos import chaos
from triocoro.testing import ClusterOptions, History, NetnsCluster, check

_CLUSTERS: tuple[dict[str, Any], ...] = (
    {},
    {"wait_for_all": True},
    {"nodes": 4, "auto_tie_breaker": True},
    {"nodes": 4, "last_man_standing": True, "last_man_standing_window": 500, "wait_for_all": True},
    {"allow_downscale": True},
    {"votes": {1: 3}, "expected_votes": 6},
    {"nodes": 5},
)
"""What they are, in turns."""


async def _record(settings: dict[str, Any]) -> tuple[History, ClusterOptions]:
    async with NetnsCluster(**settings) as cluster:
        return await chaos(cluster), cluster.options


def main() -> None:
    """Do it, and exit with 1 if there was an alarm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--number", type=int, default=10, help="how many recordings (10)")
    parser.add_argument("--keep", type=Path, default=Path("build/recordings"), help="where those with alarms go")
    arguments = parser.parse_args()
    alarms = 0
    for number, settings in enumerate(itertools.islice(itertools.cycle(_CLUSTERS), arguments.number), 1):
        history, options = trio.run(_record, settings)
        violations = check(history, options=options)
        print(f"{number} {settings}: {len(history)} entries, {len(violations)} alarms", flush=True)
        if violations:
            alarms += 1
            arguments.keep.mkdir(parents=True, exist_ok=True)
            history.save(arguments.keep / f"{number}.jsonl")
            print(*violations, sep="\n", flush=True)
    print(f"{arguments.number} recordings, {alarms} with alarms")
    sys.exit(alarms > 0)


if __name__ == "__main__":
    main()
