"""The services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

import triocoro
from triocoro import CmapType, VotequorumNodelist
from triocoro.testing import Cluster, FakeCluster

from . import Case, checked, entered_and_left, registrar

CASES: dict[str, Case] = {}
"""The cases, by the name of the function that each calls; a case may depend on those before it."""

case = registrar(CASES)


# -- groups ------------------------------------------------------------------------------------------------------------


@case("open_group")
async def _(_: Cluster) -> None:
    await entered_and_left(triocoro.open_group("g"))
    await entered_and_left(triocoro.open_group("g", receive=False))


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
        await checked(group.send_batch([bytes(1_047_553)]))


@case("Group.send_and_wait")
async def _(_: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        await checked(group.send_and_wait(b"a"))
        await checked(group.send_and_wait(bytes(1_047_553)))


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


@case("open_views")
async def _(_: Cluster) -> None:
    await entered_and_left(triocoro.open_views("g"))


@case("Views.send")
async def _(_: Cluster) -> None:
    async with triocoro.open_views("g") as views:
        await checked(views.send(b"a", bytearray(b"b")))
        await checked(views.send(bytes(1_047_553)))


@case("Views.send_batch")
async def _(_: Cluster) -> None:
    async with triocoro.open_views("g") as views:
        await checked(views.send_batch([]))
        await checked(views.send_batch([b"a", bytes(1_047_553)]))


@case("Views.send_and_wait")
async def _(_: Cluster) -> None:
    async with triocoro.open_views("g") as views:
        await checked(views.send_and_wait(b"a"))
        await checked(views.send_and_wait(bytes(1_047_553)))


@case("Views.receive")
async def _(_: Cluster) -> None:
    async with triocoro.open_views("g") as views:
        await checked(views.receive())
        await views.send_and_wait(b"a")
        await checked(anext(views))


@case("Views.receive_batch")
async def _(_: Cluster) -> None:
    async with triocoro.open_views("g") as views:
        await checked(views.receive_batch())
        await views.send_and_wait(b"a")
        await checked(views.receive_batch(max_events=1))


@case("Views.aclose")
async def _(_: Cluster) -> None:
    async with triocoro.open_views("g") as views:
        await checked(views.aclose())
        await checked(views.aclose())


@case("open_cpg")
async def _(_: Cluster) -> None:
    await entered_and_left(triocoro.open_cpg())


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
    await entered_and_left(triocoro.open_votequorum())


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


@case("Votequorum.wait_not_quorate")
async def _(_: Cluster) -> None:
    """On a fake in any case: the node of the cluster is quorate by itself."""
    async with FakeCluster(nodes=2) as cluster, triocoro.open_votequorum(endpoint=cluster[1]) as votequorum:
        await cluster[2].kill()
        await checked(votequorum.wait_not_quorate(), noted=False)
        await checked(votequorum.wait_not_quorate(), noted=False)


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
    await entered_and_left(triocoro.open_quorum())


@case("Quorum.is_quorate")
async def _(_: Cluster) -> None:
    async with triocoro.open_quorum() as quorum:
        await checked(quorum.is_quorate())


@case("Quorum.wait_quorate")
async def _(_: Cluster) -> None:
    async with triocoro.open_quorum() as quorum:
        await checked(quorum.wait_quorate())
        await checked(quorum.wait_quorate())


@case("Quorum.wait_not_quorate")
async def _(_: Cluster) -> None:
    """On a fake in any case: the node of the cluster is quorate by itself."""
    async with FakeCluster(nodes=2) as cluster, triocoro.open_quorum(endpoint=cluster[1]) as quorum:
        await cluster[2].kill()
        await checked(quorum.wait_not_quorate(), noted=False)
        await checked(quorum.wait_not_quorate(), noted=False)


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
    await entered_and_left(triocoro.open_cmap())


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
        await entered_and_left(cmap.track("checkpoint.key"))


@case("Cmap.delete")
async def _(_: Cluster) -> None:
    async with triocoro.open_cmap() as cmap:
        await checked(cmap.delete("checkpoint.key"))


# -- cfg ---------------------------------------------------------------------------------------------------------------


@case("open_cfg")
async def _(_: Cluster) -> None:
    await entered_and_left(triocoro.open_cfg())


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
        await entered_and_left(cfg.track_shutdown())


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


# -- sessions ----------------------------------------------------------------------------------------------------------


@case("Session.__aenter__")
async def _(_: Cluster) -> None:
    sessions = triocoro.sessions("g")
    for _again in range(2):
        session = await checked(anext(sessions))
        await entered_and_left(session)


@case("Session.__aexit__")
async def _(_: Cluster) -> None:
    """Tried together with entering."""


# -- what ends the daemon ----------------------------------------------------------------------------------------------


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
