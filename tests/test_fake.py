"""The in-memory cluster at the raw seam: what is its own doing, and what it must copy from Corosync to the letter."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

import pytest
import trio
import trio.testing
from conftest import Figure

import triocoro
from triocoro._errors import (
    BusyError,
    CsError,
    ExistError,
    InterruptError,
    InvalidParamError,
    LibraryError,
    NameNotFoundError,
    NotExistError,
)
from triocoro._raw import Endpoint, MulticastStatus, RawCpg, RawHandle, RawVotequorum
from triocoro._types import (
    Address,
    ConfigChange,
    ExpectedVotesChange,
    FlowControlState,
    GroupMember,
    IterationType,
    MemberChange,
    Message,
    NodeState,
    Reason,
    RingId,
    TotemChange,
    Track,
    VotequorumChange,
    VotequorumEvent,
    VotequorumFlag,
    VotequorumNode,
    VotequorumNodelist,
)
from triocoro.testing import ClusterSettings, FakeCluster
from triocoro.testing._fake.libvotequorum import VotequorumHandle

pytestmark = pytest.mark.corosync_fake_only(reason="it makes its own fakes, and looks into them")

EventT = TypeVar("EventT")

EVERYTHING = 2**30
START_BOUND = 0.01
"""Seconds of the CPU, which has a quarter of that to do when nobody else is in its caches."""


@pytest.fixture
async def cluster() -> AsyncGenerator[FakeCluster, None]:
    async with FakeCluster(nodes=3) as cluster:
        yield cluster


async def joined(endpoint: Endpoint, group: bytes = b"g") -> RawCpg:
    handle = await endpoint.connect_cpg()
    await handle.join(group)
    return handle


def drain(handle: RawHandle[EventT]) -> list[EventT]:
    drained: list[EventT] = []
    while True:
        count, events = handle.dispatch(EVERYTHING, EVERYTHING)
        if not count:
            return drained
        drained += events


def payloads(handle: RawCpg) -> list[bytes]:
    return [event.payload for event in drain(handle) if isinstance(event, Message)]


def close(*handles: RawCpg | RawVotequorum) -> None:
    for handle in handles:
        handle.close()


def closed(handle: RawCpg | RawVotequorum) -> bool:
    # mypy believes that a property which was False once stays so.
    return handle.closed


def poll(handle: RawCpg) -> int:
    poller = select.poll()
    poller.register(handle.fileno(), select.POLLIN | select.POLLOUT)
    return sum(events for _, events in poller.poll(0))


def waiting(handle: RawCpg) -> int:
    return int(struct.unpack("i", fcntl.ioctl(handle.fileno(), termios.FIONREAD, b"\0" * 4))[0])


def multicast_all(handle: RawCpg, messages: Sequence[bytes]) -> None:
    sent = 0
    while sent < len(messages):
        count, status = handle.multicast(messages[sent:])
        assert status is MulticastStatus.SENT
        sent += count


def changes(pairs: Sequence[tuple[Address, Reason]]) -> tuple[MemberChange, ...]:
    return tuple(MemberChange(address, reason) for address, reason in pairs)


# The fd.


async def test_fd_counts_events(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    assert poll(handle) == select.POLLOUT
    await handle.join(b"g")
    handle.multicast([b"a", b"b"])
    assert poll(handle) == select.POLLIN | select.POLLOUT
    assert waiting(handle) == 3
    assert handle.dispatch(2, EVERYTHING)[0] == 2
    assert waiting(handle) == 1
    assert payloads(handle) == [b"b"]
    assert poll(handle) == select.POLLOUT
    close(handle)


async def test_dispatch_bounds(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    drain(handle)
    handle.multicast([b"x" * 10] * 5)
    assert handle.dispatch(0, EVERYTHING) == (0, [])
    assert handle.dispatch(EVERYTHING, 0)[0] == 1
    assert handle.dispatch(EVERYTHING, 10)[0] == 2
    assert handle.dispatch(EVERYTHING, 15)[0] == 2
    assert handle.dispatch(EVERYTHING, 15)[0] == 0
    close(handle)


async def test_slow_reader_loses_nothing(cluster: FakeCluster) -> None:
    sender = await joined(cluster[1].endpoint)
    reader = await joined(cluster[2].endpoint)
    messages = [str(number).encode() for number in range(2000)]
    for start in range(0, len(messages), 50):
        multicast_all(sender, messages[start : start + 50])
        drain(sender)
    # One byte for each event, as far as the socket holds them.
    assert 0 < waiting(reader) < 2000
    received: list[bytes] = []
    while poll(reader) & select.POLLIN:
        received += [event.payload for event in reader.dispatch(7, EVERYTHING)[1] if isinstance(event, Message)]
    assert received == messages
    close(sender, reader)


async def test_ring_of_events_is_finite(cluster: FakeCluster) -> None:
    sender = await joined(cluster[1].endpoint)
    reader = await joined(cluster[2].endpoint)
    drain(reader)
    messages = [bytes([number]) * 400_000 for number in range(5)]
    multicast_all(sender, messages)
    assert waiting(reader) == 2
    await cluster[2].freeze()
    # A frozen daemon does not fill it again.
    assert payloads(reader) == messages[:2]
    await cluster[2].thaw()
    assert payloads(reader) == messages[2:]
    close(sender, reader)


async def test_dead_daemon(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    await cluster[1].kill()
    assert not cluster[1].running
    assert poll(handle) == select.POLLIN | select.POLLOUT | select.POLLHUP
    # The join's configuration change was waiting, and is lost.
    with pytest.raises(LibraryError):
        handle.dispatch(1, EVERYTHING)
    with pytest.raises(LibraryError):
        handle.multicast([b"x"])
    with pytest.raises(LibraryError):
        await handle.local_nodeid()
    with pytest.raises(LibraryError):
        await cluster[1].endpoint.connect_cpg()
    await cluster[1].start()
    with pytest.raises(LibraryError):
        handle.dispatch(1, EVERYTHING)
    close(handle)
    assert closed(handle)
    again = await joined(cluster[1].endpoint)
    assert len(drain(again)) == 1
    close(again)


# A frozen daemon.


async def test_multicast_fills_the_socket(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    drain(handle)
    await cluster[1].freeze()
    sent = 0
    while True:
        count, status = handle.multicast([b"%d" % (sent + index) for index in range(10)])
        sent += count
        if status is not MulticastStatus.SENT:
            break
    assert status is MulticastStatus.FULL
    assert 64 <= sent < 278
    assert not poll(handle) & select.POLLOUT
    assert drain(handle) == []
    await cluster[1].thaw()
    assert poll(handle) & select.POLLOUT
    assert payloads(handle) == [b"%d" % number for number in range(sent)]
    close(handle)


async def test_multicast_fills_the_request_ring(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    drain(handle)
    await cluster[1].freeze()
    large = bytes(400_000)
    assert handle.multicast([large] * 4) == (2, MulticastStatus.TRY_AGAIN)
    assert handle.multicast([b"small"]) == (1, MulticastStatus.SENT)
    await cluster[1].thaw()
    assert payloads(handle) == [large, large, b"small"]
    assert handle.multicast([large] * 4) == (4, MulticastStatus.SENT)
    close(handle)


async def test_round_trip_waits_for_thaw(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    await cluster[1].freeze()
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await handle.local_nodeid())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert handle.lane.borrowed_tokens == 1
        with pytest.raises(RuntimeError):
            handle.multicast([b"x"])
        assert answers == []
        await cluster[1].thaw()
    assert answers == [1, 1]
    assert handle.lane.borrowed_tokens == 0
    close(handle)


async def test_cancelled_round_trip_keeps_the_lane(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    await cluster[1].freeze()
    with trio.move_on_after(0.01) as scope:
        await handle.local_nodeid()
    assert scope.cancelled_caught
    assert handle.lane.borrowed_tokens == 1
    await cluster[1].thaw()
    assert handle.lane.borrowed_tokens == 0
    close(handle)


async def test_cancelled_join_is_undone(cluster: FakeCluster) -> None:
    watcher = await joined(cluster[1].client())
    handle = await cluster[1].endpoint.connect_cpg()
    await cluster[1].freeze()
    drain(watcher)
    with trio.move_on_after(0.01):
        await handle.join(b"g")
    assert drain(watcher) == []
    await cluster[1].thaw()
    events = [event for event in drain(watcher) if isinstance(event, ConfigChange)]
    address = Address(1, cluster[1].endpoint.pid)
    mine = [change for event in events for change in event.joined + event.left if change.address == address]
    assert mine == list(changes([(address, Reason.JOIN), (address, Reason.LEAVE)]))
    assert handle.lane.borrowed_tokens == 0
    close(handle, watcher)


async def test_join_cancelled_in_the_moment_of_the_thaw_is_undone(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    await cluster[1].freeze()
    scope = trio.CancelScope()

    async def join() -> None:
        with scope:
            await handle.join(b"g")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join)
        await trio.testing.wait_all_tasks_blocked()
        # First the cancellation, which the task sees only when it runs next; by then the join has succeeded.
        scope.cancel()
        with trio.CancelScope(shield=True):
            await cluster[1].thaw()
    assert await handle.membership(b"g") == ()
    close(handle)


@pytest.mark.parametrize("service", ["cpg", "votequorum"])
async def test_connect_waits_for_thaw(cluster: FakeCluster, service: str) -> None:
    endpoint = cluster[1].endpoint
    connect: Callable[[], Awaitable[RawCpg | RawVotequorum]]
    connect = endpoint.connect_cpg if service == "cpg" else endpoint.connect_votequorum
    await cluster[1].freeze()
    with trio.move_on_after(0.01) as scope:
        await connect()
    assert scope.cancelled_caught
    handles: list[RawCpg | RawVotequorum] = []

    async def keep() -> None:
        handles.append(await connect())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        await trio.testing.wait_all_tasks_blocked()
        assert not handles
        await cluster[1].thaw()
    close(*handles)
    # What the cancelled connect yielded was closed as well.
    daemon = cluster[1].daemon
    assert daemon is not None
    assert daemon.connections == []


async def test_connect_fails_when_the_frozen_daemon_is_killed(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    await cluster[1].freeze()

    async def fail(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(LibraryError):
            await call()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, cluster[1].endpoint.connect_cpg)
        nursery.start_soon(fail, handle.local_nodeid)
        nursery.start_soon(fail, handle.local_nodeid)
        await trio.testing.wait_all_tasks_blocked()
        await cluster[1].kill()
    close(handle)
    assert closed(handle)


@pytest.mark.parametrize("leave, reason", [(True, Reason.LEAVE), (False, Reason.PROCDOWN)])
async def test_close_waits_for_thaw(cluster: FakeCluster, leave: bool, reason: Reason) -> None:  # noqa: FBT001
    watcher = await joined(cluster[1].client())
    handle = await joined(cluster[1].endpoint)
    await cluster[1].freeze()
    drain(watcher)
    handle.close(leave=leave)
    handle.close()
    assert not closed(handle)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.wait_closed)
        await trio.testing.wait_all_tasks_blocked()
        await cluster[1].thaw()
    assert closed(handle)
    address = Address(1, cluster[1].endpoint.pid)
    lefts = [event.left for event in drain(watcher) if isinstance(event, ConfigChange) and event.left]
    assert lefts == [changes([(address, reason)])]
    close(watcher)


async def test_close_comes_after_the_round_trip_under_way(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    await cluster[1].freeze()
    with trio.move_on_after(0.01):
        await handle.multicast_fragmented(bytes(3_000_000))
    handle.close()
    await cluster[1].thaw()
    assert closed(handle)


async def test_close_of_votequorum_asks_nobody(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_votequorum()
    busy = await cluster[1].endpoint.connect_votequorum()
    await busy.trackstart(Track.CHANGES)
    await cluster[1].freeze()
    handle.close()
    assert closed(handle)
    with trio.move_on_after(0.01):
        await busy.info(0)
    busy.close()
    assert not closed(busy)
    await cluster[1].thaw()
    assert closed(busy)
    await busy.wait_closed()
    daemon = cluster[1].daemon
    assert daemon is not None
    assert daemon.connections == []


async def test_close_in_the_middle_of_a_round_trip(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    await cluster[1].freeze()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.local_nodeid)
        await trio.testing.wait_all_tasks_blocked()
        handle.close()
        await cluster[1].thaw()
    assert closed(handle)


# Membership.


async def test_partition_and_heal(cluster: FakeCluster) -> None:
    handles = {nodeid: await joined(cluster[nodeid].endpoint) for nodeid in (1, 2, 3)}
    idle = await cluster[1].endpoint.connect_cpg()
    for handle in handles.values():
        drain(handle)
    pid = cluster[1].endpoint.pid
    one, two, three = (Address(nodeid, pid) for nodeid in (1, 2, 3))

    await cluster.partition({1}, {2, 3})
    assert drain(handles[1]) == [
        ConfigChange((one,), (), changes([(two, Reason.NODEDOWN), (three, Reason.NODEDOWN)])),
        TotemChange(RingId(1, 13), (1,)),
    ]
    assert drain(handles[2]) == [
        ConfigChange((two, three), (), changes([(one, Reason.NODEDOWN)])),
        TotemChange(RingId(2, 13), (2, 3)),
    ]
    # Every connection to the service hears of the ring.
    assert drain(idle) == [TotemChange(RingId(1, 13), (1,))]

    await cluster.heal()
    merged = TotemChange(RingId(1, 17), (1, 2, 3))
    first, second = drain(handles[1])
    assert isinstance(first, ConfigChange)
    assert first.members == (one, two, three)
    assert set(first.joined) == set(changes([(two, Reason.NODEUP), (three, Reason.NODEUP)]))
    assert second == merged
    assert drain(handles[3])[-2:] == [ConfigChange((one, two, three), changes([(one, Reason.NODEUP)]), ()), merged]
    await cluster.heal()
    assert drain(handles[1]) == []
    close(idle, *handles.values())


async def test_regrouping_changes_a_ring_in_one_step(cluster: FakeCluster) -> None:
    handles = {nodeid: await joined(cluster[nodeid].endpoint) for nodeid in (1, 2, 3)}
    await cluster.partition({1}, {2, 3})
    for handle in handles.values():
        drain(handle)
    await cluster.partition({1, 2}, {3})
    assert cluster.reachable(1) == {1, 2}
    events = drain(handles[2])
    assert [type(event) for event in events] == [ConfigChange, ConfigChange, TotemChange]
    assert await handles[2].membership(b"g") == await handles[1].membership(b"g")
    close(*handles.values())


async def test_killed_and_stopped_nodes(cluster: FakeCluster) -> None:
    watcher = await joined(cluster[1].endpoint)
    others = [await joined(cluster[nodeid].endpoint) for nodeid in (2, 3)]
    drain(watcher)
    pid = cluster[1].endpoint.pid
    one, two, three = (Address(nodeid, pid) for nodeid in (1, 2, 3))
    await cluster[2].kill()
    await cluster[2].kill()
    assert drain(watcher) == [
        ConfigChange((one, three), (), changes([(two, Reason.NODEDOWN)])),
        TotemChange(RingId(1, 13), (1, 3)),
    ]
    # One that stops parts from its clients first, so that it is they who go, and then an empty node.
    await cluster[3].stop()
    await cluster[3].stop()
    assert drain(watcher) == [
        ConfigChange((one,), (), changes([(three, Reason.PROCDOWN)])),
        TotemChange(RingId(1, 17), (1,)),
    ]
    # A start takes one seq on top, as totem's does, and a ring of its own before it meets the others.
    await cluster[2].start()
    await cluster[2].start()
    assert drain(watcher) == [TotemChange(RingId(1, 21), (1, 2))]
    assert cluster.reachable(2) == {1, 2}
    assert cluster.reachable(3) == frozenset()
    assert "A new membership (1.15) was formed. Members joined: 2\n" in cluster[1].log
    close(watcher, *others)


async def test_frozen_node_returns(cluster: FakeCluster) -> None:
    handles = {nodeid: await joined(cluster[nodeid].endpoint) for nodeid in (1, 2, 3)}
    for handle in handles.values():
        drain(handle)
    pid = cluster[1].endpoint.pid
    one, two, three = (Address(nodeid, pid) for nodeid in (1, 2, 3))
    await cluster[1].freeze()
    await cluster[1].freeze()
    assert cluster[1].running
    assert cluster[1].frozen
    assert cluster.reachable(1) == frozenset()
    assert cluster.reachable(2) == {2, 3}
    handles[1].multicast([b"stale"])
    assert [type(event) for event in drain(handles[2])] == [ConfigChange, TotemChange]
    await cluster[1].thaw()
    await cluster[1].thaw()
    # What had waited it tells itself alone, in the old view; then the old view ends and the new one begins.
    events = drain(handles[1])
    assert events[0] == Message(one, b"stale")
    assert events[1] == ConfigChange((one,), (), changes([(two, Reason.NODEDOWN), (three, Reason.NODEDOWN)]))
    assert isinstance(events[2], ConfigChange)
    assert events[2].members == (one, two, three)
    assert events[3:] == [TotemChange(RingId(1, 17), (1, 2, 3))]
    assert drain(handles[2]) == [
        ConfigChange((one, two, three), changes([(one, Reason.NODEUP)]), ()),
        TotemChange(RingId(1, 17), (1, 2, 3)),
    ]
    close(*handles.values())


async def test_member_that_left_while_frozen(cluster: FakeCluster) -> None:
    watcher = await joined(cluster[1].endpoint)
    gone = await joined(cluster[2].endpoint)
    stays = await joined(cluster[2].client())
    drain(watcher)
    await cluster[1].freeze()
    gone.close(leave=True)
    await cluster[1].thaw()
    last = [event for event in drain(watcher) if isinstance(event, ConfigChange)][-1]
    assert [address.pid for address in last.members if address.nodeid == 2] == [cluster[1].endpoint.pid + 1]
    close(watcher, stays)


async def test_member_that_joined_while_frozen(cluster: FakeCluster) -> None:
    """It joins in the old ring, in which nobody else is by then, and comes to the others with its node."""
    watcher = await joined(cluster[1].endpoint)
    newcomer = await cluster[2].endpoint.connect_cpg()
    drain(watcher)
    await cluster[2].freeze()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(newcomer.join, b"g")
        await trio.testing.wait_all_tasks_blocked()
        await cluster[2].thaw()
    changes_seen = [event for event in drain(watcher) if isinstance(event, ConfigChange)]
    one, two = (Address(nodeid, cluster[1].endpoint.pid) for nodeid in (1, 2))
    assert changes_seen == [ConfigChange((one, two), changes([(two, Reason.NODEUP)]), ())]
    close(watcher, newcomer)


async def test_all_nodes_frozen_one_after_the_other(cluster: FakeCluster) -> None:
    handles = {nodeid: await joined(cluster[nodeid].endpoint) for nodeid in (1, 2, 3)}
    for nodeid in (1, 2, 3):
        await cluster[nodeid].freeze()
    for nodeid in (1, 2, 3):
        await cluster[nodeid].thaw()
    views = {nodeid: await handle.membership(b"g") for nodeid, handle in handles.items()}
    assert views[1] == views[2] == views[3]
    assert len(views[1]) == 3
    close(*handles.values())


async def test_freeze_of_a_single_node_is_but_a_delay() -> None:
    async with FakeCluster(nodes=1) as cluster:
        handle = await joined(cluster[1].endpoint)
        drain(handle)
        await cluster[1].freeze()
        handle.multicast([b"a"])
        await cluster[1].thaw()
        assert drain(handle) == [Message(Address(1, cluster[1].endpoint.pid), b"a")]
        close(handle)


async def test_what_waits_in_a_frozen_daemon_comes_after_the_thaw() -> None:
    # Of several nodes there would be a new ring then, and the news of that would bring the rest along.
    async with FakeCluster(nodes=1) as cluster:
        handle = await joined(cluster[1].endpoint)
        drain(handle)
        messages = [bytes([number]) * 400_000 for number in range(5)]
        multicast_all(handle, messages)
        await cluster[1].freeze()
        assert payloads(handle) == messages[:2]
        await cluster[1].thaw()
        assert payloads(handle) == messages[2:]
        close(handle)


async def test_stop_thaws(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    await cluster[1].freeze()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.local_nodeid)
        await trio.testing.wait_all_tasks_blocked()
        await cluster[1].stop()
    assert not cluster[1].running
    close(handle)


async def test_bad_partitions(cluster: FakeCluster) -> None:
    for sides in [(), ({1}, {1}), ({4},)]:
        with pytest.raises(ValueError, match="disjoint"):
            await cluster.partition(*sides)
    await cluster.partition({1}, {2})
    assert cluster.reachable(3) == {1, 3}


# Groups.


async def test_first_view_with_initial_totem_change(cluster: FakeCluster) -> None:
    handle = await cluster[2].endpoint.connect_cpg(initial_totem_conf=True)
    assert drain(handle) == []
    await handle.join(b"g")
    me = Address(2, cluster[2].endpoint.pid)
    assert drain(handle) == [
        ConfigChange((me,), changes([(me, Reason.JOIN)]), ()),
        TotemChange(RingId(1, 9), (1, 2, 3)),
    ]
    assert handle.flow_control_state is FlowControlState.DISABLED
    assert handle.max_atomic_message_size == 1_047_552
    assert await handle.local_nodeid() == 2
    close(handle)


async def test_agreed_order(cluster: FakeCluster) -> None:
    handles = [await joined(cluster[nodeid].endpoint) for nodeid in (1, 2, 3)]
    for number in range(10):
        handles[number % 3].multicast([b"%d" % number])
    assert [payloads(handle) for handle in handles] == [[b"%d" % number for number in range(10)]] * 3
    close(*handles)


async def test_handles_are_single_use(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    with pytest.raises(ExistError):
        await handle.join(b"g")
    with pytest.raises(ExistError):
        await handle.join(b"other")
    second = await cluster[1].endpoint.connect_cpg()
    with pytest.raises(ExistError):
        await second.join(b"g")
    with pytest.raises(NotExistError):
        await second.leave(b"g")
    await handle.leave(b"g")
    with pytest.raises(NotExistError):
        await handle.leave(b"g")
    with pytest.raises(ExistError):
        await handle.join(b"g")
    with pytest.raises(BusyError):  # where the C library would ask for ever
        await handle.join(b"other")
    with pytest.raises(ExistError):
        await second.join(b"g")
    close(handle)
    await second.join(b"g")
    close(second)


async def test_left_handle_still_hears_its_group(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    other = await joined(cluster[2].endpoint)
    await handle.leave(b"g")
    drain(handle)
    handle.multicast([b"dropped"])
    other.multicast([b"heard"])
    assert payloads(handle) == [b"heard"]
    assert payloads(other) == [b"heard"]
    close(handle, other)


async def test_multicast_without_a_group_is_dropped(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    assert handle.multicast([b"x"]) == (1, MulticastStatus.SENT)
    assert handle.multicast([]) == (0, MulticastStatus.SENT)
    assert drain(handle) == []
    with pytest.raises(NotExistError):
        await handle.multicast_fragmented(bytes(2_000_000))
    with pytest.raises(ValueError, match="multicast_fragmented"):
        handle.multicast([bytes(2_000_000)])
    assert "can't mcast" in cluster[1].log
    close(handle)


async def test_burst(cluster: FakeCluster) -> None:
    handle = await joined(cluster[1].endpoint)
    assert handle.multicast([b"x"] * 100) == (64, MulticastStatus.SENT)
    close(handle)


async def test_fragments(cluster: FakeCluster) -> None:
    sender = await joined(cluster[1].endpoint)
    receiver = await joined(cluster[2].endpoint)
    drain(receiver)
    payload = bytes(range(256)) * 10_000
    await sender.multicast_fragmented(payload)
    # The ring of events holds one of them at a time.
    assert receiver.dispatch(2, EVERYTHING) == (1, [])
    assert receiver.dispatch(2, EVERYTHING) == (1, [])
    assert receiver.dispatch(2, EVERYTHING) == (1, [Message(Address(1, cluster[1].endpoint.pid), payload)])
    close(sender, receiver)


async def test_configuration_change_interrupts_fragments(cluster: FakeCluster) -> None:
    sender = await joined(cluster[1].endpoint)
    joiner = await cluster[1].client().connect_cpg()
    await cluster[1].freeze()

    async def send() -> None:
        with pytest.raises(InterruptError):
            await sender.multicast_fragmented(bytes(2_000_000))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(joiner.join, b"g")
        await trio.testing.wait_all_tasks_blocked()
        await cluster[1].thaw()
    # What was begun is dropped when the next message comes, or its sender goes.
    await sender.multicast_fragmented(bytes(2_000_000))
    assert payloads(sender) == [bytes(2_000_000)]
    drain(joiner)
    close(sender)
    assert len(drain(joiner)) == 1
    close(joiner)


async def test_late_joiner_ignores_the_rest_of_a_message(cluster: FakeCluster) -> None:
    sender = await joined(cluster[1].endpoint)
    receiver = await joined(cluster[2].endpoint)
    drain(receiver)
    await cluster[2].freeze()
    await sender.multicast_fragmented(bytes(2_000_000))
    await cluster[2].thaw()
    assert payloads(receiver) == []
    close(sender, receiver)


async def test_iteration(cluster: FakeCluster) -> None:
    endpoint = cluster[1].endpoint
    a1 = await joined(endpoint, b"a")
    a2 = await joined(cluster[2].endpoint, b"a")
    a3 = await joined(cluster[3].endpoint, b"a")
    b1 = await joined(endpoint, b"b")
    pid = endpoint.pid
    one, two, three = (Address(nodeid, pid) for nodeid in (1, 2, 3))
    # In Corosync's order: the latest group first, and behind the first member of each the latest first.
    assert await b1.iterate(IterationType.ALL, None) == (
        GroupMember(b"b", one),
        GroupMember(b"a", one),
        GroupMember(b"a", three),
        GroupMember(b"a", two),
    )
    assert await b1.iterate(IterationType.NAME_ONLY, None) == (GroupMember(b"b", None), GroupMember(b"a", None))
    assert await b1.iterate(IterationType.ONE_GROUP, b"b") == (GroupMember(b"b", one),)
    assert await b1.iterate(IterationType.ONE_GROUP, b"c") == ()
    with pytest.raises(InvalidParamError):
        await b1.iterate(IterationType.ONE_GROUP, None)
    assert await b1.membership(b"a") == (one, two, three)
    assert await b1.membership(b"c") == ()
    close(a1, a2, a3, b1)


async def test_names_that_differ_behind_a_nul_share_one_change(cluster: FakeCluster) -> None:
    handles = [await joined(cluster[nodeid].client(), name) for nodeid in (1, 2) for name in (b"foo", b"foo\0")]
    for handle in handles:
        drain(handle)
    await cluster[2].kill()
    left = [[type(event) for event in drain(handle)] for handle in handles[:2]]
    assert sorted(left, key=len) == [[TotemChange], [ConfigChange, TotemChange]]
    close(*handles)


# Votes.


def nodes(*states: tuple[int, NodeState]) -> tuple[VotequorumNode, ...]:
    return tuple(VotequorumNode(nodeid, state) for nodeid, state in states)


async def test_tracking(cluster: FakeCluster) -> None:
    vq = await cluster[1].endpoint.connect_votequorum()
    with pytest.raises(NotExistError):
        await vq.trackstop()
    await vq.trackstart(Track.CHANGES)
    member, dead = NodeState.MEMBER, NodeState.DEAD
    # Corosync's order: each node that is new and above all others comes before the last one.
    start: list[VotequorumEvent] = [
        VotequorumNodelist(RingId(1, 9), (1, 2, 3)),
        VotequorumChange(quorate=True, nodes=nodes((2, member), (3, member), (1, member))),
    ]
    assert drain(vq) == start
    with pytest.raises(ExistError):
        await vq.trackstart(Track.CURRENT)
    assert drain(vq) == start
    await cluster.partition({1}, {2, 3})
    assert drain(vq) == [
        VotequorumNodelist(RingId(1, 13), (1,)),
        VotequorumChange(quorate=False, nodes=nodes((2, dead), (3, dead), (1, member))),
    ]
    await vq.trackstop()
    await cluster.heal()
    assert drain(vq) == []
    await vq.trackstart(Track.CHANGES_ONLY)
    assert drain(vq) == []
    await cluster[3].stop()
    assert drain(vq) == [
        VotequorumNodelist(RingId(1, 21), (1, 2)),
        VotequorumChange(quorate=True, nodes=nodes((2, member), (3, dead), (1, member))),
    ]
    close(vq)


async def test_info(cluster: FakeCluster) -> None:
    vq = await cluster[1].endpoint.connect_votequorum()
    own = await vq.info(0)
    assert own == await vq.info(1)
    assert (own.nodeid, own.state, own.votes, own.expected_votes) == (1, NodeState.MEMBER, 1, 3)
    assert (own.total_votes, own.highest_expected, own.quorum) == (3, 3, 2)
    assert own.flags == VotequorumFlag.QUORATE
    with pytest.raises(NotExistError):
        await vq.info(4)
    await cluster[2].kill()
    other = await vq.info(2)
    assert (other.state, other.total_votes, other.quorate) == (NodeState.DEAD, 2, True)
    close(vq)


async def test_node_that_was_never_seen() -> None:
    with FakeCluster(nodes=2) as cluster:
        await cluster.partition({1}, {2})
        await cluster[2].kill()
        await cluster[2].start()
        vq = await cluster[2].endpoint.connect_votequorum()
        with pytest.raises(NotExistError):
            await vq.info(1)
        close(vq)


async def test_set_expected(cluster: FakeCluster) -> None:
    vq = await cluster[1].endpoint.connect_votequorum()
    other = await cluster[2].endpoint.connect_votequorum()
    await other.trackstart(Track.CHANGES_ONLY)
    for refused in (0, 2, 6):
        with pytest.raises(InvalidParamError):
            await vq.set_expected(refused)
    await vq.set_expected(5)
    assert drain(other) == [ExpectedVotesChange(5)]
    info = await other.info(3)
    assert (info.expected_votes, info.quorum) == (5, 3)
    # Quorum does not come down by itself when nodes go; it does when the administrator says so.
    await cluster[3].kill()
    drain(other)
    assert (await other.info(0)).quorum == 3
    assert not (await other.info(0)).quorate
    await vq.set_expected(2)
    changes_seen = drain(other)
    assert changes_seen[0] == ExpectedVotesChange(2)
    assert [type(change) for change in changes_seen[1:]] == [VotequorumChange]
    assert (await other.info(0)).quorate
    close(vq, other)


async def test_set_votes(cluster: FakeCluster) -> None:
    vq = await cluster[1].endpoint.connect_votequorum()
    await vq.trackstart(Track.CHANGES_ONLY)
    with pytest.raises(NameNotFoundError) as caught:
        await vq.set_votes(7, 1)
    assert caught.value.code is CsError.NAME_NOT_FOUND
    await vq.set_votes(2, 3)
    assert drain(vq) == [ExpectedVotesChange(5)]
    info = await vq.info(2)
    assert (info.votes, info.total_votes, info.quorum) == (3, 5, 3)
    await cluster[2].kill()
    with pytest.raises(InvalidParamError):
        await vq.set_votes(1, 0)
    assert (await vq.info(1)).votes == 1
    close(vq)


async def test_set_votes_of_the_quorum_device() -> None:
    async with FakeCluster(nodes=1) as cluster:
        vq = await cluster[1].endpoint.connect_votequorum()
        await vq.set_votes(0, 2)
        info = await vq.info(0)
        assert (info.qdevice_votes, info.expected_votes, info.total_votes) == (2, 3, 1)
        close(vq)


async def test_wait_for_all() -> None:
    cluster = FakeCluster(nodes=3, wait_for_all=True)
    async with cluster:
        vq = await cluster[1].endpoint.connect_votequorum()
        info = await vq.info(0)
        assert info.quorate
        assert VotequorumFlag.WAIT_FOR_ALL in info.flags
        # All were seen once: from now on the majority does.
        await cluster[3].kill()
        assert (await vq.info(0)).quorate
        close(vq)
        for nodeid in (1, 2):
            await cluster[nodeid].kill()
        # After a full stop, the majority does not.
        for nodeid in (1, 2):
            await cluster[nodeid].start()
        vq = await cluster[1].endpoint.connect_votequorum()
        assert not (await vq.info(0)).quorate
        assert "Waiting for all cluster members. Current votes: 2 expected_votes: 3" in cluster[1].log
        await cluster[3].start()
        assert (await vq.info(0)).quorate
        close(vq)


async def test_restarted_node_learns_that_all_were_seen() -> None:
    async with FakeCluster(nodes=3, wait_for_all=True) as cluster:
        await cluster[3].kill()
        await cluster[2].kill()
        await cluster[2].start()
        vq = await cluster[2].endpoint.connect_votequorum()
        # Neither has it: the survivor lost quorum, and waits for all again.
        assert not (await vq.info(0)).quorate
        await cluster[3].start()
        assert (await vq.info(0)).quorate
        await cluster[2].kill()
        await cluster[2].start()
        close(vq)
        vq = await cluster[2].endpoint.connect_votequorum()
        await cluster[3].kill()
        assert (await vq.info(0)).quorate
        close(vq)


async def test_two_node() -> None:
    async with FakeCluster(nodes=2, two_node=True) as cluster:
        vq = await cluster[1].endpoint.connect_votequorum()
        assert (await vq.info(0)).flags == (
            VotequorumFlag.TWONODE | VotequorumFlag.QUORATE | VotequorumFlag.WAIT_FOR_ALL
        )
        assert (await vq.info(0)).quorum == 1
        await cluster.partition({1}, {2})
        assert (await vq.info(0)).quorate
        close(vq)


async def test_nodes_of_a_ring_agree_on_its_id(cluster: FakeCluster) -> None:
    await cluster[1].kill()
    cpg = await joined(cluster[2].endpoint)
    vqs = [await cluster[nodeid].endpoint.connect_votequorum() for nodeid in (2, 3)]
    for vq in vqs:
        await vq.trackstart(Track.CHANGES_ONLY)
    drain(cpg)
    await cluster[1].start()
    (change,) = drain(cpg)
    assert isinstance(change, TotemChange)
    for vq in vqs:
        nodelist = drain(vq)[0]
        assert isinstance(nodelist, VotequorumNodelist)
        assert nodelist.ring_id == change.ring_id
    close(cpg, *vqs)


# The cluster itself.


async def test_three_nodes_are_quorate_at_once(figure: Figure) -> None:
    times: list[float] = []
    for _ in range(5):  # one of them may meet a loaded machine
        start = time.process_time()
        async with FakeCluster(nodes=3) as cluster:
            await cluster.settled()
            times.append(time.process_time() - start)
            for node in cluster.nodes.values():
                async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
                    info = await votequorum.info()
                    assert (info.quorate, info.total_votes) == (True, 3)
    figure("three fake nodes, from nothing to quorate", ", ".join(f"{each * 1000:.2f} ms" for each in times))
    assert min(times) < START_BOUND


def test_entered_outside_of_a_run() -> None:
    with FakeCluster(nodes=2) as cluster:

        async def main() -> int:
            handle = await joined(cluster[1].endpoint)
            await cluster[2].freeze()
            await cluster[2].thaw()
            count = len(drain(handle))
            close(handle)
            return count

        assert trio.run(main) == 3
        assert trio.run(main) == 3
        assert repr(cluster) == "<FakeCluster, 2 nodes>"
        assert repr(cluster[1].endpoint) == f"<FakeEndpoint node 1 (fake) pid {cluster[1].endpoint.pid}>"
        assert cluster.nodes.keys() == {1, 2}
        assert cluster[1].pid is None
    assert not cluster[1].running
    with pytest.raises(RuntimeError), cluster:
        pass


async def test_nothing_starts_outside_of_the_block() -> None:
    cluster = FakeCluster(nodes=1)
    with pytest.raises(RuntimeError, match="does not run"):
        await cluster[1].start()
    async with cluster:
        await cluster[1].kill()
        await cluster[1].start()
    with pytest.raises(RuntimeError, match="does not run"):
        await cluster[1].start()
    assert not cluster[1].running


_WINDOW: ClusterSettings = {"last_man_standing": True, "wait_for_all": True, "last_man_standing_window": 600_000}


async def test_the_window_of_last_man_standing(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    settings: ClusterSettings = {**_WINDOW, "last_man_standing_window": 2000}
    async with FakeCluster(nodes=4, **settings) as cluster:
        handle = await cluster[1].endpoint.connect_votequorum()
        await cluster[4].kill()
        await trio.sleep(1.9)
        assert (await handle.info(1)).expected_votes == 4
        await trio.sleep(0.2)
        assert (await handle.info(1)).expected_votes == 3
        close(handle)


@pytest.mark.parametrize("verb", ["kill", "stop"])
async def test_timers_end_with_their_daemon(verb: str, autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    def tasks() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    async with FakeCluster(nodes=4, **_WINDOW) as cluster:
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        await cluster[4].kill()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before + 3
        await getattr(cluster[3], verb)()
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before + 2
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before


def test_timers_end_with_their_run() -> None:
    with FakeCluster(nodes=4, **_WINDOW) as cluster:
        for nodeid in (3, 4):
            trio.run(cluster[nodeid].kill)
    assert not cluster[1].running


def test_handle_outlives_the_cluster() -> None:
    async def main() -> None:
        with FakeCluster(nodes=1) as cluster:
            handle = await joined(cluster[1].endpoint)
            await cluster[1].freeze()
            with trio.move_on_after(0.01):
                await handle.local_nodeid()
            handle.close()
        assert closed(handle)

    trio.run(main)


def test_virtual_time_is_exact() -> None:
    async def main() -> None:
        async with FakeCluster(nodes=3) as cluster:
            handle = await joined(cluster[1].endpoint)
            begin = trio.current_time()
            await cluster.partition({1}, {2, 3})
            await cluster.heal()
            await handle.membership(b"g")
            assert trio.current_time() == begin
            await cluster[1].freeze()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle.local_nodeid)
                await trio.sleep(3600)
                await cluster[1].thaw()
            assert trio.current_time() == begin + 3600
            drain(handle)
            with trio.move_on_after(60):
                await trio.lowlevel.wait_readable(handle.fileno())
            assert trio.current_time() == begin + 3660
            close(handle)

    trio.run(main, clock=trio.testing.MockClock(rate=0, autojump_threshold=0))


async def test_many_nodes() -> None:
    async with FakeCluster(nodes=30) as cluster:
        vq = await cluster[30].endpoint.connect_votequorum()
        info = await vq.info(0)
        assert (info.total_votes, info.quorum) == (30, 16)
        await cluster.settled()
        close(vq)


async def test_calls_are_checkpoints(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    calls: list[Callable[[], Awaitable[object]]] = [
        handle.local_nodeid,
        lambda: handle.join(b"g"),
        cluster[1].endpoint.connect_votequorum,
        cluster.heal,
        lambda: cluster.partition({1}),
        cluster[2].freeze,
        cluster[2].thaw,
        cluster[2].stop,
        cluster[2].start,
        cluster[2].kill,
    ]
    for call in calls:
        with trio.testing.assert_checkpoints():
            result = await call()
        if isinstance(result, VotequorumHandle):
            result.close()
    close(handle)
    with trio.testing.assert_checkpoints():
        await handle.wait_closed()


async def test_cancelled_calls_have_no_effect(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect_cpg()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: handle.join(b"g"),
        cluster[1].endpoint.connect_cpg,
        lambda: cluster.partition({1}, {2, 3}),
        cluster[1].kill,
        cluster[1].stop,
        cluster[1].freeze,
    ]
    for call in calls:
        with trio.CancelScope() as scope:
            scope.cancel()
            await call()
        assert scope.cancelled_caught
    assert await handle.membership(b"g") == ()
    assert cluster.reachable(1) == {1, 2, 3}
    assert cluster[1].daemon is not None
    assert len(cluster[1].daemon.connections) == 1
    close(handle)
