"""The debug log: what becomes of connections, groups and sessions, through `logging`. docs/logging.md lists the events.

It is silent until the program configures logging. Nothing is noted where a message goes its usual way, so that it costs
nothing there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

CONNECTION: Final = logging.getLogger("triocoro.connection")
GROUP: Final = logging.getLogger("triocoro.group")
SESSIONS: Final = logging.getLogger("triocoro.sessions")

# Else Python prints warnings of libraries to stderr.
logging.getLogger("triocoro").addHandler(logging.NullHandler())


def note(
    logger: logging.Logger,
    event: str,
    about: Mapping[str, object],
    text: str,
    *args: object,
    level: int = logging.DEBUG,
    **details: object,
) -> None:
    """Log an event.

    Args:
        logger: one of this module's.
        event: its name, the attribute `event` of the record.
        about: further attributes of the record: what it happened to.
        text: the message, with the placeholders of `logging`.
        args: what replaces these.
        level: how important it is.
        details: further attributes of the record.
    """
    if logger.isEnabledFor(level):
        logger.log(level, text, *args, extra={"event": event, **about, **details}, stacklevel=2)
