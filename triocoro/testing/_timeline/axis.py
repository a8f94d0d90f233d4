"""The axis of the page: where each entry of a history is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .._history.entries import Cancellation, Entry, Failure, Return

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
