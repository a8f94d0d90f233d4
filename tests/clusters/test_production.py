"""Clusters as they are in production: node ids with gaps, several links, IPv6, other transports, encryption."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest
import trio
from support.production import messages_get_around, nodes_seen_by

import triocoro
from pytest_corosync.plugin import ClusterFactory, Mode
from triocoro import Cfg, CmapMap, RingStatus, VotequorumNodelist
from triocoro.testing import Cluster, ClusterOptions, ClusterSettings, FakeCluster, History, Node, check

pytestmark = pytest.mark.deadline(30)


# -- node ids ----------------------------------------------------------------------------------------------------------

IDS = [300, 7, 65535, 12]
"""Not in order, with gaps, and as high as knet takes them."""


@pytest.mark.corosync(nodeids=IDS, votes={300: 2})
async def test_a_cluster_has_any_node_ids(corosync: Node, corosync_cluster: Cluster) -> None:
    cluster = corosync_cluster
    assert list(cluster.nodes) == list(cluster.options.nodeids) == IDS
    assert corosync is cluster[300]
    async with triocoro.open_cfg() as cfg, triocoro.open_cmap(endpoint=cluster[7].endpoint) as cmap:
        # The first node is the default endpoint. The states of links are in the order of the ids.
        assert await cfg.local_nodeid() == 300
        assert await cfg.ring_status() == (RingStatus("0 192.0.2.1", "33n3"),)
        assert [await cmap.get(f"nodelist.node.{number}.nodeid") for number in range(4)] == IDS
        assert await cmap.get("nodelist.local_node_pos") == 1
    async with triocoro.open_votequorum() as votequorum:
        assert (await votequorum.info(65535)).total_votes == 5
    await cluster.partition({300, 7}, {12, 65535})
    await cluster.settled()
    assert [await nodes_seen_by(node) for node in cluster.nodes.values()] == [
        (7, 300),
        (7, 300),
        (12, 65535),
        (12, 65535),
    ]
    await cluster.heal()
    await cluster.settled()
    assert await nodes_seen_by(cluster[12]) == (7, 12, 300, 65535)


@pytest.mark.corosync(nodeids=IDS, votes={300: 2})
async def test_histories_have_any_node_ids(corosync_cluster: Cluster) -> None:
    history = History()
    for nodeid in (65535, 300):
        endpoint = history.endpoint(corosync_cluster[nodeid], client=f"client {nodeid}")
        async with (
            triocoro.open_group("ids", endpoint=endpoint) as group,
            triocoro.open_votequorum(endpoint=endpoint) as votequorum,
            votequorum.track() as changes,
        ):
            assert (await group.send_and_wait(b"hello")).sender.nodeid == nodeid
            assert isinstance(await changes.receive(), VotequorumNodelist)
            assert (await votequorum.info()).quorate
    assert not check(history, options=corosync_cluster.options)


def test_the_number_of_nodes_follows_from_their_ids(make_corosync_cluster: ClusterFactory) -> None:
    options = ClusterOptions(nodeids=[5, 9])
    assert (options.nodes, options.nodeids) == (2, (5, 9))
    assert ClusterOptions(nodes=2).nodeids == range(1, 3)
    # Whatever the command line says of the number of nodes.
    assert list(make_corosync_cluster(nodeids=[5]).nodes) == [5]
    assert list(FakeCluster(options=options, nodes=3).nodes) == [1, 2, 3]
    assert list(FakeCluster(options=ClusterOptions(), nodeids=(8, 4)).nodes) == [8, 4]
    assert list(FakeCluster(options=options, token=900).nodes) == [5, 9]


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"nodeids": [1, 2], "nodes": 3}, r"nodeids must have as many ids as there are nodes, 3: \(1, 2\)"),
        ({"nodeids": [1, 2, 1]}, r"nodeids must be different: \(1, 2, 1\)"),
        ({"nodeids": [0, 1]}, r"nodeids must be 1 to 65535 with the transport knet: \(0, 1\)"),
        ({"nodeids": [65536]}, "nodeids must be 1 to 65535"),
        ({"nodeids": [2**32], "transport": "udp"}, "nodeids must be 1 to 4294967295 with the transport udp"),
        ({"nodeids": []}, "'nodes' must be >= 1: 0"),
        ({"nodeids": [5, 9], "votes": {1: 2}}, r"votes must be of nodes 5, 9: \{1: 2\}"),
    ],
)
def test_node_ids_that_the_daemon_refuses_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClusterOptions(**settings)


@pytest.mark.parametrize("nodeids", ["12", 5, [1.0]])
def test_node_ids_of_other_types_are_refused(nodeids: Sequence[int]) -> None:
    with pytest.raises(TypeError, match="nodeids must be a sequence of numbers"):
        ClusterOptions(nodeids=nodeids)


# -- links, transports, encryption, compression ------------------------------------------------------------------------

COMBINATIONS: Final[Mapping[str, ClusterSettings]] = {
    "links": {"nodeids": [1, 2, 3], "links": 2, "ip_version": (4, 6)},
    "encrypted": {"nodeids": [1, 20], "crypto_cipher": "aes128", "crypto_hash": "sha1", "compression": "zlib"},
    "unicast": {"nodeids": [4_000_000_000, 3], "transport": "udpu", "ip_version": 6},
    # The addresses are derived from the name of the cluster.
    "multicast": {"nodeids": [1, 2], "transport": "udp", "extra": {"totem": ["cluster_name: triocoro"]}},
    "multicast to IPv6": {
        "nodeids": [1, 2],
        "transport": "udp",
        "ip_version": 6,
        "extra": {"totem": ["cluster_name: another"]},
    },
}


@pytest.mark.corosync(nodeids=[3, 2**31], transport="udpu", auto_tie_breaker=True)
async def test_node_ids_from_2_to_the_31_on_count_as_negative(corosync_cluster: Cluster) -> None:
    """So the tie breaker is the higher one of these."""
    await corosync_cluster.isolate(3)
    await corosync_cluster.settled()
    quorate = {}
    for nodeid, node in corosync_cluster.nodes.items():
        async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
            quorate[nodeid] = (await votequorum.info()).quorate
    assert quorate == {3: False, 2**31: True}


@pytest.mark.parametrize("settings", COMBINATIONS.values(), ids=COMBINATIONS)
async def test_a_cluster_as_in_production(
    make_corosync_cluster: ClusterFactory, corosync_mode: Mode, settings: ClusterSettings
) -> None:
    """It carries messages, splits and heals; the fake has the keys and links of a real one."""
    cluster = make_corosync_cluster(**settings)
    await cluster.settled()
    await messages_get_around(cluster)
    first, *others = cluster.nodes
    if corosync_mode == "real":
        async with FakeCluster(**settings) as fake:
            for nodeid in cluster.nodes:
                assert await described(cluster[nodeid]) == await described(fake[nodeid])
    await cluster.isolate(first)
    await cluster.settled()
    assert await nodes_seen_by(cluster[first]) == (first,)
    assert await nodes_seen_by(cluster[others[0]]) == tuple(sorted(others))
    await cluster.heal()
    await cluster.settled()
    assert await nodes_seen_by(cluster[first]) == tuple(sorted(cluster.nodes))


async def described(node: Node) -> dict[str, object]:
    """The links of a node, its configuration, and the keys of its statistics."""
    async with (
        triocoro.open_cfg(endpoint=node.endpoint) as cfg,
        triocoro.open_cmap(endpoint=node.endpoint) as cmap,
        triocoro.open_cmap(CmapMap.STATS, endpoint=node.endpoint) as stats,
    ):
        keys = {key: typed for key, typed in await cmap.items_typed() if re.match(_DESCRIBING, key)}
        nodeids = [int(typed.value) for key, typed in keys.items() if key.endswith(".nodeid")]
        # knet finds out over time what fits into a packet to another node.
        with trio.fail_after(10):
            while 0 < min(await mtus(cfg, nodeids)) < 1000:  # noqa: ASYNC110 - no event announces it
                await trio.sleep(0.02)
        return {
            **keys,
            **{f"node {nodeid}": await cfg.node_status(nodeid) for nodeid in nodeids},
            "links": await cfg.ring_status(),
            "statistics": [key for key, _ in await stats.items() if not key.startswith(_OWN_STATISTICS)],
        }


_DESCRIBING: Final = r"nodelist|totem\.(?!cluster_name)|runtime\.(config|votequorum)|runtime\.members\.\d+\.ip"
_OWN_STATISTICS: Final = ("stats.ipcs.service", "stats.schedmiss.")


async def mtus(cfg: Cfg, nodeids: Sequence[int]) -> list[int]:
    return [link.mtu for nodeid in nodeids for link in (await cfg.node_status(nodeid)).links]


async def test_one_link_is_cut(make_corosync_cluster: ClusterFactory, corosync_mode: Mode) -> None:
    """The membership stays, and both ends report the link as down, sooner or later."""
    cluster = make_corosync_cluster(nodeids=[1, 2, 3], links=2, ip_version=(4, 6))
    async with (
        triocoro.open_cfg(endpoint=cluster[1].endpoint) as one,
        triocoro.open_cfg(endpoint=cluster[2].endpoint) as two,
    ):
        await cluster.cut(1, 2, link=1)
        at_once = "n33" if corosync_mode == "real" else "n13"
        assert [ring.status for ring in await one.ring_status()] == ["n33", at_once]
        assert cluster.reachable(1) == {1, 2, 3}
        await cluster.settled()
        assert [ring.status for ring in await one.ring_status()] == ["n33", "n13"]
        assert [ring.status for ring in await two.ring_status()] == ["3n3", "1n3"]
        status = await one.node_status(2)
        assert (status.reachable, [link.connected for link in status.links]) == (True, [True, False])
        assert await nodes_seen_by(cluster[1]) == (1, 2, 3)
        await cluster.heal()
        await cluster.settled()
        assert [ring.status for ring in await one.ring_status()] == ["n33", "n33"]


async def test_a_node_whose_links_are_all_cut_is_cut_off(make_corosync_cluster: ClusterFactory) -> None:
    cluster = make_corosync_cluster(nodeids=[1, 2, 3], links=2, ip_version=(4, 6))
    for other in (1, 2):
        for link in range(2):
            await cluster.cut(other, 3, link=link)
    await cluster.settled()
    assert await nodes_seen_by(cluster[1]) == (1, 2)
    assert await nodes_seen_by(cluster[3]) == (3,)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"links": 2, "transport": "udp"}, "links needs the transport knet, not udp"),
        ({"crypto_hash": "md5", "transport": "udpu"}, "crypto_hash needs the transport knet, not udpu"),
        ({"compression": "lz4", "transport": "udp"}, "compression needs the transport knet, not udp"),
        ({"crypto_cipher": "aes256"}, "crypto_cipher needs crypto_hash"),
        ({"links": 9}, "'links' must be <= 8: 9"),
        (
            {"links": 2, "ip_version": (4,)},
            r"ip_version must be 4 or 6, or one of these for each of the 2 links: \(4,\)",
        ),
        ({"ip_version": 5}, "ip_version must be 4 or 6, or one of these for each of the 1 links: 5"),
        ({"ip_version": (4, 6), "transport": "udpu"}, "ip_version must be 4 or 6, or one of these for each of the 1"),
        ({"transport": "iba"}, "'transport' must be in"),
        ({"crypto_cipher": "3des", "crypto_hash": "md5"}, "'crypto_cipher' must be in"),
        ({"compression": "zip"}, "'compression' must be in"),
    ],
)
def test_links_that_the_daemon_refuses_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ClusterOptions(**settings)


async def test_only_links_that_exist_are_cut(corosync_cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="no link 1 is among 0 to 0"):
        await corosync_cluster.cut(1, 2, link=1)
