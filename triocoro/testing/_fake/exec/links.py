"""The links between nodes as the transport reports them: exec/totemknet.c, exec/totemudpu.c, exec/totemudp.c."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import attrs

from ...._enums import CmapType
from ...._types import LinkStatus, TypedValue
from .coroparse import addresses
from .icmap import Icmap
from .voteconfig import number, text

_OWN_MTU: Final = 65535
"""The MTU that knet reports of a node's link to itself."""
_UDP_MTU: Final = 1410
"""Corosync's default for the other transports."""

_ETHERNET: Final = 1500
_UDP_HEADER: Final = 8
_IP_HEADERS: Final = {4: 20, 6: 40}
_KNET_HEADER: Final = 26
_BLOCK: Final = 16
"""The size in bytes of a cipher's blocks, and of the salt in front of them."""
_HASHES: Final = {"none": 0, "md5": 16, "sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
"""The sizes of hashes in bytes."""

_MULTICAST_PORT: Final = 5405
_PONGS: Final = 2
"""Corosync's default of knet_pong_count."""


@attrs.frozen
class Links:
    """The links of one node, from the keys of its daemon's map."""

    nodeid: int
    _icmap: Icmap

    @property
    def on_knet(self) -> bool:
        """Whether the transport is knet, which alone keeps track of links."""
        return text(self._icmap, "totem.transport") not in {"udp", "udpu"}

    def nodes(self) -> dict[int, dict[int, str]]:
        """The nodes of the node list, by id, each with its addresses by link."""
        return addresses(self._icmap)

    def to(self, nodeid: int) -> dict[int, str]:
        """The addresses of a node by link, empty for an unknown one. To its own node knet has one link only."""
        links = self.nodes().get(nodeid, {})
        return {0: links[0]} if nodeid == self.nodeid and self.on_knet else links

    def status(self, nodeid: int, number: int, *, connected: bool) -> LinkStatus:
        """The status of a link to a node."""
        status = partial(
            LinkStatus, number, enabled=True, connected=connected, dynconnected=False, mtu=self.mtu(nodeid, number)
        )
        nodes = self.nodes()
        if not self.on_knet:
            return status(source="", destination=nodes[nodeid][number])
        return status(source=_scoped(nodes[self.nodeid][number]), destination=_scoped(nodes[nodeid][number]))

    def mtu(self, nodeid: int, number: int) -> int:
        """The number of bytes that fit into a packet to a node."""
        if not self.on_knet:
            return _UDP_MTU
        if nodeid == self.nodeid:
            return _OWN_MTU
        version = 6 if ":" in self.nodes()[nodeid][number] else 4
        room = _ETHERNET - _IP_HEADERS[version] - _UDP_HEADER
        room -= _HASHES[text(self._icmap, "totem.crypto_hash") or "none"]
        if text(self._icmap, "totem.crypto_cipher") not in {"", "none"}:
            # The salt, then whole blocks, of which at least one byte is padding.
            room = (room - _BLOCK) // _BLOCK * _BLOCK - 1
        return room - _KNET_HEADER


def _scoped(address: str) -> str:
    # Corosync gives all IPv6 addresses this scope.
    return f"{address}%2" if ":" in address else address


def ping_keys(configured: Icmap, *, token: int) -> Iterator[tuple[str, TypedValue]]:
    """The runtime keys of the links' ping settings. With transports other than knet they exist, and have no effect."""
    links = next(iter(addresses(configured).values()))
    for link in links:
        prefix = f"totem.interface.{link}.knet_"
        pongs = number(configured, f"{prefix}pong_count", default=_PONGS)
        for name, default in (("ping_timeout", token // pongs), ("ping_interval", token // pongs // 2)):
            value = number(configured, prefix + name, default=default)
            yield f"runtime.config.{prefix}{name}", TypedValue(CmapType.UINT32, value)


def multicast_keys(configured: Icmap) -> Iterator[tuple[str, TypedValue]]:
    """The keys that a daemon with the transport udp adds to its map: where it sends packets to."""
    if text(configured, "totem.transport") != "udp":
        return
    cluster = 0
    for byte in text(configured, "totem.cluster_name").encode():
        cluster = (2 * cluster + byte) % 2**16
    is_ipv6 = text(configured, "totem.ip_version") == "ipv6"
    address = f"ff15::{cluster:x}" if is_ipv6 else f"239.192.{cluster >> 8}.{cluster % 255}"
    yield "totem.interface.0.mcastaddr", TypedValue(CmapType.STRING, address)
    yield "totem.interface.0.mcastport", TypedValue(CmapType.UINT16, _MULTICAST_PORT)
