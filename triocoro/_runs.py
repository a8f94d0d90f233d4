"""Trio runs: whether a task is in one, and calls and waits across the runs of several threads.

What the tasks of one run wait for, such as a `trio.Event` or a `trio.CapacityLimiter`, must not be touched from another
run. `Run.call` makes a call in the run that it belongs to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import final

import trio


def in_run() -> bool:
    """Whether this is called within a Trio run, where time passes."""
    # trio.lowlevel.in_trio_run is younger than the oldest Trio that we support.
    try:
        trio.current_time()
    except RuntimeError:
        return False
    return True


def require_trio() -> None:
    """Raise `RuntimeError` outside of a task of Trio, as in a coroutine that asyncio runs."""
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        raise RuntimeError(
            "triocoro needs Trio, and this is no task of a Trio run: use trio.run, in an asyncio program"
            " trio.lowlevel.start_guest_run or a thread with trio.run, and with anyio its backend 'trio'"
        ) from None


def _nothing() -> None:
    pass


@final
class Run:
    """A Trio run: the one in which this object is made, or that it has entered since."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()

    @property
    def current(self) -> bool:
        """Whether this is called in the run."""
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def enter(self) -> None:
        """Stand for the current run from now on."""
        self._token = trio.lowlevel.current_trio_token()

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        if self.current:
            return False
        try:
            self._token.run_sync_soon(_nothing, idempotent=True)
        except trio.RunFinishedError:
            return True
        return False

    def call(self, function: Callable[[], object]) -> None:
        """Call `function`, which must not raise, in the run: now if this is the run, else soon.

        If the run is over, none of its tasks can be disturbed, and `function` is called here and now.
        """
        if not self.current:
            try:
                self._token.run_sync_soon(function)
            except trio.RunFinishedError:
                pass
            else:
                return
        function()


@final
class Latch:
    """A `trio.Event` that any thread may set, and that tasks of any run can wait for."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: deque[tuple[Run, trio.Event]] = deque()

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def set(self) -> None:
        """Set it, and wake all tasks that wait."""
        self._set = True
        while self._waiters:
            try:
                run, event = self._waiters.popleft()
            except IndexError:  # a task in another thread has just taken the last one
                return
            run.call(event.set)

    async def wait(self) -> None:
        """Wait until it is set."""
        event = trio.Event()
        self._waiters.append((Run(), event))
        if self._set:  # perhaps before we were among the waiters
            self.set()
        await event.wait()
