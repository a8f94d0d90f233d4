"""Safe groups, as their users see them: on real nodes and on the fake."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
from support.applications import (
    applications,
    begin,
    no_longer_primary,
    payloads,
    poll,
    send_until_committed,
)
from support.fixtures.long import long
from support.proxy import FaultyEndpoint
from trio.testing import wait_all_tasks_blocked

from triocoro import SlowConsumerError
from triocoro.recipes import (
    Commit,
    Delivery,
    ElectorateError,
    Missed,
    NotCommittedError,
    NotPrimaryError,
    ProtocolError,
    SafeEvent,
    SafeGroup,
    UncertainError,
    open_lock,
    open_safe_group,
)
from triocoro.testing import Cluster, FakeCluster, Node

pytestmark = pytest.mark.deadline(15)


def opener(node: Node, **arguments: Any) -> Callable[[], AbstractAsyncContextManager[SafeGroup]]:
    return partial(open_safe_group, "log", endpoint=node, **arguments)


async def a_group(stack: AsyncExitStack, cluster: Cluster, *nodeids: int, **arguments: Any) -> list[SafeGroup]:
    """A member on each node, or on each of these, in the primary component."""
    nodes = [cluster[nodeid] for nodeid in nodeids or cluster.nodes]
    groups = [await stack.enter_async_context(open_safe_group("log", endpoint=node, **arguments)) for node in nodes]
    for group in groups:
        await group.wait_primary()
    return groups


# -- all is well -------------------------------------------------------------------------------------------------------


async def test_all_members_receive_the_same_in_the_order_of_the_indexes(corosync_cluster: Cluster) -> None:
    commits: dict[bytes, Commit] = {}

    async def send(group: SafeGroup, name: str) -> None:
        for number in range(20):
            payload = f"{name} {number}".encode()
            commits[payload] = await group.send(payload)

    async def receive(group: SafeGroup) -> list[SafeEvent]:
        return [await group.receive() for _ in range(60)]

    async with AsyncExitStack() as stack:
        groups = await a_group(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for group, name in zip(groups, "abc", strict=True):
                nursery.start_soon(send, group, name)
        received = [await receive(group) for group in groups]
    assert received[0] == received[1] == received[2]
    assert {delivery.payload: delivery.commit for delivery in received[0] if isinstance(delivery, Delivery)} == commits
    assert [event.commit.index for event in received[0] if isinstance(event, Delivery)] == [*range(1, 61)]
    for name in "abc":
        mine = [it.payload for it in received[0] if isinstance(it, Delivery) and it.payload.startswith(name.encode())]
        assert mine == [f"{name} {number}".encode() for number in range(20)]
    senders = {it.payload[:1]: it.sender.nodeid for it in received[0] if isinstance(it, Delivery)}
    assert senders == {b"a": 1, b"b": 2, b"c": 3}


async def test_what_one_member_sends_at_once_keeps_its_order(corosync_cluster: Cluster) -> None:
    indexes: dict[int, int] = {}

    async def send(group: SafeGroup, number: int, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        indexes[number] = (await group.send(b"%d" % number)).index

    async with AsyncExitStack() as stack:
        first, *_ = await a_group(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                await nursery.start(send, first, number)
        assert await payloads(first, 100) == [b"%d" % number for number in range(100)]
    assert indexes == {number: number + 1 for number in range(100)}


@pytest.mark.parametrize("size", [0, 512 * 1024, *long(1, 100_000)])
async def test_payloads_of_all_sizes_arrive_whole(corosync_cluster: Cluster, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        await first.send(payload)
        assert await payloads(second, 1) == [payload]


@pytest.mark.corosync_fake_only(reason="on real nodes, a process can be in a group once")
async def test_two_members_on_one_node_take_part(corosync_cluster: FakeCluster) -> None:
    async with AsyncExitStack() as stack:
        groups = await a_group(stack, corosync_cluster)
        second = open_safe_group("log", endpoint=corosync_cluster[2].client())
        groups.append(await stack.enter_async_context(second))
        await groups[-1].wait_primary()
        for number, group in enumerate(groups):
            await group.send(b"%d" % number)
        for group in groups:
            assert await payloads(group, 4) == [b"0", b"1", b"2", b"3"]


async def test_groups_of_other_names_have_logs_of_their_own(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        (one, *_) = await a_group(stack, corosync_cluster)
        others = [
            await stack.enter_async_context(open_safe_group("other", endpoint=node))
            for node in corosync_cluster.nodes.values()
        ]
        await others[0].wait_primary()
        assert (await one.send(b"one")).index == 1
        assert (await others[0].send(b"other")).index == 1
        assert await payloads(others[1], 1) == [b"other"]


@pytest.mark.corosync(nodes=1)
async def test_a_cluster_of_one_node(corosync: Node) -> None:
    async with open_safe_group("log") as group:
        await group.wait_primary()
        await group.send(b"x")
        assert await payloads(group, 1) == [b"x"]
        assert repr(group) == "<triocoro.recipes.SafeGroup log on node 1, primary>"
        await corosync.restart()
        await send_until_committed(group, b"y")
        assert await payloads(group, 1) == [b"y"]


# -- no majority -------------------------------------------------------------------------------------------------------


async def test_without_a_majority_a_member_refuses_and_says_who_is_missing(corosync_cluster: Cluster) -> None:
    async with open_safe_group("log", endpoint=corosync_cluster[2]) as group:
        await poll(lambda: "not connected" not in obstacle(group))
        with pytest.raises(NotPrimaryError, match=r"log on node 2: no majority: .* on nodes 1 and 3") as caught:
            await group.send(b"x")
        assert isinstance(caught.value, NotCommittedError)
        assert not group.primary
        with trio.move_on_after(0.01) as scope:
            await group.wait_primary()
        assert scope.cancelled_caught


def obstacle(group: SafeGroup) -> str:
    return group._member.agreement.obstacle() or ""  # what no user can wait for: that the first view has come


async def test_a_majority_goes_on_and_the_minority_refuses(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await a_group(stack, corosync_cluster)
        await first.send(b"before")
        await corosync_cluster.isolate(3)
        await send_until_committed(first, b"while")
        await no_longer_primary(third)
        with pytest.raises(NotPrimaryError, match="nodes 1 and 2"):
            await third.send(b"never")
        await corosync_cluster.heal()
        await third.wait_primary()
        await third.send(b"after")
        for group in (first, second, third):
            assert (await payloads(group, 3)) == [b"before", b"while", b"after"]


async def test_a_minority_never_hands_out_what_it_has_alone(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, _, third = await a_group(stack, corosync_cluster)
        await first.send(b"before")
        outcomes: list[object] = []

        async def send() -> None:
            try:
                outcomes.append(await third.send(b"doubtful"))
            except (NotPrimaryError, UncertainError) as error:
                outcomes.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(corosync_cluster.isolate, 3)
            nursery.start_soon(send)
        await send_until_committed(first, b"while")
        await corosync_cluster.heal()
        await send_until_committed(third, b"after")
        logs: list[list[bytes]] = []
        for group in (first, third):
            log: list[bytes] = []
            while b"after" not in log:
                log += await payloads(group, 1)
            logs.append(log)
        assert logs[0] == logs[1]
        assert logs[0].count(b"doubtful") <= 1
        if isinstance(outcomes[0], Commit):
            assert logs[0][outcomes[0].index - 1] == b"doubtful"
        elif outcomes[0] is NotPrimaryError:
            assert b"doubtful" not in logs[0]


@pytest.mark.corosync(nodes=5)
async def test_of_two_and_three_the_three_go_on(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        groups = await a_group(stack, corosync_cluster)
        await groups[0].send(b"before")
        await corosync_cluster.partition({1, 2}, {3, 4, 5})
        await send_until_committed(groups[4], b"while")
        await no_longer_primary(groups[0])
        with pytest.raises(NotPrimaryError, match="nodes 3, 4 and 5"):
            await groups[0].send(b"never")
        await corosync_cluster.partition({1, 2, 3}, {4, 5})
        await send_until_committed(groups[0], b"others")
        await no_longer_primary(groups[4])
        await corosync_cluster.heal()
        await send_until_committed(groups[4], b"after")
        for group in groups:
            assert await payloads(group, 4) == [b"before", b"while", b"others", b"after"]


@pytest.mark.corosync(nodes=5)
async def test_three_sides_without_a_majority_commit_nothing_and_merge(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        groups = await a_group(stack, corosync_cluster)
        await groups[0].send(b"before")
        await corosync_cluster.partition({1, 2}, {3, 4}, {5})
        for group in groups:
            await no_longer_primary(group)
            with pytest.raises(NotPrimaryError):
                await group.send(b"never")
        await corosync_cluster.heal()
        await send_until_committed(groups[2], b"after")
        for group in groups:
            assert await payloads(group, 2) == [b"before", b"after"]


async def test_what_was_sent_as_the_majority_was_lost_is_uncertain(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await a_group(stack, corosync_cluster)
        await corosync_cluster[2].freeze()
        await corosync_cluster[3].freeze()
        with pytest.raises(UncertainError, match="not known to be committed"):
            await first.send(b"doubtful")  # until the ring has ended
        with pytest.raises(NotPrimaryError):
            await first.send(b"never")
        await corosync_cluster[2].thaw()
        await corosync_cluster[3].thaw()
        await send_until_committed(first, b"after")
        logs: list[list[bytes]] = []
        for group in (first, second, third):
            log: list[bytes] = []
            while b"after" not in log:
                log += await payloads(group, 1)
            logs.append(log)
        assert logs[0] == logs[1] == logs[2]
        assert logs[0] in ([b"after"], [b"doubtful", b"after"])


# -- daemons -----------------------------------------------------------------------------------------------------------


async def test_the_daemon_dies_while_a_message_is_under_way(corosync_cluster: Cluster) -> None:
    endpoints = {nodeid: FaultyEndpoint(corosync_cluster[nodeid].endpoint) for nodeid in (2, 3)}
    async with AsyncExitStack() as stack:
        (first,) = [await stack.enter_async_context(opener(corosync_cluster[1])())]
        second, third = [
            await stack.enter_async_context(open_safe_group("log", endpoint=endpoint))
            for endpoint in endpoints.values()
        ]
        for group in (first, second, third):
            await group.wait_primary()
        await first.send(b"before")
        for endpoint in endpoints.values():
            endpoint.faults.drop = lambda _: True  # nobody acknowledges what comes now
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _send() -> None:
                with pytest.raises(UncertainError, match="not known to be committed: not connected to Corosync"):
                    await first.send(b"doubtful")

            await trio.testing.wait_all_tasks_blocked()
            await corosync_cluster[1].kill()
        with pytest.raises(NotPrimaryError, match="not connected to Corosync"):
            await first.send(b"never")
        for endpoint in endpoints.values():
            endpoint.faults.drop = lambda _: False
        await corosync_cluster[1].start()
        await send_until_committed(first, b"after")
        logs: list[list[bytes]] = []
        for group in (first, second, third):
            log: list[bytes] = []
            while b"after" not in log:
                log += await payloads(group, 1)
            logs.append(log)
        assert logs[0] == logs[1] == logs[2]
        assert logs[0] in ([b"before", b"after"], [b"before", b"doubtful", b"after"])


@pytest.mark.parametrize("end", ["kill", *long("stop")])
async def test_a_member_outlives_its_daemon(corosync_cluster: Cluster, end: str) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        await first.send(b"before")
        await getattr(corosync_cluster[1], end)()
        await send_until_committed(second, b"while")
        await corosync_cluster[1].start()
        await send_until_committed(first, b"after")
        for group in (first, second):
            assert await payloads(group, 3) == [b"before", b"while", b"after"]


async def test_all_daemons_restart_while_the_applications_live(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        groups = await a_group(stack, corosync_cluster)
        before = await groups[0].send(b"before")
        for node in corosync_cluster.nodes.values():
            await node.kill()
        for group in groups:
            await no_longer_primary(group)
        for node in corosync_cluster.nodes.values():
            await node.start()
        after = await send_until_committed(groups[1], b"after")
        assert (after.index, after.epoch > before.epoch) == (2, True)
        for group in groups:
            assert await payloads(group, 2) == [b"before", b"after"]


async def test_daemons_restart_one_after_the_other_under_traffic(corosync_cluster: Cluster) -> None:
    sent: list[bytes] = []
    async with AsyncExitStack() as stack:
        groups = await a_group(stack, corosync_cluster)
        done = trio.Event()

        async def send() -> None:
            while not done.is_set():
                payload = b"%d" % len(sent)
                await send_until_committed(groups[0], payload)
                sent.append(payload)
                await trio.sleep(0.005)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for nodeid in (2, 3, 1):
                await corosync_cluster[nodeid].restart()
                for group in groups:
                    await group.wait_primary()
            done.set()
        last = await send_until_committed(groups[2], b"last")
        logs = [await payloads(group, last.index) for group in groups]
    assert logs[0] == logs[1] == logs[2]
    assert list(dict.fromkeys(logs[0])) == [*sent, b"last"]  # in order; doubtful ones may be there twice


async def test_a_frozen_daemon_is_left_out_and_comes_back(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await a_group(stack, corosync_cluster)
        await corosync_cluster[3].freeze()
        await send_until_committed(first, b"while")
        await corosync_cluster[3].thaw()
        await send_until_committed(third, b"after")
        for group in (first, second, third):
            assert (await payloads(group, 2)) == [b"while", b"after"]


async def test_a_task_that_receives_hears_of_the_end_of_the_block(corosync: Node) -> None:
    async def receive(group: SafeGroup) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await group.receive()

    async with trio.open_nursery() as nursery, open_safe_group("log", endpoint=corosync) as group:
        nursery.start_soon(receive, group)  # noqa: ASYNC111 - it gets an error
        await wait_all_tasks_blocked()
    with pytest.raises(trio.ClosedResourceError):
        await group.receive()


# -- applications ------------------------------------------------------------------------------------------------------


async def test_a_joiner_learns_what_it_missed(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = [await begin(nursery, opener(node)) for node in corosync_cluster.nodes.values()]
        first, *_ = members
        await first.recipe.wait_primary()
        for number in range(3):
            await first.recipe.send(b"%d" % number)
        await members[1].end()
        await send_until_committed(first.recipe, b"3")
        late = (await begin(nursery, opener(corosync_cluster[2]))).recipe
        await late.wait_primary()
        assert await late.receive() == Missed(1, 4)
        await first.recipe.send(b"4")
        assert await payloads(late, 1) == [b"4"]
        assert (await late.send(b"5")).index == 6


async def test_applications_restart_one_after_the_other(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = {nodeid: await begin(nursery, opener(node)) for nodeid, node in corosync_cluster.nodes.items()}
        await members[1].recipe.wait_primary()
        await members[1].recipe.send(b"0")
        for number, nodeid in enumerate((1, 2, 3), 1):
            await members[nodeid].end()
            others = [other for other in members if other != nodeid]
            await send_until_committed(members[others[0]].recipe, b"%d" % number)
            members[nodeid] = await begin(nursery, opener(corosync_cluster[nodeid]))
            await members[nodeid].recipe.wait_primary()
            assert await members[nodeid].recipe.receive() == Missed(1, number + 1)
        last = await members[2].recipe.send(b"last")
        assert last.index == 5


async def test_a_majority_of_restarted_applications_does_not_go_on_without_the_log(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = {nodeid: await begin(nursery, opener(node)) for nodeid, node in corosync_cluster.nodes.items()}
        await members[1].recipe.wait_primary()
        await members[1].recipe.send(b"acknowledged")
        await corosync_cluster.isolate(1)
        for nodeid in (2, 3):
            await members[nodeid].end()
            members[nodeid] = await begin(nursery, opener(corosync_cluster[nodeid]))
        with trio.move_on_after(1) as scope:  # they cannot know what node 1 has
            await members[2].recipe.wait_primary()
        assert scope.cancelled_caught
        with pytest.raises(NotPrimaryError):
            await members[2].recipe.send(b"never")


# -- senders -----------------------------------------------------------------------------------------------------------


async def test_a_cancelled_send_commits_the_message_once_or_not_at_all(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        for number in range(20):
            with trio.CancelScope() as scope:  # noqa: ASYNC912 - others cancel it
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first.send, b"%d" % number)
                    for _ in range(number % 5):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        await first.send(b"last")
        log = [b""]
        while log[-1] != b"last":
            log += await payloads(second, 1)
        assert log == [*sorted(set(log[:-1]), key=lambda it: int(it or -1)), b"last"]


async def test_a_cancelled_send_that_still_waits_for_its_turn_is_never_sent(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(first.send, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await first.send(b"never")
        await first.send(b"last")
        log = await payloads(second, 11)
        assert (sorted(log[:-1]), log[-1]) == ([b"%d" % number for number in range(10)], b"last")


async def test_a_message_that_corosync_loses_is_sent_again(corosync_cluster: Cluster) -> None:
    endpoint = FaultyEndpoint(corosync_cluster[1].endpoint)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_safe_group("log", endpoint=endpoint))
        second, _ = await a_group(stack, corosync_cluster, 2, 3)
        await first.wait_primary()
        dropped: list[bytes] = []

        def drop(payload: bytes) -> bool:
            lost = payload.endswith(b"lost") and not dropped
            if lost:
                dropped.append(payload)
            return lost

        endpoint.faults.drop = drop
        async with trio.open_nursery() as nursery:
            for payload in (b"lost", b"behind it"):
                nursery.start_soon(first.send, payload)
        assert len(dropped) == 1
        assert sorted(await payloads(second, 2)) == [b"behind it", b"lost"]


async def test_many_that_send_wait_for_each_other(corosync_cluster: Cluster) -> None:
    payload = bytes(100_000)
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(first.send, payload)
            assert await payloads(second, 100) == [payload] * 100


async def test_one_that_waits_for_room_gets_it_when_those_before_it_are_cancelled(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for _ in range(4):  # these are under way
                nursery.start_soon(first.send, b"before")
            await trio.lowlevel.checkpoint()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as cancelled:
                    for _ in range(12):  # these wait, as many of them as there is room for
                        cancelled.start_soon(first.send, bytes(500_000))
                    await trio.lowlevel.checkpoint()
                    nursery.start_soon(first.send, b"last")
                    await trio.lowlevel.checkpoint()
                    scope.cancel()
        assert (await payloads(second, 5))[-1] == b"last"


# -- receivers ---------------------------------------------------------------------------------------------------------


async def test_who_receives_too_slowly_gets_what_fitted_and_then_an_error(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(
            open_safe_group("log", endpoint=corosync_cluster[3], max_buffered_bytes=10_000)
        )
        first, *_ = await a_group(stack, corosync_cluster, 1, 2)
        for number in range(8):
            await first.send(b"%d" % number * 2000)
        last = await first.send(b"last")
        assert last.index == 9  # the slow one did not hold the others up
        received: list[bytes] = []
        with pytest.raises(SlowConsumerError, match="more slowly"):
            while True:
                received += await payloads(slow, 1)
        assert received == [b"%d" % number * 2000 for number in range(4)]
        await slow.send(b"it still takes part")


async def test_a_cancelled_receive_takes_no_message(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        for number in range(10):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(second.receive)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            await first.send(b"%d" % number)
            assert await payloads(second, 1) == [b"%d" % number]


async def test_several_receivers_share_the_messages(corosync_cluster: Cluster) -> None:
    received: list[bytes] = []

    async def receive(group: SafeGroup) -> None:
        received.extend(await payloads(group, 5))

    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(receive, second)
            for number in range(10):
                await first.send(b"%d" % number)
        assert sorted(received) == [b"%d" % number for number in range(10)]


async def test_a_group_is_an_iterator(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        await first.send(b"a")
        await first.send(b"b")
        received: list[bytes] = []
        async for event in second:
            assert isinstance(event, Delivery)
            received.append(event.payload)
            if event.payload == b"b":
                break
        assert received == [b"a", b"b"]


# -- the electorate ----------------------------------------------------------------------------------------------------


async def test_votes_count(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await a_group(stack, corosync_cluster, nodes={1: 3, 2: 1, 3: 1})
        await corosync_cluster.isolate(1)
        await send_until_committed(first, b"alone")  # three of five votes
        for member in (second, third):
            await no_longer_primary(member)
        with pytest.raises(NotPrimaryError, match=r"nodes? 1"):
            await third.send(b"never")


async def test_a_node_without_a_vote_takes_part(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        _, third = await a_group(stack, corosync_cluster, 1, 3, nodes=[1])
        await third.send(b"x")
        await corosync_cluster[1].kill()
        await no_longer_primary(third)
        with pytest.raises(NotPrimaryError, match=r"nodes? 1"):
            await third.send(b"never")


async def test_members_that_were_started_with_other_nodes_do_not_begin(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(open_safe_group("log", endpoint=corosync_cluster[nodeid], nodes=nodes))
            for nodeid, nodes in [(1, [1, 2]), (2, [1, 2, 3]), (3, [1, 2, 3])]
        ]
        with trio.move_on_after(1) as scope:
            await groups[1].wait_primary()
        assert scope.cancelled_caught
        for group in groups:
            with pytest.raises(NotPrimaryError, match="do not agree on the electorate"):
                await group.send(b"never")


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("nodes", [[], {}, [0], [-1], {1: 0}, {1: -1}])
async def test_an_electorate_that_cannot_be_is_refused(corosync: Node, nodes: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        async with open_safe_group("log", nodes=nodes, endpoint=corosync):
            pass


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("nodes", [5, "123", ["1"], [1.0], {1: 1.5}, {"1": 1}, [True], {1: True}, [2**32]])
async def test_an_electorate_of_wrong_types_is_refused(corosync: Node, nodes: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        async with open_safe_group("log", nodes=nodes, endpoint=corosync):
            pass


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("payload", ["text", None, 5, [1], object()])
async def test_a_payload_of_a_wrong_type_is_refused_before_anything_is_sent(
    corosync_cluster: Cluster, payload: Any
) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await a_group(stack, corosync_cluster)
        with pytest.raises(TypeError):
            await first.send(payload)
        assert (await first.send(b"x")).index == 1


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("payload", [bytearray(b"ab"), memoryview(b"ab"), memoryview(b"axbx")[::2]])
async def test_payloads_may_be_bytes_like(corosync_cluster: Cluster, payload: Any) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        await first.send(payload)
        assert await payloads(second, 1) == [b"ab"]


async def test_a_payload_that_is_too_large_is_refused(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await a_group(stack, corosync_cluster)
        with pytest.raises(ValueError, match="524,289 bytes; the largest has 524,288"):
            await first.send(bytes(512 * 1024 + 1))
        assert (await first.send(b"x")).index == 1


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("max_buffered_bytes", [0, -1, 1.5, "many", None, True])
async def test_a_buffer_that_cannot_be_is_refused(corosync: Node, max_buffered_bytes: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        async with open_safe_group("log", max_buffered_bytes=max_buffered_bytes, endpoint=corosync):
            pass


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("name", [5, None, "x" * 200, "", b"\xff" * 129])
async def test_a_name_that_cannot_be_is_refused(corosync: Node, name: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        async with open_safe_group(name, endpoint=corosync):
            pass


@pytest.mark.corosync_fake_only(reason="no real daemon of the tests is without a node list")
async def test_without_a_node_list_nodes_must_be_given(corosync: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    import triocoro

    async def items(_self: object, _prefix: str = "") -> list[object]:
        await trio.lowlevel.checkpoint()
        return []

    monkeypatch.setattr(triocoro.Cmap, "items", items)
    with pytest.raises(ElectorateError, match="pass `nodes`"):
        async with open_safe_group("log", endpoint=corosync):
            pass


# -- what else speaks in the group -------------------------------------------------------------------------------------


@pytest.mark.corosync_fake_only(reason="on real nodes, a process can be in a group once")
async def test_a_member_of_another_recipe_is_refused_and_the_others_go_on(
    corosync_cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        with pytest.raises(ProtocolError, match="it is a safe group, and this member a lock or leadership"):
            async with open_lock("log", endpoint=corosync_cluster[2].client()) as lock:
                await lock.wait_primary()
        await first.send(b"x")
        assert await payloads(second, 1) == [b"x"]
    assert "it is a lock or leadership, and this member a safe group; they need other names" in caplog.text


@pytest.mark.corosync_fake_only(reason="on real nodes, a process can be in a group once")
async def test_a_member_of_another_version_is_refused_and_the_others_go_on(
    corosync_cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so to one that has no log; those that have one say the same to it."""
    import triocoro

    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        newer = await stack.enter_async_context(triocoro.open_group("log", endpoint=corosync_cluster[2].client()))
        await newer.send_and_wait(b"tcsg\2" + bytes(100))
        async for event in newer:
            if isinstance(event, triocoro.Message) and event.payload.startswith(b"tcsg\1"):
                break
        await first.send(b"x")
        assert await payloads(second, 1) == [b"x"]
        assert "it speaks version 2, and this program 1" in caplog.text
        with pytest.raises(ProtocolError, match="speaks another protocol: it speaks version 2, and this program 1"):
            async with (
                open_safe_group("other", endpoint=corosync_cluster[1]) as alone,
                triocoro.open_group("other", endpoint=corosync_cluster[2].client()) as other,
            ):
                await other.send_and_wait(b"tcsg\2" + bytes(100))
                await alone.wait_primary()


@pytest.mark.corosync_fake_only(reason="on real nodes, a process can be in a group once")
async def test_messages_of_strangers_are_ignored(
    corosync_cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    import triocoro

    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        stranger = await stack.enter_async_context(triocoro.open_group("log", endpoint=corosync_cluster[2].client()))
        for payload in (b"", b"hello", b"tcsg", b"tcsg\1" + bytes(100), b"tcsg\1\3" + bytes(3)):
            await stranger.send_and_wait(payload)
        await first.send(b"x")
        assert await payloads(second, 1) == [b"x"]
    assert "ignored a message" in caplog.text
