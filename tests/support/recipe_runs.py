"""Many schedules of the workloads of recipes, with a line in a ledger for each batch; `--help` has the options.

Each seed is a schedule, of one of the workloads. A violation, or a run whose members do not come to terms, prints its
seed, which repeats it on the fake:

    PYTHONPATH=tests python -m support.recipe_runs --workers=0 --seeds=4711:4712
"""

from __future__ import annotations

import argparse
import gc
import itertools
import os
import random
import sys
import time
import traceback
from collections import Counter
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from support.batches import batches_of, counting_places, results, show_places, tested_commit, write_ledger
from support.recipe_workloads import WORKLOADS, Extent, Result
from triocoro.testing import FakeCluster, NetnsCluster, seeded_run

COLUMNS = ("schedules", "operations", "violations", "undecided")
PATIENCE = 60.0
REAL_SECONDS, REAL_PATIENCE = 8.0, 40.0


def workload_of(seed: int, only: str | None) -> str:
    """The workloads take turns."""
    return only or list(WORKLOADS)[seed % len(WORKLOADS)]


async def on_fake(name: str, seed: int) -> Result:
    """Run it in virtual time."""
    chance = random.Random(f"{name} {seed}")
    latency = chance.choice([0.0, 0.001, 0.01])
    jitter = chance.choice([0.0, latency])
    nodes = chance.choices([2, 3, 4, 5], weights=[1, 16, 1, 1])[0]
    extent = Extent.short(chance, least=2.5 if name == "lock" else 0.0)
    async with FakeCluster(nodes=nodes, latency=latency, jitter=jitter, seed=seed) as cluster:
        return await WORKLOADS[name](cluster, chance, extent, PATIENCE)


async def on_real(name: str, seed: int) -> Result:
    """Run it on real nodes, in real time. Every fifth run has five nodes."""
    chance = random.Random(f"{name} {seed}")
    async with NetnsCluster(nodes=5 if seed % 5 == 4 else 3) as cluster:
        return await WORKLOADS[name](cluster, chance, Extent(REAL_SECONDS), REAL_PATIENCE)


def run(name: str, seed: int, *, real: bool) -> Result:
    """Run a workload once."""
    try:
        if real:
            return trio.run(partial(on_real, name, seed))
        return seeded_run(partial(on_fake, name, seed), seed=seed)
    except Exception:  # noqa: BLE001 - it is reported
        return Result([f"ERROR: {traceback.format_exc()[-600:]}"], 0)


@attrs.define
class Tally:
    """What came of many runs."""

    seeds: range
    counts: Counter[str] = attrs.field(factory=Counter[str])
    """Schedules, operations, violations (the runs that found any), and runs that were undecided."""
    places: Counter[str] = attrs.field(factory=Counter[str])
    """How many schedules have reached each place; see `triocoro.reached`."""
    found: list[str] = attrs.field(factory=list[str])


def tally(only: str | None, real: bool, seeds: range) -> Tally:  # noqa: FBT001 - for partial
    """Run the seeds of a batch."""
    # The garbage of a run is small, and its collection takes long as there are many objects that stay.
    gc.freeze()
    gc.set_threshold(20_000, 10, 5)
    total = Tally(seeds)
    for seed in seeds:
        name = workload_of(seed, only)
        with counting_places(total.places):
            result = run(name, seed, real=real)
        total.counts += Counter(
            schedules=1,
            operations=result.operations,
            violations=int(bool(result.violations)),
            undecided=int(bool(result.undecided)),
        )
        total.found += [f"{name} {seed}: {violation}" for violation in result.violations]
        total.found += [f"{name} {seed}: undecided: {line}" for line in result.undecided]
    return total


def main() -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="support.recipe_runs", description=__doc__)
    parser.add_argument("--seeds", default="0:1000", metavar="FIRST:END")
    parser.add_argument("--only", choices=list(WORKLOADS), help="by default, they take turns")
    parser.add_argument("--real", action="store_true", help="on real nodes")
    parser.add_argument("--workers", type=int, help="processes that run them; 0: this one (as many as cores)")
    parser.add_argument("--batch", type=int, help="the schedules for each line of the ledger (1000, on real nodes 50)")
    parser.add_argument("--ledger", type=Path, help="add a line for each batch to this file")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no batch after that time")
    options = parser.parse_args()
    began = time.monotonic()
    commit = tested_commit()
    size = options.batch or (50 if options.real else 1000)
    workers = os.cpu_count() or 1 if options.workers is None else options.workers
    batches = itertools.takewhile(
        lambda _: time.monotonic() - began < options.minutes * 60, batches_of(options.seeds, size)
    )
    counts, places = Counter[str](violations=0), Counter[str]()
    with (
        closing(results(batches, partial(tally, options.only, options.real), workers)) as done,
        suppress(KeyboardInterrupt),
    ):
        for batch in done:
            for line in batch.found:
                print(line, flush=True)
            counts.update(batch.counts)
            places += batch.places
            print(f"to {batch.seeds.stop}: {dict(counts)} in {time.monotonic() - began:.0f} s", flush=True)
            if options.ledger:
                write_ledger(
                    options.ledger,
                    commit,
                    on="real" if options.real else "fake",
                    seeds=f"{batch.seeds.start}:{batch.seeds.stop}",
                    **{column: batch.counts[column] for column in COLUMNS},
                )
    show_places(places)
    return 1 if counts["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
