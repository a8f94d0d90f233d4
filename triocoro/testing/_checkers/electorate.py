"""The arithmetic of votequorum(5), on numbers that may not be known exactly."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .._cluster.options import ClusterOptions
from .._history.entries import Call

_TWO = 2


class Electorate:
    """Who has how many votes, how many are expected, and what follows from that."""

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._device_votes = options.qdevice_votes or 0
        self._votes = {nodeid: {options.votes_of(nodeid)} for nodeid in range(1, options.nodes + 1)}
        """Of each node, all that it may have."""
        self._expected = {options.expected_votes or options.total_votes}
        """All that may be expected, as far as it was configured or set."""
        self._master_wins = False
        self.unknown = False
        """Somebody has changed the configuration, or asked to read it anew."""
        self.waits_for_all = options.two_node if options.wait_for_all is None else options.wait_for_all

    def note(self, call: Call) -> None:
        """Somebody may be about to change something."""
        arguments: Any = call.arguments
        if call.function == "set_votes":
            self._votes.setdefault(arguments["nodeid"], set()).add(arguments["votes"])
        elif call.function == "set_expected":
            self._expected.add(arguments["expected_votes"])
        elif call.function == "qdevice_master_wins":
            self._master_wins = self._master_wins or arguments["allow"]
        elif call.function in {"set", "delete", "increment", "decrement"}:
            self.unknown = self.unknown or arguments["key"].startswith(("quorum.", "nodelist."))
        elif call.function == "reload_config":
            self.unknown = True

    def votes(self, nodes: Collection[int], *, device: bool | None = None) -> tuple[int, int]:
        """The fewest and the most votes that these nodes may have.

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
        """The fewest and the most votes that may be expected."""
        # Whoever sees more votes than it expected expects that many from then on; a device's count as seen.
        most = max(*self._expected, self.votes(self._votes)[1])
        return (1 if self.falls else min(self._expected)), most

    @property
    def is_told(self) -> bool:
        """Whether what is expected is what the daemon tells of; else votes that it sees or gives up count as well."""
        return self._options.qdevice_votes is None and not self.falls

    @property
    def falls(self) -> bool:
        """Whether fewer votes may be expected without a word: of whom was given up, or left in good order."""
        return self._options.last_man_standing or self._options.allow_downscale

    def quorum(self, nodes: Collection[int], fewest: int, total: int, expected: int | None) -> tuple[int, int]:
        """The lowest and the highest quorum that may be, with at least and at most that many votes present."""
        if self._options.two_node and len(nodes) <= _TWO:
            return 1, 1
        least, most = self.expected() if expected is None else (expected, expected)
        return (max(least, fewest) + 2) // 2, (max(most, total) + 2) // 2

    def is_plain(self, nodes: Collection[int]) -> bool:
        """Whether the votes of these nodes never changed, and nothing else has a vote."""
        return self._options.qdevice_votes is None and all(len(self._votes.get(nodeid, ())) == 1 for nodeid in nodes)

    def verdict(self, nodes: Collection[int], expected: int | None) -> bool | None:
        """Whether these nodes are quorate; `None` where that cannot be told from the votes alone."""
        least, most = self.votes(nodes)
        enough = least >= self.quorum(nodes, least, least, expected)[1]
        too_few = most < self.quorum(nodes, most, most, expected)[0]
        if enough:
            fewest, highest = self.expected() if expected is None else (expected, expected)
            everybody = least == most == fewest == highest
            return True if everybody or not self.waits_for_all else None
        if too_few and not self._master_wins and not self._may_be_half(nodes, expected):
            return False
        return None

    def _may_be_half(self, nodes: Collection[int], expected: int | None) -> bool:
        """Whether auto_tie_breaker may have a say."""
        if not self._options.auto_tie_breaker:
            return False
        least, most = self.votes(nodes)
        fewest, highest = self.expected() if expected is None else (expected, expected)
        return least <= highest // 2 and most >= fewest // 2

    def verdict_after(self, before: Collection[int], nodes: Collection[int], *, was_quorate: bool) -> bool | None:
        """Whether nodes are quorate after others have left them; `None` where that cannot be told.

        Args:
            before: the nodes before, these among them.
            nodes: who is left.
            was_quorate: whether they were so before.
        """
        options = self._options
        fewest, highest = self.expected()
        if fewest != highest or not self.is_plain(before):
            return None
        total = self.votes(nodes)[0]
        quorum = self.quorum(nodes, total, total, None)[0]
        if not was_quorate:
            # Nobody becomes quorate by a loss; where one waits for all, not with enough votes either.
            return False if not options.auto_tie_breaker else None
        if total >= quorum:
            return True
        if not options.auto_tie_breaker or total != fewest // 2 or self.votes(before)[0] < quorum:
            return None
        # A half of the votes is enough for the nodes that the tie breaker is with, unless the others may be quorate.
        return len(before) - len(nodes) < quorum and self._tie_breaker(before) in nodes

    def _tie_breaker(self, nodes: Collection[int]) -> int | None:
        """Which of these nodes has the last word; `None` if none of those configured is there."""
        if self._options.tie_breakers:
            return next((nodeid for nodeid in self._options.tie_breakers if nodeid in nodes), None)
        return (max if self._options.auto_tie_breaker_node == "highest" else min)(nodes)
