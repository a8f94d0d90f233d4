"""The logs of daemons: the lines that matter, and what they say of rings and quorum."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import attrs

from .story import NodeState

_LINE: Final = re.compile(
    r"(?:(?P<month>[A-Z][a-z]{2}) +(?P<day>\d+) (?P<clock>\d\d:\d\d:\d\d)(?P<fraction>\.\d+)? )?"
    r"(?P<severity>[a-z]+ +)?\[(?P<subsystem>\w+) *\] (?P<text>.*)"
)
"""A line of a daemon: the fake's have neither a time nor a severity, and those of an abort nothing at all."""

_SEVERE: Final = frozenset({"warning", "error", "crit", "alert", "emerg"})

_NOISE: Final = re.compile(
    r"has no active links|is not ready|RLIMIT_|Watchdog not enabled|missing a recovery key"
    r"|^(Sync |Members\[|A new membership|joined_list|left_list|This node is within)"
    r"|started and ready to provide service"
)
"""Warnings of every start, and what the timeline tells better."""

_MEMBERS: Final = re.compile(r"\[QUORUM *\] Members\[\d+\]: ([\d ]+)")
_COMPONENT: Final = re.compile(r"\[QUORUM *\] This node is within the (non-)?primary component")

_BOOT: Final = re.compile(r"Corosync Cluster Engine\b")
"""What a daemon's first line has."""

_DAY: Final = 86400

_LAST: Final = 3
"""How many lines of a daemon that ended by itself are shown, whatever they say."""


LogLine: TypeAlias = tuple[float | None, str]
"""A line of a log, and its time by the clock of a history, as far as that is known."""


def timed(log: str) -> Iterator[LogLine]:
    """The lines of a real daemon's log, by a clock that is `time.monotonic`."""
    now = time.time()
    offset = now - time.monotonic()
    for line in log.splitlines():
        found = _LINE.fullmatch(line)
        at = None if found is None else _wall_time(found, now)
        yield None if at is None else at - offset, line


def notable(lines: Iterable[LogLine], *, died: bool) -> Iterator[LogLine]:
    """The warnings and errors of a log, and the last lines of a daemon that ended by itself.

    Args:
        lines: the log.
        died: whether the daemon ended, and was not asked to.
    """
    filled = [(at, line.strip()) for at, line in lines if line.strip()]
    for place, (at, line) in enumerate(filled):
        found = _LINE.fullmatch(line)
        if (died and place >= len(filled) - _LAST) or _is_notable(found, line):
            yield at, line if found is None else f"[{found['subsystem']}] {found['text'].strip()}"


def _is_notable(line: re.Match[str] | None, raw: str) -> bool:
    if line is None:
        return True  # an assertion, or what a library says
    if _NOISE.search(line["text"]) or _BOOT.search(raw):
        return False
    severity = line["severity"]
    # The fake has lines for what matters only.
    return severity is None or severity.strip() in _SEVERE


def _wall_time(line: re.Match[str], now: float) -> float | None:
    """The time of a line in seconds since the epoch. It does not say the year: it is the last one that fits."""
    if line["month"] is None:
        return None
    year = time.localtime(now).tm_year
    for candidate in (year, year - 1):
        try:
            parsed = time.strptime(f"{candidate} {line['month']} {line['day']} {line['clock']}", "%Y %b %d %H:%M:%S")
        except ValueError:
            continue
        at = time.mktime(parsed) + float(line["fraction"] or 0)
        if at <= now + _DAY:
            return at
    return None


def ring_in_log(log: str, state: NodeState) -> NodeState:
    """The state of a node with the ring and the quorum that its log ends with."""
    booted = max((match.end() for match in _BOOT.finditer(log)), default=0)
    members = _MEMBERS.findall(log, booted)
    components = _COMPONENT.findall(log, booted)
    if not members:
        return state
    return attrs.evolve(
        state,
        members=tuple(sorted(map(int, members[-1].split()))),
        quorate=bool(components) and not components[-1],
    )
