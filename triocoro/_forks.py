"""The process that made an object. A forked child inherits a copy of the object, which it must not use."""

from __future__ import annotations

import os
from typing import final

count: int = 0
"""How many forks lead from the first process to this one. Looked at with each call, which getpid(2) is too slow for."""


def _note_fork() -> None:
    global count  # noqa: PLW0603 - it is a property of the process
    count += 1


os.register_at_fork(after_in_child=_note_fork)


@final
class Origin:
    """The process that makes this object. What the object belongs to is that process's own."""

    def __init__(self) -> None:
        self.forks = count
        """`count` in that process."""
        self._pid = os.getpid()

    @property
    def forked(self) -> bool:
        """Whether this is a forked child of that process."""
        return self.forks != count

    def check(self, what: str, remedy: str) -> None:
        """Raise `RuntimeError` in a forked child.

        Args:
            what: the object and how it came about, such as "this connection was opened".
            remedy: what to do instead.
        """
        if self.forked:
            raise RuntimeError(
                f"{what} by process {self._pid} and cannot be used in its forked child {os.getpid()}; {remedy}"
            )
