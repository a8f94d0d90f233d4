"""Calls that were refused."""

from __future__ import annotations

from collections.abc import Iterable

from .._history.entries import Entry, Failure


def refusals(history: Iterable[Entry]) -> set[tuple[str, int]]:
    """Return the client and number of each call that certainly had no effect.

    `LibraryError` is left out: when the connection breaks, the call may still have taken effect.
    """
    return {
        (entry.client, entry.number)
        for entry in history
        if isinstance(entry, Failure) and entry.error != "LibraryError"
    }
