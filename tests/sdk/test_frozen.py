"""The daemon is stopped in its tracks: the event loop goes on, calls can be cancelled, and closing is quick."""

from __future__ import annotations

import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from support.load import Stopwatch, kept_waiting, share_since
from support.public_calls import OPENERS

import triocoro
from triocoro import BadHandleError, CmapTrack, CmapType, EventStream, Group, Message, TryAgainError, lowlevel
from triocoro.lowlevel import Dispatch
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)
LATE = 0.05
"""Seconds: how late the ticker may be, and how long a cancelled call may take to return."""
CLOSE = 1.2
"""Seconds that the end of an `async with` may take."""


@attrs.define
class Ticker:
    """How late the loop was at worst, and how much CPU the process used, while it ran."""

    lateness: float = 0.0
    cpu: float = 0.0


@contextmanager
def looking_only_at_new_objects() -> Generator[None, None, None]:
    """Garbage collection goes through what earlier tests have left, too, which takes long and is not ours."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@asynccontextmanager
async def ticking() -> AsyncGenerator[Ticker, None]:
    ticker = Ticker()
    measuring = 0.0

    async def tick() -> None:
        nonlocal measuring
        before = kept_waiting()
        while True:
            due = trio.current_time() + 0.01
            await trio.sleep_until(due)
            late = trio.current_time() - due
            cpu = time.thread_time()
            ticker.lateness = max(ticker.lateness, late - share_since(before))
            before = kept_waiting()
            measuring += time.thread_time() - cpu

    with looking_only_at_new_objects():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            began, cpu = time.monotonic(), time.process_time()
            yield ticker
            ticker.cpu = (time.process_time() - cpu - measuring) / (time.monotonic() - began)
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def frozen(node: Node) -> AsyncGenerator[None, None]:
    await node.freeze()
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            await node.thaw()


async def send_for_ever(group: Group) -> None:
    while True:
        await group.send(b"x" * 100)


async def join(name: str) -> None:
    async with triocoro.open_group(name):
        raise AssertionError("joined while the daemon was frozen")


async def open_and_close() -> None:
    async with triocoro.open_votequorum():
        raise AssertionError("connected while the daemon was frozen")


async def test_the_loop_never_waits(corosync: Node, figure: Any) -> None:
    async with (
        triocoro.open_group("one") as one,
        triocoro.open_group("two") as two,
        triocoro.open_cpg() as cpg,
        triocoro.open_votequorum() as votequorum,
        triocoro.open_group("three") as three,
        triocoro.open_quorum() as quorum,
        triocoro.open_cmap() as cmap,
        triocoro.open_cfg() as cfg,
    ):
        await votequorum.info()
        async with frozen(corosync), ticking() as ticker:
            calls: list[Callable[[], Awaitable[object]]] = [
                lambda: send_for_ever(one),
                lambda: send_for_ever(one),
                lambda: two.send(b"y" * 3_000_000),
                lambda: three.send_and_wait(b"z"),
                three.receive,
                cpg.groups,
                lambda: cpg.members("one"),
                cpg.local_nodeid,
                votequorum.info,
                lambda: votequorum.set_expected(1),
                votequorum.wait_quorate,
                lambda: join("four"),
                lambda: join("five"),
                open_and_close,
                triocoro.open_cpg().__aenter__,
                quorum.is_quorate,
                quorum.wait_quorate,
                cmap.items,
                lambda: cmap.set("frozen.key", 1),
                cmap.track("frozen.").__aenter__,
                cfg.ring_status,
                cfg.reload_config,
                cfg.track_shutdown().__aenter__,
                triocoro.open_quorum().__aenter__,
                triocoro.open_cmap().__aenter__,
                triocoro.open_cfg().__aenter__,
            ]
            await three.receive()  # the configuration change of the join, so that `receive` has to wait
            returned: list[float] = []

            async def call(
                function: Callable[[], Awaitable[object]],
                scope: trio.CancelScope,
                task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
            ) -> None:
                with scope:
                    task_status.started()
                    await function()
                assert scope.cancelled_caught
                returned.append(trio.current_time())

            async with trio.open_nursery() as nursery:
                scopes = [trio.CancelScope() for _ in calls]
                for function, scope in zip(calls, scopes, strict=True):
                    await nursery.start(call, function, scope)
                await trio.sleep(1.5)  # for as long as this, all of them hang
                assert returned == []
                slowest = 0.0
                for scope in scopes:
                    watch = Stopwatch()
                    scope.cancel()
                    count = len(returned)
                    while len(returned) == count:
                        await trio.lowlevel.checkpoint()
                    slowest = max(slowest, watch.seconds)
        figure("frozen daemon: latest tick", f"{ticker.lateness * 1000:.1f} ms")
        figure("frozen daemon: slowest cancellation", f"{slowest * 1000:.1f} ms")
        figure("frozen daemon: CPU", f"{ticker.cpu * 100:.1f} %")
        assert ticker.lateness < LATE
        assert slowest < LATE
        assert ticker.cpu < 0.10
        # What was not cancelled goes on as if nothing had happened; what was sent before arrives.
        assert (await one.send_and_wait(b"after")).payload == b"after"
        assert (await votequorum.info()).quorate
        assert await cpg.members("four") == ()
        assert await quorum.is_quorate()
        assert await cmap.get("totem.version") == 2
        assert await cfg.local_nodeid() == corosync.nodeid


@pytest.mark.parametrize("opener", OPENERS)
async def test_leaving_the_block_takes_no_longer_than_its_grace(corosync: Node, opener: str, figure: Any) -> None:
    async with frozen_late(corosync) as freeze, ticking() as ticker:
        async with OPENERS[opener]():
            await freeze()
            watch = Stopwatch()
        took = watch.seconds
    figure(f"frozen daemon: leaving open_{opener}", f"{took:.2f} s")
    assert took < CLOSE
    assert ticker.lateness < LATE


@asynccontextmanager
async def finalizing() -> AsyncGenerator[None, None]:
    handle = await lowlevel.cpg_initialize()
    try:
        yield
    finally:
        await handle.finalize()


@pytest.mark.parametrize("block", ["tracking_cmap", "three_trackers", "tracking_shutdown", "finalizing", "zero_copy"])
async def test_ends_within_a_connection_share_its_grace(corosync: Node, block: str) -> None:
    """What is undone at the end of an inner block takes the grace of the connection; the outer end adds nothing."""
    async with frozen_late(corosync) as freeze, ticking() as ticker:
        async with BLOCKS[block]():
            await freeze()
            watch = Stopwatch()
        took = watch.seconds
    assert took < CLOSE
    assert ticker.lateness < LATE
    await shut_down()  # the trackers are gone, after all


@pytest.mark.parametrize("opener", ["group", "cpg"])  # the others' finalize asks the daemon nothing
async def test_closing_can_be_cancelled(corosync: Node, opener: str) -> None:
    async with frozen_late(corosync) as freeze:
        watch = Stopwatch()
        with trio.CancelScope() as scope:
            async with OPENERS[opener]():
                await freeze()
                # It hits the end of the block in the midst of its grace.
                watch = Stopwatch()
                scope.deadline = trio.current_time() + 0.2
        assert scope.cancelled_caught
        assert watch.seconds < 0.2 + LATE


@asynccontextmanager
async def tracking_cmap() -> AsyncGenerator[None, None]:
    async with triocoro.open_cmap() as cmap, cmap.track("frozen.key"):
        yield


@asynccontextmanager
async def tracking_shutdown() -> AsyncGenerator[None, None]:
    async with triocoro.open_cfg() as cfg, cfg.track_shutdown():
        yield


@asynccontextmanager
async def three_trackers() -> AsyncGenerator[None, None]:
    async with triocoro.open_cmap() as cmap, cmap.track("a.key"), cmap.track("b.key"), cmap.track("c.", prefix=True):
        yield


@asynccontextmanager
async def zero_copy() -> AsyncGenerator[None, None]:
    handle = await lowlevel.cpg_initialize()
    try:
        async with handle.zcb_alloc(1000):
            yield
    finally:
        await handle.finalize()


BLOCKS: dict[str, Callable[[], Any]] = {
    "tracking_cmap": tracking_cmap,
    "three_trackers": three_trackers,
    "tracking_shutdown": tracking_shutdown,
    "finalizing": finalizing,
    "zero_copy": zero_copy,
}


@pytest.mark.parametrize("tracking", [tracking_cmap, tracking_shutdown])
async def test_the_end_of_tracking_can_be_cancelled(corosync: Node, tracking: Callable[[], Any]) -> None:
    """It asks the daemon to stop; cancelled, that goes on in the background."""
    async with frozen_late(corosync) as freeze:
        watch = Stopwatch()
        with trio.CancelScope() as scope:
            async with tracking():
                await freeze()
                # It hits the end of the inner block, where the daemon does not answer.
                watch = Stopwatch()
                scope.deadline = trio.current_time() + 0.2
        assert scope.cancelled_caught
        assert watch.seconds < 0.2 + LATE
    await shut_down()


@asynccontextmanager
async def changes_of_a_key() -> AsyncGenerator[EventStream[Any], None]:
    async with triocoro.open_cmap() as cmap, cmap.track("frozen.key") as changes:
        yield changes


@asynccontextmanager
async def shutdown_requests() -> AsyncGenerator[EventStream[Any], None]:
    async with triocoro.open_cfg() as cfg, cfg.track_shutdown() as requests:
        yield requests


@pytest.mark.parametrize("tracking", [changes_of_a_key, shutdown_requests])
async def test_the_end_of_tracking_is_at_once_for_whoever_receives(corosync: Node, tracking: Callable[[], Any]) -> None:
    streams: list[EventStream[Any]] = []
    begun, ending = trio.Event(), trio.Event()

    async def track() -> None:
        async with tracking() as stream:
            streams.append(stream)
            begun.set()
            await ending.wait()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError, match="this stream was closed"):
            await streams[0].receive()

    async with frozen_late(corosync) as freeze, trio.open_nursery() as nursery:
        nursery.start_soon(track)
        await begun.wait()
        await freeze()
        async with trio.open_nursery() as receiving:
            receiving.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            ending.set()
        await corosync.thaw()


async def shut_down() -> None:
    """It succeeds at once only without trackers of shutdowns: a tracker that does not answer makes it fail."""
    with pytest.raises(triocoro.ConnectionLostError):
        async with triocoro.open_cfg() as cfg:
            with trio.CancelScope(shield=True):  # its success may come with the loss of the connection
                await cfg.try_shutdown()
            await trio.sleep_forever()


@asynccontextmanager
async def frozen_late(node: Node) -> AsyncGenerator[Callable[[], Awaitable[None]], None]:
    try:
        yield node.freeze
    finally:
        with trio.CancelScope(shield=True):
            await node.thaw()


async def test_calls_that_were_not_cancelled_complete_after_the_thaw(corosync: Node) -> None:
    done: list[str] = []

    async def note(name: str, call: Callable[[], Awaitable[object]]) -> None:
        await call()
        done.append(name)

    async with triocoro.open_group("g") as group, triocoro.open_votequorum() as votequorum:
        async with trio.open_nursery() as nursery, frozen(corosync):
            nursery.start_soon(note, "send_and_wait", lambda: group.send_and_wait(b"x"))
            nursery.start_soon(note, "batch", lambda: group.send_batch([b"%d" % i for i in range(500)]))
            nursery.start_soon(note, "info", votequorum.info)
            await trio.sleep(0.3)  # hanging is what is tested
            assert done == []
        assert sorted(done) == ["batch", "info", "send_and_wait"]
        payloads: list[bytes] = []
        while len(payloads) < 501:
            event = await group.receive()
            if isinstance(event, Message):
                payloads.append(event.payload)
        payloads.remove(b"x")
        assert payloads == [b"%d" % i for i in range(500)]
        assert group.statistics().lost == 0


async def test_a_cancelled_send_was_not_sent(corosync: Node) -> None:
    async with triocoro.open_group("g") as group:
        sent: list[bytes] = []
        async with frozen(corosync):
            with trio.move_on_after(0.2):
                for i in range(10_000):
                    await group.send(b"%d" % i)
                    sent.append(b"%d" % i)
            assert 0 < len(sent) < 10_000
        last = await group.send_and_wait(b"last")
        assert last.payload == b"last"
        events = await group.receive_batch(max_events=20_000)
        assert [event.payload for event in events if isinstance(event, Message)] == [*sent, b"last"]


async def test_a_cancelled_join_is_undone_after_the_thaw(corosync: Node) -> None:
    async with triocoro.open_cpg() as cpg:
        async with frozen(corosync):
            with trio.move_on_after(0.2) as scope:
                await join("g")
            assert scope.cancelled_caught
        async with triocoro.open_group("g") as group:
            assert group.view.members == (group.address,)
        assert await cpg.members("g") == ()


@pytest.mark.parametrize("opener", [triocoro.open_votequorum, triocoro.open_quorum])
async def test_after_a_cancelled_start_of_tracking_the_state_is_told_once(
    corosync: Node, opener: Callable[[], Any]
) -> None:
    """The daemon is asked to begin twice, and tells twice."""
    async with opener() as service:
        lots = set(service._connection.lifetime._lots)
        async with frozen(corosync):
            with trio.move_on_after(0.2) as scope:
                await service.wait_quorate()
            assert scope.cancelled_caught
        assert service._connection.lifetime._lots == lots
        async with service.track() as changes:
            assert len(await changes.receive_batch()) == 2
            # A round trip later, whatever the daemon had to tell is here.
            await service._connection.requests.run(service._raw.trackstop)
            assert changes.statistics().buffered_events == 0


async def test_a_cancelled_track_add_is_undone_after_the_thaw(corosync: Node) -> None:
    heard: list[object] = []

    async def hear(change: object) -> None:
        heard.append(change)

    handle = await lowlevel.cmap_initialize()
    async with frozen(corosync):
        with trio.move_on_after(0.2) as scope:
            await handle.track_add("frozen.", CmapTrack.ADD | CmapTrack.PREFIX, hear)
        assert scope.cancelled_caught
    await handle.get("totem.version")  # the lane is free again: what was cancelled is over
    async with triocoro.open_cmap() as cmap:
        await cmap.set("frozen.key", 1)
    await handle.get("totem.version")  # and what the daemon had to tell would be here
    with pytest.raises(TryAgainError):
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
    await handle.finalize()
    assert heard == []


async def test_a_cancelled_track_delete_is_done_after_the_thaw(corosync: Node) -> None:
    heard: list[object] = []

    async def hear(change: object) -> None:
        heard.append(change)

    handle = await lowlevel.cmap_initialize()
    tracker = await handle.track_add("frozen.", CmapTrack.ADD | CmapTrack.PREFIX, hear)
    async with frozen(corosync):
        with trio.move_on_after(0.2) as scope:
            await handle.track_delete(tracker)
        assert scope.cancelled_caught
    with pytest.raises(BadHandleError, match="no tracker"):
        await handle.track_delete(tracker)
    await handle.set("frozen.key", 1, CmapType.UINT8)
    await handle.dispatch(Dispatch.ALL)
    await handle.finalize()
    assert heard == []


async def test_a_cancelled_track_shutdown_is_undone_after_the_thaw(corosync: Node) -> None:
    with pytest.raises(triocoro.ConnectionLostError):
        async with triocoro.open_cfg() as tracker:
            async with frozen(corosync):
                with trio.move_on_after(0.2) as scope:
                    await tracker.track_shutdown().__aenter__()
                assert scope.cancelled_caught
            # Two round trips may still be under way for it: the start, and the stop in the background.
            await tracker.local_nodeid()
            await tracker.local_nodeid()
            with trio.CancelScope(shield=True):
                await shut_down()
            await trio.sleep_forever()


@pytest.mark.corosync(nodes=3)
async def test_the_others_go_on_without_it(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_group("g") as one,
        triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as two,
        triocoro.open_group("g", endpoint=corosync_cluster[3].endpoint) as three,
    ):
        while len(one.view.members) != 3:
            await one.receive()
        async with frozen(corosync_cluster[3]):
            while len(one.view.members) == 3:
                await one.receive()
            assert one.view.members == (one.address, two.address)
            await one.send_and_wait(b"without three")
        while len(one.view.members) != 3:
            await one.receive()
        await one.send_and_wait(b"with three")
        payloads: list[bytes] = []
        async for event in three:
            if isinstance(event, Message):
                payloads.append(event.payload)
                if event.payload == b"with three":
                    break
        assert payloads == [b"with three"]
