import trio
from replicated_store import Store

from triocoro.testing import Cluster, Node


async def start(nursery: trio.Nursery, node: Node) -> Store:
    """A replica on that node: what it opens goes to the node's daemon."""
    store = Store("settings")
    with node.as_default():
        await nursery.start(store.run)
    return store


async def entries(store: Store, number: int) -> None:
    await store.until(lambda: len(store.data) == number)


async def test_a_member_that_joins_later_catches_up(corosync_cluster: Cluster) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            first = await start(nursery, corosync_cluster[1])
            await first.set("colour", "blue")
            later = await start(nursery, corosync_cluster[2])
            assert later.data == {"colour": "blue"}
            nursery.cancel_scope.cancel()


async def test_joins_and_writes_at_the_same_time(corosync_cluster: Cluster) -> None:
    stores: list[Store] = []

    async def join_and_write(nursery: trio.Nursery, node: Node) -> None:
        store = await start(nursery, node)
        stores.append(store)
        for number in range(10):
            await store.set(f"{node.nodeid}/{number}", "x")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as work:
                for node in corosync_cluster.nodes.values():
                    work.start_soon(join_and_write, nursery, node)
            for store in stores:
                await entries(store, 30)
            nursery.cancel_scope.cancel()
