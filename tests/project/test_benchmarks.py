"""The benchmarks' own bookkeeping: options, ratios, tables and pages. `make bench-smoke` runs the programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.__main__ import chosen, parse
from benchmarks.running import Measurements
from benchmarks.subjects import Subject, subjects_of
from benchmarks.workloads import SMOKE, WORKLOADS, Result, Row, Workload, one_line, rows, table

ROOT = Path(__file__).parents[2]


def result(received: float, seconds: float, cpu: float = 1.0, lost: float = 0.0) -> Result:
    return {"received": received, "seconds": seconds, "cpu": cpu, "lost": lost}


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    rounds = [
        {"triocoro": result(100, 1), "C": result(100, 0.5)},
        {"triocoro": result(100, 10), "C": result(100, 9)},  # the machine was busy
        {"triocoro": result(100, 2), "C": result(100, 1)},
    ]
    rate, cpu = rows("work", rounds)
    assert rate == Row("work", "rate", {"triocoro": 50.0, "C": 100.0}, "C", 0.5)
    assert cpu == Row("work", "cpu", {"triocoro": 10_000.0, "C": 10_000.0}, "C", 1.0)


def test_only_the_first_two_are_compared() -> None:
    (rate, _) = rows("work", [{"triocoro": result(1, 1), "Trio": result(2, 1), "C": result(4, 1)}])
    assert (rate.reference, rate.ratio) == ("Trio", 0.5)
    assert rate.values == {"triocoro": 1.0, "Trio": 2.0, "C": 4.0}


def test_losses_of_all_rounds_are_added() -> None:
    rounds = [{"triocoro": result(100, 1), "C": result(98, 1, lost=lost)} for lost in (0, 2, 0)]
    assert rows("work", rounds)[-1] == Row("work", "lost", {"triocoro": 0.0, "C": 2.0})


def test_the_latest_of_all_rounds_counts() -> None:
    rounds = [{"triocoro": {"failover": late, "latest": late}} for late in (0.001, 0.25, -1.5)]
    assert rows("work", rounds) == [
        Row("work", "failover", {"triocoro": 1.0}),
        Row("work", "latest", {"triocoro": 250.0}),
    ]
    line = one_line(Row("work", "latest", {"triocoro": -1500.0}))
    assert line == "work: the latest of all rounds: triocoro -1,500 ms"


def test_a_round_that_failed_is_left_out() -> None:
    rounds = [{"triocoro": result(100, 1), "C": result(200, 1)}, {"C": result(1_000, 1)}]
    rate, _ = rows("work", rounds)
    assert rate == Row("work", "rate", {"triocoro": 100.0, "C": 600.0}, "C", 0.5)
    assert rows("work", [{}]) == []


def test_table() -> None:
    found = [
        Row("a", "rate", {"triocoro": 81_234.5, "C": 160_000.0}, "C", 0.507),
        Row("a", "cpu", {"triocoro": 10.42, "C": 2.0}, "C", 5.21),
        Row("b", "p50", {"Trio": 30.0}),
    ]
    assert table(found).splitlines() == [
        "| work | figure | triocoro | C | Trio | ratio |",
        "|---|---|---|---|---|---|",
        "| a | rate | 81,234/s | 160,000/s |  | 0.51x C |",
        "|  | CPU per message | 10.4 us | 2 us |  | 5.21x C |",
        "| b | p50 |  |  | 30 us |  |",
    ]
    assert one_line(found[0]) == "a: rate: triocoro 81,234/s, C 160,000/s; 0.51x C"
    assert one_line(found[2]) == "b: p50: Trio 30 us"


def test_names_are_unique() -> None:
    for workloads in (WORKLOADS, SMOKE):
        names = [workload.name for workload in workloads]
        assert len(set(names)) == len(names)
    assert Workload("batch", 3, 16 * 1024, 1, senders=3).name == "batches, 16 KiB, 3 nodes, 3 senders"
    assert Workload("trip").name == "round trip, 64 B, 1 node"
    assert Workload("killed", 3).name == "failover, the leader is killed, 3 nodes"


def test_options_choose_the_workloads() -> None:
    assert chosen(parse([])) == list(WORKLOADS)
    assert chosen(parse(["--smoke"])) == list(SMOKE)
    assert {workload.work for workload in chosen(parse(["--only=round trip"]))} == {"trip"}
    assert parse(["--rounds=9"]).rounds == 9


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--rounds=0"], "must be at least 1"),
        (["--only=nothing"], "no workload has 'nothing' in its name"),
        (["--save", "--only=trip"], "goes with neither"),
        (["--save", "--base=main"], "goes with neither"),
        (["--save", "--smoke"], "goes with neither"),
    ],
)
def test_bad_options(arguments: Sequence[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert complaint in capsys.readouterr().err


def test_a_base_replaces_c_and_trio() -> None:
    subjects = {name: Subject(name) for name in ("triocoro", "C", "Trio")}
    base = Subject("589d18b", Path("/tree"))

    def names(work: str, other: Subject | None) -> list[str]:
        return [subject.name for subject in subjects_of(Workload(work), subjects, other)]

    assert names("batch", None) == ["triocoro", "C"]
    assert names("single", None) == ["triocoro", "Trio", "C"]
    assert names("wakeup", None) == ["Trio"]
    assert names("fake", None) == ["triocoro"]
    assert names("single", base) == names("fake", base) == ["triocoro", "589d18b"]
    assert names("wakeup", base) == []


def test_another_commit_runs_with_the_programs_of_this_one() -> None:
    command = Subject("589d18b", Path("/tree")).command(Workload("batch", 3, 64, 10, senders=3), "group")
    assert command[:2] == ["env", "PYTHONPATH=/tree"]
    assert command[3:] == [str(ROOT / "benchmarks" / "peer.py"), "batch", "group", "64", "10", "3"]


def test_save_replaces_the_last_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not every machine has it, and it leaves fonts open.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    svg = tmp_path / "benchmarks.svg"
    svg.write_text("of the last results", encoding="utf-8")
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\nHow they work.\n", encoding="utf-8")
    under = report.conditions("589d18b", 5)
    for value in (1.0, 2.0):
        measurements = Measurements(
            rounds={"a": [{"triocoro": {"import": value}}]},
            rows=[Row("a", "import", {"triocoro": value})],
            failures=["b, C: the program ended early"],
        )
        report.save(tmp_path, under, measurements)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks\n\nHow they work.\n\n## Results\n\nCommit 589d18b, ")
    assert "| a | time | 2 ms |  |\n" in text
    assert "1 ms" not in text
    assert "- b, C: the program ended early\n" in text
    saved = json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))
    assert saved["conditions"]["commit"] == "589d18b"
    assert saved["rounds"] == {"a": [{"triocoro": {"import": 2.0}}]}
    assert not svg.exists()
    assert "svg" not in text
