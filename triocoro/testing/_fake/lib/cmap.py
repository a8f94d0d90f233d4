"""The cmap library: lib/cmap.c."""

from __future__ import annotations

from collections.abc import Sequence

from ...._enums import CmapMap, CmapTrack, CsError
from ...._errors import error_from_code
from ...._types import CmapNotification, TypedValue
from ..exec.cmap import CmapService
from ..exec.ipc import IpcConnection
from .handle import FakeHandle


class FakeCmap(FakeHandle[CmapNotification, CmapNotification]):
    """A client's handle of the cmap service: a `RawCmap`."""

    dispatch_function = "cmap_dispatch"

    def __init__(self, connection: IpcConnection, service: CmapService, which: CmapMap) -> None:
        super().__init__(connection)
        self._service = service
        self._map = service.map(which)
        self._trackers: set[int] = set()

    async def get(self, key: str) -> TypedValue:
        return await self._round_trip("cmap_get", lambda: self._service.get(self._map, key))

    async def set(self, key: str, value: TypedValue) -> None:
        await self._round_trip("cmap_set", lambda: self._service.set(self._map, key, value))

    async def delete(self, key: str) -> None:
        await self._round_trip("cmap_delete", lambda: self._service.delete(self._map, key))

    async def increment(self, key: str) -> None:
        await self._round_trip("cmap_inc", lambda: self._service.adjust("cmap_inc", self._map, key, 1))

    async def decrement(self, key: str) -> None:
        await self._round_trip("cmap_dec", lambda: self._service.adjust("cmap_dec", self._map, key, -1))

    async def items(self, prefix: str) -> list[tuple[str, TypedValue]]:
        return await self._round_trip("cmap_iter_next", lambda: list(self._map.items(prefix)))

    async def track_add(self, tracker: int, key: str, track_type: CmapTrack) -> None:
        def add() -> None:
            self._service.track_add(self._connection, self._map, tracker, key, track_type)
            self._trackers.add(tracker)

        await self._round_trips("cmap_track_add", [add], undo=lambda: self._delete(tracker))

    async def track_delete(self, tracker: int) -> None:
        await self._round_trip("cmap_track_delete", lambda: self._delete(tracker))

    def _delete(self, tracker: int) -> None:
        if tracker not in self._trackers:
            raise error_from_code(CsError.BAD_HANDLE, "cmap_track_delete", f"no tracker has the number {tracker}")
        self._service.track_delete(self._connection, tracker)
        self._trackers.remove(tracker)

    def _decode(self, records: Sequence[CmapNotification]) -> Sequence[CmapNotification]:
        return [record for record in records if record.tracker in self._trackers]

    def _finalize(self, *, leave: bool) -> None:  # noqa: ARG002 - there is no group to leave
        # cmap_finalize is no round trip, so it does not wait for a frozen daemon.
        self._disconnect()
