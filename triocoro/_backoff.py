"""Growing pauses between attempts, where the daemon says "try again" and gives no notice of when."""

from __future__ import annotations

from typing import final


@final
class Backoff:
    """Yields pauses that double from the first one to the longest one.

    Args:
        first: the first pause, in seconds.
        longest: the longest pause, in seconds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def next_pause(self) -> float:
        """Return how long to pause now, in seconds."""
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause

    def reset(self) -> None:
        """Start again with the first pause, after an attempt has succeeded."""
        self._next = self._first
