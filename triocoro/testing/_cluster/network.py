"""Which node hears which."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, cast

import attrs

ALL: Final = 100
"""Per cent."""
_DIGITS: Final = 2
"""Of a loss; a real network knows no finer ones."""


@attrs.frozen
class Network:
    """What is wrong with the network between nodes."""

    nodeids: frozenset[int]
    cut: frozenset[tuple[int, int]] = frozenset()
    """Pairs of nodes: nothing that the first one sends arrives at the second one."""
    loss: Mapping[int, float] = attrs.field(factory=dict[int, float])
    """Per cent of the packets that do not arrive at a node."""

    def partition(self, sides: Iterable[Iterable[int]]) -> Network:
        """The network with these sides, in place of any cut; nodes that are not named stay with the first one."""
        sets = [frozenset(side) for side in sides]
        named = [nodeid for side in sets for nodeid in side]
        if not sets or len(named) != len(set(named)) or not self.nodeids >= set(named):
            raise ValueError(f"the sides must be disjoint sets of the nodes {sorted(self.nodeids)}: {sets}")
        sets[0] |= self.nodeids - set(named)
        return attrs.evolve(
            self, cut=frozenset((a, b) for side in sets for a in side for b in self.nodeids if b not in side)
        )

    def isolate(self, nodeid: int) -> Network:
        """Nothing comes or goes there."""
        self.check(nodeid)
        others = self.nodeids - {nodeid}
        return attrs.evolve(self, cut=self.cut | {(nodeid, b) for b in others} | {(a, nodeid) for a in others})

    def cut_off(self, source: int, target: int) -> Network:
        """Nothing goes from the one to the other."""
        self.check(source, target)
        if source == target:
            raise ValueError(f"node {source} cannot be cut off from itself")
        return attrs.evolve(self, cut=self.cut | {(source, target)})

    def lose(self, percent: float, nodeids: Iterable[int]) -> Network:
        """That much of what these nodes should hear gets lost."""
        nodeids = frozenset(nodeids)
        self.check(*nodeids)
        if not isinstance(cast("object", percent), (int, float)) or not 0 <= percent <= ALL:
            raise ValueError(f"a loss is 0 to {ALL} per cent, not {percent!r}")
        return attrs.evolve(self, loss={**self.loss, **dict.fromkeys(nodeids, round(percent, _DIGITS))})

    def check(self, *nodeids: int) -> None:
        """Complain about a node that is not there."""
        for nodeid in nodeids:
            if nodeid not in self.nodeids:
                raise ValueError(f"no node {nodeid!r} is among {sorted(self.nodeids)}")

    def linked(self, a: int, b: int) -> bool:
        """Whether two nodes hear each other. To Corosync, one that is heard but does not hear is not there."""
        return a == b or (self._arrives(a, b) and self._arrives(b, a))

    def rings(self, up: Iterable[int], stands: Callable[[tuple[int, ...]], bool]) -> Iterator[tuple[int, ...]]:
        """The rings that these nodes come to be in, after what Corosync's daemons did (docs/facts.md).

        Args:
            up: the nodes that take part.
            stands: says whether these nodes are a ring already. One stands for as long as its token gets from each node
                to the next higher one; a new one needs nodes of which each hears all others.
        """
        left = sorted(up)
        while left:
            ring = self._within_reach(left)
            if not (stands(tuple(ring)) and self.holds(ring)):
                ring = self._meeting(ring)
            yield tuple(ring)
            left = [nodeid for nodeid in left if nodeid not in ring]

    def holds(self, members: Iterable[int]) -> bool:
        """Whether the token gets around a ring: from each node to the next higher one, from the last to the first."""
        return all(self.linked(member, successor) for member, successor in _successions(sorted(members)))

    def meet(self, nodeids: Iterable[int]) -> bool:
        """Whether each of these hears all others."""
        nodeids = frozenset(nodeids)
        return all(self.linked(a, b) for a in nodeids for b in nodeids)

    def _meeting(self, nodeids: list[int]) -> list[int]:
        """As many of these as can meet, without those who cannot pass on the token."""
        ring = list(nodeids)
        while not self.meet(ring):
            stuck = (member for member, successor in _successions(ring) if not self.linked(member, successor))
            deaf = (member for member in ring if not all(self.linked(member, other) for other in ring))
            ring.remove(next(itertools.chain(stuck, deaf)))
        for nodeid in nodeids:
            if nodeid not in ring and self.meet([*ring, nodeid]):
                ring.append(nodeid)
        return sorted(ring)

    def _within_reach(self, nodeids: list[int]) -> list[int]:
        """The first of these, and all that it can reach, by way of others too."""
        reached, fresh = set[int](), {nodeids[0]}
        while fresh:
            reached |= fresh
            fresh = {nodeid for nodeid in nodeids if any(self.linked(near, nodeid) for near in fresh)} - reached
        return sorted(reached)

    def _arrives(self, source: int, target: int) -> bool:
        return (source, target) not in self.cut and self.loss.get(target, 0) < ALL


def _successions(ring: list[int]) -> Iterator[tuple[int, int]]:
    return zip(ring, [*ring[1:], *ring[:1]], strict=True)
