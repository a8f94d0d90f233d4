"""The report of a run: a table with a verdict, and a picture."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from .measure import BOUNDS, LEAST_SECONDS, Usage, grows, lost_with_rings, second_half, slope, without_parts
from .roles import LARGE


@attrs.frozen
class Sample:
    """What was measured at one time."""

    time: float
    """Seconds since the start."""
    usages: list[Usage]
    sent: int = 0
    """Messages that clients sent since the last sample, and so on."""
    received: int = 0
    bytes_received: int = 0
    lost: int = 0
    connections: int = 0
    cancelled: int = 0
    trips: list[float] = attrs.field(factory=list[float])


@attrs.define
class Run:
    """Everything that a run has found."""

    seed: int
    conditions: str
    patched: bool = False
    """Whether Corosync has the patches for facts 106 and 113: nothing may leak."""
    samples: list[Sample] = attrs.field(factory=list[Sample])
    rests: list[Sample] = attrs.field(factory=list[Sample])
    """What was measured after each window, when all connections were closed."""
    entries: int = 0
    faults: int = 0
    findings: list[str] = attrs.field(factory=list[str])
    """Violations and unexpected errors."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.samples[-1].time if self.samples else 0.0


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which that share of all are; `None` if there are none."""
    return sorted(values)[int(share * (len(values) - 1))] if values else None


def _processes(run: Run) -> list[str]:
    return sorted({usage.process for sample in run.samples + run.rests for usage in sample.usages})


def _series(samples: Sequence[Sample], process: str, what: str) -> list[tuple[float, float]]:
    return [
        (sample.time, value)
        for sample in samples
        for usage in sample.usages
        if usage.process == process and (value := getattr(usage, what)) is not None
    ]


def _restarts(run: Run, process: str) -> int:
    return len({usage.pid for sample in run.samples for usage in sample.usages if usage.process == process}) - 1


def leaks(run: Run) -> list[str]:
    """What grows, in words."""
    found: list[str] = []
    for process in _processes(run):
        if _restarts(run, process) > 0:
            continue
        for what in ("fds", "threads", "shared"):
            values = [value for _, value in _series(run.rests, process, what)]
            if grows(values):
                name = "connections in /dev/shm" if what == "shared" else what
                found.append(f"{process}: {name} grow: {values[0]:g} after the first window, {values[-1]:g} at the end")
        if run.seconds >= LEAST_SECONDS:
            found += [
                f"{process}: {growth.what} grows by {growth.slope:.0f} KiB a minute; {growth.bound:.0f} are allowed"
                for growth in _growths(run, process)
                if growth.bound is not None and growth.slope > growth.bound
            ]
    return found


@attrs.frozen
class Growth:
    """How some memory of a process changes between windows."""

    what: str
    series: list[tuple[float, float]]
    """Seconds and KiB."""
    note: str = ""
    """What Corosync is known to lose of it."""
    bound: float | None = None
    """The KiB a minute by which it may grow; `None` for what is not judged."""

    @property
    def slope(self) -> float:
        """The KiB a minute by which it grows over the second half."""
        return 60 * slope(second_half(self.series))


def _growths(run: Run, process: str) -> list[Growth]:
    """What is known of the memory of a process that was not restarted."""
    memory = _series(run.rests, process, "anonymous")
    if process.startswith("daemon"):
        rings = second_half(_series(run.rests, process, "rings")) or [(0.0, 0.0)]
        seconds, count = rings[-1][0] - rings[0][0], rings[-1][1] - rings[0][1]
        lost = 60 * lost_with_rings(count) / seconds if seconds and not run.patched else 0
        return [Growth("memory", memory, f"{count:.0f} rings", BOUNDS["daemon"] + lost)]
    other = _series(run.rests, process, "other")
    rest = without_parts([value for _, value in other], LARGE / 1024)
    parts = round((other[-1][1] - rest[-1]) / (LARGE / 1024)) if other else 0
    if not run.patched:
        other = [(time, value) for (time, _), value in zip(other, rest, strict=True)]
    return [
        Growth("memory of Python objects", _series(run.rests, process, "python"), "", BOUNDS["client"]),
        Growth("other memory in use", other, f"{parts} messages in libcpg", BOUNDS["client"]),
        Growth("memory", memory),
    ]


def verdict(run: Run) -> list[str]:
    """Why the run fails; empty if it passes."""
    idle = [] if any(sample.connections for sample in run.samples) else ["no client has connected"]
    return run.findings + idle + leaks(run)


def as_markdown(run: Run) -> str:
    """The report."""
    failures = verdict(run)
    lines = [
        f"# Soak of {run.seconds / 60:.1f} minutes, seed {run.seed}",
        "",
        run.conditions,
        "",
        _totals(run),
        "",
        _latencies(run),
        "",
        "Between windows, with all connections closed: after the first one, and after the last.",
        "",
        "| process | fds | threads | /dev/shm | restarts |",
        "|---|---|---|---|---|",
    ]
    for process in _processes(run):
        ends = [_ends(_series(run.rests, process, what)) for what in ("fds", "threads", "shared")]
        lines.append(_row(process, *ends, str(_restarts(run, process))))
    lines += [
        "",
        "The slope is that over the second half.",
        "",
        "| process | what | KiB | slope, KiB/min | allowed | known to leak |",
        "|---|---|---|---|---|---|",
    ]
    for process in _processes(run):
        if _restarts(run, process) == 0:
            lines += [
                _row(
                    process,
                    growth.what,
                    _ends(growth.series),
                    f"{growth.slope:+.1f}",
                    "-" if growth.bound is None else f"{growth.bound:.0f}",
                    growth.note or "-",
                )
                for growth in _growths(run, process)
            ]
    lines += ["", "Memory is what neither files nor shared memory back; that of a client has free parts."]
    if run.seconds < LEAST_SECONDS:
        lines.append(f"Memory was not judged: that takes {LEAST_SECONDS / 60:g} minutes.")
    lines += ["", f"**{'FAILED' if failures else 'passed'}**", *(f"\n- {failure}" for failure in failures)]
    return "\n".join(lines) + "\n"


def _totals(run: Run) -> str:
    names = ("sent", "received", "bytes_received", "lost", "connections", "cancelled")
    total = {name: sum(getattr(sample, name) for sample in run.samples) for name in names}
    return (
        f"{len(run.rests)} windows, {run.faults} faults, {total['connections']} connections, {run.entries} entries"
        f" checked. {total['sent']} sends, {total['received']} messages received"
        f" ({total['bytes_received'] / 1e6:.0f} MB), {total['lost']} reported lost,"
        f" {total['cancelled']} calls cancelled."
    )


def _latencies(run: Run) -> str:
    half = run.seconds / 2
    halves = [
        [trip for sample in run.samples if (sample.time >= half) is late for trip in sample.trips]
        for late in (False, True)
    ]
    shares = "; ".join(
        f"{name} {_milliseconds(percentile(halves[0], share))} in the first half,"
        f" {_milliseconds(percentile(halves[1], share))} in the second"
        for name, share in (("p50", 0.5), ("p99", 0.99))
    )
    return f"{sum(map(len, halves))} `send_and_wait`: {shares}."


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _ends(series: Sequence[tuple[float, float]]) -> str:
    return f"{series[0][1]:.0f}, {series[-1][1]:.0f}" if series else "-"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def plot(run: Run, path: Path) -> bool:
    """Draw the samples as SVG; False if matplotlib is not installed."""
    try:
        figures: Any = importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib").rcParams["svg.fonttype"] = "none"  # letters, not their outlines
    except ImportError:
        return False
    drawing = figures.Figure(figsize=(12, 16), layout="constrained")
    panels = drawing.subplots(6, 1, sharex=True)
    kinds = {kind: [name for name in _processes(run) if name.startswith(kind)] for kind in BOUNDS}
    for panel, (kind, names) in zip(panels, kinds.items(), strict=False):
        for name in names:
            _plot_memory(panel, run, name)
        title = f"memory of each {kind} [MiB]; dots: between windows"
        panel.set_title(title + "; lines below: Python, and (dashed) other in use" * (kind == "client"), loc="left")
    for panel, what, title in (
        (panels[2], "fds", "open fds between windows"),
        (panels[3], "threads", "threads between windows"),
    ):
        for name in _processes(run):
            panel.plot(*_minutes(_series(run.rests, name, what), 1), ".-", linewidth=0.7, label=name)
        panel.set_title(title, loc="left")
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        points = [(sample.time, found) for sample in run.samples if (found := percentile(sample.trips, share))]
        panels[4].plot(*_minutes(points, 1000), linewidth=0.7, label=label)
    panels[4].set_yscale("log")
    panels[4].set_title("send_and_wait [ms]", loc="left")
    times = [0.0, *(sample.time for sample in run.samples)]
    for name in ("sent", "received"):
        points = [
            (sample.time, getattr(sample, name) / max(sample.time - before, 1e-3))
            for before, sample in zip(times, run.samples, strict=False)
        ]
        panels[5].plot(*_minutes(points, 1), linewidth=0.7, label=name)
    panels[5].set_title("messages a second, all clients", loc="left")
    panels[5].set_xlabel("minutes")
    for panel in panels:
        panel.grid(alpha=0.3)
        panel.set_ylim(bottom=None if panel is panels[4] else 0)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    drawing.savefig(path)
    return True


def _plot_memory(panel: Any, run: Run, process: str) -> None:
    line = panel.plot(*_minutes(_series(run.samples, process, "anonymous"), 1 / 1024), linewidth=0.7, label=process)
    for what, style in (("anonymous", "."), ("python", "-"), ("other", "--")):
        panel.plot(*_minutes(_series(run.rests, process, what), 1 / 1024), style, color=line[0].get_color())


def _minutes(points: Sequence[tuple[float, float]], factor: float) -> tuple[list[float], list[float]]:
    return [time / 60 for time, _ in points], [value * factor for _, value in points]
