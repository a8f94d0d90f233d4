"""The map of one daemon, and who wants to hear of changes in it: exec/icmap.c."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from ...._types import CmapChange, CmapTrack, CmapType, CmapValue, TypedValue

_BITS: Final = {
    CmapType.INT8: 8,
    CmapType.UINT8: 8,
    CmapType.INT16: 16,
    CmapType.UINT16: 16,
    CmapType.INT32: 32,
    CmapType.UINT32: 32,
    CmapType.INT64: 64,
    CmapType.UINT64: 64,
}

_SIGNED: Final = frozenset({CmapType.INT8, CmapType.INT16, CmapType.INT32, CmapType.INT64})


@attrs.frozen(eq=False)
class Tracker:
    """Somebody who wants to hear of changes."""

    key: str
    """The key, or the prefix; none if it is empty."""
    track_type: CmapTrack
    """What to tell of."""
    notify: Callable[[CmapChange], None]
    """Takes the news."""


class Trackers:
    """All trackers of a map, called in the order in which libqb's trie does."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[Tracker]] = {}

    def add(self, tracker: Tracker) -> None:
        """Call this one from now on."""
        trackers = self._by_key.setdefault(tracker.key, [])
        # Of those with one key: first those of the key alone, the latest first, then those of the prefix as they came.
        if tracker.key and CmapTrack.PREFIX in tracker.track_type:
            trackers.append(tracker)
        else:
            trackers.insert(0, tracker)

    def remove(self, tracker: Tracker) -> None:
        """Call it no more."""
        trackers = self._by_key[tracker.key]
        trackers.remove(tracker)
        if not trackers:
            del self._by_key[tracker.key]

    def notify(self, event: CmapTrack, key: str, *, new: TypedValue | None, old: TypedValue | None) -> None:
        """Tell those who want to hear of it, the longest prefix first."""
        for prefix in sorted(filter(key.startswith, self._by_key), key=len, reverse=True):
            for tracker in tuple(self._by_key[prefix]):
                if event in tracker.track_type and (prefix == key or CmapTrack.PREFIX in tracker.track_type):
                    tracker.notify(
                        CmapChange(
                            event,
                            key,
                            new=None if new is None else new.value,
                            old=None if old is None else old.value,
                            new_type=None if new is None else new.type,
                            old_type=None if old is None else old.type,
                        )
                    )


class Icmap:
    """Keys with typed values, in the order of the keys. Keys and values come validated."""

    def __init__(self) -> None:
        self._items: dict[str, TypedValue] = {}
        self._trackers = Trackers()
        self._read_only: set[str] = set()
        self._read_only_prefixes: tuple[str, ...] = ()

    def load(self, items: Iterable[tuple[str, TypedValue]]) -> None:
        """Give many keys values before anybody can hear of it."""
        self._items.update(items)

    def get(self, key: str) -> TypedValue | None:
        """The value of a key, if there is such a key."""
        return self._items.get(key)

    def set(self, key: str, type_: CmapType, value: CmapValue) -> None:
        """Give a key a value. If it has that one already nobody hears of it; another type is a change."""
        new = TypedValue(type_, value)
        old = self._items.get(key)
        if old is not None and _same(old, new):
            return
        self._items[key] = new
        self._trackers.notify(CmapTrack.ADD if old is None else CmapTrack.MODIFY, key, new=new, old=old)

    def delete(self, key: str) -> bool:
        """Remove a key; returns whether there was one."""
        old = self._items.get(key)
        if old is not None:
            # The services that hear of it still find the key.
            self._trackers.notify(CmapTrack.DELETE, key, new=None, old=old)
            del self._items[key]
        return old is not None

    def adjust(self, key: str, step: int) -> bool:
        """Add `step` to a key that is an integer, which wraps around; returns whether there was one."""
        old = self._items.get(key)
        if old is None or not isinstance(old.value, int):
            return False
        self.set(key, old.type, _wrapped(old.type, old.value + step))
        return True

    def items(self, prefix: str = "") -> Sequence[tuple[str, TypedValue]]:
        """What there is under the keys that begin with `prefix`, in order."""
        return [(key, self._items[key]) for key in sorted(key for key in self._items if key.startswith(prefix))]

    def track(self, tracker: Tracker) -> None:
        """Have changes told to this tracker."""
        self._trackers.add(tracker)

    def untrack(self, tracker: Tracker) -> None:
        """Have no more told to it."""
        self._trackers.remove(tracker)

    def protect(self, *, keys: Iterable[str] = (), prefixes: Iterable[str] = ()) -> None:
        """Have `is_read_only` say that clients may not change these; `set` and `delete` do not look there."""
        self._read_only.update(keys)
        self._read_only_prefixes += tuple(prefixes)

    def is_read_only(self, key: str) -> bool:
        """Whether clients may not change that key."""
        return key in self._read_only or key.startswith(self._read_only_prefixes)


def _wrapped(type_: CmapType, number: int) -> int:
    """A number as an integer type of that width keeps it."""
    bits = _BITS[type_]
    number %= 1 << bits
    return number - (1 << bits) if type_ in _SIGNED and number >> (bits - 1) else number


def _same(old: TypedValue, new: TypedValue) -> bool:
    """Whether they are equal bit by bit, as Corosync sees it: -0.0 is not 0.0, and a NaN is itself."""
    if isinstance(old.value, float) and isinstance(new.value, float):
        return old.type is new.type and struct.pack("d", old.value) == struct.pack("d", new.value)
    return old == new
