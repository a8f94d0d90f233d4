"""`told_entries`: which entries of a history are told."""

from __future__ import annotations

from ..._settling import is_private_group
from .._history.entries import Call, ClientEntry, Entry
from .._history.history import History


def told_entries(history: History) -> list[Entry]:
    """The entries of a history, but for those of the connections that the SDK makes for itself."""
    entries = list(history)
    private = {
        (entry.client, entry.handle)
        for entry in entries
        if isinstance(entry, Call) and entry.function == "join" and is_private_group(entry.arguments.get("group", b""))
    }
    if not private:
        return entries
    return [
        entry for entry in entries if not isinstance(entry, ClientEntry) or (entry.client, entry.handle) not in private
    ]
