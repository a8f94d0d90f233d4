"""The addresses of a cluster's nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

_MOST: Final = 253
"""The highest number of a node in its subnet."""


@attrs.frozen
class Addresses:
    """One number for each node, which is the last part of its address. Immutable."""

    numbers: Mapping[int, int] = attrs.field(factory=dict[int, int])
    """The numbers by node id."""

    def with_nodes(self, nodeids: Iterable[int]) -> Addresses:
        """The addresses with further nodes, each with its id as number if that is free, else with a free one."""
        numbers = dict(self.numbers)
        free = set(range(1, _MOST + 1)) - set(numbers.values())
        # Nodes that can have their own ids come first, so that no other node takes one of these.
        for nodeid in sorted(nodeids):
            numbers[nodeid] = nodeid if nodeid in free else min(free)
            free.remove(numbers[nodeid])
        return Addresses(numbers)

    def without(self, nodeid: int) -> Addresses:
        """The addresses without those of a node."""
        return Addresses({other: number for other, number in self.numbers.items() if other != nodeid})

    def of(self, nodeid: int) -> str:
        """The address of a node, from TEST-NET-1 (RFC 5737)."""
        return f"192.0.2.{self.numbers[nodeid]}"
