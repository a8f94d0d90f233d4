"""examples/store.py on clusters that break."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import trio
from store import Data, obey, put
from support.screens import Screen

from triocoro.recipes import NotPrimaryError, Replica, UncertainError, open_replica
from triocoro.testing import Cluster, History, check_linearizable, models, random_schedule

pytestmark = pytest.mark.deadline(60)


async def open_replicas(stack: AsyncExitStack, cluster: Cluster) -> dict[int, Replica[Data]]:
    return {
        nodeid: await stack.enter_async_context(open_replica("store", Data(), endpoint=node))
        for nodeid, node in cluster.nodes.items()
    }


async def lines(*commands: str) -> AsyncIterator[str]:
    for command in commands:
        await trio.lowlevel.checkpoint()
        yield f"{command}\n"


@pytest.mark.usefixtures("corosync")
async def test_commands() -> None:
    screen = Screen()
    async with open_replica("store", Data()) as replica:
        await obey(replica, lines("set a 1", "set a 2", "get a", "peek a", "get b", "show", ""), screen.show)
    assert screen.lines == [
        "a was None",
        "a was 1",
        "2",
        "2",
        "None",
        "{'a': '2'}, writable",
        "commands: set KEY VALUE, get KEY, peek KEY, show",
    ]


async def test_a_minority_reads_old_values_only_if_asked_to(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        replicas = await open_replicas(stack, corosync_cluster)
        await put(replicas[1], "a", "1")
        await replicas[3].read(lambda data: data.values)
        await corosync_cluster.isolate(3)
        await corosync_cluster.settled()
        await put(replicas[1], "a", "2")
        screen = Screen()
        await replicas[3].wait(lambda _: not replicas[3].primary)
        await obey(replicas[3], lines("get a", "peek a", "show"), screen.show)
        assert "no majority" in screen.lines[0]
        assert screen.lines[1:] == ["1", "{'a': '1'}, not writable"]
        await corosync_cluster.heal()
        await replicas[3].wait_primary()
        assert await replicas[3].read(lambda data: data.values) == {"a": "2"}


@pytest.mark.corosync_seeds(5, latency=0.01, jitter=0.02)
async def test_results_are_linearizable_under_faults_at_random_times(corosync_cluster: Cluster) -> None:
    if corosync_cluster.history is None:
        corosync_cluster.record(History())
    history = corosync_cluster.history
    assert history is not None
    values = itertools.count(1)

    async def use(replica: Replica[Data], nodeid: int, over: trio.Event) -> None:
        while not over.is_set():
            try:
                if random.random() < 0.5:
                    value = str(next(values))
                    with history.operation("put", "key", value, client=f"client {nodeid}", node=nodeid):
                        await put(replica, "key", value)
                else:
                    with history.operation(
                        "get", "key", client=f"client {nodeid}", node=nodeid, refused=(NotPrimaryError, UncertainError)
                    ) as operation:
                        operation.result = await replica.read(lambda data: data.values.get("key"))
            except (NotPrimaryError, UncertainError):
                pass
            await trio.sleep(random.uniform(0.05, 0.15))

    async with AsyncExitStack() as stack:
        replicas = await open_replicas(stack, corosync_cluster)
        async with corosync_cluster.nemesis(random_schedule(seconds=10)) as over, trio.open_nursery() as nursery:
            for nodeid, replica in replicas.items():
                nursery.start_soon(use, replica, nodeid, over)
        for replica in replicas.values():
            await replica.wait_primary()
        await put(replicas[1], "done", "yes")
        states = [await replica.read(lambda data: dict(data.values)) for replica in replicas.values()]
        assert all(state == states[0] for state in states)
    violations = check_linearizable(history.operations(), models.Map())
    assert not violations, str(violations[0])
