"""The addresses of a cluster's nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import attrs

_IPV4: Final = 4
_MOST: Final = 253
"""The highest number of a node in its subnets."""


@attrs.frozen
class Addresses:
    """One subnet for each link, and in all of them one number for each node. Immutable."""

    ip_versions: tuple[int, ...]
    """The IP version of each link: 4 or 6."""
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
        return attrs.evolve(self, numbers=numbers)

    def without(self, nodeid: int) -> Addresses:
        """The addresses without those of a node."""
        return attrs.evolve(self, numbers={other: n for other, n in self.numbers.items() if other != nodeid})

    def of(self, nodeid: int) -> tuple[str, ...]:
        """The addresses of a node by link, from the ranges for documentation and benchmarks (RFCs 5737, 2544, 3849)."""
        number = self.numbers[nodeid]
        return tuple(
            f"{_ipv4_subnet(link)}.{number}" if version == _IPV4 else f"2001:db8:{link + 1}::{number:x}"
            for link, version in enumerate(self.ip_versions)
        )

    def interfaces(self, nodeid: int) -> list[str]:
        """The addresses of a node by link, each with the length of its prefix."""
        return [f"{address}/{64 if ':' in address else 24}" for address in self.of(nodeid)]


def _ipv4_subnet(link: int) -> str:
    return f"198.18.{link}" if link else "192.0.2"
