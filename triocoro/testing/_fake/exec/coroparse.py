"""Parsing corosync.conf into the keys of a daemon's map: exec/coroparse.c."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from ...._enums import CmapType
from ...._types import TypedValue
from .icmap import Icmap

_TYPES: Final = {
    CmapType.UINT8: (
        r"quorum\.(two_node|wait_for_all|last_man_standing|auto_tie_breaker|allow_downscale|expected_votes_tracking)"
        r"|quorum\.device\.master_wins|totem\.interface\.\d+\.(ttl|knet_link_priority)"
        r"|uidgid\.config\.[ug]id\.\d+"
    ),
    CmapType.UINT16: r"totem\.interface\.\d+\.mcastport",
    CmapType.UINT32: (
        r"totem\.(version|nodeid|threads|token|token_coefficient|token_retransmit|token_warning|hold|join|send_join"
        r"|token_retransmits_before_loss_const|consensus|merge|downcheck|fail_recv_const|seqno_unchanged_const"
        r"|heartbeat_failures_allowed|max_network_delay|window_size|max_messages|miss_count_const|knet_pmtud_interval"
        r"|knet_mtu|knet_compression_threshold|netmtu)"
        r"|totem\.interface\.\d+\.knet_(ping_\w+|pong_count)"
        r"|nodelist\.node\.\d+\.(nodeid|quorum_votes)"
        r"|quorum\.(expected_votes|votes|last_man_standing_window|leaving_timeout)"
        r"|quorum\.device\.(votes|timeout|sync_timeout)"
        r"|pload\.(count|size)|resources\.watchdog_timeout"
    ),
    CmapType.INT32: r"totem\.knet_compression_level",
    CmapType.UINT64: r"totem\.config_version|resources\.(system|process)\.(memory_used\.)?poll_period",
}
"""The keys that are not strings, by type."""

_RANGES: Final = {
    CmapType.UINT8: (0, 2**8 - 1),
    CmapType.UINT16: (0, 2**16 - 1),
    CmapType.UINT32: (0, 2**32 - 1),
    CmapType.INT32: (-(2**31), 2**31 - 1),
    CmapType.UINT64: (0, 2**64 - 1),
}

_LABELS: Final = {"totem.interface": "linknumber", "logging.logger_subsys": "subsys"}
"""The sections that occur several times, each with the item whose value becomes part of the keys."""


@lru_cache(maxsize=8)
def parse(conf: str) -> Icmap:
    """The contents of a corosync.conf as a map of its own. All nodes share it, so it must not be changed."""
    found = Icmap()
    found.load((path, _typed(path, text)) for path, text in _parse(conf))
    return found


class ConfigurationError(Exception):
    """The reason why a daemon does not start with a corosync.conf."""


def _typed(path: str, text: str) -> TypedValue:
    for type_, paths in _TYPES.items():
        if re.fullmatch(paths, path):
            lowest, highest = _RANGES[type_]
            if re.fullmatch(r"[+-]?\d+", text) and lowest <= int(text) <= highest:
                return TypedValue(type_, int(text))
            raise ConfigurationError(
                f'parser error: Value of key "{path}" is expected to be integer in range ({lowest}..{highest}), but'
                f' "{text}" was given'
            )
    return TypedValue(CmapType.STRING, text)


def _parse(text: str) -> Iterator[tuple[str, str]]:
    """The keys and values of a corosync.conf.

    The keys of a node contain its position in the node list, those of an interface its link number, and those of a
    logger its subsystem.
    """
    sections: list[str] = []
    # The items of the section that is open, if it is one of several with the same name.
    items: dict[str, str] = {}
    nodes = 0
    for line in map(str.strip, text.splitlines()):
        path = ".".join(sections)
        if not line or line.startswith("#"):
            continue
        if line.endswith("{"):
            sections.append(line[:-1].strip())
        elif line == "}":
            sections.pop()
            label = str(nodes)
            if path == "nodelist.node":
                nodes += 1
            elif path in _LABELS:
                # Link 0 is meant where no number is given.
                label = items.get(_LABELS[path], "0")
            items.pop("linknumber", None)
            yield from ((f"{path}.{label}.{key}", value) for key, value in items.items())
            items = {}
        else:
            key, value = (part.strip() for part in line.split(":", 1))
            if path == "nodelist.node" or path in _LABELS:
                items[key] = value
            elif path == "uidgid":
                yield f"uidgid.config.{key}.{value}", "1"
            else:
                yield f"{path}.{key}", value


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
