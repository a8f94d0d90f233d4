"""The types of the public API as users' type checkers see them: mypy and pyright check the assertions of this module.

The functions are not called. pytest only checks that there are some.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trio

import triocoro
from triocoro import (
    Address,
    CmapChange,
    CmapValue,
    ConfigChange,
    Endpoint,
    EventStream,
    GroupEvent,
    Message,
    NodeStatus,
    TypedValue,
    VotequorumInfo,
)
from triocoro.testing import Cluster, ClusterOptions, FakeCluster, History, NetnsCluster, Node, check

if TYPE_CHECKING:
    if sys.version_info >= (3, 11):
        from typing import assert_type
    else:
        from typing_extensions import assert_type


async def _groups() -> None:
    async with triocoro.open_group("g") as group:
        assert_type(group, triocoro.Group)
        assert_type(group.name, bytes)
        assert_type(group.address, Address)
        assert_type(group.view, ConfigChange)
        assert_type(await group.receive(), GroupEvent)
        assert_type(await group.receive_batch(), list[GroupEvent])
        assert_type(await group.send_and_wait(b"x"), Message)
        assert_type(group.statistics(), triocoro.GroupStatistics)
        async for event in group:
            assert_type(event, GroupEvent)
    async with triocoro.open_cpg() as cpg:
        assert_type(await cpg.local_nodeid(), int)
        assert_type(await cpg.members("g"), tuple[Address, ...])


async def _other_services() -> None:
    async with triocoro.open_votequorum() as votequorum:
        assert_type(await votequorum.info(), VotequorumInfo)
    async with triocoro.open_quorum() as quorum:
        assert_type(await quorum.is_quorate(), bool)
    async with triocoro.open_cmap() as cmap:
        assert_type(await cmap.get("a.b"), CmapValue)
        assert_type(await cmap.get_typed("a.b"), TypedValue)
        async with cmap.track("a.b") as changes:
            assert_type(changes, EventStream[CmapChange])
            assert_type(await changes.receive(), CmapChange)
    async with triocoro.open_cfg() as cfg:
        assert_type(await cfg.node_status(1), NodeStatus)


async def _clusters(endpoint: Endpoint) -> None:
    assert_type(endpoint.label, str)
    async with FakeCluster(nodes=3) as fake:
        assert_type(fake, FakeCluster)
        assert_type(fake[1].endpoint, Endpoint)
    async with NetnsCluster(options=ClusterOptions(nodes=3)) as real:
        assert_type(real, NetnsCluster)


def _any_cluster(cluster: Cluster, history: History) -> None:
    assert_type(cluster[1], Node)
    assert_type(cluster.nodes, Mapping[int, Node])
    check(history)


def test_there_are_assertions() -> None:
    functions: list[Any] = [_groups, _other_services, _clusters, _any_cluster]
    assert all(inspect.getsource(function).count("assert_type") for function in functions)
    assert inspect.iscoroutinefunction(trio.sleep)
