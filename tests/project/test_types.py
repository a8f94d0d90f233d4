"""The types of the public API as users' type checkers see them: mypy and pyright check the assertions of this module.

The functions are not called. pytest only checks that there are some.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

import triocoro
from triocoro import (
    Address,
    CmapChange,
    CmapValue,
    ConfigChange,
    ConnectionLostError,
    Endpoint,
    EventStream,
    Group,
    GroupEvent,
    Message,
    NodeStatus,
    Session,
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
        assert_type(await cmap.get("a.b", int), int)
        assert_type(await cmap.get("a.b", kind=bytes), bytes)
        assert_type(await cmap.get_typed("a.b"), TypedValue)
        async with cmap.track("a.b") as changes:
            assert_type(changes, EventStream[CmapChange])
            assert_type(await changes.receive(), CmapChange)
    async with triocoro.open_cfg() as cfg:
        assert_type(await cfg.node_status(1), NodeStatus)


async def _sessions(endpoint: Endpoint) -> None:
    assert_type(triocoro.sessions("g"), AsyncIterator[Session[Group]])
    assert_type(triocoro.sessions(b"g", receive=False, endpoint=endpoint), AsyncIterator[Session[Group]])
    async for session in triocoro.sessions("g"):
        assert_type(session.epoch, int)
        assert_type(session.lost, ConnectionLostError | None)
        async with session as group:
            assert_type(group, Group)
    async for open_map in triocoro.sessions(triocoro.open_cmap, triocoro.CmapMap.STATS, endpoint=endpoint):
        async with open_map as cmap:
            assert_type(cmap, triocoro.Cmap)
    assert_type(triocoro.sessions(triocoro.open_group, "g"), AsyncIterator[Session[Group]])
    assert_type(triocoro.sessions(triocoro.open_cpg), AsyncIterator[Session[triocoro.Cpg]])
    assert_type(triocoro.sessions(triocoro.open_votequorum), AsyncIterator[Session[triocoro.Votequorum]])
    assert_type(triocoro.sessions(triocoro.open_quorum), AsyncIterator[Session[triocoro.Quorum]])
    assert_type(triocoro.sessions(triocoro.open_cfg), AsyncIterator[Session[triocoro.Cfg]])
    assert_type(triocoro.sessions(_open_own, 1, option="x"), AsyncIterator[Session[list[int]]])
    # Wrong arguments are errors, as of the function itself.
    triocoro.sessions("g", nonsense=1)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    triocoro.sessions(_open_own, "x", option="x")  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


@asynccontextmanager
async def _open_own(number: int, *, option: str) -> AsyncGenerator[list[int], None]:
    del option
    yield [number]


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
    functions: list[Any] = [_groups, _other_services, _sessions, _clusters, _any_cluster]
    assert all(inspect.getsource(function).count("assert_type") for function in functions)
    assert inspect.iscoroutinefunction(trio.sleep)
