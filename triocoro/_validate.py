"""Validates arguments: bad input raises `ValueError` or `TypeError` before it reaches C."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import Final, TypeGuard

from ._enums import CmapMap, CmapTrack, CmapType, Track
from ._types import Buffer, CmapValue, RingId, TypedValue

MAX_GROUP_NAME: Final = 127
"""Bytes. libcpg accepts 128, but the daemon then overruns a map."""

MOST_COPIED: Final = 4 * 2**20
"""Bytes of a payload that may be copied at once: more would hold up the event loop for too long."""

MAX_UINT32: Final = 2**32 - 1

MAX_QDEVICE_NAME: Final = 254
"""Bytes. libvotequorum needs one more for the NUL."""

MAX_EXTRA_INFO: Final = 4096
"""Bytes (VOTEQUORUM_QDEVICE_EXTRA_NODEINFO_MAXSIZE)."""

MAX_REASON: Final = 255
"""Bytes of a reason that libcfg accepts."""

MIN_KEY: Final = 3
MAX_KEY: Final = 255
"""Characters of a cmap key (CMAP_KEYNAME_MINLEN, CMAP_KEYNAME_MAXLEN)."""

MAX_CMAP_VALUE: Final = 16 * 1024
"""Bytes of a cmap value (ICMAP_MAX_VALUE_LEN)."""

_TEXT_OF_STATS: Final = ".procname"
"""The end of the keys of textual statistics. To track one, the daemon would copy the text over a number."""

_KEY: Final = re.compile(r"[A-Za-z0-9._:/-]*", re.ASCII)
_NATURAL_TYPES: Final[dict[type | tuple[type, ...], CmapType]] = {
    str: CmapType.STRING,
    float: CmapType.DOUBLE,
    int: CmapType.INT64,
    (bytes, bytearray, memoryview): CmapType.BINARY,
}
_INTEGERS: Final = {
    CmapType.INT8: (-(2**7), 2**7 - 1),
    CmapType.UINT8: (0, 2**8 - 1),
    CmapType.INT16: (-(2**15), 2**15 - 1),
    CmapType.UINT16: (0, 2**16 - 1),
    CmapType.INT32: (-(2**31), 2**31 - 1),
    CmapType.UINT32: (0, 2**32 - 1),
    CmapType.INT64: (-(2**63), 2**63 - 1),
    CmapType.UINT64: (0, 2**64 - 1),
}


def group_name(name: bytes | str) -> bytes:
    """Return the name of a group as bytes: 1 to 127 of them, text encoded as UTF-8."""
    if isinstance(name, str):
        encoded = name.encode()
    elif isinstance(name, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        encoded = name
    else:
        raise TypeError(f"a group's name must be bytes or str, not {type(name).__name__}")
    if not 1 <= len(encoded) <= MAX_GROUP_NAME:
        raise ValueError(f"a group's name must have 1 to {MAX_GROUP_NAME} bytes, not {len(encoded)}")
    return encoded


def payload(buffers: Sequence[Buffer]) -> bytes | None:
    """Return one message, joined from buffers. A single `bytes` object is not copied.

    Returns:
        the payload; `None` if more than `MOST_COPIED` bytes would be copied.
    """
    if len(buffers) == 1 and type(buffers[0]) is bytes:
        return buffers[0]
    return _joined(buffers, MOST_COPIED)


def _joined(buffers: Sequence[Buffer], most: int) -> bytes | None:
    """Join buffers, if they have at most so many bytes."""
    _check_buffers(buffers)
    if sum(buffer.nbytes if isinstance(buffer, memoryview) else len(buffer) for buffer in buffers) > most:
        return None
    return b"".join(b.tobytes() if isinstance(b, memoryview) and not b.c_contiguous else b for b in buffers)


def _check_buffers(buffers: Sequence[Buffer]) -> None:
    for buffer in buffers:
        if not isinstance(buffer, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a payload must be bytes, bytearray or memoryview, not {type(buffer).__name__}")


_BYTES_ONLY: Final = {bytes}


def payloads(messages: Iterable[Buffer]) -> Sequence[Buffer]:
    """Check several messages, one for each buffer."""
    if isinstance(messages, (bytes, bytearray, memoryview, str)):
        raise TypeError("send_batch takes an iterable of messages; to send one message use send")
    found = list(messages)
    if not only_bytes(found):
        _check_buffers(found)
    return found


def only_bytes(messages: Sequence[Buffer]) -> TypeGuard[list[bytes]]:
    """Whether all messages are `bytes` objects."""
    return _BYTES_ONLY.issuperset(map(type, messages))


def _number(value: object, name: str) -> int:
    if type(value) is bool or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    return int.__index__(value)  # its real value, whatever a subclass says of itself


def integer(value: object, name: str, lowest: int, highest: int) -> int:
    """Check an integer within bounds."""
    number = _number(value, name)
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be {lowest} to {highest}, not {number}")
    return number


def uint32(value: int, name: str, *, minimum: int = 0) -> int:
    """Check a number that is an `unsigned int` in C."""
    return integer(value, name, minimum, MAX_UINT32)


def positive(value: int, name: str) -> int:
    """Check a positive number, such as `max_buffered_bytes`."""
    number = _number(value, name)
    if number < 1:
        raise ValueError(f"{name} must be at least 1, not {number}")
    return number


def track(flags: Track) -> Track:
    """Check flags of `trackstart`: any combination of those that exist."""
    return Track(integer(flags, "flags", 0, int(Track.CURRENT | Track.CHANGES | Track.CHANGES_ONLY)))


def instance(value: object, kind: type, name: str) -> None:
    """Check an object of a class of ours."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}")


def boolean(value: bool, name: str) -> bool:  # noqa: FBT001 - it checks one
    """Check a bool: a value that is merely truthy is a mistake."""
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return value


def ring_id(value: RingId) -> RingId:
    """Check the identity of a ring."""
    if not isinstance(value, RingId):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"ring_id must be a RingId, not {type(value).__name__}")
    uint32(value.nodeid, "ring_id.nodeid")
    integer(value.seq, "ring_id.seq", 0, 2**64 - 1)
    return value


def text(value: object, name: str, maximum: int, *, minimum: int = 0) -> str:
    """Check a string that C reads up to its NUL, with bounds in bytes of UTF-8."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{name} must not contain a NUL character: {value!r}")
    size = len(value.encode(errors="surrogateescape"))
    if not minimum <= size <= maximum:
        raise ValueError(f"{name} must have {minimum} to {maximum} bytes, not {size}")
    return value


def printable(value: object, name: str, maximum: int, *, minimum: int = 0) -> str:
    """Check a string like `text`, which others will see in a log or on a terminal, where it must not pass for more."""
    found = text(value, name, maximum, minimum=minimum)
    found.encode()  # strict: surrogates are refused
    if not found.isprintable():
        raise ValueError(f"{name} must be printable, on one line, unlike {found!r}")
    return found


def reason(value: str) -> str:
    """Check the reason to kill a node."""
    return printable(value, "reason", MAX_REASON)


def qdevice_name(name: str) -> str:
    """Check the name of a quorum device."""
    return printable(name, "a quorum device's name", MAX_QDEVICE_NAME, minimum=1)


def extra_info(value: Buffer) -> bytes:
    """Return the extra information of a quorum device as bytes."""
    info = _joined((value,), MAX_EXTRA_INFO)
    if info is None:
        raise ValueError(f"extra_info must have at most {MAX_EXTRA_INFO} bytes, not {memoryview(value).nbytes}")
    return info


def cmap_key(key: str) -> str:
    """Check the key of a map."""
    cmap_prefix(key)
    if len(key) < MIN_KEY:
        raise ValueError(f"a key must have {MIN_KEY} to {MAX_KEY} characters, not {len(key)}: {key!r}")
    return key


def cmap_prefix(prefix: str) -> str:
    """Check the prefix of keys of a map, which may be empty."""
    if not isinstance(prefix, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a key must be a str, not {type(prefix).__name__}")
    if len(prefix) > MAX_KEY:
        raise ValueError(f"a key must have {MIN_KEY} to {MAX_KEY} characters, not {len(prefix)}")
    if not _KEY.fullmatch(prefix):
        raise ValueError(f"a key may contain letters, digits and any of . _ - : / only, unlike {prefix!r}")
    return prefix


def cmap_type_of(value: object) -> CmapType:
    """Return the default type of a new key with this value."""
    for kind, type_ in _NATURAL_TYPES.items():
        if isinstance(value, kind) and type(value) is not bool:
            return type_
    raise TypeError(f"a value must be int, float, str or bytes, not {type(value).__name__}")


def cmap_value(value: CmapValue | Buffer, type_: CmapType) -> TypedValue:
    """Return a value of a type as the map will return it: a FLOAT is rounded to 32 bits."""
    type_ = CmapType(type_)
    if type_ in _INTEGERS:
        lowest, highest = _INTEGERS[type_]
        return TypedValue(type_, integer(value, f"a value of type {type_.name}", lowest, highest))
    if type_ in (CmapType.FLOAT, CmapType.DOUBLE):
        return TypedValue(type_, _floating(value, type_))
    if type_ is CmapType.STRING:
        return TypedValue(type_, text(value, "a value of type STRING", MAX_CMAP_VALUE))
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"a value of type BINARY must be bytes, not {type(value).__name__}")
    binary = _joined((value,), MAX_CMAP_VALUE)
    if binary is None:
        size = memoryview(value).nbytes
        raise ValueError(f"a value of type BINARY must have at most {MAX_CMAP_VALUE} bytes, not {size}")
    return TypedValue(type_, binary)


def _floating(value: object, type_: CmapType) -> float:
    if type(value) is bool or not isinstance(value, (int, float)):
        raise TypeError(f"a value of type {type_.name} must be a float, not {type(value).__name__}")
    code = "=d" if type_ is CmapType.DOUBLE else "=f"
    try:
        (rounded,) = struct.unpack(code, struct.pack(code, value))
    except (OverflowError, struct.error):
        raise ValueError(f"{value} is out of the range of type {type_.name}") from None
    return float(rounded)


def cmap_tracked(key: str, map_: CmapMap, *, prefix: bool) -> str:
    """Check a key or a prefix to track."""
    (cmap_prefix if prefix else cmap_key)(key)
    if map_ is CmapMap.STATS and key.endswith(_TEXT_OF_STATS):
        raise ValueError(f"{key!r} cannot be tracked: it is a text; of the statistics, only numbers can be")
    return key


def cmap_track(track_type: CmapTrack) -> CmapTrack:
    """Check the flags of a cmap tracker: at least one kind of change, and possibly `PREFIX`."""
    events = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE
    flags = CmapTrack(integer(track_type, "track_type", 0, int(events | CmapTrack.PREFIX)))
    if not flags & events:
        raise ValueError(f"track_type must have some of ADD, MODIFY and DELETE, unlike {flags!r}")
    return flags
