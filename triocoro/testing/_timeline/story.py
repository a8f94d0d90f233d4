"""What happened, as a history tells it: the state of each node over time, views, messages, and a list of events.

The text and the page are both drawn from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum

import attrs

from ..._types import Address, RingId
from .._cluster.network import Network
from .._history.entries import Call, Invocation, Outcome


class Condition(Enum):
    """What state a node's daemon is in."""

    UP = "up"
    FROZEN = "frozen"
    DOWN = "down"


class Kind(IntEnum):
    """What an event is about. The higher, the more it matters to a reader."""

    CALL = 1
    """A request to a daemon that changes something, or fails."""
    MESSAGE = 2
    """A message was sent."""
    OPERATION = 3
    """An operation of the application ended."""
    GROUP = 4
    """The members of a group changed, as some clients see it."""
    LOG = 5
    """A daemon's own line, which someone noted."""
    RING = 6
    """Nodes are in a ring that they were not in before; with its quorum if that is known."""
    QUORUM = 7
    """Nodes got or lost quorum without another ring."""
    LOSS = 8
    """A message, a connection or a daemon was lost."""
    NOTE = 9
    """A `Note`."""
    FAULT = 10
    """A fault was injected or repaired."""
    FAILURE = 11
    """The test failed."""


@attrs.frozen(kw_only=True)
class Event:
    """Something that happened, in words."""

    index: int
    """The place in the history of the entry that tells it."""
    time: float
    """Seconds since the history's first entry."""
    kind: Kind
    nodes: tuple[int, ...]
    """The nodes that it is about; empty if it is about the cluster or the test."""
    text: str
    detail: str = ""
    """What the text leaves out so that the same news at several nodes has the same text."""
    client: str | None = None
    """The client that saw or did it, if it is about one."""
    notable: bool = False
    """Whether it stands out among others of its kind: something failed, or went missing."""


@attrs.frozen
class NodeState:
    """The state of a node, as far as the history tells it."""

    condition: Condition = Condition.UP
    ring_id: RingId | None = None
    members: tuple[int, ...] = ()
    """The nodes of its ring."""
    quorate: bool | None = None
    """`None` if it is not known."""


@attrs.frozen(kw_only=True)
class NodeSpan:
    """A node between two changes of its state. Times are seconds since the first entry."""

    node: int
    began: float
    ended: float
    first: int
    """The place of the entry that the span begins with. Much can happen at one time."""
    end: int
    """The place of the entry after the span."""
    state: NodeState


@attrs.frozen(kw_only=True)
class GroupSpan:
    """A client's view of a group between two changes."""

    client: str
    node: int
    handle: int
    group: bytes | None
    """`None` if the history does not tell: its first entries were dropped."""
    members: tuple[Address, ...]
    began: float
    ended: float
    first: int
    """The place of the entry that the span begins with."""
    end: int
    """The place of the entry after the span."""


@attrs.frozen(kw_only=True)
class Receipt:
    """A client took a message from a connection."""

    index: int
    time: float
    client: str
    node: int


@attrs.frozen(kw_only=True)
class Sending:
    """A message, from its sender to those that received it."""

    index: int
    """The place of the call that sent it."""
    time: float
    client: str
    node: int
    group: bytes | None
    payload: bytes
    receipts: tuple[Receipt, ...]
    missed: tuple[int, ...]
    """The nodes of members, as its sender saw the group, that are recorded and did not receive it."""
    lost: bool
    """It was reported as lost."""


@attrs.frozen(kw_only=True)
class OperationSpan:
    """An operation of the application."""

    invocation: Invocation
    outcome: Outcome | None
    """`None` if it had not ended."""
    index: int
    """The place of the invocation."""
    began: float
    ended: float


@attrs.frozen(kw_only=True)
class End:
    """The state at the end of a story, or when the test failed."""

    pending: tuple[Call, ...]
    """The calls that had not ended, but for those that wait for nothing."""
    states: Mapping[int, NodeState]
    """The state of each node."""
    views: tuple[GroupSpan, ...]
    """The views of the clients that are members."""
    network: Network
    """The network, as the recorded faults left it."""


@attrs.frozen(kw_only=True)
class Story:
    """A history, told for people."""

    duration: float
    """Seconds from the first entry to the last."""
    dropped: int
    """How many entries the history had before its first one, and dropped."""
    nodes: tuple[int, ...]
    """The ids of all nodes that the history knows."""
    clients: Mapping[str, int | None]
    """All clients, each with its node; `None` for one that is known by its operations only."""
    events: tuple[Event, ...]
    """In the order of the history."""
    node_spans: tuple[NodeSpan, ...]
    group_spans: tuple[GroupSpan, ...]
    sendings: tuple[Sending, ...]
    operations: tuple[OperationSpan, ...]
    end: End
    """The state at the end, or at the failure."""
