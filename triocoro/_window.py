"""The send window: how much of what we have sent may be on its way at once.

The daemon accepts more than it can deliver. When its queue, which all of its clients share, is full, it drops messages.
It does not tell its clients how full the queue is, but the delay until an own message is delivered does. What a sender
has under way is its rate multiplied by this delay. So if each sender keeps its delay at `_DELAY`, all of them together
have under way what the daemon delivers in that time, however many they are.

The law:

- The window is `_FIRST` bytes at first, and again after a pause.
- One message at a time is timed, from sending to delivery. If the delay was at most `_DELAY`, and the window has held
  up the sender meanwhile, the window widens by an eighth, up to `_MOST`. If the delay was longer, it narrows by an
  eighth, down to `_FIRST`.
- A loss or a try-again halves it, down to `_LEAST`; then it widens whatever the delay, up to `_FIRST`.
- Whatever the window is, one message may be on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import trio

_FIRST: Final = 64 * 2**10
"""Bytes of the window at first."""
_LEAST: Final = 8 * 2**10
"""Bytes of the window after many losses."""
_MOST: Final = 512 * 2**10
"""Bytes of the window when the daemon delivers quickly."""
_DELAY: Final = 0.004
"""Seconds until an own message should be delivered."""
OVERHEAD: Final = 64
"""Bytes that a message occupies beside its payload."""


def cost(payloads: Sequence[bytes]) -> int:
    """How many bytes of the window these messages occupy."""
    return sum(map(len, payloads)) + OVERHEAD * len(payloads)


@final
class SendWindow:
    """The send window of one group, and what occupies it."""

    def __init__(self) -> None:
        self.size: int = _FIRST
        """How many bytes may be on their way at once."""
        self.occupied: int = 0
        """How many bytes are on their way."""
        self._held_up = False  # whether the window has held up a sender since the last change
        self._sent = 0  # messages
        self._settled = 0
        self._timed: int | None = None  # the number of the message that is timed,
        self._start = 0.0  # and when it was sent; without one, when the last message came back

    def fits(self, size: int) -> bool:
        """Whether a message of so many bytes fits now; any does if nothing is on its way."""
        if self.occupied and self.occupied + size + OVERHEAD > self.size:
            self._held_up = True
            return False
        return True

    def fitting(self, payloads: Sequence[bytes]) -> int:
        """How many of the first messages fit now; one fits if nothing is on its way."""
        room = self.size - self.occupied
        if cost(payloads) <= room:
            return len(payloads)
        self._held_up = True
        count = 0
        for payload in payloads:
            room -= len(payload) + OVERHEAD
            if room < 0:
                break
            count += 1
        return count or int(self.occupied == 0)

    def add(self, count: int, cost: int) -> None:
        """Note that `count` messages were sent."""
        self._sent += count
        if self._timed is None:
            now = trio.current_time()
            if not self.occupied and now - self._start > _DELAY:
                self.size = min(self.size, _FIRST)
            self._timed = self._sent
            self._start = now
        self.occupied += cost

    def remove(self, count: int, cost: int) -> None:
        """Note that the first `count` messages were delivered, or are known to be lost."""
        self._settled += count
        self.occupied -= cost
        if self._timed is not None and self._settled >= self._timed:
            now = trio.current_time()
            self._adapt(now - self._start)
            self._timed = None
            self._start = now

    def narrow(self) -> None:
        """Note a loss or a try-again."""
        self.size = max(self.size // 2, _LEAST)
        self._held_up = False

    def _adapt(self, delay: float) -> None:
        step = self.size // 8
        if delay <= _DELAY or self.size < _FIRST:
            if self._held_up:
                self.size = min(self.size + step, _MOST)
        elif self.size > _FIRST:
            self.size = max(self.size - step, _FIRST)
        self._held_up = False
