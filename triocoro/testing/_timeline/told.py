"""`told`: which entries of a history are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..._settling import is_private_group
from .._history.entries import Call, ClientEntry, Entry


def told(entries: Sequence[Entry]) -> Iterator[tuple[int, Entry]]:
    """The entries of a history with their places, but for those of the connections that the SDK makes for itself."""
    private = {
        (entry.client, entry.handle)
        for entry in entries
        if isinstance(entry, Call) and entry.function == "join" and is_private_group(entry.arguments.get("group", b""))
    }
    for place, entry in enumerate(entries):
        if not isinstance(entry, ClientEntry) or (entry.client, entry.handle) not in private:
            yield place, entry
