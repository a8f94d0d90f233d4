import trio
from replicated_store import Store

from triocoro.testing import Cluster, Node


async def colour(store: Store, name: str) -> None:
    await store.until(lambda: store.data.get("colour") == name)


async def test_one_replica(corosync: Node) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            store = Store("settings")
            await nursery.start(store.run)
            await store.set("colour", "blue")
            await colour(store, "blue")
            nursery.cancel_scope.cancel()


async def test_all_replicas_get_a_write(corosync_cluster: Cluster) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            stores: list[Store] = []
            for node in corosync_cluster.nodes.values():
                store = Store("settings")
                with node.as_default():  # what the store opens goes to this node
                    await nursery.start(store.run)
                stores.append(store)
            await stores[0].set("colour", "blue")
            for store in stores:
                await colour(store, "blue")
            nursery.cancel_scope.cancel()
