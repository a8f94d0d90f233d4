"""The fuzzer: its programs, its findings, and the saved programs."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeAlias, cast

import attrs
import pytest
import trio
from fuzz.__main__ import program_of
from fuzz.agent import Agent, name_of
from fuzz.clients import Client, ClientDiedError, ObservedMember
from fuzz.driver import Outcome
from fuzz.excuses import Excuses, left_with_node
from fuzz.program import Program, Step, generate
from fuzz.shrink import shrink
from fuzz.verdict import findings, judge, run_on_fake
from hypothesis import HealthCheck, given, settings, strategies as st
from support.traces import Marked, wait_until

import triocoro
from triocoro.testing import Call, History

VERBS = """
    join send storm leave drop die track untrack mistake set_votes set_expected set_key count_key delete_key
    partition isolate heal stop kill start restart freeze thaw
"""
HERE = Path(__file__).parent.parent
SAVED = sorted((HERE / "fuzz" / "programs").glob("*.json"))
SEED = 1
VARIED = 4
"""The seed of a program whose observations have all fields."""


def test_a_seed_determines_a_program() -> None:
    program = program_of(SEED)
    assert program == program_of(SEED)
    assert program.steps != program_of(SEED + 1).steps
    assert Program.from_json(program.to_json()) == program
    assert len(program.steps) >= 25
    assert {program_of(seed).nodes for seed in range(10)} == {3, 5}


@pytest.mark.corosync_fake_only(reason="it compares two runs on the fake")
def test_a_program_takes_the_same_course_again_on_the_fake() -> None:
    one, other = (run_on_fake(program_of(SEED)) for _ in range(2))
    assert one.observations == other.observations
    assert one.history.normalised().to_json_lines() == other.history.normalised().to_json_lines()
    assert len(one.history) > 500


@pytest.mark.long
@pytest.mark.corosync_fake_only(reason="it only needs the steps to run")
def test_programs_use_every_verb_and_every_step_applies() -> None:
    steps: list[tuple[Step, Any]] = []
    for seed in range(SEED, SEED + 12):
        program = program_of(seed)
        outcome = run_on_fake(program)
        assert outcome.error == ""
        results = [seen["result"] for seen in outcome.observations]
        steps += zip(program.steps, results, strict=True)
    assert {step["do"] for step, _ in steps} == set(VERBS.split())
    assert [step for step, result in steps if "nothing" in (result if isinstance(result, list) else [result])] == []
    assert {str(result["during"]) for step, result in steps if step.get("during")} == {"None"}
    assert len([step for step, _ in steps if step.get("during")]) > 5
    assert len([step for step, _ in steps if step["do"] == "join"]) > len(steps) / 10


@pytest.mark.corosync_fake_only(reason="it looks for mistakes of the fake alone")
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@given(choices=st.randoms(use_true_random=False), nodes=st.integers(2, 5), length=st.integers(1, 30))
def test_the_fake_does_nothing_impossible(choices: Random, nodes: int, length: int) -> None:
    program = generate(0, nodes=nodes, length=length, choices=choices)
    assert judge(program, fake=True).findings == (), program.to_json()


def test_errors_with_different_codes_have_different_names() -> None:
    assert name_of(ValueError("no")) == "ValueError"
    assert name_of(triocoro.KeyNotFoundError("no")) == "KeyNotFoundError NOT_EXIST"
    assert name_of(triocoro.CorosyncError("no", code=triocoro.CsError.BUSY)) == "CorosyncError BUSY"


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_a_saved_program_has_no_findings(path: Path, corosync_mode: str) -> None:
    """Run it in a process of its own, like its clients."""
    fake = ["--fake"] if corosync_mode == "fake" else []
    command = [sys.executable, "-m", "fuzz", *fake, str(path)]
    result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr


def change_first(observations: list[dict[str, Any]], key: str, new: object) -> bool:
    """Change the first value with that key, at any depth; returns whether there was one."""
    queue: deque[dict[str, Any]] = deque(observations)
    while queue:
        mapping = queue.popleft()
        if key in mapping:
            mapping[key] = new
            return True
        queue.extend(cast("dict[str, Any]", value) for value in mapping.values() if isinstance(value, dict))
    return False


@pytest.fixture(scope="module")
def two_runs() -> tuple[Program, Outcome, Outcome]:
    """A program, and what two runs of it were like: the same."""
    program = program_of(VARIED)
    one, other = (run_on_fake(program) for _ in range(2))
    assert list(findings(program, one, other)) == []
    return program, one, other


@pytest.mark.corosync_fake_only(reason="it compares two runs on the fake")
@pytest.mark.parametrize(
    "key,new",
    [
        ("members", ["4a"]),
        ("ring", [7, 7]),
        ("nodes", [7]),
        ("states", ["1 DEAD"]),
        ("messages", {"1a": ["7, 1 bytes"]}),
        ("changes", [["left", "1a", "PROCDOWN"]]),
        ("result", "AccessError"),
        ("quorum", 9),
        ("quorate", None),
        ("groups", [["g", "9z"]]),
        ("keys", {"fuzz.a": "INT8 7"}),
        ("errors", ["TypeError"]),
    ],
)
def test_a_difference_is_found(key: str, new: object, two_runs: tuple[Program, Outcome, Outcome]) -> None:
    program, one, other = two_runs
    other = attrs.evolve(other, observations=copy.deepcopy(other.observations))
    assert change_first(other.observations, key, new)
    (found, *_) = findings(program, one, other)
    assert found.startswith("difference: step ")
    assert key in found


@pytest.mark.corosync_fake_only(reason="it compares two runs on the fake")
@pytest.mark.parametrize(
    "reason,leaves_may_be_lost,kind",
    [("NODEDOWN", True, "excused"), ("NODEDOWN", False, "difference"), ("LEAVE", True, "difference")],
)
def test_how_members_of_a_stopped_node_leave_is_excused_where_it_varies(
    *, reason: str, leaves_may_be_lost: bool, kind: str
) -> None:
    program = Program.from_json((HERE / "fuzz" / "programs" / "dispatch-all.json").read_text(encoding="ascii"))
    one, other = (run_on_fake(program) for _ in range(2))
    changes = other.observations[2]["2a in g"]["changes"]
    assert changes["1a"] == ["left", "PROCDOWN"]
    changes["1a"] = ["left", reason]
    (found,) = findings(program, one, other, leaves_may_be_lost=leaves_may_be_lost)
    assert found.startswith(f"{kind}: step 2, ")


@pytest.mark.parametrize("step", [{"do": "restart", "node": 2}, {"do": "kill", "node": 1}, {"do": "heal"}])
def test_no_other_step_excuses_how_members_leave(step: Step) -> None:
    assert left_with_node({"do": "stop", "node": 1}, "1a", ["left", "PROCDOWN"], ["left", "NODEDOWN"])
    assert not left_with_node(step, "1a", ["left", "PROCDOWN"], ["left", "NODEDOWN"])


@pytest.mark.corosync_fake_only(reason="it compares two runs on the fake")
def test_a_program_that_gets_stuck_is_a_finding() -> None:
    program = program_of(SEED)
    one = run_on_fake(program)
    (found,) = findings(program, one, attrs.evolve(one, error="step 3: not quiet"))
    assert found == "stuck: on the real one: step 3: not quiet"


@pytest.mark.corosync_fake_only(reason="it needs no real nodes")
def test_a_crash_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other programs go on, and the run on the other cluster is still checked."""

    def crash(_: Program) -> Outcome:
        raise ClientDiedError("client 1a ended by itself")

    monkeypatch.setattr("fuzz.verdict.run_on_real", crash)
    verdict = judge(program_of(SEED))
    (found,) = verdict.findings
    assert verdict.kind == "crash"
    assert found.startswith("crash: on the real one: Traceback")
    assert "client 1a ended by itself" in found


@pytest.mark.corosync_fake_only(reason="it needs no real nodes")
def test_an_error_that_is_not_a_result_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a bug of the SDK would be the same result on both."""

    async def send_batch(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("a bug")

    program = program_of(VARIED)
    monkeypatch.setattr(triocoro.Group, "send_batch", send_batch)
    assert judge(program, fake=True).kind == "crash"


class LostAfterFirst(AsyncIterator[object]):
    """The changes of a connection that is lost after the first one."""

    def __init__(self, changes: AsyncIterable[object]) -> None:
        self._changes: AsyncIterator[object] | None = aiter(changes)

    async def __anext__(self) -> object:
        if self._changes is None:
            raise triocoro.ConnectionLostError("lost")
        changes, self._changes = self._changes, None
        return await anext(changes)


@pytest.mark.corosync_fake_only(reason="it needs no real nodes")
def test_tracking_that_ends_by_itself_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Agent._changes

    @asynccontextmanager
    async def changes_lost_early(agent: Agent, service: str) -> AsyncGenerator[AsyncIterable[object], None]:
        async with original(agent, service) as changes:
            yield LostAfterFirst(changes)

    monkeypatch.setattr(Agent, "_changes", changes_lost_early)
    steps: tuple[Step, ...] = ({"do": "track", "client": "1a", "service": "quorum"},)
    (found,) = judge(Program(0, 1, steps), fake=True).findings
    assert "RuntimeError: tracking of quorum ended, although its daemon did not" in found


@pytest.mark.corosync_real_only(reason="the clients of a fake are not processes")
def test_a_client_that_ends_by_itself_is_noticed() -> None:
    """Run it in a process of its own, because the error ends the run."""
    code = """
import os, signal, trio
from fuzz.clients import Clients
from triocoro.testing import NetnsCluster

async def main():
    async with NetnsCluster(nodes=1) as cluster, trio.open_nursery() as nursery:
        client = await Clients(cluster, nursery).get_or_start("1a")
        os.kill(client.pid, signal.SIGKILL)
        await trio.sleep_forever()

trio.run(main)
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=60)
    assert re.search(r"ClientDiedError: client 1a \(pid \d+\) ended by itself", result.stderr)


class DeadClient(Client):
    """A client process that has died."""

    async def do(self, verb: str, **arguments: Any) -> Any:
        raise NotImplementedError

    async def die(self) -> None:
        raise NotImplementedError


def test_unrecorded_sends_of_a_killed_client_come_after_recorded_ones() -> None:
    client = DeadClient("1a", "1a0", pid=7)
    client.members["g"] = ObservedMember(client, "g")
    client.sending.append((1.0, "g", [b"1", b"2", b"3"]))

    def add(time: float, function: str, **arguments: Any) -> None:
        call = Call(time=time, client="1a0", node=1, handle=1, number=1, function=function, arguments=arguments)
        client.add(call)

    add(0.0, "join", group=b"g")
    add(2.0, "multicast", payloads=(b"1",))
    merged = History.merge([History(client.entries), *client.unrecorded_sends()])
    assert [entry.arguments.get("payloads") for entry in merged if isinstance(entry, Call)] == [
        None,
        (b"1",),
        (b"2", b"3"),
    ]


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Marked]:
    """Marks the processes that this test starts, and their children."""
    marked = Marked(uuid.uuid4().hex)
    monkeypatch.setenv("TRIOCORO_TEST_FUZZ", marked.mark)
    yield marked
    marked.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Control-C", "SIGTERM"])
def test_a_signal_ends_the_fuzzer_and_leaves_no_process(
    number: signal.Signals, marked: Marked, tmp_path: Path, corosync_mode: str
) -> None:
    """The signal comes while programs run, and on a real cluster while their client processes do."""
    log = tmp_path / "log"
    # This test may run under a parent that ignores Control-C, which children inherit.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from fuzz.__main__ import main;"
    command = [sys.executable, "-c", f"{code} exit(main())", "--number=200", f"--seed={SEED}", "--workers=2"]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command if corosync_mode == "real" else [*command, "--fake"],
            cwd=HERE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # There are two workers, their forkserver and others, and each cluster has at least seven processes.
    has_started = (
        (lambda: len(marked.processes()) > 20) if corosync_mode == "real" else (lambda: ": same" in log.read_text())
    )
    assert wait_until(has_started, 60)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.terminate()
    assert process.wait(20) == 128 + number
    assert wait_until(lambda: not marked.processes(), 5)
    assert log.read_text(encoding="utf-8").endswith("fuzz: interrupted\n")
    assert "Traceback" not in log.read_text(encoding="utf-8")


Observation: TypeAlias = dict[str, Any]


def observation(rings: list[list[int]], *expected: int, quorum: int = 2, votes: int = 1) -> Observation:
    """An observation of a cluster whose first nodes, asked about each other, give these expected votes."""
    nodes = range(1, len(expected) + 1)
    infos = {
        f"info {node}": {"state": "MEMBER", "expected votes": of_it, "quorum": quorum, "votes": votes}
        for node, of_it in zip(nodes, expected, strict=True)
    }
    return {"rings": rings, **{f"node {node}": {**infos, "info 9": "NotExistError"} for node in nodes}}


MEET: Step = {"do": "heal"}
APART = [[1], [2], [3]]
TOGETHER = [[1, 2, 3]]


@pytest.mark.parametrize(
    "before,step,after,varies",
    [
        (observation(APART, 3, 3, 4), MEET, TOGETHER, True),
        (observation(APART, 3, 3, 3), MEET, TOGETHER, False),
        (observation(APART, 3, 3, 3, quorum=3), MEET, TOGETHER, True),
        (observation(APART, 3, 3, 3, votes=2), MEET, TOGETHER, True),
        (observation([[1, 2], [3]], 3, 3, 4), MEET, TOGETHER, True),
        (observation([[1, 2], [3]], 3, 3, 3), MEET, TOGETHER, False),
        (observation([[1, 2], [3]], 3, 3, 4), MEET, [[1, 3], [2]], True),
        (observation([[1, 2], [3]], 3, 3, 3), MEET, [[1, 3], [2]], False),
        (observation(TOGETHER, 3, 3, 4), MEET, [[1, 2], [3]], False),
        (observation([[1, 2]], 3, 3, 4), {"do": "thaw", "node": 3}, TOGETHER, True),
        (observation([[1, 2]], 3, 3, 3), {"do": "thaw", "node": 3}, TOGETHER, False),
        (observation([[1, 2]], 3, 3, 4), {"do": "storm", "during": {"do": "thaw", "node": 3}}, TOGETHER, True),
        (observation([[1, 2]], 3, 3, 4), {"do": "start", "node": 3}, TOGETHER, True),
        (observation(TOGETHER, 3, 3, 4), {"do": "freeze", "node": 3}, [[1, 2]], False),
    ],
)
def test_expected_votes_are_excused_only_where_they_vary(
    before: Observation,
    step: Step,
    after: list[list[int]],
    varies: bool,  # noqa: FBT001 - it is compared
) -> None:
    excuses = Excuses()
    excuses.follow({"do": "send"}, before)
    assert not excuses.expected_votes_vary
    excuses.follow(step, observation(after, 3, 3, 3))
    assert excuses.expected_votes_vary is varies
    excuses.agree_again()
    excuses.follow(MEET, observation(APART, 3, 3, 3))
    assert not excuses.expected_votes_vary


def test_an_info_about_a_node_elsewhere_counts_only_if_that_node_was_never_asked() -> None:
    first = observation([[1, 2]], 3, 3)
    dead = {"state": "DEAD", "expected votes": 4, "quorum": 2, "votes": 1}
    elsewhere = {**first, **{f"node {node}": {**first[f"node {node}"], "info 3": dead} for node in (1, 2)}}
    for asked, varies in ((False, True), (True, False)):
        excuses = Excuses()
        if asked:
            excuses.follow({"do": "send"}, observation(TOGETHER, 3, 3, 3))
        excuses.follow({"do": "freeze", "node": 3}, elsewhere)
        excuses.follow({"do": "thaw", "node": 3}, observation(TOGETHER, 3, 3, 3))
        assert excuses.expected_votes_vary is varies


def test_the_expected_votes_of_an_ended_node_are_forgotten() -> None:
    for verb, varies in (("kill", False), ("stop", False), ("freeze", True)):
        excuses = Excuses()
        excuses.follow({"do": "send"}, observation([[1, 2], [3]], 3, 3, 4))
        rest = observation([[1], [2]], 3, 3)
        excuses.follow({"do": verb, "node": 3}, rest)
        excuses.follow(MEET, {**rest, "rings": [[1, 2]]})
        assert excuses.expected_votes_vary is varies


def test_shrinking_finds_the_fewest_steps() -> None:
    """The two that are needed are far apart, and fail only together."""
    needed: tuple[Step, Step] = {"do": "one"}, {"do": "other"}
    steps = program_of(SEED).steps
    program = Program(SEED, 3, (*steps[:3], needed[0], *steps[3:], needed[1], steps[0]))
    tries: list[Program] = []

    def fails(candidate: Program) -> bool:
        tries.append(candidate)
        return all(step in candidate.steps for step in needed)

    assert shrink(program, fails).steps == needed
    assert len(tries) < 200
