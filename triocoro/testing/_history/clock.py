"""The clock of histories: virtual time where there is such, and real time else."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio
import trio.testing


class HistoryClock:
    """The time of the Trio run, if its clock is a `MockClock`; outside of runs, that of the latest such one.

    Without such a clock, the time is monotonic: unlike the usual clock of a run, it is the same in all runs and
    processes of a machine.
    """

    def __init__(self) -> None:
        self._outside: Callable[[], float] = time.monotonic

    def __call__(self) -> float:
        """The time in seconds."""
        return self.of_this_run()()

    def of_this_run(self) -> Callable[[], float]:
        """A function that returns the time in seconds, for use in this run. It is faster."""
        try:
            clock = trio.lowlevel.current_clock()
        except RuntimeError:
            return self._outside
        if isinstance(clock, trio.testing.MockClock):
            self._outside = clock.current_time
            return clock.current_time
        return time.monotonic
