"""Where the clean-up at the end of a test begins: its connections are closed, and its tasks cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..._types import ConfigChange, Message
from .._history.entries import Call, Cancellation, Delivery, Entry, Failure, Loss, Outcome, OutcomeStatus, Return

FUNCTIONS: Final = frozenset({"leave", "close", "trackstop", "track_delete"})
"""The functions that a clean-up calls."""


def clean_up_begins(entries: Sequence[Entry]) -> int:
    """The place of the first entry of the clean-up; the number of entries if there is none.

    When a test fails, its blocks end, and so do its connections. That is recorded, but the failure is not: it came
    before the first of the last entries that may all belong to the clean-up.
    """
    begins = place = len(entries)
    while place:
        place -= 1
        match entries[place]:
            case Call(function=function) if function in FUNCTIONS:
                begins = place
            case Return() | Failure() | Cancellation() | Loss() | Delivery(event=ConfigChange(joined=()) | Message()):
                pass
            case Outcome(status=OutcomeStatus.UNKNOWN, error="Cancelled"):
                pass
            case _:
                break
    return begins
