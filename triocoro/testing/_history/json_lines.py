"""Entries as text: one JSON object a line.

JSON's own types stand for themselves, and tuples are arrays. Anything else is an object that names its ``class``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Any, Final, cast

import attrs

from ... import _enums, _types  # pyright: ignore[reportPrivateUsage]  # of our own package
from .entries import ENTRIES, Entry, OutcomeStatus

_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        **{name: value for name, value in (vars(_enums) | vars(_types)).items() if isinstance(value, type)},
        **{cls.__name__: cls for cls in (*ENTRIES, OutcomeStatus, IPv4Address, IPv6Address, float)},
    }
)


_DROPPED: Final = "dropped"
_HEAD: Final = re.compile(rf'{{"{_DROPPED}":(\d+)}}')
"""The first line of a history that has lost its beginning."""


def encode(entries: Iterable[Entry], dropped: int = 0) -> str:
    """One line for each entry, after one about those that were dropped.

    Raises:
        TypeError: an entry holds a value that no recording produces, such as a list.
    """
    head = f'{{"{_DROPPED}":{dropped}}}\n' if dropped else ""
    return head + "".join(f"{json.dumps(_encoded(entry), separators=(',', ':'))}\n" for entry in entries)


def check(value: object) -> None:
    """Raise `TypeError` for a value that cannot be written."""
    _encoded(value)


def decode(text: str) -> tuple[list[Entry], int]:
    """The entries that `encode` made the text from, and how many were dropped.

    Raises:
        ValueError: a line is not an entry.
    """
    lines = text.splitlines()
    dropped = _HEAD.fullmatch(lines[0]) if lines else None
    return [_entry(line) for line in lines[0 if dropped is None else 1 :]], 0 if dropped is None else int(dropped[1])


def _entry(line: str) -> Entry:
    complaint = f"this is no line of a history: {line!r}"
    try:
        entry = _decoded(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError(complaint) from exc
    if not isinstance(entry, ENTRIES):
        raise ValueError(complaint)  # noqa: TRY004 - a str was given, as it should be
    return entry


def _encoded(value: object) -> Any:  # noqa: ANN401 - JSON may be of any type
    if isinstance(value, tuple):
        return [_encoded(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, float) and math.isfinite(value):
        return value  # JSON has no infinities and no NaN
    if type(value).__name__ in _TYPES:
        return {"class": type(value).__name__, **_fields(value)}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, bytes):
        # Most payloads are text; Latin-1 leaves them readable.
        return {"class": "bytes", "value": value.decode("latin-1")}
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {"class": "dict", "value": {key: _encoded(item) for key, item in items}}
    raise TypeError(f"a history cannot keep {value!r}")


def _fields(value: object) -> dict[str, Any]:
    if attrs.has(type(value)):
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(value)))
        return {field.name: _encoded(getattr(value, field.name)) for field in fields}
    return {"value": value.value if isinstance(value, Enum) else str(value)}


def _decoded(value: Any) -> Any:  # noqa: ANN401 - JSON may be of any type
    if isinstance(value, list):
        return tuple(_decoded(item) for item in cast("list[object]", value))
    if not isinstance(value, dict):
        return value
    fields = dict(cast("dict[str, Any]", value))
    name = fields.pop("class", None)
    if name == "bytes":
        return str(fields["value"]).encode("latin-1")
    if name == "dict":
        return {key: _decoded(item) for key, item in fields["value"].items()}
    if name not in _TYPES:
        raise ValueError(f"a history knows no {name!r}")
    if attrs.has(_TYPES[name]):
        return _TYPES[name](**{key: _decoded(item) for key, item in fields.items()})
    return _TYPES[name](fields["value"])
