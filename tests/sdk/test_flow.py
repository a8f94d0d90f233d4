"""Flow control of our own making: the send window, and the back-pressure of our own stream."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.proxy import FaultyEndpoint

import triocoro
from triocoro import Message, MessageLost
from triocoro._raw import MulticastStatus
from triocoro._window import SendWindow
from triocoro.testing import Cluster, FakeCluster, Node

FIRST = 64 * 2**10
MOST = 512 * 2**10
LEAST = 8 * 2**10
MESSAGE = 1024


async def fill_and_deliver(window: SendWindow, clock: trio.testing.MockClock, delay: float) -> None:
    """One round: send until the window is full, and deliver all of it after `delay` seconds."""
    sent = 0
    while window.fits(MESSAGE):
        window.add(1, MESSAGE)
        sent += 1
    clock.jump(delay)
    window.remove(sent, sent * MESSAGE)
    await trio.lowlevel.checkpoint()


async def test_the_window_widens_while_messages_come_back_quickly(mock_clock: trio.testing.MockClock) -> None:
    window = SendWindow()
    sizes = [window.size]
    for _ in range(30):
        await fill_and_deliver(window, mock_clock, 0.003)
        sizes.append(window.size)
    assert sizes[0] == FIRST
    assert sizes == sorted(sizes)
    assert sizes[-1] == MOST


async def test_the_window_narrows_while_messages_come_back_slowly(mock_clock: trio.testing.MockClock) -> None:
    window = SendWindow()
    for _ in range(30):
        await fill_and_deliver(window, mock_clock, 0.003)
    assert window.size == MOST
    for _ in range(30):
        await fill_and_deliver(window, mock_clock, 0.005)
    assert window.size == FIRST


async def test_a_window_that_holds_up_no_sender_stays(mock_clock: trio.testing.MockClock) -> None:
    window = SendWindow()
    for _ in range(30):
        window.add(1, MESSAGE)
        mock_clock.jump(0.003)
        window.remove(1, MESSAGE)
    await trio.lowlevel.checkpoint()
    assert window.size == FIRST


async def test_after_a_pause_the_window_is_as_at_first(mock_clock: trio.testing.MockClock) -> None:
    window = SendWindow()
    for _ in range(30):
        await fill_and_deliver(window, mock_clock, 0.003)
    mock_clock.jump(0.01)
    window.add(1, MESSAGE)
    assert window.size == FIRST


async def test_each_loss_halves_the_window_down_to_its_least(mock_clock: trio.testing.MockClock) -> None:
    window = SendWindow()
    sizes: list[int] = []
    for _ in range(5):
        window.narrow()
        sizes.append(window.size)
    assert sizes == [FIRST // 2, FIRST // 4, LEAST, LEAST, LEAST]
    # It recovers, however slow the daemon is.
    for _ in range(30):
        await fill_and_deliver(window, mock_clock, 0.1)
    assert FIRST <= window.size < 2 * FIRST


async def test_one_message_fits_whatever_the_window_is() -> None:
    window = SendWindow()
    assert window.fits(10 * MOST)
    assert window.fitting([bytes(MOST), bytes(MOST)]) == 1
    window.add(1, MOST)
    assert not window.fits(1)
    assert window.fitting([b"x"]) == 0
    await trio.lowlevel.checkpoint()


async def test_losses_and_try_agains_narrow_the_window_of_a_group(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    async with triocoro.open_group("g", receive=False, endpoint=endpoint) as group:
        assert group.statistics().send_window == FIRST
        endpoint.faults.drop = lambda payload: payload == b"lost"
        await group.send_batch([b"lost", b"next"])
        await group.send_and_wait(b"last")
        assert group.statistics().lost == 1
        assert group.statistics().send_window == FIRST // 2
        endpoint.faults.refuse.append(MulticastStatus.TRY_AGAIN)
        await group.send(b"refused once")
        assert group.statistics().send_window == FIRST // 4
        await group.send_and_wait(b"end")
        group._membership._untold.clear()


@pytest.mark.deadline(120)
@pytest.mark.corosync_real_only(reason="it is about the queue of a real daemon")
@pytest.mark.parametrize(
    "senders, size", [(16, 100_000), (8, 60_000), (6, 500_000), (6, 900_000), (32, 10_000)], ids=str
)
async def test_loads_that_overrun_a_daemon_lose_nothing(corosync: Node, senders: int, size: int) -> None:
    count = 32_000_000 // size // senders
    confirmed: list[int] = []

    async def send(number: int, task_status: trio.TaskStatus[None]) -> None:
        async with triocoro.open_group(f"g{number}", receive=False, endpoint=corosync.endpoint) as group:
            task_status.started()
            await go.wait()
            await group.send_batch([bytes(size)] * count)
            await group.send_and_wait(b"last")
            assert group.statistics().lost == 0
            confirmed.append(group.statistics().confirmed)

    go = trio.Event()
    async with trio.open_nursery() as nursery:
        for number in range(senders):
            await nursery.start(send, number)
        go.set()
    assert confirmed == [count + 1] * senders


@pytest.mark.usefixtures("corosync")
async def test_a_flood_and_its_receiver_in_one_process_keep_up() -> None:
    batches, messages = 40, 100
    async with triocoro.open_group("g", max_buffered_bytes=100_000) as group, trio.open_nursery() as nursery:

        async def flood() -> None:
            for _ in range(batches):
                await group.send_batch([bytes(100)] * messages)

        nursery.start_soon(flood)
        received = 0
        async for event in group:
            received += isinstance(event, Message)
            if received == batches * messages:
                break
    assert received == batches * messages


@pytest.mark.corosync_fake_only(reason="it needs a daemon that takes its time")
async def test_flood_waits_for_what_receivers_do_not_have_yet(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001 - it is in force
) -> None:
    """Receivers without events are not the reason for a delay: then all that is under way would arrive at once."""
    async with (
        FakeCluster(nodes=1, latency=0.05) as cluster,
        triocoro.open_group("g", max_buffered_bytes=100_000, endpoint=cluster[1].endpoint) as group,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(group.send_batch, [bytes(100)] * 2000)
        received = 0
        while received < 2000:
            received += isinstance(await group.receive(), Message)


@pytest.mark.usefixtures("corosync")
async def test_a_task_that_sends_and_receives_in_turns_is_held_up_for_a_moment_only() -> None:
    async with triocoro.open_group("g", max_buffered_bytes=20_000) as group:
        for _ in range(2):
            for _ in range(15):
                await group.send(bytes(500))
            received = 0
            while received < 15:
                received += sum(isinstance(event, Message) for event in await group.receive_batch())


@pytest.mark.usefixtures("corosync")
async def test_send_nowait_refuses_while_the_stream_is_filling_up() -> None:
    async with triocoro.open_group("g", max_buffered_bytes=20_000) as group:
        await group.receive()
        with pytest.raises(trio.WouldBlock):
            while True:
                group.send_nowait(bytes(500))
                await trio.lowlevel.checkpoint()
        sent = group.statistics().sent
        received = 0
        while received < sent:
            received += len(await group.receive_batch())
        group.send_nowait(b"room again")


@pytest.mark.usefixtures("corosync")
async def test_a_flood_that_no_task_receives_ends_with_the_error() -> None:
    with pytest.raises(triocoro.SlowConsumerError):
        async with triocoro.open_group("g", max_buffered_bytes=100_000) as group:
            await group.receive()
            while True:
                await group.send_batch([bytes(100)] * 100)


@pytest.mark.corosync(nodes=2)
@pytest.mark.parametrize("lost", [0, 7, 19])
async def test_a_loss_within_a_batch_is_reported_in_its_place(corosync_cluster: Cluster, lost: int) -> None:
    endpoint = FaultyEndpoint(corosync_cluster[1].endpoint)
    endpoint.faults.drop = lambda payload: payload == b"%d" % lost
    async with (
        triocoro.open_group("g", endpoint=endpoint) as group,
        triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as other,
    ):
        await take_join_of(other, group)
        await group.send_batch([b"%d" % number for number in range(20)])
        await other.send_batch([b"of the other"] * 10)
        await group.send(b"last")
        events: list[triocoro.GroupEvent] = []
        while len(events) < 31:
            events += await group.receive_batch()
        ours = [event for event in events if event != Message(other.address, b"of the other")]
        expected: list[triocoro.GroupEvent] = [Message(group.address, b"%d" % number) for number in range(20)]
        expected[lost] = MessageLost(b"%d" % lost)
        assert ours == [*expected, Message(group.address, b"last")]
        assert group.statistics().lost == 1
        assert group.statistics().outstanding == 0


async def test_a_message_that_is_awaited_may_be_anywhere_in_a_batch(corosync: Node) -> None:
    async with triocoro.open_group("g", endpoint=corosync.endpoint) as group, trio.open_nursery() as nursery:
        await group.receive()
        answers: list[Message] = []

        async def ask(number: int) -> None:
            answers.append(await group.send_and_wait(b"awaited %d" % number))

        for number in range(5):
            group.send_nowait(b"plain")
            nursery.start_soon(ask, number)
        await group.send_batch([b"plain"] * 5)
        received = 0
        while received < 15:
            received += len(await group.receive_batch())
    assert sorted(answer.payload for answer in answers) == [b"awaited %d" % number for number in range(5)]
    assert received == 15


async def take_join_of(member: triocoro.Group, group: triocoro.Group) -> None:
    """Receive from `group` until `member` has joined."""
    while member.address not in group.view.members:
        await group.receive()
