"""One cluster, and Trio runs in several threads: what blocking façades and servers do."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import trio
from support.refusals import ignore, still_works
from support.threads import reached, run_in_threads

import triocoro
from triocoro import ConnectionLostError, Group, Message, Reason, lowlevel
from triocoro.testing import Cluster, FakeCluster

pytestmark = pytest.mark.deadline(60)


async def joined_by(group: Group, count: int) -> None:
    """Receive until the group has so many members."""
    while len(group.view.members) < count:
        await group.receive()


@pytest.mark.parametrize("batches", [False, True], ids=["one by one", "in batches"])
@pytest.mark.parametrize("members", [2, 3])
def test_members_in_several_runs_receive_the_same_messages(
    corosync_cluster: Cluster, members: int, *, batches: bool
) -> None:
    count = 200
    all_in = threading.Barrier(members)
    received: dict[int, list[Message]] = {}

    async def member(nodeid: int) -> None:
        payloads = [b"%d %d" % (nodeid, number) for number in range(count)]
        async with triocoro.open_group("threads", endpoint=corosync_cluster[nodeid].endpoint) as group:
            await joined_by(group, members)
            await reached(all_in)
            messages = received[nodeid] = []

            async def send() -> None:
                if batches:
                    await group.send_batch(payloads)
                else:
                    for payload in payloads:
                        await group.send(payload)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while len(messages) < members * count:
                    event = await group.receive()
                    if isinstance(event, Message):
                        messages.append(event)
            await reached(all_in)

    run_in_threads(*(partial(member, nodeid) for nodeid in range(1, members + 1)))
    assert all(messages == received[1] for messages in received.values())
    assert len(received) == members


def test_a_daemon_that_is_killed_from_another_run(corosync_cluster: Cluster) -> None:
    both_in = threading.Barrier(3)

    async def victim() -> None:
        with pytest.raises(ConnectionLostError):
            async with triocoro.open_group("threads", endpoint=corosync_cluster[1].endpoint) as group:
                await joined_by(group, 2)
                await reached(both_in)
                async for _ in group:
                    pass

    async def witness() -> None:
        async with triocoro.open_group("threads", endpoint=corosync_cluster[2].endpoint) as group:
            await joined_by(group, 2)
            await reached(both_in)
            await joined_by_one(group)
            await still_works(group)

    async def joined_by_one(group: Group) -> None:
        while True:
            event = await group.receive()
            if isinstance(event, triocoro.ConfigChange) and event.left:
                assert [change.reason for change in event.left] == [Reason.NODEDOWN]
                return

    async def killer() -> None:
        await reached(both_in)
        await corosync_cluster[1].kill()

    run_in_threads(victim, witness, killer)


def test_a_key_that_another_run_changes(corosync_cluster: Cluster) -> None:
    endpoint = corosync_cluster[1].endpoint
    tracked, seen = threading.Event(), threading.Event()

    async def track() -> None:
        async with triocoro.open_cmap(endpoint=endpoint) as cmap, cmap.track("threads.key") as changes:
            tracked.set()
            for value in range(50):
                assert (await changes.receive()).new == value
            seen.set()

    async def change() -> None:
        await reached(tracked)
        async with triocoro.open_cmap(endpoint=endpoint) as cmap:
            for value in range(50):
                await cmap.set("threads.key", value)
            await reached(seen)

    run_in_threads(track, change)


def test_requests_that_another_run_lets_the_daemon_answer(corosync_cluster: Cluster) -> None:
    endpoint = corosync_cluster[1].endpoint
    opened, frozen, asked, thawed = (threading.Event() for _ in range(4))

    async def ask() -> None:
        async with (
            triocoro.open_cpg(endpoint=endpoint) as cpg,
            triocoro.open_cmap(endpoint=endpoint) as cmap,
            trio.open_nursery() as nursery,
        ):
            await cmap.set("threads.key", 1)
            opened.set()
            await reached(frozen)
            # One that waits, one that was cancelled, one that waits behind it, and a connect.
            nursery.start_soon(cpg.local_nodeid)
            with trio.move_on_after(0.01):
                await cmap.get("threads.key")
            nursery.start_soon(cmap.get, "threads.key")
            nursery.start_soon(connect)
            await trio.testing.wait_all_tasks_blocked(0.01)
            asked.set()
            await reached(thawed)

    async def connect() -> None:
        async with triocoro.open_group("threads", endpoint=endpoint) as group:
            await still_works(group)

    async def freeze() -> None:
        await reached(opened)
        await corosync_cluster[1].freeze()
        frozen.set()
        await reached(asked)
        await corosync_cluster[1].thaw()
        thawed.set()

    run_in_threads(ask, freeze)


def test_a_join_that_was_cancelled_is_undone_when_another_run_thaws_the_daemon(corosync_cluster: Cluster) -> None:
    endpoint = corosync_cluster[1].endpoint
    opened, frozen, cancelled, thawed = (threading.Event() for _ in range(4))

    async def join() -> None:
        handle = await lowlevel.cpg_initialize(confchg=ignore, endpoint=endpoint)
        opened.set()
        await reached(frozen)
        with trio.move_on_after(0.01) as scope:
            await handle.join("threads")
        assert scope.cancelled_caught
        cancelled.set()
        await reached(thawed)
        await handle.local_get()
        await handle.finalize()
        async with triocoro.open_group("threads", endpoint=endpoint) as group:
            assert group.view.members == (group.address,)

    async def freeze() -> None:
        await reached(opened)
        await corosync_cluster[1].freeze()
        frozen.set()
        await reached(cancelled)
        await corosync_cluster[1].thaw()
        thawed.set()

    run_in_threads(join, freeze)


def test_a_run_that_ends_with_handles_open_and_a_request_under_way(corosync_cluster: Cluster) -> None:
    endpoint = corosync_cluster[1].endpoint
    over = threading.Event()
    handles: list[lowlevel.CpgHandle] = []

    async def leave_behind() -> None:
        handle = await lowlevel.cpg_initialize(confchg=ignore, endpoint=endpoint)
        handles.append(handle)
        await handle.join("left behind")
        await corosync_cluster[1].freeze()
        with trio.move_on_after(0.01):
            await handle.local_get()

    async def go_on() -> None:
        await reached(over)
        await corosync_cluster[1].thaw()
        async with (
            triocoro.open_group("threads", endpoint=endpoint) as group,
            triocoro.open_cpg(endpoint=endpoint) as cpg,
        ):
            await still_works(group)
            assert len(await cpg.members("left behind")) == 1
            await handles[0].finalize()
            while await cpg.members("left behind"):
                pass

    def first() -> None:
        run_in_threads(leave_behind)
        over.set()

    thread = threading.Thread(target=first)
    thread.start()
    run_in_threads(go_on)
    thread.join()


def test_the_network_is_changed_from_several_runs(corosync_cluster: Cluster) -> None:
    cut = threading.Barrier(3)

    async def isolate(nodeid: int) -> None:
        await corosync_cluster.isolate(nodeid)
        await reached(cut)

    async def heal() -> None:
        await reached(cut)
        assert corosync_cluster.reachable(3) == {3}
        await corosync_cluster.heal()
        await corosync_cluster.settled()

    run_in_threads(partial(isolate, 1), partial(isolate, 2), heal)
    assert corosync_cluster.reachable(1) == {1, 2, 3}


@pytest.mark.corosync_fake_only(reason="the time of real daemons belongs to no run")
def test_the_clusters_time_goes_on_in_another_run_when_its_run_has_ended() -> None:
    """A statistic is checked every 1.5 seconds, in whichever run is left."""
    checked, both_track, over = (threading.Event() for _ in range(3))

    with FakeCluster(nodes=2) as cluster:
        stats = partial(triocoro.open_cmap, triocoro.CmapMap.STATS, endpoint=cluster[1].endpoint)

        async def first() -> None:
            async with stats() as cmap, cmap.track("stats.srp.operational_entered") as changes:
                await cluster[2].kill()
                await changes.receive()
                checked.set()
                await reached(both_track)

        async def second() -> None:
            await reached(checked)
            async with stats() as cmap, cmap.track("stats.srp.operational_entered") as changes:
                both_track.set()
                await reached(over)
                await cluster[2].start()
                await changes.receive()

        def run_first() -> None:
            trio.run(first, clock=trio.testing.MockClock(autojump_threshold=0))
            over.set()

        thread = threading.Thread(target=run_first, daemon=True)
        thread.start()
        run_in_threads(second)
        thread.join()


@pytest.mark.corosync_fake_only(reason="real networks have no latency=")
def test_messages_with_a_latency_between_runs() -> None:
    all_in = threading.Barrier(2)
    with FakeCluster(nodes=2, latency=0.002, jitter=0.002) as cluster:

        async def member(nodeid: int) -> None:
            async with triocoro.open_group("threads", endpoint=cluster[nodeid].endpoint) as group:
                await joined_by(group, 2)
                await reached(all_in)
                for _ in range(20):
                    await still_works(group)
                await reached(all_in)

        run_in_threads(partial(member, 1), partial(member, 2))
