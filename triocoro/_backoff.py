"""Growing pauses between attempts, where the daemon says "try again" and gives no notice of when.

Each kind of attempt has its numbers here: `Backoff.of_requests`, `Backoff.of_multicast` and `Backoff.of_sessions`.
`retry` repeats a request.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TypeVar, final

import trio

from . import _log
from ._errors import CorosyncError, TryAgainError

T = TypeVar("T")


@final
class Backoff:
    """Yields pauses that double from the first one to the longest one.

    Args:
        first: the first pause, in seconds.
        longest: the longest pause, in seconds.
        jitter: the share of each pause that is random, 0 to 1: it keeps many clients from trying at the same time.
    """

    def __init__(self, first: float, longest: float, jitter: float = 0.0) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._next = first

    @classmethod
    def of_requests(cls) -> Backoff:
        """For connects, joins, leaves and other round trips."""
        return cls(first=0.001, longest=0.1)

    @classmethod
    def of_multicast(cls) -> Backoff:
        """For messages. Shorter than for requests, because pauses lower the rate of a sender."""
        return cls(first=0.001, longest=0.02)

    @classmethod
    def of_sessions(cls) -> Backoff:
        """For reconnecting. Longer than for requests, because a daemon may be down for hours."""
        return cls(first=0.02, longest=1.0, jitter=0.5)

    def next_pause(self) -> float:
        """Return how long to pause now, in seconds."""
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause * (1 - self._jitter * random.random())  # noqa: S311 - no secret

    def reset(self) -> None:
        """Start again with the first pause, after an attempt has succeeded."""
        self._next = self._first


async def retry(
    call: Callable[[], Awaitable[T]],
    passing: tuple[type[CorosyncError], ...] = (TryAgainError,),
    about: Mapping[str, object] = MappingProxyType({}),
) -> T:
    """Repeat `call` with capped back-off while it raises an error that may pass: by default, the daemon's try-again.

    Args:
        call: makes an attempt.
        passing: the errors that may pass.
        about: for the log, whose request it is.
    """
    backoff = Backoff.of_requests()
    attempt = 0
    while True:
        attempt += 1
        try:
            return await call()
        except passing as exc:
            error = exc
        pause = backoff.next_pause()
        _log.note(
            _log.CONNECTION,
            "retrying",
            about,
            "trying again in %g s: %s",
            pause,
            error,
            error=str(error),
            attempt=attempt,
            pause=pause,
        )
        await trio.sleep(pause)
