"""The votequorum library: lib/votequorum.c."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from ...._enums import CsError, Track
from ...._errors import error_from_code
from ...._types import RingId, VotequorumEvent, VotequorumInfo
from ..exec.ipc import IpcConnection
from ..exec.votequorum import VotequorumService
from .handle import FakeHandle

TOO_OLD = "the library of Corosync 3.1.7, which the fake follows, has no such function"
"""Why the functions for a quorum device's extra information are not supported."""


class FakeVotequorum(FakeHandle[VotequorumEvent, VotequorumEvent]):
    """A client's handle of the votequorum service: a `RawVotequorum`."""

    dispatch_function = "votequorum_dispatch"

    def __init__(self, connection: IpcConnection, service: VotequorumService) -> None:
        super().__init__(connection)
        self._service = service

    async def info(self, nodeid: int) -> VotequorumInfo:
        return await self._round_trip("votequorum_getinfo", lambda: self._service.getinfo(nodeid))

    async def set_expected(self, expected_votes: int) -> None:
        await self._round_trip("votequorum_setexpected", lambda: self._service.setexpected(expected_votes))

    async def set_votes(self, nodeid: int, votes: int) -> None:
        await self._round_trip("votequorum_setvotes", lambda: self._service.setvotes(nodeid, votes))

    async def trackstart(self, flags: Track) -> None:
        await self._round_trip("votequorum_trackstart", lambda: self._service.trackstart(self._connection, flags))

    async def trackstop(self) -> None:
        await self._round_trip("votequorum_trackstop", lambda: self._service.trackstop(self._connection))

    async def qdevice_register(self, name: str) -> None:
        await self._deferred_round_trip(
            "votequorum_qdevice_register",
            lambda reply: self._service.qdevice.register(self._connection, name, reply),
        )

    async def qdevice_unregister(self, name: str) -> None:
        await self._round_trip("votequorum_qdevice_unregister", lambda: self._service.qdevice.unregister(name))

    async def qdevice_update(self, old_name: str, new_name: str) -> None:
        await self._round_trip("votequorum_qdevice_update", lambda: self._service.qdevice.update(old_name, new_name))

    async def qdevice_poll(self, name: str, cast_vote: bool, ring_id: RingId) -> None:  # noqa: FBT001 - as in C
        await self._round_trip(
            "votequorum_qdevice_poll", lambda: self._service.qdevice.poll(name, ring_id, cast_vote=cast_vote)
        )

    async def qdevice_master_wins(self, name: str, allow: bool) -> None:  # noqa: FBT001 - as in C
        await self._round_trip(
            "votequorum_qdevice_master_wins", lambda: self._service.qdevice.master_wins(name, allow=allow)
        )

    async def get_qdevice_extra_info(self, nodeid: int) -> bytes:  # noqa: ARG002 - the function is missing
        await trio.lowlevel.checkpoint()
        raise error_from_code(CsError.NOT_SUPPORTED, "votequorum_get_qdevice_extra_info", TOO_OLD)

    async def set_qdevice_extra_info(self, extra_info: bytes) -> None:  # noqa: ARG002 - the function is missing
        await trio.lowlevel.checkpoint()
        raise error_from_code(CsError.NOT_SUPPORTED, "votequorum_set_qdevice_extra_info", TOO_OLD)

    def _decode(self, records: Sequence[VotequorumEvent]) -> Sequence[VotequorumEvent]:
        return records

    def _finalize(self, *, leave: bool) -> None:  # noqa: ARG002 - there is no group to leave
        # votequorum_finalize is no round trip, so it does not wait for a frozen daemon.
        self._disconnect()
