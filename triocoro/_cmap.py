"""The configuration map and the statistics of a node: `open_cmap`."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar, final, overload

import trio

from . import _validate
from ._connection import Connection, open_connection
from ._enums import CmapMap, CmapTrack, CmapType, CsError
from ._errors import KeyNotFoundError
from ._raw import RawCmap
from ._services import CmapSpec, Endpoint, HasEndpoint
from ._stream import MAX_CHANGES_BYTES, EventStream
from ._types import Buffer, CmapChange, CmapNotification, CmapValue, TypedValue

T = TypeVar("T")
ValueT = TypeVar("ValueT", int, float, str, bytes)

_KINDS: Final = (int, float, str, bytes)

_ALL_CHANGES: Final = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE


def _payload_bytes(change: CmapChange) -> int:
    return sum(len(value) for value in (change.new, change.old) if isinstance(value, (str, bytes)))


@final
class Cmap:
    """A connection to one map of a node. Objects of this class come from `open_cmap`.

    Each node has maps of its own: a change to a map is not visible on other nodes. Keys have 3 to 255 characters:
    letters, digits and ``. _ - : /``.

    Cancelled: no effect, unless a method says otherwise.
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

    def __repr__(self) -> str:
        return f"<triocoro.Cmap {self._map.name} on {self._connection.lifetime.describe()}>"

    @overload
    async def get(self, key: str) -> CmapValue: ...

    @overload
    async def get(self, key: str, kind: type[ValueT]) -> ValueT: ...

    async def get(self, key: str, kind: type[object] | None = None) -> CmapValue:
        """Return the value of a key.

        Args:
            key: the key.
            kind: `int`, `float`, `str` or `bytes`: what the value must be. By default it may be any of them.

        Returns:
            an `int` for the eight integer types, a `float` for FLOAT and DOUBLE, a `str` for STRING, `bytes` for
            BINARY.

        Raises:
            KeyNotFoundError: there is no such key. It is a `KeyError` too.
            TypeError: the value is not of that kind; the message has the key, its type and its value.

        Source: cmap_get(3).
        """
        if kind is not None and not any(kind is known for known in _KINDS):
            raise TypeError(f"kind must be int, float, str or bytes, not {kind!r}")
        typed = await self.get_typed(key)
        if kind is not None and type(typed.value) is not kind:
            raise TypeError(f"{key!r} is no {kind.__name__}: its type is {typed.type.name}, its value {typed.value!r}")
        return typed.value

    async def get_typed(self, key: str) -> TypedValue:
        """Return the value of a key with its type; otherwise like `get`.

        Source: cmap_get(3).
        """
        return await self._request(self._raw.get, _validate.cmap_key(key))

    async def set(self, key: str, value: CmapValue | Buffer, type: CmapType | None = None) -> None:  # noqa: A002 - as in C
        """Set a key, and create it if there is none. Setting the value that it already has sends no notification.

        Args:
            key: the key.
            value: the value. Text and bytes may have at most 16 KiB.
            type: the type; by default the type that the key has. The default for a new key follows from the value:
                STRING for `str`, BINARY for bytes, DOUBLE for `float`, INT64 for `int`.

        Raises:
            ValueError, TypeError: the key is invalid, or the value does not fit the type.
            AccessError: the key is read-only. All statistics are, except the keys that reset statistics, such as
                `stats.clear.ipc`, which take any value (cmap_keys(7)).
            NotSupportedError: the key names an unknown target of a reset of statistics.

        Cancelled: the key may have been set.

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
            NotSupportedError: the key is one that resets statistics.

        Cancelled: the key may have been deleted.

        Source: cmap_delete(3).
        """
        await self._request(self._raw.delete, _validate.cmap_key(key))

    async def increment(self, key: str) -> None:
        """Atomically add 1 to an integer key. The highest value of its type wraps around to the lowest.

        Raises:
            KeyNotFoundError: there is no such key.
            InvalidParamError: the value is not an integer.
            AccessError: the key is read-only.
            NotSupportedError: the key is one that resets statistics.

        Cancelled: the key may have been incremented.

        Source: cmap_inc(3).
        """
        await self._request(self._raw.increment, _validate.cmap_key(key), _NO_INTEGER)

    async def decrement(self, key: str) -> None:
        """Atomically subtract 1 from an integer key; otherwise like `increment`.

        Cancelled: the key may have been decremented.

        Source: cmap_dec(3).
        """
        await self._request(self._raw.decrement, _validate.cmap_key(key), _NO_INTEGER)

    async def items(self, prefix: str = "") -> list[tuple[str, CmapValue]]:
        """Return all keys that begin with a prefix, sorted, with their values.

        The result is not a snapshot: it may or may not include changes made meanwhile.

        Args:
            prefix: the beginning of the keys; empty for all keys.

        Source: cmap_iter_init(3), cmap_iter_next(3).
        """
        return [(key, typed.value) for key, typed in await self.items_typed(prefix)]

    async def items_typed(self, prefix: str = "") -> list[tuple[str, TypedValue]]:
        """Like `items`, each value with its type.

        Source: cmap_iter_init(3), cmap_iter_next(3).
        """
        _validate.cmap_prefix(prefix)
        return await self._connection.requests.run(lambda: self._raw.items(prefix))

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def track(self, key: str = "", *, prefix: bool = False) -> AsyncGenerator[EventStream[CmapChange], None]:
        """Receive the changes of a key, or of all keys with a prefix, for the duration of the block.

        Changes from the start of the block on are received; the present state is not. The daemon checks a statistic
        every 1.5 s, and reports its present value only, as `old` too; for a prefix of the statistics it reports which
        keys were added and deleted. Any number of blocks may be open at the same time.

        Args:
            key: the key; with `prefix`, the beginning of the keys, empty for all keys.
            prefix: whether `key` is a prefix.

        Yields:
            the stream of changes. Its `receive` raises what `Group.receive` raises.

        Raises:
            ValueError: the key is invalid, or is a textual statistic, such as the name of a process.

        Cancelled: tracking ends, if necessary in the background.

        Source: cmap_track_add(3), cmap_track_delete(3).
        """
        _validate.boolean(prefix, "prefix")
        _validate.cmap_tracked(key, self._map, prefix=prefix)
        flags = _ALL_CHANGES | CmapTrack.PREFIX if prefix else _ALL_CHANGES
        number = next(self._numbers)
        stream: EventStream[CmapChange] = EventStream(self._connection.lifetime, MAX_CHANGES_BYTES)
        # Registered before the request: notifications may arrive before the reply.
        self._streams[number] = stream
        try:
            await self._connection.requests.run(lambda: self._raw.track_add(number, key, flags))
            try:
                yield stream
            finally:
                # Closed first: changes that arrive until the daemon has ended the tracking must not count as waiting.
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
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Cmap, None]:
    """Connect to a map of a node for the duration of the block.

    Args:
        map: the map: configuration and run-time state, or statistics.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ConnectionLostError: the daemon died; the block was cancelled.

    Cancelled: no connection is left open. If the block is cancelled, the connection closes in the background.

    Source: cmap_overview(3), cmap_initialize_map(3); cmap_keys(7) explains the keys.
    """
    map = CmapMap(map)  # noqa: A001 - as above
    raw, connection = await open_connection(CmapSpec(map), endpoint)
    streams: dict[int, EventStream[CmapChange]] = {}

    def handle(events: Sequence[CmapNotification]) -> None:
        for event in events:
            stream = streams.get(event.tracker)
            if stream is not None:
                stream.put((event.change,), (_payload_bytes(event.change),))

    async with connection.serving(handle):
        yield Cmap(raw, connection, streams, map)
