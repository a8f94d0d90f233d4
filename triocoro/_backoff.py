"""Growing pauses between attempts, where the daemon says "try again" and gives no notice of when.

Both kinds of attempt have their numbers here: `Backoff.of_requests` and `Backoff.of_multicast`.
"""

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

    @classmethod
    def of_requests(cls) -> Backoff:
        """For connects, joins, leaves and other round trips."""
        return cls(first=0.001, longest=0.1)

    @classmethod
    def of_multicast(cls) -> Backoff:
        """For messages. Shorter than for requests, because pauses lower the rate of a sender."""
        return cls(first=0.001, longest=0.02)

    def next_pause(self) -> float:
        """Return how long to pause now, in seconds."""
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause

    def reset(self) -> None:
        """Start again with the first pause, after an attempt has succeeded."""
        self._next = self._first
