"""The entries of a history: what a client called, how the call ended, what it was told, and injected faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import attrs

from .values import show


@attrs.frozen(kw_only=True)
class _ClientEntry:
    """What all entries of a client have in common."""

    time: float
    """When it happened, in seconds of the history's clock."""
    client: str
    """The client's name, unique in a history."""
    node: int
    """The id of the node that the client talks to."""
    handle: int
    """The client's connection, counted from 1. The call that opens a connection already carries its number."""


@attrs.frozen(kw_only=True)
class Call(_ClientEntry):
    """A client called a function. The `Return`, `Failure` or `Cancellation` with the same number says how it ended."""

    number: int
    """Identifies the call; each client counts its calls from 1."""
    function: str
    """A method of the raw handles (`triocoro._raw`), or ``connect_cpg`` and the like."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=show)
    """The arguments by name; payloads are `bytes`."""


@attrs.frozen(kw_only=True)
class Return(_ClientEntry):
    """A call returned."""

    number: int
    """The number of the call."""
    result: Any = None
    """What the function returned; for a connect, the `Address` that the client has in groups."""
    waiting: bool = False
    """Whether events were waiting on this handle: the state may have changed in ways the client had not seen yet."""


@attrs.frozen(kw_only=True)
class Failure(_ClientEntry):
    """A call raised an error."""

    number: int
    """The number of the call."""
    error: str
    """The name of the exception's class."""


@attrs.frozen(kw_only=True)
class Cancellation(_ClientEntry):
    """A call was cancelled."""

    number: int
    """The number of the call."""


@attrs.frozen(kw_only=True)
class Delivery(_ClientEntry):
    """A client took an event from a connection."""

    event: Any
    """A `Message`, `ConfigChange`, `TotemChange`, `QuorumChange`, ...

    Or a `MessageLost` that was noted with `RecordingEndpoint.lost`: its handle is 0, as it comes from no connection.
    """


@attrs.frozen(kw_only=True)
class Loss(_ClientEntry):
    """A client found its connection broken."""


@attrs.frozen(kw_only=True)
class Fault:
    """A fault was injected into the cluster, or repaired, and took effect before this entry."""

    time: float
    """When it was noted, in seconds of the history's clock."""
    verb: str
    """``partition``, ``heal``, ``kill``, ..."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=show)
    """The arguments of `History.fault`."""


ENTRIES: Final = (Call, Return, Failure, Cancellation, Delivery, Loss, Fault)
Entry: TypeAlias = "Call | Return | Failure | Cancellation | Delivery | Loss | Fault"
"""One line of a history."""
