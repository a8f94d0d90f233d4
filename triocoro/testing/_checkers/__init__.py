"""Checkers of histories. They know what Corosync promises, and nothing about any implementation."""

from __future__ import annotations

from ... import _validate
from .._cluster.options import ClusterOptions
from .._history.history import History, check_history, check_whole
from .members import members
from .messages import MessageChecker
from .order import check_order
from .quorum import check_quorum
from .views import check_views
from .violation import Rule as Rule, Violation as Violation


def check(history: History, *, options: ClusterOptions | None = None) -> list[Violation]:
    """Find what Corosync would not have done; an empty list if the history is fine.

    Where the history does not show what a rule depends on, such as the ring of an event, the rule is not applied.
    docs/histories.md defines the rules.

    Args:
        history: a history as it was recorded, not normalised. For each process, either all of its clients were
            recorded or none. All clients that set votes were recorded.
        options: how the cluster was configured. Without them, quorum is not checked. Leave them out if nodes were
            added or removed meanwhile.

    Raises:
        UndecidedError: the history has lost its first entries, which may explain what seems to be wrong.
        TypeError: the history or the options are none.
    """
    check_history(history)
    check_whole(history)
    if options is not None:
        _validate.instance(options, ClusterOptions, "options")
    entries = list(history)
    everyone = members(entries)
    messages = MessageChecker(everyone)
    violations = [
        *messages.check(),
        *check_order(everyone, messages),
        *check_views(entries, everyone),
    ]
    if options is not None:
        violations += check_quorum(entries, options)
    return violations
