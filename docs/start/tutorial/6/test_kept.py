import itertools
import random
from collections.abc import Iterator

import pytest
import trio
from replicated_store import NoQuorumError, Store

import triocoro
from triocoro.testing import (
    Cluster,
    FaultSchedule,
    FaultStep,
    History,
    check_linearizable,
    explore,
    fault_schedules,
    models,
    random_schedule,
)


async def use(store: Store, client: str, history: History, values: Iterator[int]) -> None:
    """Write and read a key without end, and record what the store says."""
    while True:
        try:
            if random.random() < 0.5:
                value = str(next(values))
                with history.operation("put", "key", value, client=client, refused=NoQuorumError):
                    await store.set("key", value)
            else:
                with history.operation("get", "key", client=client, refused=NoQuorumError) as operation:
                    await store.set("mark", "")  # when it returns, this replica has all writes before
                    operation.result = store.data.get("key")
        except (NoQuorumError, triocoro.CorosyncError):
            pass
        await trio.sleep(random.uniform(0.05, 0.15))


async def use_all(cluster: Cluster, history: History, seconds: float) -> None:
    """Start a replica on each node, and use all of them once they are in touch."""
    values = itertools.count(1)
    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            stores = {nodeid: Store("settings") for nodeid in cluster.nodes}
            for nodeid, store in stores.items():
                with cluster[nodeid].as_default():
                    await nursery.start(store.run)
            for store in stores.values():
                await store.until(lambda store=store: len(store.nodes) == len(stores))
            for nodeid, store in stores.items():
                nursery.start_soon(use, store, f"client {nodeid}", history, values)


@pytest.mark.corosync_seeds(200, latency=0.01, jitter=0.005)
async def test_writes_are_kept(corosync_cluster: Cluster, corosync_history: History) -> None:
    async with corosync_cluster.nemesis(random_schedule(seconds=2)):
        await use_all(corosync_cluster, corosync_history, seconds=3)
    assert check_linearizable(corosync_history.operations(), models.Map()) == []


async def program(cluster: Cluster) -> None:
    history = History()
    cluster.record(history)
    await use_all(cluster, history, seconds=3)
    assert check_linearizable(history.operations(), models.Map()) == []


def test_the_simplest_faults() -> None:
    explore(program, schedules=fault_schedules(seconds=2, heal=False), latency=0.01, jitter=0.005, max_examples=300)


FOUND = FaultSchedule([FaultStep(0.086, "isolate", (1,))])
LATER = FaultSchedule([FaultStep(2.0, "isolate", (1,))])


def test_the_found_faults() -> None:
    explore(program, schedules=FOUND, seeds=0, latency=0.01, jitter=0.005)


async def test_on_real_nodes(corosync_cluster: Cluster, corosync_history: History) -> None:
    async with corosync_cluster.nemesis(LATER):
        await use_all(corosync_cluster, corosync_history, seconds=3)
    assert check_linearizable(corosync_history.operations(), models.Map()) == []
