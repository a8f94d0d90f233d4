"""The replicated store of tests/downstream acknowledges a write that is lost if its node is just being cut off.

Its documentation names the reason: Corosync's order is agreed, not safe. Tutorial 6 finds it with seeds and `explore`.
These tests play the simplest schedule of faults, from a file.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.store_clients import use_store

from triocoro.testing import Cluster, Fault, FaultSchedule, explore

FILE = Path(__file__).with_name("lost_write.json")
"""The schedule that `explore` has found."""
SECONDS = 2
LATENCY = 0.01
JITTER = 0.005

searches = pytest.mark.corosync_fake_only(reason="the search needs runs that can be repeated")


async def program(cluster: Cluster) -> None:
    violations = await use_store(cluster, seconds=SECONDS)
    assert not violations, str(violations[0])


@searches
def test_the_schedule_in_the_file_shows_it() -> None:
    schedule = FaultSchedule.from_json(FILE.read_text(encoding="utf-8"))
    with pytest.raises(AssertionError, match="linearizability: get"):
        explore(program, schedules=schedule, seeds=0, latency=LATENCY, jitter=JITTER)


async def test_the_schedule_in_the_file_plays_on_both_kinds(corosync_cluster: Cluster) -> None:
    """Whether real nodes lose a write depends on when packets arrive."""
    schedule = FaultSchedule.from_json(FILE.read_text(encoding="utf-8"))
    async with corosync_cluster.nemesis(schedule) as over:
        await use_store(corosync_cluster, seconds=schedule.steps[-1].at + 0.5)
        assert over.is_set()
    assert corosync_cluster.history is not None
    verbs = [entry.verb for entry in corosync_cluster.history if isinstance(entry, Fault)]
    assert verbs == [*(step.verb for step in schedule.steps), "heal"]
    await corosync_cluster.settled()
