"""The arithmetic of votequorum(5), on numbers that may not be known exactly."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .._cluster.options import ClusterOptions, signed
from .._history.entries import Call

_TWO_NODES = 2


class Electorate:
    """The votes of each node, the expected votes, and what follows from them.

    Votes that were set may not count yet, so most numbers are ranges: the lowest and the highest possible one.
    """

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._device_votes = options.qdevice_votes or 0
        self._votes = {nodeid: {options.votes_of(nodeid)} for nodeid in options.nodeids}
        """For each node, every number of votes that it may have."""
        self._expected = {options.expected_votes or options.total_votes}
        """Every number that may be expected, of those that were configured or set."""
        self._master_wins = False
        self.config_may_have_changed = False
        """Whether a client set keys of the configuration, or asked the daemon to reload it."""
        self.waits_for_all = options.two_node if options.wait_for_all is None else options.wait_for_all

    def note(self, call: Call) -> None:
        """Take into account what a call may change."""
        arguments: Any = call.arguments
        if call.function == "set_votes":
            self._votes.setdefault(arguments["nodeid"], set()).add(arguments["votes"])
        elif call.function == "set_expected":
            self._expected.add(arguments["expected_votes"])
        elif call.function == "qdevice_master_wins":
            self._master_wins = self._master_wins or arguments["allow"]
        elif call.function in {"set", "delete", "increment", "decrement"}:
            self.config_may_have_changed = self.config_may_have_changed or arguments["key"].startswith(
                ("quorum.", "nodelist.")
            )
        elif call.function == "reload_config":
            self.config_may_have_changed = True

    def votes(self, nodes: Collection[int], *, device: bool | None = None) -> tuple[int, int]:
        """The lowest and the highest number of votes that nodes may have together.

        Args:
            nodes: their ids.
            device: whether the quorum device votes; `None` if that is not known.
        """
        sets = [self._votes.get(nodeid) or {0} for nodeid in nodes]
        return (
            sum(map(min, sets)) + (self._device_votes if device else 0),
            sum(map(max, sets)) + (0 if device is False else self._device_votes),
        )

    def expected(self) -> tuple[int, int]:
        """The lowest and the highest number of votes that may be expected."""
        # A node that sees more votes than it expected expects that many from then on. A device's votes count as seen.
        max_expected = max(*self._expected, self.votes(self._votes)[1])
        return (1 if self.may_shrink else min(self._expected)), max_expected

    @property
    def announces_expected(self) -> bool:
        """Whether the daemon announces every change of the expected votes.

        It does not where a device's votes count as seen, or where `may_shrink`.
        """
        return self._options.qdevice_votes is None and not self.may_shrink

    @property
    def may_shrink(self) -> bool:
        """Whether the expected votes may fall unannounced: nodes that were given up, or left cleanly, stop counting."""
        return self._options.last_man_standing or self._options.allow_downscale

    def quorum(self, nodes: Collection[int], min_votes: int, max_votes: int, expected: int | None) -> tuple[int, int]:
        """The lowest and the highest possible quorum.

        Args:
            nodes: the nodes of the ring.
            min_votes: the lowest number of votes that may be present.
            max_votes: the highest one.
            expected: the expected votes; `None` if they are not known exactly.
        """
        if self._options.two_node and len(nodes) <= _TWO_NODES:
            return 1, 1
        min_expected, max_expected = self._expected_range(expected)
        return (max(min_expected, min_votes) + 2) // 2, (max(max_expected, max_votes) + 2) // 2

    def _expected_range(self, expected: int | None) -> tuple[int, int]:
        return self.expected() if expected is None else (expected, expected)

    def votes_are_fixed(self, nodes: Collection[int]) -> bool:
        """Whether the votes of these nodes never changed, and there is no quorum device."""
        return self._options.qdevice_votes is None and all(len(self._votes.get(nodeid, ())) == 1 for nodeid in nodes)

    def verdict(self, nodes: Collection[int], expected: int | None) -> bool | None:
        """Whether these nodes are quorate; `None` if the votes alone do not decide it."""
        min_votes, max_votes = self.votes(nodes)
        enough = min_votes >= self.quorum(nodes, min_votes, min_votes, expected)[1]
        too_few = max_votes < self.quorum(nodes, max_votes, max_votes, expected)[0]
        if enough:
            min_expected, max_expected = self._expected_range(expected)
            all_present = min_votes == max_votes == min_expected == max_expected
            return True if all_present or not self.waits_for_all else None
        if too_few and not self._master_wins and not self._may_be_half(nodes, expected):
            return False
        return None

    def _may_be_half(self, nodes: Collection[int], expected: int | None) -> bool:
        """Whether auto_tie_breaker may decide."""
        if not self._options.auto_tie_breaker:
            return False
        min_votes, max_votes = self.votes(nodes)
        min_expected, max_expected = self._expected_range(expected)
        return min_votes <= max_expected // 2 and max_votes >= min_expected // 2

    def verdict_after(self, before: Collection[int], nodes: Collection[int], *, was_quorate: bool) -> bool | None:
        """Whether nodes are quorate after others have left them; `None` if that cannot be told.

        Args:
            before: the nodes before, these among them.
            nodes: the nodes that are left.
            was_quorate: whether the nodes before were quorate.
        """
        options = self._options
        min_expected, max_expected = self.expected()
        if min_expected != max_expected or not self.votes_are_fixed(before):
            return None
        total = self.votes(nodes)[0]
        quorum = self.quorum(nodes, total, total, None)[0]
        if not was_quorate:
            # Nodes do not become quorate by losing others, and under wait_for_all not even with enough votes.
            return False if not options.auto_tie_breaker else None
        if total >= quorum:
            return True
        if not options.auto_tie_breaker or total != min_expected // 2 or self.votes(before)[0] < quorum:
            return None
        # Half of the votes is enough for the nodes that have the tie breaker, unless the others may be quorate.
        return len(before) - len(nodes) < quorum and self._tie_breaker(before) in nodes

    def _tie_breaker(self, nodes: Collection[int]) -> int | None:
        """The node of these that breaks a tie; `None` if none of the configured ones is present."""
        if self._options.tie_breakers:
            return next((nodeid for nodeid in self._options.tie_breakers if nodeid in nodes), None)
        return (max if self._options.auto_tie_breaker_node == "highest" else min)(nodes, key=signed)
