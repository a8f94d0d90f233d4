"""The quorum library, model v1: lib/quorum.c."""

from __future__ import annotations

from collections.abc import Sequence

from ...._enums import QuorumType, Track
from ...._types import QuorumEvent
from ..exec.ipc import IpcConnection
from ..exec.quorum import QuorumService
from .handle import FakeHandle


class FakeQuorum(FakeHandle[QuorumEvent, QuorumEvent]):
    """A client's handle of the quorum service: a `RawQuorum`."""

    dispatch_function = "quorum_dispatch"

    def __init__(self, connection: IpcConnection, service: QuorumService) -> None:
        super().__init__(connection)
        self._service = service

    @property
    def type(self) -> QuorumType:
        # The fake always runs votequorum.
        return QuorumType.SET

    async def is_quorate(self) -> bool:
        return await self._round_trip("quorum_getquorate", self._service.getquorate)

    async def trackstart(self, flags: Track) -> None:
        await self._round_trip("quorum_trackstart", lambda: self._service.trackstart(self._connection, flags))

    async def trackstop(self) -> None:
        await self._round_trip("quorum_trackstop", lambda: self._service.trackstop(self._connection))

    def _decode(self, records: Sequence[QuorumEvent]) -> Sequence[QuorumEvent]:
        return records

    def _finalize(self, *, leave: bool) -> None:  # noqa: ARG002 - there is no group to leave
        # quorum_finalize is no round trip, so it does not wait for a frozen daemon.
        self._disconnect()
