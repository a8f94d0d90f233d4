"""Random schedules for the agreement, and that they find wrong agreements."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest

from recipes import schedules
from recipes.bus import FRAME, MESSAGE, Bus, History, Machine, Violation
from recipes.schedules import Schedule, Step, generate, run, shrink
from triocoro.recipes import _agreement
from triocoro.recipes._ballots import Choice, Claim
from triocoro.recipes._config import Config
from triocoro.recipes._states import TRANSITIONS, State


@pytest.mark.parametrize("first", range(0, 600, 100))
def test_random_schedules(first: int) -> None:
    faults = {seed: fault for seed in range(first, first + 100) if (fault := run(generate(seed)).fault) is not None}
    assert not faults, f"`PYTHONPATH=tests python -m recipes.schedules --seed {min(faults)}` shows how"


def test_a_seed_is_the_same_schedule_and_the_same_run_each_time() -> None:
    assert generate(5) == generate(5)
    one: list[str] = []
    two: list[str] = []
    run(generate(5), trace=one.append)
    run(generate(5), trace=two.append)
    assert one == two


def test_most_schedules_end_with_members_that_agree() -> None:
    outcomes = [run(generate(seed)) for seed in range(100)]
    assert sum(outcome.live for outcome in outcomes) > 90
    assert sum(outcome.commits for outcome in outcomes) > 500


def test_the_page_has_the_transitions() -> None:
    page = (Path(__file__).parents[2] / "docs/recipes/agreement.md").read_text(encoding="utf-8")
    table = page.partition("| in | when | it is then |\n|---|---|---|\n")[2].partition("\n\n")[0].splitlines()
    always = dict(TRANSITIONS[State.PRIMARY])
    expected = [f"| any | {event.value} | {state.value} |" for event, state in always.items()]
    for state, events in TRANSITIONS.items():
        assert always.items() <= events.items()
        expected += [
            f"| {state.value} | {event.value} | {following.value} |"
            for event, following in events.items()
            if event not in always
        ]
    assert table == expected


# -- the checkers and shrinking find what is wrong --------------------------------------------------------------------


def longest(offers: Mapping[int, Claim | None]) -> Choice | None:
    """A wrong choice: the longest log, of whatever ballot."""
    claim = max((claim for claim in offers.values() if claim is not None), key=lambda it: it.length, default=None)
    if claim is None or not all(config.majority(offers.__contains__) for config in claim.configs):
        return None
    return Choice(claim.length, claim.digests[-1], claim.configs)


def test_a_wrong_choice_is_found_and_shrunk_and_printed_as_code(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[Step] = [("start", 1), ("start", 2), ("start", 3), ("launch", "1a"), ("launch", "2a"), ("launch", "3a")]
    steps += [("move", (1, 2, 3)), ("calm",), ("move", (2, 3)), ("flow", 1, 30), ("stop", "1a"), ("go_on", "1a")]
    steps += [("propose", "1a"), ("propose", "1a"), ("propose", "2a"), ("calm",), ("disconnect", "3a"), ("calm",)]
    schedule = Schedule(3, 1, protect=True, steps=steps)
    assert run(schedule).fault is None
    monkeypatch.setattr(_agreement, "choose", longest)
    fault = run(schedule).fault
    assert fault is not None
    assert "goes back" in fault
    small = shrink(schedule, seconds=5)
    assert len(small.steps) < len(schedule.steps)
    assert "goes back" in str(run(small).fault)
    assert eval(small.code(), {"Schedule": Schedule}) == attrs.evolve(small, steps=[*small.steps])  # noqa: S307


def test_a_majority_that_is_none_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(config: Any, has: Any) -> bool:
        return bool(
            2 * sum(config.votes[node] for node, it in config.seats.items() if has(it)) >= sum(config.votes.values())
        )

    monkeypatch.setattr(Config, "majority", half)
    assert any(run(generate(seed)).fault for seed in range(500))


def test_an_exception_of_the_agreement_is_a_fault() -> None:
    def broken(*args: Any, **options: Any) -> Any:
        it = _agreement.Agreement(*args, **options)
        it.tick = lambda: 1 / 0  # type: ignore[method-assign, assignment]
        return it

    outcome = run(Schedule(2, 1, protect=True, steps=[("launch", "1a"), ("tick", "1a")]), broken)
    assert outcome.fault is not None
    assert "ZeroDivisionError" in outcome.fault


def history_of(*entries: tuple[int, int, int, int, bytes]) -> tuple[History, Machine]:
    history = History()
    for *_, incarnation, number, payload in entries:
        history.proposed.setdefault(incarnation, deque()).append((number, payload))
    machine = Machine("1a#1", history)
    for entry in entries:
        history.apply(machine, entry)
    return history, machine


@pytest.mark.parametrize(
    "entry",
    [(1, 4, 7, 1, b"b"), (2, 4, 7, 1, b"a"), (1, 4, 7, 2, b"a"), (1, 4, 8, 1, b"a"), (1, 5, 7, 1, b"a")],
    ids=["payload", "index", "number", "incarnation", "epoch"],
)
def test_members_that_apply_different_entries_are_found(entry: tuple[int, int, int, int, bytes]) -> None:
    history, _ = history_of((1, 4, 7, 1, b"a"))
    with pytest.raises(Violation, match="where others applied"):
        history.apply(Machine("2a#1", history), entry)


@pytest.mark.parametrize("entry", [(2, 4, 7, 1, b"a"), (2, 4, 7, 3, b"c")], ids=["twice", "one left out"])
def test_entries_that_are_not_what_their_sender_has_proposed_next_are_found(
    entry: tuple[int, int, int, int, bytes],
) -> None:
    history, machine = history_of((1, 4, 7, 1, b"a"))
    history.proposed[7].extend([(2, b"b"), (3, b"c")])
    with pytest.raises(Violation, match="proposed next"):
        history.apply(machine, entry)


def test_withdrawn_entries_may_be_applied_or_not() -> None:
    history, machine = history_of((1, 4, 7, 1, b"a"))
    history.proposed[7].extend([(2, b"b"), (3, b"c"), (4, b"d")])
    history.withdraw(7, 3)
    assert not history.waits(7)
    history.proposed[7].append((5, b"e"))
    assert history.waits(7)
    history.apply(machine, (2, 4, 7, 3, b"c"))
    history.apply(machine, (3, 4, 7, 5, b"e"))
    assert not history.waits(7)


def test_a_snapshot_that_is_not_what_others_have_applied_is_found() -> None:
    history, machine = history_of((1, 4, 7, 1, b"a"))
    chunks = [*machine.snapshot()]
    other = Machine("2a#1", history)
    other.restore(chunks, discards=False)
    assert other.count == 1
    with pytest.raises(Violation, match="restores"):
        Machine("3a#1", history).restore([b"".join(chunks).replace(b"'a'", b"'b'")], discards=False)
    with pytest.raises(Violation, match="goes back"):
        other.restore([history.encoded(0)], discards=False)


def test_members_that_do_not_agree_in_the_end_are_found() -> None:
    bus = Bus(2)
    for nodeid in bus.nodes:
        bus.start(nodeid)
    bus.drain = lambda: None  # type: ignore[method-assign]
    with pytest.raises(Violation, match="not live"):
        bus.quiet()


# -- the bus does what Corosync was seen to do ------------------------------------------------------------------------


def frames(bus: Bus, name: str) -> Sequence[bytes]:
    """The messages that a process has not read yet."""
    process = bus.processes[name]
    assert process is not None
    return [event[2] for event in process.inbox if event[0] == MESSAGE]


def small_bus() -> Bus:
    bus = Bus(3)
    for nodeid in bus.nodes:
        bus.start(nodeid)
        bus.launch(f"{nodeid}a")
    bus.move([1, 2, 3])
    for nodeid in bus.nodes:
        bus.deliver(nodeid, 9)
        bus.place(nodeid, 9)
        bus.deliver(nodeid, 9)
    bus.drain()
    return bus


def say(bus: Bus, name: str, frame: bytes) -> None:
    """Let a process send something."""
    process = bus.processes[name]
    assert process is not None
    assert process.connection is not None
    process.connection.node.queue.append((FRAME, process.connection, frame))


def test_nodes_that_move_on_together_deliver_the_same() -> None:
    """A prefix, and after that only messages of nodes that move on with them (docs/facts.md, 68)."""
    bus = small_bus()
    for name in ("1a", "3a", "2a"):
        say(bus, name, name.encode())
        bus.place(int(name[0]))
    bus.deliver(3, 2)
    bus.move([1, 2], prefix=0)
    bus.move([3], prefix=0)
    assert frames(bus, "1a") == frames(bus, "2a") == [b"1a", b"2a"]
    assert frames(bus, "3a") == [b"1a", b"3a"]


def test_what_one_of_them_has_delivered_all_of_them_deliver() -> None:
    bus = small_bus()
    for name in ("3a", "1a"):
        say(bus, name, name.encode())
        bus.place(int(name[0]))
    bus.deliver(2, 1)
    bus.move([1, 2], prefix=0)
    assert frames(bus, "1a") == frames(bus, "2a") == [b"3a", b"1a"]


def test_a_node_that_is_left_behind_delivers_its_messages_to_itself() -> None:
    """docs/facts.md, 86."""
    bus = small_bus()
    bus.move([1, 2])
    say(bus, "3a", b"x")
    bus.place(3)
    bus.deliver(3)
    assert frames(bus, "3a") == [b"x"]
    assert frames(bus, "1a") == []


def test_the_rest_of_the_stream_is_lost_with_the_connection() -> None:
    bus = small_bus()
    for frame in (b"1", b"2", b"3"):
        say(bus, "1a", frame)
    bus.place(1, 9)
    bus.deliver(2, 9)
    bus.kill(2, keep=2)
    assert frames(bus, "2a") == [b"1", b"2"]


def test_the_command_counts_and_writes_a_line_of_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schedules, "LEDGER", tmp_path / "ledger.csv")
    monkeypatch.setattr(schedules, "tested_commit", lambda: "abc")
    assert schedules.main(["--seeds=0:20", "--workers=0", "--ledger"]) == 0
    assert "20 schedules" in capsys.readouterr().out
    header, line = (tmp_path / "ledger.csv").read_text(encoding="ascii").splitlines()
    assert header == "day,commit,seeds,schedules,commits,ballots,violations,undecided"
    assert line.split(",")[1:4] == ["abc", "0:20", "20"]
    assert line.endswith(",0")


def test_the_command_shows_one_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert schedules.main(["--seed=1"]) == 0
    assert "fault=None" in capsys.readouterr().out
