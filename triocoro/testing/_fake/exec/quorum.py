"""The quorum service of one daemon: exec/vsf_quorum.c. It publishes what votequorum decides."""

from __future__ import annotations

from ...._enums import Track
from ...._types import NodelistChange, QuorumChange, RingId
from .daemon import Daemon
from .service import ClientConnection, Synchronised
from .trackers import Trackers


class QuorumService(Synchronised):
    """Whether the node is quorate, and the members of its ring."""

    name = "quorum"

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon.multicast)
        self.daemon = daemon
        self._trackers = Trackers("quorum_trackstart", lambda: (self._nodelist(), self._change))
        self._change = QuorumChange(quorate=False, ring_id=RingId(0, 0), members=())
        self._ring_id = RingId(0, 0)
        self._members: tuple[int, ...] = ()
        # The members at the end of the last transition that was completed.
        self._settled: tuple[int, ...] = ()
        self._joined: tuple[int, ...] = ()
        self._left: tuple[int, ...] = ()

    # Decisions of votequorum.

    def set_quorum(self, members: tuple[int, ...], ring_id: RingId, *, quorate: bool) -> None:
        """Publish whether we are quorate in a ring."""
        if quorate is not self._change.quorate:
            part = "primary component and will" if quorate else "non-primary component and will NOT"
            noun = "service" if quorate else "any services"
            self._log(f"This node is within the {part} provide {noun}.")
        self._change = QuorumChange(quorate, ring_id, members)
        self._log_view("Members", members)
        self._trackers.notify(self._change)

    # Requests of the library.

    def getquorate(self) -> bool:
        """Return whether we are quorate."""
        return self._change.quorate

    def trackstart(self, connection: ClientConnection, flags: Track) -> None:
        """Send a client the current state, changes from now on, or both."""
        self._trackers.start(connection, flags)

    def trackstop(self, connection: ClientConnection) -> None:
        """Stop sending changes to a client. As in Corosync, it is no error if the client does not track."""
        self._trackers.stop(connection)

    def connection_closed(self, connection: ClientConnection) -> None:
        self._trackers.stop(connection)

    # A new ring.

    def sync_init(self, transitional: frozenset[int], members: tuple[int, ...], ring_id: RingId) -> None:
        self._members = members
        self._ring_id = ring_id
        self._left = tuple(nodeid for nodeid in self._settled if nodeid not in transitional or nodeid not in members)
        self._joined = tuple(nodeid for nodeid in members if nodeid not in self._settled or nodeid in self._left)
        self._log_view("Sync members", members)
        for title, nodeids in (("Sync joined", self._joined), ("Sync left", self._left)):
            if nodeids:
                self._log_view(title, nodeids)

    def sync_process(self) -> None:
        pass  # It has no state of its own to send.

    def sync_activate(self) -> None:
        self._settled = self._members
        self._trackers.notify(self._nodelist(self._joined, self._left))

    def deliver(self, message: object, sender: int) -> None:
        raise AssertionError(message, sender)

    def _nodelist(self, joined: tuple[int, ...] = (), left: tuple[int, ...] = ()) -> NodelistChange:
        return NodelistChange(self._ring_id, self._members, joined, left)

    def _log_view(self, title: str, nodeids: tuple[int, ...]) -> None:
        self._log(f"{title}[{len(nodeids)}]: {' '.join(map(str, nodeids))}")

    def _log(self, text: str) -> None:
        self.daemon.log("QUORUM", text)
