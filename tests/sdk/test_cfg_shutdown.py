"""Shutting a daemon down: who is asked, and what each answer does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

import pytest
import trio
from support.cfg import answer, lose, set_timeout, shut_down, shut_down_by_itself, shutdown_tracker
from support.external_programs import ask, program, running
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    BusyError,
    ConnectionLostError,
    ExistError,
    LibraryError,
    ShutdownFlag,
    lowlevel,
)
from triocoro._services import CFG
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


# -- shutting down -----------------------------------------------------------------------------------------------------


async def test_one_refuses(corosync: Node) -> None:
    async with triocoro.open_cfg() as cfg, shutdown_tracker() as one, shutdown_tracker() as two:
        for refuser, other in ((one, two), (two, one)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(answer, refuser, accept=False))
                nursery.start_soon(partial(answer, other, accept=True))
                with pytest.raises(BusyError, match=r"the shutdown of node 1.* was refused, or not agreed to in time"):
                    await cfg.try_shutdown()
        assert corosync.running
        assert await cfg.local_nodeid() == 1
    assert "was shut down" not in corosync.log


async def test_all_agree(corosync: Node) -> None:
    """The daemon stops, and every connection of every service is lost."""
    openings: Sequence[Callable[[], AbstractAsyncContextManager[object]]] = (
        triocoro.open_cfg,
        triocoro.open_cmap,
        partial(triocoro.open_cmap, triocoro.CmapMap.STATS),
        triocoro.open_cpg,
        partial(triocoro.open_group, "g"),
        triocoro.open_votequorum,
        triocoro.open_quorum,
    )
    async with (
        shutdown_tracker(lasts=False) as one,
        shutdown_tracker(lasts=False) as two,
        trio.open_nursery() as nursery,
    ):
        for opening in openings:
            await nursery.start(lose, opening())
        nursery.start_soon(partial(answer, one, accept=True))
        nursery.start_soon(partial(answer, two, accept=True))
        await shut_down()
    await shut_down_by_itself(corosync)
    await corosync.start()
    async with triocoro.open_cfg() as cfg:
        assert await cfg.local_nodeid() == 1


async def test_shutdown_succeeds_without_trackers_on_the_node(corosync_cluster: Cluster) -> None:
    """Without trackers on the node, it shuts down unasked; the other nodes see it leave."""
    one, two, three = corosync_cluster.nodes.values()
    async with (
        triocoro.open_quorum(endpoint=two.endpoint) as quorum,
        quorum.track() as changes,
        # One who tracks on another node is not asked.
        triocoro.open_cfg(endpoint=three.endpoint) as other,
        other.track_shutdown() as requests,
    ):
        await shut_down()
        async for change in changes:
            if change.members == (2, 3):
                break
        assert requests.statistics().buffered_events == 0
    await shut_down_by_itself(one)
    assert "Node 1 was shut down by sysadmin" in two.log
    assert two.running
    assert three.running
    await one.start()
    await corosync_cluster.settled()


async def test_the_requester_of_a_shutdown_is_not_asked(corosync: Node) -> None:
    async with shutdown_tracker() as tracker, triocoro.open_cfg() as cfg, cfg.track_shutdown() as own:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(answer, tracker, accept=False))
            with pytest.raises(BusyError):
                await cfg.try_shutdown()
        assert own.statistics().buffered_events == 0
    assert corosync.running


async def test_regardless_of_the_answers(corosync: Node) -> None:
    flags = ShutdownFlag.REGARDLESS
    async with shutdown_tracker(lasts=False) as requests, trio.open_nursery() as nursery:
        nursery.start_soon(partial(answer, requests, accept=False, flags=flags))
        await shut_down(flags)
    await shut_down_by_itself(corosync)


async def test_immediately(corosync: Node) -> None:
    """Nobody is asked."""
    async with shutdown_tracker(lasts=False) as requests:
        await shut_down(ShutdownFlag.IMMEDIATE)
        with pytest.raises(ConnectionLostError):
            await requests.receive()
    await shut_down_by_itself(corosync)


async def test_a_tracker_that_stops_tracking_agrees(corosync: Node) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectionLostError):
            async with triocoro.open_cfg() as cfg:
                async with cfg.track_shutdown() as requests:
                    nursery.start_soon(shut_down)
                    await requests.receive()
                    assert corosync.running
                await trio.sleep_forever()
    await shut_down_by_itself(corosync)


async def test_a_tracker_that_disconnects_agrees(corosync: Node) -> None:
    async with trio.open_nursery() as nursery:
        handle = await lowlevel.cfg_initialize()
        await handle.trackstart()
        async with shutdown_tracker(lasts=False) as requests:
            nursery.start_soon(shut_down)
            await answer(requests, accept=True)
            assert corosync.running
            await handle.finalize()
            await trio.sleep_forever()
    await shut_down_by_itself(corosync)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_daemon_that_ends_meanwhile(corosync: Node, end: str) -> None:
    """Its parting from its clients is no agreement of theirs."""
    trackers = [await corosync.endpoint.connect(CFG) for _ in range(2)]
    for tracker in trackers:
        await tracker.trackstart()
    asker = await corosync.endpoint.connect(CFG)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(LibraryError):
                await asker.try_shutdown(ShutdownFlag.REQUEST)

        nursery.start_soon(ask)
        for tracker in trackers:
            await trio.lowlevel.wait_readable(tracker.fileno())
        await getattr(corosync, end)()
    assert "shut down by sysadmin" not in corosync.log
    for handle in (asker, *trackers):
        handle.close()
        await handle.wait_closed()


@pytest.mark.parametrize("how", ["shutdown", "kill"])
async def test_a_frozen_daemon_that_was_asked_to_end_is_stopped(corosync: Node, how: str) -> None:
    """It may do what it was asked for before it comes to the signal."""
    raw = await corosync.endpoint.connect(CFG)
    await corosync.freeze()

    async def ask() -> None:
        with suppress(LibraryError):
            if how == "shutdown":
                await raw.try_shutdown(ShutdownFlag.IMMEDIATE)
            else:
                await raw.kill_node(1, "")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        await corosync.stop()
    assert not corosync.running
    raw.close()
    await raw.wait_closed()


async def test_a_newcomer_is_asked_too(corosync: Node) -> None:
    async with triocoro.open_cfg() as cfg, shutdown_tracker() as first, trio.open_nursery() as nursery:

        async def meanwhile() -> None:
            request = await first.receive()
            async with shutdown_tracker() as newcomer:
                late = await newcomer.receive()
                await request.reply(accept=True)
                await late.reply(accept=False)

        nursery.start_soon(meanwhile)
        with pytest.raises(BusyError):
            await cfg.try_shutdown()
    assert corosync.running


async def test_no_answer_in_time(corosync: Node) -> None:
    await set_timeout(100)
    async with triocoro.open_cfg() as cfg, shutdown_tracker() as requests:
        with pytest.raises(BusyError, match="not agreed to in time"):
            await cfg.try_shutdown()
        # An answer that comes too late is ignored.
        await answer(requests, accept=True)
        assert await cfg.local_nodeid() == 1
        assert requests.statistics().buffered_events == 0
    assert corosync.running


async def test_no_answer_in_time_but_regardless(corosync: Node) -> None:
    await set_timeout(100)
    async with shutdown_tracker(lasts=False):
        await shut_down(ShutdownFlag.REGARDLESS)
    await shut_down_by_itself(corosync)


async def test_two_at_once(corosync: Node) -> None:
    async with (
        triocoro.open_cfg() as one,
        triocoro.open_cfg() as two,
        shutdown_tracker() as requests,
        trio.open_nursery() as nursery,
    ):

        async def second() -> None:
            request = await requests.receive()
            with pytest.raises(ExistError, match="is negotiating another shutdown"):
                await two.try_shutdown()
            await request.reply(accept=False)

        nursery.start_soon(second)
        with pytest.raises(BusyError):
            await one.try_shutdown()
    assert corosync.running


async def test_answering_twice(corosync: Node) -> None:
    """Which the daemon would count as two answers, though two were asked."""
    async with (
        triocoro.open_cfg() as cfg,
        shutdown_tracker() as one,
        shutdown_tracker() as two,
        trio.open_nursery() as nursery,
    ):

        async def eager() -> None:
            request = await one.receive()
            await request.reply(accept=True)
            with pytest.raises(RuntimeError, match="was answered before"):
                await request.reply(accept=True)
            await answer(two, accept=False)

        nursery.start_soon(eager)
        with pytest.raises(BusyError):
            await cfg.try_shutdown()
    assert corosync.running


async def test_no_more_questions_after_the_end_of_tracking(corosync: Node) -> None:
    """Nor does anybody wait for an answer; the connection can track anew."""
    async with triocoro.open_cfg() as cfg, triocoro.open_cfg() as asking, shutdown_tracker() as other:
        async with cfg.track_shutdown() as ended:
            with pytest.raises(trio.BusyResourceError):
                await cfg.track_shutdown().__aenter__()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(answer, other, accept=False))
            with pytest.raises(BusyError):
                await asking.try_shutdown()
        assert ended.statistics().buffered_events == 0
        async with cfg.track_shutdown() as again, trio.open_nursery() as nursery:
            nursery.start_soon(partial(answer, other, accept=True))
            nursery.start_soon(partial(answer, again, accept=False))
            with pytest.raises(BusyError):
                await asking.try_shutdown()
    assert corosync.running


# -- witnesses ---------------------------------------------------------------------------------------------------------


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_cfgtool_asks_for_a_shutdown(corosync: Node) -> None:
    async with shutdown_tracker(lasts=False) as requests:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, corosync, "corosync-cfgtool", "-H")
            await answer(requests, accept=True)
        await trio.sleep_forever()
    await shut_down_by_itself(corosync)


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_the_death_of_the_requester_ends_the_negotiation(corosync: Node) -> None:
    await set_timeout(30_000)
    async with triocoro.open_cfg() as cfg, shutdown_tracker() as requests:
        async with running(corosync, program("corosync-cfgtool"), "-H"):
            await requests.receive()
        # The end of that block has killed it.

        async def ask_again() -> None:
            with pytest.raises(BusyError):
                while True:  # noqa: ASYNC913 - suppress hides the checkpoint from the linter
                    with suppress(ExistError):  # the daemon need not have noticed that death yet
                        await cfg.try_shutdown()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_again)
            await answer(requests, accept=False)
    assert corosync.running
