import pytest
import trio
from replicated_store import NoQuorumError, Store

from triocoro.testing import Cluster, Node


async def start_all(nursery: trio.Nursery, cluster: Cluster) -> list[Store]:
    """A replica on each node, in touch with all others."""
    stores = [await start(nursery, node) for node in cluster.nodes.values()]
    for store in stores:
        await together(store, len(stores))
    return stores


async def together(store: Store, replicas: int) -> None:
    await store.until(lambda: store.writable and len(store.nodes) == replicas)


async def start(nursery: trio.Nursery, node: Node) -> Store:
    store = Store("settings")
    with node.as_default():
        await nursery.start(store.run)
    return store


async def colour(store: Store, name: str) -> None:
    await store.until(lambda: store.data.get("colour") == name)


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
            nursery.cancel_scope.cancel()
