"""Seeds in batches, run by several processes, with a line for each batch in a ledger."""

from __future__ import annotations

import multiprocessing
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from triocoro.testing import Places

T = TypeVar("T")

HERE = Path(__file__).parent


def batches_of(seeds: str, size: int) -> list[range]:
    """The seeds of an argument `FIRST:END` in batches, each of which ends at a multiple of its size."""
    first, end = map(int, seeds.split(":"))
    ends = [*range(first - first % size + size, end, size), end]
    return [range(*both) for both in zip([first, *ends], ends, strict=False)]


def results(batches: Iterable[range], judge: Callable[[range], T], workers: int) -> Generator[T, None, None]:
    """What `judge` finds for each batch, in order; without workers, in this process.

    Few batches are taken ahead, so that their iterator may end after some time.
    """
    if not workers:
        yield from map(judge, batches)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("forkserver"))
    try:
        under_way: deque[Future[T]] = deque()
        for batch in batches:
            under_way.append(pool.submit(judge, batch))
            if len(under_way) > workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def counting_places(totals: Counter[str]) -> Generator[None, None, None]:
    """Add 1 for each place that is reached in the block; see `triocoro.reached`."""
    places = Places()
    with places.counting():
        yield
    totals.update(places.counts.keys())


def show_places(totals: Counter[str]) -> None:
    """Print how many schedules have reached each place."""
    for place, number in totals.most_common():
        print(f"{number:>7}  {place}")


def write_ledger(ledger: Path, commit: str, **columns: object) -> None:
    """Add a line to a ledger: today, the commit, and what was run."""
    if not ledger.exists():
        ledger.write_text(f"day,commit,{','.join(columns)}\n", encoding="ascii")
    with ledger.open("a", encoding="ascii") as lines:
        lines.write(f"{time.strftime('%Y-%m-%d')},{commit},{','.join(map(str, columns.values()))}\n")


def tested_commit() -> str:
    """The commit under test, with a + if there are changes that are not committed; ledgers do not count."""
    git = ["git", "-C", str(HERE)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=True, capture_output=True, text=True)
    changes = [*git, "diff", "--quiet", "HEAD", "--", ":/", ":(top,exclude,glob)tests/recipes/*.csv"]
    return commit.stdout.strip() + "+" * subprocess.run(changes, check=False).returncode
