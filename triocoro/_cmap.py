"""The maps of a node, configuration and statistics: `open_cmap`."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar, final

import trio

from . import _validate
from ._connection import Connection, open_connection
from ._enums import CmapMap, CmapTrack, CmapType
from ._errors import CsError, KeyNotFoundError
from ._raw import RawCmap
from ._services import CmapSpec, Endpoint
from ._stream import MAX_CHANGES_BYTES, EventStream
from ._types import Buffer, CmapChange, CmapNotification, CmapValue, TypedValue

T = TypeVar("T")

_ALL_CHANGES: Final = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE


def _payload_bytes(change: CmapChange) -> int:
    return sum(len(value) for value in (change.new, change.old) if isinstance(value, (str, bytes)))


@final
class Cmap:
    """A connection to one map of a node. Objects of this class come from `open_cmap`.

    A map is the node's own: what is set here, no other node sees. Keys have 3 to 255 characters: letters, digits and
    ``. _ - : /``.
    """

    def __init__(
        self,
        raw: RawCmap,
        connection: Connection[CmapNotification],
        streams: dict[int, EventStream[CmapChange]],
        map: CmapMap,  # noqa: A002 - as in C
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._streams = streams
        self._map = map
        self._numbers = itertools.count(1)

    async def get(self, key: str) -> CmapValue:
        """Return a key's value: `int`, `float`, `str` or `bytes`, as its type is.

        Raises:
            KeyNotFoundError: there is no such key (it is a `KeyError` too).

        Source: cmap_get(3).
        """
        return (await self.get_typed(key)).value

    async def get_typed(self, key: str) -> TypedValue:
        """Return a key's value with its type; otherwise as `get`."""
        return await self._request(self._raw.get, _validate.cmap_key(key))

    async def set(self, key: str, value: CmapValue | Buffer, type: CmapType | None = None) -> None:  # noqa: A002 - as in C
        """Set a key, and make it if there is none. Setting the value that it has notifies nobody.

        Args:
            key: the key.
            value: within the range of the type, else `ValueError`; texts and bytes of at most 16 KiB.
            type: without it, the type that the key has; for a new key, what the value is: STRING for `str`, BINARY for
                bytes, DOUBLE for `float`, INT64 for `int`.

        Raises:
            AccessError: the key is read-only. Of the statistics all are, but those that reset them (`stats.clear.ipc`
                and its likes, whatever the value; see cmap_keys(7)).
            NotSupportedError: that resets no statistics.

        Cancelled: it may be set.

        Source: cmap_set(3).
        """
        _validate.cmap_key(key)
        if type is None:
            natural = _validate.cmap_type_of(value)
            try:
                type = (await self._request(self._raw.get, key)).type  # noqa: A001 - as above
            except KeyNotFoundError:
                type = natural  # noqa: A001 - as above
        typed = _validate.cmap_value(value, type)
        await self._request(lambda key: self._raw.set(key, typed), key)

    async def delete(self, key: str) -> None:
        """Delete a key.

        Raises:
            KeyNotFoundError: there is no such key.
            AccessError: the key is read-only.
            NotSupportedError: it is one that resets statistics.

        Cancelled: it may be deleted.

        Source: cmap_delete(3).
        """
        await self._request(self._raw.delete, _validate.cmap_key(key))

    async def increment(self, key: str) -> None:
        """Add 1 to a key that is an integer, in one step; the highest value of its type becomes the lowest.

        Raises:
            KeyNotFoundError: there is no such key.
            InvalidParamError: it is no integer.
            AccessError: the key is read-only.
            NotSupportedError: it is one that resets statistics.

        Cancelled: it may be incremented.

        Source: cmap_inc(3).
        """
        await self._request(self._raw.increment, _validate.cmap_key(key), _NO_INTEGER)

    async def decrement(self, key: str) -> None:
        """Subtract 1; otherwise as `increment`.

        Source: cmap_dec(3).
        """
        await self._request(self._raw.decrement, _validate.cmap_key(key), _NO_INTEGER)

    async def items(self, prefix: str = "") -> list[tuple[str, CmapValue]]:
        """Return all keys that begin with `prefix`, sorted, with their values.

        It is no snapshot: what changes meanwhile may be in it or not.

        Source: cmap_iter_init(3), cmap_iter_next(3).
        """
        return [(key, typed.value) for key, typed in await self.items_typed(prefix)]

    async def items_typed(self, prefix: str = "") -> list[tuple[str, TypedValue]]:
        """As `items`, each value with its type."""
        _validate.cmap_prefix(prefix)
        return await self._connection.requests.run(lambda: self._raw.items(prefix))

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def track(self, key: str = "", *, prefix: bool = False) -> AsyncGenerator[EventStream[CmapChange], None]:
        """Follow the changes of a key, or of all keys that begin with it.

        What happens from the moment of entry on is received; the present state is not. The daemon looks at a statistic
        every 1.5 s, and tells of its present value only (as `old`, too); of a prefix of the statistics, it tells which
        keys come and go. Any number of trackers may be open. The stream's `receive` raises as `Group.receive` does.

        Args:
            key: the key; with `prefix`, what the keys begin with, and all keys where it is empty.
            prefix: whether it is a prefix.

        Raises:
            ValueError: it is no key, or a text of the statistics, such as the name of a process.

        Cancelled: nothing is left behind.

        Source: cmap_track_add(3), cmap_track_delete(3).
        """
        _validate.boolean(prefix, "prefix")
        _validate.cmap_tracked(key, self._map, prefix=prefix)
        flags = _ALL_CHANGES | CmapTrack.PREFIX if prefix else _ALL_CHANGES
        number = next(self._numbers)
        stream: EventStream[CmapChange] = EventStream(
            self._connection.lifetime, MAX_CHANGES_BYTES, payload_bytes=_payload_bytes
        )
        # Before the daemon knows of it: notifications may come before its reply.
        self._streams[number] = stream
        try:
            await self._connection.requests.run(lambda: self._raw.track_add(number, key, flags))
            try:
                yield stream
            finally:
                # Nobody is obliged to receive what comes until the daemon has heard of the end.
                stream.close()
                await self._connection.requests.undo(lambda: self._raw.track_delete(number))  # noqa: ASYNC102
        finally:
            del self._streams[number]
            stream.close()

    async def _request(
        self, call: Callable[[str], Awaitable[T]], key: str, explain: dict[CsError, str] | None = None
    ) -> T:
        texts = {code: f"{key!r} {text}" for code, text in (_KEY_ERRORS | (explain or {})).items()}
        return await self._connection.requests.run(lambda: call(key), explain=texts)


_KEY_ERRORS: Final = {
    CsError.NOT_EXIST: "is not in the map",
    CsError.ACCESS: "is read-only",
    CsError.NOT_SUPPORTED: "cannot be changed: of the statistics, only what resets them can be set (cmap_keys(7))",
}
_NO_INTEGER: Final = {CsError.INVALID_PARAM: "is no integer"}


@asynccontextmanager
async def open_cmap(
    map: CmapMap = CmapMap.ICMAP,  # noqa: A002 - as in C
    *,
    endpoint: Endpoint | None = None,
) -> AsyncGenerator[Cmap, None]:
    """Connect to a map of a node for the length of the block.

    Args:
        map: the configuration and run-time state, or the statistics.
        endpoint: the daemon; without it, the default one.

    Raises:
        CorosyncUnavailableError: no daemon, or no library.
        ConnectionLostError: the daemon died; the block was cancelled.

    Source: cmap_overview(3), cmap_initialize_map(3); cmap_keys(7) explains the keys.
    """
    map = CmapMap(map)  # noqa: A001 - as above
    raw, connection = await open_connection(CmapSpec(map), endpoint)
    streams: dict[int, EventStream[CmapChange]] = {}

    def handle(events: Sequence[CmapNotification]) -> None:
        for event in events:
            stream = streams.get(event.tracker)
            if stream is not None:
                stream.put((event.change,))

    async with connection.serving(handle):
        yield Cmap(raw, connection, streams, map)
