"""Arenas: C memory in which a dispatch stores events until Python has decoded them (see arena.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena

_RECORD = struct.Struct("=IIQQQ")
WORDS = _RECORD.size // 8
_SEQ = struct.Struct("=Q")

# A dispatch borrows an arena for as long as it runs, so one per thread that dispatches is enough.
_idle: list[Arena] = []
_MAX_IDLE = 4

PIECE = 2 * 2**20
"""How many bytes of a huge message are copied at once, which takes about a millisecond."""


def borrow() -> Arena:
    """Return an empty arena. It must be given back."""
    try:
        return _idle.pop()
    except IndexError:
        arena = lib.tc_arena_new()
        if not arena:
            raise MemoryError from None
        return arena


def give_back(arena: Arena) -> None:
    """Discard what the arena holds; a moderate part of its memory is kept for the next dispatch."""
    lib.tc_arena_clear(arena)
    if len(_idle) < _MAX_IDLE:
        _idle.append(arena)
    else:
        lib.tc_arena_free(arena)


def records(arena: Arena) -> Iterator[tuple[int, int, int, int, int]]:
    """The fields of each record: kind, value, extra, offset, length; see shim.h for what they mean."""
    return _RECORD.iter_unpack(ffi.buffer(arena.records, arena.count * _RECORD.size))


def words(arena: Arena) -> list[int]:
    """The records, each as `WORDS` integers of 64 bits: kind and value in one, then extra, offset, length."""
    return memoryview(ffi.buffer(arena.records, arena.count * _RECORD.size)).cast("Q").tolist()


def large_payload(address: int, length: int) -> bytes:
    """Copy the payload of a TC_LARGE_MESSAGE."""
    return ffi.buffer(ffi.cast("char *", address), length)[:]


class Pages:
    """The payload of a TC_HUGE_MESSAGE, which is copied a piece at a time.

    Args:
        address: where the payload is.
        length: its length.
    """

    def __init__(self, address: int, length: int) -> None:
        self.payload: Final = bytes(length)
        """The payload once `copy_some` has returned `True`: until then it is still being written to."""
        self._address = address
        self._done = 0

    def copy_some(self) -> bool:
        """Copy the next piece; whether it was the last one."""
        size = min(PIECE, len(self.payload) - self._done)
        lib.tc_pages_copy(self.payload, self._address, self._done, size)
        self._done += size
        if self._done < len(self.payload):
            return False
        lib.tc_pages_free(self._address, len(self.payload))
        return True


def take_pages(arena: Arena, index: int) -> Pages:
    """Take over the pages of the TC_HUGE_MESSAGE in a record, which the arena would give back."""
    record = arena.records[index]
    pages = Pages(record.offset, record.length)
    record.offset = 0
    return pages


def ring(blob: bytes) -> tuple[int, tuple[int, ...]]:
    """Decode the sequence number of a ring id, and the nodes of the ring."""
    (seq,) = _SEQ.unpack_from(blob)
    return seq, tuple(memoryview(blob)[_SEQ.size :].cast("I"))
