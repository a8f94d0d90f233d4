"""Reading votequorum's configuration from the node's map: the first part of votequorum_readconfig."""

from __future__ import annotations

from enum import IntEnum

import attrs

from ...._enums import CmapType
from .icmap import Icmap


class TieBreaker(IntEnum):
    """Which half of a cluster stays quorate when it splits in two (`ATB_*`)."""

    NONE = 0
    LOWEST = 1
    HIGHEST = 2
    LIST = 3


@attrs.frozen(kw_only=True)
class VoteConfig:
    """The configured values, not checked against each other."""

    two_node: bool
    wait_for_all: bool | None
    last_man_standing: bool
    last_man_standing_window: int
    tie_breaker: TieBreaker
    tie_breakers: tuple[int, ...]
    allow_downscale: bool
    expected_votes: int
    """0 if it is left to the node list."""
    own_votes: int
    all_votes: int
    nodes: int
    device: bool
    device_votes: int | None
    device_timeout: int
    device_sync_timeout: int


def read(icmap: Icmap, nodeid: int) -> VoteConfig:
    """Read the configuration of a node."""
    nodes = _nodes(icmap)
    tie_breaker, tie_breakers = _tie_breaker(icmap)
    device = bool(text(icmap, "quorum.device.model"))
    device_votes = icmap.get("quorum.device.votes")
    return VoteConfig(
        two_node=bool(number(icmap, "quorum.two_node", CmapType.UINT8)),
        wait_for_all=(
            None
            if icmap.get("quorum.wait_for_all") is None
            else bool(number(icmap, "quorum.wait_for_all", CmapType.UINT8))
        ),
        last_man_standing=bool(number(icmap, "quorum.last_man_standing", CmapType.UINT8)),
        last_man_standing_window=number(icmap, "quorum.last_man_standing_window", default=10_000),
        tie_breaker=tie_breaker,
        tie_breakers=tie_breakers,
        allow_downscale=bool(number(icmap, "quorum.allow_downscale", CmapType.UINT8)),
        expected_votes=number(icmap, "quorum.expected_votes"),
        own_votes=nodes[nodeid],
        all_votes=sum(nodes.values()),
        nodes=len(nodes),
        device=device,
        device_votes=number(icmap, "quorum.device.votes") if device and device_votes is not None else None,
        device_timeout=number(icmap, "quorum.device.timeout", default=10_000),
        device_sync_timeout=number(icmap, "quorum.device.sync_timeout", default=30_000),
    )


def number(icmap: Icmap, key: str, kind: CmapType = CmapType.UINT32, default: int = 0) -> int:
    """The number at a key; the default if the key does not exist or has another type."""
    found = icmap.get(key)
    return found.value if found is not None and found.type is kind and isinstance(found.value, int) else default


def text(icmap: Icmap, key: str) -> str:
    """The string at a key; empty if there is none."""
    found = icmap.get(key)
    return found.value if found is not None and isinstance(found.value, str) else ""


def _nodes(icmap: Icmap) -> dict[int, int]:
    """The votes of all nodes, by node id."""
    positions = {key.split(".")[2] for key, _ in icmap.items("nodelist.node.")}
    return {
        number(icmap, f"nodelist.node.{position}.nodeid"): number(
            icmap, f"nodelist.node.{position}.quorum_votes", default=1
        )
        for position in positions
    }


def _tie_breaker(icmap: Icmap) -> tuple[TieBreaker, tuple[int, ...]]:
    if not number(icmap, "quorum.auto_tie_breaker", CmapType.UINT8):
        return TieBreaker.NONE, ()
    words = text(icmap, "quorum.auto_tie_breaker_node")
    if words in {"", "lowest"}:
        return TieBreaker.LOWEST, ()
    if words == "highest":
        return TieBreaker.HIGHEST, ()
    return TieBreaker.LIST, tuple(map(int, words.split()))
