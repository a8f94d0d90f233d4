"""Every public async function is a checkpoint whenever it succeeds, even where it has nothing to wait for."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from types import ModuleType
from typing import TypeAlias, TypeVar

import pytest
import trio
from trio.testing import assert_checkpoints

import triocoro
import triocoro.lowlevel
import triocoro.testing
from triocoro import CmapTrack, CmapType, RingId, ShutdownFlag, VotequorumNodelist
from triocoro._raw import RawHandle
from triocoro._services import CFG, CPG, ICMAP, QUORUM, STATS, VOTEQUORUM
from triocoro.lowlevel import CfgHandle, CpgHandle, Dispatch, IterationType, Track, VotequorumHandle
from triocoro.testing import Cluster, History, Node
from triocoro.testing._fake.cluster import FakeNode
from triocoro.testing._netns.node import NetnsNode

T = TypeVar("T")
Case: TypeAlias = Callable[[Cluster], Awaitable[None]]

_CASES: dict[str, Case] = {}
"""What tries a public async function, by its name."""


def case(name: str) -> Callable[[Case], Case]:
    def register(function: Case) -> Case:
        assert name not in _CASES
        _CASES[name] = function
        return function

    return register


async def checked(awaitable: Awaitable[T]) -> T:
    with assert_checkpoints():
        return await awaitable


async def _entered_and_left(manager: AbstractAsyncContextManager[object]) -> None:
    await checked(manager.__aenter__())
    await checked(manager.__aexit__(None, None, None))


# -- groups ------------------------------------------------------------------------------------------------------------


@case("open_group")
async def _(_: Cluster) -> None:
    await _entered_and_left(triocoro.open_group("g"))
    await _entered_and_left(triocoro.open_group("g", receive=False))


@case("Group.send")
async def _(_: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        await checked(group.send(b""))
        await checked(group.send(b"a", bytearray(b"b")))
        await checked(group.send(bytes(1_047_553)))


@case("Group.send_batch")
async def _(_: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        await checked(group.send_batch([]))
        await checked(group.send_batch([b"a"]))
        await checked(group.send_batch([b"a"] * 1000))


@case("Group.send_and_wait")
async def _(_: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        await checked(group.send_and_wait(b"a"))


@case("Group.receive")
async def _(_: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        await checked(group.receive())
        await group.send_and_wait(b"a")
        await checked(group.receive())
        await group.send_and_wait(b"a")
        # The loop that an application writes.
        await checked(anext(group))


@case("Group.receive_batch")
async def _(_: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        await checked(group.receive_batch())
        await group.send_and_wait(b"a")
        await checked(group.receive_batch(max_events=1))


@case("Group.aclose")
async def _(_: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        await checked(group.aclose())
        await checked(group.aclose())


@case("open_cpg")
async def _(_: Cluster) -> None:
    await _entered_and_left(triocoro.open_cpg())


@case("Cpg.local_nodeid")
async def _(_: Cluster) -> None:
    async with triocoro.open_cpg() as cpg:
        await checked(cpg.local_nodeid())


@case("Cpg.members")
async def _(_: Cluster) -> None:
    async with triocoro.open_cpg() as cpg:
        await checked(cpg.members("nobody"))


@case("Cpg.groups")
async def _(_: Cluster) -> None:
    async with triocoro.open_cpg() as cpg:
        await checked(cpg.groups())


# -- votequorum --------------------------------------------------------------------------------------------------------


@case("open_votequorum")
async def _(_: Cluster) -> None:
    await _entered_and_left(triocoro.open_votequorum())


@case("Votequorum.info")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.info())
        await checked(votequorum.info(1))


@case("Votequorum.set_expected")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.set_expected(3))


@case("Votequorum.set_votes")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.set_votes(1, 2))


@case("Votequorum.wait_quorate")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.wait_quorate())
        await checked(votequorum.wait_quorate())


@case("Votequorum.track")
async def _(_: Cluster) -> None:
    """Only entering must be one, as with Trio's own: leaving has nothing to wait for."""
    async with triocoro.open_votequorum() as votequorum:
        for _again in range(2):
            manager = votequorum.track()
            await checked(manager.__aenter__())
            await manager.__aexit__(None, None, None)


@case("EventStream.receive")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await checked(changes.receive())
        await checked(anext(changes))


@case("EventStream.receive_batch")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await checked(changes.receive_batch(max_events=1))
        await checked(changes.receive_batch())


@case("EventStream.aclose")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await checked(changes.aclose())
        await checked(changes.aclose())


@case("Votequorum.qdevice_register")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.qdevice_register("device"))


@case("Votequorum.qdevice_update")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.qdevice_update("device", "device"))


@case("Votequorum.qdevice_poll")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        nodelist = await changes.receive()
        assert isinstance(nodelist, VotequorumNodelist)
        await checked(votequorum.qdevice_poll("device", cast_vote=False, ring_id=nodelist.ring_id))


@case("Votequorum.qdevice_master_wins")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.qdevice_master_wins("device", allow=False))


@case("Votequorum.qdevice_unregister")
async def _(_: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await checked(votequorum.qdevice_unregister("device"))


@case("Votequorum.qdevice_extra_info")
async def _(_: Cluster) -> None:
    """It fails here: Corosync 3.1 has no such call."""


@case("Votequorum.set_qdevice_extra_info")
async def _(_: Cluster) -> None:
    """As above."""


# -- quorum ------------------------------------------------------------------------------------------------------------


@case("open_quorum")
async def _(_: Cluster) -> None:
    await _entered_and_left(triocoro.open_quorum())


@case("Quorum.is_quorate")
async def _(_: Cluster) -> None:
    async with triocoro.open_quorum() as quorum:
        await checked(quorum.is_quorate())


@case("Quorum.wait_quorate")
async def _(_: Cluster) -> None:
    async with triocoro.open_quorum() as quorum:
        await checked(quorum.wait_quorate())
        await checked(quorum.wait_quorate())


@case("Quorum.track")
async def _(_: Cluster) -> None:
    """Only entering must be one, as with votequorum."""
    async with triocoro.open_quorum() as quorum:
        for _again in range(2):
            manager = quorum.track()
            await checked(manager.__aenter__())
            await manager.__aexit__(None, None, None)


# -- cmap --------------------------------------------------------------------------------------------------------------


@case("open_cmap")
async def _(_: Cluster) -> None:
    await _entered_and_left(triocoro.open_cmap())


@case("Cmap.set")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.set("checkpoint.key", 1, CmapType.UINT8))
        await checked(cmap.set("checkpoint.key", 1))


@case("Cmap.get")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.get("checkpoint.key"))


@case("Cmap.get_typed")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.get_typed("checkpoint.key"))


@case("Cmap.increment")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.increment("checkpoint.key"))


@case("Cmap.decrement")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.decrement("checkpoint.key"))


@case("Cmap.items")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.items())
        await checked(cmap.items("nothing.begins.like.this"))


@case("Cmap.items_typed")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.items_typed())


@case("Cmap.track")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await _entered_and_left(cmap.track("checkpoint.key"))


@case("Cmap.delete")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.delete("checkpoint.key"))


# -- cfg ---------------------------------------------------------------------------------------------------------------


@case("open_cfg")
async def _(_: Cluster) -> None:
    await _entered_and_left(triocoro.open_cfg())


@case("Cfg.local_nodeid")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg:
        await checked(cfg.local_nodeid())


@case("Cfg.node_status")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg:
        await checked(cfg.node_status(1))


@case("Cfg.ring_status")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg:
        await checked(cfg.ring_status())


@case("Cfg.node_addresses")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg:
        await checked(cfg.node_addresses())


@case("Cfg.reload_config")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg:
        await checked(cfg.reload_config())


@case("Cfg.reopen_log_files")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg:
        await checked(cfg.reopen_log_files())


@case("Cfg.track_shutdown")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg:
        await _entered_and_left(cfg.track_shutdown())


@case("ShutdownRequest.reply")
async def _(_: Cluster) -> None:
    async with triocoro.open_cfg() as cfg, cfg.track_shutdown() as requests, trio.open_nursery() as nursery:

        async def refused() -> None:
            async with triocoro.open_cfg() as another:
                with pytest.raises(triocoro.BusyError):
                    await another.try_shutdown()

        nursery.start_soon(refused)
        request = await requests.receive()
        await checked(request.reply(False))  # noqa: FBT003 - as in C


async def _ended(cluster: Cluster, end: Callable[[triocoro.Cfg], Awaitable[None]]) -> None:
    """Try what ends the daemon, and start it again."""
    with pytest.raises(triocoro.ConnectionLostError):
        async with triocoro.open_cfg() as cfg:
            with trio.CancelScope(shield=True):  # its success may come with the loss of the connection
                await checked(end(cfg))
            await trio.sleep_forever()
    await cluster[1].stop()
    await cluster[1].start()


@case("Cfg.kill_node")
async def _(cluster: Cluster) -> None:
    await _ended(cluster, lambda cfg: cfg.kill_node(1))


@case("Cfg.try_shutdown")
async def _(cluster: Cluster) -> None:
    await _ended(cluster, lambda cfg: cfg.try_shutdown())


# -- lowlevel ----------------------------------------------------------------------------------------------------------


async def _ignore(_: object) -> None:
    pass


async def _joined() -> CpgHandle:
    handle = await triocoro.lowlevel.cpg_initialize(confchg=_ignore, deliver=_ignore)
    await handle.join("g")
    await handle.dispatch(Dispatch.ONE)
    return handle


async def _leave(handle: CpgHandle) -> None:
    """Leave before the next one joins: it would be told to try again."""
    await handle.leave("g")
    await handle.dispatch(Dispatch.ONE)
    await handle.finalize()


@case("lowlevel.cpg_initialize")
async def _(_: Cluster) -> None:
    handle = await checked(triocoro.lowlevel.cpg_initialize())
    await handle.finalize()


@case("lowlevel.CpgHandle.join")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cpg_initialize(confchg=_ignore)
    await checked(handle.join("g"))
    await handle.dispatch(Dispatch.ONE)
    await _leave(handle)


@case("lowlevel.CpgHandle.leave")
async def _(_: Cluster) -> None:
    handle = await _joined()
    await checked(handle.leave("g"))
    await handle.dispatch(Dispatch.ONE)
    await handle.finalize()


@case("lowlevel.CpgHandle.mcast_joined")
async def _(_: Cluster) -> None:
    handle = await _joined()
    await checked(handle.mcast_joined(b""))
    await checked(handle.mcast_joined(b"a", b"b"))
    await checked(handle.mcast_joined(bytes(1_047_553)))
    for _message in range(3):
        await handle.dispatch(Dispatch.ONE)
    await _leave(handle)


@case("lowlevel.CpgHandle.membership_get")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cpg_initialize()
    await checked(handle.membership_get("nobody"))
    await handle.finalize()


@case("lowlevel.CpgHandle.local_get")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cpg_initialize()
    await checked(handle.local_get())
    await handle.finalize()


@case("lowlevel.CpgHandle.iteration")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cpg_initialize()
    await checked(handle.iteration(IterationType.ALL))
    await handle.finalize()


@case("lowlevel.CpgHandle.dispatch")
async def _(_: Cluster) -> None:
    handle = await _joined()
    await checked(handle.dispatch(Dispatch.ALL))
    for kind in (Dispatch.ONE, Dispatch.ALL, Dispatch.ONE_NONBLOCKING):
        await handle.mcast_joined(b"a")
        await trio.lowlevel.wait_readable(handle.fd)
        await checked(handle.dispatch(kind))
    await _leave(handle)

    async def finalize(_: object) -> None:
        await handle.finalize()

    handle = await triocoro.lowlevel.cpg_initialize(confchg=finalize)
    await handle.join("g")
    await checked(handle.dispatch(Dispatch.BLOCKING))


@case("lowlevel.CpgHandle.finalize")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cpg_initialize()
    await checked(handle.finalize())
    await checked(handle.finalize())


@case("lowlevel.votequorum_initialize")
async def _(_: Cluster) -> None:
    handle = await checked(triocoro.lowlevel.votequorum_initialize())
    await handle.finalize()


async def _votequorum() -> VotequorumHandle:
    return await triocoro.lowlevel.votequorum_initialize(nodelist_notify=_ignore, quorum_notify=_ignore)


@case("lowlevel.VotequorumHandle.getinfo")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.getinfo(0))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.setexpected")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.setexpected(3))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.setvotes")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.setvotes(1, 2))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.trackstart")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.trackstart(Track.CHANGES))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.trackstop")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await handle.trackstart(Track.CHANGES)
    await checked(handle.trackstop())
    await handle.finalize()


@case("lowlevel.VotequorumHandle.dispatch")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.dispatch(Dispatch.ALL))
    # Both events are there before the reply.
    await handle.trackstart(Track.CHANGES)
    await checked(handle.dispatch(Dispatch.ONE))
    await checked(handle.dispatch(Dispatch.ONE_NONBLOCKING))
    await checked(handle.dispatch(Dispatch.ALL))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.finalize")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.finalize())
    await checked(handle.finalize())


@case("lowlevel.CpgHandle.zcb_alloc")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cpg_initialize()
    await _entered_and_left(handle.zcb_alloc(100))
    await handle.finalize()


@case("lowlevel.CpgHandle.zcb_mcast_joined")
async def _(_: Cluster) -> None:
    handle = await _joined()
    async with handle.zcb_alloc(100) as buffer:
        await checked(handle.zcb_mcast_joined(buffer))
    await handle.dispatch(Dispatch.ONE)
    await _leave(handle)


@case("lowlevel.VotequorumHandle.qdevice_register")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.qdevice_register("device"))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.qdevice_update")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.qdevice_update("device", "device"))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.qdevice_poll")
async def _(_: Cluster) -> None:
    rings: list[RingId] = []

    async def note(nodelist: VotequorumNodelist) -> None:
        rings.append(nodelist.ring_id)

    handle = await triocoro.lowlevel.votequorum_initialize(nodelist_notify=note)
    await handle.trackstart(Track.CURRENT)
    await handle.dispatch(Dispatch.ONE)
    await checked(handle.qdevice_poll("device", False, rings[0]))  # noqa: FBT003 - as in C
    await handle.finalize()


@case("lowlevel.VotequorumHandle.qdevice_master_wins")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.qdevice_master_wins("device", False))  # noqa: FBT003 - as in C
    await handle.finalize()


@case("lowlevel.VotequorumHandle.qdevice_unregister")
async def _(_: Cluster) -> None:
    handle = await _votequorum()
    await checked(handle.qdevice_unregister("device"))
    await handle.finalize()


@case("lowlevel.VotequorumHandle.get_qdevice_extra_info")
async def _(_: Cluster) -> None:
    """It fails here: Corosync 3.1 has no such call."""


@case("lowlevel.VotequorumHandle.set_qdevice_extra_info")
async def _(_: Cluster) -> None:
    """As above."""


@case("lowlevel.quorum_initialize")
async def _(_: Cluster) -> None:
    handle = await checked(triocoro.lowlevel.quorum_initialize())
    await handle.finalize()


@case("lowlevel.QuorumHandle.getquorate")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.quorum_initialize()
    await checked(handle.getquorate())
    await handle.finalize()


@case("lowlevel.QuorumHandle.trackstart")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.quorum_initialize()
    await checked(handle.trackstart(Track.CHANGES))
    await handle.finalize()


@case("lowlevel.QuorumHandle.trackstop")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.quorum_initialize()
    await checked(handle.trackstop())
    await handle.finalize()


@case("lowlevel.QuorumHandle.dispatch")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.quorum_initialize(nodelist_notify=_ignore, quorum_notify=_ignore)
    await checked(handle.dispatch(Dispatch.ALL))
    await handle.trackstart(Track.CHANGES)
    await checked(handle.dispatch(Dispatch.ONE))
    await checked(handle.dispatch(Dispatch.ONE_NONBLOCKING))
    await handle.finalize()


@case("lowlevel.QuorumHandle.finalize")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.quorum_initialize()
    await checked(handle.finalize())
    await checked(handle.finalize())


@case("lowlevel.cmap_initialize")
async def _(_: Cluster) -> None:
    handle = await checked(triocoro.lowlevel.cmap_initialize())
    await handle.finalize()


@case("lowlevel.CmapHandle.set")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.set("checkpoint.key", 1, CmapType.UINT8))
    await handle.finalize()


@case("lowlevel.CmapHandle.get")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.get("checkpoint.key"))
    await handle.finalize()


@case("lowlevel.CmapHandle.inc")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.inc("checkpoint.key"))
    await handle.finalize()


@case("lowlevel.CmapHandle.dec")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.dec("checkpoint.key"))
    await handle.finalize()


@case("lowlevel.CmapHandle.items")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.items())
    await handle.finalize()


@case("lowlevel.CmapHandle.track_add")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.track_add("checkpoint.key", CmapTrack.MODIFY, _ignore))
    await handle.finalize()


@case("lowlevel.CmapHandle.track_delete")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    tracker = await handle.track_add("checkpoint.key", CmapTrack.MODIFY, _ignore)
    await checked(handle.track_delete(tracker))
    await handle.finalize()


@case("lowlevel.CmapHandle.dispatch")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.dispatch(Dispatch.ALL))
    await handle.track_add("checkpoint.key", CmapTrack.MODIFY, _ignore)
    await handle.inc("checkpoint.key")
    await checked(handle.dispatch(Dispatch.ONE))
    await handle.finalize()


@case("lowlevel.CmapHandle.delete")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.delete("checkpoint.key"))
    await handle.finalize()


@case("lowlevel.CmapHandle.finalize")
async def _(_: Cluster) -> None:
    handle = await triocoro.lowlevel.cmap_initialize()
    await checked(handle.finalize())
    await checked(handle.finalize())


@case("lowlevel.cfg_initialize")
async def _(_: Cluster) -> None:
    handle = await checked(triocoro.lowlevel.cfg_initialize())
    await handle.finalize()


def _cfg_case(name: str, *calls: Callable[[CfgHandle], Awaitable[object]]) -> None:
    @case(f"lowlevel.CfgHandle.{name}")
    async def _(_: Cluster) -> None:
        handle = await triocoro.lowlevel.cfg_initialize(shutdown_callback=_ignore)
        for call in calls:
            await checked(call(handle))
        await handle.finalize()


_cfg_case("local_get", lambda handle: handle.local_get())
_cfg_case("node_status_get", lambda handle: handle.node_status_get(1))
_cfg_case("ring_status_get", lambda handle: handle.ring_status_get())
_cfg_case("get_node_addrs", lambda handle: handle.get_node_addrs(0))
_cfg_case("reload_config", lambda handle: handle.reload_config())
_cfg_case("reopen_log_files", lambda handle: handle.reopen_log_files())
_cfg_case("trackstart", lambda handle: handle.trackstart())
_cfg_case("trackstop", lambda handle: handle.trackstop())
_cfg_case("replyto_shutdown", lambda handle: handle.replyto_shutdown(True))  # noqa: FBT003 - as in C
_cfg_case("dispatch", lambda handle: handle.dispatch(Dispatch.ALL))
_cfg_case("finalize", lambda handle: handle.finalize(), lambda handle: handle.finalize())


async def _handle_ended(cluster: Cluster, end: Callable[[CfgHandle], Awaitable[None]]) -> None:
    handle = await triocoro.lowlevel.cfg_initialize()
    await checked(end(handle))
    await handle.finalize()
    await cluster[1].stop()
    await cluster[1].start()


@case("lowlevel.CfgHandle.kill_node")
async def _(cluster: Cluster) -> None:
    # Its success may come with the loss of the connection.
    with suppress(triocoro.ConnectionLostError):
        await _handle_ended(cluster, lambda handle: handle.kill_node(1, ""))
    await cluster[1].stop()
    await cluster[1].start()


@case("lowlevel.CfgHandle.try_shutdown")
async def _(cluster: Cluster) -> None:
    await _handle_ended(cluster, lambda handle: handle.try_shutdown(ShutdownFlag.REQUEST))


# -- endpoints and clusters --------------------------------------------------------------------------------------------


@case("Endpoint.connect")
async def _(cluster: Cluster) -> None:
    endpoint = cluster[1].endpoint
    for service in (CPG, VOTEQUORUM, QUORUM, ICMAP, STATS, CFG):
        raw: RawHandle[object] = await checked(endpoint.connect(service))
        raw.close()
        await raw.wait_closed()


@case("testing.Cluster.settled")
async def _(cluster: Cluster) -> None:
    await checked(cluster.settled())


@case("testing.Cluster.__aenter__")
async def _(cluster: Cluster) -> None:
    another = type(cluster)(nodes=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await checked(another.__aenter__())
    await checked(another.__aexit__(None, None, None))


@case("testing.Cluster.__aexit__")
async def _(_: Cluster) -> None:
    """Tried together with entering."""


@case("testing.Node.freeze")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].freeze())
    await checked(cluster[1].freeze())


@case("testing.Node.thaw")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].thaw())
    await checked(cluster[1].thaw())


@case("testing.Node.stop")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].stop())
    await checked(cluster[1].stop())


@case("testing.Node.start")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].start())
    await checked(cluster[1].start())


@case("testing.Node.kill")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].kill())
    await checked(cluster[1].kill())
    await cluster[1].start()


@case("testing.Node.restart")
async def _(cluster: Cluster) -> None:
    await checked(cluster[1].restart())


@case("testing.Cluster.partition")
async def _(cluster: Cluster) -> None:
    await checked(cluster.partition({1}))


@case("testing.Cluster.isolate")
async def _(cluster: Cluster) -> None:
    await checked(cluster.isolate(1))


@case("testing.Cluster.cut")
async def _(cluster: Cluster) -> None:
    async with type(cluster)(nodes=2) as two:  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await checked(two.cut(1, 2))


@case("testing.Cluster.lose")
async def _(cluster: Cluster) -> None:
    await checked(cluster.lose(1))


@case("testing.Cluster.heal")
async def _(cluster: Cluster) -> None:
    await checked(cluster.heal())


@case("testing.RecordingEndpoint.connect")
async def _(cluster: Cluster) -> None:
    endpoint = History().endpoint(cluster[1], client="a")
    for service in (CPG, VOTEQUORUM, QUORUM, ICMAP, STATS, CFG):
        raw: RawHandle[object] = await checked(endpoint.connect(service))
        raw.close()
        await raw.wait_closed()


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.mark.corosync(nodes=1, votes={1: 2}, qdevice_votes=1)
@pytest.mark.deadline(300)  # there are many
async def test_every_public_async_function_is_a_checkpoint(corosync_cluster: Cluster) -> None:
    """All on one cluster, since the order of the cases lets each find a daemon at work."""
    failed: list[str] = []
    for name, function in _CASES.items():
        with trio.fail_after(20):  # noqa: ASYNC912 - whether it is one is the question
            try:
                await function(corosync_cluster)
            except AssertionError as exc:
                failed.append(f"{name}: {exc}")
    assert failed == []


def _is_async(function: object) -> bool:
    """Whether it is an async function, or makes an async context manager (of an async generator)."""
    function = inspect.unwrap(function) if callable(function) else function
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _public_async_functions() -> set[str]:
    """Of all public modules, and of classes and what they are the public bases of; methods under their base's name."""
    found: set[str] = set()
    for module, prefix in (
        (triocoro, ""),
        (triocoro.lowlevel, "lowlevel."),
        (triocoro.testing, "testing."),
    ):
        public = _public(module)
        for name, value in public.items():
            if not inspect.isclass(value):
                found.update([prefix + name] if _is_async(value) else [])
                continue
            for cls in (value, *(cls for cls in (FakeNode, NetnsNode) if value is Node)):
                found.update(f"{prefix}{_home(cls, method).__name__}.{method}" for method in _async_methods(cls))
    return found


def _async_methods(cls: type) -> set[str]:
    return {
        name
        for base in cls.__mro__
        if base.__module__.startswith("triocoro")
        for name, value in vars(base).items()
        if _is_async(value) and (not name.startswith("_") or name.startswith("__a"))
    }


def _home(cls: type, method: str) -> type:
    """The most basic class that has the method, of those that have a public name."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("triocoro") and hasattr(base, method)]
    return next(base for base in reversed(bases) if not base.__module__.startswith("triocoro._"))


def _public(module: ModuleType) -> dict[str, object]:
    names: list[str] = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    return {name: vars(module)[name] for name in names if not inspect.ismodule(vars(module)[name])}


def test_every_public_async_function_has_a_case() -> None:
    public = _public_async_functions()
    assert len(public) > 40
    assert public - _CASES.keys() == set()
    assert _CASES.keys() - public == set()


async def test_the_check_sees_a_function_that_is_none() -> None:
    async def no_checkpoint() -> None:
        pass

    with pytest.raises(AssertionError, match="assert_checkpoints"):
        await checked(no_checkpoint())
