"""Schedules on the fake cluster: what is in them, that they find what is wrong, and the command that runs many."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from support import recipe_runs
from support.batches import batches_of
from support.recipe_workloads import Extent, World, faults, kill

import triocoro
from triocoro import ConfigChange, Reason
from triocoro.recipes import Replica
from triocoro.recipes._lock import _EXPIRE, _INDEX, _Candidate, _message
from triocoro.recipes._replica import _Application
from triocoro.testing import FakeCluster

pytestmark = pytest.mark.corosync_fake_only(reason="schedules that a seed repeats")


def found_in(name: str, seeds: Iterable[int]) -> list[str]:
    """The violations of the first schedule that has any."""
    for seed in seeds:
        result = recipe_runs.run(name, seed, real=False)
        if result.violations:
            return result.violations
    return []


# -- what is in them ---------------------------------------------------------------------------------------------------


def test_the_faults_are_of_all_kinds() -> None:
    cluster, chance = FakeCluster(nodes=3), random.Random(1)
    steps = [step for _ in range(300) for step in faults(cluster, chance, Extent.short(chance)).steps]
    assert {step.verb for step in steps} >= {
        "isolate", "partition", "heal", "freeze", "thaw", "kill", "start", "stop", "restart", "cut", "lose",
    }  # fmt: skip
    assert {len(step.arguments) for step in steps if step.verb == "partition"} == {2, 3}


@pytest.mark.usefixtures("autojump_clock")
async def test_a_process_that_is_killed_is_procdown() -> None:
    async with FakeCluster(nodes=2) as cluster, triocoro.open_group("g", endpoint=cluster[1], receive=True) as group:
        endpoint = cluster[2].client()
        with pytest.raises(triocoro.ConnectionLostError):
            async with triocoro.open_group("g", endpoint=endpoint):
                kill(cluster, endpoint.pid)
                await trio.sleep_forever()
        changes = [await group.receive() for _ in range(3)]
    left = changes[-1]
    assert isinstance(left, ConfigChange)
    assert [(it.address.pid, it.reason) for it in left.left] == [(endpoint.pid, Reason.PROCDOWN)]


def test_a_seed_gives_the_same_schedule_again() -> None:
    for seed in range(3):
        name = recipe_runs.workload_of(seed, None)
        assert recipe_runs.run(name, seed, real=False) == recipe_runs.run(name, seed, real=False)


# -- that they find what is wrong --------------------------------------------------------------------------------------


def test_a_lock_that_is_taken_without_a_delay_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(self: _Candidate) -> None:
        while True:
            await self.member.wait(lambda: self.queue.holder is not None and self.member.primary)
            holder, renewed = self.queue.holder, self.queue.renewed
            await trio.sleep(0.2)
            if holder is not None and (holder, renewed) == (self.queue.holder, self.queue.renewed):
                self.member.post(_message(_EXPIRE, holder) + _INDEX.pack(renewed))

    monkeypatch.setattr(_Candidate, "watch", watch)
    assert "at once" in found_in("lock", range(20))[0]


def test_a_read_of_a_state_that_may_be_stale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(self: Replica[Any], query: Callable[[Any], object]) -> object:
        await trio.lowlevel.checkpoint()
        return query(self.machine)

    monkeypatch.setattr(Replica, "read", read)
    assert "linearizability" in found_in("replica", range(60))[0]


def test_a_snapshot_that_is_not_restored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def restore(_self: _Application[Any], _chunks: Iterable[bytes], _index: int, *, discards: bool) -> None:
        pass

    monkeypatch.setattr(_Application, "restore", restore)
    assert found_in("replica", range(60))


def test_members_that_do_not_come_to_terms_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_self: World[Any]) -> bool:
        return False

    monkeypatch.setattr(World, "_all_primary", never)
    assert "STALL" in found_in("safe_group", range(5))[0]


# -- the command -------------------------------------------------------------------------------------------------------


def test_batches_end_at_multiples_of_their_size() -> None:
    assert batches_of("0:20", 10) == [range(10), range(10, 20)]
    assert batches_of("5:21", 10) == [range(5, 10), range(10, 20), range(20, 21)]
    assert batches_of("3:4", 10) == [range(3, 4)]


def test_the_command_counts_and_writes_a_line_for_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "ledger.csv"
    monkeypatch.setattr(recipe_runs, "tested_commit", lambda: "abc")
    monkeypatch.setattr(sys, "argv", ["", "--seeds=0:5", "--batch=3", "--workers=0", f"--ledger={ledger}"])
    assert recipe_runs.main() == 0
    assert "'schedules': 5" in capsys.readouterr().out
    header, *lines = ledger.read_text(encoding="ascii").splitlines()
    assert header == "day,commit,on,seeds,schedules,operations,violations,undecided"
    assert [line.split(",")[1:5] for line in lines] == [["abc", "fake", "0:3", "3"], ["abc", "fake", "3:5", "2"]]
    assert all(line.endswith(",0,0") for line in lines)


def test_the_command_prints_violations_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["", "--seeds=0:3", "--only=replica", "--workers=0"])
    monkeypatch.setattr(recipe_runs, "on_fake", None)
    assert recipe_runs.main() == 1
    output = capsys.readouterr().out
    assert "replica 2: ERROR: " in output
    assert "'violations': 3" in output
