"""The state of a cluster as one node sees it: gathered from all services of its daemon."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import attrs

from .._cfg import Cfg, open_cfg
from .._cmap import open_cmap
from .._cpg import open_cpg
from .._enums import NodeState, QuorumType
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


async def take_snapshot() -> Snapshot:
    """Ask the daemon of the default endpoint.

    Raises:
        CorosyncError: it cannot be asked.
    """
    async with (
        open_cmap() as cmap,
        open_cfg() as cfg,
        open_cpg() as cpg,
        open_quorum() as quorum,
        AsyncExitStack() as stack,
    ):
        nodeid = await cfg.local_nodeid()
        totem = dict(await cmap.items("totem."))
        provider = dict(await cmap.items("quorum.provider"))
        votequorum = await stack.enter_async_context(open_votequorum()) if quorum.type is QuorumType.SET else None
        change = await _quorum_state(quorum)
        names = {**dict.fromkeys((nodeid, *change.members), ""), **_names(await cmap.items("nodelist.node."))}
        return Snapshot(
            cluster_name=str(totem.get("totem.cluster_name", "")),
            transport=str(totem.get("totem.transport", "")),
            nodeid=nodeid,
            provider=str(provider.get("quorum.provider", "")),
            quorate=change.quorate,
            ring_id=change.ring_id,
            members=change.members,
            votes=await votequorum.info() if votequorum else None,
            nodes=tuple([await _take_node(number, names[number], nodeid, cfg, votequorum) for number in sorted(names)]),
            groups=await members_by_group(cpg),
        )


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


async def _take_node(nodeid: int, name: str, local: int, cfg: Cfg, votequorum: Votequorum | None) -> NodeSnapshot:
    info: VotequorumInfo | None = None
    status: NodeStatus | None = None
    with suppress(NotExistError):  # votequorum has never seen it
        info = await votequorum.info(nodeid) if votequorum else None
    if nodeid != local:
        with suppress(FailedOperationError):  # totem does not know it yet, or any more
            status = await cfg.node_status(nodeid)
    return NodeSnapshot(
        nodeid=nodeid,
        name=name,
        state=info.state if info else None,
        votes=info.votes if info else None,
        reachable=status.reachable if status else nodeid == local,
        links=status.links if status else (),
    )
