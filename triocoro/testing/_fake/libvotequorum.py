"""A client's handle of the votequorum service: libvotequorum."""

from __future__ import annotations

from ..._types import Track, VotequorumEvent, VotequorumInfo
from .handle import Handle
from .ipc import Connection
from .votequorum import VotequorumService


class VotequorumHandle(Handle[VotequorumEvent, VotequorumEvent]):
    """A `RawVotequorum`."""

    dispatch_function = "votequorum_dispatch"

    def __init__(self, connection: Connection, service: VotequorumService) -> None:
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

    def _size(self, record: VotequorumEvent) -> int:  # noqa: ARG002 - none has a payload
        return 0

    def _decode(self, record: VotequorumEvent) -> VotequorumEvent:
        return record

    def _finalize(self, *, leave: bool) -> None:  # noqa: ARG002 - there is no group to leave
        # votequorum_finalize asks nobody, so a frozen daemon does not hold it up.
        self._disconnect()
