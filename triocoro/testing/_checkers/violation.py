"""What a checker has to say."""

from __future__ import annotations

from enum import Enum

import attrs

from .._history.entries import Entry


class Rule(Enum):
    """What must hold for every history of Corosync; docs/histories.md defines each."""

    INTEGRITY = "integrity"
    """Nothing is delivered that was not sent, nor more often than it was."""
    FIFO = "FIFO"
    """What is delivered of one sender is in the order in which it was sent."""
    TOTAL_ORDER = "total order"
    """Members deliver in the same order in one ring, without gaps."""
    SELF_DELIVERY = "self-delivery"
    """What a member sent comes back to it."""
    VIEW_AGREEMENT = "view agreement"
    """Members in one ring agree on who is in it, and in the group."""
    VIRTUAL_SYNCHRONY = "virtual synchrony"
    """Members that go together from one ring to the next have delivered the same."""
    QUORUM = "quorum"
    """Quorum follows from the votes that are present, as votequorum(5) has it."""


@attrs.frozen
class Violation:
    """Something in a history that Corosync does not do."""

    rule: Rule
    """What it breaks."""
    text: str
    """What is wrong, in a sentence."""
    evidence: tuple[Entry, ...] = attrs.field(repr=False)
    """The fewest entries of the history that show it."""

    def __str__(self) -> str:
        return "\n".join([f"{self.rule.value}: {self.text}", *(f"    {entry}" for entry in self.evidence)])
