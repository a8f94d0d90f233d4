"""The in-memory cluster through raw handles: behaviour of its own, and details that it copies from Corosync."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
import trio
import trio.testing
from support.fixtures.figures import Bound
from support.raw_handles import EVERYTHING, EventT, changes, closed, given_up, payloads

import triocoro
from triocoro._enums import Reason, Track
from triocoro._errors import (
    BusyError,
    InterruptError,
)
from triocoro._raw import RawCpg, RawHandle, RawVotequorum
from triocoro._services import CPG, VOTEQUORUM, Endpoint
from triocoro._types import Address, ConfigChange, RingId, TotemChange
from triocoro.testing import ClusterSettings, FakeCluster
from triocoro.testing._fake.lib.votequorum import FakeVotequorum

pytestmark = pytest.mark.corosync_fake_only(reason="it makes its own fakes, and looks into them")

START_BOUND = 0.01
"""Seconds of CPU time; an idle machine needs a quarter of that."""


@pytest.fixture
async def cluster() -> AsyncGenerator[FakeCluster, None]:
    async with FakeCluster(nodes=3) as cluster:
        yield cluster


async def member(endpoint: Endpoint, group: bytes = b"g") -> RawCpg:
    """Join a group, and leave the notification of the join undispatched."""
    handle = await endpoint.connect(CPG)
    await handle.join(group)
    return handle


def drain(handle: RawHandle[EventT]) -> list[EventT]:
    drained: list[EventT] = []
    while True:
        count, events = handle.dispatch(EVERYTHING, EVERYTHING)
        if not count:
            return drained
        drained += events


def close(*handles: RawCpg | RawVotequorum) -> None:
    for handle in handles:
        handle.close()


# A frozen daemon.


async def test_join_cancelled_in_the_moment_of_the_thaw_is_undone(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect(CPG)
    await cluster[1].freeze()
    scope = trio.CancelScope()

    async def join() -> None:
        with scope:
            await handle.join(b"g")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(join)
        await trio.testing.wait_all_tasks_blocked()
        # The task sees the cancellation only when it runs next; by then the join has succeeded.
        scope.cancel()
        with trio.CancelScope(shield=True):
            await cluster[1].thaw()
    assert await handle.membership(b"g") == ()
    close(handle)


@pytest.mark.parametrize("service", ["cpg", "votequorum"])
async def test_connect_waits_for_thaw(cluster: FakeCluster, service: str) -> None:
    endpoint = cluster[1].endpoint

    async def connect() -> RawCpg | RawVotequorum:
        return await (endpoint.connect(CPG) if service == "cpg" else endpoint.connect(VOTEQUORUM))

    await cluster[1].freeze()
    await given_up(connect)
    handles: list[RawCpg | RawVotequorum] = []

    async def keep() -> None:
        handles.append(await connect())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        await trio.testing.wait_all_tasks_blocked()
        assert not handles
        await cluster[1].thaw()
    close(*handles)
    # The connection of the cancelled connect was closed as well.
    daemon = cluster[1].daemon
    assert daemon is not None
    assert daemon.connections == []


@pytest.mark.parametrize("leave, reason", [(True, Reason.LEAVE), (False, Reason.PROCDOWN)])
async def test_close_waits_for_thaw(cluster: FakeCluster, leave: bool, reason: Reason) -> None:  # noqa: FBT001
    watcher = await member(cluster[1].client())
    handle = await member(cluster[1].endpoint)
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
    assert lefts == [changes(reason, address)]
    close(watcher)


async def test_closing_votequorum_needs_no_round_trip(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect(VOTEQUORUM)
    busy = await cluster[1].endpoint.connect(VOTEQUORUM)
    await busy.trackstart(Track.CHANGES)
    await cluster[1].freeze()
    handle.close()
    assert closed(handle)
    await given_up(lambda: busy.info(0))
    busy.close()
    assert not closed(busy)
    await cluster[1].thaw()
    assert closed(busy)
    await busy.wait_closed()
    daemon = cluster[1].daemon
    assert daemon is not None
    assert daemon.connections == []


# Membership.


async def test_regrouping_changes_a_ring_in_one_step(cluster: FakeCluster) -> None:
    handles = {nodeid: await member(cluster[nodeid].endpoint) for nodeid in (1, 2, 3)}
    await cluster.partition({1}, {2, 3})
    for handle in handles.values():
        drain(handle)
    await cluster.partition({1, 2}, {3})
    assert cluster.reachable(1) == {1, 2}
    events = drain(handles[2])
    assert [type(event) for event in events] == [ConfigChange, ConfigChange, TotemChange]
    assert await handles[2].membership(b"g") == await handles[1].membership(b"g")
    close(*handles.values())


async def test_a_frozen_node_that_is_stopped_tells_the_others_nothing(cluster: FakeCluster) -> None:
    """It runs its queued requests in its old ring, which all others have left."""
    watcher = await member(cluster[1].endpoint)
    newcomer = await cluster[2].endpoint.connect(CPG)
    await cluster[2].freeze()
    drain(watcher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(newcomer.join, b"g")
        await trio.testing.wait_all_tasks_blocked()
        await cluster[2].stop()
    assert drain(watcher) == []
    close(watcher, newcomer)


async def test_the_seq_of_a_ring(cluster: FakeCluster) -> None:
    """It is 4 above the highest of its members; a start adds 1. Real nodes may need several rings to come together."""
    handle = await member(cluster[1].endpoint)
    drain(handle)
    await cluster.partition({1}, {2, 3})
    await cluster.heal()
    await cluster[3].kill()
    await cluster[3].start()
    await cluster[2].kill()
    await cluster[2].kill()
    rings = [event.ring_id for event in drain(handle) if isinstance(event, TotemChange)]
    assert rings == [RingId(1, seq) for seq in (13, 17, 21, 26, 30)]
    assert "A new membership (1.1a) was formed. Members joined: 3\n" in cluster[1].log
    close(handle)


# Groups.


async def test_a_handle_that_has_left_joins_no_other_group(cluster: FakeCluster) -> None:
    """The fake raises an error; the C library would try again for ever."""
    handle = await member(cluster[1].endpoint)
    await handle.leave(b"g")
    with pytest.raises(BusyError):
        await handle.join(b"other")
    close(handle)


async def test_configuration_change_interrupts_fragments() -> None:
    # With several nodes, the new ring after the thaw would be another change.
    async with FakeCluster(nodes=1) as cluster:
        sender = await member(cluster[1].endpoint)
        joiner = await cluster[1].client().connect(CPG)
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
        # An incomplete message is dropped when the sender's next message comes, or the sender leaves.
        await sender.multicast_fragmented(bytes(2_000_000))
        assert payloads(drain(sender)) == [bytes(2_000_000)]
        drain(joiner)
        close(sender)
        assert len(drain(joiner)) == 1
        close(joiner)


# The cluster itself.


async def test_three_nodes_are_quorate_at_once(bound: Bound) -> None:
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
    bound("three fake nodes, from nothing to quorate: seconds of CPU", min(times), START_BOUND)


def test_entered_outside_of_a_run() -> None:
    with FakeCluster(nodes=2) as cluster:

        async def main() -> int:
            handle = await member(cluster[1].endpoint)
            await cluster[2].freeze()
            await cluster[2].thaw()
            count = len(drain(handle))
            close(handle)
            return count

        assert trio.run(main) == 3
        assert trio.run(main) == 3
        assert repr(cluster) == f"<FakeCluster {cluster.name!r}, 2 nodes>"
        assert repr(cluster[1].endpoint) == f"<FakeEndpoint node 1 of {cluster.name} pid {cluster[1].endpoint.pid}>"
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
        handle = await cluster[1].endpoint.connect(VOTEQUORUM)
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
        # One task waits for the timers of all three.
        assert tasks() == before + 1
        for nodeid, left in ((3, 1), (2, 1), (1, 0)):
            await getattr(cluster[nodeid], verb)()
            await trio.testing.wait_all_tasks_blocked()
            assert tasks() == before + left
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
            handle = await member(cluster[1].endpoint)
            await cluster[1].freeze()
            await given_up(handle.local_nodeid)
            handle.close()
        assert closed(handle)

    trio.run(main)


def test_virtual_time_is_exact() -> None:
    async def main() -> None:
        async with FakeCluster(nodes=3) as cluster:
            handle = await member(cluster[1].endpoint)
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
        vq = await cluster[30].endpoint.connect(VOTEQUORUM)
        info = await vq.info(0)
        assert (info.total_votes, info.quorum) == (30, 16)
        await cluster.settled()
        close(vq)


async def test_calls_are_checkpoints(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect(CPG)
    calls: list[Callable[[], Awaitable[object]]] = [
        handle.local_nodeid,
        lambda: handle.join(b"g"),
        lambda: cluster[1].endpoint.connect(VOTEQUORUM),
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
        if isinstance(result, FakeVotequorum):
            result.close()
    close(handle)
    with trio.testing.assert_checkpoints():
        await handle.wait_closed()


async def test_cancelled_calls_have_no_effect(cluster: FakeCluster) -> None:
    handle = await cluster[1].endpoint.connect(CPG)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: handle.join(b"g"),
        lambda: cluster[1].endpoint.connect(CPG),
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
