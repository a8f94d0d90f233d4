"""Writes the measurements down: as JSON, as a plot, and into docs/benchmarks.md."""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from triocoro.testing import describe_daemon

from .running import Measurements
from .workloads import Row, subjects_in, table

HEADING: Final = "## Results"
"""Everything from this line of docs/benchmarks.md on is generated."""
PANELS: Final = (
    (("rate", "messages per second"), ("cpu", "CPU per message [us]")),
    (("p50", "there and back, p50 [us]"), ("p99", "there and back, p99 [us]")),
)
"""The figures that the plot shows: panels side by side have the same workloads."""


def conditions(commit: str, rounds: int) -> dict[str, object]:
    """What the results depend on."""
    return {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "python": platform.python_version(),
        "trio": trio.__version__,
        "corosync": describe_daemon(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "rounds": rounds,
    }


def conditions_line(under: dict[str, object]) -> str:
    """The conditions in a sentence."""
    return (
        "Commit {commit}, {date} UTC, rounds: {rounds}; Python {python}, Trio {trio}, {corosync},"
        " {cores} cores ({machine}).".format_map(under)
    )


def as_json(under: dict[str, object], measurements: Measurements) -> str:
    """All that was measured, with the results of each round."""
    everything = {"conditions": under, **attrs.asdict(measurements)}
    return json.dumps(everything, indent=1) + "\n"


def as_markdown(under: dict[str, object], measurements: Measurements) -> str:
    """The table, and what could not be measured."""
    parts = [conditions_line(under), table(measurements.rows)]
    if measurements.failures:
        parts.append("\n".join(["Not measured:", "", *(f"- {failure}" for failure in measurements.failures)]))
    return "\n\n".join(parts) + "\n"


def plot(found: Sequence[Row], path: Path) -> bool:
    """Draw the figures of all subjects side by side as SVG; False if matplotlib is not installed."""
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib").rcParams["svg.fonttype"] = "none"  # letters, not their outlines
    except ImportError:
        return False
    subjects = subjects_in(found)
    lines = [[row.workload for row in found if row.figure == left[0]] for left, _ in PANELS]
    drawing = figures.Figure(figsize=(12, 0.4 * sum(map(len, lines)) + 2), layout="constrained")
    heights = [len(workloads) + 1 for workloads in lines]
    grid = drawing.subplots(2, 2, squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights})
    for panels, sides, workloads in zip(grid, PANELS, lines, strict=True):
        for panel, (figure, title) in zip(panels, sides, strict=True):
            for place, subject in enumerate(subjects):
                having = [row for row in found if row.figure == figure and subject in row.values]
                offset = (place + 0.5) / len(subjects) - 0.5
                panel.barh(
                    [workloads.index(row.workload) + 0.8 * offset for row in having],
                    [row.values[subject] for row in having],
                    0.8 / len(subjects),
                    label=subject,
                )
            panel.set_xscale("log")
            panel.grid(axis="x", alpha=0.3)
            panel.set_title(title, loc="left")
        panels[0].set_yticks(range(len(workloads)), workloads)
        panels[0].set_ylim(max(len(workloads), 1) - 0.5, -0.5)
    drawing.legend(*grid[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=len(subjects))
    drawing.savefig(path)
    return True


def write(folder: Path, under: dict[str, object], measurements: Measurements) -> str:
    """Write results.json, results.md and results.svg into a folder; returns a line about it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(as_json(under, measurements), encoding="utf-8")
    (folder / "results.md").write_text(as_markdown(under, measurements), encoding="utf-8")
    if plot(measurements.rows, folder / "results.svg"):
        return f"results.md, results.json and results.svg are in {folder}"
    return f"results.md and results.json are in {folder}; there is no plot, since matplotlib is not installed"


def save(docs: Path, under: dict[str, object], measurements: Measurements) -> None:
    """Keep the results in the documentation, in place of those before."""
    page, svg = docs / "benchmarks.md", docs / "benchmarks.svg"
    (docs / "benchmarks.json").write_text(as_json(under, measurements), encoding="utf-8")
    drawn = plot(measurements.rows, svg)
    text, _, _ = page.read_text(encoding="utf-8").partition(HEADING)
    parts = [text.rstrip(), HEADING, as_markdown(under, measurements).rstrip()]
    parts.append("The results of each round are in [benchmarks.json](benchmarks.json).")
    if drawn:
        parts.append("![The same figures as bars](benchmarks.svg)")
    else:
        svg.unlink(missing_ok=True)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
