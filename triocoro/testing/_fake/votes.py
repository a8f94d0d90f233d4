"""Votes and quorum as one node sees them: the arithmetic of exec/votequorum.c, without its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntFlag

import attrs

from ..._types import NodeState

_TWO = 2


class NodeFlag(IntFlag):
    """What nodes tell each other of themselves (`NODE_FLAGS_*`)."""

    QUORATE = 1
    WFASTATUS = 4
    FIRST = 8


@attrs.define(eq=False)
class ClusterNode:
    """What we know of a node (`struct cluster_node`)."""

    nodeid: int
    state: NodeState = NodeState.DEAD
    votes: int = 0
    expected_votes: int = 0
    flags: NodeFlag = attrs.field(factory=lambda: NodeFlag(0))


class Votes:
    """The nodes seen so far, their votes, and whether we are quorate."""

    def __init__(
        self,
        nodeid: int,
        *,
        expected_votes: int,
        two_node: bool,
        wait_for_all: bool,
        expected_votes_changed: Callable[[], None],
        quorate_changed: Callable[[], None],
        log: Callable[[str], None],
    ) -> None:
        self.two_node = two_node
        self.wait_for_all = wait_for_all
        self.waiting_for_all = False
        self.quorum = 0
        self.quorate = False
        self.nodes: list[ClusterNode] = []
        self.qdevice = ClusterNode(0)
        self._expected_votes_changed = expected_votes_changed
        self._quorate_changed = quorate_changed
        self._log = log
        self.us = self.add(nodeid)
        self.us.state = NodeState.MEMBER
        self.us.votes = 1
        self.us.flags = NodeFlag.FIRST
        self.us.expected_votes = expected_votes
        if wait_for_all:
            self.set_waiting_for_all(waiting=True)

    def find(self, nodeid: int) -> ClusterNode | None:
        """The node with that id; 0 is the quorum device."""
        if nodeid == 0:
            return self.qdevice
        return next((node for node in self.nodes if node.nodeid == nodeid), None)

    def add(self, nodeid: int) -> ClusterNode:
        """A node that was not seen before.

        Corosync means to keep the nodes in ascending order; but one above all the others lands before the last one.
        """
        node = ClusterNode(nodeid)
        above = next((index for index, other in enumerate(self.nodes) if nodeid < other.nodeid), len(self.nodes) - 1)
        self.nodes.insert(max(above, 0), node)
        return node

    def members(self) -> Iterator[ClusterNode]:
        """The nodes that are there."""
        return (node for node in self.nodes if node.state is NodeState.MEMBER)

    def total(self) -> int:
        """The votes that are there."""
        return sum(node.votes for node in self.members())

    def highest_expected(self) -> int:
        """The highest number of votes that a member expects."""
        return max((node.expected_votes for node in self.members()), default=0)

    def expect(self, expected_votes: int) -> None:
        """Every member is to expect that many votes; 0 changes nothing."""
        if expected_votes:
            for node in self.members():
                node.expected_votes = expected_votes

    def calculate_quorum(self, *, allow_decrease: bool, max_expected: int = 0) -> int:
        """How many votes are needed."""
        expected = max_expected or self.highest_expected()
        quorum = max((expected + 2) // 2, (self.total() + 2) // 2)
        if not allow_decrease:
            quorum = max(quorum, self.quorum)
        if self.two_node and sum(1 for _ in self.members()) <= _TWO:
            quorum = 1
        return quorum

    def recalculate(self, *, allow_decrease: bool) -> None:
        """Count anew, and tell who wants to know what has changed."""
        # The device's votes raise what is expected even while it casts none.
        total = self.total() + self.qdevice.votes
        if total > self.us.expected_votes:
            self.us.expected_votes = total
            self._expected_votes_changed()
        self.quorum = self.calculate_quorum(allow_decrease=allow_decrease)
        self._judge(self.total())

    def set_waiting_for_all(self, *, waiting: bool) -> None:
        """Whether quorum is withheld until all nodes have been seen at once."""
        self.waiting_for_all = waiting
        if waiting:
            self.us.flags |= NodeFlag.WFASTATUS
        else:
            self.us.flags &= ~NodeFlag.WFASTATUS

    def _judge(self, total: int) -> None:
        if self.wait_for_all and self.waiting_for_all:
            if total != self.us.expected_votes:
                self._log(
                    f"Waiting for all cluster members. Current votes: {total} expected_votes: {self.us.expected_votes}"
                )
                return
            self.set_waiting_for_all(waiting=False)
        before, self.quorate = self.quorate, self.quorum <= total
        if self.quorate:
            self.us.flags |= NodeFlag.QUORATE
        else:
            self.us.flags &= ~NodeFlag.QUORATE
        if self.wait_for_all:
            self.set_waiting_for_all(waiting=not self.quorate)
        if self.quorate is not before:
            self._log("quorum regained, resuming activity" if self.quorate else "quorum lost, blocking activity")
            self._quorate_changed()
