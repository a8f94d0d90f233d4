"""libvotequorum as a `RawVotequorum`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

from .._enums import NodeState, Track, VotequorumFlag
from .._types import (
    ExpectedVotesChange,
    QdeviceExtraInfo,
    RingId,
    VotequorumChange,
    VotequorumEvent,
    VotequorumInfo,
    VotequorumNode,
    VotequorumNodelist,
)
from . import _arena
from ._handle import CorosyncHandle
from ._libraries import VOTEQUORUM
from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena

_QUORUM = lib.TC_QUORUM
_NODELIST = lib.TC_NODELIST
_EXTRA_INFO = lib.TC_EXTRA_INFO
# VOTEQUORUM_QDEVICE_EXTRA_NODEINFO_MAXSIZE: the library expects a buffer of this size.
_MAX_EXTRA_INFO = 4096

NEEDS_EXTRA_INFO = 0x01
"""Flag of `Library.connect`: fail if the library does not report extra information of quorum devices."""

_STATES = {int(state): state for state in NodeState}


def _state(number: int) -> NodeState:
    # An unknown state must not raise, or events would be lost: such a node counts as dead.
    return _STATES.get(number, NodeState.DEAD)


def _change(quorate: int, blob: bytes) -> VotequorumChange:
    words = memoryview(blob).cast("I").tolist()
    nodes = zip(words[::2], words[1::2], strict=True)
    return VotequorumChange(bool(quorate), tuple(VotequorumNode(nodeid, _state(state)) for nodeid, state in nodes))


@final
class CorosyncVotequorum(CorosyncHandle[VotequorumEvent]):
    """A handle of libvotequorum."""

    library = VOTEQUORUM
    dispatch_function = "votequorum_dispatch"

    # --- dispatch ---

    def _decode(self, arena: Arena) -> Sequence[VotequorumEvent]:
        events: list[VotequorumEvent] = []
        data = ffi.buffer(arena.data, arena.used)
        for kind, value, ring_nodeid, offset, length in _arena.records(arena):
            if kind == _QUORUM:
                events.append(_change(value, data[offset : offset + length]))
            elif kind == _NODELIST:
                seq, nodes = _arena.ring(data[offset : offset + length])
                events.append(VotequorumNodelist(RingId(ring_nodeid, seq), nodes))
            elif kind == _EXTRA_INFO:
                events.append(QdeviceExtraInfo(value, data[offset : offset + length]))
            else:
                events.append(ExpectedVotesChange(value))
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

    # --- the quorum device ---

    async def qdevice_register(self, name: str) -> None:
        text = name.encode()
        await self._request("votequorum_qdevice_register", lambda: lib.votequorum_qdevice_register(self._handle, text))

    async def qdevice_unregister(self, name: str) -> None:
        text = name.encode()
        await self._request(
            "votequorum_qdevice_unregister", lambda: lib.votequorum_qdevice_unregister(self._handle, text)
        )

    async def qdevice_update(self, old_name: str, new_name: str) -> None:
        old, new = old_name.encode(), new_name.encode()
        await self._request("votequorum_qdevice_update", lambda: lib.votequorum_qdevice_update(self._handle, old, new))

    async def qdevice_poll(self, name: str, cast_vote: bool, ring_id: RingId) -> None:  # noqa: FBT001 - as in C
        text = name.encode()
        ring = ffi.new("tc_votequorum_ring_id_t *", (ring_id.nodeid, ring_id.seq))
        await self._request(
            "votequorum_qdevice_poll",
            lambda: lib.votequorum_qdevice_poll(self._handle, text, cast_vote, ring[0]),
        )

    async def qdevice_master_wins(self, name: str, allow: bool) -> None:  # noqa: FBT001 - as in C
        text = name.encode()
        await self._request(
            "votequorum_qdevice_master_wins", lambda: lib.votequorum_qdevice_master_wins(self._handle, text, allow)
        )

    async def get_qdevice_extra_info(self, nodeid: int) -> bytes:
        info = ffi.new("char[]", _MAX_EXTRA_INFO)
        length = ffi.new("uint32_t *")
        await self._request(
            "votequorum_get_qdevice_extra_info",
            lambda: lib.tc_votequorum_get_extra_info(self._handle, nodeid, length, info),
        )
        return ffi.buffer(info, min(length[0], _MAX_EXTRA_INFO))[:]

    async def set_qdevice_extra_info(self, extra_info: bytes) -> None:
        await self._request(
            "votequorum_set_qdevice_extra_info",
            lambda: lib.votequorum_set_qdevice_extra_info(self._handle, len(extra_info), extra_info),
        )
