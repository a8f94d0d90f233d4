"""libquorum as a `RawQuorum`."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import trio

from .._enums import QuorumType, Track
from .._types import NodelistChange, QuorumChange, QuorumEvent, RingId
from . import _arena
from ._handle import CorosyncHandle
from ._libraries import QUORUM
from ._namespaces import Namespaces
from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena, LibraryConnection

_QUORATE = lib.TC_QUORATE
_LISTS = struct.Struct("=QII")


def _nodelist(members_count: int, ring_nodeid: int, blob: bytes) -> NodelistChange:
    seq, left_count, _ = _LISTS.unpack_from(blob)
    nodes = tuple(memoryview(blob)[_LISTS.size :].cast("I"))
    joined_from = members_count + left_count
    return NodelistChange(
        ring_id=RingId(ring_nodeid, seq),
        members=nodes[:members_count],
        joined=nodes[joined_from:],
        left=nodes[members_count:joined_from],
    )


@final
class CorosyncQuorum(CorosyncHandle[QuorumEvent]):
    """A handle of libquorum."""

    library = QUORUM
    dispatch_function = "quorum_dispatch"

    def __init__(self, connection: LibraryConnection, lane: trio.CapacityLimiter, namespaces: Namespaces) -> None:
        super().__init__(connection, lane, namespaces)
        self._type = QuorumType(connection.quorum_type)

    @property
    def type(self) -> QuorumType:
        return self._type

    def _decode(self, arena: Arena) -> Sequence[QuorumEvent]:
        events: list[QuorumEvent] = []
        data = ffi.buffer(arena.data, arena.used)
        for kind, value, ring_nodeid, offset, length in _arena.records(arena):
            blob = data[offset : offset + length]
            if kind == _QUORATE:
                seq, members = _arena.ring(blob)
                events.append(QuorumChange(bool(value), RingId(ring_nodeid, seq), members))
            else:
                events.append(_nodelist(value, ring_nodeid, blob))
        return events

    async def is_quorate(self) -> bool:
        quorate = ffi.new("int *")
        await self._request("quorum_getquorate", lambda: lib.quorum_getquorate(self._handle, quorate))
        return bool(quorate[0])

    async def trackstart(self, flags: Track) -> None:
        await self._request("quorum_trackstart", lambda: lib.quorum_trackstart(self._handle, flags))

    async def trackstop(self) -> None:
        await self._request("quorum_trackstop", lambda: lib.quorum_trackstop(self._handle))
