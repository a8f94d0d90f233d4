"""Time without the machine's share: what others at work on it take from us is not ours."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

import attrs


def kept_waiting() -> dict[str, float]:
    """Seconds that each of our threads has been ready to run and was not let, since it began."""
    waited: dict[str, float] = {}
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208 - it has to be quick
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fd = os.open(f"/proc/self/task/{thread}/schedstat", os.O_RDONLY)
            try:
                waited[thread] = int(os.read(fd, 100).split()[1]) / 1e9
            finally:
                os.close(fd)
    return waited


def share_since(before: dict[str, float]) -> float:
    """Seconds that the machine has kept this thread waiting, or another one, which may have held the GIL."""
    waits = {thread: waited - before.get(thread, 0.0) for thread, waited in kept_waiting().items()}
    return waits.pop(str(threading.get_native_id())) + max(waits.values(), default=0.0)


@attrs.define
class Stopwatch:
    """Seconds that went by, off which goes the machine's share."""

    began: float = attrs.field(factory=time.monotonic)
    before: dict[str, float] = attrs.field(factory=kept_waiting)

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self.began - share_since(self.before)
