"""The lock of a cluster, and its time.

Clients may be in several Trio runs, each in a thread of its own. Whatever the daemons do, they do in the thread of the
client or the timer that makes them do it, one thread at a time: under the cluster's lock. Only time needs a run: that
in which the cluster was entered, else the first one in which something takes time. If it ends, another one takes over.
"""

from __future__ import annotations

import math
import threading
from bisect import insort
from collections.abc import Callable
from typing import final

import trio

from ...._runs import Run, in_run


@final
class Timer:
    """A call at a later time, unless it is cancelled before."""

    def __init__(self, timers: Timers, due: float, action: Callable[[], None]) -> None:
        self.due = due
        self.action = action
        self.cancelled: bool = False
        self._timers = timers

    def cancel(self) -> None:
        """Do not make the call; without effect once it was made."""
        self.cancelled = True
        self._timers.remove(self)


@final
class Timers:
    """The timers of a cluster and its lock.

    Args:
        on_change: called when the run whose time was the cluster's is over: times of another run compare with none of
            its times.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.lock: threading.RLock = threading.RLock()
        self._on_change = on_change
        # In the order in which they are due, and were made.
        self._timers: list[Timer] = []
        self._run: Run | None = None
        self._clock: trio.abc.Clock | None = None
        self._others: list[Run] = []
        # When the last run ended, as far as timers were left.
        self._stopped = 0.0
        # What the task waits in; used in the run only.
        self._sleep: trio.CancelScope | None = None
        # When the task has woken, while it makes calls; it looks at the timers again afterwards.
        self._woken: float | None = None

    # -- the run whose time it is --------------------------------------------------------------------------------------

    def passes(self) -> bool:
        """Whether time passes: within runs only. Takes the current run's time if there is no other."""
        if self._run is not None and (self._run.current or not self._run.over):
            return True
        if not in_run():
            return False
        self._run = Run()
        self._clock = trio.lowlevel.current_clock()
        for timer in self._timers:
            timer.due += self._clock.current_time() - self._stopped
        self._on_change()
        return True

    def now(self) -> float:
        """The time in seconds."""
        if self._woken is not None:
            return self._woken
        return self._clock.current_time() if self.passes() and self._clock is not None else self._stopped

    def introduce(self, run: Run) -> None:
        """Note a run with a client. It takes over when the present one ends."""
        self._others = [other for other in self._others if not (other.current if run.current else other.over)]
        self._others.append(run)

    def _hand_over(self) -> None:
        """Let another run take over. This one is ending."""
        self._run = self._sleep = None
        for run in self._others:
            if not run.current and not run.over:
                run.call(self._take_over)

    def _take_over(self) -> None:
        with self.lock:
            if in_run():
                self._update()

    # -- timers --------------------------------------------------------------------------------------------------------

    def call_after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` after a time, under the lock."""
        return self.call_at(self.now() + seconds, action)

    def call_at(self, due: float, action: Callable[[], None]) -> Timer:
        """Call `action` at a time, under the lock."""
        timer = Timer(self, due, action)
        insort(self._timers, timer, key=lambda timer: timer.due)
        self._update()
        return timer

    def remove(self, timer: Timer) -> None:
        """Forget a timer that was cancelled."""
        with self.lock:
            if timer in self._timers:
                self._timers.remove(timer)
                self._update()

    def _update(self) -> None:
        if self._woken is None and self.passes() and self._run is not None:
            self._run.call(self._reschedule)

    def _reschedule(self) -> None:
        """In the run: set the time at which the task wakes anew, and start the task if there is none."""
        with self.lock:
            if self._run is None or not self._run.current:
                return
            if self._sleep is not None:
                self._sleep.deadline = self._timers[0].due if self._timers else -math.inf
            elif self._timers:
                self._sleep = trio.CancelScope(deadline=self._timers[0].due)
                try:
                    trio.lowlevel.spawn_system_task(self._keep)
                except RuntimeError:  # the run takes no more tasks
                    self._hand_over()

    async def _keep(self) -> None:  # noqa: ASYNC910 - a system task
        """Make each call when it is due, until there are no more."""
        try:
            while self._sleep is not None:
                with self._sleep:
                    await _sleep_until_cancelled()
                await trio.lowlevel.checkpoint_if_cancelled()
                with self.lock:
                    self._call_due(trio.current_time())
                    self._sleep = trio.CancelScope(deadline=self._timers[0].due) if self._timers else None
        except trio.Cancelled:
            # The run is over.
            with self.lock:
                self._stopped = self.now()
                self._on_change()
                self._hand_over()
            raise

    def _call_due(self, now: float) -> None:
        self._woken = now
        try:
            while self._timers and self._timers[0].due <= now:
                self._timers.pop(0).action()
        finally:
            self._woken = None


async def _sleep_until_cancelled() -> None:
    """Sleep until the scope around it is cancelled. It raises no `Cancelled`, which takes longer."""
    task = trio.lowlevel.current_task()

    def wake(_: object) -> trio.lowlevel.Abort:
        trio.lowlevel.reschedule(task)
        return trio.lowlevel.Abort.FAILED

    await trio.lowlevel.wait_task_rescheduled(wake)
