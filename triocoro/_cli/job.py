"""What a command returns: a job to do, which ends with an exit status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import TypeAlias


class Status(IntEnum):
    """The exit statuses of all commands, as docs/command.md has them."""

    YES = 0
    """It worked, and the answer is yes."""
    NO = 1
    """It worked, and the answer is no."""
    USAGE = 2
    """It was called wrongly, or something that it needs is not installed."""
    UNAVAILABLE = 3
    """Corosync cannot be used."""
    INTERRUPTED = 130
    """A signal ended it."""
    CLOSED_PIPE = 141
    """The reader of the output has closed it."""


Job: TypeAlias = Callable[[], Awaitable[Status]]
"""The work of a command, an async function."""
