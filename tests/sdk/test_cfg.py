"""Cfg: links and addresses, reloading the configuration, killing nodes, mistakes, and what corosync-cfgtool(8) says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any, cast

import attrs
import pytest
import trio
from support.cfg import refused
from support.external_programs import ask

import triocoro
from triocoro import (
    CmapChange,
    CmapTrack,
    CmapType,
    ConfigChange,
    ConnectionLostError,
    FailedOperationError,
    InvalidParamError,
    KeyNotFoundError,
    LinkStatus,
    NodeStatus,
    NotExistError,
    Reason,
    RingStatus,
    lowlevel,
)
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


def address(nodeid: int) -> str:
    return f"192.0.2.{nodeid}"


# -- links and addresses -----------------------------------------------------------------------------------------------


def status(by: int, of: int, mtu: int, *, up: bool = True, source: str | None = None) -> NodeStatus:
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
                source=address(by) if source is None else source,
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


@pytest.mark.corosync(nodes=2, links=2)
@pytest.mark.parametrize(
    "versions",
    [pytest.param(pair, marks=pytest.mark.corosync(ip_version=pair)) for pair in ((4, 6), (6, 4))],
)
async def test_addresses_of_both_ip_versions(corosync_cluster: Cluster, versions: tuple[int, int]) -> None:
    """The library takes all to be of the first one's."""
    handle = await lowlevel.cfg_initialize()
    async with triocoro.open_cfg() as cfg, triocoro.open_cmap() as cmap:
        for nodeid in corosync_cluster.nodes:
            keys = (f"nodelist.node.{nodeid - 1}.ring{link}_addr" for link in range(2))
            configured = tuple([ip_address(str(await cmap.get(key))) for key in keys])
            assert tuple(address.version for address in configured) == versions
            assert await cfg.node_addresses(nodeid) == configured
            assert await handle.get_node_addrs(nodeid) == configured
        assert await cfg.node_addresses() == await handle.get_node_addrs(0) == await cfg.node_addresses(1)
    await handle.finalize()


@pytest.mark.corosync(nodes=2, extra={"totem": ["transport: udpu"]})
async def test_transport_without_links(corosync_cluster: Cluster) -> None:
    """Corosync gives the address of each node, and takes its own for connected to itself."""
    async with triocoro.open_cfg() as cfg:
        for nodeid in corosync_cluster.nodes:
            found = await cfg.node_status(nodeid)
            assert found == status(1, nodeid, 1410, source="")
            assert await cfg.node_addresses(nodeid) == (IPv4Address(address(nodeid)),)
        assert await cfg.ring_status() == (RingStatus(f"0 {address(1)}", "OK"),)


# -- the configuration -------------------------------------------------------------------------------------------------


def _changed(
    event: CmapTrack, key: str, new: int, old: int | None = None, type_: CmapType = CmapType.UINT8
) -> CmapChange:
    return CmapChange(event, f"config.{key}", new, old, type_, None if old is None else type_)


@pytest.mark.corosync(nodes=2)
async def test_reloading(corosync_cluster: Cluster) -> None:
    """Every node reloads; a tracker of its map sees the start and the end."""
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


@pytest.mark.corosync_real_only(reason="the fake has no file that could be changed")
async def test_refused_configuration_is_explained_in_the_log(corosync: Node) -> None:
    async def edit(before: str, after: str) -> None:
        await ask(corosync, "sed", "-i", f"s/{before}/{after}/", "/run/triocoro/corosync.conf")

    async with triocoro.open_cfg() as cfg, triocoro.open_cmap() as cmap:
        await edit("token: 500", "token: 100")
        try:
            with pytest.raises(
                InvalidParamError, match=r"node 1 of \S+ refused the .* and keeps the old one; its log says why"
            ):
                await cfg.reload_config()
        finally:
            await edit("token: 100", "token: 500")
        await cfg.reload_config()
        assert await cmap.get("totem.token") == 500
    assert "Configuration is not valid: parse error in config: Not appropriate token" in corosync.log


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


# -- mistakes ----------------------------------------------------------------------------------------------------------


_BAD_NODEIDS: Sequence[tuple[Any, type[Exception], str]] = [
    (-1, ValueError, "not -1"),
    (2**32, ValueError, "not 4294967296"),
    (True, TypeError, "must be an int, not bool"),
    ("1", TypeError, "must be an int, not str"),
    (1.0, TypeError, "must be an int, not float"),
]


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
            ("a\nb", ValueError, r"reason must be printable, on one line, unlike 'a\nb'"),
            ("\x1b[31mred", ValueError, "must be printable"),
            ("\udcff", ValueError, "surrogates not allowed"),
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
