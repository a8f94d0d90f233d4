"""Sessions live through restarts and faults of the daemon, and leave nothing behind."""

from __future__ import annotations

import pytest
import trio
from support.fixtures.figures import Figure
from support.load import Stopwatch
from support.restarts import Restarts
from trio.testing import MockClock

from triocoro.testing import Cluster


@pytest.fixture
def clock(corosync_mode: str) -> trio.abc.Clock | None:
    return MockClock(autojump_threshold=0) if corosync_mode == "fake" else None


@pytest.mark.corosync(nodes=2)
@pytest.mark.deadline(120)  # real daemons take a second for each fault, and a leak shows when all happen once more
async def test_a_member_lives_through_faults_of_its_daemon(
    corosync_cluster: Cluster,
    corosync_mode: str,
    clock: trio.abc.Clock | None,  # noqa: ARG001 - it is in force
    figure: Figure,
) -> None:
    number = 1000 if corosync_mode == "fake" else 10
    restarts, watch = Restarts(corosync_cluster), Stopwatch()
    await restarts.run(number, every=number // 2)
    figure(f"{number} faults", f"{watch.seconds:.1f} s")
    assert restarts.violations == []
    assert restarts.losses == number * 3 // 5  # to be frozen or cut off is no loss
