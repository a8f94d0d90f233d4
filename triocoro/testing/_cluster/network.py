"""Cuts and packet loss between nodes, and the rings that they allow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, cast

import attrs

ALL: Final = 100
"""The loss of every packet, in per cent."""
_DIGITS: Final = 2
"""Decimals of a loss in per cent; the packet filter of real nodes is no finer."""


@attrs.frozen
class Network:
    """The network between nodes: the links that are cut, and the packet loss. Immutable."""

    nodeids: frozenset[int]
    """The ids of all nodes."""
    links: int = 1
    """The number of links between the nodes."""
    cut: frozenset[tuple[int, int]] = frozenset()
    """Pairs (source, target): nothing that the source sends arrives at the target."""
    cut_links: frozenset[tuple[int, int, int]] = frozenset()
    """Triples (source, target, link): nothing that the source sends on that link arrives at the target."""
    loss: Mapping[int, float] = attrs.field(factory=dict[int, float])
    """The packets that do not arrive at a node, in per cent, by node."""

    def partition(self, sides: Iterable[Iterable[int]]) -> Network:
        """The network with cuts between these sides only; nodes that are not named belong to the first side."""
        sets = [frozenset(side) for side in sides]
        named = [nodeid for side in sets for nodeid in side]
        if not sets or len(named) != len(set(named)) or not self.nodeids >= set(named):
            raise ValueError(f"the sides must be disjoint sets of the nodes {sorted(self.nodeids)}: {sets}")
        sets[0] |= self.nodeids - set(named)
        return attrs.evolve(
            self,
            cut=frozenset((a, b) for side in sets for a in side for b in self.nodeids if b not in side),
            cut_links=frozenset(),
        )

    def isolate(self, nodeid: int) -> Network:
        """The network with this node cut off from all others, in both directions."""
        self.check(nodeid)
        others = self.nodeids - {nodeid}
        return attrs.evolve(self, cut=self.cut | {(nodeid, b) for b in others} | {(a, nodeid) for a in others})

    def cut_off(self, source: int, target: int, link: int | None = None) -> Network:
        """The network with the way from `source` to `target` cut, on one link or on all."""
        self.check(source, target)
        if source == target:
            raise ValueError(f"node {source} cannot be cut off from itself")
        if link is None:
            return attrs.evolve(self, cut=self.cut | {(source, target)})
        if link not in range(self.links):
            raise ValueError(f"no link {link!r} is among 0 to {self.links - 1}")
        return attrs.evolve(self, cut_links=self.cut_links | {(source, target, link)})

    def lose(self, percent: float, nodeids: Iterable[int]) -> Network:
        """The network with this loss at these nodes."""
        nodeids = frozenset(nodeids)
        self.check(*nodeids)
        if not isinstance(cast("object", percent), (int, float)) or not 0 <= percent <= ALL:
            raise ValueError(f"a loss is 0 to {ALL} per cent, not {percent!r}")
        return attrs.evolve(self, loss={**self.loss, **dict.fromkeys(nodeids, round(percent, _DIGITS))})

    def of(self, nodeids: Iterable[int]) -> Network:
        """The network between these nodes; new ones have no cuts and no loss."""
        known = frozenset(nodeids)
        return Network(
            known,
            self.links,
            frozenset(pair for pair in self.cut if known.issuperset(pair)),
            frozenset(triple for triple in self.cut_links if known.issuperset(triple[:2])),
            {nodeid: percent for nodeid, percent in self.loss.items() if nodeid in known},
        )

    def healed(self) -> Network:
        """The network without any cut or loss."""
        return Network(self.nodeids, self.links)

    def check(self, *nodeids: int) -> None:
        """Raise `ValueError` for an unknown node."""
        for nodeid in nodeids:
            if nodeid not in self.nodeids:
                raise ValueError(f"no node {nodeid!r} is among {sorted(self.nodeids)}")

    def linked(self, a: int, b: int) -> bool:
        """Whether some link between two nodes works."""
        return a == b or any(self.link_works(a, b, link) for link in range(self.links))

    def link_works(self, a: int, b: int, link: int) -> bool:
        """Whether packets arrive in both directions. Corosync treats a link that works in one direction as down."""
        return self._arrives(a, b, link) and self._arrives(b, a, link)

    def rings(self, up: Iterable[int], stands: Callable[[tuple[int, ...]], bool]) -> Iterator[tuple[int, ...]]:
        """The rings that these nodes form, as observed on Corosync's daemons (docs/facts.md).

        Args:
            up: the nodes that take part.
            stands: tells whether these nodes form a ring already. An existing ring lasts as long as the token gets from
                each node to the next higher one; a new one forms only among nodes that are all linked to each other.
        """
        left = sorted(up)
        while left:
            ring = self._within_reach(left)
            if not (stands(tuple(ring)) and self.holds(ring)):
                ring = self._meeting(ring)
            yield tuple(ring)
            left = [nodeid for nodeid in left if nodeid not in ring]

    def holds(self, members: Iterable[int]) -> bool:
        """Whether the token gets around this ring: from each node to the next higher one, and from the last back."""
        return all(self.linked(member, successor) for member, successor in _successions(sorted(members)))

    def meet(self, nodeids: Iterable[int]) -> bool:
        """Whether all of these nodes are linked to each other."""
        nodeids = frozenset(nodeids)
        return all(self.linked(a, b) for a in nodeids for b in nodeids)

    def _meeting(self, nodeids: list[int]) -> list[int]:
        """As many of these nodes as are all linked to each other; those that cannot pass on the token go first."""
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
        """The first of these nodes and all that it can reach, directly or through others."""
        reached, fresh = set[int](), {nodeids[0]}
        while fresh:
            reached |= fresh
            fresh = {nodeid for nodeid in nodeids if any(self.linked(near, nodeid) for near in fresh)} - reached
        return sorted(reached)

    def is_cut(self, source: int, target: int, link: int) -> bool:
        """Whether the way from `source` to `target` is cut on a link."""
        return (source, target) in self.cut or (source, target, link) in self.cut_links

    def _arrives(self, source: int, target: int, link: int) -> bool:
        return not self.is_cut(source, target, link) and self.loss.get(target, 0) < ALL


def _successions(ring: list[int]) -> Iterator[tuple[int, int]]:
    return zip(ring, [*ring[1:], *ring[:1]], strict=True)
