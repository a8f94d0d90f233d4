"""What a process uses, read from /proc, and whether it grows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

BOUNDS: Final = {"client": 64.0, "daemon": 128.0}
"""The KiB a minute by which the memory of such a process may grow over the second half of a run."""
_RING: Final = 200.0
"""The KiB that a daemon without the patch for fact 113 loses with each ring that it enters, on average, and"""
_SPREAD: Final = 500.0
"""how far from that most rings are (standard deviation): many cost nothing, and some 3 MB."""
LEAST_SECONDS: Final = 600.0
"""A shorter run says nothing about memory: its half is warm-up."""
_LEAST_WINDOWS = 3


@attrs.frozen
class Usage:
    """What a process uses at one time."""

    kind: str
    """``client`` or ``daemon``."""
    node: int
    pid: int
    resident: int
    """All of its memory in RAM, in KiB."""
    anonymous: int
    """That part of it that no file or shared memory backs, in KiB: what leaks."""
    fds: int
    threads: int
    shared: int
    """The connections in its node's /dev/shm."""
    python: int | None = None
    """What a client's Python objects take, in KiB; between windows."""
    other: int | None = None
    """All else that a client has allocated, in KiB: what is in use for Trio's and our C code, and the libraries."""
    rings: int | None = None
    """How many rings a daemon has entered; between windows."""

    @property
    def process(self) -> str:
        """Its name in reports."""
        return f"{self.kind} {self.node}"


def usage(kind: str, node: int, pid: int, shared_memory: Path) -> Usage | None:
    """What a process uses now; `None` if it has ended.

    Args:
        kind: ``client`` or ``daemon``.
        node: the id of its node.
        pid: its pid.
        shared_memory: /dev/shm as the process sees it.
    """
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text(encoding="utf-8").splitlines() if ":" in line
        )
        return Usage(
            kind,
            node,
            pid,
            resident=int(status["VmRSS"].split()[0]),
            anonymous=int(status["RssAnon"].split()[0]),
            fds=len(list((folder / "fd").iterdir())),
            threads=int(status["Threads"]),
            # Each connection has a folder. The daemon's own files there are its flight recorder.
            shared=sum(path.is_dir() for path in shared_memory.glob("qb-*")),
        )
    except (OSError, KeyError):  # KeyError: a process that is ending has no memory
        return None


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the straight line that fits the points best (least squares); 0 for fewer than two."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def without_parts(values: Sequence[float], size: float) -> list[float]:
    """The values without those steps between them that are multiples of a size."""
    parts = 0
    rest: list[float] = []
    for value in values:
        if rest:
            parts += round((value - parts * size - rest[-1]) / size)
        rest.append(value - parts * size)
    return rest


def lost_with_rings(rings: float) -> float:
    """The KiB that a daemon without the patch may have lost with that many rings: the average, and three deviations."""
    return rings * _RING + 3 * _SPREAD * math.sqrt(max(rings, 0))


def second_half(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of the second half of the time."""
    if not points:
        return []
    middle = (points[0][0] + points[-1][0]) / 2
    return [point for point in points if point[0] >= middle]


def grows(values: Sequence[float]) -> bool:
    """Whether a number that should be the same at the end of each window grows.

    It does if the last third of the values are all larger than each of the first third.
    """
    third = len(values) // 3
    return len(values) >= _LEAST_WINDOWS and min(values[-third:]) > max(values[:third])
