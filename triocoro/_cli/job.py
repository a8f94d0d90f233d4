"""What a command returns: a job to do, which ends with an exit status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final, TypeAlias

import click
import trio

from .._errors import CorosyncTimeoutError


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


Job: TypeAlias = Callable[[], Awaitable[int]]
"""The work of a command, an async function that returns the exit status: a `Status`, or that of another program."""

timeout_option: Final = click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    metavar="SECONDS",
    help="How long Corosync may take to answer.",
)


@contextmanager
def answering(seconds: float) -> Generator[trio.CancelScope, None, None]:
    """Limit the time that the daemon may take for what the block asks it.

    Yields:
        the cancel scope of the block, whose deadline can be moved while the daemon is not asked.

    Raises:
        CorosyncTimeoutError: it has taken longer.
    """
    with trio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        raise CorosyncTimeoutError(
            f"Corosync has not answered within {seconds:g} s: its process may be stopped (kill -CONT continues it) or"
            " the machine overloaded; `triocoro doctor` tells more, and --timeout waits longer"
        )
