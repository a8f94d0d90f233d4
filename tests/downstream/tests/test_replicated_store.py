"""The store on clusters that break: nothing in it is there for these tests."""

from __future__ import annotations

import pytest
import trio
from replicated_store import NoQuorumError, Store

from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.corosync(nodes=3)


async def start(nursery: trio.Nursery, node: Node) -> Store:
    """A replica on that node: what it opens goes to the node's daemon."""
    store = Store("settings")
    with node.as_default():
        await nursery.start(store.run)
    return store


async def start_all(nursery: trio.Nursery, cluster: Cluster) -> list[Store]:
    stores = [await start(nursery, node) for node in cluster.nodes.values()]
    for store in stores:
        await together(store, len(stores))
    return stores


async def together(store: Store, replicas: int) -> None:
    await store.until(lambda: store.writable and len(store.nodes) == replicas)


async def colour(store: Store, name: str) -> None:
    await store.until(lambda: store.data.get("colour") == name)


@pytest.mark.corosync(nodes=1)
@pytest.mark.usefixtures("corosync")
async def test_one_replica() -> None:
    """The fixture's node is the default; no test has to name it."""
    store = Store("settings")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            await store.set("colour", "blue")
            assert await store.setdefault("colour", "red") == "blue"
            assert store.data == {"colour": "blue"}
            nursery.cancel_scope.cancel()


async def test_replicas_agree(corosync_cluster: Cluster) -> None:
    winners: set[str] = set()

    async def stand(store: Store, name: str) -> None:
        winners.add(await store.setdefault("leader", name))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            stores = await start_all(nursery, corosync_cluster)
            async with trio.open_nursery() as election:
                for number, store in enumerate(stores, start=1):
                    election.start_soon(stand, store, f"candidate {number}")
            assert len(winners) == 1
            for store in stores:
                assert {store.data["leader"]} == winners
            nursery.cancel_scope.cancel()


async def test_a_member_that_joins_later_catches_up(corosync_cluster: Cluster) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            first = await start(nursery, corosync_cluster[1])
            await together(first, 1)
            await first.set("colour", "blue")
            later = await start(nursery, corosync_cluster[2])
            assert later.data == {"colour": "blue"}
            nursery.cancel_scope.cancel()


async def test_death_of_a_node(corosync_cluster: Cluster) -> None:
    """The others go on; when the node is back, its replica joins them by itself."""
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            one, two, three = await start_all(nursery, corosync_cluster)
            await corosync_cluster[3].kill()
            await three.until(lambda: three.writable is False)
            with pytest.raises(NoQuorumError):
                await three.set("colour", "red")
            await one.set("colour", "blue")
            await colour(two, "blue")
            assert two.nodes == [1, 2]
            await corosync_cluster[3].start()
            await colour(three, "blue")
            nursery.cancel_scope.cancel()


async def test_a_minority_only_reads(corosync_cluster: Cluster) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            one, two, three = await start_all(nursery, corosync_cluster)
            await one.set("colour", "blue")
            await corosync_cluster.partition({1, 2}, {3})
            await corosync_cluster.settled()
            with pytest.raises(NoQuorumError, match=r"this replica is with nodes \[3\] only"):
                await three.set("colour", "red")
            assert three.data == {"colour": "blue"}
            await one.set("colour", "green")
            await corosync_cluster.heal()
            await colour(two, "green")
            await colour(three, "green")
            await three.set("colour", "yellow")
            await colour(one, "yellow")
            nursery.cancel_scope.cancel()
