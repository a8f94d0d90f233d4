"""The fuzzer: its programs, what it says of them, and those that were kept."""

from __future__ import annotations

import subprocess
import sys
from collections import deque
from pathlib import Path
from random import Random
from typing import Any, TypeAlias, cast

import attrs
import pytest
from fuzz.__main__ import program_of
from fuzz.excuses import Excuses
from fuzz.program import Program, Step, generate
from fuzz.shrink import shrink
from fuzz.verdict import findings, judge, run_on_fake
from hypothesis import HealthCheck, given, settings, strategies as st

HERE = Path(__file__).parent
KEPT = sorted((HERE / "fuzz" / "programs").glob("*.json"))
SEED = 4
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_a_seed_stands_for_a_program() -> None:
    program = program_of(SEED)
    assert program == program_of(SEED)
    assert program.steps != program_of(SEED + 1).steps
    assert Program.from_json(program.to_json()) == program
    assert len(program.steps) >= 25
    assert {program_of(seed).nodes for seed in range(10)} == {3, 5}


@pytest.mark.corosync_fake_only(reason="what it compares are two runs on the fake")
def test_the_fake_does_the_same_again() -> None:
    one, other = (run_on_fake(program_of(SEED)) for _ in range(2))
    assert one.observations == other.observations
    assert one.history.normalised().to_json_lines() == other.history.normalised().to_json_lines()
    assert len(one.history) > 500


@pytest.mark.corosync_fake_only(reason="it looks for what the fake alone does wrong")
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(choices=st.randoms(use_true_random=False), nodes=st.integers(2, 5), length=st.integers(1, 30))
def test_nothing_that_the_fake_does_is_impossible(choices: Random, nodes: int, length: int) -> None:
    program = generate(0, nodes=nodes, length=length, choices=choices)
    assert judge(program, fake=True).findings == (), program.to_json()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_a_program_that_was_kept(path: Path, corosync_mode: str) -> None:
    """In a process of its own, as its clients are."""
    fake = ["--fake"] if corosync_mode == "fake" else []
    command = [sys.executable, "-m", "fuzz", *fake, str(path)]
    result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def change_first(observations: list[dict[str, Any]], key: str, new: object) -> bool:
    """Change the first value of that key that there is somewhere within."""
    waiting: deque[dict[str, Any]] = deque(observations)
    while waiting:
        mapping = waiting.popleft()
        if key in mapping:
            mapping[key] = new
            return True
        waiting.extend(cast("dict[str, Any]", value) for value in mapping.values() if isinstance(value, dict))
    return False


@pytest.mark.corosync_fake_only(reason="what it compares are two runs on the fake")
@pytest.mark.parametrize(
    "key,new",
    [
        ("members", ["4a"]),
        ("messages", {"1a": ["7, 1 bytes"]}),
        ("changes", [["left", "1a", "PROCDOWN"]]),
        ("result", "AccessError"),
        ("quorum", 9),
        ("quorate", None),
        ("groups", [["g", "9z"]]),
        ("keys", {"fuzz.a": "7"}),
    ],
)
def test_a_difference_is_found(key: str, new: object) -> None:
    program = program_of(SEED)
    one, other = (run_on_fake(program) for _ in range(2))
    assert list(findings(program, one, other)) == []
    assert change_first(other.observations, key, new)
    (found, *_) = findings(program, one, other)
    assert found.startswith("difference: step ")
    assert key in found


@pytest.mark.corosync_fake_only(reason="what it compares are two runs on the fake")
def test_what_does_not_come_to_its_end_is_found() -> None:
    program = program_of(SEED)
    one = run_on_fake(program)
    (found,) = findings(program, one, attrs.evolve(one, error="step 3: not quiet"))
    assert found == "stuck: on the real one: step 3: not quiet"


Seen: TypeAlias = dict[str, Any]


def seen(rings: list[list[int]], *expected: int, quorum: int = 2, votes: int = 1) -> Seen:
    """What is to be seen of a cluster whose first nodes expect so many votes of each other."""
    nodes = range(1, len(expected) + 1)
    infos = {
        f"info {node}": {"expected votes": of_it, "quorum": quorum, "votes": votes}
        for node, of_it in zip(nodes, expected, strict=True)
    }
    return {"rings": rings, **{f"node {node}": {**infos, "info 9": "NotExistError"} for node in nodes}}


MEET: Step = {"do": "heal"}
APART = [[1], [2], [3]]
TOGETHER = [[1, 2, 3]]


@pytest.mark.parametrize(
    "before,step,after,varies",
    [
        (seen(APART, 3, 3, 4), MEET, TOGETHER, True),
        (seen(APART, 3, 3, 3), MEET, TOGETHER, False),
        (seen(APART, 3, 3, 3, quorum=3), MEET, TOGETHER, True),
        (seen(APART, 3, 3, 3, votes=2), MEET, TOGETHER, True),
        (seen([[1, 2], [3]], 3, 3, 4), MEET, TOGETHER, True),
        (seen([[1, 2], [3]], 3, 3, 3), MEET, TOGETHER, False),
        (seen([[1, 2], [3]], 3, 3, 4), MEET, [[1, 3], [2]], True),
        (seen([[1, 2], [3]], 3, 3, 3), MEET, [[1, 3], [2]], False),
        (seen(TOGETHER, 3, 3, 4), MEET, [[1, 2], [3]], False),
        (seen([[1, 2]], 3, 3, 4), {"do": "thaw", "node": 3}, TOGETHER, True),
        (seen([[1, 2]], 3, 3, 3), {"do": "thaw", "node": 3}, TOGETHER, False),
        (seen([[1, 2]], 3, 3, 4), {"do": "storm", "during": {"do": "thaw", "node": 3}}, TOGETHER, True),
        (seen([[1, 2]], 3, 3, 4), {"do": "start", "node": 3}, TOGETHER, True),
        (seen(TOGETHER, 3, 3, 4), {"do": "freeze", "node": 3}, [[1, 2]], False),
    ],
)
def test_what_nodes_expect_is_excused_only_where_it_varies(
    before: Seen,
    step: Step,
    after: list[list[int]],
    varies: bool,  # noqa: FBT001 - it is compared
) -> None:
    excuses = Excuses()
    excuses.follow({"do": "send"}, before)
    assert not excuses.varies
    excuses.follow(step, seen(after, 3, 3, 3))
    assert excuses.varies is varies
    excuses.agree_again()
    excuses.follow(MEET, seen(APART, 3, 3, 3))
    assert not excuses.varies


def test_the_fewest_steps_are_found() -> None:
    """Two that are far apart, and need each other."""
    needed: tuple[Step, Step] = {"do": "one"}, {"do": "other"}
    steps = program_of(SEED).steps
    program = Program(SEED, 3, (*steps[:3], needed[0], *steps[3:], needed[1], steps[0]))
    tries: list[Program] = []

    def fails(candidate: Program) -> bool:
        tries.append(candidate)
        return all(step in candidate.steps for step in needed)

    assert shrink(program, fails).steps == needed
    assert len(tries) < 200
