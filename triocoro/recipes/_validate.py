"""Checks of what callers give, before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from inspect import iscoroutinefunction
from typing import Final, cast

MAX_PAYLOAD: Final = 512 * 1024
"""The bytes of the largest message."""
_MOST: Final = 2**32 - 1
_LONGEST_NAME: Final = 127


def checked_bytes(given: object, what: str) -> bytes:
    """The bytes of a bytes-like object, which nothing changes later.

    Raises:
        TypeError: it is no such object.
    """
    if type(given) is bytes:
        return given
    if not isinstance(given, (bytes, bytearray, memoryview)):
        raise TypeError(f"expected bytes, a bytearray or a memoryview as {what}, not {type(given).__name__}")
    return bytes(cast("bytes", given))


def checked_chunks(given: object) -> Iterator[bytes]:
    """The chunks of a snapshot, each checked when it is taken.

    Raises:
        TypeError: it is no iterable of bytes-like objects, but for instance one such object.
    """
    kind = type(given).__name__
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"snapshot() must return chunks, such as [data], not {kind}")
    return (checked_bytes(chunk, "a chunk of snapshot()") for chunk in cast("Iterable[object]", given))


def checked_payload(payload: object) -> bytes:
    """The bytes of a payload, which nothing changes later.

    Raises:
        TypeError: it is no bytes-like object.
        ValueError: it has more than 512 KiB.
    """
    data = checked_bytes(payload, "a payload")
    if len(data) > MAX_PAYLOAD:
        raise ValueError(f"a message of {len(data):,} bytes; the largest has {MAX_PAYLOAD:,}")
    return data


def checked_nodes(nodes: Mapping[int, int] | Collection[int]) -> Mapping[int, int]:
    """The votes of each node of the electorate.

    Args:
        nodes: votes by node, or nodes with a vote each.

    Raises:
        TypeError: it is neither, or an id or a number of votes is no integer.
        ValueError: there is no node, or an id or a number of votes is not in 1 to 2**32 - 1.
    """
    given = cast("object", nodes)
    if isinstance(given, (str, bytes)) or not isinstance(given, (Mapping, Collection)):
        raise TypeError(f"expected the ids of nodes, or a mapping of ids to votes, not {nodes!r}")
    votes: dict[int, int] = {}
    if isinstance(nodes, Mapping):
        votes.update(cast("Mapping[int, int]", nodes))
    else:
        votes.update(dict.fromkeys(nodes, 1))
    numbers: list[object] = [*votes, *votes.values()]
    for number in numbers:
        if not isinstance(number, int) or isinstance(number, bool):
            raise TypeError(f"expected integers as the ids and votes of nodes, not {number!r}")
        if not 1 <= number <= _MOST:
            raise ValueError(f"expected ids and votes of nodes from 1 to {_MOST}, not {number}")
    if not votes:
        raise ValueError("expected at least one node")
    return votes


def checked_integer(value: object, name: str, *, least: int = 1) -> int:
    """An integer of at least so much.

    Raises:
        TypeError: it is no integer.
        ValueError: it is less.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected an integer as {name}, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
    return value


def check_function(function: object) -> None:
    """Refuse what is no function, and an async one, whose coroutine would be taken for its result.

    Raises:
        TypeError: it is so.
    """
    if not callable(function) or iscoroutinefunction(function):
        raise TypeError(f"expected a function that is not async, not {function!r}")


def check_name(name: bytes | str) -> None:
    """Refuse what cannot be the name of a group, before a daemon is waited for.

    Raises:
        TypeError: it is neither bytes nor text.
        ValueError: it does not have 1 to 127 bytes.
    """
    if not isinstance(cast("object", name), (bytes, str)):
        raise TypeError(f"expected bytes or str as a group's name, not {type(name).__name__}")
    size = len(name.encode() if isinstance(name, str) else name)
    if not 1 <= size <= _LONGEST_NAME:
        raise ValueError(f"a group's name must have 1 to {_LONGEST_NAME} bytes, not {size}")


def checked_seconds(given: float, what: str) -> float:
    """A number of seconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite.
    """
    if not isinstance(cast("object", given), (int, float)) or isinstance(given, bool):
        raise TypeError(f"expected seconds as {what}, not {given!r}")
    if not math.isfinite(given):
        raise ValueError(f"expected a finite number of seconds as {what}, not {given}")
    return given
