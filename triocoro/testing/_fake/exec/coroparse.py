"""Parsing corosync.conf into the keys of a daemon's map: exec/coroparse.c."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ...._enums import CmapType
from ...._types import TypedValue
from ..._cluster.corosync_conf import corosync_conf
from ..._cluster.options import ClusterOptions
from .icmap import Icmap

CLUSTER_NAME: Final = "triocoro"
"""The name of every fake cluster; they never meet, so one name is enough."""

# The keys that are not strings, by type.
_FLAGS: Final = (
    r"quorum\.(two_node|wait_for_all|last_man_standing|auto_tie_breaker|allow_downscale|device\.master_wins)"
)
_NUMBERS: Final = (
    r"totem\.(version|token|token_coefficient|consensus|join|interface\.\d+\.knet_\w+)"
    r"|nodelist\.node\.\d+\.(nodeid|quorum_votes)"
    r"|quorum\.(expected_votes|last_man_standing_window|device\.(votes|timeout|sync_timeout))"
)


@lru_cache(maxsize=8)
def configuration(options: ClusterOptions) -> Icmap:
    """The contents of corosync.conf as a map of its own. All nodes share it, so it must not be changed."""
    found = Icmap()
    found.load((path, _typed(path, text)) for path, text in _parse(corosync_conf(options, CLUSTER_NAME)))
    return found


def _typed(path: str, text: str) -> TypedValue:
    if re.fullmatch(_FLAGS, path):
        return TypedValue(CmapType.UINT8, int(text))
    if re.fullmatch(_NUMBERS, path):
        return TypedValue(CmapType.UINT32, int(text))
    return TypedValue(CmapType.STRING, text)


def _parse(text: str) -> Iterator[tuple[str, str]]:
    """The keys and values of a corosync.conf.

    The keys of a node contain its position in the node list, and those of an interface its link number.
    """
    sections: list[str] = []
    nodes = -1
    for line in map(str.strip, text.splitlines()):
        key, colon, value = line.partition(":")
        if colon:
            path = ".".join([*sections, key])
            if path.endswith(".linknumber"):
                sections.append(value.strip())
            else:
                yield path, value.strip()
        elif line.endswith("{"):
            sections.append(line[:-1].strip())
            if sections == ["nodelist", "node"]:
                nodes += 1
                sections.append(str(nodes))
        elif line == "}" and sections.pop().isdigit():
            sections.pop()


def own_position(icmap: Icmap, nodeid: int) -> int:
    """The position of a node in the node list."""
    keys = (key for key, typed in icmap.items("nodelist.node.") if key.endswith(".nodeid") and typed.value == nodeid)
    return int(next(keys).split(".")[2])


def addresses(icmap: Icmap) -> dict[int, dict[int, str]]:
    """The nodes of the node list, by id, each with its addresses by link."""
    nodes: dict[str, dict[str, str]] = {}
    for key, value in icmap.items("nodelist.node."):
        position, name = key.removeprefix("nodelist.node.").split(".")
        nodes.setdefault(position, {})[name] = str(value.value)
    return {
        int(node["nodeid"]): {
            int(name[len("ring") : -len("_addr")]): value
            for name, value in node.items()
            if re.fullmatch(r"ring\d_addr", name)
        }
        for node in nodes.values()
    }


def ping_settings(icmap: Icmap) -> Iterator[tuple[str, TypedValue]]:
    """The runtime keys of the links' ping settings, which never change."""
    for key, typed in icmap.items("totem.interface."):
        if ".knet_ping_" in key:
            yield f"runtime.config.{key}", typed
