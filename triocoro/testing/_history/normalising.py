"""New names for what differs from run to run: pids, rings and times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

import attrs

from ..._types import Address, RingId
from .entries import Entry, Return


def normalised(entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries with pids, rings and times that depend on nothing but their order."""
    names = _Names()
    for position, entry in enumerate(entries, start=1):
        renamed = attrs.evolve(cast("Entry", names.renamed(entry)), time=position)
        yield attrs.evolve(renamed, waiting=False) if isinstance(renamed, Return) else renamed


class _Names:
    """Numbers pids and rings in the order in which they appear."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        self._rings: dict[RingId, int] = {}

    def renamed(self, value: object) -> object:
        """A copy of a value with the new names, at any depth."""
        if isinstance(value, Address):
            return Address(value.nodeid, self._pids.setdefault(value.pid, len(self._pids) + 1))
        if isinstance(value, RingId):
            # 0 stands for no ring: a daemon reports it until its first one has formed.
            return RingId(value.nodeid, self._rings.setdefault(value, len(self._rings) + 1)) if value.seq else value
        if isinstance(value, tuple):
            items = [self.renamed(item) for item in cast("tuple[object, ...]", value)]
            # Lists of members are sorted by pid, and the pids have changed.
            if all(isinstance(item, Address) for item in items):
                items.sort(key=lambda item: attrs.astuple(cast("Address", item)))
            return tuple(items)
        if isinstance(value, Mapping):
            return {key: self.renamed(item) for key, item in cast("Mapping[str, object]", value).items()}
        if attrs.has(type(value)):
            fields = attrs.fields(cast("type[attrs.AttrsInstance]", type(value)))
            return type(value)(**{field.name: self.renamed(getattr(value, field.name)) for field in fields})
        return value
