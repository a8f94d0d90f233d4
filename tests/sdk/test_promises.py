"""What Corosync does not promise, and what holds nevertheless: claims of docs/promises.md that no other test shows."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing
from support.streams import until

import triocoro
from triocoro import ConfigChange, EventStream, Message, QuorumChange, QuorumEvent, TotemChange
from triocoro.testing import Cluster, FakeCluster


async def decided_about(changes: EventStream[QuorumEvent], *nodes: int) -> QuorumChange:
    """Wait for what is decided about the ring of these nodes."""
    *_, decided = await until(changes, lambda event: isinstance(event, QuorumChange) and event.members == nodes)
    assert isinstance(decided, QuorumChange)
    return decided


async def test_own_delivery_is_no_commit(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        ours, *others = [
            await stack.enter_async_context(triocoro.open_group("g", endpoint=node.endpoint))
            for node in corosync_cluster.nodes.values()
        ]
        await corosync_cluster.isolate(1)
        message = await ours.send_and_wait(b"bought")
        await corosync_cluster.heal()
        await corosync_cluster.settled()
        last = await ours.send_and_wait(b"last")
        for other in others:
            assert message not in await until(other, lambda event: event == last)


@pytest.mark.usefixtures("corosync")
async def test_send_and_wait_may_return_before_the_receive_loop_has_the_message() -> None:
    async with triocoro.open_group("g") as group:
        message = await group.send_and_wait(b"x")
        assert isinstance(await group.receive(), ConfigChange)
        assert await group.receive() == message


async def test_group_and_quorum_news_have_the_ring_in_common(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_group("g", totem_changes=True) as group,
        triocoro.open_quorum() as quorum,
        quorum.track() as changes,
    ):
        await corosync_cluster[3].kill()
        # They come over two connections: which of them is read first says nothing about what happened first.
        decided = await decided_about(changes, 1, 2)
        assert isinstance(await group.receive(), ConfigChange)
        assert [await group.receive() for _ in range(2)][-1] == TotemChange(decided.ring_id, (1, 2))


async def test_a_client_of_a_frozen_daemon_last_heard_that_it_is_quorate(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_quorum() as ours,
        ours.track() as our_changes,
        triocoro.open_quorum(endpoint=corosync_cluster[2].endpoint) as theirs,
        theirs.track() as their_changes,
    ):
        assert (await decided_about(our_changes, 1, 2, 3)).quorate
        await corosync_cluster[1].freeze()
        assert (await decided_about(their_changes, 2, 3)).quorate
        with trio.move_on_after(0):
            pytest.fail(f"node 1 has news: {await our_changes.receive()}")
        await corosync_cluster[1].thaw()


async def test_members_are_in_the_same_order_on_each_node(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(triocoro.open_group("g", endpoint=corosync_cluster[nodeid].endpoint))
            for nodeid in (3, 1, 2)
        ]
        for group in groups:
            await until(group, lambda event: isinstance(event, ConfigChange) and len(event.members) == 3)
            assert group.view.members == tuple(sorted(other.address for other in groups))


async def test_a_leave_is_no_change_of_the_ring(corosync_cluster: Cluster) -> None:
    async with triocoro.open_group("g", totem_changes=True) as group:
        async with triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint):
            pass
        await group.send(b"after the leave")
        kinds = [type(await group.receive()) for _ in range(5)]
        assert kinds == [ConfigChange, TotemChange, ConfigChange, ConfigChange, Message]


@pytest.mark.corosync_fake_only(reason="on a real cluster, no other join can be timed into a join")
async def test_the_ring_may_be_told_before_the_own_join(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001 - using the fixture installs the clock
) -> None:
    async with FakeCluster(nodes=2, latency=1) as cluster, trio.open_nursery() as nursery:

        async def join_another() -> None:
            async with triocoro.open_group("another", endpoint=cluster[2]):
                await trio.sleep_forever()

        nursery.start_soon(join_another)
        await trio.sleep(0.5)
        async with triocoro.open_group("g", totem_changes=True, endpoint=cluster[1]) as group:
            assert [type(await group.receive()) for _ in range(2)] == [TotemChange, ConfigChange]
        nursery.cancel_scope.cancel()
