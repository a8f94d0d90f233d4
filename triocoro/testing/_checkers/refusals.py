"""Calls that were refused."""

from __future__ import annotations

from collections.abc import Iterable

from .._history.entries import Entry, Failure


def refusals(history: Iterable[Entry]) -> set[tuple[str, int]]:
    """The clients and numbers of the calls that changed nothing for sure: a connection that breaks leaves it open."""
    return {
        (entry.client, entry.number)
        for entry in history
        if isinstance(entry, Failure) and entry.error != "LibraryError"
    }
