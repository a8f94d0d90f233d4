"""The namespaces of a daemon, which connecting and zero-copy allocation must run in."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar, final

from .._errors import BadHandleError, naming_descriptors

T = TypeVar("T")


@final
class Namespaces:
    """The namespaces of another process, or our own.

    Args:
        pidfd: returns a pidfd of a process in the daemon's network and mount (and user) namespaces, which is
            duplicated, never closed; `None` stands for our own namespaces.
    """

    def __init__(self, pidfd: Callable[[], int] | None) -> None:
        self.pidfd = pidfd

    def entrance(self) -> Entrance:
        """Prepare one call in these namespaces.

        Raises:
            NoResourcesError: the pidfd cannot be duplicated.
        """
        if self.pidfd is None:
            return Entrance(-1)
        pidfd = self.pidfd()
        with naming_descriptors("dup"):
            return Entrance(os.dup(pidfd))


@final
class Entrance:
    """A pidfd for one call on a worker. The worker closes it, or the end of the block if the worker has not begun."""

    def __init__(self, pidfd: int) -> None:
        self._pidfds = [pidfd]  # of one, or none; the thread that pops it closes it

    def enter(self, call: Callable[[int], T]) -> T:
        """On a worker: run `call` with the pidfd, or with -1 for our own namespaces."""
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
