"""libcmap, one to one."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import CmapMap, CmapTrack, CmapType
from .._raw import RawCmap
from .._services import CmapSpec, Endpoint
from .._types import Buffer, CmapChange, CmapNotification, CmapValue, TypedValue
from ._handle import Callback, Handle


@final
class CmapHandle(Handle[CmapNotification]):
    """A handle of libcmap. Objects of this class come from `cmap_initialize`."""

    def __init__(
        self,
        raw: RawCmap,
        connection: Connection[CmapNotification],
        context: object,
        map: CmapMap,  # noqa: A002 - as in C
    ) -> None:
        super().__init__(connection, {}, context)
        self._raw = raw
        self._map = map
        self._trackers: dict[int, Callable[[CmapChange], Awaitable[object]]] = {}
        self._numbers = itertools.count(1)

    def _callback(self, event: CmapNotification) -> tuple[Callback | None, object]:
        return self._trackers.get(event.tracker), event.change

    async def get(self, key_name: str) -> TypedValue:
        """Return a key's value with its type (cmap_get(3)).

        Raises:
            KeyNotFoundError: no such key.
        """
        _validate.cmap_key(key_name)
        return await self._request(lambda: self._raw.get(key_name))

    async def set(self, key_name: str, value: CmapValue | Buffer, type: CmapType) -> None:  # noqa: A002 - as in C
        """Set a key, and make it if there is none (cmap_set(3)).

        Raises:
            ValueError, TypeError: the value is none of that type.
            AccessError: the key is read-only.
            NotSupportedError: of the statistics, those can be set only that reset them.
        """
        _validate.cmap_key(key_name)
        typed = _validate.cmap_value(value, type)
        await self._request(lambda: self._raw.set(key_name, typed))

    async def delete(self, key_name: str) -> None:
        """Delete a key (cmap_delete(3)). Raises: `KeyNotFoundError`, and as `set`."""
        _validate.cmap_key(key_name)
        await self._request(lambda: self._raw.delete(key_name))

    async def inc(self, key_name: str) -> None:
        """Add 1 to a key that is an integer (cmap_inc(3)).

        Raises:
            KeyNotFoundError: no such key.
            InvalidParamError: it is no integer.
            AccessError, NotSupportedError: as `set`.
        """
        _validate.cmap_key(key_name)
        await self._request(lambda: self._raw.increment(key_name))

    async def dec(self, key_name: str) -> None:
        """Subtract 1 from a key that is an integer (cmap_dec(3)). Raises: as `inc`."""
        _validate.cmap_key(key_name)
        await self._request(lambda: self._raw.decrement(key_name))

    async def items(self, prefix: str = "") -> list[tuple[str, TypedValue]]:
        """Return the keys that begin with `prefix`, sorted, with their values.

        That is cmap_iter_init(3), all of cmap_iter_next(3) with a cmap_get(3) each, and cmap_iter_finalize(3).
        """
        _validate.cmap_prefix(prefix)
        return await self._request(lambda: self._raw.items(prefix))

    async def track_add(
        self, key_name: str, track_type: CmapTrack, notify: Callable[[CmapChange], Awaitable[object]]
    ) -> int:
        """Call `notify` with each change of a key (cmap_track_add(3)).

        Args:
            key_name: the key; with `CmapTrack.PREFIX`, what the keys begin with, and all keys where it is empty.
            track_type: the events, and possibly `CmapTrack.PREFIX`.
            notify: the callback; `dispatch` calls it.

        Returns:
            the tracker, for `track_delete`.

        Raises:
            ValueError: as `Cmap.track`.
            NotSupportedError: a prefix of the statistics is tracked for both `ADD` and `DELETE`, or not at all.

        Cancelled: nothing is tracked.
        """
        track_type = _validate.cmap_track(track_type)
        _validate.cmap_tracked(key_name, self._map, prefix=CmapTrack.PREFIX in track_type)
        tracker = next(self._numbers)
        # Before the daemon knows of it: notifications may come before its reply.
        self._trackers[tracker] = notify
        try:
            await self._request(lambda: self._raw.track_add(tracker, key_name, track_type))
        except BaseException:
            del self._trackers[tracker]
            raise
        return tracker

    async def track_delete(self, track_handle: int) -> None:
        """End a tracker (cmap_track_delete(3)). Notifications of it that wait are passed over.

        Raises:
            ValueError: there is no such tracker.

        Cancelled: it may have ended.
        """
        if track_handle not in self._trackers:
            raise ValueError(f"this handle has no tracker {track_handle!r}")
        await self._request(lambda: self._raw.track_delete(track_handle))
        del self._trackers[track_handle]


async def cmap_initialize(
    map: CmapMap = CmapMap.ICMAP,  # noqa: A002 - as in C
    *,
    context: object = None,
    endpoint: Endpoint | None = None,
) -> CmapHandle:
    """Connect to a map of a node (cmap_initialize_map(3)).

    Args:
        map: which one.
        context: the handle's `context`.
        endpoint: the daemon to connect to; by default the default endpoint.

    Raises, Cancelled: as `cpg_initialize`.
    """
    map = CmapMap(map)  # noqa: A001 - as above
    raw, connection = await open_connection(CmapSpec(map), endpoint, retrying=False)
    return CmapHandle(raw, connection, context, map)
