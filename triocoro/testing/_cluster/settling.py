"""Wait until the memberships of a cluster fit its network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

import trio

from ..._cfg import open_cfg
from ..._cpg import open_group
from ..._errors import CorosyncError
from ..._types import VotequorumNodelist
from ..._votequorum import open_votequorum
from .network import Network
from .node import Node

_POLL: Final = 0.05
_CONNECTED: Final = "3"
"""How a `RingStatus` shows a link that is up."""

_numbers = itertools.count(1)


class Watched(Protocol):
    """A cluster, as far as it is watched."""

    @property
    def nodes(self) -> Mapping[int, Node]: ...
    @property
    def network(self) -> Network: ...
    def reachable(self, nodeid: int) -> frozenset[int]: ...


class MembershipWatch:
    """Follows the memberships on all nodes of a cluster."""

    def __init__(self, cluster: Watched, up: Callable[[], frozenset[int]]) -> None:
        self._cluster = cluster
        self._up = up
        self._followed: set[int] = set()
        self._sees: dict[int, frozenset[int]] = {}
        self._links: dict[int, list[str]] = {}
        self._errors: dict[int, CorosyncError] = {}
        self._changes = 0
        self._news = trio.Event()

    async def settled(self, nursery: trio.Nursery) -> None:
        """Wait until the memberships fit the network and each other, and no transition is under way."""
        while not await self._is_settled(nursery):
            await self._wait()

    async def _is_settled(self, nursery: trio.Nursery) -> bool:
        await trio.lowlevel.checkpoint()
        for nodeid in self._up() - self._followed:
            self._followed.add(nodeid)
            nursery.start_soon(self._follow, self._cluster.nodes[nodeid])
        changes = self._changes
        return (
            self._fits()
            and await self._links_fit()
            and await self._gets_around()
            and self._fits()
            and changes == self._changes
        )

    def findings(self) -> Iterator[str]:
        """For each node, the members that it sees and the nodes that it is linked to, in words."""
        for nodeid in sorted(self._up() | self._followed):
            sees = sorted(self._sees[nodeid]) if nodeid in self._sees else "nothing yet"
            links = f"; its links are {self._links[nodeid]}" if nodeid in self._links else ""
            error = f"; asked, it said: {self._errors[nodeid]}" if nodeid in self._errors else ""
            yield f"- node {nodeid} sees {sees}, and hears {sorted(self._cluster.reachable(nodeid))}{links}{error}"

    async def _follow(self, node: Node) -> None:  # noqa: ASYNC910 - it is a task of its own
        """Record the membership on one node at each change, until its daemon ends."""
        try:
            async with open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
                async for change in changes:
                    if isinstance(change, VotequorumNodelist):
                        self._see(node.nodeid, frozenset(change.nodes))
        except CorosyncError as error:
            # The daemon may have been killed, and may come back. The findings have any other error.
            self._errors[node.nodeid] = error
            self._followed.discard(node.nodeid)
            self._see(node.nodeid, None)

    def _see(self, nodeid: int, members: frozenset[int] | None) -> None:
        self._sees.pop(nodeid, None)
        if members is not None:
            self._sees[nodeid] = members
        self._changes += 1
        self._news.set()

    def _fits(self) -> bool:
        network, up = self._cluster.network, self._up()
        sees = {nodeid: self._sees.get(nodeid) for nodeid in up}
        return all(
            members is not None
            and members <= up
            and all(sees[other] == members for other in members)
            and network.holds(members)
            # No other node, and no other membership, could merge with it.
            and not any(network.meet(members | (sees[other] or {other})) for other in up - members)
            for members in sees.values()
        )

    async def _links_fit(self) -> bool:
        """Whether the nodes of each membership report those links between them as up that work.

        Of a single link the membership says enough.
        """
        await trio.lowlevel.checkpoint()
        network = self._cluster.network
        if network.links == 1:
            return True
        nodes = self._cluster.nodes
        nodeids = sorted(nodes)
        for nodeid in self._up():
            try:
                async with open_cfg(endpoint=nodes[nodeid].endpoint) as cfg:
                    links = self._links[nodeid] = [ring.status for ring in await cfg.ring_status()]
            except CorosyncError as error:
                self._errors[nodeid] = error
                return False
            members = self._sees.get(nodeid, frozenset[int]()) - {nodeid}
            if any(
                (state == _CONNECTED) is not network.link_works(nodeid, other, link)
                for link, states in enumerate(links)
                for other, state in zip(nodeids, states, strict=False)
                if other in members
            ):
                return False
        return True

    async def _gets_around(self) -> bool:
        """Whether a message from each node is delivered.

        None is while totem forms a new ring, which no node list announces before it is complete. And from the node list
        to the end of the transition, the services serve no requests.
        """
        up, arrived = self._up(), set[int]()
        async with trio.open_nursery() as nursery:
            for nodeid in up:
                nursery.start_soon(self._send_around, self._cluster.nodes[nodeid], arrived)
            while len(arrived) < len(up) and up == self._up() and self._fits():
                await self._wait()
            nursery.cancel_scope.cancel()
        return len(arrived) == len(up)

    async def _send_around(  # noqa: ASYNC910 - it is a task of its own
        self, node: Node, arrived: set[int]
    ) -> None:
        while node.nodeid not in arrived:
            try:
                # The join returns once it has been delivered in agreed order.
                async with open_group(f"triocoro settled {next(_numbers)}", receive=False, endpoint=node.endpoint):
                    pass
            except CorosyncError as error:
                self._errors[node.nodeid] = error
                await trio.sleep(_POLL)
            else:
                self._errors.pop(node.nodeid, None)
                arrived.add(node.nodeid)
                self._news.set()

    async def _wait(self) -> None:
        """Wait for a change; not for long, since no event reports changes of the network and of nodes."""
        with trio.move_on_after(_POLL):
            await self._news.wait()
            self._news = trio.Event()
