"""Notices when nothing can happen any more in a Trio run whose clock jumps."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import trio
import trio.testing

from ._tasks import describe_tasks

_EVERY: Final = 64
"""How often to look, in Trio's waits for events. To look at each would take 5 per cent longer."""

_ENOUGH: Final = 10
"""Waits in a row without anything. One alone may be just before an event is handled."""

_OWN: Final = 1
"""The task of Trio itself that waits for calls from other threads."""


class StuckError(Exception):
    """Every task waits for another one, for ever. The message says where each waits.

    The program's fault, as a rule: a deadlock, or a wait without a timeout for what does not come.
    """


@contextmanager
def fail_when_stuck() -> Generator[None, None, None]:
    """Let a `with` block in a Trio run end in `StuckError` if nothing can happen any more.

    That is so if all tasks of the run wait, no deadline lies ahead, no worker thread is at work, and no task waits for
    a file descriptor. It is noticed with a `trio.testing.MockClock` that jumps; otherwise the block just runs.
    `seeded_run`, `explore` and tests with the marker `corosync_seeds` have such a block around the program.

    Raises:
        StuckError: instead of `trio.Cancelled`, which the block got.
    """
    watch = _Watch()
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, trio.testing.MockClock) or clock.autojump_threshold == math.inf:
        yield
        return
    trio.lowlevel.add_instrument(watch)
    try:
        with watch.scope:
            yield
    finally:
        trio.lowlevel.remove_instrument(watch)
    if watch.scope.cancelled_caught:
        raise StuckError(watch.message)


class _Watch(trio.abc.Instrument):
    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.message = ""
        self._waits = 0
        self._idle = 0

    def after_io_wait(self, timeout: float) -> None:
        """Called by Trio after each wait for events, before it handles them."""
        del timeout
        self._waits += 1
        if not self._idle and self._waits % _EVERY:
            return
        self._idle = self._idle + 1 if _is_idle() else 0
        if self._idle == _ENOUGH:
            self.message = (
                f"after {trio.current_time():g} s of virtual time every task waits, and no deadline lies ahead:\n"
                f"{describe_tasks(trio.lowlevel.current_root_task())}"
            )
            self.scope.cancel()


def _is_idle() -> bool:
    statistics = trio.lowlevel.current_statistics()
    waiting = statistics.io_statistics
    return (
        statistics.tasks_runnable == 0
        and statistics.seconds_to_next_deadline == math.inf
        and statistics.run_sync_soon_queue_size == 0
        and getattr(waiting, "tasks_waiting_read", 0) <= _OWN
        and getattr(waiting, "tasks_waiting_write", 0) == 0
        and trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    )
