"""The electorate: the votes of the nodes, from the node list in corosync.conf unless the caller gives them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import trio

import triocoro
from triocoro import Endpoint, HasEndpoint

from ._errors import ElectorateError


async def electorate(
    nodes: Mapping[int, int] | Collection[int] | None, endpoint: Endpoint | HasEndpoint | None
) -> Mapping[int, int]:
    """The votes of each node of the electorate.

    Args:
        nodes: votes by node, or nodes with a vote each; by default, those of the node list.
        endpoint: the daemon to ask for it.

    Raises:
        ValueError: a node or its votes is not positive, or there is no node.
        ElectorateError: the daemon has no node list.
    """
    if nodes is None:
        return await _of_nodelist(endpoint)
    await trio.lowlevel.checkpoint()
    return checked(nodes)


def checked(nodes: Mapping[int, int] | Collection[int]) -> Mapping[int, int]:
    """The votes of each node that the caller gives, or `ValueError`."""
    votes: dict[int, int] = {}
    if isinstance(nodes, Mapping):
        votes.update(cast("Mapping[int, int]", nodes))
    else:
        votes.update(dict.fromkeys(nodes, 1))
    given: list[object] = [*votes, *votes.values()]
    if not given or not all(isinstance(it, int) and it > 0 for it in given):
        raise ValueError(
            f"expected the ids of nodes, or a mapping of ids to votes, all of them positive, not {nodes!r}"
        )
    return votes


async def _of_nodelist(endpoint: Endpoint | HasEndpoint | None) -> Mapping[int, int]:
    ids: dict[str, int] = {}
    votes: dict[str, int] = {}
    async with triocoro.open_cmap(endpoint=endpoint) as cmap:
        for key, value in await cmap.items("nodelist.node."):
            _, _, position, name = key.split(".", 3)
            if isinstance(value, int) and name == "nodeid":
                ids[position] = value
            elif isinstance(value, int) and name == "quorum_votes":
                votes[position] = value
    if not ids:
        raise ElectorateError("corosync.conf has no nodelist: pass `nodes`, the same to all members")
    return {nodeid: votes.get(position, 1) for position, nodeid in ids.items()}
