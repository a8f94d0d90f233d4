"""Messages that the daemon accepts and drops: each is reported, though nothing of ours follows."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Sequence

import pytest
import trio
import trio.testing
from support.proxy import FaultyEndpoint

import triocoro
from triocoro import (
    Address,
    CorosyncUnavailableError,
    Group,
    GroupEvent,
    Message,
    MessageLost,
    MessageLostError,
    NoResourcesError,
    TryAgainError,
    _settling,
)
from triocoro._connection import open_connection
from triocoro._member import _join_and_leave
from triocoro._outstanding import Outstanding, OwnMessage
from triocoro._services import CPG
from triocoro._settling import Settling
from triocoro._types import CpgEvent
from triocoro.testing import Cluster, FakeCluster, Node

pytestmark = pytest.mark.deadline(20)

OURS = Address(1, 1)


@pytest.fixture(autouse=True)
def a_short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_settling, "STALL", 0.05)


@pytest.fixture
def endpoint(corosync: Node) -> FaultyEndpoint:
    """An endpoint that drops messages that begin with `lost`."""
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload.startswith(b"lost")
    return endpoint


def dropping(place: int) -> Callable[[bytes], bool]:
    """Drop the message at one place, counted from 0 among those that are sent one by one."""
    places = itertools.count()
    return lambda _: next(places) == place


async def take_until_lost(group: Group) -> list[GroupEvent]:
    """Receive until a loss is reported."""
    events: list[GroupEvent] = []
    while not events or not isinstance(events[-1], MessageLost):
        events.append(await group.receive())
    return events


# -- nothing follows ---------------------------------------------------------------------------------------------------


async def test_a_caller_hears_of_a_loss_that_nothing_follows(endpoint: FaultyEndpoint) -> None:
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.send(b"before")
        with pytest.raises(MessageLostError) as caught:
            await group.send_and_wait(b"lost")
        assert caught.value.payloads == (b"lost",)
        await group.send(b"after")
        events = [await group.receive() for _ in range(4)]
        ours = [Message(group.address, b"before"), MessageLost(b"lost"), Message(group.address, b"after")]
        assert events == [group.view, *ours]
        assert group.statistics().lost == 1


async def test_a_receiver_hears_of_a_loss_that_nothing_follows(endpoint: FaultyEndpoint) -> None:
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.send_batch([b"lost 1", b"lost 2"])
        assert await take_until_lost(group) == [group.view, MessageLost(b"lost 1")]
        assert await group.receive() == MessageLost(b"lost 2")
        assert group.statistics().outstanding == 0


async def test_a_loss_in_a_batch_of_deliveries(endpoint: FaultyEndpoint) -> None:
    """Deliveries of many messages at once are looked at together, unless one of them is missing."""
    payloads = [b"a", b"b", b"c", b"lost", b"d", b"e", b"f", b"g"]
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.send_batch(payloads)
        events = [await group.receive() for _ in range(9)]
        assert events[1:] == [
            MessageLost(payload) if payload == b"lost" else Message(group.address, payload) for payload in payloads
        ]
        assert group.statistics().outstanding == 0


@pytest.mark.corosync_fake_only(reason="a test is one process, so real nodes have one member of it each")
async def test_an_equal_message_of_another_process_of_the_node_is_not_ours() -> None:
    async with FakeCluster(nodes=1) as cluster:
        ours = FaultyEndpoint(cluster[1].endpoint)
        ours.faults.drop = lambda payload: payload == b"lost"
        async with (
            triocoro.open_group("g", endpoint=ours) as group,
            triocoro.open_group("g", endpoint=cluster[1].client()) as other,
        ):
            await group.send(b"lost")
            await other.send_and_wait(b"lost")
            events = await take_until_lost(group)
            assert [event for event in events if isinstance(event, Message)] == [Message(other.address, b"lost")]


async def test_other_members_see_nothing_of_it(endpoint: FaultyEndpoint, corosync: Node) -> None:
    async with triocoro.open_cpg(endpoint=corosync.endpoint) as cpg:
        async with triocoro.open_group("g", endpoint=endpoint) as group:
            with pytest.raises(MessageLostError):
                await group.send_and_wait(b"lost")
            assert await cpg.members("g") == (group.address,)
            assert {member.group for member in await cpg.groups()} == {b"g"}
            await group.send_and_wait(b"after")
            events = [await group.receive() for _ in range(3)]
        assert events == [group.view, MessageLost(b"lost"), Message(group.address, b"after")]


async def test_a_window_full_of_losses_opens(endpoint: FaultyEndpoint) -> None:
    async with triocoro.open_group("g", receive=False, endpoint=endpoint) as group:
        with pytest.raises(trio.WouldBlock):
            while True:  # noqa: ASYNC913 - it ends at the full window
                group.send_nowait(b"lost" + bytes(10_000))
        await group.send(b"next" + bytes(10_000))
        assert group.statistics().lost == group.statistics().sent - 1
        group._membership._untold.clear()


async def test_a_large_message_waits_until_those_before_it_are_settled(endpoint: FaultyEndpoint) -> None:
    payload = bytes(3_000_000)
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.send(b"lost")
        await group.send(payload)
        assert await take_until_lost(group) == [group.view, MessageLost(b"lost")]
        assert await group.receive() == Message(group.address, payload)


# -- no caller waits any more ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("receive", [True, False])
async def test_the_end_of_the_block_tells_of_a_loss_whose_caller_was_cancelled(
    endpoint: FaultyEndpoint,
    receive: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    with pytest.raises(MessageLostError) as caught:
        async with triocoro.open_group("g", receive=receive, endpoint=endpoint) as group:
            with trio.move_on_after(0.01):
                await group.send_and_wait(b"lost")
    assert caught.value.payloads == (b"lost",)


async def test_a_sender_that_receives_nothing_hears_of_a_loss_at_the_end(endpoint: FaultyEndpoint) -> None:
    with pytest.raises(MessageLostError) as caught:
        async with triocoro.open_group("g", receive=False, endpoint=endpoint) as group:
            await group.send(b"lost")
            while not group.statistics().lost:
                await trio.testing.wait_all_tasks_blocked(0.001)
    assert caught.value.payloads == (b"lost",)


async def test_a_loss_whose_caller_was_cancelled_is_received(endpoint: FaultyEndpoint) -> None:
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        with trio.move_on_after(0.01):
            await group.send_and_wait(b"lost")
        assert await take_until_lost(group) == [group.view, MessageLost(b"lost")]


async def test_a_loss_that_a_caller_was_told_of_is_not_told_again(endpoint: FaultyEndpoint) -> None:
    async with triocoro.open_group("g", receive=False, endpoint=endpoint) as group:
        with pytest.raises(MessageLostError):
            await group.send_and_wait(b"lost")


# -- equal payloads ----------------------------------------------------------------------------------------------------


async def test_of_two_callers_with_equal_payloads_one_is_told(endpoint: FaultyEndpoint) -> None:
    endpoint.faults.drop = dropping(0)
    answers: list[Message | None] = []

    async def ask() -> None:
        try:
            answers.append(await group.send_and_wait(b"equal"))
        except MessageLostError:
            answers.append(None)

    async with triocoro.open_group("g", endpoint=endpoint) as group, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
    assert answers == [Message(group.address, b"equal"), None]


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_caller_has_the_delivery_of_an_equal_message_that_no_caller_waits_for(
    endpoint: FaultyEndpoint, lost: int
) -> None:
    """It cannot be told which of the two was dropped; the program is told of one, once."""
    endpoint.faults.drop = dropping(lost)
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        group.send_nowait(b"equal")
        message = Message(group.address, b"equal")
        assert await group.send_and_wait(b"equal") == message
        assert await take_until_lost(group) == [group.view, message, MessageLost(b"equal")]
        assert group.statistics().confirmed == group.statistics().lost == 1


async def test_a_caller_behind_a_batch_has_one_of_its_deliveries(endpoint: FaultyEndpoint) -> None:
    endpoint.faults.drop = dropping(8)
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        for _ in range(8):
            group.send_nowait(b"equal")
        message = Message(group.address, b"equal")
        assert await group.send_and_wait(b"equal") == message
        assert await take_until_lost(group) == [group.view, *[message] * 8, MessageLost(b"equal")]


async def test_a_delivery_that_came_before_a_message_was_sent_does_not_count_for_it(endpoint: FaultyEndpoint) -> None:
    endpoint.faults.drop = dropping(2)
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        await group.send(b"equal")
        await group.send_and_wait(b"between")
        with pytest.raises(MessageLostError):
            await group.send_and_wait(b"equal")


class Sent:
    """Messages that are outstanding, each by its number."""

    def __init__(self, *payloads: bytes) -> None:
        self.outstanding = Outstanding(OURS)
        self.messages = [OwnMessage(payload, caller=trio.lowlevel.ParkingLot()) for payload in payloads]
        for own in self.messages:
            self.outstanding.add_one(own, len(own.payload))

    def deliver(self, payload: bytes) -> list[OwnMessage]:
        return self.outstanding.on_self_delivery(Message(OURS, payload))


async def test_a_second_attempt_has_the_delivery_that_the_first_one_did_not_wait_for() -> None:
    sent = Sent(b"equal", b"equal")
    first, second = sent.messages
    sent.outstanding.give_up(first)
    assert sent.deliver(b"equal") == []
    lost = sent.outstanding.lose_all()
    assert second.delivery == Message(OURS, b"equal")
    assert [(own.payload, own.caller) for own in lost] == [(b"equal", None)]
    await trio.lowlevel.checkpoint()


async def test_each_delivery_goes_to_one_caller() -> None:
    sent = Sent(b"equal", b"equal", b"equal")
    first, second, third = sent.messages
    sent.outstanding.give_up(first)
    assert sent.deliver(b"equal") == []
    assert len(sent.outstanding.lose_all()) == 2
    assert second.delivery == Message(OURS, b"equal")
    assert third.settled
    assert third.delivery is None
    await trio.lowlevel.checkpoint()


async def test_a_message_that_is_being_sent_in_fragments_is_not_taken_for_lost() -> None:
    sent = Sent(b"small")
    large = OwnMessage(b"large", certain=False)
    sent.outstanding.add_one(large, 5)
    mark = sent.outstanding.mark()
    assert sent.outstanding.lose_until(mark) == sent.messages
    assert not large.settled
    sent.outstanding.abandon(large)
    assert sent.outstanding.lose_until(sent.outstanding.mark()) == []
    assert large.settled
    await trio.lowlevel.checkpoint()


async def test_a_failed_fragmented_send_shifts_no_mark() -> None:
    sent = Sent(b"small")
    large = OwnMessage(b"large", certain=False)
    sent.outstanding.add_one(large, 5)
    mark = sent.outstanding.mark()
    sent.outstanding.forget(large)
    later = OwnMessage(b"later")
    sent.outstanding.add_one(later, 5)
    sent.outstanding.lose_until(mark)
    assert not later.settled
    await trio.lowlevel.checkpoint()


# -- the settling ------------------------------------------------------------------------------------------------------


@pytest.mark.corosync_fake_only(reason="a real daemon on a busy machine may stall")
@pytest.mark.usefixtures("autojump_clock")
async def test_traffic_that_comes_back_is_not_looked_into(endpoint: FaultyEndpoint) -> None:
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        for number in range(100):
            await group.send_and_wait(b"%d" % number)
            await trio.sleep(0.01)
        assert endpoint.faults.connected == 1


@pytest.mark.parametrize(
    "failure",
    [
        NoResourcesError("no thread can be started", function="cpg_initialize"),
        OSError(errno.EMFILE, "Too many open files"),
        CorosyncUnavailableError("no Corosync daemon answers there", function="cpg_initialize"),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_it_is_tried_again_if_it_cannot_be_done(endpoint: FaultyEndpoint, failure: Exception) -> None:
    async with triocoro.open_group("g", endpoint=endpoint) as group:
        endpoint.faults.connects.extend([failure] * 2)
        with pytest.raises(MessageLostError):
            await group.send_and_wait(b"lost")
        assert not endpoint.faults.connects


async def test_the_block_ends_although_the_daemon_refuses_for_ever(endpoint: FaultyEndpoint) -> None:
    refused = trio.Event()

    def refuse() -> TryAgainError:
        refused.set()
        return TryAgainError("cpg_join: CS_ERR_TRY_AGAIN", function="cpg_join")

    with pytest.raises(MessageLostError):
        async with triocoro.open_group("g", endpoint=endpoint) as group:
            endpoint.faults.joins = refuse
            await group.send(b"lost")
            await refused.wait()


async def test_a_daemon_that_is_frozen_loses_nothing(corosync: Node) -> None:
    async with triocoro.open_group("g", endpoint=corosync.endpoint) as group:
        await corosync.freeze()
        await group.send(b"x")
        while not group._membership._raw.lane.borrowed_tokens:  # noqa: ASYNC110 - until the round trip is under way
            await trio.sleep(0.01)
        await corosync.thaw()
        assert await group.receive() == group.view
        assert await group.receive() == Message(group.address, b"x")
        await group.send_and_wait(b"y")
        assert group.statistics().lost == 0


@pytest.mark.corosync(nodes=2)
async def test_messages_that_wait_for_a_new_ring_are_not_lost(corosync_cluster: Cluster) -> None:
    """Nothing comes back until the peer is given up, which takes longer than a stall."""
    payloads = [b"%d" % number + bytes(1000) for number in range(30)]
    async with triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint) as group:
        await corosync_cluster.partition({1}, {2})
        await group.send_batch(payloads)
        assert (await group.send_and_wait(b"last")).payload == b"last"
        events: list[GroupEvent] = []
        while not events or events[-1] != Message(group.address, b"last"):
            events += await group.receive_batch()
        assert events == [group.view, *[Message(group.address, each) for each in [*payloads, b"last"]]]
        assert group.statistics().lost == 0


@pytest.mark.corosync(nodes=2)
async def test_a_loss_is_found_while_others_flood_the_group(corosync_cluster: Cluster) -> None:
    endpoint = FaultyEndpoint(corosync_cluster[1].endpoint)
    endpoint.faults.drop = lambda payload: payload == b"lost"

    async def flood() -> None:
        async with triocoro.open_group("g", receive=False, endpoint=corosync_cluster[2].endpoint) as other:
            while True:
                await other.send_batch([bytes(1000)] * 20)

    async with triocoro.open_group("g", receive=False, endpoint=endpoint) as group, trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        with pytest.raises(MessageLostError):
            await group.send_and_wait(b"lost")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [100, 600_000], ids=str)
async def test_catching_up_covers_what_waits_in_the_daemon(corosync: Node, size: int) -> None:
    """More than the event ring holds has been delivered to a handle that has not dispatched yet."""
    count = 12 if size > 1000 else 8000
    raw, connection = await open_connection(CPG, corosync.endpoint)
    address = Address(corosync.nodeid, corosync.endpoint.pid)
    await connection.requests.run(lambda: raw.join(b"g"))
    settling = Settling(connection, raw, Outstanding(address), order=trio.lowlevel.checkpoint, report=lambda _: None)
    handled: list[CpgEvent] = []

    def handle(events: Sequence[CpgEvent]) -> None:
        handled.extend(events)
        settling.count(events)

    sent = 0
    while sent < count:
        sent += raw.multicast([bytes(size)] * min(5, count - sent))[0]
        # The daemon drops nothing if it is given little at once.
        await settling._round_trip()
    await _join_and_leave(address, corosync.endpoint)
    async with connection.serving(handle):
        await settling._catch_up()
        assert sum(isinstance(event, Message) for event in handled) == count
