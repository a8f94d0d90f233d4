"""The quorum device as one node sees it: the qdevice part of exec/votequorum.c."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import attrs

from ...._enums import CsError
from ...._errors import CorosyncError, error_from_code
from ...._types import RingId
from .jobs import Reply
from .service import ClientConnection
from .timers import Timer
from .voteconfig import VoteConfig
from .votes import NodeFlag, Votes

_REGISTER: Final = "votequorum_qdevice_register"


@attrs.frozen
class Registration:
    """A message between the daemons: a node has registered or unregistered a device of that name."""

    name: str
    present: bool


@attrs.frozen
class Renaming:
    """A message between the daemons: the device has a new name."""

    old: str
    new: str


@attrs.define
class _Registrant:
    """A client that waits for the reply to its registration."""

    connection: ClientConnection
    reply: Reply


class Host(Protocol):
    """The node's votequorum service, as its quorum device uses it."""

    @property
    def ring_id(self) -> RingId:
        """The id of the ring that the node is in."""
        ...

    @property
    def configuration(self) -> VoteConfig:
        """The configuration of votequorum, with the device's timeouts."""
        ...

    def multicast(self, message: object) -> None:
        """Send a message to votequorum on every node of the ring."""
        ...

    def send_node_info(self) -> None:
        """Send our node's state to all nodes."""
        ...

    def send_qdevice_info(self) -> None:
        """Send the quorum device's state to all nodes."""
        ...

    def proceed(self) -> None:
        """End a transition that has waited for the device."""
        ...

    def call_after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """Call `action` after a time, unless the timer that this returns is cancelled."""
        ...

    def log(self, text: str) -> None:
        """Write a line to the node's log."""
        ...


class Qdevice:
    """The quorum device as one node knows it, and the requests of the device's own daemon on this node.

    Args:
        host: the node's votequorum service.
        votes: the votes as the node counts them.
    """

    def __init__(self, host: Host, votes: Votes) -> None:
        self.name = ""
        self.awaited = False
        self._registrant: _Registrant | None = None
        self._host = host
        self._votes = votes
        self._timer: Timer | None = None

    # Requests of the library.

    def register(self, connection: ClientConnection, name: str, reply: Reply) -> None:
        """Register this node's device. The reply comes once the other nodes know of it."""
        self._check_can_operate(_REGISTER)
        if NodeFlag.QDEVICE_REGISTERED in self._votes.us.flags:
            reply(self._other_name(name))
        elif self._registrant is not None:
            raise error_from_code(CsError.TRY_AGAIN, _REGISTER, "another registration is under way")
        else:
            self._registrant = _Registrant(connection, reply)
            self._host.multicast(Registration(name, present=True))

    def connection_closed(self, connection: ClientConnection) -> None:
        """Drop the reply to a client that is gone. Its device is registered all the same."""
        if self._registrant is not None and self._registrant.connection is connection:
            self._registrant.reply = lambda _: None

    def unregister(self, name: str) -> None:
        """Unregister this node's device."""
        self._check("votequorum_qdevice_unregister", name)
        self._stop_timer()
        self.awaited = False
        self._votes.us.flags &= ~(
            NodeFlag.QDEVICE_REGISTERED
            | NodeFlag.QDEVICE_ALIVE
            | NodeFlag.QDEVICE_CAST_VOTE
            | NodeFlag.QDEVICE_MASTER_WINS
        )
        self._host.send_node_info()
        self._host.multicast(Registration(name, present=False))
        self._host.proceed()

    def update(self, old: str, new: str) -> None:
        """Rename the device on every node."""
        self._check("votequorum_qdevice_update", old)
        self._host.multicast(Renaming(old, new))

    def poll(self, name: str, ring_id: RingId, *, cast_vote: bool) -> None:
        """Take in a sign of life from the device, with its vote for that ring."""
        function = "votequorum_qdevice_poll"
        self._check_can_operate(function)
        self._check_registered(function)
        if ring_id != self._host.ring_id:
            raise error_from_code(CsError.MESSAGE_ERROR, function, f"the ring is {self._host.ring_id}")
        self._check(function, name)
        flags = self._votes.us.flags | NodeFlag.QDEVICE_ALIVE
        if cast_vote:
            flags |= NodeFlag.QDEVICE_CAST_VOTE
        else:
            flags &= ~NodeFlag.QDEVICE_CAST_VOTE
        self._set_flags(flags)
        self._start_timer(self._host.configuration.device_timeout)
        self.awaited = False
        self._host.proceed()

    def master_wins(self, name: str, *, allow: bool) -> None:
        """Set whether the partition that the device votes for is quorate, whatever its size."""
        self._check_can_operate("votequorum_qdevice_master_wins")
        self._check("votequorum_qdevice_master_wins", name)
        flags = self._votes.us.flags
        if allow:
            flags |= NodeFlag.QDEVICE_MASTER_WINS
        else:
            flags &= ~NodeFlag.QDEVICE_MASTER_WINS
        # This takes effect at the next count of the votes, when our own node info is delivered to us.
        self._votes.set_master_wins(allow=allow)
        self._set_flags(flags)

    def _check_can_operate(self, function: str) -> None:
        if not self._votes.qdevice_can_operate:
            raise error_from_code(CsError.ACCESS, function, "the device does not go together with the configuration")

    def _check_registered(self, function: str) -> None:
        if NodeFlag.QDEVICE_REGISTERED not in self._votes.us.flags:
            raise error_from_code(CsError.NOT_EXIST, function, "no quorum device is registered on this node")

    def _check(self, function: str, name: str) -> None:
        self._check_registered(function)
        if name != self.name:
            raise error_from_code(CsError.INVALID_PARAM, function, f"the quorum device is called {self.name!r}")

    def _other_name(self, name: str) -> CorosyncError | None:
        """The error of registering a device of that name if there is one with another name, else `None`."""
        if name == self.name:
            return None
        return error_from_code(CsError.EXIST, _REGISTER, f"the cluster's quorum device is called {self.name!r}")

    def _set_flags(self, flags: NodeFlag) -> None:
        if flags != self._votes.us.flags:
            self._votes.us.flags = flags
            self._host.send_node_info()

    # Messages from the other daemons, and our own.

    def on_registration(self, message: Registration, *, ours: bool) -> None:
        """Handle a registration; `ours` says whether our own node has sent it."""
        if message.present:
            self.name = self.name or message.name
            # In a transition, nodes also send the device's name if it is registered on another node.
            if ours and self._registrant is not None:
                registrant, self._registrant = self._registrant, None
                if message.name == self.name:
                    self._votes.us.flags |= NodeFlag.QDEVICE_REGISTERED
                    self._host.send_qdevice_info()
                    self._host.send_node_info()
                registrant.reply(self._other_name(message.name))
        elif not any(NodeFlag.QDEVICE_REGISTERED in node.flags for node in self._votes.members()):
            self.name = ""

    def on_renaming(self, message: Renaming) -> None:
        """Handle a renaming."""
        if message.old == self.name:
            self.name = message.new

    # A new ring.

    def sync_init(self) -> None:
        """Wait for the vote of a device that is alive, for the new ring."""
        alive = NodeFlag.QDEVICE_REGISTERED | NodeFlag.QDEVICE_ALIVE
        self.awaited = alive in self._votes.us.flags
        if self.awaited:
            timeout = self._host.configuration.device_sync_timeout
            self._start_timer(timeout)
            self._host.log(f"waiting for quorum device {self.name} poll (but maximum for {timeout} ms)")

    def sync_process(self) -> None:
        """Send the device's name, which new nodes do not know."""
        if self.name:
            self._host.multicast(Registration(self.name, present=True))

    # The timer.

    def _start_timer(self, milliseconds: int) -> None:
        self._stop_timer()
        self._timer = self._host.call_after(milliseconds / 1000, self._timed_out)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        """Treat the device as dead: it has given no sign of life for too long."""
        self._timer = None
        self._votes.us.flags &= ~(NodeFlag.QDEVICE_ALIVE | NodeFlag.QDEVICE_CAST_VOTE)
        self._host.log(f"lost contact with quorum device {self.name}")
        self._host.send_node_info()
        self.awaited = False
        self._host.proceed()
