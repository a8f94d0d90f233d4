"""Clusters as they are in production: node ids with gaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import triocoro
from pytest_corosync.plugin import ClusterFactory
from triocoro import RingStatus, VotequorumNodelist
from triocoro.testing import Cluster, ClusterOptions, FakeCluster, History, Node, check

pytestmark = pytest.mark.deadline(30)


async def nodes_seen_by(node: Node) -> tuple[int, ...]:
    """The nodes of a node's ring."""
    async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
        nodelist = await changes.receive()
        assert isinstance(nodelist, VotequorumNodelist)
        return nodelist.nodes


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
        ({"nodeids": [0, 1]}, r"nodeids must be 1 to 65535, as knet cannot tell others apart: \(0, 1\)"),
        ({"nodeids": [65536]}, r"nodeids must be 1 to 65535"),
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
