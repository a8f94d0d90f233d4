"""The daemon itself: its links, its configuration, and how it is ended."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from ipaddress import IPv4Address
from typing import Any, cast

import attrs
import pytest
import trio
from support.witness import ask, program, running
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    BusyError,
    Cfg,
    CmapChange,
    CmapTrack,
    CmapType,
    ConfigChange,
    ConnectionLostError,
    EventStream,
    ExistError,
    FailedOperationError,
    KeyNotFoundError,
    LibraryError,
    LinkStatus,
    NodeStatus,
    NotExistError,
    Reason,
    RingStatus,
    ShutdownFlag,
    ShutdownRequest,
    TryAgainError,
    lowlevel,
)
from triocoro._services import CFG
from triocoro.lowlevel import CfgHandle, Dispatch
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)

Requests = EventStream[ShutdownRequest]


def address(nodeid: int) -> str:
    return f"192.0.2.{nodeid}"


async def shut_down_by_itself(node: Node) -> None:
    """A daemon has shut down without being told from the outside; wait for its end."""
    assert f"Node {node.nodeid} was shut down by sysadmin" in node.log
    await node.stop()
    assert not node.running


# -- links and addresses -----------------------------------------------------------------------------------------------


def status(by: int, of: int, mtu: int, *, up: bool = True) -> NodeStatus:
    """What node `by` says of node `of`."""
    return NodeStatus(
        nodeid=of,
        reachable=up,
        remote=False,
        external=False,
        onwire_min=0,
        onwire_max=0,
        onwire_version=0,
        links=(
            LinkStatus(
                number=0,
                enabled=True,
                connected=up,
                dynconnected=False,
                mtu=mtu,
                source=address(by),
                destination=address(of),
            ),
        ),
    )


async def test_each_node_of_each_other(corosync_cluster: Cluster) -> None:
    for by, node in corosync_cluster.nodes.items():
        async with triocoro.open_cfg(endpoint=node.endpoint) as cfg:
            assert await cfg.local_nodeid() == by
            assert await cfg.node_addresses() == (IPv4Address(address(by)),)
            states = "".join("n" if of == by else "3" for of in corosync_cluster.nodes)
            assert await cfg.ring_status() == (RingStatus(f"0 {address(by)}", states),)
            for of in corosync_cluster.nodes:
                found = await cfg.node_status(of)
                # knet finds out over time what fits into a packet to another node.
                mtu = found.links[0].mtu
                assert found == status(by, of, mtu)
                assert mtu == 65535 if of == by else 500 < mtu <= 1500
                assert await cfg.node_addresses(of) == (IPv4Address(address(of)),)


async def test_a_node_that_is_gone(corosync_cluster: Cluster) -> None:
    """It is known, and not connected."""
    async with triocoro.open_cfg() as cfg:
        await corosync_cluster[3].kill()
        await corosync_cluster.settled()
        found = await cfg.node_status(3)
        assert found == status(1, 3, found.links[0].mtu, up=False)
        assert (await cfg.node_status(2)).reachable
        assert await cfg.ring_status() == (RingStatus(f"0 {address(1)}", "n31"),)
        assert await cfg.node_addresses(3) == (IPv4Address(address(3)),)
        await corosync_cluster[3].start()
        await corosync_cluster.settled()
        assert (await cfg.node_status(3)).reachable


# -- the configuration -------------------------------------------------------------------------------------------------


def _changed(
    event: CmapTrack, key: str, new: int, old: int | None = None, type_: CmapType = CmapType.UINT8
) -> CmapChange:
    return CmapChange(event, f"config.{key}", new, old, type_, None if old is None else type_)


@pytest.mark.corosync(nodes=2)
async def test_reloading(corosync_cluster: Cluster) -> None:
    """Every node does it; whoever watches its map sees it begin and end."""
    add, modify = CmapTrack.ADD, CmapTrack.MODIFY
    first = [
        _changed(add, "totemconfig_reload_in_progress", 1),
        _changed(add, "reload_in_progress", 1),
        _changed(add, "reload_status", 1, type_=CmapType.INT32),
        _changed(modify, "totemconfig_reload_in_progress", 0, 1),
        _changed(modify, "reload_in_progress", 0, 1),
    ]
    again = [
        _changed(modify, "totemconfig_reload_in_progress", 1, 0),
        _changed(modify, "reload_in_progress", 1, 0),
        _changed(modify, "totemconfig_reload_in_progress", 0, 1),
        _changed(modify, "reload_in_progress", 0, 1),
    ]
    async with (
        triocoro.open_cfg() as cfg,
        triocoro.open_cmap() as one,
        triocoro.open_cmap(endpoint=corosync_cluster[2].endpoint) as two,
        one.track("config.", prefix=True) as here,
        two.track("config.", prefix=True) as there,
    ):
        for expected in (first, again):
            await cfg.reload_config()
            for changes in (here, there):
                assert [await changes.receive() for _ in expected] == expected
    for node in corosync_cluster.nodes.values():
        assert node.log.count("Config reload requested by node 1") == 2


@pytest.mark.usefixtures("corosync")
async def test_reloading_undoes_what_the_file_does_not_say() -> None:
    async with triocoro.open_cfg() as cfg, triocoro.open_cmap() as cmap:
        kept = dict(await cmap.items("nodelist."))
        await cmap.set("logging.timestamp", "on")
        for key in ("logging.mine", "totem.mine", "quorum.mine", "test.mine"):
            await cmap.set(key, 1)
        await cfg.reload_config()
        assert await cmap.get("logging.timestamp") == "hires"
        for key in ("logging.mine", "totem.mine", "quorum.mine"):
            with pytest.raises(KeyNotFoundError):
                await cmap.get(key)
        assert await cmap.get("test.mine") == 1
        assert dict(await cmap.items("nodelist.")) == kept


@pytest.mark.usefixtures("corosync")
async def test_reopening_log_files() -> None:
    async with triocoro.open_cfg() as cfg:
        await cfg.reopen_log_files()
        assert await cfg.local_nodeid() == 1


# -- killing -----------------------------------------------------------------------------------------------------------


async def test_killing_a_node(corosync_cluster: Cluster) -> None:
    one, two, three = corosync_cluster.nodes.values()
    async with (
        triocoro.open_cfg() as cfg,
        triocoro.open_group("g") as group,
        triocoro.open_quorum(endpoint=two.endpoint) as quorum,
        quorum.track() as changes,
    ):
        with pytest.raises(ConnectionLostError):
            async with triocoro.open_group("g", endpoint=three.endpoint):
                await cfg.kill_node(3, "because of a tést")
                await trio.sleep_forever()
        async for event in group:
            if isinstance(event, ConfigChange) and event.left:
                assert [(left.address.nodeid, left.reason) for left in event.left] == [(3, Reason.NODEDOWN)]
                break
        async for change in changes:
            if change.members == (1, 2):
                break
        assert "Killed by node 1 : because of a tést" in three.log
        await three.kill()
        assert not three.running
        # It is not there any more.
        with pytest.raises(NotExistError, match="no node 3 is in the partition of node 1"):
            await cfg.kill_node(3)
        await three.start()
        await corosync_cluster.settled()
        assert (await cfg.node_status(3)).reachable
    assert one.running


async def test_killing_oneself(corosync: Node) -> None:
    with pytest.raises(ConnectionLostError):
        async with triocoro.open_cfg() as cfg:
            await cfg.kill_node(1, "x" * 255)
            await trio.sleep_forever()
    await corosync.kill()
    assert not corosync.running
    await corosync.start()
    async with triocoro.open_cfg() as cfg:
        assert await cfg.local_nodeid() == 1


# -- shutting down -----------------------------------------------------------------------------------------------------


async def lose(
    opening: AbstractAsyncContextManager[object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Hold a connection until it is lost."""
    with pytest.raises(ConnectionLostError):
        async with opening:
            task_status.started()
            await trio.sleep_forever()


async def shut_down(flags: ShutdownFlag = ShutdownFlag.REQUEST) -> None:
    """Shut the default node down, and lose the connection, which may happen before the answer is read."""
    with pytest.raises(ConnectionLostError):
        async with triocoro.open_cfg() as cfg:
            await cfg.try_shutdown(flags)
            await trio.sleep_forever()


async def answer(requests: Requests, *, accept: bool, flags: ShutdownFlag = ShutdownFlag.REQUEST) -> None:
    request = await requests.receive()
    assert request.flags is flags
    with suppress(ConnectionLostError):  # the daemon need not wait for us to read that it has heard us
        await request.reply(accept)


@asynccontextmanager
async def shutdown_tracker(*, lasts: bool = True) -> AsyncGenerator[Requests, None]:
    """A connection of its own that is asked; unless it `lasts`, it is lost."""
    try:
        async with triocoro.open_cfg() as cfg, cfg.track_shutdown() as requests:
            yield requests
    except ConnectionLostError:
        assert not lasts


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


async def test_nobody_tracks(corosync_cluster: Cluster) -> None:
    """Then nobody need agree; the other nodes see it leave."""
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


async def test_whoever_asks_is_not_asked(corosync: Node) -> None:
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


async def test_whoever_stops_tracking_agrees(corosync: Node) -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConnectionLostError):
            async with triocoro.open_cfg() as cfg:
                async with cfg.track_shutdown() as requests:
                    nursery.start_soon(shut_down)
                    await requests.receive()
                    assert corosync.running
                await trio.sleep_forever()
    await shut_down_by_itself(corosync)


async def test_whoever_goes_away_agrees(corosync: Node) -> None:
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


async def set_timeout(milliseconds: int) -> None:
    """How long answers are waited for."""
    async with triocoro.open_cmap() as cmap:
        await cmap.set("cfg.shutdown_timeout", milliseconds, CmapType.UINT32)


async def test_no_answer_in_time(corosync: Node) -> None:
    await set_timeout(100)
    async with triocoro.open_cfg() as cfg, shutdown_tracker() as requests:
        with pytest.raises(BusyError, match="not agreed to in time"):
            await cfg.try_shutdown()
        # An answer that comes too late is heard by nobody.
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


# -- mistakes ----------------------------------------------------------------------------------------------------------

_BAD_NODEIDS: Sequence[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "not -1"),
    (2**32, ValueError, "not 4294967296"),
    (True, TypeError, "must be an int, not bool"),
    ("1", TypeError, "must be an int, not str"),
    (1.0, TypeError, "must be an int, not float"),
]


async def refused(error: type[BaseException], words: str, call: Callable[[], Awaitable[object]], cfg: Cfg) -> None:
    """It is a clear error, and the connection is as good as before."""
    with pytest.raises(error, match=re.escape(words)):
        await call()
    assert await cfg.local_nodeid() == 1


async def test_bad_input(corosync: Node) -> None:
    async with triocoro.open_cfg() as cfg:
        handle = await lowlevel.cfg_initialize()
        for nodeid, error, words in _BAD_NODEIDS:
            for wrong in (
                *(partial(call, nodeid) for call in (cfg.node_status, cfg.node_addresses, cfg.kill_node)),
                *(partial(call, nodeid) for call in (handle.node_status_get, handle.get_node_addrs)),
                partial(handle.kill_node, nodeid, ""),
            ):
                await refused(error, words, wrong, cfg)
        for call in (cfg.node_status, cfg.node_addresses, cfg.kill_node):
            await refused(ValueError, "not 0", partial(call, 0), cfg)
        for reason, error, words in (
            ("x" * 256, ValueError, "0 to 255 bytes, not 256"),
            ("é" * 128, ValueError, "0 to 255 bytes, not 256"),
            ("a\0b", ValueError, "must not contain a NUL"),
            (b"x", TypeError, "must be a str, not bytes"),
        ):
            await refused(error, words, partial(cfg.kill_node, 1, cast("Any", reason)), cfg)
            await refused(error, words, partial(handle.kill_node, 1, cast("Any", reason)), cfg)
        for flags in (3, -1, "REQUEST", None):
            await refused(ValueError, "is not a valid ShutdownFlag", partial(cfg.try_shutdown, cast("Any", flags)), cfg)
        for accept in (1, None, "yes"):
            await refused(
                TypeError, "accept must be a bool", partial(handle.replyto_shutdown, cast("Any", accept)), cfg
            )
        await handle.finalize()
    assert corosync.running


@pytest.mark.usefixtures("corosync")
async def test_unknown_nodes() -> None:
    async with triocoro.open_cfg() as cfg:
        handle = await lowlevel.cfg_initialize()
        for nodeid in (2, 9, 2**32 - 1):
            known = f"knows no node {nodeid}"
            await refused(FailedOperationError, known, partial(cfg.node_status, nodeid), cfg)
            await refused(NotExistError, known, partial(cfg.node_addresses, nodeid), cfg)
            words = f"no node {nodeid} is in the partition"
            await refused(NotExistError, words, partial(cfg.kill_node, nodeid), cfg)
            code = "CS_ERR_FAILED_OPERATION"
            await refused(FailedOperationError, code, partial(handle.node_status_get, nodeid), cfg)
            await refused(NotExistError, "CS_ERR_NOT_EXIST", partial(handle.get_node_addrs, nodeid), cfg)
            await refused(NotExistError, "CS_ERR_NOT_EXIST", partial(handle.kill_node, nodeid, ""), cfg)
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_an_id_that_knet_cuts_to_16_bits() -> None:
    """The daemon does not look: what it says is of another node, under the name that was asked for."""
    handle = await lowlevel.cfg_initialize()
    assert await handle.node_status_get(65537) == attrs.evolve(await handle.node_status_get(1), nodeid=65537)
    with pytest.raises(FailedOperationError):
        await handle.node_status_get(65536)
    with pytest.raises(NotExistError):
        await handle.get_node_addrs(65537)
    await handle.finalize()


# -- lowlevel ----------------------------------------------------------------------------------------------------------


async def request_shutdowns(handle: CfgHandle, count: int) -> None:
    """Have that many requests wait for a handle that tracks; each is refused, unread."""
    async with triocoro.open_cfg() as cfg, shutdown_tracker() as other:

        async def refuse() -> None:
            # Once another one is asked, so is the handle; before, an answer would go nowhere.
            request = await other.receive()
            await handle.replyto_shutdown(accept=False)
            await request.reply(accept=False)

        for _ in range(count):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refuse)
                with pytest.raises(BusyError):
                    await cfg.try_shutdown()


async def test_a_handle_that_has_answered_leaves_nothing_behind(corosync: Node) -> None:
    """libcfg forgets to let go of it, and the daemon would wait for its answers for as long as our process lives."""
    await set_timeout(100)
    handle = await lowlevel.cfg_initialize()
    await handle.trackstart()
    await request_shutdowns(handle, 1)
    await handle.finalize()
    await shut_down()
    await shut_down_by_itself(corosync)


async def test_every_call_of_a_handle(corosync: Node) -> None:
    handle = await lowlevel.cfg_initialize(context="mine")
    assert handle.context == "mine"
    assert await handle.local_get() == 1
    assert (await handle.node_status_get(1)).reachable
    assert await handle.ring_status_get() == (RingStatus("0 192.0.2.1", "n"),)
    assert await handle.get_node_addrs(0) == await handle.get_node_addrs(1) == (IPv4Address("192.0.2.1"),)
    await handle.reload_config()
    await handle.reopen_log_files()
    # Stopping what was not started, answering what was not asked, and starting twice, are no errors.
    await handle.trackstop()
    await handle.replyto_shutdown(accept=True)
    await handle.trackstart()
    await handle.trackstart()
    with pytest.raises(TryAgainError):
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
    other = await lowlevel.cfg_initialize()
    with suppress(ConnectionLostError):
        await other.try_shutdown(ShutdownFlag.IMMEDIATE)
    with pytest.raises(ConnectionLostError):
        await other.dispatch(Dispatch.BLOCKING)
    await other.finalize()
    await handle.finalize()
    with pytest.raises(trio.ClosedResourceError):
        await handle.local_get()
    await shut_down_by_itself(corosync)


@asynccontextmanager
async def tracking(callback: Callable[[ShutdownFlag], Awaitable[object]]) -> AsyncGenerator[CfgHandle, None]:
    handle = await lowlevel.cfg_initialize(shutdown_callback=callback)
    try:
        await handle.trackstart()
        yield handle
    finally:
        with trio.CancelScope(shield=True):
            await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_dispatch_all_and_one_nonblocking() -> None:
    heard: list[ShutdownFlag] = []

    async def callback(flags: ShutdownFlag) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(flags)

    async with tracking(callback) as handle:
        await handle.dispatch(Dispatch.ALL)
        assert heard == []
        await request_shutdowns(handle, 4)
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        assert heard == [ShutdownFlag.REQUEST]
        await handle.dispatch(Dispatch.ALL)
        assert heard == [ShutdownFlag.REQUEST] * 4
        with pytest.raises(TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)


@pytest.mark.usefixtures("corosync")
async def test_dispatch_one_and_blocking() -> None:
    heard: list[ShutdownFlag] = []

    async def callback(flags: ShutdownFlag) -> None:
        heard.append(flags)
        # A callback may use its own handle.
        await handle.replyto_shutdown(accept=False)
        if len(heard) == 3:
            await handle.finalize()

    async with tracking(callback) as handle, triocoro.open_cfg() as cfg:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.ONE)
            await wait_all_tasks_blocked()
            with pytest.raises(BusyError):
                await cfg.try_shutdown()
        assert len(heard) == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.BLOCKING)
            for _ in range(2):
                with pytest.raises(BusyError):
                    await cfg.try_shutdown()
        assert len(heard) == 3


@pytest.mark.usefixtures("corosync")
async def test_who_is_told_of_a_timeout() -> None:
    """A second request, which looks like the first: only for who has tried a shutdown on the same connection."""
    heard: list[str] = []

    def note(name: str) -> Callable[[ShutdownFlag], Awaitable[None]]:
        async def callback(flags: ShutdownFlag) -> None:
            await trio.lowlevel.checkpoint()
            heard.append(f"{name} {flags.name}")

        return callback

    await set_timeout(100)
    async with tracking(note("tracker")) as tracker, tracking(note("asker")) as asker:
        for flags in (ShutdownFlag.REQUEST, ShutdownFlag.REQUEST):
            with pytest.raises(BusyError):
                await asker.try_shutdown(flags)
            await asker.dispatch(Dispatch.ONE)
            await tracker.dispatch(Dispatch.ALL)
            assert heard == ["asker REQUEST", "tracker REQUEST"]
            heard.clear()


# -- witnesses ---------------------------------------------------------------------------------------------------------


async def held_still(read: Callable[[], Awaitable[object]], tool: Callable[[], Awaitable[str]]) -> tuple[object, str]:
    """What we and a tool say, when we say the same before and after it."""
    while True:
        before, said, after = await read(), await tool(), await read()
        if before == after:
            return after, said


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.parametrize("down", [False, True])
async def test_cfgtool_sees_the_nodes(corosync_cluster: Cluster, down: bool) -> None:  # noqa: FBT001 - a parameter
    def as_the_tool_prints(nodes: Sequence[NodeStatus]) -> str:
        lines = ["Local node ID 1, transport knet"]
        for node in nodes:
            if node.nodeid != 1 and node.reachable:
                lines.append(f"nodeid: {node.nodeid} reachable{' remote' * node.remote}{' external' * node.external}")
                for link in node.links:
                    words = {"enabled": link.enabled, "connected": link.connected, "dynconnected": link.dynconnected}
                    state = "".join(f" {word}" for word, holds in words.items() if holds)
                    lines.append(
                        f"   LINK: {link.number} udp ({link.source}->{link.destination}){state} mtu: {link.mtu}"
                    )
                lines.append("")
        return "\n".join([*lines, ""])

    if down:
        await corosync_cluster[3].kill()
        await corosync_cluster.settled()
    async with triocoro.open_cfg() as cfg:

        async def read() -> list[NodeStatus]:
            return [await cfg.node_status(nodeid) for nodeid in corosync_cluster.nodes]

        nodes, said = await held_still(read, partial(ask, corosync_cluster[1], "corosync-cfgtool", "-n"))
        assert as_the_tool_prints(cast("list[NodeStatus]", nodes)) == said
        assert ("nodeid: 3" in said) is not down


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.parametrize("down", [False, True])
async def test_cfgtool_sees_the_links(corosync_cluster: Cluster, down: bool) -> None:  # noqa: FBT001 - a parameter
    if down:
        await corosync_cluster[3].kill()
        await corosync_cluster.settled()
    async with triocoro.open_cfg() as cfg:
        tool = partial(ask, corosync_cluster[1], "corosync-cfgtool", "-s", "-b")
        rings, said = await held_still(cfg.ring_status, tool)
        (ring,) = cast("tuple[RingStatus, ...]", rings)
        number, own = ring.name.split()
        lines = [f"LINK ID {number} udp", f"\taddr\t= {own}", f"\tstatus\t= {ring.status}"]
        assert said.splitlines() == ["Local node ID 1, transport knet", *lines]
        for nodeid in corosync_cluster.nodes:
            addresses = await cfg.node_addresses(nodeid)
            said = await ask(corosync_cluster[1], "corosync-cfgtool", "-a", str(nodeid))
            assert said.split() == [str(address) for address in addresses]


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_cfgtool_asks_for_a_shutdown(corosync: Node) -> None:
    async with shutdown_tracker(lasts=False) as requests:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, corosync, "corosync-cfgtool", "-H")
            await answer(requests, accept=True)
        await trio.sleep_forever()
    await shut_down_by_itself(corosync)


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_whoever_asks_and_dies_ends_the_negotiation(corosync: Node) -> None:
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
