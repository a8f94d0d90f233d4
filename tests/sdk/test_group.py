"""What a member of a process group sees: its events, their order, its own messages, and the end."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest
import trio
import trio.testing
from support.proxy import FaultyEndpoint

import triocoro
from triocoro import (
    Address,
    ConfigChange,
    Endpoint,
    Group,
    InterruptError,
    MemberChange,
    Message,
    MessageLost,
    Reason,
    _membership,
    lowlevel,
)
from triocoro._raw import MulticastStatus
from triocoro.testing import Cluster, FakeCluster, Node, process_default_endpoint

pytestmark = pytest.mark.deadline(20)


async def take_messages(group: Group, count: int) -> list[bytes]:
    """The payloads of the next `count` messages."""
    payloads: list[bytes] = []
    async for event in group:
        if isinstance(event, Message):
            payloads.append(event.payload)
        if len(payloads) == count:
            break
    return payloads


async def take_change(group: Group) -> ConfigChange:
    async for event in group:
        if isinstance(event, ConfigChange):
            return event
    raise AssertionError("the stream ended")


async def test_the_first_event_is_our_join(corosync: Node) -> None:
    async with triocoro.open_group("g") as group:
        assert group.name == b"g"
        assert group.address == Address(corosync.nodeid, os.getpid())
        joined = (MemberChange(group.address, Reason.JOIN),)
        assert group.view == ConfigChange(members=(group.address,), joined=joined, left=())
        assert await group.receive() == group.view


async def test_members_on_three_nodes_see_the_same(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint) as one,
        triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as two,
    ):
        async with triocoro.open_group("g", endpoint=corosync_cluster[3].endpoint) as three:
            everybody = (one.address, two.address, three.address)
            assert three.view.members == everybody
            async with trio.open_nursery() as nursery:
                for group in (one, two, three):
                    nursery.start_soon(group.send_batch, [b"%d.%d" % (group.address.nodeid, i) for i in range(100)])
            seen = [await take_messages(group, 300) for group in (one, two, three)]
            assert seen[0] == seen[1] == seen[2]
            for nodeid in (1, 2, 3):
                of_one = [payload for payload in seen[0] if payload.startswith(b"%d." % nodeid)]
                assert of_one == [b"%d.%d" % (nodeid, i) for i in range(100)]
        change = await take_change(one)
        assert change == ConfigChange(
            members=(one.address, two.address), joined=(), left=(MemberChange(three.address, Reason.LEAVE),)
        )
        assert one.view == change


async def test_view_follows_what_was_received(corosync_cluster: Cluster) -> None:
    async with triocoro.open_group("g") as one:
        await one.receive()
        async with triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as two:
            assert one.view.members == (one.address,)
            await one.receive()
            assert one.view.members == (one.address, two.address)


@pytest.mark.usefixtures("corosync")
async def test_messages_are_gathered_and_kept_in_order() -> None:
    async with triocoro.open_group("g") as group:
        await group.send(b"hello", bytearray(b" "), memoryview(b"world"))
        await group.send()
        await group.send_batch([])
        await group.send_batch(b"%d" % i for i in range(1000))
        sent = [b"hello world", b"", *(b"%d" % i for i in range(1000))]
        assert await take_messages(group, len(sent)) == sent
        assert group.statistics().sent == group.statistics().confirmed == len(sent)


@pytest.mark.usefixtures("corosync")
async def test_send_nowait_keeps_its_place_among_the_others() -> None:
    async with triocoro.open_group("g") as group:
        await group.send_and_wait(b"first")
        while True:
            try:
                group.send_nowait(b"second")
                break
            except trio.WouldBlock:  # a busy daemon has set flow control
                await trio.lowlevel.checkpoint()
        await group.send(b"third")
        assert await take_messages(group, 3) == [b"first", b"second", b"third"]


async def test_a_batch_crosses_into_c_in_bursts(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.send_batch([b"%d" % i for i in range(200)])
        await take_messages(group, 200)
    assert sum(endpoint.faults.multicasts) == 200
    assert max(endpoint.faults.multicasts) <= 64
    # Four, if the daemon takes them as fast as they come.
    assert len([sent for sent in endpoint.faults.multicasts if sent]) < 20


@pytest.mark.usefixtures("corosync")
async def test_send_and_wait_returns_our_message_when_it_is_delivered() -> None:
    async with triocoro.open_group("g") as group:
        await group.send(b"before")
        message = await group.send_and_wait(b"a", b"b")
        assert message == Message(group.address, b"ab")
        assert group.statistics().outstanding == 0
        assert await take_messages(group, 2) == [b"before", b"ab"]


@pytest.mark.usefixtures("corosync")
async def test_send_nowait_never_waits() -> None:
    async with triocoro.open_group("g") as group:
        sent = 0
        with pytest.raises(trio.WouldBlock):
            # Without a checkpoint nothing comes back, so the window must fill.
            for _ in range(100_000):
                group.send_nowait(b"x" * 1000)
                sent += 1
        assert 0 < sent < 100
        with pytest.raises(trio.WouldBlock):
            group.send_nowait(b"x" * 2_000_000)
        await group.send(b"y")
        assert len(await take_messages(group, sent + 1)) == sent + 1


@pytest.mark.usefixtures("corosync")
async def test_receive_batch_is_bounded() -> None:
    async with triocoro.open_group("g") as group:
        await group.send_batch([b"x"] * 9)
        await group.send_and_wait(b"x")
        assert len(await group.receive_batch(max_events=4)) == 4
        assert len(await group.receive_batch()) == 7
        with pytest.raises(ValueError, match="max_events"):
            await group.receive_batch(max_events=0)


@pytest.mark.usefixtures("corosync")
async def test_each_event_goes_to_one_of_several_receivers() -> None:
    seen: list[bytes] = []

    async def receive(group: Group) -> None:
        while len(seen) < 500:
            event = await group.receive()
            if isinstance(event, Message):
                seen.append(event.payload)
        nursery.cancel_scope.cancel()

    async with triocoro.open_group("g") as group:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receive, group)
            for i in range(500):
                await group.send(b"%d" % i)
        # Trio shuffles the receivers, so they note what they have taken in another order.
        assert sorted(seen, key=int) == [b"%d" % i for i in range(500)]


async def test_totem_changes_come_when_asked_for(corosync_cluster: Cluster) -> None:
    async with triocoro.open_group("g", totem_changes=True) as group:
        assert isinstance(await group.receive(), ConfigChange)
        initial = await group.receive()
        assert isinstance(initial, triocoro.TotemChange)
        assert initial.members == (1, 2, 3)
        await corosync_cluster[3].kill()
        change = await group.receive()
        assert isinstance(change, triocoro.TotemChange)
        assert change.members == (1, 2)
        assert change.ring_id.seq > initial.ring_id.seq


@pytest.mark.usefixtures("corosync")
async def test_a_sender_only_group_buffers_nothing() -> None:
    async with triocoro.open_group("g", receive=False, max_buffered_bytes=1) as group:
        for _ in range(20):
            await group.send_and_wait(b"x" * 1000)
        assert group.statistics().stream.buffered_events == 0
        assert group.view.members == (group.address,)
        with pytest.raises(RuntimeError, match="receive=False"):
            await group.receive()
        with pytest.raises(RuntimeError, match="receive=False"):
            await group.receive_batch()


@pytest.mark.usefixtures("corosync")
async def test_a_slow_consumer_gets_what_fitted_and_then_the_error() -> None:
    async with triocoro.open_group("g", max_buffered_bytes=10_000) as group:
        with pytest.raises(triocoro.SlowConsumerError, match="max_buffered_bytes=10000"):
            while True:
                await group.send_and_wait(b"x" * 1000)
        with pytest.raises(triocoro.SlowConsumerError):
            await group.send(b"y")
        fitted: list[triocoro.GroupEvent] = []
        with pytest.raises(triocoro.SlowConsumerError):
            while True:
                fitted.append(await group.receive())
        # The join, and as many messages (of 1000 bytes, and 256 for each event) as go into 10,000 bytes.
        assert isinstance(fitted[0], ConfigChange)
        assert len(fitted) == 1 + (10_000 - 256) // 1256


@pytest.mark.usefixtures("corosync")
async def test_a_slow_consumer_that_never_comes_back_hears_of_it_at_the_end() -> None:
    with pytest.raises(triocoro.SlowConsumerError, match="max_buffered_bytes=1"):
        async with triocoro.open_group("g", max_buffered_bytes=1) as group:
            await group.send(b"x")
            while not group._membership.connection.lifetime.lost:
                await trio.testing.wait_all_tasks_blocked(0.001)


@pytest.mark.usefixtures("corosync")
async def test_one_event_may_be_larger_than_the_bound() -> None:
    async with triocoro.open_group("g", max_buffered_bytes=1000) as group:
        await group.receive()
        await group.send(b"x" * 100_000)
        assert await take_messages(group, 1) == [b"x" * 100_000]


# -- losses: the daemon accepts a message and drops it -----------------------------------------------------------------


async def test_a_lost_message_is_reported_before_the_next_own_one(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload.startswith(b"lost")
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.receive()
        await group.send_batch([b"a", b"lost 1", b"lost 2"])
        await group.send(b"b")
        await group.send(b"c")
        events = [await group.receive() for _ in range(5)]
        assert events == [
            Message(group.address, b"a"),
            MessageLost(b"lost 1"),
            MessageLost(b"lost 2"),
            Message(group.address, b"b"),
            Message(group.address, b"c"),
        ]
        assert group.statistics().lost == 2
        assert group.statistics().outstanding == 0


async def test_send_and_wait_tells_of_a_loss(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload == b"lost"
    caught: list[triocoro.MessageLostError] = []

    async def send_and_wait(group: Group) -> None:
        try:
            await group.send_and_wait(b"lost")
        except triocoro.MessageLostError as exc:
            caught.append(exc)

    async with triocoro.open_group("g", endpoint=endpoint) as group, trio.open_nursery() as nursery:
        nursery.start_soon(send_and_wait, group)
        while not group.statistics().sent:
            await trio.testing.wait_all_tasks_blocked()
        await group.send(b"next")
    assert [exc.payloads for exc in caught] == [(b"lost",)]
    assert "send it again" in str(caught[0])


async def test_the_end_of_the_block_tells_of_losses_that_nothing_followed(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload.startswith(b"lost")
    with pytest.raises(triocoro.MessageLostError) as caught:
        async with triocoro.open_group("g", endpoint=endpoint) as group:
            await group.send(b"lost 1")
            await group.send(b"lost 2")
    assert caught.value.payloads == (b"lost 1", b"lost 2")


async def test_the_end_of_the_block_tells_of_losses_that_were_not_received(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload.startswith(b"lost")
    with pytest.raises(triocoro.MessageLostError) as caught:
        async with triocoro.open_group("g", endpoint=endpoint) as group:
            await group.send_batch([b"lost 1", b"lost 2", b"lost 3"])
            await group.send_and_wait(b"next")
            assert isinstance(await group.receive(), ConfigChange)
            assert await group.receive() == MessageLost(b"lost 1")
    assert caught.value.payloads == (b"lost 2", b"lost 3")


async def test_a_window_whose_messages_were_all_lost_opens_again(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload.startswith(b"lost")
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.receive()
        lost = 0
        with pytest.raises(trio.WouldBlock):
            for _ in range(1000):
                group.send_nowait(b"lost" + bytes(10_000))
                lost += 1
        await group.send(b"next")
        events = [await group.receive() for _ in range(lost + 1)]
        assert events == [*[MessageLost(b"lost" + bytes(10_000))] * lost, Message(group.address, b"next")]


async def test_a_cancelled_send_is_not_mistaken_for_the_same_message_sent_again(corosync: Node) -> None:
    payload = os.urandom(3_000_000)
    async with triocoro.open_group("g") as group:
        await corosync.freeze()
        async with trio.open_nursery() as nursery:
            # While this holds the lane, the message waits, and is cancelled before any of it was sent.
            nursery.start_soon(group._membership.connection.requests.run, group._membership._raw.local_nodeid)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.move_on_after(0.05):
                await group.send(payload)
            await corosync.thaw()
        assert (await group.send_and_wait(payload)).payload == payload
        await group.send_and_wait(b"next")
        assert group.statistics().lost == group.statistics().outstanding == 0


async def test_an_interrupted_send_says_so_and_leaves_nothing_outstanding(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.fragmented.append(InterruptError("cpg_mcast_joined: CS_ERR_INTERRUPT", function="cpg_mcast_joined"))
    payload = os.urandom(3_000_000)
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        with pytest.raises(triocoro.InterruptedSendError, match="send it again"):
            await group.send(payload)
        assert group.statistics().outstanding == group.statistics().sent == 0
        await group.send(payload)
        assert await take_messages(group, 1) == [payload]


@pytest.mark.parametrize("status", [MulticastStatus.TRY_AGAIN, MulticastStatus.FULL])
async def test_flow_control_is_waited_out(corosync: Node, status: MulticastStatus) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        endpoint.faults.refuse.extend([status] * 3)
        with pytest.raises(trio.WouldBlock):
            group.send_nowait(b"x")
        assert (await group.send_and_wait(b"y")).payload == b"y"
        assert not endpoint.faults.refuse


# -- the end -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("corosync")
async def test_an_exception_of_the_block_comes_out_as_itself() -> None:
    class MineError(Exception):
        pass

    with pytest.raises(MineError) as caught:
        async with triocoro.open_group("outer"), triocoro.open_votequorum(), triocoro.open_cpg():
            raise MineError
    assert caught.value.__cause__ is None
    async with triocoro.open_cpg() as cpg:
        assert await cpg.groups() == ()


async def test_a_group_can_be_opened_again_at_once(corosync: Node) -> None:
    for _ in range(5):
        async with triocoro.open_group("g"):
            pass
        with trio.CancelScope() as scope:
            async with triocoro.open_group("g"):
                scope.cancel()
                await trio.sleep_forever()
    async with triocoro.open_group("g") as group:
        assert group.view.members == (Address(corosync.nodeid, os.getpid()),)


async def test_a_group_that_is_still_being_closed_is_waited_for(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    held = endpoint.faults.held = []
    with trio.CancelScope() as scope:
        async with triocoro.open_group("g", endpoint=endpoint):
            scope.cancel()
            await trio.sleep_forever()

    async def open_again() -> None:
        async with triocoro.open_group("g", endpoint=endpoint) as group:
            await group.send_and_wait(b"x")
            opened.append(group.view.members)

    opened: list[tuple[Address, ...]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_again)
        await endpoint.faults.refused.wait()
        endpoint.faults.held = None
        for close in held:
            close()
    assert opened == [(Address(corosync.nodeid, os.getpid()),)]


async def test_a_group_that_is_closed_while_its_refusal_is_on_its_way(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    held = endpoint.faults.held = []

    def closing() -> list[_membership._Entry]:
        ours = [each for each in _membership._memberships if each.key[0] == endpoint.identity]
        return [each for each in ours if each.lifetime.ended and not each.closed]

    async def close_now() -> None:
        endpoint.faults.held = None
        while held:
            held.pop()()
        while closing():  # noqa: ASYNC110 - a raw handle has no event for its end
            await trio.sleep(0.001)

    endpoint.faults.on_refused = close_now
    with trio.CancelScope() as scope:
        async with triocoro.open_group("g", endpoint=endpoint):
            scope.cancel()
            await trio.sleep_forever()
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        assert group.view.members == (group.address,)


async def cancelled_group(endpoint: Endpoint) -> None:
    """Open a group and cancel the block: it leaves in the background."""
    with trio.CancelScope() as scope:
        async with triocoro.open_group("g", endpoint=endpoint):
            scope.cancel()
            await trio.sleep_forever()


async def refused_at_once(endpoint: Endpoint) -> None:
    """A second membership of one process is refused, and not retried until an earlier one elsewhere has ended."""
    async with triocoro.open_group("g", endpoint=endpoint):
        with trio.fail_after(20), pytest.raises(triocoro.ExistError, match="is a member of group b'g'"):
            async with triocoro.open_group("g", endpoint=endpoint):
                pass


async def test_a_membership_that_ends_in_one_cluster_delays_no_refusal_in_another(
    corosync: Node, make_corosync_cluster: Callable[..., Cluster]
) -> None:
    """Both daemons are called node 1."""
    faulty = FaultyEndpoint(corosync.endpoint)
    held = faulty.faults.held = []
    await cancelled_group(faulty)
    await refused_at_once(make_corosync_cluster(nodes=1)[1].endpoint)
    for close in held:
        close()


@pytest.mark.corosync_fake_only(reason="a cluster in each run: the fake's")
def test_a_membership_of_an_earlier_run_delays_no_refusal() -> None:
    held: list[Callable[[], None]] = []

    async def earlier() -> None:
        async with FakeCluster(nodes=1) as cluster:
            faulty = FaultyEndpoint(cluster[1].endpoint)
            faulty.faults.held = held
            await cancelled_group(faulty)

    async def later() -> None:
        async with FakeCluster(nodes=1) as cluster:
            await refused_at_once(cluster[1].endpoint)
        for close in held:
            close()

    trio.run(earlier)
    trio.run(later)


@pytest.mark.corosync_real_only(reason="a fake does not outlive its run")
def test_a_membership_of_an_earlier_run_is_waited_for(corosync: Node) -> None:
    for _ in range(10):
        trio.run(cancelled_group, corosync.endpoint)


@pytest.mark.usefixtures("corosync")
async def test_groups_that_were_left_are_forgotten() -> None:
    for i in range(10):
        async with triocoro.open_group(f"g{i}"):
            pass
    assert len(_membership._memberships) <= 2


@pytest.mark.corosync(nodes=1)
@pytest.mark.parametrize("end", ["left", "lost"])
async def test_the_messages_of_a_group_that_has_ended_are_freed(
    corosync_cluster: Cluster, corosync: Node, end: str
) -> None:
    corosync_cluster.record(None)  # it would keep them
    payload = os.urandom(30)

    async def be_member() -> None:
        async with triocoro.open_group("g") as group:
            await group.send_and_wait(payload)  # it is not received: it waits in the buffer
            if end == "lost":
                await corosync.kill()
                await trio.sleep_forever()

    if end == "lost":
        with pytest.raises(triocoro.ConnectionLostError):
            await be_member()
    else:
        await be_member()
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is Message and found.payload == payload]


@pytest.mark.parametrize("how", ["end", "cancelled", "aclose", "raise"])
async def test_others_see_us_leave(corosync_cluster: Cluster, how: str) -> None:
    async with triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as other:
        address = other.address
        try:
            with trio.CancelScope() as scope:
                async with triocoro.open_group("g") as group:
                    address = group.address
                    if how == "cancelled":
                        scope.cancel()
                        await trio.sleep_forever()
                    elif how == "aclose":
                        await group.aclose()
                        with pytest.raises(trio.ClosedResourceError):
                            await group.receive()
                    elif how == "raise":
                        raise KeyError  # noqa: TRY301 - out of the block is where it is to go
        except KeyError:
            assert how == "raise"
        while not (change := await take_change(other)).left:
            pass
        assert change.left == (MemberChange(address, Reason.LEAVE),)
        assert change.members == (other.address,)


@pytest.mark.usefixtures("corosync")
async def test_a_cancelled_join_does_not_stay() -> None:
    for delay in range(12):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(checkpoints: int, scope: trio.CancelScope = scope) -> None:
                    for _ in range(checkpoints):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel, delay)
                async with triocoro.open_group("g"):
                    await trio.sleep_forever()
    async with triocoro.open_group("g") as group:
        assert group.view.members == (group.address,)


async def test_the_default_endpoint(corosync_cluster: Cluster) -> None:
    async with triocoro.open_cpg() as cpg:
        assert await cpg.local_nodeid() == 1
    with corosync_cluster[2].as_default():
        async with triocoro.open_cpg() as cpg:
            assert await cpg.local_nodeid() == 2
        async with triocoro.open_cpg(endpoint=corosync_cluster[3].endpoint) as cpg:
            assert await cpg.local_nodeid() == 3
    async with triocoro.open_cpg() as cpg:
        assert await cpg.local_nodeid() == 1


async def test_a_node_stands_for_its_endpoint(corosync_cluster: Cluster) -> None:
    node = corosync_cluster[2]
    async with triocoro.open_group("g", endpoint=node) as group:
        assert group.address == Address(2, node.endpoint.pid)
    openers = (triocoro.open_cpg, triocoro.open_votequorum, triocoro.open_quorum, triocoro.open_cmap, triocoro.open_cfg)
    for opener in openers:
        async with opener(endpoint=node) as connection:
            assert node.endpoint.label in repr(connection)
    async for session in triocoro.sessions("g", endpoint=node):
        async with session as group:
            assert group.address.nodeid == 2
        break
    for initialize in (lowlevel.cpg_initialize, lowlevel.cfg_initialize):
        handle = await initialize(endpoint=node)
        assert await handle.local_get() == 2
        await handle.finalize()
    for other in (lowlevel.votequorum_initialize, lowlevel.quorum_initialize, lowlevel.cmap_initialize):
        await (await other(endpoint=node)).finalize()
    with process_default_endpoint(node):
        async with triocoro.open_cpg() as cpg:
            assert await cpg.local_nodeid() == 2


async def test_questions_about_groups(corosync_cluster: Cluster) -> None:
    async with triocoro.open_cpg() as cpg:
        assert cpg.max_atomic_message_size == 1_047_552
        assert await cpg.members("a") == ()
        async with (
            triocoro.open_group("a") as a1,
            triocoro.open_group("a", endpoint=corosync_cluster[3].endpoint) as a3,
            triocoro.open_group("b") as b1,
        ):
            assert await cpg.members("a") == (a1.address, a3.address)
            members = await cpg.groups()
            assert {(member.group, member.address) for member in members} == {
                (b"a", a1.address),
                (b"a", a3.address),
                (b"b", b1.address),
            }
