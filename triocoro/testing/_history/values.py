"""The values that entries hold: how they are copied and shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from ..._types import show_payload


def immutable(value: object) -> Any:  # noqa: ANN401, PLR0911 - it takes any type
    """Copy a value into one that cannot change later: tuples for lists and sets, text for the keys of mappings.

    Of a `memoryview`, whose content changes, only the length is kept.
    """
    if isinstance(value, memoryview):
        view = cast("memoryview[int]", value)
        try:
            return len(view)
        except ValueError:
            return 0  # it was released
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, Mapping):
        return {str(key): immutable(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(cast("Iterable[Any]", value)))
    if isinstance(value, (list, tuple)):
        return tuple(immutable(item) for item in cast("Iterable[object]", value))
    return value


def show(value: object) -> str:
    """The repr of a value, with payloads shortened as in the repr of a `Message`."""
    if isinstance(value, bytes):
        return show_payload(value)
    if isinstance(value, tuple):
        items = [show(item) for item in cast("tuple[object, ...]", value)]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return f"{{{', '.join(f'{key!r}: {show(item)}' for key, item in pairs)}}}"
    return repr(value)
