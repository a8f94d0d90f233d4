"""The votequorum service of one daemon: exec/votequorum.c."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final

import attrs

from ...._enums import CmapTrack, CmapType, CsError, NodeState, Track, VotequorumFlag
from ...._errors import error_from_code
from ...._types import (
    CmapChange,
    ExpectedVotesChange,
    RingId,
    VotequorumChange,
    VotequorumInfo,
    VotequorumNode,
    VotequorumNodelist,
)
from . import voteconfig
from .daemon import Daemon
from .icmap import MapTracker
from .qdevice import Qdevice, Registration, Renaming
from .quorum import QuorumService
from .service import ClientConnection, Synchronised
from .timers import Timer
from .trackers import Trackers
from .voteconfig import TieBreaker
from .votes import ClusterNode, NodeFlag, Votes

_QDEVICE_FLAGS: Final = {
    NodeFlag.QDEVICE_REGISTERED: VotequorumFlag.QDEVICE_REGISTERED,
    NodeFlag.QDEVICE_ALIVE: VotequorumFlag.QDEVICE_ALIVE,
    NodeFlag.QDEVICE_CAST_VOTE: VotequorumFlag.QDEVICE_CAST_VOTE,
    NodeFlag.QDEVICE_MASTER_WINS: VotequorumFlag.QDEVICE_MASTER_WINS,
}

_ALL_CHANGES: Final = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE
_RELOADING: Final = "config.totemconfig_reload_in_progress"
_RELOAD_STATUS: Final = "config.reload_status"
_CANCEL: Final = "quorum.cancel_wait_for_all"

# The messages between the daemons.


@attrs.frozen
class _NodeInfo:
    """The state of a node, or of the quorum device if `nodeid` is 0."""

    nodeid: int
    votes: int
    expected_votes: int
    flags: NodeFlag


class _Parameter(Enum):
    EXPECTED_VOTES = auto()
    NODE_VOTES = auto()
    CANCEL_WAIT_FOR_ALL = auto()


@attrs.frozen
class _Reconfigure:
    parameter: _Parameter
    nodeid: int
    value: int


class VotequorumService(Synchronised):
    """Votes and quorum: the `Listener` of the votes, and the `Host` of the quorum device."""

    name = "votequorum"
    serves_during_sync = True

    def __init__(self, daemon: Daemon, quorum: QuorumService) -> None:
        super().__init__(daemon.multicast)
        self.daemon = daemon
        self.ring_id = RingId(0, 0)
        self._trackers = Trackers("votequorum_trackstart", lambda: (self._nodelist(), self._change()))
        self._quorum = quorum
        self._synchronising = False
        self._window_timer: Timer | None = None
        self.configuration = voteconfig.read(daemon.icmap, daemon.nodeid)
        self.votes = Votes(daemon.nodeid, self.configuration, self)
        self.qdevice = Qdevice(self, self.votes)
        self.votes.recalculate(allow_decrease=False)
        for key in ("nodelist.", "quorum."):
            daemon.icmap.track(MapTracker(key, _ALL_CHANGES | CmapTrack.PREFIX, self._config_changed))
        daemon.icmap.track(MapTracker(_RELOADING, _ALL_CHANGES, self._config_changed))

    # Requests of the library.

    def getinfo(self, nodeid: int) -> VotequorumInfo:
        """Return the state of a node; 0 is our own."""
        votes = self.votes
        node = votes.find(nodeid or self.daemon.nodeid)
        if node is None:
            raise error_from_code(CsError.NOT_EXIST, "votequorum_getinfo", f"node {nodeid} was never seen")
        conditions = {
            VotequorumFlag.TWONODE: votes.two_node,
            VotequorumFlag.QUORATE: votes.quorate,
            VotequorumFlag.WAIT_FOR_ALL: votes.wait_for_all,
            VotequorumFlag.LAST_MAN_STANDING: votes.last_man_standing,
            VotequorumFlag.AUTO_TIE_BREAKER: votes.tie_breaker is not TieBreaker.NONE,
            VotequorumFlag.ALLOW_DOWNSCALE: votes.allow_downscale,
            **{client_flag: node_flag in node.flags for node_flag, client_flag in _QDEVICE_FLAGS.items()},
        }
        flags = VotequorumFlag(0)
        for flag, holds in conditions.items():
            if holds:
                flags |= flag
        return VotequorumInfo(
            nodeid=node.nodeid,
            state=node.state,
            votes=node.votes,
            expected_votes=node.expected_votes,
            highest_expected=votes.highest_expected(),
            total_votes=votes.total(node),
            quorum=votes.quorum,
            flags=flags,
            qdevice_votes=votes.qdevice.votes,
            qdevice_name=self.qdevice.name,
        )

    def setexpected(self, expected_votes: int) -> None:
        """Set the number of votes that all members of the ring expect."""
        votes = self.votes
        total = votes.total(votes.us)
        quorum = votes.calculate_quorum(allow_decrease=True, max_expected=expected_votes, allow_downscale=False)
        if expected_votes < total or (votes.quorate and quorum > total):
            raise error_from_code(
                CsError.INVALID_PARAM,
                "votequorum_setexpected",
                f"{expected_votes} expected votes do not fit the {total} present, or would end quorum",
            )
        votes.expect(expected_votes)
        self.multicast(_Reconfigure(_Parameter.EXPECTED_VOTES, self.daemon.nodeid, expected_votes))

    def setvotes(self, nodeid: int, value: int) -> None:
        """Set the number of votes of a node."""
        votes = self.votes
        node = votes.find(nodeid)
        if node is None:
            raise error_from_code(CsError.NAME_NOT_FOUND, "votequorum_setvotes", f"node {nodeid} was never seen")
        saved, node.votes = node.votes, value
        total = votes.total(votes.us)
        quorum = votes.calculate_quorum(allow_decrease=True)
        if quorum < total // 2 or quorum > total:
            node.votes = saved
            raise error_from_code(CsError.INVALID_PARAM, "votequorum_setvotes", f"{value} votes would end quorum")
        self.multicast(_Reconfigure(_Parameter.NODE_VOTES, nodeid, value))

    def trackstart(self, connection: ClientConnection, flags: Track) -> None:
        """Send a client the current state, changes from now on, or both."""
        self._trackers.start(connection, flags)

    def trackstop(self, connection: ClientConnection) -> None:
        """Stop sending changes to a client."""
        if not self._trackers.stop(connection):
            raise error_from_code(CsError.NOT_EXIST, "votequorum_trackstop", "tracking was not started")

    def connection_closed(self, connection: ClientConnection) -> None:
        self._trackers.stop(connection)
        self.qdevice.connection_closed(connection)

    # Messages from the other daemons, and our own.

    def deliver(self, message: object, sender: int) -> None:
        votes = self.votes
        match message:
            case _NodeInfo(nodeid=0):
                self._qdevice_info(message.votes, sender)
            case _NodeInfo():
                self._node_info(message)
            case Registration():
                self.qdevice.on_registration(message, ours=sender == self.daemon.nodeid)
            case Renaming():
                self.qdevice.on_renaming(message)
            case _Reconfigure(_Parameter.EXPECTED_VOTES, _, value):
                votes.expect(value)
                self.expected_votes_changed()
                votes.set_barrier(value)
                votes.raise_expected_to_tracked()
                votes.recalculate(allow_decrease=True)
            case _Reconfigure(_Parameter.NODE_VOTES, nodeid, value):
                node = votes.find(nodeid)
                if node is not None:
                    node.votes = value
                    votes.recalculate(allow_decrease=True)
            case _Reconfigure(_Parameter.CANCEL_WAIT_FOR_ALL, nodeid):
                votes.set_waiting_for_all(waiting=False)
                self.log(f"wait_for_all_status reset by user on node {nodeid}.")
                votes.recalculate(allow_decrease=False)
            case _:
                raise AssertionError(message)

    def _node_info(self, info: _NodeInfo) -> None:
        votes = self.votes
        node = votes.find(info.nodeid)
        before = None
        if node is None:
            node = votes.add(info.nodeid)
        else:
            before = attrs.evolve(node)
        node.flags = info.flags
        node.votes = info.votes
        leaving = NodeFlag.LEAVING in info.flags
        node.state = NodeState.LEAVING if leaving else NodeState.MEMBER
        quorate = NodeFlag.QUORATE in info.flags
        # A node that is not quorate adopts the expected votes of one that is.
        adopts_expected = quorate and not votes.quorate
        if adopts_expected:
            votes.us.expected_votes = info.expected_votes
        keeps_sent_expected = quorate or votes.allow_downscale
        node.expected_votes = info.expected_votes if keeps_sent_expected else votes.us.expected_votes
        if votes.last_man_standing and node.votes > 1:
            self.log("Last Man Standing is for nodes of one vote each. Disabling LMS.")
            votes.last_man_standing = False
            self._stop_window()
        if (
            before is None
            or node is votes.us
            or NodeFlag.FIRST in node.flags
            or attrs.astuple(before) != attrs.astuple(node)
        ):
            votes.recalculate(allow_decrease=leaving or adopts_expected, by_nodes=leaving)
        if votes.wait_for_all and NodeFlag.WFASTATUS not in node.flags and quorate:
            votes.set_waiting_for_all(waiting=False)

    def _qdevice_info(self, number: int, sender: int) -> None:
        """Handle a node's opinion on the number of the device's votes."""
        votes = self.votes
        node = votes.find(sender)
        quorate = node is not None and NodeFlag.QUORATE in node.flags
        before = votes.qdevice.votes
        votes.qdevice.votes = number if quorate and not votes.quorate else max(before, number)
        if votes.qdevice.votes != before:
            votes.recalculate(allow_decrease=False)

    def send_node_info(self) -> None:
        """Send our state to all nodes."""
        self._send_state(self.votes.us)

    def send_qdevice_info(self) -> None:
        """Send the state of the quorum device to all nodes."""
        self._send_state(self.votes.qdevice)

    def _send_state(self, node: ClusterNode) -> None:
        self.multicast(_NodeInfo(node.nodeid, node.votes, node.expected_votes, node.flags))

    def exit(self) -> None:
        """With allow_downscale, tell the others to expect our votes no longer."""
        if self.votes.allow_downscale:
            self.votes.us.flags |= NodeFlag.LEAVING
            self.send_node_info()

    # The configuration.

    def _config_changed(self, change: CmapChange) -> None:
        """Adopt the configuration after a change of a key, or after a reload."""
        icmap, nodeid = self.daemon.icmap, self.daemon.nodeid
        if voteconfig.number(icmap, _RELOADING, CmapType.UINT8):
            return
        status = voteconfig.number(icmap, _RELOAD_STATUS, CmapType.INT32, default=CsError.OK)
        if change.key == _RELOADING and status != CsError.OK:
            return
        if change.key == _CANCEL and voteconfig.number(icmap, _CANCEL, CmapType.UINT8):
            icmap.set(_CANCEL, CmapType.UINT8, 0)
            self.multicast(_Reconfigure(_Parameter.CANCEL_WAIT_FOR_ALL, nodeid, 0))
            return
        us = self.votes.us
        before = (us.votes, us.expected_votes)
        self.configuration = voteconfig.read(icmap, nodeid)
        self.votes.reconfigure(self.configuration)
        after = (us.votes, us.expected_votes)
        self.send_node_info()
        self.send_qdevice_info()
        for parameter, old, new in zip((_Parameter.NODE_VOTES, _Parameter.EXPECTED_VOTES), before, after, strict=True):
            if new != old:
                self.multicast(_Reconfigure(parameter, nodeid, new))

    # A new ring.

    def sync_init(
        self,
        transitional: frozenset[int],  # noqa: ARG002 - all members count alike, whichever ring they come from
        members: tuple[int, ...],
        ring_id: RingId,
    ) -> None:
        self._synchronising = True
        votes = self.votes
        if len(members) > 1:
            votes.us.flags &= ~NodeFlag.FIRST
        left = votes.enter_ring(members)
        self.ring_id = ring_id
        if votes.last_man_standing and (
            (len(members) >= votes.quorum and left)
            or (len(members) <= votes.quorum and votes.tie_breaker is not TieBreaker.NONE and votes.lowest_is_member())
        ):
            self._start_window()
        self.qdevice.sync_init()

    def sync_process(self) -> None:
        self.send_node_info()
        self.send_qdevice_info()
        self.qdevice.sync_process()
        self._trackers.notify(self._nodelist())

    def sync_waits(self) -> bool:
        """Whether the transition waits for the quorum device."""
        return self.qdevice.awaited

    def proceed(self) -> None:
        """Continue a transition that has waited for the quorum device."""
        self.daemon.totem.proceed(self.daemon.ring)

    def sync_activate(self) -> None:
        self.votes.recalculate(allow_decrease=False)
        self._notify_quorum()
        self._synchronising = False

    def _start_window(self) -> None:
        self._stop_window()
        # Before the Trio run starts there is no clock and no timer. None is needed: no node can have left yet.
        if self.daemon.totem.timers.passes():
            self._window_timer = self.daemon.call_after(
                self.configuration.last_man_standing_window / 1000, self._window_elapsed
            )

    def _stop_window(self) -> None:
        if self._window_timer is not None:
            self._window_timer.cancel()
            self._window_timer = None

    def _window_elapsed(self) -> None:
        """Stop expecting the votes of nodes that are still away. Clients get no event."""
        self._window_timer = None
        if self.votes.quorate:
            self.votes.recalculate(allow_decrease=True, by_nodes=True)

    # The `Listener` of the votes.

    def expected_votes_changed(self) -> None:
        """Send the clients the number of expected votes."""
        self._trackers.notify(ExpectedVotesChange(self.votes.us.expected_votes))

    def quorate_changed(self) -> None:
        """Send the clients whether we are quorate, in a transition only at its end."""
        if not self._synchronising:
            self._notify_quorum()

    def publish(self, key: str, number: int, kind: CmapType = CmapType.UINT32) -> None:
        """Set a key under runtime.votequorum in the node's map."""
        self.daemon.icmap.set(f"runtime.votequorum.{key}", kind, int(number))

    def call_after(self, seconds: float, action: Callable[[], None]) -> Timer:
        """See `Daemon.call_after`."""
        return self.daemon.call_after(seconds, action)

    def log(self, text: str) -> None:
        """Write a line to the node's log."""
        self.daemon.log("VOTEQ", text)

    def _notify_quorum(self) -> None:
        self._quorum.set_quorum(self.votes.ring, self.ring_id, quorate=self.votes.quorate)
        self._trackers.notify(self._change())

    def _nodelist(self) -> VotequorumNodelist:
        return VotequorumNodelist(self.ring_id, self.votes.ring)

    def _change(self) -> VotequorumChange:
        known = list(self.votes.nodes)
        if NodeFlag.QDEVICE_REGISTERED in self.votes.us.flags:
            known.append(self.votes.qdevice)
        return VotequorumChange(self.votes.quorate, tuple(VotequorumNode(node.nodeid, node.state) for node in known))
