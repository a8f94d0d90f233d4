"""The shortest window of operations that shows a violation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs

from .items import Item
from .model import Model
from .search import Budget, OutOfStepsError, Search

_SHARE: Final = 20_000
"""How many steps of its budget it takes for a window at most."""


def find_window(model: Model[Any], items: list[Item], failed: Search, budget: Budget) -> list[Item]:
    """The operations of the shortest window that is not linearizable; the last one ends it.

    Args:
        model: how the object behaves.
        items: the operations, in the order in which they began.
        failed: a search among them that has found no linearization.
        budget: how many steps may be taken. If they do not suffice, the window has only the last operation.
    """
    last = failed.points[failed.furthest].item
    end = last.end
    items = [item for item in items if item.began < end]
    starts = [*failed.states()]

    def is_violation(required: list[Item], since: int) -> bool:
        """Whether it is known that a window has no order, if only some of its items are required."""
        chosen = set(required)
        within = [
            attrs.evolve(item, is_required=item in chosen)
            for item in items
            # A read that is not required means nothing.
            if item in chosen or (not item.is_read and item.end > since)
        ]
        budget.spend(len(items))
        share = Budget(given := min(_SHARE, budget.steps))
        try:
            return not Search(model, within, starts, share).run()
        except OutOfStepsError:
            return False
        finally:
            budget.spend(given - max(share.steps, 0))

    ended = [item for item in items if item.is_required and item.end <= end]
    try:
        for window, since in _windows(ended, last):
            if is_violation(window, since):
                return _needed(window, last, partial(is_violation, since=since))
    except OutOfStepsError:
        pass
    return [last]


def _needed(window: list[Item], last: Item, is_violation: Callable[[list[Item]], bool]) -> list[Item]:
    """Leave out what the violation does not need."""
    with suppress(OutOfStepsError):
        for item in [item for item in window if item is not last]:
            fewer = [other for other in window if other is not item]
            if is_violation(fewer):
                window = fewer
    return sorted(window, key=lambda item: (item is last, item.began))


def _windows(items: list[Item], last: Item) -> Iterable[tuple[list[Item], int]]:
    """The windows that end with `last`, and the indices where they begin, the shortest first."""
    for first in reversed(items):
        if first.began <= last.began:
            yield [item for item in items if item.began >= first.began], first.began
