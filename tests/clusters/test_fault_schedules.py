"""Schedules of faults, and a nemesis that plays them on both kinds of clusters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import triocoro
from triocoro.testing import Cluster, FakeCluster, FaultSchedule, FaultStep

ALL = FaultSchedule(
    [
        FaultStep(0, "partition", [{1}, {3, 2}]),
        FaultStep(0.5, "isolate", [2]),
        FaultStep(0.5, "cut", [1, 2]),
        FaultStep(0.6, "cut", [1, 2, 0]),
        FaultStep(0.7, "lose", [2.5]),
        FaultStep(0.8, "lose", [100, {1, 2}]),
        FaultStep(0.9, "heal"),
        *(FaultStep(1, verb, [3]) for verb in ("freeze", "thaw", "kill", "start", "stop", "restart")),
    ]
)

virtual_time = pytest.mark.corosync_fake_only(reason="real daemons need real time")

# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [FaultSchedule(), ALL])
def test_a_schedule_is_code_and_json(schedule: FaultSchedule) -> None:
    assert eval(repr(schedule)) == schedule  # noqa: S307
    assert eval(str(schedule)) == schedule  # noqa: S307
    assert FaultSchedule.from_json(schedule.to_json()) == schedule
    assert len(schedule.to_json().splitlines()) == max(len(schedule.steps), 1) + 2


def test_how_it_looks() -> None:
    schedule = FaultSchedule([FaultStep(0.25, "partition", [[1], [3, 2]]), FaultStep(1, "heal")])
    assert str(schedule) == (
        "FaultSchedule([\n    FaultStep(0.25, 'partition', ((1,), (3, 2))),\n    FaultStep(1, 'heal'),\n])"
    )
    assert schedule.to_json() == (
        '[\n{"at": 0.25, "verb": "partition", "arguments": [[1], [3, 2]]},\n'
        '{"at": 1, "verb": "heal", "arguments": []}\n]\n'
    )
    assert FaultSchedule.from_json('[{"at": 1, "verb": "heal"}]') == FaultSchedule([FaultStep(1, "heal")])
    assert ALL.nodeids == {1, 2, 3}


@pytest.mark.parametrize(
    "step,error,message",
    [
        ((1, "explode"), ValueError, "there is no verb 'explode'; the verbs are partition, isolate, "),
        ((1, "heal", [1]), ValueError, "the arguments of heal are nothing, not (1,)"),
        ((1, "partition"), ValueError, "the arguments of partition are the nodes of each side, not ()"),
        ((1, "partition", [1, 2]), ValueError, "are the nodes of each side, not (1, 2)"),
        ((1, "kill"), ValueError, "the arguments of kill are a node, not ()"),
        ((1, "freeze", [True]), ValueError, "the arguments of freeze are a node, not (True,)"),
        ((1, "cut", [1]), ValueError, "the source, the target and, for one link only, its number, not (1,)"),
        ((1, "lose", [101]), ValueError, "the loss in per cent (0 to 100) and, unless it is for all, the nodes"),
        ((1, "kill", "12"), TypeError, "the arguments of a verb must be a list or tuple, not '12'"),
        ((-1, "heal"), ValueError, "must be 0 seconds or more, and finite, not -1"),
        ((float("nan"), "heal"), ValueError, "must be 0 seconds or more, and finite, not nan"),
        (("1", "heal"), TypeError, "the time of a step must be a number of seconds, not '1'"),
    ],
)
def test_a_wrong_step_is_an_error(step: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        FaultStep(*step)


def test_a_wrong_schedule_is_an_error() -> None:
    with pytest.raises(ValueError, match="in the order of their times"):
        FaultSchedule([FaultStep(2, "heal"), FaultStep(1, "heal")])
    with pytest.raises(TypeError, match="consists of FaultSteps, not of str"):
        FaultSchedule("heal")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"at": 1}]', '[{"at": 1, "verb": "heal", "on": 3}]', '[{"at": "1", "verb": "heal"}]']
)
def test_wrong_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - some come from the json module
        FaultSchedule.from_json(text)


# -- playing them ------------------------------------------------------------------------------------------------------


async def members(cluster: Cluster, nodeid: int) -> set[int]:
    await cluster.settled()
    async with triocoro.open_quorum(endpoint=cluster[nodeid]) as quorum, quorum.track() as changes:
        async for change in changes:
            if isinstance(change, triocoro.NodelistChange):
                return set(change.members)
    raise AssertionError


async def test_a_schedule_from_a_file_plays_on_both_kinds(corosync_cluster: Cluster, tmp_path: Path) -> None:
    """The block's end repairs what the steps have left broken."""
    path = tmp_path / "schedule.json"
    path.write_text(FaultSchedule([FaultStep(0, "freeze", [3]), FaultStep(0.1, "isolate", [2])]).to_json())
    async with corosync_cluster.nemesis(FaultSchedule.from_json(path.read_text())) as over:
        with trio.fail_after(10):
            await over.wait()
        assert corosync_cluster.reachable(1) == {1}
        assert await members(corosync_cluster, 1) == {1}
    assert corosync_cluster.reachable(1) == {1, 2, 3}
    assert await members(corosync_cluster, 1) == {1, 2, 3}


@virtual_time
async def test_nodes_that_are_ended_start_again(autojump_clock: MockClock) -> None:
    del autojump_clock
    steps = [
        FaultStep(1, "kill", [1]),
        FaultStep(2, "freeze", [1]),
        FaultStep(3, "stop", [2]),
        FaultStep(4, "restart", [3]),
    ]
    async with FakeCluster(nodes=4) as cluster:
        async with cluster.nemesis(FaultSchedule(steps)) as over:
            began = trio.current_time()
            await over.wait()
            assert trio.current_time() - began == 4
            assert [node.running for node in cluster.nodes.values()] == [False, False, True, True]
        assert all(node.running for node in cluster.nodes.values())


@virtual_time
async def test_every_verb(autojump_clock: MockClock) -> None:
    """In the middle of it all, the block ends: what is left is dropped."""
    del autojump_clock
    async with FakeCluster(nodes=3) as cluster:
        async with cluster.nemesis(ALL) as over:
            for until, cut, loss in (
                (0.3, {(1, 2), (1, 3), (2, 1), (3, 1)}, {}),
                (0.55, {(1, 2), (1, 3), (2, 1), (3, 1), (2, 3), (3, 2)}, {}),
                (0.85, {(1, 2), (1, 3), (2, 1), (3, 1), (2, 3), (3, 2)}, {1: 100, 2: 100, 3: 2.5}),
                (0.95, set[tuple[int, int]](), {}),
            ):
                await trio.sleep_until(until)
                assert cluster.network.cut == cut
                assert cluster.network.loss == loss
            assert not over.is_set()
        await trio.sleep(1)
        assert cluster[3].log.count("ready to provide service") == 1
        async with cluster.nemesis(ALL) as over:
            await over.wait()
        assert cluster[3].log.count("ready to provide service") == 3


@virtual_time
async def test_a_failure_leaves_the_cluster_as_it_is(autojump_clock: MockClock) -> None:
    """So that a report can show it; and the exception is the test's own, in no group."""
    del autojump_clock
    cause = KeyError("cause")
    async with FakeCluster(nodes=3) as cluster:
        with pytest.raises(ValueError, match="mine") as caught:
            async with cluster.nemesis(FaultSchedule([FaultStep(0, "isolate", [1]), FaultStep(1, "heal")])):
                await trio.sleep(0.5)
                raise ValueError("mine") from cause
        assert caught.value.__cause__ is cause
        assert cluster.reachable(1) == {1}


async def test_a_nemesis_that_cannot_go_on_ends_the_block(corosync_cluster: Cluster) -> None:
    steps = [FaultStep(0, "cut", [1, 2, 7])]
    with trio.fail_after(10), pytest.raises(ValueError, match="no link 7 is among 0 to 0"):
        async with corosync_cluster.nemesis(FaultSchedule(steps)):
            await trio.sleep_forever()


async def test_nodes_that_there_are_not(corosync_cluster: Cluster) -> None:
    with pytest.raises(ValueError, match=r"nodes that the cluster does not have: \[4, 9\]"):
        async with corosync_cluster.nemesis(FaultSchedule([FaultStep(0, "partition", [{1, 4}, {9}])])):
            pass
    with pytest.raises(TypeError, match="schedule must be FaultSchedule, not list"):
        corosync_cluster.nemesis([])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@virtual_time
async def test_a_cancellation_passes(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with FakeCluster(nodes=3) as cluster:
        with trio.move_on_after(0.5) as scope:
            async with cluster.nemesis(FaultSchedule([FaultStep(0, "isolate", [1])])):
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert cluster.reachable(1) == {1}
