"""The entries of a history, which are made when it is read, and of which the oldest go."""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias, cast

from .entries import Call, Delivery, Entry

Part: TypeAlias = "tuple[int, int, int, Callable[..., Iterable[Entry]], tuple[Any, ...]]"
"""Some entries: their place, how many, the bytes of their payloads, and what makes them: a function and its arguments.

Entries take long to make, and few histories are ever read.
"""


places: Final = itertools.count()
"""The places of parts. One that takes its place early may be added after later ones, by another thread."""

_BYTES: Final = 1024
"""So many bytes of payloads count as one more entry."""

_PLACE: Final = itemgetter(0)

_SLACK: Final = 1.1
"""How far the size may exceed the limit for a while: making room takes a moment."""


def made(part: Part) -> Iterable[Entry]:
    """Make the entries."""
    *_, make, arguments = part
    return make(*arguments)


class Log:
    """A list of entries.

    Args:
        limit: the size to keep it under: the number of entries, and their payloads. `None`: there is none.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = math.inf if limit is None else limit
        self._most = self._limit * _SLACK
        self.dropped_before = 0
        """How many entries were gone before the first ones were added."""
        self._dropped = 0
        self._parts: deque[Part] = deque()
        self._size = 0
        self._made: list[Entry] = []
        self._parts_made = 0
        self._last_place = 0  # of those that were made
        self._lock = threading.RLock()

    def add(self, part: Part) -> None:
        """Add entries. This happens for each message."""
        # Without the lock, the size may be off by a little if several threads do it at once.
        self._parts.append(part)
        self._size += part[1] + part[2] // _BYTES
        if self._size > self._most:
            self._shrink()

    def _shrink(self) -> None:
        with self._lock:
            # The latest part stays, however large.
            while self._size > self._limit and len(self._parts) > 1:
                _, count, payload, *_ = self._parts.popleft()
                self._size -= count + payload // _BYTES
                self._dropped += count
                self._made, self._parts_made = [], 0

    @property
    def dropped(self) -> int:
        """How many of the oldest entries are gone."""
        self._shrink()
        return self.dropped_before + self._dropped

    def entries(self) -> Sequence[Entry]:
        """The entries so far."""
        with self._lock:
            self._shrink()
            if self._parts_made == len(self._parts):
                return self._made
            added = sorted(list(self._parts)[self._parts_made :], key=_PLACE)
            if added[0][0] < self._last_place:
                self._made, self._parts_made = [], 0
                added = sorted(self._parts, key=_PLACE)
            for part in added:
                self._made += made(part)
                self._parts_made += 1
                self._last_place = part[0]
            return self._made


def payload_bytes(entry: Entry) -> int:
    """How many bytes of payloads an entry keeps."""
    if isinstance(entry, Delivery):
        return len(getattr(entry.event, "payload", b""))
    if isinstance(entry, Call):
        return bytes_of(entry.arguments.values())
    return 0


def bytes_of(values: Iterable[object]) -> int:
    """How many bytes these values hold, as payloads or in tuples."""
    size = 0
    for value in values:
        if isinstance(value, bytes):
            size += len(value)
        elif isinstance(value, tuple):
            size += bytes_of(cast("tuple[object, ...]", value))
    return size
