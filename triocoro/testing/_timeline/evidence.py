"""Where in a history the evidence of a violation is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from .._checkers.violation import Violation
from .._history.entries import Entry, Invocation
from .._history.operations import Operation


class Evidence:
    """Finds the evidence of violations in a history.

    Args:
        entries: the history.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._alike: dict[tuple[object, ...], list[int]] = defaultdict(list)

    def places(self, violation: Violation) -> set[int]:
        """The places of the entries that show a violation; of an operation, that of its beginning."""
        return {place for part in violation.evidence for place in self._places(part)}

    def _places(self, part: Entry | Operation) -> list[int]:
        if isinstance(part, Operation):
            return [part.began] if self._has(part) else []
        if not self._alike:  # there are many entries, and few violations
            for place, entry in enumerate(self._entries):
                self._alike[_key(entry)].append(place)
        return [place for place in self._alike[_key(part)] if self._entries[place] == part]

    def _has(self, operation: Operation) -> bool:
        """Whether an operation is of this history, and not of that of another cluster."""
        began = self._entries[operation.began] if operation.began < len(self._entries) else None
        return isinstance(began, Invocation) and (began.client, began.name) == (operation.client, operation.name)


def _key(entry: Entry) -> tuple[object, ...]:
    """What equal entries have in common, and few others."""
    return type(entry), entry.time, *(getattr(entry, name, None) for name in ("client", "handle", "number"))
