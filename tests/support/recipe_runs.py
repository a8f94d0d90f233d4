"""Many runs of the workloads of recipes, with a line in a ledger for each batch; `--help` has the options.

A violation, or a run whose members do not come to terms, prints its seed, which repeats it on the fake:

    python -m support.recipe_runs --only=lock --seeds=4711:4712
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

import trio

from support.recipe_workloads import WORKLOADS
from triocoro.testing import FakeCluster, NetnsCluster, seeded_run

FAKE_SECONDS, FAKE_PATIENCE = 6.0, 60.0
REAL_SECONDS, REAL_PATIENCE = 8.0, 40.0


def nodes_of(seed: int) -> int:
    """Every fifth run has five nodes."""
    return 5 if seed % 5 == 4 else 3


async def on_fake(name: str, seed: int) -> list[str]:
    """Run it in virtual time."""
    chance = random.Random(f"{name} {seed}")
    latency = chance.choice([0.0, 0.001, 0.01])
    async with FakeCluster(nodes=nodes_of(seed), latency=latency, jitter=latency, seed=seed) as cluster:
        return await WORKLOADS[name](cluster, chance, FAKE_SECONDS, FAKE_PATIENCE)


async def on_real(name: str, seed: int) -> list[str]:
    """Run it on real nodes, in real time."""
    chance = random.Random(f"{name} {seed}")
    async with NetnsCluster(nodes=nodes_of(seed)) as cluster:
        return await WORKLOADS[name](cluster, chance, REAL_SECONDS, REAL_PATIENCE)


def run(name: str, seed: int, *, real: bool) -> list[str]:
    """Run a workload once, and return what was wrong."""
    try:
        if real:
            return trio.run(partial(on_real, name, seed))
        return seeded_run(partial(on_fake, name, seed), seed=seed)
    except Exception:  # noqa: BLE001 - it is reported
        return [f"ERROR: {traceback.format_exc()}"]


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0:100", metavar="FIRST:END")
    parser.add_argument("--only", choices=list(WORKLOADS), help="by default, all in turn")
    parser.add_argument("--real", action="store_true", help="on real nodes")
    parser.add_argument("--ledger", type=Path, help="a file to which a line for each hundred runs is added")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after that time")
    options = parser.parse_args()
    first, end = map(int, options.seeds.split(":"))
    start = time.monotonic()
    done: Counter[str] = Counter()
    failures = 0
    for seed in range(first, end):
        for name in [options.only] if options.only else WORKLOADS:
            found = run(name, seed, real=options.real)
            done[name] += 1
            for line in found:
                failures += 1
                print(f"{name} {seed}: {line}", flush=True)
        if (seed + 1) % (10 if options.real else 100) == 0 or seed == end - 1:
            line = (
                f"{time.strftime('%Y-%m-%d %H:%M', time.gmtime())} {'real' if options.real else 'fake'} seeds"
                f" {first}:{seed + 1} {dict(done)} failures {failures} in {time.monotonic() - start:.0f} s"
            )
            print(line, flush=True)
            if options.ledger:
                with options.ledger.open("a", encoding="utf-8") as ledger:
                    ledger.write(line + "\n")
        if time.monotonic() - start > options.minutes * 60:
            break
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
