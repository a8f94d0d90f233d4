"""Clusters, their pool and what records in a forked child process."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
from support.forking import in_child, outcome_of, run_in_child
from support.public_calls import verbs_of
from support.refusals import still_works

import triocoro
from triocoro import lowlevel
from triocoro.testing import Cluster, ClusterOptions, FakeCluster, History, NetnsClusterPool

pytestmark = pytest.mark.deadline(30)


async def test_a_child_that_leaves_the_block_leaves_the_cluster_alone(corosync_cluster: Cluster) -> None:
    cluster = corosync_cluster

    async def leave() -> None:
        cluster.__exit__(None, None, None)
        await cluster.__aexit__(None, None, None)

    async with triocoro.open_group("g", endpoint=cluster[1].endpoint) as group:
        assert run_in_child(leave) is None
        await still_works(group)
    # A request to the supervisor of real nodes, whose socket the child has a copy of.
    await cluster.heal()


async def test_a_child_that_changes_the_cluster_gets_an_error(corosync_cluster: Cluster) -> None:
    cluster = corosync_cluster
    verbs = {**verbs_of(cluster), "aenter": cluster.__aenter__}

    async def try_all() -> dict[str, str]:
        return {name: await outcome_of(verb) for name, verb in verbs.items()}

    async with triocoro.open_group("g", endpoint=cluster[1].endpoint) as group:
        found = cast("dict[str, str]", run_in_child(try_all))
        await still_works(group)
    expected = f"RuntimeError: {cluster!r} was made by process {os.getpid()} and cannot be used in its forked child "
    assert {name: text for name, text in found.items() if not text.startswith(expected)} == {}
    assert found.keys() == verbs.keys()
    assert cluster.reachable(1) == {1, 2, 3}


@pytest.mark.corosync_fake_only(reason="a child can connect to real daemons: tests/sdk/test_fork.py")
async def test_a_child_that_connects_to_a_fake_node_is_told_that_it_has_a_copy() -> None:
    async with FakeCluster(nodes=1) as cluster:
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "open_group": lambda: triocoro.open_group("g", endpoint=cluster[1].endpoint).__aenter__(),
            "open_votequorum": lambda: triocoro.open_votequorum(endpoint=cluster[1].endpoint).__aenter__(),
            "cmap_initialize": lambda: lowlevel.cmap_initialize(endpoint=cluster[1].endpoint),
            "client": lambda: triocoro.open_cfg(endpoint=cluster[1].client()).__aenter__(),
        }

        async def try_all() -> dict[str, str]:
            return {name: await outcome_of(call) for name, call in calls.items()}

        found = cast("dict[str, str]", run_in_child(try_all))
    for text in found.values():
        assert f"was made by process {os.getpid()} and cannot be used in its forked child" in text
        assert "NetnsCluster" in text
    assert found.keys() == calls.keys()


async def test_a_child_that_records_is_told_that_its_entries_would_be_lost(corosync_cluster: Cluster) -> None:
    endpoint = History().endpoint(corosync_cluster[1], client="a")
    found = run_in_child(lambda: outcome_of(lambda: triocoro.open_group("g", endpoint=endpoint).__aenter__()))
    assert str(found).startswith(f"RuntimeError: {endpoint!r} was made by process {os.getpid()}")
    assert "merge the two" in str(found)


@pytest.mark.corosync_real_only(reason="only real clusters are pooled")
def test_a_child_leaves_the_clusters_of_a_pool_alone() -> None:
    pool = NetnsClusterPool(None)
    options = ClusterOptions(nodes=1)
    lent, idle = (pool.borrow(options, "parent").cluster for _ in range(2))
    pool.give_back(idle)

    def child() -> str:
        pool.give_back(lent)
        pool.leave_running(lent)
        pool.close()
        try:
            pool.borrow(options, "child")
        except RuntimeError as error:
            return str(error)
        return "borrowed"

    async def use() -> None:
        async with triocoro.open_group("g", endpoint=lent[1].endpoint) as group:
            await still_works(group)

    try:
        said = in_child(child)
        assert str(said).startswith(f"this pool of clusters was made by process {os.getpid()} and cannot be used")
        trio.run(use)
        pool.give_back(lent)
        # The clean one is lent again, over the connections that the pool has kept to it.
        assert pool.borrow(options, "parent").cluster in (lent, idle)
    finally:
        pool.close()
