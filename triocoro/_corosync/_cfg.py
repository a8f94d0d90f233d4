"""libcfg as a `RawCfg`."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, final

import trio

from .._enums import CsError, ShutdownFlag
from .._types import IPAddress, LinkStatus, NodeStatus, RingStatus
from . import _arena
from ._handle import CorosyncHandle, retry_briefly
from ._libraries import CFG, failure
from ._namespaces import Namespaces
from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena, CfgNodeStatus, CharPointer, LibraryConnection

_FLAGS: Final = {int(flag): flag for flag in ShutdownFlag}
_FAMILY: Final = struct.Struct("=H")
_IN_ADDR: Final = slice(4, 8)
_IN6_ADDR: Final = slice(8, 24)
MAX_LINKS: Final = 8


def _text(pointer: CharPointer) -> str:
    return ffi.string(pointer).decode(errors="replace")


def _address(sockaddr: bytes) -> IPAddress | None:
    (family,) = _FAMILY.unpack_from(sockaddr)
    if family == socket.AF_INET:
        return IPv4Address(sockaddr[_IN_ADDR])
    if family == socket.AF_INET6:
        return IPv6Address(sockaddr[_IN6_ADDR])
    return None  # the library's entry for a link that the node lacks


def _links(status: CfgNodeStatus) -> Iterator[LinkStatus]:
    for number in range(MAX_LINKS):
        link = status.link_status[number]
        source, destination = _text(link.src_ipaddr), _text(link.dst_ipaddr)
        if not destination:
            # The transports udp and udpu give the address of the node in the place of ours.
            source, destination = destination, source
        if link.enabled or source or destination:
            yield LinkStatus(
                number=number,
                enabled=bool(link.enabled),
                connected=bool(link.connected),
                dynconnected=bool(link.dynconnected),
                mtu=link.mtu,
                source=source,
                destination=destination,
            )


@final
class CorosyncCfg(CorosyncHandle[ShutdownFlag]):
    """A handle of libcfg."""

    library = CFG
    dispatch_function = "corosync_cfg_dispatch"

    def __init__(self, connection: LibraryConnection, lane: trio.CapacityLimiter, namespaces: Namespaces) -> None:
        super().__init__(connection, lane, namespaces)
        self._replied = False

    def _decode(self, arena: Arena) -> Sequence[ShutdownFlag]:
        # The daemon forwards any number that a client sends, and treats unknown ones as REQUEST.
        return [_FLAGS.get(flags, ShutdownFlag.REQUEST) for _, flags, _, _, _ in _arena.records(arena)]

    # --- nodes ---

    async def local_nodeid(self) -> int:
        return await self._trip(self._local_nodeid)

    def _local_nodeid(self) -> int:
        nodeid = ffi.new("unsigned int *")
        code = lib.corosync_cfg_local_get(self._handle, nodeid)
        if code != CsError.OK:
            raise failure(code, "corosync_cfg_local_get")
        return nodeid[0]

    async def node_status(self, nodeid: int) -> NodeStatus:
        return await self._trip(lambda: self._node_status(nodeid))

    def _node_status(self, nodeid: int) -> NodeStatus:
        status = ffi.new("tc_cfg_node_status_t *")
        code = lib.corosync_cfg_node_status_get(self._handle, nodeid, lib.TC_CFG_NODE_STATUS_V1, status)
        if code != CsError.OK:
            raise failure(code, "corosync_cfg_node_status_get")
        return NodeStatus(
            nodeid=status.nodeid,
            reachable=bool(status.reachable),
            remote=bool(status.remote),
            external=bool(status.external),
            onwire_min=status.onwire_min,
            onwire_max=status.onwire_max,
            onwire_version=status.onwire_ver,
            links=tuple(_links(status)),
        )

    async def ring_status(self) -> tuple[RingStatus, ...]:
        return await self._trip(self._ring_status)

    def _ring_status(self) -> tuple[RingStatus, ...]:
        arena = _arena.borrow()
        try:
            code = lib.tc_cfg_ring_status(self._handle, arena)
            if code != CsError.OK:
                raise failure(code, "corosync_cfg_ring_status_get")
            data = ffi.buffer(arena.data, arena.used)
            return tuple(
                RingStatus(
                    name=data[offset : offset + name_length].decode(errors="replace"),
                    status=data[offset + name_length : offset + length].decode(errors="replace"),
                )
                for _, _, name_length, offset, length in _arena.records(arena)
            )
        finally:
            _arena.give_back(arena)

    async def node_addresses(self, nodeid: int) -> tuple[IPAddress, ...]:
        return await self._trip(lambda: self._node_addresses(nodeid))

    def _node_addresses(self, nodeid: int) -> tuple[IPAddress, ...]:
        addresses = ffi.new("tc_cfg_node_address_t[]", MAX_LINKS)
        count = ffi.new("int *")
        code = lib.tc_cfg_get_node_addrs(self._handle, nodeid, MAX_LINKS, count, addresses)
        if code != CsError.OK:
            raise failure(code, "corosync_cfg_get_node_addrs")
        if count[0] > 1:
            # The daemon tells the family of the first address only, and the library takes all to be of that one.
            return tuple(ip_address(text.partition("%")[0]) for text in self._written_addresses(nodeid))
        found = (_address(ffi.buffer(addresses[i].address, 28)[:]) for i in range(count[0]))
        return tuple(address for address in found if address is not None)

    def _written_addresses(self, nodeid: int) -> Iterator[str]:
        """The addresses of a node as text, by link."""
        if nodeid in {0, self._local_nodeid()}:
            # To knet, our own node has one link only.
            yield from (ring.name.partition(" ")[2] for ring in self._ring_status())
        else:
            yield from (link.destination for link in self._node_status(nodeid).links)

    # --- the daemon ---

    async def reload_config(self) -> None:
        await self._request("corosync_cfg_reload_config", lambda: lib.corosync_cfg_reload_config(self._handle))

    async def reopen_log_files(self) -> None:
        await self._request("corosync_cfg_reopen_log_files", lambda: lib.corosync_cfg_reopen_log_files(self._handle))

    async def kill_node(self, nodeid: int, reason: str) -> None:
        text = reason.encode()
        await self._request(
            "corosync_cfg_kill_node", lambda: lib.tc_cfg_kill_node(self._handle, self._fd, nodeid, text)
        )

    # --- shutting down ---

    async def try_shutdown(self, flags: ShutdownFlag) -> None:
        await self._request("corosync_cfg_try_shutdown", lambda: lib.corosync_cfg_try_shutdown(self._handle, flags))

    async def trackstart(self) -> None:
        await self._request("corosync_cfg_trackstart", lambda: lib.corosync_cfg_trackstart(self._handle, 0))

    async def trackstop(self) -> None:
        await self._request("corosync_cfg_trackstop", lambda: lib.corosync_cfg_trackstop(self._handle))

    async def reply_to_shutdown(self, accept: bool) -> None:  # noqa: FBT001 - as in C
        await self._request("corosync_cfg_replyto_shutdown", lambda: self._reply(accept=accept))

    def _reply(self, *, accept: bool) -> int:
        self._replied = True
        return lib.corosync_cfg_replyto_shutdown(self._handle, accept)

    # --- closing ---

    def _finalize(self, *, leave: bool) -> None:
        if self._replied:
            if not self.hangs_up:
                # The daemon would not notice that we are gone, and would go on to ask us about shutdowns.
                retry_briefly(lambda: lib.corosync_cfg_trackstop(self._handle))
            lib.tc_cfg_finalize_replied(self._handle, self._fd)
        else:
            super()._finalize(leave=leave)
