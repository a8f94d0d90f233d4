"""The clients that track a service, which exec/votequorum.c and exec/vsf_quorum.c implement alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...._enums import CsError, Track
from ...._errors import error_from_code
from .service import ClientConnection


class Trackers:
    """The connections that track a service.

    Args:
        function: the C function to name if tracking cannot start.
        present: returns the events that describe the current state.
    """

    def __init__(self, function: str, present: Callable[[], Sequence[object]]) -> None:
        self._function = function
        self._present = present
        self._connections: list[ClientConnection] = []

    def start(self, connection: ClientConnection, flags: Track) -> None:
        """Send a client the current state, changes from now on, or both, as the flags say."""
        if flags & (Track.CURRENT | Track.CHANGES):
            for event in self._present():
                connection.send(event)
        if connection in self._connections:
            raise error_from_code(CsError.EXIST, self._function, "tracking was started before")
        if flags & (Track.CHANGES | Track.CHANGES_ONLY):
            self._connections.append(connection)

    def stop(self, connection: ClientConnection) -> bool:
        """Stop sending changes to a client; returns whether it was tracking."""
        if connection not in self._connections:
            return False
        self._connections.remove(connection)
        return True

    def notify(self, event: object) -> None:
        """Send an event to all clients that track changes."""
        for connection in self._connections:
            connection.send(event)
