"""Schedules of faults by chance, and the search for one that makes a program fail."""

from __future__ import annotations

import importlib.util
import logging
import random
from typing import Any, cast

import pytest
import trio
from hypothesis import given, settings, strategies as st
from support.explored import note_of, simplest

import triocoro
from triocoro.testing import (
    ClusterOptions,
    FakeCluster,
    FaultSchedule,
    FaultStep,
    explore,
    fault_schedules,
    random_schedule,
    seeded,
    seeded_run,
)

pytestmark = pytest.mark.corosync_fake_only(reason="the search needs runs that can be repeated")

# -- schedules by chance -----------------------------------------------------------------------------------------------


async def always_a_majority(cluster: FakeCluster, schedule: FaultSchedule) -> None:
    """Look after each step; a restart leaves no time to look."""
    for step in schedule.steps:
        subject: Any = cluster if step.verb in {"partition", "isolate", "heal"} else cluster[step.arguments[0]]
        await getattr(subject, step.verb)(*(step.arguments if subject is cluster else ()))
        assert any([await quorate(cluster, nodeid) for nodeid in cluster.nodes]), step


async def quorate(cluster: FakeCluster, nodeid: int) -> bool:
    if not cluster[nodeid].running or cluster[nodeid].frozen:
        return False
    async with triocoro.open_quorum(endpoint=cluster[nodeid]) as quorum:
        return await quorum.is_quorate()


@pytest.mark.parametrize("options", [ClusterOptions(nodes=3), ClusterOptions(nodeids=[7, 2, 5, 4], votes={7: 4, 5: 2})])
def test_a_majority_stays_and_the_end_is_whole(options: ClusterOptions) -> None:
    verbs = set[str]()

    async def check(schedule: FaultSchedule) -> None:
        async with FakeCluster(options=options) as cluster:
            await always_a_majority(cluster, schedule)
            assert all([await quorate(cluster, nodeid) for nodeid in cluster.nodes])
            assert cluster.network == cluster.network.healed()

    for seed in range(25):
        schedule = random_schedule(random.Random(seed), options=options, steps=10)
        assert len([step for step in schedule.steps if step.at < 10]) <= 10
        verbs |= {step.verb for step in schedule.steps}
        seeded_run(check, schedule, seed=seed)
    assert verbs == {"isolate", "partition", "heal", "freeze", "thaw", "kill", "stop", "start", "restart"}


def test_anything_goes() -> None:
    """All nodes down, all cut, and nothing repaired."""
    found = [
        random_schedule(
            random.Random(seed), steps=30, seconds=2, minority=False, heal=False, verbs=["kill", "cut", "lose"]
        )
        for seed in range(50)
    ]
    assert {step.verb for schedule in found for step in schedule.steps} == {"kill", "start", "cut", "lose", "heal"}
    assert {step.arguments for schedule in found for step in schedule.steps if step.verb == "cut"} == {
        (a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b
    }
    down = [0]
    for schedule in found:
        assert all(step.at <= 2 for step in schedule.steps)
        here = 0
        for step in schedule.steps:
            here += {"kill": 1, "start": -1}.get(step.verb, 0)
            down.append(here)
    assert max(down) == 3


def test_a_seed_stands_for_a_schedule() -> None:
    def drawn(seed: int) -> FaultSchedule:
        with seeded(seed):
            return random_schedule()

    assert [drawn(seed) for seed in range(20)] == [drawn(seed) for seed in range(20)]
    assert len({drawn(seed) for seed in range(20)}) > 15


@settings(max_examples=50, database=None)
@given(schedule=fault_schedules(options=ClusterOptions(nodes=5), steps=3, seconds=1, verbs=["partition"]))
def test_the_strategy_heeds_its_settings(schedule: FaultSchedule) -> None:
    assert {step.verb for step in schedule.steps} <= {"partition", "heal"}
    assert all(step.at <= 1 for step in schedule.steps)
    for step in schedule.steps:
        if step.verb == "partition":
            one, two = step.arguments
            assert sorted((*one, *two)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "knobs,message",
    [
        ({"verbs": ["explode"]}, "verbs must be some of isolate, partition, .*, not explode"),
        ({"verbs": []}, "verbs must be some of .*, not none"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"seconds": -1}, "0 seconds or more"),
        (
            {"options": ClusterOptions(nodes=2)},
            "2 nodes with these votes has no majority without one .* minority=False",
        ),
    ],
)
def test_wrong_settings_are_errors(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fault_schedules(**knobs)
    with pytest.raises(ValueError, match=message):
        random_schedule(**knobs)
    with pytest.raises(TypeError, match=r"chance must be .*Random.*, not int"):
        random_schedule(cast("Any", 5))


def test_one_node() -> None:
    schedules = [
        random_schedule(random.Random(seed), options=ClusterOptions(nodes=1), minority=False) for seed in range(20)
    ]
    assert {step.verb for schedule in schedules for step in schedule.steps} >= {"kill", "start"}


# -- the search --------------------------------------------------------------------------------------------------------


async def program(cluster: FakeCluster) -> None:
    """Fail if node 1 has been alone while a message of node 3 was on its way; reads the first node by default."""
    async with triocoro.open_group("g") as one, triocoro.open_group("g", endpoint=cluster[3]) as three:
        with trio.move_on_after(12):
            for number in range(100):
                await three.send(f"{number}".encode())
                await trio.sleep(0.1)
                async with triocoro.open_quorum() as quorum:
                    assert await quorum.is_quorate(), f"alone at {number}"
        assert one.address in one.view.members


SIMPLEST = """explore(
    schedules=FaultSchedule([
        FaultStep(0.0, 'isolate', (1,)),
        FaultStep(10, 'heal'),]),
    seeds=0,
)"""


def test_what_fails_is_simplified_and_can_be_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AssertionError, match="alone at 0") as caught:
        explore(program)
    printed = capsys.readouterr().out
    assert note_of(caught.value, printed).strip().endswith(SIMPLEST)
    schedule, seed = simplest(caught.value, printed)
    assert schedule == FaultSchedule([FaultStep(0, "isolate", [1]), FaultStep(10, "heal")])
    with pytest.raises(AssertionError, match="alone at 0"):
        explore(program, schedules=schedule, seeds=seed)
    explore(program, schedules=FaultSchedule(), seeds=st.integers(0, 3), max_examples=4)


def test_each_example_has_a_new_cluster_and_time() -> None:
    async def look(cluster: FakeCluster) -> None:
        clusters.append(cluster)
        began = trio.current_time()
        assert began < 1
        assert cluster.name == "fake-1"
        async with triocoro.open_group("g") as group:
            await group.send_and_wait(b"hello")
        assert 2 <= trio.current_time() - began <= 4 * 3
        await trio.sleep(1000)

    clusters: list[FakeCluster] = []
    explore(look, latency=1, jitter=2, options=ClusterOptions(nodes=5), schedules=FaultSchedule(), max_examples=20)
    assert len(set(clusters)) == 20
    assert all(len(cluster.nodes) == 5 for cluster in clusters)


def test_only_the_simplest_example_logs(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(cluster: FakeCluster) -> None:
        await trio.sleep(1)
        for nodeid in cluster.nodes:
            if not cluster[nodeid].running:
                logging.getLogger("mine").error("node %s is down", nodeid)
        assert all(node.running for node in cluster.nodes.values())

    with pytest.raises(AssertionError):
        explore(fail, schedules=fault_schedules(verbs=["kill"], seconds=2))
    assert [record.message for record in caplog.records if record.name == "mine"] == ["node 1 is down"]
    assert logging.root.manager.disable == logging.NOTSET


def test_wrong_calls_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def inside() -> None:
        await trio.lowlevel.checkpoint()
        with pytest.raises(RuntimeError, match="call it outside of a Trio run"):
            explore(program)

    trio.run(inside)
    with pytest.raises(ValueError, match="max_examples must be at least 1"):
        explore(program, max_examples=0)
    monkeypatch.setattr(importlib.util, "find_spec", dict[str, object]().get)
    with pytest.raises(ImportError, match=r"pip install 'triocoro\[hypothesis\]'"):
        explore(program)
    with pytest.raises(ImportError, match="needs Hypothesis"):
        fault_schedules()
