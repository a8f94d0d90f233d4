"""One thread at a time where the libraries make or unmake a handle.

They keep their handles in a table of libqb's without a lock: two threads that connect at once can be given the same
entry, and one of them then finds its new handle to be a bad one (seen with libqb 2.0.6; docs/facts.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar, final

T = TypeVar("T")

_PATIENCE: Final = 0.02
"""Seconds. The entry is made in the first microseconds of a call; what takes longer is waiting for a frozen daemon."""


@final
class Gate:
    """Lets calls through one after another, but does not let one that hangs hold up the others for long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: object | None = None
        self._until = 0.0

    def alone(self, call: Callable[[], T]) -> T:
        """On a worker: `call`, once the one before is over, or has had its time."""
        me = object()
        with self._changed:
            while self._inside is not None and (left := self._until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._inside = me
            self._until = time.monotonic() + _PATIENCE
        try:
            return call()
        finally:
            with self._changed:
                if self._inside is me:
                    self._inside = None
                    self._changed.notify()


GATE = Gate()
