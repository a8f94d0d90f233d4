"""What clients did and saw, as a list that can be kept, compared and checked."""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import attrs
import trio

from ... import _types  # pyright: ignore[reportPrivateUsage]  # of our own package
from ..._raw import Endpoint
from ..._types import Address, RingId, show_payload
from .._cluster.cluster import Node

if TYPE_CHECKING:
    from .recording import RecordingEndpoint


def _show(value: object) -> str:
    """Arguments as a repr shows them, with payloads as in that of a `Message`."""
    if isinstance(value, bytes):
        return show_payload(value)
    if isinstance(value, tuple):
        items = [_show(item) for item in cast("tuple[object, ...]", value)]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return f"{{{', '.join(f'{key!r}: {_show(item)}' for key, item in pairs)}}}"
    return repr(value)


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
    """The client's connection, counted from 1; the call that makes it has its number already."""
    number: int
    """The client's calls are counted from 1."""
    function: str
    """A method of the raw handles (`triocoro._raw`), or ``connect_cpg`` and the like."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=_show)
    """By name; payloads are `bytes`."""


@attrs.frozen(kw_only=True)
class Return:
    """A call returned. Attributes that `Call` has are as there; the number is that of the call."""

    time: float
    client: str
    node: int
    handle: int
    number: int
    result: Any = None
    """What the function returned; of a connect, the `Address` that the client has in groups."""
    waiting: bool = False
    """Whether events of this handle waited to be taken: something may have changed that the client did not know of."""


@attrs.frozen(kw_only=True)
class Failure:
    """A call raised an error. Attributes that `Call` has are as there; the number is that of the call."""

    time: float
    client: str
    node: int
    handle: int
    number: int
    error: str
    """The name of the exception's class."""


@attrs.frozen(kw_only=True)
class Cancellation:
    """A call was cancelled. Attributes that `Call` has are as there; the number is that of the call."""

    time: float
    client: str
    node: int
    handle: int
    number: int


@attrs.frozen(kw_only=True)
class Event:
    """A client took an event from a connection. Attributes that `Call` has are as there."""

    time: float
    client: str
    node: int
    handle: int
    event: Any
    """A `Message`, `ConfigChange`, `TotemChange`, `QuorumChange`, ...; or a `MessageLost` that `RecordingEndpoint.lost`
    wrote down, with handle 0, as it comes from no connection."""


@attrs.frozen(kw_only=True)
class Loss:
    """A client found a connection broken. Attributes are as in `Call`."""

    time: float
    client: str
    node: int
    handle: int


@attrs.frozen(kw_only=True)
class Fault:
    """Somebody did something to the cluster, and it was done by then. The time is as in `Call`."""

    time: float
    verb: str
    """``partition``, ``heal``, ``kill``, ..."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=_show)
    """To whom, and how, as `History.fault` keeps it."""


Entry: TypeAlias = "Call | Return | Failure | Cancellation | Event | Loss | Fault"
"""One line of a history."""

_ENTRIES = (Call, Return, Failure, Cancellation, Event, Loss, Fault)
_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        **{name: value for name, value in vars(_types).items() if isinstance(value, type)},
        **{cls.__name__: cls for cls in (*_ENTRIES, IPv4Address, IPv6Address, float)},
    }
)


class History:
    """What clients did and saw, in the order in which they did.

    `endpoint` gives what records, and `check` tells whether it could have been Corosync. Histories of several processes
    can be put together with `merge` if their clocks are the same, such as `time.monotonic`.

    Args:
        entries: what it begins with.
        clock: gives the time, in seconds.
    """

    def __init__(self, entries: Iterable[Entry] = (), *, clock: Callable[[], float] = trio.current_time) -> None:
        self._entries = list(entries)
        self._clients: set[str] = set()
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

    __hash__ = None  # type: ignore[assignment]  # it changes

    def append(self, entry: Entry) -> None:
        """Add an entry at the end."""
        self._entries.append(entry)

    def endpoint(self, node: Node, *, client: str, via: Endpoint | None = None) -> RecordingEndpoint:
        """A way to `node` that records here whatever goes through it.

        Args:
            node: the daemon's node.
            client: a name for whoever uses it.
            via: another endpoint of that node than its own, such as one that has a pid of its own.

        Raises:
            ValueError: there is a client of that name already, or an entry of one.
        """
        # Only here, since that module needs this one.
        from .recording import RecordingEndpoint

        recorded = {entry.client for entry in self._entries if not isinstance(entry, Fault)}
        if client in self._clients | recorded:
            raise ValueError(f"this history has a client {client!r} already; each needs a name of its own")
        self._clients.add(client)
        return RecordingEndpoint(self, via or node.endpoint, client=client, node=node.nodeid)

    def fault(self, verb: str, **arguments: object) -> None:
        """Say what has been done to the cluster, for those who read the history; `check` does not need it.

        Args:
            verb: what.
            arguments: to whom, and how. Lists and sets become tuples, and the keys of mappings text.
        """
        self.append(Fault(time=self.clock(), verb=verb, arguments=kept(arguments)))

    @classmethod
    def merge(cls, histories: Iterable[History]) -> History:
        """All entries of several histories, in the order of their times; the order within each stays.

        Clients keep their names. What has the same name is taken for parts of one client, which counted its connections
        and calls through.

        Raises:
            ValueError: clients of the same name connected in two histories as the same handle, so they are two.
        """
        parts = list(histories)
        connected: set[tuple[str, int]] = set()
        for part in parts:
            own = {
                (entry.client, entry.handle)
                for entry in part
                if isinstance(entry, Call) and entry.function.startswith("connect_")
            }
            if own & connected:
                client, _ = min(own & connected)
                raise ValueError(f"two histories have a client {client!r} each; give them names of their own")
            connected |= own
        return cls(heapq.merge(*parts, key=lambda entry: entry.time))

    def normalised(self) -> History:
        """The same with other pids, times and rings, so that two runs that did the same are equal.

        Pids, and the sequence numbers of rings, are counted from 1, in the order in which they come up; times are the
        positions of the entries, and `Return.waiting` is False. It is for comparing: rings no longer ascend, so `check`
        what was recorded.
        """
        names = _Names()
        return History(names.entry(time, entry) for time, entry in enumerate(self._entries, start=1))

    def to_json_lines(self) -> str:
        """One JSON object a line.

        Raises:
            TypeError: an entry that somebody made holds what no recording does, such as a list.
        """
        return "".join(f"{json.dumps(_encoded(entry), separators=(',', ':'))}\n" for entry in self._entries)

    @classmethod
    def from_json_lines(cls, text: str) -> History:
        """What `to_json_lines` was made from.

        Raises:
            ValueError: it is none.
        """
        return cls(_entry(line) for line in text.splitlines())

    def save(self, path: str | Path) -> None:
        """Write it to a file of JSON lines. Errors are those of `to_json_lines`."""
        Path(path).write_text(self.to_json_lines(), encoding="ascii")

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read what `save` wrote. Errors are those of `from_json_lines`."""
        return cls.from_json_lines(Path(path).read_text(encoding="ascii"))


class _Names:
    """New names for what differs from run to run."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        self._rings: dict[RingId, int] = {}

    def entry(self, time: int, entry: Entry) -> Entry:
        renamed = attrs.evolve(cast("Entry", self._renamed(entry)), time=time)
        return attrs.evolve(renamed, waiting=False) if isinstance(renamed, Return) else renamed

    def _renamed(self, value: object) -> object:
        if isinstance(value, Address):
            return Address(value.nodeid, self._pids.setdefault(value.pid, len(self._pids) + 1))
        if isinstance(value, RingId):
            # Before its first ring, a daemon says 0.
            return RingId(value.nodeid, self._rings.setdefault(value, len(self._rings) + 1)) if value.seq else value
        if isinstance(value, tuple):
            items = [self._renamed(item) for item in cast("tuple[object, ...]", value)]
            # Lists of members are sorted by their pids, which are others now.
            if all(isinstance(item, Address) for item in items):
                items.sort(key=lambda item: attrs.astuple(cast("Address", item)))
            return tuple(items)
        if isinstance(value, Mapping):
            return {key: self._renamed(item) for key, item in cast("Mapping[str, object]", value).items()}
        if attrs.has(type(value)):
            fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(value)))
            return type(value)(**{field.name: self._renamed(getattr(value, field.name)) for field in fields})
        return value


def kept(value: object) -> Any:  # noqa: ANN401 - whatever it is given
    """What a history keeps of a value: nothing that somebody may change."""
    if isinstance(value, memoryview):
        return len(cast("memoryview[int]", value))
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, Mapping):
        return {str(key): kept(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, (set, frozenset)):
        return tuple(sorted(cast("Iterable[Any]", value)))
    if isinstance(value, (list, tuple)):
        return tuple(kept(item) for item in cast("Iterable[object]", value))
    return value


def _entry(line: str) -> Entry:
    complaint = f"this is no line of a history: {line!r}"
    try:
        entry = _decoded(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ValueError(complaint) from exc
    if not isinstance(entry, _ENTRIES):
        raise ValueError(complaint)  # noqa: TRY004 - the type of the text is right
    return entry


def _encoded(value: object) -> Any:  # noqa: ANN401 - JSON may be anything
    """A value as JSON has it: what it has no type of is an object that names its class."""
    if isinstance(value, tuple):
        return [_encoded(item) for item in cast("tuple[object, ...]", value)]
    if isinstance(value, float) and math.isfinite(value):
        return value  # JSON has no others
    if type(value).__name__ in _TYPES:
        return {"class": type(value).__name__, **_fields(value)}
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, bytes):
        # Most of it is text, and a reader wants to see that.
        return {"class": "bytes", "value": value.decode("latin-1")}
    if isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value).items()
        return {"class": "dict", "value": {key: _encoded(item) for key, item in items}}
    raise TypeError(f"a history cannot keep {value!r}")


def _fields(value: object) -> dict[str, Any]:
    """What a value consists of that is one of ours."""
    if attrs.has(type(value)):
        fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(value)))
        return {field.name: _encoded(getattr(value, field.name)) for field in fields}
    return {"value": value.value if isinstance(value, Enum) else str(value)}


def _decoded(value: Any) -> Any:  # noqa: ANN401 - JSON may be anything
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
