"""Recipes under faults by chance: what must hold holds, and all goes on once the faults are over."""

from __future__ import annotations

import random

import pytest
from support.fixtures.long import long
from support.recipe_workloads import WORKLOADS, Extent

from triocoro.testing import Cluster

pytestmark = [pytest.mark.corosync_fake_only(reason="a seed repeats no real time; make recipes-real runs them there")]


async def check(cluster: Cluster, name: str, seconds: float) -> None:
    result = await WORKLOADS[name](cluster, random.Random(random.getrandbits(64)), Extent(seconds), 60.0)
    assert result.violations == []


@pytest.mark.deadline(120)
@pytest.mark.corosync_seeds(5, latency=0.002, jitter=0.002)
@pytest.mark.parametrize("name", WORKLOADS)
async def test_three_nodes(corosync_cluster: Cluster, name: str) -> None:
    await check(corosync_cluster, name, 4)


@pytest.mark.deadline(900)
@pytest.mark.corosync_seeds(100, latency=0.002, jitter=0.002)
@pytest.mark.parametrize("name", long(*WORKLOADS))
async def test_three_nodes_for_longer(corosync_cluster: Cluster, name: str) -> None:
    await check(corosync_cluster, name, 10)


@pytest.mark.deadline(900)
@pytest.mark.corosync(nodes=5)
@pytest.mark.corosync_seeds(50, latency=0.002, jitter=0.002)
@pytest.mark.parametrize("name", long(*WORKLOADS))
async def test_five_nodes(corosync_cluster: Cluster, name: str) -> None:
    await check(corosync_cluster, name, 10)
