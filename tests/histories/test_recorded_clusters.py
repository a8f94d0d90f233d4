"""Clusters that are recorded: their clients, and what is done to them."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import trio

import triocoro
from triocoro import Message
from triocoro.testing import (
    Call,
    Cluster,
    Delivery,
    FakeCluster,
    Fault,
    FaultSchedule,
    FaultStep,
    History,
    check,
    process_default_endpoint,
)


def faults(history: History) -> list[tuple[object, ...]]:
    return [(entry.verb, dict(entry.arguments)) for entry in history if isinstance(entry, Fault)]


def clients(history: History) -> set[str]:
    return {entry.client for entry in history if isinstance(entry, Call)}


async def send_one(payload: bytes, endpoint: object = None) -> None:
    async with triocoro.open_group("g", endpoint=endpoint) as group:  # type: ignore[arg-type]
        await group.send_and_wait(payload)


def payloads(history: History) -> list[tuple[str, bytes]]:
    return [
        (entry.client, entry.event.payload)
        for entry in history
        if isinstance(entry, Delivery) and isinstance(entry.event, Message)
    ]


async def test_every_way_to_a_node_is_recorded(corosync_cluster: Cluster) -> None:
    history = History()
    corosync_cluster.record(history)
    assert corosync_cluster.history is history
    await send_one(b"node", corosync_cluster[1])
    await send_one(b"endpoint", corosync_cluster[2].endpoint)
    with corosync_cluster[3].as_default():
        await send_one(b"default")
    with process_default_endpoint(corosync_cluster[1]):
        await send_one(b"process")
    assert payloads(history) == [
        ("node 1", b"node"),
        ("node 2", b"endpoint"),
        ("node 3", b"default"),
        ("node 1", b"process"),
    ]
    assert check(history, options=corosync_cluster.options) == []


async def test_recording_begins_and_ends_at_any_time(corosync_cluster: Cluster) -> None:
    endpoint = corosync_cluster[1].endpoint
    await send_one(b"before", endpoint)
    first, second = History(), History()
    corosync_cluster.record(first)
    await send_one(b"first", endpoint)
    corosync_cluster.record(second)
    await send_one(b"second", endpoint)
    corosync_cluster.record(None)
    await send_one(b"after", endpoint)
    await corosync_cluster.heal()
    assert corosync_cluster.history is None
    assert payloads(first) == [("node 1", b"first")]
    assert payloads(second) == [("node 1", b"second")]
    assert faults(first) == faults(second) == []


async def test_clients_with_names_of_their_own_are_recorded_once(corosync_cluster: Cluster) -> None:
    history, other = History(), History()
    corosync_cluster.record(history)
    await send_one(b"own", history.endpoint(corosync_cluster[1], client="own"))
    await send_one(b"via", history.endpoint(corosync_cluster[1], client="via", via=corosync_cluster[1].endpoint))
    await send_one(b"other", other.endpoint(corosync_cluster[1], client="other"))
    assert payloads(history) == [("own", b"own"), ("via", b"via"), ("node 1", b"other")]
    assert payloads(other) == [("other", b"other")]


async def test_what_is_done_to_the_cluster_is_recorded(corosync_cluster: Cluster) -> None:
    cluster, history = corosync_cluster, History()
    cluster.record(history)
    await cluster.partition({1}, [3, 2])
    await cluster.isolate(2)
    await cluster.cut(1, 3)
    await cluster.lose(2.5, nodes=(3,))
    await cluster.heal()
    await cluster[3].freeze()
    await cluster[3].thaw()
    await cluster[3].kill()
    await cluster[3].start()
    await cluster[3].stop()
    await cluster[3].restart()
    assert faults(history) == [
        ("partition", {"sides": ((1,), (2, 3))}),
        ("isolate", {"nodeid": 2}),
        ("cut", {"source": 1, "target": 3}),
        ("lose", {"percent": 2.5, "nodes": (3,)}),
        ("heal", {}),
        ("freeze", {"nodeid": 3}),
        ("thaw", {"nodeid": 3}),
        ("kill", {"nodeid": 3}),
        ("start", {"nodeid": 3}),
        ("stop", {"nodeid": 3}),
        ("restart", {"nodeid": 3}),
    ]


async def test_the_line_that_made_a_fault_is_recorded(corosync_cluster: Cluster) -> None:
    cluster, history = corosync_cluster, History()
    cluster.record(history)
    frame = inspect.currentframe()
    assert frame is not None
    before = frame.f_lineno
    await cluster[3].kill()
    await cluster[3].start()
    await cluster.isolate(2)
    history.fault("unplug")
    async with cluster.nemesis(FaultSchedule([FaultStep(0.0, "heal")])) as over:
        await over.wait()
    where = [entry.where for entry in history if isinstance(entry, Fault)]
    assert where == [*(f"{Path(__file__).name}:{before + number}" for number in range(1, 5)), None]


@pytest.mark.corosync(nodes=2)
async def test_nodes_that_come_and_go_are_recorded(corosync_cluster: Cluster) -> None:
    history = History()
    corosync_cluster.record(history)
    await corosync_cluster.add_node(votes=2)
    await corosync_cluster.remove_node(3)
    assert faults(history) == [("add_node", {"nodeid": 3, "votes": 2}), ("remove_node", {"nodeid": 3})]


async def test_faults_that_fail_are_not_recorded(corosync_cluster: Cluster) -> None:
    history = History()
    corosync_cluster.record(history)
    with pytest.raises(ValueError, match="disjoint"):
        await corosync_cluster.partition({1}, {1, 2})
    with pytest.raises(ValueError, match="no node 9"):
        await corosync_cluster.isolate(9)
    await corosync_cluster[1].kill()
    with pytest.raises(RuntimeError, match="does not run"):
        await corosync_cluster[1].freeze()
    assert [verb for verb, _ in faults(history)] == ["kill"]


async def test_a_fault_that_was_cancelled_may_have_happened(corosync_cluster: Cluster) -> None:
    history = History()
    corosync_cluster.record(history)
    with trio.CancelScope() as scope:
        scope.cancel()
        await corosync_cluster.isolate(1)
    assert faults(history) == [("isolate", {"nodeid": 1, "cancelled": True})]


@pytest.mark.corosync_fake_only(reason="the first half of a restart is over at once there")
async def test_the_part_of_a_fault_that_took_effect(corosync_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    corosync_cluster.record(history)
    node = corosync_cluster[1]

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise triocoro.CorosyncUnavailableError("no")

    monkeypatch.setattr(node, "_start", fail)
    with pytest.raises(triocoro.CorosyncUnavailableError):
        await node.restart()
    assert faults(history) == [("stop", {"nodeid": 1})]


async def test_the_clusters_own_clients_are_not_recorded(corosync_cluster: Cluster) -> None:
    history = History()
    corosync_cluster.record(history)
    await corosync_cluster.settled()
    assert len(history) == 0


@pytest.mark.corosync_fake_only(reason="real clients have the pids of their processes")
async def test_further_clients_of_a_node_are_recorded() -> None:
    history = History()
    async with FakeCluster(nodes=1) as cluster:
        cluster.record(history)
        client = cluster[1].client()
        await send_one(b"x", client)
        assert clients(history) == {f"node 1 pid {client.pid}"}


async def test_no_history(corosync_cluster: Cluster) -> None:
    with pytest.raises(TypeError, match="a History is needed, not list"):
        corosync_cluster.record([])  # type: ignore[arg-type]
