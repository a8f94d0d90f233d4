"""The clients that a service tells of changes: the same in exec/votequorum.c and exec/vsf_quorum.c."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...._errors import CsError, error_from_code
from ...._types import Track
from .service import ClientConnection


class Trackers:
    """Connections that track.

    Args:
        function: the C function to name where tracking cannot start.
        present: the events that say how things stand.
    """

    def __init__(self, function: str, present: Callable[[], Sequence[object]]) -> None:
        self._function = function
        self._present = present
        self._connections: list[ClientConnection] = []

    def start(self, connection: ClientConnection, flags: Track) -> None:
        """Tell a client how things stand, if it asks for that, and of changes, unless it is told already."""
        if flags & (Track.CURRENT | Track.CHANGES):
            for event in self._present():
                connection.send(event)
        if connection in self._connections:
            raise error_from_code(CsError.EXIST, self._function, "tracking was started before")
        if flags & (Track.CHANGES | Track.CHANGES_ONLY):
            self._connections.append(connection)

    def stop(self, connection: ClientConnection) -> bool:
        """Tell a client no more; returns whether it was told before."""
        if connection not in self._connections:
            return False
        self._connections.remove(connection)
        return True

    def tell(self, event: object) -> None:
        """Something has changed."""
        for connection in self._connections:
            connection.send(event)
