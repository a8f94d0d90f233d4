"""The axis of the page: where each entry of a history is, and where a failure is marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .._history.entries import (
    Call,
    Cancellation,
    Entry,
    Failure,
    Fault,
    Invocation,
    Outcome,
    OutcomeStatus,
    Return,
)

_ENDS: Final = frozenset({"close", "leave", "trackstop", "track_delete", "zcb_free"})
"""Calls that a test's connections make when it ends."""

_MILLISECOND: Final = 0.001


def axis(entries: Sequence[Entry]) -> list[float]:
    """The position of each entry, and the one after the last.

    Each entry takes a step, but for the ends of calls, which take less; pauses are added by the logarithm of their
    milliseconds.
    """
    positions: list[float] = []
    position, before = 0.0, entries[0].time if entries else 0.0
    for entry in entries:
        pause = max(entry.time - before, 0.0)
        step = 0.25 if isinstance(entry, (Return, Failure, Cancellation)) else 1.0
        position += (step if positions else 0.0) + math.log2(1 + pause / _MILLISECOND)
        before = entry.time
        positions.append(round(position, 2))
    return [*positions, round(position + 1, 2)]


def failure_index(entries: Sequence[Entry]) -> int:
    """The entry at which a test that failed began to end: from there on, its connections only close."""
    found = len(entries)
    for index in reversed(range(len(entries))):
        entry = entries[index]
        match entry:
            case Call() if entry.function in _ENDS:
                found = index
            case Cancellation() | Outcome(status=OutcomeStatus.UNKNOWN):
                found = index
            case Call() | Fault() | Invocation() | Outcome():
                return found
            case _:
                pass
    return found
