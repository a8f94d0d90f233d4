"""libcmap as a `RawCmap`."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, final

import trio

from .._enums import CmapTrack, CmapType, CsError
from .._errors import KeyNotFoundError, error_from_code
from .._types import CmapChange, CmapNotification, CmapValue, TypedValue
from . import _arena
from ._handle import CorosyncHandle, retry_briefly
from ._libraries import CMAP, failure
from ._namespaces import Namespaces
from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena, LibraryConnection

_TYPES: Final = {int(type_): type_ for type_ in CmapType}
_NUMBERS: Final = {
    CmapType.INT8: struct.Struct("=b"),
    CmapType.UINT8: struct.Struct("=B"),
    CmapType.INT16: struct.Struct("=h"),
    CmapType.UINT16: struct.Struct("=H"),
    CmapType.INT32: struct.Struct("=i"),
    CmapType.UINT32: struct.Struct("=I"),
    CmapType.INT64: struct.Struct("=q"),
    CmapType.UINT64: struct.Struct("=Q"),
    CmapType.FLOAT: struct.Struct("=f"),
    CmapType.DOUBLE: struct.Struct("=d"),
}
_CHANGE: Final = struct.Struct("=IIII")
_EVENTS: Final = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE
_MAX_VALUE: Final = 16 * 1024


def _decode_value(number: int, data: bytes) -> tuple[CmapType, CmapValue]:
    """Decode a value. Never fails, since other events would be lost: a type that is unknown here becomes BINARY."""
    type_ = _TYPES.get(number, CmapType.BINARY)
    if type_ is CmapType.STRING:
        return type_, data.partition(b"\0")[0].decode(errors="surrogateescape")
    numbers = _NUMBERS.get(type_)
    if numbers is None or len(data) != numbers.size:
        return CmapType.BINARY, data
    value: CmapValue = numbers.unpack(data)[0]
    return type_, value


def _encode_value(value: TypedValue) -> bytes:
    content = value.value
    if isinstance(content, str):
        # The daemon expects a NUL at the end, but a string of the maximum size has no room for it.
        return (content.encode(errors="surrogateescape") + b"\0")[:_MAX_VALUE]
    if isinstance(content, bytes):
        return content
    return _NUMBERS[value.type].pack(content)


def _encode_key(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _decode_key(key: bytes) -> str:
    return key.decode(errors="surrogateescape")


def _item(number: int, key_length: int, blob: bytes) -> tuple[str, TypedValue]:
    return _decode_key(blob[:key_length]), TypedValue(*_decode_value(number, blob[key_length:]))


def _notification(event_number: int, tracker: int, blob: bytes) -> CmapNotification:
    new_number, old_number, key_length, new_length = _CHANGE.unpack_from(blob)
    key_end = _CHANGE.size + key_length
    new_end = key_end + new_length
    event = CmapTrack(event_number) & _EVENTS
    new_type, new = None, None
    old_type, old = None, None
    # Type 0 means no value. For statistics the daemon always sends both values, even if only one exists.
    if new_number and event is not CmapTrack.DELETE:
        new_type, new = _decode_value(new_number, blob[key_end:new_end])
    if old_number and event is not CmapTrack.ADD:
        old_type, old = _decode_value(old_number, blob[new_end:])
    key = _decode_key(blob[_CHANGE.size : key_end])
    return CmapNotification(tracker, CmapChange(event, key, new, old, new_type, old_type))


@final
class CorosyncCmap(CorosyncHandle[CmapNotification]):
    """A handle of libcmap."""

    library = CMAP
    dispatch_function = "cmap_dispatch"

    def __init__(self, connection: LibraryConnection, lane: trio.CapacityLimiter, namespaces: Namespaces) -> None:
        super().__init__(connection, lane, namespaces)
        self._tracks: dict[int, int] = {}  # our number of a tracker: the library's; used on workers only

    def _decode(self, arena: Arena) -> Sequence[CmapNotification]:
        data = ffi.buffer(arena.data, arena.used)
        return [
            _notification(event, tracker, data[offset : offset + length])
            for _, event, tracker, offset, length in _arena.records(arena)
        ]

    # --- keys ---

    async def get(self, key: str) -> TypedValue:
        name = _encode_key(key)
        value = ffi.new("char[]", lib.TC_CMAP_ROOM)
        length = ffi.new("size_t *", lib.TC_CMAP_ROOM)
        number = ffi.new("uint32_t *")
        await self._access(
            "cmap_get", key, lambda: lib.tc_cmap_get(self._handle, self._fd, name, value, length, number)
        )
        return TypedValue(*_decode_value(number[0], ffi.buffer(value, length[0])[:]))

    async def set(self, key: str, value: TypedValue) -> None:
        name, data = _encode_key(key), _encode_value(value)
        await self._access("cmap_set", key, lambda: lib.cmap_set(self._handle, name, data, len(data), value.type))

    async def delete(self, key: str) -> None:
        name = _encode_key(key)
        await self._access("cmap_delete", key, lambda: lib.cmap_delete(self._handle, name))

    async def increment(self, key: str) -> None:
        name = _encode_key(key)
        await self._access("cmap_inc", key, lambda: lib.cmap_inc(self._handle, name))

    async def decrement(self, key: str) -> None:
        name = _encode_key(key)
        await self._access("cmap_dec", key, lambda: lib.cmap_dec(self._handle, name))

    async def _access(self, function: str, key: str, call: Callable[[], int]) -> None:
        code = await self._trip(call)
        if code == CsError.NOT_EXIST:
            raise KeyNotFoundError(f"{function}: CS_ERR_NOT_EXIST: the map has no key {key!r}", function=function)
        if code == CsError.ACCESS:
            raise error_from_code(code, function, f"the key {key!r} is read-only")
        if code != CsError.OK:
            raise failure(code, function)

    async def items(self, prefix: str) -> list[tuple[str, TypedValue]]:
        return await self._trip(lambda: self._items(_encode_key(prefix)))

    def _items(self, prefix: bytes) -> list[tuple[str, TypedValue]]:
        function = ffi.new("const char **")
        arena = _arena.borrow()
        try:
            code = lib.tc_cmap_items(self._handle, self._fd, prefix, arena, function)
            if code != CsError.OK:
                raise failure(code, ffi.string(function[0]).decode())
            data = ffi.buffer(arena.data, arena.used)
            return [
                _item(number, key_length, data[offset : offset + length])
                for _, number, key_length, offset, length in _arena.records(arena)
            ]
        finally:
            _arena.give_back(arena)

    # --- trackers ---

    async def track_add(self, tracker: int, key: str, track_type: CmapTrack) -> None:
        name = _encode_key(key)
        code = await self._undoable(
            lambda: self._track_add(tracker, name, track_type), lambda code: self._undo_track_add(tracker, code)
        )
        if code != CsError.OK:
            raise failure(code, "cmap_track_add")

    def _track_add(self, tracker: int, key: bytes, track_type: int) -> int:
        track = ffi.new("uint64_t *")
        code = lib.tc_cmap_track_add(self._handle, key, track_type, tracker, track)
        if code == CsError.OK:
            self._tracks[tracker] = track[0]
        return code

    def _undo_track_add(self, tracker: int, code: int) -> None:
        if code == CsError.OK:
            retry_briefly(lambda: self._track_delete(tracker))

    async def track_delete(self, tracker: int) -> None:
        code = await self._trip(lambda: self._track_delete(tracker))
        if code == CsError.BAD_HANDLE:
            raise error_from_code(code, "cmap_track_delete", f"no tracker has the number {tracker}")
        if code != CsError.OK:
            raise failure(code, "cmap_track_delete")

    def _track_delete(self, tracker: int) -> int:
        """To be called on a worker, within `_exclusively`."""
        track = self._tracks.get(tracker)
        if track is None:
            return CsError.BAD_HANDLE
        code = lib.tc_cmap_track_delete(self._handle, track)
        if code == CsError.OK:
            del self._tracks[tracker]
        return code
