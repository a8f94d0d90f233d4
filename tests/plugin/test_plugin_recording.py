"""The clusters of tests are recorded, and the places that the program reaches are counted."""

from __future__ import annotations

import pytest
from support.fixtures.inner_runs import Run

SOURCE = """
import pytest
import trio
import triocoro
from triocoro.testing import Call, Fault, check

def clients(history): return {entry.client for entry in history if isinstance(entry, Call)}
def verbs(history): return [entry.verb for entry in history if isinstance(entry, Fault)]
"""


def test_the_fixture(run: Run) -> None:
    outcomes = run(
        SOURCE
        + """
def test_one_cluster(corosync_history, corosync_cluster, make_corosync_cluster):
    async def main():
        async with triocoro.open_group("g"):
            await corosync_cluster.heal()

    trio.run(main)
    assert corosync_cluster.history is corosync_history
    assert clients(corosync_history) == {"node 1"}
    assert verbs(corosync_history) == ["heal"]
    assert check(corosync_history) == []
    other = make_corosync_cluster(nodes=1)
    assert other.history is not None and other.history is not corosync_history

def test_another_one(corosync, corosync_history):
    assert len(corosync_history) == 0

def test_time_stands_still(corosync_cluster, corosync_history):
    async def main():
        await corosync_cluster.heal()
        await trio.sleep(100)
        await corosync_cluster.heal()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    corosync_history.note("outside of a run")
    assert [entry.time for entry in corosync_history] == [0, 100, 100]

@pytest.mark.trio
async def test_memory_is_bounded(corosync, corosync_history):
    async with triocoro.open_group("g") as group:
        for _ in range(60):
            await group.send_batch([bytes(20_000)] * 100)
            await group.receive_batch(max_events=1000)
    # A message of 20,000 bytes counts as 20, when it is sent and when it comes.
    assert 100 < len(corosync_history) < 5_000 and corosync_history.dropped > 1_000
""",
        mode="fake",
    ).parseoutcomes()
    assert outcomes == {"passed": 4}


@pytest.mark.parametrize("how", ["option", "ini"])
def test_history_off(run: Run, pytester: pytest.Pytester, how: str) -> None:
    args = ["--corosync-history=off"] if how == "option" else []
    if how == "ini":
        pytester.makeini("[pytest]\ncorosync_history = off")
    outcomes = run(
        SOURCE
        + """
def test_cluster(corosync_cluster, make_corosync_cluster):
    assert corosync_cluster.history is None and make_corosync_cluster().history is None

def test_who_asks_gets_it(corosync_cluster, corosync_history):
    assert corosync_cluster.history is corosync_history
""",
        *args,
        mode="fake",
    ).parseoutcomes()
    assert outcomes == {"passed": 2}


def test_a_wrong_word_in_the_ini_file(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ncorosync_history = maybe")
    result = run("", mode="fake")
    result.stderr.fnmatch_lines(["*corosync_history = 'maybe' in *: it must be on or off"])


APPLICATION = """
import triocoro
from triocoro import reached as came_by

def application(case):
    came_by("always")
    if case == "rare":
        triocoro.reached("a rare case")
    if case == "never":
        came_by("a case without a test")
    came_by(f"computed {case}")
"""
TESTS = """
import pytest
from triocoro.testing import Note
from application import application

@pytest.mark.parametrize("case", ["usual", "rare", "usual again"])
def test_it(case): application(case)

def test_with_a_cluster(corosync, corosync_history):
    application("rare")
    assert [entry.text for entry in corosync_history] == [
        "reached: always", "reached: a rare case", "reached: computed rare"
    ]
"""


@pytest.mark.parametrize("args", [[], ["-n2"]], ids=["alone", "workers"])
def test_places(pytester: pytest.Pytester, args: list[str]) -> None:
    pytester.makepyfile(application=APPLICATION, test_it=TESTS)
    # In a process of its own, or the session around it would count them, too.
    result = pytester.runpytest_subprocess("--corosync=fake", *args)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "*= corosync places =*",
            "      2  a rare case",
            "      4  always",
            "      2  computed rare",
            "      1  computed usual",
            "      1  computed usual again",
            "  never  a case without a test  (application.py:9)",
        ]
    )


def test_without_places_there_is_no_section(run: Run) -> None:
    assert "corosync places" not in run("def test_it(corosync): pass", mode="fake").stdout.str()
