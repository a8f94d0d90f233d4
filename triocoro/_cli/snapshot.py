"""The state of a cluster as one node sees it: gathered from all services of its daemon."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import attrs

from .._cfg import Cfg, open_cfg
from .._cmap import Cmap, open_cmap
from .._cpg import Cpg, open_cpg
from .._enums import NodeState, QuorumType, VotequorumFlag
from .._errors import FailedOperationError, NotExistError
from .._quorum import Quorum, open_quorum
from .._types import CmapValue, LinkStatus, NodeStatus, QuorumChange, RingId, VotequorumInfo
from .._votequorum import Votequorum, open_votequorum
from .groups import Groups, members_by_group


@attrs.frozen
class NodeSnapshot:
    """A node."""

    nodeid: int
    name: str
    """Its name in the node list; empty if it has none."""
    state: NodeState | None
    """Its state in votequorum; `None` if that has never seen it, or does not run."""
    votes: int | None
    """Its votes; `None` as above."""
    flags: VotequorumFlag
    """Its flags in votequorum, of which those of the quorum device are its own; none as above."""
    reachable: bool
    """Whether any link to it is connected; true for our own node."""
    links: tuple[LinkStatus, ...]
    """The links from our node to it; none for our own."""


@attrs.frozen
class Snapshot:
    """The state of a cluster as the daemon of one node sees it.

    The services are asked one after another, so that a snapshot made while something changes may have the old state in
    one part and the new one in another.
    """

    cluster_name: str
    """Empty if it has none."""
    transport: str
    nodeid: int
    """The id of the daemon's node."""
    provider: str
    """The name of the quorum provider; empty if none is configured."""
    quorate: bool
    ring_id: RingId
    members: tuple[int, ...]
    """The ids of the nodes in the ring."""
    votes: VotequorumInfo | None
    """What votequorum knows; `None` if it is not the provider."""
    nodes: tuple[NodeSnapshot, ...]
    """The nodes of the node list and of the ring, by their ids."""
    groups: Groups
    """The members of each process group."""

    @property
    def local_name(self) -> str:
        """The name of the daemon's node; empty if it has none."""
        return next(node.name for node in self.nodes if node.nodeid == self.nodeid)


@attrs.frozen
class Sources:
    """Connections to all services of a daemon."""

    cmap: Cmap
    cfg: Cfg
    cpg: Cpg
    quorum: Quorum
    votequorum: Votequorum | None
    """`None` if votequorum is not the provider."""

    async def take_snapshot(self) -> Snapshot:
        """Ask for everything."""
        local = await self.cfg.local_nodeid()
        totem = dict(await self.cmap.items("totem."))
        provider = dict(await self.cmap.items("quorum.provider"))
        change = await _quorum_state(self.quorum)
        names = {**dict.fromkeys((local, *change.members), ""), **_names(await self.cmap.items("nodelist.node."))}
        return Snapshot(
            cluster_name=str(totem.get("totem.cluster_name", "")),
            transport=str(totem.get("totem.transport", "")),
            nodeid=local,
            provider=str(provider.get("quorum.provider", "")),
            quorate=change.quorate,
            ring_id=change.ring_id,
            members=change.members,
            votes=await self.votequorum.info() if self.votequorum else None,
            nodes=tuple([await self._take_node(nodeid, names[nodeid], local) for nodeid in sorted(names)]),
            groups=await members_by_group(self.cpg),
        )

    async def _take_node(self, nodeid: int, name: str, local: int) -> NodeSnapshot:
        info: VotequorumInfo | None = None
        status: NodeStatus | None = None
        with suppress(NotExistError):  # votequorum has never seen it
            info = await self.votequorum.info(nodeid) if self.votequorum else None
        if nodeid != local:
            with suppress(FailedOperationError):  # totem does not know it yet, or any more
                status = await self.cfg.node_status(nodeid)
        return NodeSnapshot(
            nodeid=nodeid,
            name=name,
            state=info.state if info else None,
            votes=info.votes if info else None,
            flags=info.flags if info else VotequorumFlag(0),
            reachable=status.reachable if status else nodeid == local,
            links=status.links if status else (),
        )


@asynccontextmanager
async def open_sources() -> AsyncGenerator[Sources, None]:
    """Connect to all services of the default endpoint's daemon for the duration of the block.

    Raises:
        CorosyncError: as the `open_*` functions.
    """
    async with (
        open_cmap() as cmap,
        open_cfg() as cfg,
        open_cpg() as cpg,
        open_quorum() as quorum,
        AsyncExitStack() as stack,
    ):
        votequorum = await stack.enter_async_context(open_votequorum()) if quorum.type is QuorumType.SET else None
        yield Sources(cmap, cfg, cpg, quorum, votequorum)


async def take_snapshot() -> Snapshot:
    """Ask the daemon of the default endpoint for everything.

    Raises:
        CorosyncError: it cannot be asked.
    """
    async with open_sources() as sources:
        return await sources.take_snapshot()


async def _quorum_state(quorum: Quorum) -> QuorumChange:
    async with quorum.track() as changes:
        while True:
            change = await changes.receive()
            if isinstance(change, QuorumChange):
                return change


def _names(nodelist: list[tuple[str, CmapValue]]) -> dict[int, str]:
    """The names of the nodes in the node list, by their ids; empty for a node without one."""
    entries: dict[str, dict[str, CmapValue]] = {}
    for key, value in nodelist:
        _, _, position, field = key.split(".", 3)
        entries.setdefault(position, {})[field] = value
    return {int(entry["nodeid"]): str(entry.get("name", "")) for entry in entries.values() if "nodeid" in entry}
