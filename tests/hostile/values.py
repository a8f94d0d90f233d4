"""Hostile arguments, and honest ones among which they are mixed."""

from __future__ import annotations

import array
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import trio

import triocoro
from triocoro import lowlevel
from triocoro.testing import ClusterOptions, FakeCluster, History


class HostileError(Exception):
    """What hostile objects raise: it may come out of any call that they are given to."""


class _Raises:
    """Raises whatever is asked of it."""

    def _raise(self, *_: object, **__: object) -> Any:
        raise HostileError

    __eq__ = __lt__ = __le__ = __bool__ = __len__ = __iter__ = __index__ = __int__ = __float__ = __repr__ = _raise
    __str__ = __contains__ = __getitem__ = __bytes__ = __format__ = __buffer__ = __call__ = __fspath__ = _raise
    __enter__ = __aenter__ = __await__ = __aiter__ = __next__ = _raise
    __hash__ = None  # type: ignore[assignment]


class _Lies:
    """Returns the wrong type, or nonsense, from everything."""

    def __index__(self) -> Any:
        return "no number"  # noqa: PLE0305 - it lies

    def __len__(self) -> int:
        return -1  # noqa: PLE0303 - it lies

    def __eq__(self, other: object) -> Any:
        return [other]

    def __hash__(self) -> int:
        return 7

    def __iter__(self) -> Any:
        return 7

    def __bool__(self) -> Any:
        return "yes"  # noqa: PLE0304 - it lies


class _Int(int):
    def __le__(self, _: object) -> bool:
        return True

    __lt__ = __ge__ = __gt__ = __le__

    def __index__(self) -> int:
        raise HostileError


class _Str(str):
    __slots__ = ()

    def encode(self, *_: object, **__: object) -> Any:
        return 7

    def __len__(self) -> int:
        return 1

    def __eq__(self, _: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


class _Bytes(bytes):
    def __len__(self) -> int:
        return 3

    def __iter__(self) -> Any:
        raise HostileError


class _List(list[Any]):
    def __len__(self) -> int:
        return 10**9

    def __iter__(self) -> Iterator[Any]:
        yield b"one"
        raise HostileError


class _Meta(type):
    def __instancecheck__(cls, _: object) -> bool:
        raise HostileError


class _Mapping(dict[Any, Any]):
    def items(self) -> Any:
        raise HostileError


def _released() -> memoryview:
    view = memoryview(b"gone")
    view.release()
    return view


def _failing() -> Iterator[bytes]:
    yield b"first"
    raise HostileError


def _seven(*_: object) -> int:
    return 7


async def _function(*_: object) -> None:
    await trio.lowlevel.checkpoint()


class Machine:
    """A replicated state machine that keeps nothing."""

    def apply(self, command: bytes) -> bytes:
        """Answer with the command."""
        return command

    def snapshot(self) -> list[bytes]:
        """There is no state."""
        return []

    def restore(self, chunks: object) -> None:
        """There is no state."""


_NONE: Any = None
_NUMBERS = (0, 1, -1, 2, 255, 256, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400)
_OTHER_NUMBERS = (0.0, -0.0, 0.5, 1e308, float("nan"), float("inf"), float("-inf"), 1j, True, False)
_SHORT_TEXTS = ("", "a", "key", "hostile.key", "a\0b", "\ud800", "\n\x1b[31m")
_LONG_TEXTS = ("é" * 64, "a" * 127, "a" * 128, "a" * 256, "a" * 10**6)
_BYTES = (b"", b"x", b"\0", b"x" * 127, b"x" * 128, b"\xff" * 4097, bytes(3_000_000))
_TUPLES: tuple[Any, ...] = ((), (1,), ("a", b"b"), frozenset({1}), range(3), range(10**6))
_MUTABLE: tuple[Any, ...] = (list[Any](), [b"x", "y"], dict[Any, Any](), {"a": 1}, {1: -1}, set[Any]())
_OBJECTS = (
    None,
    ...,
    NotImplemented,
    int,
    str,
    type,
    object,
    len,
    print,
    lowlevel,
    random,
    FakeCluster,
)
_ENUMERATIONS = (*triocoro.CmapType, *triocoro.CmapMap, *lowlevel.Dispatch, *lowlevel.Track, *triocoro.ShutdownFlag)
_VALUES = (
    triocoro.RingId(-1, -1),
    triocoro.RingId(2**40, 2**70),
    triocoro.Address(-1, -1),
    triocoro.Message(_NONE, _NONE),
)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


_HOSTILE: tuple[Callable[[], Any], ...] = (
    *map(
        _constant,
        (
            *_NUMBERS,
            *_OTHER_NUMBERS,
            *_SHORT_TEXTS,
            *_LONG_TEXTS,
            *_BYTES,
            *_TUPLES,
            *_MUTABLE,
            *_OBJECTS,
            *_ENUMERATIONS,
            *_VALUES,
        ),
    ),
    lambda: bytearray(b"xy"),
    lambda: memoryview(b"abcdef")[::2],
    lambda: memoryview(bytearray(16)).cast("I"),
    lambda: memoryview(bytearray(16)).cast("B", (4, 4)),
    lambda: memoryview(bytes(4_500_000))[::2],
    lambda: array.array("d", [1.0]),
    _released,
    _failing,
    _function,
    lambda: _function,
    lambda: _seven,
    lambda: itertools.repeat(b"again", 1000),
    lambda: iter([b"x", 7]),
    _Raises,
    _Lies,
    lambda: _Int(7),
    lambda: _Int(10**30),
    lambda: _Str("string"),
    lambda: _Bytes(b"bytes"),
    lambda: _List([b"x"]),
    lambda: _Meta("Meta", (), {}),
    lambda: _Mapping(a=1),
    object,
    trio.Event,
    trio.CancelScope,
    lambda: trio.open_memory_channel[Any](0)[0],
    History,
    ClusterOptions,
    RuntimeError,
)


def hostile(chance: random.Random, others: tuple[Any, ...]) -> Any:
    """A hostile value, or an object that does not belong here: a closed one, or one of another cluster."""
    return chance.choice(others) if others and chance.random() < 0.1 else chance.choice(_HOSTILE)()


_HONEST: dict[str, tuple[Any, ...]] = {
    "name": ("hostile", b"hostile"),
    "old_name": ("hostile",),
    "new_name": ("other",),
    "oldname": ("hostile",),
    "newname": ("other",),
    "group": ("hostile", b"other"),
    "group_name": ("hostile",),
    "key": ("hostile.key", "hostile.other"),
    "key_name": ("hostile.key", "hostile.other"),
    "prefix": ("hostile.", ""),
    "value": (1, 2.5, "text", b"bytes"),
    "buffers": (b"payload",),
    "messages": ([b"one", b"two"],),
    "nodeid": (1, 2),
    "node": (1,),
    "size": (100,),
    "client": ("client",),
    "dispatch_types": tuple(lowlevel.Dispatch),
    "flags": tuple(lowlevel.Track),
    "iteration_type": tuple(lowlevel.IterationType),
    "nodes": (1, 2, [1], {1: 1}),
    "token": (500,),
    "seed": (1,),
    "source": (1,),
    "target": (2,),
    "percent": (1,),
    "votes": (1,),
    "expected_votes": (2,),
    "max_events": (1, 256),
    "max_buffered_bytes": (2**20,),
    "totem_changes": (True, False),
    "receive": (True, False),
    "map": tuple(triocoro.CmapMap),
    "type": tuple(triocoro.CmapType),
    "track_type": tuple(triocoro.CmapTrack),
    "cast_vote": (True, False),
    "allow": (True, False),
    "accept": (False,),
    "ring_id": (triocoro.RingId(1, 1),),
    "extra_info": (b"information",),
    "reason": ("reason",),
    "sides": ((1,), (2,)),
    "opener": ("sessions", triocoro.open_quorum),
    "text": ("", "{}"),
    "path": ("history",),
    "verb": ("verb",),
    "message": ("message",),
    "function": ("function",),
    "code": (triocoro.CsError.TRY_AGAIN,),
    "payload": (b"payload",),
    "options": (ClusterOptions(nodes=1),),
    "borrower": ("borrower",),
    "async_fn": (_function,),
    "handler": (None, _function),
    "machine": (Machine(),),
    "query": (repr,),
    "condition": (bool,),
    "command": (b"command",),
    "id": (b"id",),
    "max_running": (1, 16),
    "max_waiting": (0, 16),
    **dict.fromkeys(
        (
            *("deliver", "confchg", "totem_confchg", "shutdown_callback", "notify", "qdevice_extra_info"),
            *("quorum_notify", "nodelist_notify", "expectedvotes_notify"),
        ),
        (_function,),
    ),
}


def honest(name: str, chance: random.Random) -> Any:
    """A value that a parameter of that name may take, if one is known here."""
    return chance.choice(_HONEST[name]) if name in _HONEST else None


def knows(name: str) -> bool:
    """Whether there is an honest value for parameters of that name."""
    return name in _HONEST
