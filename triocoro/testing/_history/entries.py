"""The entries of a history: what a client called, how the call ended, what it was told, faults, and what tests add."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

import attrs

from .values import show


@attrs.frozen(kw_only=True)
class ClientEntry:
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
class Call(ClientEntry):
    """A client called a function. The `Return`, `Failure` or `Cancellation` with the same number says how it ended."""

    number: int
    """Identifies the call; each client counts its calls from 1."""
    function: str
    """A method of the raw handles (`triocoro._raw`), or ``connect_cpg`` and the like."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=show)
    """The arguments by name; payloads are `bytes`."""


@attrs.frozen(kw_only=True)
class Return(ClientEntry):
    """A call returned."""

    number: int
    """The number of the call."""
    result: Any = None
    """What the function returned; for a connect, the `Address` that the client has in groups."""
    waiting: bool = False
    """Whether events were waiting on this handle: the state may have changed in ways the client had not seen yet."""


@attrs.frozen(kw_only=True)
class Failure(ClientEntry):
    """A call raised an error."""

    number: int
    """The number of the call."""
    error: str
    """The name of the exception's class."""


@attrs.frozen(kw_only=True)
class Cancellation(ClientEntry):
    """A call was cancelled."""

    number: int
    """The number of the call."""


@attrs.frozen(kw_only=True)
class Delivery(ClientEntry):
    """A client took an event from a connection."""

    event: Any
    """A `Message`, `ConfigChange`, `TotemChange`, `QuorumChange`, ...

    Or a `MessageLost` that was noted with `RecordingEndpoint.lost`: its handle is 0, as it comes from no connection.
    """


@attrs.frozen(kw_only=True)
class Loss(ClientEntry):
    """A client found its connection broken."""


@attrs.frozen(kw_only=True)
class Fault:
    """A fault was injected into the cluster, or repaired, and took effect before this entry."""

    time: float
    """When it was noted, in seconds of the history's clock."""
    verb: str
    """The method of `Cluster` or `Node`: ``partition``, ``heal``, ``kill``, ...; or what `History.fault` was given."""
    arguments: Mapping[str, Any] = attrs.field(factory=dict[str, Any], repr=show)
    """The arguments by name; ``nodeid`` is the node of a method of `Node`.

    If there is ``cancelled``, the method was cancelled: the fault may have taken effect, or may yet do so.
    """
    where: str | None = None
    """The line that called the method, such as "test_it.py:48"; `None` if none of the program's own did."""


@attrs.frozen(kw_only=True)
class _ApplicationEntry:
    """What the entries of an application's own operations have in common."""

    time: float
    """When it happened, in seconds of the history's clock."""
    client: str
    """Who carries out the operation."""
    node: int | None = None
    """The id of the node that the client uses, if the application has said so."""
    number: int
    """Tells the operations of a client apart; a history counts them from 1."""


@attrs.frozen(kw_only=True)
class Invocation(_ApplicationEntry):
    """The application began an operation of its own. The `Outcome` with the same number says how it ended."""

    name: str
    """What it does, such as ``put``."""
    arguments: tuple[Any, ...] = attrs.field(default=(), repr=show)
    """The arguments."""


class OutcomeStatus(Enum):
    """How an application's operation ended."""

    RETURNED = "returned"
    """It took effect, and has a result."""
    REFUSED = "refused"
    """It never took effect, and never will."""
    UNKNOWN = "unknown"
    """It may have taken effect, and may yet do so: it was cancelled, or its error does not tell."""


@attrs.frozen(kw_only=True)
class Outcome(_ApplicationEntry):
    """An operation of the application ended."""

    status: OutcomeStatus
    """Whether it took effect."""
    result: Any = attrs.field(default=None, repr=show)
    """What it returned."""
    error: str | None = None
    """The name of the class of the exception that ended it."""


@attrs.frozen(kw_only=True)
class Note:
    """A line that a test, or the application, has added for readers."""

    time: float
    """When it was noted, in seconds of the history's clock."""
    text: str
    """What happened."""
    node: int | None = None
    """The id of the node that it is about."""


SENDS: Final = frozenset({"multicast", "multicast_fragmented", "zcb_mcast_joined"})
"""The functions of calls that send messages."""

ENTRIES: Final = (Call, Return, Failure, Cancellation, Delivery, Loss, Fault, Invocation, Outcome, Note)
Entry: TypeAlias = "Call | Return | Failure | Cancellation | Delivery | Loss | Fault | Invocation | Outcome | Note"
"""One line of a history."""
