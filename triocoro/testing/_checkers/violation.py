"""`Violation`: what a checker reports."""

from __future__ import annotations

from enum import Enum

import attrs

from .._history.entries import Entry
from .._history.operations import Operation


class Rule(Enum):
    """What holds for every history of Corosync; docs/histories.md defines each rule."""

    INTEGRITY = "integrity"
    """Only messages that were sent are delivered, and no more often than they were sent."""
    FIFO = "FIFO"
    """Messages of one sender are delivered in the order in which they were sent."""
    TOTAL_ORDER = "total order"
    """Members of one ring deliver in the same order, without gaps."""
    SELF_DELIVERY = "self-delivery"
    """A member's own messages are delivered to it."""
    VIEW_AGREEMENT = "view agreement"
    """Members of one ring agree on which nodes are in it, and on the members of the group."""
    VIRTUAL_SYNCHRONY = "virtual synchrony"
    """Members that go from one ring to the next together have delivered the same messages."""
    QUORUM = "quorum"
    """Quorum follows from the votes that are present, as in votequorum(5)."""
    LINEARIZABILITY = "linearizability"
    """The results of the application's operations can be explained by one order of them; see `check_linearizable`."""


@attrs.frozen
class Violation:
    """A part of a history that Corosync, or an application that is linearizable, does not produce."""

    rule: Rule
    """The rule that is broken."""
    text: str
    """A sentence that says how."""
    evidence: tuple[Entry | Operation, ...] = attrs.field(repr=False)
    """The fewest entries of the history that show it; for linearizability, the fewest operations."""
    picture: str = attrs.field(default="", repr=False)
    """For linearizability: the operations as a picture."""

    def __str__(self) -> str:
        details = self.picture.splitlines() or map(str, self.evidence)
        return "\n".join([f"{self.rule.value}: {self.text}", *(f"    {line}" for line in details)])
