"""`check_linearizable`: is there an order of the operations that explains their results?"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, cast

import attrs

from ... import _validate
from .._checkers.violation import Rule, Violation
from .._history.entries import OutcomeStatus
from .._history.operations import Operation
from .._history.undecided import UndecidedError
from .._history.values import show
from .items import Item
from .model import Model
from .picture import draw, show_operation
from .search import Budget, OutOfStepsError, Search, looks_ahead
from .window import find_window


def check_linearizable(
    operations: Iterable[Operation], model: Model[Any], *, budget: int = 5_000_000
) -> list[Violation]:
    """Find results that no order of the operations explains; an empty list if one explains all.

    The operations are *linearizable* if they can be put into one order in which each has the result that it would have
    had if an object had carried them out one after the other, and an operation that ended before another one began
    comes before it. docs/linearizability.md explains it.

    There is at most one violation for each key of the model. Its `evidence` has the operations of the shortest window
    that shows it, and its text a picture of them:

    - The window ends with the first operation to end that nothing explains: all that ended before it has an order.
    - It begins as late as possible. What is in the window contradicts itself, whatever state the object was in before,
      of all those that it could have been in up to the end of the window.
    - Each operation of it is needed: if any but the last one need not have taken effect, there is an order. Operations
      that have not ended by the end of the window, or that began before it, may take effect within it, and are not
      shown.

    The picture shows in which states the object could be before the last operation. If no such window is found within
    a tenth of the budget, there is only that operation.

    Args:
        operations: what `History.operations` returns, or a part of it: all operations on the object. They are ordered
            by index, never by time. Those without an outcome may take effect at any time after they began, or never.
        model: what the object does, such as `models.Map`.
        budget: how many steps of the model the search may take for each key. A million take a second or two.

    Raises:
        UndecidedError: the budget did not suffice for a key, and no other key had a violation.
        ValueError: the model has no such operation, an operation ended before it began, or the budget is not positive.
        TypeError: one of the operations is none, its arguments do not go with the model, or there is no model.
    """
    parts = _parts(operations, model)
    _validate.positive(budget, "budget")
    violations: list[tuple[int, Violation]] = []
    undecided: list[Hashable] = []
    for key, items in parts.items():
        search = Search(model, items, [model.initial], Budget(budget), explains=not looks_ahead(model))
        try:
            is_linearizable = search.run()
        except OutOfStepsError:
            undecided.append(key)
        else:
            if not is_linearizable:
                violations.append(_violation(model, key, items, search, budget))
    if undecided and not violations:
        of_key = "" if undecided == [None] else f" of {', '.join(map(repr, undecided[:3]))}"
        raise UndecidedError(
            f"{budget} steps did not suffice to tell whether the operations{of_key} are linearizable; pass a larger"
            " budget, or let fewer clients use one key at a time"
        )
    return [violation for _, violation in sorted(violations, key=lambda pair: pair[0])]


def _parts(operations: Iterable[Operation], model: Model[Any]) -> dict[Hashable, list[Item]]:
    """The operations by key, in the order in which they began."""
    if isinstance(model, type) or not callable(getattr(model, "step", None)):
        raise TypeError(f"model must be a Model, such as models.Map(), not {model!r}")
    parts: dict[Hashable, list[Item]] = {}
    for source in sorted(map(_checked, operations), key=lambda operation: operation.began):
        if source.status is OutcomeStatus.REFUSED:
            continue
        operation = attrs.evolve(source, arguments=_hashable(source.arguments), result=_hashable(source.result))
        has_ended = operation.ended is not None
        key = model.key(operation)
        is_read = model.is_read(operation)
        if is_read and not has_ended:
            continue  # it means nothing
        parts.setdefault(key, []).append(
            Item(
                operation,
                source,
                is_read=is_read,
                overwrites=model.overwrites(operation),
                is_required=has_ended,
            )
        )
    return parts


def _checked(operation: Operation) -> Operation:
    if not isinstance(operation, Operation):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
        raise TypeError(
            f"check_linearizable takes operations, as History.operations() returns them, not {type(operation).__name__}"
        )
    if operation.ended is not None and operation.ended < operation.began:
        raise ValueError(f"it ended before it began: {operation}")
    return operation


class _HashableDict(dict[str, Any]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


def _hashable(value: Any) -> Any:  # noqa: ANN401 - values of any type
    if isinstance(value, (tuple, list)):
        return tuple(_hashable(item) for item in cast("Iterable[Any]", value))
    if isinstance(value, Mapping):
        return _HashableDict({key: _hashable(item) for key, item in cast("Mapping[str, Any]", value).items()})
    return value


def _violation(
    model: Model[Any], key: Hashable, items: list[Item], search: Search, budget: int
) -> tuple[int, Violation]:
    """The violation that there is, and the index at which the operation begins that shows it."""
    of_key = "" if key is None else f" (key {show(key)})"
    if not search.explains:
        search = Search(model, items, [model.initial], Budget(budget), explains=True)
        try:
            search.run()
        except OutOfStepsError:
            text = f"no order of operations explains all results{of_key}; within the budget, no window was found"
            return items[0].began, Violation(Rule.LINEARIZABILITY, text, tuple(item.source for item in items))
    last = search.points[search.furthest].item
    window = find_window(model, items, search, Budget(budget // 10))
    text = f"{show_operation(last.source)} of {last.source.client}{of_key}: no order of operations explains it"
    picture = draw(window, search, others=len(items) - len(window))
    return last.began, Violation(Rule.LINEARIZABILITY, text, tuple(item.source for item in window), picture)
