"""libvotequorum as a `RawVotequorum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from .._types import (
    ExpectedVotesChange,
    NodeState,
    RingId,
    Track,
    VotequorumChange,
    VotequorumEvent,
    VotequorumFlag,
    VotequorumInfo,
    VotequorumNode,
    VotequorumNodelist,
)
from . import _arena
from ._handle import Handle
from ._libraries import VOTEQUORUM
from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena, Connection

_QUORUM = lib.TC_QUORUM
_NODELIST = lib.TC_NODELIST
_STATES = {int(state): state for state in NodeState}


def _state(number: int) -> NodeState:
    # Events must not be lost over a state that we do not know: a node that is in doubt does not count.
    return _STATES.get(number, NodeState.DEAD)


def _change(quorate: int, blob: bytes) -> VotequorumChange:
    words = memoryview(blob).cast("I").tolist()
    nodes = zip(words[::2], words[1::2], strict=True)
    return VotequorumChange(bool(quorate), tuple(VotequorumNode(nodeid, _state(state)) for nodeid, state in nodes))


@final
class VotequorumHandle(Handle[VotequorumEvent]):
    """A handle of libvotequorum."""

    dispatch_function = "votequorum_dispatch"

    # --- dispatch ---

    def _dispatch(self, arena: Arena, max_events: int, max_bytes: int) -> int:
        return lib.tc_votequorum_dispatch(self._handle, arena, max_events, max_bytes)

    def _decode(self, arena: Arena) -> Sequence[VotequorumEvent]:
        events: list[VotequorumEvent] = []
        data = ffi.buffer(arena.data, arena.used)
        for kind, n, who, at, length in _arena.records(arena):
            if kind == _QUORUM:
                events.append(_change(n, data[at : at + length]))
            elif kind == _NODELIST:
                seq, nodes = _arena.ring(data[at : at + length])
                events.append(VotequorumNodelist(RingId(who, seq), nodes))
            else:
                events.append(ExpectedVotesChange(n))
        return events

    # --- round trips ---

    async def info(self, nodeid: int) -> VotequorumInfo:
        info = ffi.new("tc_votequorum_info_t *")
        await self._request("votequorum_getinfo", lambda: lib.tc_votequorum_getinfo(self._handle, nodeid, info))
        return VotequorumInfo(
            nodeid=info.node_id,
            state=_state(info.node_state),
            votes=info.node_votes,
            expected_votes=info.node_expected_votes,
            highest_expected=info.highest_expected,
            total_votes=info.total_votes,
            quorum=info.quorum,
            flags=VotequorumFlag(info.flags),
            qdevice_votes=info.qdevice_votes,
            qdevice_name=ffi.string(info.qdevice_name).decode(errors="replace"),
        )

    async def set_expected(self, expected_votes: int) -> None:
        await self._request("votequorum_setexpected", lambda: lib.votequorum_setexpected(self._handle, expected_votes))

    async def set_votes(self, nodeid: int, votes: int) -> None:
        await self._request("votequorum_setvotes", lambda: lib.votequorum_setvotes(self._handle, nodeid, votes))

    async def trackstart(self, flags: Track) -> None:
        await self._request("votequorum_trackstart", lambda: lib.votequorum_trackstart(self._handle, 0, flags))

    async def trackstop(self) -> None:
        await self._request("votequorum_trackstop", lambda: lib.votequorum_trackstop(self._handle))

    # --- closing ---

    def _finalize(self, *, leave: bool) -> None:
        del leave
        lib.votequorum_finalize(self._handle)


def connect(pidfd: int) -> Connection:
    """On a worker: connect in the namespaces of `pidfd` (in our own if that is -1)."""
    return VOTEQUORUM.connect(lib.tc_votequorum_connect, pidfd)


def disconnect(connection: Connection) -> None:
    """On a worker: undo `connect`."""
    lib.votequorum_finalize(connection.handle)
