"""The workloads, and how the results of their rounds become rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Final, TypeAlias

import attrs

Result: TypeAlias = dict[str, float]
"""What one run printed: peer.c, peer.py or local.py."""

OURS: Final = "triocoro"
C: Final = "C"
TRIO: Final = "Trio"
GROUP: Final = "raw group"
"""triocoro without the recipe that is measured."""

_KIB: Final = 1024
_SMALL: Final = 64
_LOCAL: Final = {
    "wakeup": "two tasks that wake each other by a socket",
    "fake": "deliveries of a fake, 64 B, 3 nodes",
    "recorded": "deliveries of a fake that is recorded, 64 B, 3 nodes",
    "seeds": "runs of a test of 10 s under a seed, 3 nodes, 3 clients",
    "import": "import after Trio",
    "map": "check of 10,000 operations of 10 clients on a map",
    "register": "check of 1,000 operations of 50 clients on a register",
    "idle": "100 idle groups",
    "flood": "ticker beside a flood",
    "raw": "raw handle alone, 64 B, 1 node",
}
"""Titles of what local.py does, but for `channel`, which `single` is compared with."""


_RECIPES: Final = {
    "safe": "safe send",
    "execute": "commands of 1,000 tasks",
    "snapshot": "commands beside a snapshot of 100 MB",
}
"""What recipe.py does, but for what a raw group does in its place."""

KILLED: Final = "killed"
CRASHED: Final = "crashed"
_FAILOVERS: Final = {KILLED: "failover, the leader is killed", CRASHED: "failover, the leader's daemon is killed"}
"""What failover.py does."""


@attrs.frozen
class Workload:
    """Something to measure: with the members of a group (peer.c, peer.py), or in one process (local.py)."""

    work: str
    """The first argument of the programs."""
    nodes: int = 1
    """The nodes of the cluster."""
    size: int = _SMALL
    """Bytes of a message."""
    count: int = 0
    """Messages that each sender sends; local.py has counts of its own."""
    senders: int = 1
    """Members, each on a node of its own, that send and receive."""

    @property
    def is_local(self) -> bool:
        """Whether local.py does it."""
        return self.work in _LOCAL

    @property
    def is_recipe(self) -> bool:
        """Whether recipe.py does it."""
        return self.work in _RECIPES

    @property
    def is_failover(self) -> bool:
        """Whether failover.py does it."""
        return self.work in _FAILOVERS

    @property
    def name(self) -> str:
        """The title in the table."""
        if self.is_local:
            return _LOCAL[self.work]
        if self.is_failover:
            return f"{_FAILOVERS[self.work]}, {self.nodes} nodes"
        if self.is_recipe:
            return f"{_RECIPES[self.work]}, {self.size} B, {self.nodes} nodes"
        kind = {"batch": "batches", "single": "one at a time", "trip": "round trip"}[self.work]
        size = f"{self.size} B" if self.size < _KIB else f"{self.size // _KIB} KiB"
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        senders = f", {self.senders} senders" if self.senders > 1 else ""
        return f"{kind}, {size}, {nodes}{senders}"

    @property
    def references(self) -> tuple[str, ...]:
        """The subjects beside ours; ratios are to the first."""
        if self.work == "wakeup":
            return (TRIO,)
        if self.is_recipe:
            return () if self.work == "snapshot" else (GROUP,)
        if self.is_local or self.is_failover:
            return ()
        # Trio's memory channel passes a reference, whatever its size, and has one receiver.
        return (TRIO, C) if self.work == "single" and self.size == _SMALL and self.senders == 1 else (C,)

    @property
    def measures_us(self) -> bool:
        """Whether triocoro is a subject at all."""
        return self.work != "wakeup"


_COUNTS: Final = {
    1: {_SMALL: 100_000, _KIB: 80_000, 16 * _KIB: 20_000, 256 * _KIB: 1_000},
    3: {_SMALL: 100_000, _KIB: 40_000, 16 * _KIB: 3_000, 256 * _KIB: 150},
}
"""For each number of nodes and each size, how many messages keep the subjects busy for about a second."""
_SINGLE: Final = {_SMALL: 10_000, _KIB: 10_000, 16 * _KIB: 2_000, 256 * _KIB: 150}

WORKLOADS: Final = (
    *(Workload("batch", nodes, size, count) for nodes in (3, 1) for size, count in _COUNTS[nodes].items()),
    *(Workload("batch", 3, size, count // 3, senders=3) for size, count in _COUNTS[3].items()),
    *(Workload("single", nodes, size, count) for nodes in (3, 1) for size, count in _SINGLE.items()),
    Workload("single", 3, _SMALL, 3_000, senders=3),
    *(Workload("trip", nodes, _SMALL, 3_000) for nodes in (3, 1)),
    Workload("safe", 3, _SMALL, 3_000, senders=3),
    Workload("execute", 3, _SMALL, 50_000, senders=3),
    Workload("snapshot", 3, _SMALL, 20_000, senders=3),
    *(Workload(work, 3, count=4, senders=3) for work in _FAILOVERS),
    *(Workload(work) for work in _LOCAL),
)

SMOKE: Final = (
    Workload("batch", 3, _KIB, 500, senders=3),
    Workload("batch", 1, _SMALL, 2_000),
    Workload("single", 1, _SMALL, 500),
    Workload("trip", 1, _SMALL, 200),
    Workload(KILLED, 3, count=1, senders=3),
    *(Workload(work) for work in ("wakeup", "fake", "import", "map", "raw")),
)
"""Just enough to notice that the benchmarks themselves are broken."""


def figures(result: Result) -> dict[str, float]:
    """The figures of one run, in the units of `FIGURES`."""
    found: dict[str, float] = {}
    if result.get("received"):
        found["rate"] = result["received"] / result["seconds"]
        found["cpu"] = result["cpu"] / result["received"] * 1e6
    found |= {name: result[name] * scale for name, scale in _SCALES.items() if name in result}
    return found


FIGURES: Final = {
    "rate": ("rate", "/s"),
    "cpu": ("CPU per message", " us"),
    "p50": ("p50", " us"),
    "p99": ("p99", " us"),
    "p999": ("p99.9", " us"),
    "late": ("p99.9 of the lateness", " ms"),
    "failover": ("after the lock delay", " ms"),
    "latest": ("the latest of all rounds", " ms"),
    "import": ("time", " ms"),
    "share": ("CPU of all", " %"),
    "bytes": ("memory of each", " KiB"),
    "lost": ("lost in all rounds", ""),
}
"""The title and the unit of each figure."""

_SCALES: Final = {
    "p50": 1e6,
    "p99": 1e6,
    "p999": 1e6,
    "late": 1e3,
    "failover": 1e3,
    "latest": 1e3,
    "import": 1e3,
    "share": 100.0,
    "bytes": 1 / 1024,
    "lost": 1.0,
}


_SUMMARIES: Final[dict[str, Callable[[list[float]], float]]] = {"lost": sum, "latest": max}
"""How the rounds become one value, where that is not the median."""


@attrs.frozen
class Row:
    """One figure of a workload."""

    workload: str
    """The name of the workload."""
    figure: str
    """A key of `FIGURES`."""
    values: dict[str, float]
    """Of each subject, the median of its rounds; the sum of messages that were lost; the maximum of the latest."""
    reference: str | None = None
    """The subject that the first one is compared with."""
    ratio: float | None = None
    """The first subject by the reference: the median of the ratios of the rounds."""


def rows(workload: str, rounds: Sequence[dict[str, Result]]) -> list[Row]:
    """Summarize the rounds of a workload.

    Args:
        workload: its name.
        rounds: for each round, the result of each subject. The first subject is compared with the second. One that
            failed in a round is missing there.
    """
    measured = [{subject: figures(result) for subject, result in each.items()} for each in rounds]
    subjects = list(dict.fromkeys(subject for each in measured for subject in each))
    found: list[Row] = []
    for figure in FIGURES:
        summarize = _SUMMARIES.get(figure, median)
        series = {s: [each[s][figure] for each in measured if figure in each.get(s, {})] for s in subjects}
        values = {subject: summarize(numbers) for subject, numbers in series.items() if numbers}
        if not values or (figure == "lost" and not any(values.values())):
            continue
        reference = ratio = None
        if figure != "lost" and len(subjects) > 1:
            one, other = subjects[:2]
            pairs = [(each[one][figure], each[other].get(figure)) for each in measured if {one, other} <= set(each)]
            ratios = [mine / theirs for mine, theirs in pairs if theirs]
            if ratios:
                reference, ratio = other, median(ratios)
        found.append(Row(workload, figure, values, reference, ratio))
    return found


def table(found: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    subjects = subjects_in(found)
    return "\n".join(
        [
            f"| work | figure | {' | '.join([*subjects, 'ratio'])} |",
            "|---|---|" + "---|" * (len(subjects) + 1),
            *lines(found, subjects),
        ]
    )


def subjects_in(found: Sequence[Row]) -> list[str]:
    """The names of the subjects, in the order of their columns."""
    names = dict.fromkeys(name for row in found for name in row.values)
    return sorted(
        names, key=lambda name: (OURS, C, TRIO, GROUP).index(name) if name in (OURS, C, TRIO, GROUP) else len(names)
    )


def lines(found: Sequence[Row], subjects: Sequence[str]) -> list[str]:
    """The lines of the table, with these columns. The name of a workload stands in its first line only."""
    written: list[str] = []
    previous = ""
    for row in found:
        values = [_value(row, subject) if subject in row.values else "" for subject in subjects]
        name = "" if row.workload == previous else row.workload
        previous = row.workload
        written.append("| " + " | ".join([name, FIGURES[row.figure][0], *values, _ratio(row)]) + " |")
    return written


def one_line(row: Row) -> str:
    """The row as a line outside of a table."""
    values = ", ".join(f"{subject} {_value(row, subject)}" for subject in row.values)
    return f"{row.workload}: {FIGURES[row.figure][0]}: {values}" + (row.ratio is not None) * f"; {_ratio(row)}"


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{row.ratio:.2f}x {row.reference}"


def _value(row: Row, subject: str) -> str:
    value = row.values[subject]
    digits = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004 - three digits
    return digits + FIGURES[row.figure][1]
