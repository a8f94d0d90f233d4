"""The functions of libcmap, one to one."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import CmapMap, CmapTrack, CmapType
from .._raw import RawCmap
from .._services import CmapSpec, Endpoint, HasEndpoint
from .._types import Buffer, CmapChange, CmapNotification, CmapValue, TypedValue
from ._handle import Callback, Handle


@final
class CmapHandle(Handle[CmapNotification]):
    """A handle of libcmap. Objects of this class come from `cmap_initialize`.

    Cancelled: the request may have taken effect, unless a method says otherwise.
    """

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
        """Return the value of a key with its type (cmap_get(3)).

        Raises:
            KeyNotFoundError: there is no such key.
        """
        _validate.cmap_key(key_name)
        return await self._request(lambda: self._raw.get(key_name))

    async def set(self, key_name: str, value: CmapValue | Buffer, type: CmapType) -> None:  # noqa: A002 - as in C
        """Set a key, and create it if there is none (cmap_set(3)).

        Raises:
            ValueError, TypeError: the value does not fit the type.
            AccessError: the key is read-only.
            NotSupportedError: the key names an unknown target of a reset of statistics.
        """
        _validate.cmap_key(key_name)
        typed = _validate.cmap_value(value, type)
        await self._request(lambda: self._raw.set(key_name, typed))

    async def delete(self, key_name: str) -> None:
        """Delete a key (cmap_delete(3)).

        Raises:
            KeyNotFoundError: there is no such key.
            AccessError, NotSupportedError: as `set`.
        """
        _validate.cmap_key(key_name)
        await self._request(lambda: self._raw.delete(key_name))

    async def inc(self, key_name: str) -> None:
        """Atomically add 1 to an integer key (cmap_inc(3)).

        Raises:
            KeyNotFoundError: there is no such key.
            InvalidParamError: the value is not an integer.
            AccessError, NotSupportedError: as `set`.
        """
        _validate.cmap_key(key_name)
        await self._request(lambda: self._raw.increment(key_name))

    async def dec(self, key_name: str) -> None:
        """Atomically subtract 1 from an integer key (cmap_dec(3)). Raises: as `inc`."""
        _validate.cmap_key(key_name)
        await self._request(lambda: self._raw.decrement(key_name))

    async def items(self, prefix: str = "") -> list[tuple[str, TypedValue]]:
        """Return the keys that begin with a prefix, sorted, with their values.

        It combines cmap_iter_init(3), each cmap_iter_next(3) with a cmap_get(3), and cmap_iter_finalize(3).
        """
        _validate.cmap_prefix(prefix)
        return await self._request(lambda: self._raw.items(prefix))

    async def track_add(
        self, key_name: str, track_type: CmapTrack, notify: Callable[[CmapChange], Awaitable[object]]
    ) -> int:
        """Call `notify` with each change of a key (cmap_track_add(3)).

        Args:
            key_name: the key; with `CmapTrack.PREFIX`, the beginning of the keys, empty for all keys.
            track_type: the changes to track, and possibly `CmapTrack.PREFIX`.
            notify: async function, called by `dispatch` with each change.

        Returns:
            the number of the tracker, for `track_delete`.

        Raises:
            ValueError: as `Cmap.track`.
            NotSupportedError: a prefix of the statistics can only be tracked for both `ADD` and `DELETE`.

        Cancelled: nothing is tracked.
        """
        track_type = _validate.cmap_track(track_type)
        _validate.cmap_tracked(key_name, self._map, prefix=CmapTrack.PREFIX in track_type)
        tracker = next(self._numbers)
        # Registered before the request: notifications may arrive before the reply.
        self._trackers[tracker] = notify
        try:
            await self._request(lambda: self._raw.track_add(tracker, key_name, track_type))
        except BaseException:
            del self._trackers[tracker]
            raise
        return tracker

    async def track_delete(self, track_handle: int) -> None:
        """Stop tracking (cmap_track_delete(3)). Notifications of the tracker that still wait are skipped.

        Args:
            track_handle: the number that `track_add` returned.

        Raises:
            ValueError: there is no such tracker.

        Cancelled: tracking may have stopped.
        """
        if track_handle not in self._trackers:
            raise ValueError(f"this handle has no tracker {track_handle!r}")
        await self._request(lambda: self._raw.track_delete(track_handle))
        del self._trackers[track_handle]


async def cmap_initialize(
    map: CmapMap = CmapMap.ICMAP,  # noqa: A002 - as in C
    *,
    context: object = None,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> CmapHandle:
    """Connect to a map of a node (cmap_initialize_map(3)).

    Args:
        map: the map: configuration and run-time state, or statistics.
        context: the initial value of the handle's `context`.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises, Cancelled: as `cpg_initialize`.
    """
    map = CmapMap(map)  # noqa: A001 - as above
    raw, connection = await open_connection(CmapSpec(map), endpoint, retrying=False)
    return CmapHandle(raw, connection, context, map)
