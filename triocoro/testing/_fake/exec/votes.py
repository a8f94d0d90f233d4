"""Votes and quorum as one node sees them: the arithmetic of exec/votequorum.c, without the messages."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntFlag
from typing import Protocol

import attrs

from ...._enums import CmapType, NodeState
from ..._cluster.options import signed
from .voteconfig import TieBreaker, VoteConfig

QDEVICE = 0
"""The id of the quorum device in place of a node id."""

_TWO_NODES = 2
_MODULUS = 2**32
"""votequorum counts votes in unsigned integers of 32 bits."""
_LEAST_BESIDE_DEVICE = 2


class NodeFlag(IntFlag):
    """A node's state, as it tells the other nodes (`NODE_FLAGS_*`)."""

    QUORATE = 1
    LEAVING = 2
    WFASTATUS = 4
    FIRST = 8
    QDEVICE_REGISTERED = 16
    QDEVICE_ALIVE = 32
    QDEVICE_CAST_VOTE = 64
    QDEVICE_MASTER_WINS = 128


@attrs.define(eq=False)
class ClusterNode:
    """A node as our node knows it (`struct cluster_node`)."""

    nodeid: int
    state: NodeState = NodeState.DEAD
    votes: int = 0
    expected_votes: int = 0
    flags: NodeFlag = attrs.field(factory=lambda: NodeFlag(0))


class Listener(Protocol):
    """Receives the outcome of a count: the node's votequorum service."""

    def expected_votes_changed(self) -> None:
        """Our number of expected votes has changed."""

    def quorate_changed(self) -> None:
        """We have become quorate, or are no longer."""

    def publish(self, key: str, number: int, kind: CmapType = CmapType.UINT32) -> None:
        """Set a key under runtime.votequorum in the node's map."""

    def log(self, text: str) -> None:
        """Write a line to the node's log."""


class Votes:
    """The nodes seen so far, their votes, and whether we are quorate.

    Args:
        nodeid: our own id.
        configuration: the configuration at the start.
        listener: receives the outcome of counts.
    """

    def __init__(self, nodeid: int, configuration: VoteConfig, listener: Listener) -> None:
        self.two_node = False
        self.wait_for_all = bool(configuration.wait_for_all)
        self.last_man_standing = configuration.last_man_standing
        self.allow_downscale = configuration.allow_downscale
        self.tie_breaker = configuration.tie_breaker
        self.waiting_for_all = False
        self.qdevice_can_operate = True
        self.master_wins = False
        self.quorum = 0
        self.quorate = False
        self.nodes: list[ClusterNode] = []
        self.ring: tuple[int, ...] = ()
        self.qdevice = ClusterNode(QDEVICE)
        self._previous_ring: tuple[int, ...] = ()
        self._lowest = self._highest = -1
        self._tie_breakers = configuration.tie_breakers
        # The number of expected votes below which allow_downscale does not go.
        self._ev_barrier = 0
        # The most votes that were ever expected. Corosync tries to store this on disk for its next start, but has
        # closed the file before it writes.
        self._ev_tracking_barrier = 0
        self._listener = listener
        listener.publish("this_node_id", nodeid)
        self.us = self.add(nodeid)
        self.us.state = NodeState.MEMBER
        self.us.flags = NodeFlag.FIRST
        if self.tie_breaker:
            listener.publish("atb_type", self.tie_breaker)
        if self.allow_downscale:
            listener.publish("ev_tracking_barrier", self._ev_tracking_barrier)
        self._configure(configuration)
        if self.wait_for_all:
            self.set_waiting_for_all(waiting=True)

    def reconfigure(self, configuration: VoteConfig) -> None:
        """Adopt a changed configuration: two_node, the votes and the device may change at run time."""
        self.tie_breaker = configuration.tie_breaker
        self._listener.publish("atb_type", self.tie_breaker)
        self._configure(configuration)
        if configuration.wait_for_all is None and not self.wait_for_all and self.waiting_for_all:
            self.set_waiting_for_all(waiting=False)

    def _configure(self, configuration: VoteConfig) -> None:
        device_votes, all_votes = configuration.device_votes, configuration.all_votes
        expected_votes = configuration.expected_votes
        self.two_node = configuration.two_node
        can_operate = True
        if self.two_node and configuration.device:
            # A device that is registered already excludes two_node, else two_node excludes the device.
            can_operate = NodeFlag.QDEVICE_REGISTERED in self.us.flags
            self.two_node = not can_operate
        if configuration.wait_for_all is None:
            self.wait_for_all = self.two_node
        if self.tie_breaker:
            self.two_node = False
            if all_votes % 2 and not self.wait_for_all:
                self.tie_breaker = TieBreaker.NONE
                self._listener.publish("atb_type", self.tie_breaker)
        if configuration.device:
            unclear = device_votes is None and (expected_votes or configuration.nodes != all_votes)
            too_many = device_votes and expected_votes and expected_votes - device_votes < _LEAST_BESIDE_DEVICE
            excluded = self.last_man_standing or self.tie_breaker or self.allow_downscale
            self._set_can_operate(can_operate and not (unclear or too_many or excluded))
            if device_votes is None and not unclear:
                device_votes = all_votes - 1
                all_votes += device_votes
        if self.allow_downscale:
            # The most votes ever expected replace the configured number.
            expected_votes = self._ev_tracking_barrier
        self.us.votes = configuration.own_votes
        self.us.expected_votes = expected_votes or all_votes
        if device_votes is not None or not configuration.device:
            self.qdevice.votes = device_votes or 0
        self.set_barrier(self.us.expected_votes)
        self._listener.publish("two_node", self.two_node, CmapType.UINT8)

    def _set_can_operate(self, can_operate: bool) -> None:  # noqa: FBT001 - the name says it
        self.qdevice_can_operate = can_operate
        self._listener.publish("qdevice_can_operate", can_operate, CmapType.UINT8)

    def find(self, nodeid: int) -> ClusterNode | None:
        """The node with that id, if it was ever seen; 0 is the quorum device."""
        if nodeid == QDEVICE:
            return self.qdevice
        return next((node for node in self.nodes if node.nodeid == nodeid), None)

    def add(self, nodeid: int) -> ClusterNode:
        """Add a node that was not seen before.

        Corosync means to keep the nodes in ascending order, but inserts the highest id before the last element.
        """
        node = ClusterNode(nodeid)
        above = next(
            (index for index, other in enumerate(self.nodes) if signed(nodeid) < signed(other.nodeid)),
            len(self.nodes) - 1,
        )
        self.nodes.insert(max(above, 0), node)
        return node

    def members(self) -> Iterator[ClusterNode]:
        """The nodes that are members."""
        return (node for node in self.nodes if node.state is NodeState.MEMBER)

    def enter_ring(self, members: tuple[int, ...]) -> bool:
        """Enter a new ring; returns whether nodes have left."""
        gone = set(self.ring) - set(members)
        for node in self.nodes:
            if node.nodeid in gone:
                node.state = NodeState.DEAD
        self._previous_ring, self.ring = self.ring, members
        return bool(gone)

    def total(self, device_of: ClusterNode | None = None) -> int:
        """The votes present; those of the quorum device count if node `device_of` says that it votes."""
        device_votes = device_of is not None and NodeFlag.QDEVICE_CAST_VOTE in device_of.flags
        return (sum(node.votes for node in self.members()) + (self.qdevice.votes if device_votes else 0)) % _MODULUS

    def highest_expected(self) -> int:
        """The highest number of votes that any member expects."""
        return max((node.expected_votes for node in self.members()), default=0)

    def expect(self, expected_votes: int) -> None:
        """Set the number of votes that every member expects; 0 changes nothing."""
        if expected_votes:
            for node in self.members():
                node.expected_votes = expected_votes

    def set_barrier(self, expected_votes: int) -> None:
        """Set the number of expected votes below which allow_downscale does not go."""
        self._ev_barrier = expected_votes
        self._listener.publish("ev_barrier", expected_votes)

    def raise_expected_to_tracked(self) -> None:
        """With allow_downscale, raise our expected votes to the most that were ever expected."""
        if self.allow_downscale:
            self.us.expected_votes = max(self.us.expected_votes, self._ev_tracking_barrier)

    def calculate_quorum(
        self, *, allow_decrease: bool, max_expected: int = 0, allow_downscale: bool | None = None
    ) -> int:
        """The number of votes needed for quorum."""
        downscale = self.allow_downscale if allow_downscale is None else allow_downscale
        if downscale and allow_decrease and max_expected:
            max_expected = max(self._ev_barrier, max_expected)
        expected = max_expected or self.highest_expected()
        quorum = max((votes + 2) % _MODULUS // 2 for votes in (expected, self.total(self.us)))
        if not allow_decrease:
            quorum = max(quorum, self.quorum)
        voters = sum(1 for _ in self.members()) + (NodeFlag.QDEVICE_CAST_VOTE in self.us.flags)
        if self.two_node and voters <= _TWO_NODES:
            quorum = 1
        return quorum

    def recalculate(self, *, allow_decrease: bool, by_nodes: bool = False) -> None:
        """Count the votes again, and tell the listener what has changed.

        Args:
            allow_decrease: whether quorum may become lower than before.
            by_nodes: whether to expect as many votes as there are nodes present.
        """
        # The device's votes raise the expected votes even while it does not vote.
        total = (self.total() + self.qdevice.votes) % _MODULUS
        if total > self.us.expected_votes:
            self.us.expected_votes = total
            self._listener.expected_votes_changed()
        if self.allow_downscale and self.us.expected_votes > self._ev_tracking_barrier:
            self._ev_tracking_barrier = self.us.expected_votes
            self._listener.publish("ev_tracking_barrier", self.us.expected_votes)
        voters = sum(1 for _ in self.members()) + bool(self.qdevice.votes) if by_nodes else 0
        # votequorum keeps this in one byte.
        self.quorum = self.calculate_quorum(allow_decrease=allow_decrease, max_expected=voters) % 256
        # The votes present are counted before the expected votes are lowered.
        total = self.total(self.us)
        self.expect(voters)
        self._decide(total)

    def set_waiting_for_all(self, *, waiting: bool) -> None:
        """Set whether quorum is withheld until all nodes have been seen at once."""
        self.waiting_for_all = waiting
        if waiting:
            self.us.flags |= NodeFlag.WFASTATUS
        else:
            self.us.flags &= ~NodeFlag.WFASTATUS
        self._listener.publish("wait_for_all_status", waiting, CmapType.UINT8)

    def set_master_wins(self, *, allow: bool) -> None:
        """Set whether the partition that the quorum device votes for is quorate, whatever its size."""
        self.master_wins = allow
        self._listener.publish("qdevice_master_wins", allow, CmapType.UINT8)

    def lowest_is_member(self) -> bool:
        """Whether the node that had the lowest id when we were last quorate is still a member."""
        return any(node.nodeid == self._lowest for node in self.members())

    def _decide(self, total: int) -> None:
        if self.wait_for_all and self.waiting_for_all:
            if total != self.us.expected_votes:
                self._listener.log(
                    f"Waiting for all cluster members. Current votes: {total} expected_votes: {self.us.expected_votes}"
                )
                return
            self.set_waiting_for_all(waiting=False)
        before = self.quorate
        enough = self.quorum <= total
        if enough:
            nodeids = [node.nodeid for node in (self.us, *self.members())]
            self._lowest, self._highest = min(nodeids, key=signed), max(nodeids, key=signed)
            self._listener.publish("lowest_node_id", self._lowest)
            self._listener.publish("highest_node_id", self._highest)
        self.quorate = enough or self._breaks_tie(total) or self._device_decides()
        if self.quorate:
            self.us.flags |= NodeFlag.QUORATE
        else:
            self.us.flags &= ~NodeFlag.QUORATE
        if self.wait_for_all:
            self.set_waiting_for_all(waiting=not self.quorate)
        if self.quorate is not before:
            self._listener.quorate_changed()

    def _breaks_tie(self, total: int) -> bool:
        """Whether auto_tie_breaker makes our half of a split quorate."""
        if (
            self.tie_breaker is TieBreaker.NONE
            or total != self.us.expected_votes // 2
            # The nodes that have left may have quorum by themselves.
            or len(self._previous_ring) - len(self.ring) >= self.quorum
        ):
            return False
        if self.tie_breaker is TieBreaker.LOWEST:
            return self.lowest_is_member()
        if self.tie_breaker is TieBreaker.HIGHEST:
            return any(node.nodeid == self._highest for node in self.members())
        for nodeid in self._tie_breakers:
            if nodeid in self.ring:
                return True
            if nodeid in self._previous_ring:
                # It may be alive in the other half.
                return False
        return False

    def _device_decides(self) -> bool:
        """Whether the vote of a member's quorum device makes us quorate."""
        wins = NodeFlag.QDEVICE_MASTER_WINS | NodeFlag.QDEVICE_CAST_VOTE
        return self.master_wins and any(wins in node.flags for node in self.members())
