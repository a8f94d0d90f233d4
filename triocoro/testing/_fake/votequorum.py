"""The votequorum service of one daemon: exec/votequorum.c."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING

import attrs

from ..._errors import CsError, error_from_code
from ..._types import (
    ExpectedVotesChange,
    NodeState,
    RingId,
    Track,
    VotequorumChange,
    VotequorumFlag,
    VotequorumInfo,
    VotequorumNode,
    VotequorumNodelist,
)
from .._cluster import ClusterOptions
from .daemon import Daemon, Service
from .votes import NodeFlag, Votes

if TYPE_CHECKING:
    from .ipc import Connection


# The messages between the daemons.


@attrs.frozen
class _NodeInfo:
    """What a node says of itself."""

    votes: int
    expected_votes: int
    flags: NodeFlag


class _Parameter(Enum):
    EXPECTED_VOTES = auto()
    NODE_VOTES = auto()


@attrs.frozen
class _Reconfigure:
    parameter: _Parameter
    nodeid: int
    value: int


class VotequorumService(Service):
    """Votes and quorum."""

    name = "votequorum"

    def __init__(self, daemon: Daemon, options: ClusterOptions) -> None:
        super().__init__(daemon)
        self._trackers: list[Connection] = []
        self._members: tuple[int, ...] = ()
        self._ring_id = RingId(0, 0)
        self._in_sync = False
        self.votes = Votes(
            daemon.nodeid,
            expected_votes=options.nodes,
            two_node=options.two_node,
            wait_for_all=options.two_node if options.wait_for_all is None else options.wait_for_all,
            expected_votes_changed=self._notify_expected_votes,
            quorate_changed=self._quorate_changed,
            log=lambda text: daemon.log("VOTEQ", text),
        )
        self.votes.recalculate(allow_decrease=False)

    # Requests of the library.

    def getinfo(self, nodeid: int) -> VotequorumInfo:
        """What is known of a node; 0 is our own."""
        votes = self.votes
        node = votes.find(nodeid or self.daemon.nodeid)
        if node is None:
            raise error_from_code(CsError.NOT_EXIST, "votequorum_getinfo", f"node {nodeid} was never seen")
        flags = VotequorumFlag(0)
        if votes.two_node:
            flags |= VotequorumFlag.TWONODE
        if votes.quorate:
            flags |= VotequorumFlag.QUORATE
        if votes.wait_for_all:
            flags |= VotequorumFlag.WAIT_FOR_ALL
        return VotequorumInfo(
            nodeid=node.nodeid,
            state=node.state,
            votes=node.votes,
            expected_votes=node.expected_votes,
            highest_expected=votes.highest_expected(),
            total_votes=votes.total(),
            quorum=votes.quorum,
            flags=flags,
            qdevice_votes=votes.qdevice.votes,
            qdevice_name="",
        )

    def setexpected(self, expected_votes: int) -> None:
        """Have all members of the ring expect that many votes."""
        votes = self.votes
        total = votes.total()
        quorum = votes.calculate_quorum(allow_decrease=True, max_expected=expected_votes)
        if expected_votes < total or (votes.quorate and quorum > total):
            raise error_from_code(
                CsError.INVALID_PARAM,
                "votequorum_setexpected",
                f"{expected_votes} expected votes do not fit the {total} present, or would end quorum",
            )
        votes.expect(expected_votes)
        self.multicast(_Reconfigure(_Parameter.EXPECTED_VOTES, self.daemon.nodeid, expected_votes))

    def setvotes(self, nodeid: int, value: int) -> None:
        """Give a node another number of votes."""
        votes = self.votes
        node = votes.find(nodeid)
        if node is None:
            raise error_from_code(CsError.NAME_NOT_FOUND, "votequorum_setvotes", f"node {nodeid} was never seen")
        saved, node.votes = node.votes, value
        total = votes.total()
        quorum = votes.calculate_quorum(allow_decrease=True)
        if quorum < total // 2 or quorum > total:
            node.votes = saved
            raise error_from_code(CsError.INVALID_PARAM, "votequorum_setvotes", f"{value} votes would end quorum")
        self.multicast(_Reconfigure(_Parameter.NODE_VOTES, nodeid, value))

    def trackstart(self, connection: Connection, flags: Track) -> None:
        """Tell the client of changes, and of how things stand."""
        if flags & (Track.CURRENT | Track.CHANGES):
            connection.send(self._nodelist())
            connection.send(self._change())
        if connection in self._trackers:
            raise error_from_code(CsError.EXIST, "votequorum_trackstart", "tracking was started before")
        if flags & (Track.CHANGES | Track.CHANGES_ONLY):
            self._trackers.append(connection)

    def trackstop(self, connection: Connection) -> None:
        """Tell the client no more."""
        if connection not in self._trackers:
            raise error_from_code(CsError.NOT_EXIST, "votequorum_trackstop", "tracking was not started")
        self._trackers.remove(connection)

    def connection_closed(self, connection: Connection) -> None:
        if connection in self._trackers:
            self._trackers.remove(connection)

    # Messages from the other daemons, and our own.

    def deliver(self, message: object, sender: int) -> None:
        match message:
            case _NodeInfo():
                self._node_info(message, sender)
            case _Reconfigure(_Parameter.EXPECTED_VOTES, _, value):
                self.votes.expect(value)
                self._notify_expected_votes()
                self.votes.recalculate(allow_decrease=True)
            case _Reconfigure(_Parameter.NODE_VOTES, nodeid, value):
                node = self.votes.find(nodeid)
                if node is not None:
                    node.votes = value
                    self.votes.recalculate(allow_decrease=True)
            case _:
                raise AssertionError(message)

    def _node_info(self, info: _NodeInfo, sender: int) -> None:
        votes = self.votes
        node = votes.find(sender)
        before = None
        if node is None:
            node = votes.add(sender)
        else:
            before = attrs.evolve(node)
        node.flags = info.flags
        node.votes = info.votes
        node.state = NodeState.MEMBER
        quorate = NodeFlag.QUORATE in info.flags
        # Whoever is not quorate believes one who is.
        allow_decrease = quorate and not votes.quorate
        if allow_decrease:
            votes.us.expected_votes = info.expected_votes
        node.expected_votes = info.expected_votes if quorate else votes.us.expected_votes
        if (
            before is None
            or node is votes.us
            or NodeFlag.FIRST in node.flags
            or attrs.astuple(before) != attrs.astuple(node)
        ):
            votes.recalculate(allow_decrease=allow_decrease)
        if votes.wait_for_all and NodeFlag.WFASTATUS not in node.flags and NodeFlag.QUORATE in node.flags:
            votes.set_waiting_for_all(waiting=False)

    def _send_node_info(self) -> None:
        us = self.votes.us
        self.multicast(_NodeInfo(us.votes, us.expected_votes, us.flags))

    # A new ring.

    def sync_init(
        self,
        transitional: frozenset[int],  # noqa: ARG002 - votes count whom is there, wherever they come from
        members: tuple[int, ...],
        ring_id: RingId,
    ) -> None:
        self._in_sync = True
        if len(members) > 1:
            self.votes.us.flags &= ~NodeFlag.FIRST
        for nodeid in self._members:
            node = self.votes.find(nodeid)
            if node is not None and nodeid not in members:
                node.state = NodeState.DEAD
        self._members = members
        self._ring_id = ring_id

    def sync_process(self) -> None:
        self._send_node_info()
        for connection in self._trackers:
            connection.send(self._nodelist())

    def sync_activate(self) -> None:
        self.votes.recalculate(allow_decrease=False)
        self._notify_quorum()
        self._in_sync = False

    # What clients are told.

    def _quorate_changed(self) -> None:
        # In a transition, the news waits for its end.
        if not self._in_sync:
            self._notify_quorum()

    def _notify_quorum(self) -> None:
        for connection in self._trackers:
            connection.send(self._change())

    def _notify_expected_votes(self) -> None:
        for connection in self._trackers:
            connection.send(ExpectedVotesChange(self.votes.us.expected_votes))

    def _nodelist(self) -> VotequorumNodelist:
        return VotequorumNodelist(self._ring_id, self._members)

    def _change(self) -> VotequorumChange:
        nodes = tuple(VotequorumNode(node.nodeid, node.state) for node in self.votes.nodes)
        return VotequorumChange(self.votes.quorate, nodes)
