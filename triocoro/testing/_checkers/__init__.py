"""Checkers of histories. They know what Corosync promises, and nothing of any implementation."""

from __future__ import annotations

from .._cluster.options import ClusterOptions
from .._history.history import History
from .members import members
from .messages import Messages
from .order import order_violations
from .quorum import quorum_violations
from .views import view_violations
from .violation import Rule as Rule, Violation as Violation


def check(history: History, *, options: ClusterOptions | None = None) -> list[Violation]:
    """What in a history Corosync would not have done; empty if it is in order.

    Rules that need to know something that the history does not have, such as the ring of an event, say nothing.
    docs/histories.md has their definitions.

    Args:
        history: as recorded, not normalised, of all clients of a process or none, and of all who set votes.
        options: how the cluster was configured; without them, what nodes say of quorum is not checked.
    """
    entries = list(history)
    everybody = members(entries)
    messages = Messages(everybody)
    violations = [
        *messages.violations(),
        *order_violations(everybody, messages),
        *view_violations(entries, everybody),
    ]
    if options is not None:
        violations += quorum_violations(entries, options)
    return violations
