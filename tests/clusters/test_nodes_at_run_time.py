"""Nodes that are added and removed at run time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from support.production import messages_get_around, nodes_seen_by

import triocoro
from pytest_corosync.plugin import ClusterFactory, Mode
from triocoro import (
    CmapChange,
    CmapTrack,
    CorosyncUnavailableError,
    CsError,
    EventStream,
    InvalidParamError,
    KeyNotFoundError,
)
from triocoro.testing import Cluster, ClusterOptions, FakeCluster, NetnsCluster, Node
from triocoro.testing._cluster.addresses import Addresses

pytestmark = pytest.mark.deadline(60)


async def votes_seen_by(node: Node) -> tuple[int, int, int, bool]:
    """The total and the expected votes, quorum, and whether there is quorum, on a node."""
    async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
        info = await votequorum.info()
        return info.total_votes, info.expected_votes, info.quorum, info.quorate


@pytest.mark.corosync(nodeids=[300, 301])
async def test_nodes_come_and_go(corosync_cluster: Cluster) -> None:
    cluster = corosync_cluster
    old = cluster[300]
    added = await cluster.add_node(votes=2)
    await cluster.settled()
    assert added is cluster[302]
    assert list(cluster.nodes) == list(cluster.options.nodeids) == [300, 301, 302]
    for node in cluster.nodes.values():
        assert await nodes_seen_by(node) == (300, 301, 302)
        assert await votes_seen_by(node) == (4, 4, 3, True)
    async with triocoro.open_cfg() as cfg:
        assert (await cfg.node_status(302)).links[0].destination == "192.0.2.3"
        assert [ring.status for ring in await cfg.ring_status()] == ["n33"]
    await messages_get_around(cluster)

    # The first one goes, while it is cut off, and another one gets its address, but not its cuts.
    await cluster.isolate(300)
    await cluster.remove_node(300)
    await cluster.settled()
    assert await votes_seen_by(cluster[301]) == (3, 3, 2, True)
    assert not old.running
    assert cluster.network.cut == frozenset()
    with pytest.raises(RuntimeError, match=f"node 300 of {cluster.name} was removed from its cluster"):
        await old.start()
    await cluster.add_node(1000)
    await cluster.settled()
    for node in cluster.nodes.values():
        assert await nodes_seen_by(node) == (301, 302, 1000)
        assert await votes_seen_by(node) == (4, 4, 3, True)
        async with triocoro.open_cmap(endpoint=node.endpoint) as cmap:
            assert await cmap.get("nodelist.node.2.nodeid") == 1000
            assert await cmap.get("nodelist.node.2.ring0_addr") == "192.0.2.1"
            with pytest.raises(KeyNotFoundError):
                await cmap.get("nodelist.node.3.nodeid")


@pytest.mark.corosync(nodes=2)
async def test_a_node_that_is_down_reads_the_new_list_when_it_starts(corosync_cluster: Cluster) -> None:
    await corosync_cluster[2].kill()
    await corosync_cluster.add_node()
    await corosync_cluster[2].start()
    await corosync_cluster.settled()
    for node in corosync_cluster.nodes.values():
        assert await nodes_seen_by(node) == (1, 2, 3)
        assert await votes_seen_by(node) == (3, 3, 2, True)


async def test_what_clients_see_of_it(make_corosync_cluster: ClusterFactory) -> None:
    """The changes of the node list on another node, in order."""
    cluster = make_corosync_cluster(nodes=1)
    async with (
        triocoro.open_cmap(endpoint=cluster[1].endpoint) as cmap,
        cmap.track("nodelist.", prefix=True) as changes,
        triocoro.open_votequorum(endpoint=cluster[1].endpoint) as votequorum,
    ):
        await cluster.add_node(7)
        assert [await described(await changes.receive()) for _ in range(6)] == [
            "DELETE local_node_pos 0 -> None",
            "ADD local_node_pos None -> 0",
            "ADD node.1.name None -> node7",
            "ADD node.1.nodeid None -> 7",
            "ADD node.1.quorum_votes None -> 1",
            "ADD node.1.ring0_addr None -> 192.0.2.7",
        ]
        await cluster.settled()
        await cluster.remove_node(7)
        assert [await described(await changes.receive()) for _ in range(6)] == [
            "DELETE local_node_pos 0 -> None",
            "DELETE node.1.name node7 -> None",
            "DELETE node.1.nodeid 7 -> None",
            "DELETE node.1.quorum_votes 1 -> None",
            "DELETE node.1.ring0_addr 192.0.2.7 -> None",
            "ADD local_node_pos None -> 0",
        ]
        await cluster.settled()
        # votequorum remembers the node, which has no votes in the cluster any more.
        assert (await votequorum.info(7)).state is triocoro.NodeState.DEAD
        assert await votes_seen_by(cluster[1]) == (1, 1, 1, True)


async def described(change: CmapChange) -> str:
    await trio.lowlevel.checkpoint()
    assert isinstance(change.event, CmapTrack)
    return f"{change.event.name} {change.key.removeprefix('nodelist.')} {change.old!s} -> {change.new!s}"


async def test_changes_that_are_refused_change_nothing(corosync_cluster: Cluster) -> None:
    options = corosync_cluster.options
    with pytest.raises(ValueError, match=r"nodeids must be different: \(1, 2, 3, 2\)"):
        await corosync_cluster.add_node(2)
    with pytest.raises(ValueError, match="nodeids must be 1 to 65535"):
        await corosync_cluster.add_node(0)
    with pytest.raises(ValueError, match="votes must not be negative"):
        await corosync_cluster.add_node(votes=-1)
    with pytest.raises(ValueError, match="no node 4 is among 1 to 3"):
        await corosync_cluster.remove_node(4)
    assert corosync_cluster.options is options
    assert sorted(corosync_cluster.nodes) == [1, 2, 3]


@pytest.mark.corosync(nodes=1)
async def test_the_last_node_stays(corosync_cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="'nodes' must be >= 1: 0"):
        await corosync_cluster.remove_node(1)
    assert corosync_cluster[1].running


@pytest.mark.parametrize("call, arguments", [("add_node", ()), ("remove_node", (2,))])
async def test_nodes_of_a_cluster_that_does_not_run(corosync_mode: Mode, call: str, arguments: tuple[Any, ...]) -> None:
    cluster = (NetnsCluster if corosync_mode == "real" else FakeCluster)(nodes=2)
    with pytest.raises(RuntimeError, match="does not run"):
        await getattr(cluster, call)(*arguments)


async def test_a_node_that_there_is_not(make_corosync_cluster: ClusterFactory) -> None:
    cluster = make_corosync_cluster(nodes=2)
    with pytest.raises(KeyError, match="there is no node 7 in this cluster; its nodes are 1, 2"):
        _ = cluster[7]


# With a third node, the token timeout would wrap around to 10 ms, which every daemon refuses.
_TWO_AT_MOST = {"totem": [f"token_coefficient: {2**32 - 490}"]}


async def unchanged(cluster: Cluster, options: ClusterOptions) -> None:
    """Check that a cluster of two nodes is as before: its options and network, its daemons, and their node lists."""
    await cluster.settled()
    assert cluster.options is options
    assert list(cluster.nodes) == [1, 2]
    assert cluster.network.nodeids == {1, 2}
    for node in cluster.nodes.values():
        assert await nodes_seen_by(node) == (1, 2)
        assert await votes_seen_by(node) == (2, 2, 2, True)
        async with triocoro.open_cmap(endpoint=node.endpoint) as cmap:
            assert await cmap.get("nodelist.local_node_pos") == node.nodeid - 1
            assert await cmap.items("nodelist.node.2.") == []
    await messages_get_around(cluster)


async def interesting(changes: EventStream[CmapChange]) -> tuple[str, object]:
    """The next change of these two keys."""
    while True:
        change = await changes.receive()
        if change.key in {"nodelist.local_node_pos", "config.reload_status"}:
            return change.key, change.new


@pytest.mark.corosync(nodes=2, extra=_TWO_AT_MOST)
async def test_a_node_that_the_daemons_refuse_is_taken_out_again(corosync_cluster: Cluster) -> None:
    options = corosync_cluster.options
    async with triocoro.open_cmap() as cmap, cmap.track(prefix=True) as changes:
        for _ in range(2):
            with pytest.raises(InvalidParamError, match=r"node 1 of .* refused"):
                await corosync_cluster.add_node()
            await unchanged(corosync_cluster, options)
            # The refused list has cost the node its position already.
            assert [await interesting(changes) for _ in range(4)] == [
                ("nodelist.local_node_pos", None),
                ("config.reload_status", CsError.INVALID_PARAM),
                ("nodelist.local_node_pos", 0),
                ("config.reload_status", CsError.OK),
            ]
    assert "Configuration is not valid: parse error in config: The token timeout parameter" in corosync_cluster[1].log


@pytest.mark.corosync(nodes=2, extra=_TWO_AT_MOST)
async def test_a_node_that_does_not_start_is_taken_out_again(corosync_cluster: Cluster) -> None:
    options = corosync_cluster.options
    for node in corosync_cluster.nodes.values():
        await node.stop()
    with pytest.raises(CorosyncUnavailableError, match="node 3"):
        await corosync_cluster.add_node()
    for node in corosync_cluster.nodes.values():
        await node.start()
    await unchanged(corosync_cluster, options)


@pytest.mark.corosync(nodes=2)
@pytest.mark.corosync_real_only(reason="the nodes of a fake have no network of their own")
async def test_a_node_whose_network_is_half_made_is_taken_out_again(
    corosync_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(*_: object) -> list[str]:
        return ["nonsense"]

    options = corosync_cluster.options
    with monkeypatch.context() as patch:
        patch.setattr(Addresses, "interfaces", nonsense)
        with pytest.raises(CorosyncUnavailableError, match=r"node 3: .*nonsense"):
            await corosync_cluster.add_node()
    await unchanged(corosync_cluster, options)
    await corosync_cluster.add_node()  # nothing is in its way
    await corosync_cluster.settled()
    assert await nodes_seen_by(corosync_cluster[3]) == (1, 2, 3)
