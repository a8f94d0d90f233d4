"""Jobs of a daemon, and the replies that its clients wait for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, Protocol, TypeAlias, TypeVar, cast

import trio

from ...._enums import CsError
from ...._errors import CorosyncError, error_from_code
from ...._runs import Run

T = TypeVar("T")

Reply: TypeAlias = Callable[[CorosyncError | None], None]
"""Completion callback of a request that is answered later: `None` on success, else the error."""


class Job(Protocol):
    """Something that a daemon does as soon as it is not frozen."""

    def run(self) -> None:
        """Do it."""
        ...

    def abort(self) -> None:
        """Called instead of `run` if the daemon dies first."""
        ...


class PendingReply(Generic[T]):
    """A client's request that has not been answered yet. The client waits for the outcome, and may be cancelled.

    Args:
        function: the C function to name if the daemon dies first.
        run: the client's. The daemon may answer in another one.
    """

    def __init__(self, function: str, run: Run) -> None:
        self._function = function
        self._run = run
        self._done = trio.Event()
        self._outcome: T | CorosyncError | None = None
        self._unclaimed: Callable[[T | None], None] | None = None

    def finish(self, outcome: T | CorosyncError) -> None:
        """Set the outcome and wake the waiting client."""
        self._run.call(partial(self._finish, outcome))

    def _finish(self, outcome: T | CorosyncError) -> None:
        self._outcome = outcome
        self._done.set()
        self._dispose()

    def abort(self) -> None:
        """Fail, because the daemon has died."""
        self.finish(broken(self._function))

    async def wait(self, *, unclaimed: Callable[[T | None], None]) -> T:
        """Wait for the outcome.

        Args:
            unclaimed: if the wait is cancelled or interrupted, called in the client's run with the result once there is
                one, or with `None` on failure.
        """
        if not self._done.is_set():
            try:
                await self._done.wait()
            except BaseException:  # Cancelled, or KeyboardInterrupt
                self._unclaimed = unclaimed
                # The request may have finished in the moment of the cancellation.
                if self._done.is_set():
                    self._dispose()
                raise
        if isinstance(self._outcome, CorosyncError):
            raise self._outcome
        return cast("T", self._outcome)  # noqa: ASYNC910 - the round trip began with a checkpoint

    def _dispose(self) -> None:
        if self._unclaimed is not None:
            outcome = self._outcome
            self._unclaimed(None if isinstance(outcome, CorosyncError) else outcome)


def broken(function: str) -> CorosyncError:
    """The error of a call on a broken connection."""
    return error_from_code(CsError.LIBRARY, function)
