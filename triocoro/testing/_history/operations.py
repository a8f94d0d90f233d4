"""The application's own operations: how they are recorded, and read from a history."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final

import attrs

from . import json_lines
from .entries import Entry, Invocation, Outcome, OutcomeStatus
from .values import immutable, show

_REFUSALS: Final = frozenset({"NotCommittedError", "NotPrimaryError"})
"""Errors of the recipes that say that nothing has happened, and that nothing will."""


@attrs.define
class OperationResult:
    """The result of an operation under way. Set `result` before its block ends."""

    result: Any = None
    """What the operation returned: plain values, as in JSON, bytes, and values of triocoro."""


@attrs.frozen(kw_only=True)
class Operation:
    """An operation of the application, from its beginning to its end."""

    client: str
    """Who carried it out."""
    name: str
    """What it does, such as ``put``."""
    arguments: tuple[Any, ...] = attrs.field(default=(), repr=show)
    """Its arguments."""
    result: Any = attrs.field(default=None, repr=show)
    """What it returned."""
    status: OutcomeStatus = OutcomeStatus.RETURNED
    """RETURNED, or UNKNOWN if it was cancelled, failed in a way that does not tell, or has not ended."""
    began: int
    """The index of its beginning among the entries of the history. Operations are ordered by these, not by time."""
    ended: int | None
    """The index of its end; `None` if the status is UNKNOWN: it may take effect at any time after its beginning."""

    def may_return(self, result: object) -> bool:
        """Whether `result` agrees with what is known: it is the operation's result, or the operation has none."""
        return self.ended is None or bool(self.result == result)


@contextmanager
def recorded(
    append: Callable[[Entry], None],
    clock: Callable[[], float],
    invocation: Invocation,
    refused: tuple[type[BaseException], ...],
) -> Generator[OperationResult, None, None]:
    """Record an operation that takes place within the block."""
    json_lines.check(invocation.arguments)
    append(invocation)
    operation = OperationResult()

    def end(status: OutcomeStatus, *, result: object = None, error: str | None = None) -> None:
        append(
            Outcome(
                time=clock(),
                client=invocation.client,
                node=invocation.node,
                number=invocation.number,
                status=status,
                result=result,
                error=error,
            )
        )

    try:
        yield operation
        result = immutable(operation.result)
        json_lines.check(result)
    except BaseException as exc:
        never = isinstance(exc, refused) or type(exc).__name__ in _REFUSALS
        end(OutcomeStatus.REFUSED if never else OutcomeStatus.UNKNOWN, error=type(exc).__name__)
        raise
    end(OutcomeStatus.RETURNED, result=result)


def operations(entries: Iterable[Entry]) -> list[Operation]:
    """The operations in the order in which they began, without those that were refused."""
    found: dict[tuple[str, int], Operation] = {}
    for index, entry in enumerate(entries):
        if isinstance(entry, Invocation):
            found[entry.client, entry.number] = Operation(
                client=entry.client,
                name=entry.name,
                arguments=entry.arguments,
                status=OutcomeStatus.UNKNOWN,
                began=index,
                ended=None,
            )
        elif isinstance(entry, Outcome) and (key := (entry.client, entry.number)) in found:
            if entry.status is OutcomeStatus.REFUSED:
                del found[key]
            elif entry.status is OutcomeStatus.RETURNED:
                found[key] = attrs.evolve(found[key], result=entry.result, status=entry.status, ended=index)
    return list(found.values())
