"""Where a daemon is: the namespaces that some calls have to be made in."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar, final

from .._errors import BadHandleError

T = TypeVar("T")


@final
class Namespaces:
    """Those of another process, or our own.

    Args:
        pidfd: returns a pidfd of a process in the daemon's network and mount (and user) namespaces, which stays its
            owner's; `None` stands for our own namespaces.
    """

    def __init__(self, pidfd: Callable[[], int] | None) -> None:
        self.pidfd = pidfd

    def entrance(self) -> Entrance:
        """For one call in them."""
        return Entrance(-1 if self.pidfd is None else os.dup(self.pidfd()))


@final
class Entrance:
    """A pidfd for one call on a worker, closed after it, or at the end of the block if the worker has not begun."""

    def __init__(self, pidfd: int) -> None:
        self._pidfds = [pidfd]  # whoever takes it from here closes it

    def enter(self, call: Callable[[int], T]) -> T:
        """On a worker: make the call, with a pidfd, or -1 for our own namespaces."""
        try:
            pidfd = self._pidfds.pop()
        except IndexError:
            raise BadHandleError("the call was cancelled") from None
        try:
            return call(pidfd)
        finally:
            _close(pidfd)

    def __enter__(self) -> Entrance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._pidfds:
            _close(self._pidfds.pop())


def _close(pidfd: int) -> None:
    if pidfd >= 0:
        os.close(pidfd)
