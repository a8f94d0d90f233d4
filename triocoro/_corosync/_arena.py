"""Arenas: where a dispatch leaves its events in C memory until Python has decoded them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._shim import ffi, lib

if TYPE_CHECKING:
    from ._shim import Arena

_RECORD = struct.Struct("=IIQQQ")
_SEQ = struct.Struct("=Q")

# As many as dispatches run at the same time (one a thread) are needed; a dispatch borrows one.
_idle: list[Arena] = []
_MAX_IDLE = 4


def borrow() -> Arena:
    """An empty arena, for `give_back`."""
    try:
        return _idle.pop()
    except IndexError:
        arena = lib.tc_arena_new()
        if not arena:
            raise MemoryError from None
        return arena


def give_back(arena: Arena) -> None:
    """Free what the arena holds, and keep a moderate part of its memory for the next dispatch."""
    lib.tc_arena_clear(arena)
    if len(_idle) < _MAX_IDLE:
        _idle.append(arena)
    else:
        lib.tc_arena_free(arena)


def records(arena: Arena) -> Iterator[tuple[int, int, int, int, int]]:
    """(kind, n, who, at, length) of each event; see arena.h for what they mean."""
    return _RECORD.iter_unpack(ffi.buffer(arena.records, arena.count * _RECORD.size))


def large_payload(address: int, length: int) -> bytes:
    """The payload of a TC_LARGE_MESSAGE."""
    return ffi.buffer(ffi.cast("char *", address), length)[:]


def ring(blob: bytes) -> tuple[int, tuple[int, ...]]:
    """The sequence number and the nodes of a ring."""
    (seq,) = _SEQ.unpack_from(blob)
    return seq, tuple(memoryview(blob)[_SEQ.size :].cast("I"))
