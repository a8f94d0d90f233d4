"""Quorum, votequorum and cfg over the C libraries."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from support import installed
from support.c_libraries import open_fds, poll_until
from support.external_programs import ask
from support.raw_handles import close, take

import triocoro
from triocoro._enums import QuorumType, ShutdownFlag, Track, VotequorumFlag
from triocoro._lifetime import LOOK
from triocoro._services import CFG, QUORUM, STATS, VOTEQUORUM, VotequorumSpec
from triocoro._types import NodelistChange, QuorumChange
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


# -- quorum, and the rest of votequorum --------------------------------------------------------------------------------


@pytest.mark.corosync(nodes=2, two_node=False)
async def test_quorum(corosync_cluster: Cluster) -> None:
    handle = await corosync_cluster[1].endpoint.connect(QUORUM)
    assert handle.type is QuorumType.SET
    assert await handle.is_quorate()
    await handle.trackstart(Track.CURRENT | Track.CHANGES)
    nodes, quorum = await take(handle, 2)
    assert isinstance(nodes, NodelistChange)
    assert nodes == NodelistChange(nodes.ring_id, (1, 2), (), ())
    assert quorum == QuorumChange(quorate=True, ring_id=nodes.ring_id, members=(1, 2))

    await corosync_cluster[2].kill()
    nodes, quorum = await take(handle, 2)
    assert isinstance(nodes, NodelistChange)
    assert nodes == NodelistChange(nodes.ring_id, (1,), (), (2,))
    assert quorum == QuorumChange(quorate=False, ring_id=nodes.ring_id, members=(1,))
    assert not await handle.is_quorate()

    await corosync_cluster[2].start()
    nodes = (await take(handle, 1))[0]
    assert isinstance(nodes, NodelistChange)
    assert nodes == NodelistChange(nodes.ring_id, (1, 2), (2,), ())
    quorum = QuorumChange(quorate=True, ring_id=nodes.ring_id, members=(1, 2))
    while quorum not in await take(handle, 1):
        pass

    await handle.trackstop()
    await handle.trackstart(Track.CURRENT)
    assert await take(handle, 2) == [NodelistChange(nodes.ring_id, (1, 2), (), ()), quorum]
    await close(handle)


async def test_qdevice_calls(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(VOTEQUORUM)
    await handle.trackstart(Track.CURRENT)
    nodelist = (await take(handle, 1))[0]
    assert isinstance(nodelist, triocoro.VotequorumNodelist)
    ring = nodelist.ring_id

    async def device() -> tuple[str, VotequorumFlag]:
        info = await handle.info(1)
        return info.qdevice_name, info.flags & ~VotequorumFlag.QUORATE

    async def becomes(name: str, flags: VotequorumFlag) -> None:
        """Replies come before the messages that change it have been delivered."""
        with trio.fail_after(10):
            while await device() != (name, flags):  # noqa: ASYNC110 - no event announces it
                await trio.sleep(0.005)

    flags = VotequorumFlag.QDEVICE_REGISTERED
    await handle.qdevice_register("n" * 254)
    await becomes("n" * 254, flags)
    await handle.qdevice_update("n" * 254, "device")
    await becomes("device", flags)
    with pytest.raises(triocoro.MessageError):
        await handle.qdevice_poll("device", True, triocoro.RingId(ring.nodeid, ring.seq + 1))  # noqa: FBT003 - as in C
    await handle.qdevice_poll("device", False, ring)  # noqa: FBT003 - as in C
    flags |= VotequorumFlag.QDEVICE_ALIVE
    await becomes("device", flags)
    await handle.qdevice_poll("device", True, ring)  # noqa: FBT003 - as in C
    flags |= VotequorumFlag.QDEVICE_CAST_VOTE
    await becomes("device", flags)
    await handle.qdevice_master_wins("device", True)  # noqa: FBT003 - as in C
    await becomes("device", flags | VotequorumFlag.QDEVICE_MASTER_WINS)
    await handle.qdevice_master_wins("device", False)  # noqa: FBT003 - as in C
    await becomes("device", flags)
    await handle.qdevice_unregister("device")
    await becomes("", VotequorumFlag(0))

    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "votequorum_qdevice_unregister": lambda: handle.qdevice_unregister("device"),
        "votequorum_qdevice_update": lambda: handle.qdevice_update("device", "other"),
        "votequorum_qdevice_poll": lambda: handle.qdevice_poll("device", True, ring),  # noqa: FBT003 - as in C
        "votequorum_qdevice_master_wins": lambda: handle.qdevice_master_wins("device", True),  # noqa: FBT003 - as in C
    }
    for function, call in calls.items():
        with pytest.raises(triocoro.NotExistError) as caught:
            await call()
        assert caught.value.function == function
    await close(handle)


async def test_qdevice_extra_info_needs_a_newer_library(corosync: Node, corosync_mode: str) -> None:
    if corosync_mode == "real" and installed.tells_extra_info():
        pytest.skip("this libvotequorum is new enough; tests/sdk/test_extra_info.py has what it does")
    with pytest.raises(triocoro.NotSupportedError, match="votequorum_model_initialize"):
        await corosync.endpoint.connect(VotequorumSpec(extra_info=True))
    handle = await corosync.endpoint.connect(VOTEQUORUM)
    with pytest.raises(triocoro.NotSupportedError, match="votequorum_set_qdevice_extra_info"):
        await handle.set_qdevice_extra_info(b"info")
    with pytest.raises(triocoro.NotSupportedError, match="votequorum_get_qdevice_extra_info"):
        await handle.get_qdevice_extra_info(1)
    await close(handle)


# -- cfg ---------------------------------------------------------------------------------------------------------------


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.corosync(nodes=2)
async def test_cfg_knows_the_nodes(corosync_cluster: Cluster) -> None:
    handle = await corosync_cluster[1].endpoint.connect(CFG)
    assert await handle.local_nodeid() == 1
    addresses = {nodeid: await handle.node_addresses(nodeid) for nodeid in (1, 2)}
    for nodeid, (address,) in addresses.items():
        assert str(address) in await ask(corosync_cluster[1], "corosync-cfgtool", "-a", str(nodeid))
    status = await handle.node_status(2)
    (link,) = status.links
    assert (status.nodeid, status.reachable, status.remote, status.external) == (2, True, False, False)
    assert (link.number, link.enabled, link.connected) == (0, True, True)
    assert (link.source, link.destination) == (str(addresses[1][0]), str(addresses[2][0]))
    (ring,) = await handle.ring_status()
    assert (ring.name, ring.status) == (f"0 {link.source}", "n3")
    with pytest.raises(triocoro.NotExistError):
        await handle.node_addresses(9)
    with pytest.raises(triocoro.FailedOperationError):
        await handle.node_status(9)
    await handle.reopen_log_files()
    await handle.reload_config()
    assert await handle.local_nodeid() == 1
    await close(handle)


async def test_refused_shutdown_and_its_connection(corosync: Node) -> None:
    stats = await corosync.endpoint.connect(STATS)
    asking = await corosync.endpoint.connect(CFG)
    active = await stats.get("stats.ipcs.global.active")
    before = open_fds()
    answering = await corosync.endpoint.connect(CFG)
    await answering.trackstart()

    async def refuse() -> None:
        assert await take(answering, 1) == [ShutdownFlag.REQUEST]
        await answering.reply_to_shutdown(False)  # noqa: FBT003 - as in C

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse)
            with pytest.raises(triocoro.BusyError):
                await asking.try_shutdown(ShutdownFlag.REQUEST)
    await answering.trackstop()
    await close(answering)
    # The library does not disconnect a handle that has replied.
    assert open_fds() == before
    with trio.fail_after(10):
        while await stats.get("stats.ipcs.global.active") != active:  # noqa: ASYNC110 - no event announces it
            await trio.sleep(0.02)
    await close(asking, stats)


@pytest.mark.deadline(20)
async def test_shutdown_regardless(corosync: Node) -> None:
    asking = await corosync.endpoint.connect(CFG)
    answering = [await corosync.endpoint.connect(CFG) for _ in range(2)]
    for handle in answering:
        await handle.trackstart()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(asking.try_shutdown, ShutdownFlag.REGARDLESS)
        for handle, accept in zip(answering, (True, False), strict=True):
            assert await take(handle, 1) == [ShutdownFlag.REGARDLESS]
            await handle.reply_to_shutdown(accept)
    for handle in (asking, *answering):
        with pytest.raises(triocoro.LibraryError):
            while True:
                with trio.move_on_after(math.inf if handle.hangs_up else LOOK):
                    await trio.lowlevel.wait_readable(handle.fileno())
                handle.dispatch(1, 1)
    await close(asking, *answering)


@pytest.mark.corosync(nodes=2)
@pytest.mark.deadline(20)
async def test_kill_node(corosync_cluster: Cluster) -> None:
    handle = await corosync_cluster[1].endpoint.connect(CFG)
    await handle.kill_node(2, "a test says so")
    await poll_until(lambda: "a test says so" in corosync_cluster[2].log)
    # With the daemon gone, the library returns what happens to be on its stack.
    await corosync_cluster[1].freeze()

    async def kill() -> None:
        with pytest.raises(triocoro.LibraryError):
            await handle.kill_node(2, "again")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kill)
        await trio.testing.wait_all_tasks_blocked()
        await corosync_cluster[1].kill()
    await close(handle)
