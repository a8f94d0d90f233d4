"""The map of one daemon and the trackers of its changes: exec/icmap.c."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import attrs

from ...._enums import CmapTrack, CmapType
from ...._types import CmapChange, CmapValue, TypedValue

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
class MapTracker:
    """A subscription to changes of one key, or of all keys with a prefix."""

    key: str
    """The key or prefix; an empty one stands for all keys if it is a prefix, else for none."""
    track_type: CmapTrack
    """Which changes to report, and whether `key` is a prefix."""
    notify: Callable[[CmapChange], None]
    """Called with each change."""


class MapTrackers:
    """All trackers of a map. They are notified in the same order as by libqb's trie."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[MapTracker]] = {}

    def add(self, tracker: MapTracker) -> None:
        """Notify this tracker from now on."""
        trackers = self._by_key.setdefault(tracker.key, [])
        # Trackers of the key alone come first, the latest in front; then those of the prefix, the oldest in front.
        if tracker.key and CmapTrack.PREFIX in tracker.track_type:
            trackers.append(tracker)
        else:
            trackers.insert(0, tracker)

    def remove(self, tracker: MapTracker) -> None:
        """Stop notifying this tracker."""
        trackers = self._by_key[tracker.key]
        trackers.remove(tracker)
        if not trackers:
            del self._by_key[tracker.key]

    def notify(self, event: CmapTrack, key: str, *, new: TypedValue | None, old: TypedValue | None) -> None:
        """Notify the trackers of a change of `key`, those with the longest prefix first."""
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
    """A map of keys to typed values. The caller validates keys and values."""

    def __init__(self) -> None:
        self._items: dict[str, TypedValue] = {}
        self._trackers = MapTrackers()
        self._read_only: set[str] = set()
        self._read_only_prefixes: tuple[str, ...] = ()

    def load(self, items: Iterable[tuple[str, TypedValue]]) -> None:
        """Set many keys without notifying trackers."""
        self._items.update(items)

    def get(self, key: str) -> TypedValue | None:
        """The value of a key; `None` if the key does not exist."""
        return self._items.get(key)

    def set(self, key: str, type_: CmapType, value: CmapValue) -> None:
        """Set a key. Trackers are notified unless both value and type stay the same."""
        new = TypedValue(type_, value)
        old = self._items.get(key)
        if old is not None and _same(old, new):
            return
        self._items[key] = new
        self._trackers.notify(CmapTrack.ADD if old is None else CmapTrack.MODIFY, key, new=new, old=old)

    def delete(self, key: str) -> bool:
        """Remove a key; returns whether it existed."""
        old = self._items.get(key)
        if old is not None:
            # Trackers within the daemon still find the key.
            self._trackers.notify(CmapTrack.DELETE, key, new=None, old=old)
            del self._items[key]
        return old is not None

    def adjust(self, key: str, step: int) -> bool:
        """Add `step` to an integer, which wraps around; returns whether the key exists and is an integer."""
        old = self._items.get(key)
        if old is None or not isinstance(old.value, int):
            return False
        self.set(key, old.type, _wrapped(old.type, old.value + step))
        return True

    def items(self, prefix: str = "") -> Sequence[tuple[str, TypedValue]]:
        """The keys that begin with `prefix`, in order, with their values."""
        keys = [key for key in self._items if key.startswith(prefix)]
        return [(key, self._items[key]) for key in sorted(keys)]

    def track(self, tracker: MapTracker) -> None:
        """Notify a tracker of changes."""
        self._trackers.add(tracker)

    def untrack(self, tracker: MapTracker) -> None:
        """Stop notifying a tracker."""
        self._trackers.remove(tracker)

    def protect(self, *, keys: Iterable[str] = (), prefixes: Iterable[str] = ()) -> None:
        """Declare keys read-only for clients. Only `is_read_only` says so; `set` and `delete` do not check."""
        self._read_only.update(keys)
        self._read_only_prefixes += tuple(prefixes)

    def is_read_only(self, key: str) -> bool:
        """Whether a key is read-only for clients."""
        return key in self._read_only or key.startswith(self._read_only_prefixes)


def _wrapped(type_: CmapType, number: int) -> int:
    """A number wrapped around to the range of an integer type."""
    bits = _BITS[type_]
    number %= 1 << bits
    return number - (1 << bits) if type_ in _SIGNED and number >> (bits - 1) else number


def _same(old: TypedValue, new: TypedValue) -> bool:
    """Whether two values are equal bit by bit, as Corosync compares them: -0.0 is not 0.0, and a NaN equals itself."""
    if isinstance(old.value, float) and isinstance(new.value, float):
        return old.type is new.type and struct.pack("d", old.value) == struct.pack("d", new.value)
    return old == new
