import trio
from replicated_store import Store

from triocoro.testing import Cluster, Node


async def start(nursery: trio.Nursery, node: Node) -> Store:
    """A replica on that node: what it opens goes to the node's daemon."""
    store = Store("settings")
    with node.as_default():
        await nursery.start(store.run)
    return store


async def test_a_write_is_there_when_the_call_returns(corosync: Node) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            store = await start(nursery, corosync)
            await store.set("colour", "blue")
            assert store.data == {"colour": "blue"}
            assert await store.setdefault("colour", "red") == "blue"
            nursery.cancel_scope.cancel()


async def test_replicas_agree(corosync_cluster: Cluster) -> None:
    winners: set[str] = set()

    async def stand(store: Store, name: str) -> None:
        winners.add(await store.setdefault("leader", name))

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            stores = [await start(nursery, node) for node in corosync_cluster.nodes.values()]
            async with trio.open_nursery() as election:
                for number, store in enumerate(stores, start=1):
                    election.start_soon(stand, store, f"candidate {number}")
            assert len(winners) == 1
            nursery.cancel_scope.cancel()
