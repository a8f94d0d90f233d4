"""The electorate: the votes of the nodes, from the node list in corosync.conf unless the caller gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import trio

import triocoro
from triocoro import CmapValue, Endpoint, HasEndpoint

from ._errors import ElectorateError
from ._validate import check_name, checked_nodes


async def electorate(
    name: bytes | str, nodes: Mapping[int, int] | Collection[int] | None, endpoint: Endpoint | HasEndpoint | None
) -> Mapping[int, int]:
    """The votes of each node of the electorate.

    Args:
        name: of the group.
        nodes: votes by node, or nodes with a vote each; by default, those of the node list.
        endpoint: the daemon to ask for it.

    Raises:
        TypeError, ValueError: as `check_name` and `checked_nodes`.
        ElectorateError: the daemon has no node list.
    """
    check_name(name)
    if nodes is not None:
        await trio.lowlevel.checkpoint()
        return checked_nodes(nodes)
    ids: dict[str, int] = {}
    votes: dict[str, int] = {}
    for key, value in await cmap_items("nodelist.node.", endpoint):
        _, _, position, name = key.split(".", 3)
        if isinstance(value, int) and name == "nodeid":
            ids[position] = value
        elif isinstance(value, int) and name == "quorum_votes":
            votes[position] = value
    if not ids:
        raise ElectorateError("corosync.conf has no nodelist: pass `nodes`, the same to all members")
    return {nodeid: votes.get(position, 1) for position, nodeid in ids.items()}


async def cmap_items(prefix: str, endpoint: Endpoint | HasEndpoint | None) -> list[tuple[str, CmapValue]]:
    """Read a part of cmap; while there is no daemon, wait for it."""
    async for session in triocoro.sessions(triocoro.open_cmap, endpoint=endpoint):
        async with session as cmap:
            return await cmap.items(prefix)
    raise AssertionError("sessions never end")
