"""`triocoro.lowlevel`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

import triocoro
import triocoro.lowlevel
from triocoro import CmapTrack, CmapType, RingId, ShutdownFlag, VotequorumNodelist
from triocoro.lowlevel import CfgHandle, CpgHandle, Dispatch, IterationType, Track, VotequorumHandle
from triocoro.testing import Cluster

from . import Case, checked, entered_and_left, registrar

CASES: dict[str, Case] = {}
"""The cases, by the name of the function that each calls; a case may depend on those before it."""

case = registrar(CASES)


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
    await entered_and_left(handle.zcb_alloc(100))
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
