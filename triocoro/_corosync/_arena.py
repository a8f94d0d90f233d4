"""Arenas: C memory in which a dispatch stores events until Python has decoded them (see arena.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena

_RECORD = struct.Struct("=IIQQQ")
WORDS = _RECORD.size // 8
_SEQ = struct.Struct("=Q")

# A dispatch borrows an arena for as long as it runs, so one per thread that dispatches is enough.
_idle: list[Arena] = []
_MAX_IDLE = 4


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


def ring(blob: bytes) -> tuple[int, tuple[int, ...]]:
    """Decode the sequence number of a ring id, and the nodes of the ring."""
    (seq,) = _SEQ.unpack_from(blob)
    return seq, tuple(memoryview(blob)[_SEQ.size :].cast("I"))
