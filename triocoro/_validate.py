"""Bad input raises here, before it reaches C."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ._types import Buffer

MAX_GROUP_NAME: Final = 127
"""Bytes; libcpg takes 128, but the daemon overruns a map with those."""

MAX_UINT32: Final = 2**32 - 1


def group_name(name: bytes | str) -> bytes:
    """A group's name as bytes: text in UTF-8, 1 to 127 bytes."""
    if isinstance(name, str):
        encoded = name.encode()
    elif isinstance(name, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        encoded = name
    else:
        raise TypeError(f"a group's name must be bytes or str, not {type(name).__name__}")
    if not 1 <= len(encoded) <= MAX_GROUP_NAME:
        raise ValueError(f"a group's name must have 1 to {MAX_GROUP_NAME} bytes, not {len(encoded)}")
    return encoded


def payload(buffers: Sequence[Buffer]) -> bytes:
    """One message, gathered from buffers; nothing is copied if it is one `bytes` already."""
    if len(buffers) == 1 and type(buffers[0]) is bytes:
        return buffers[0]
    for buffer in buffers:
        if not isinstance(buffer, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a payload must be bytes, bytearray or memoryview, not {type(buffer).__name__}")
    return b"".join(b.tobytes() if isinstance(b, memoryview) and not b.c_contiguous else b for b in buffers)


def payloads(messages: Iterable[Buffer]) -> list[bytes]:
    """Several messages, one a buffer."""
    if isinstance(messages, (bytes, bytearray, memoryview, str)):
        raise TypeError("send_batch takes an iterable of messages; to send one message use send")
    return [payload((message,)) for message in messages]


def uint32(value: int, name: str, *, minimum: int = 0) -> int:
    """A number that C takes as `unsigned int`."""
    if type(value) is bool or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not minimum <= value <= MAX_UINT32:
        raise ValueError(f"{name} must be {minimum} to {MAX_UINT32}, not {value}")
    return value


def positive(value: int, name: str) -> int:
    """A bound of our own, such as `max_buffered_bytes`."""
    if type(value) is bool or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    return value
