"""What clients did and saw, as a list that can be kept, compared and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import attrs
import trio

from .. import _types


@attrs.frozen(kw_only=True)
class Call:
    """A client called a function; `Return`, `Failure` or `Cancellation` with the same number says how it went on."""

    time: float
    """When, in seconds of the history's clock."""
    client: str
    """Who; unique in a history."""
    node: int
    """The node that the client talks to."""
    handle: int
    """The client's connection, counted from 1; what belongs to none is 0."""
    number: int
    """The client's calls are counted from 1."""
    function: str
    """A method of the raw handles (`triocoro._raw`), or ``connect_cpg`` and the like."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    """By name; payloads are `bytes`."""


@attrs.frozen(kw_only=True)
class Return:
    """A call returned."""

    time: float
    client: str
    node: int
    handle: int
    number: int
    result: Any = None
    """What the function returned."""


@attrs.frozen(kw_only=True)
class Failure:
    """A call raised an error."""

    time: float
    client: str
    node: int
    handle: int
    number: int
    error: str
    """The name of the exception's class."""


@attrs.frozen(kw_only=True)
class Cancellation:
    """A call was cancelled."""

    time: float
    client: str
    node: int
    handle: int
    number: int


@attrs.frozen(kw_only=True)
class Event:
    """A client took an event from a connection."""

    time: float
    client: str
    node: int
    handle: int
    event: Any
    """A `Message`, `ConfigChange`, `TotemChange`, `QuorumChange`, ..."""


@attrs.frozen(kw_only=True)
class Loss:
    """A client found a connection broken."""

    time: float
    client: str
    node: int
    handle: int


@attrs.frozen(kw_only=True)
class Fault:
    """Somebody did something to the cluster, and it was done by then."""

    time: float
    verb: str
    """``partition``, ``heal``, ``kill``, ..."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


Entry: TypeAlias = "Call | Return | Failure | Cancellation | Event | Loss | Fault"
"""One line of a history."""

_ENTRIES = (Call, Return, Failure, Cancellation, Event, Loss, Fault)
_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        **{name: value for name, value in vars(_types).items() if isinstance(value, type)},
        **{cls.__name__: cls for cls in (*_ENTRIES, IPv4Address, IPv6Address)},
    }
)


class History:
    """What clients did and saw, in the order in which they did.

    `endpoint` records what goes through an endpoint. Histories of several processes can be put together with `merge` if
    their clocks are the same, such as `time.monotonic`.

    Args:
        clock: gives the time, in seconds.
    """

    def __init__(self, entries: Iterable[Entry] = (), *, clock: Callable[[], float] = trio.current_time) -> None:
        self._entries = list(entries)
        self.clock = clock

    def __repr__(self) -> str:
        return f"<triocoro.testing.History of {len(self._entries)} entries>"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    def __eq__(self, other: object) -> bool:
        return self._entries == other._entries if isinstance(other, History) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._entries.append(entry)

    def fault(self, verb: str, **arguments: object) -> None:
        """Say what has been done to the cluster."""
        self.append(Fault(time=self.clock(), verb=verb, arguments=arguments))

    @classmethod
    def merge(cls, histories: Iterable[History]) -> History:
        """All entries of several histories, in the order of their times; the order within each stays."""
        return cls(sorted((entry for history in histories for entry in history), key=lambda entry: entry.time))

    def normalised(self) -> History:
        """The same with other pids, times and rings: each is counted, from 1, in the order in which it comes up."""
        raise NotImplementedError

    def to_json_lines(self) -> str:
        """One JSON object a line."""
        return "".join(f"{json.dumps(_encoded(entry), separators=(',', ':'))}\n" for entry in self._entries)

    @classmethod
    def from_json_lines(cls, text: str) -> History:
        """What `to_json_lines` was made from. `ValueError`: it is none."""
        return cls(_entry(line) for line in text.splitlines())

    def save(self, path: str | Path) -> None:
        """Write it to a file of JSON lines."""
        Path(path).write_text(self.to_json_lines(), encoding="ascii")

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read what `save` wrote."""
        return cls.from_json_lines(Path(path).read_text(encoding="ascii"))


def _entry(line: str) -> Entry:
    entry = _decoded(json.loads(line))
    if not isinstance(entry, _ENTRIES):
        raise ValueError(f"this is no line of a history: {line!r}")  # noqa: TRY004 - the type of the text is right
    return entry


def _encoded(value: object) -> Any:  # noqa: ANN401 - JSON may be anything
    """A value as JSON has it: what it has no type of is an object that names one."""
    if isinstance(value, Enum):
        return {"type": type(value).__name__, "value": value.value}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        # Most of it is text, and a reader wants to see that.
        return {"type": "bytes", "value": bytes(value).decode("latin-1")}
    if isinstance(value, (IPv4Address, IPv6Address)):
        return {"type": type(value).__name__, "value": str(value)}
    if isinstance(value, Mapping):
        return {"type": "dict", "value": {key: _encoded(item) for key, item in cast("Mapping[str, Any]", value).items()}}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_encoded(item) for item in cast("Iterable[Any]", items)]
    if attrs.has(type(value)):
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(value)))
        return {"type": type(value).__name__, **{field.name: _encoded(getattr(value, field.name)) for field in fields}}
    raise TypeError(f"a history cannot keep {value!r}")


def _decoded(value: Any) -> Any:  # noqa: ANN401 - JSON may be anything
    if isinstance(value, list):
        return tuple(map(_decoded, cast("list[Any]", value)))
    if not isinstance(value, dict):
        return value
    fields = dict(cast("dict[str, Any]", value))
    name = fields.pop("type", None)
    if name == "bytes":
        return str(fields["value"]).encode("latin-1")
    if name == "dict":
        return {key: _decoded(item) for key, item in fields["value"].items()}
    if name not in _TYPES:
        raise ValueError(f"a history knows no {name!r}")
    if attrs.has(_TYPES[name]):
        return _TYPES[name](**{key: _decoded(item) for key, item in fields.items()})
    return _TYPES[name](fields["value"])
