"""Operations as the search sees them: their ends, what goes on at each, and which bits stand for them."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Sequence

import attrs

from .._history.operations import Operation


@attrs.define(eq=False)
class Item:
    """An operation, and how the search treats it."""

    operation: Operation
    """Its values can be hashed."""
    source: Operation
    """The operation as it was given."""
    is_read: bool
    """Whether it has a result, and never changes the state."""
    overwrites: bool
    """Whether what it leaves does not depend on the state before."""
    is_required: bool
    """Whether it took effect. One that is not required may have done so between its beginning and its end."""
    bit: int = 0
    """A bit that stands for it while it goes on, among those of the items that are as required as this one."""

    @property
    def began(self) -> int:
        """The index of its beginning."""
        return self.operation.began

    @property
    def end(self) -> float:
        """The index of its end; infinite if it has none."""
        return math.inf if self.operation.ended is None else self.operation.ended


@attrs.define(eq=False)
class Point:
    """The end of an item: by then, it has taken effect."""

    item: Item
    reads: tuple[Item, ...]
    """The reads that go on."""
    fresh_reads: tuple[Item, ...]
    """Those of them that have begun since the point before."""
    others: tuple[Item, ...]
    """The other items that go on, those first that end first, without `item` and without those that never end."""
    overwriting: int
    """The bits of the required ones among all items that go on, and overwrite."""
    endless: int
    """How many of the items that never end have begun."""
    next_read: Item | None = None
    """The first read that begins later."""


def lay_out(items: Iterable[Item]) -> tuple[list[Point], Sequence[Item]]:
    """The points in their order, and the items that never end. Sets the bits of all items.

    A bit is used again after the end of its item, so sets of items that go on are small numbers.
    """
    events = sorted(_events(items), key=lambda event: event[:2])
    free: tuple[list[int], list[int]] = ([], [])
    used = [0, 0]
    points: list[Point] = []
    endless: list[Item] = []
    pending: list[Item] = []
    fresh: list[Item] = []
    for _, is_end, item in events:
        kind = int(item.is_required)
        if not is_end:
            if free[kind]:
                bit = heapq.heappop(free[kind])
            else:
                bit, used[kind] = used[kind], used[kind] + 1
            item.bit = 1 << bit
            if item.end == math.inf:
                endless.append(item)
                continue
            pending.append(item)
            if item.is_read:
                fresh.append(item)
            continue
        others = sorted(
            (other for other in pending if other is not item and not other.is_read), key=lambda other: other.end
        )
        reads = tuple(other for other in pending if other.is_read)
        overwriting = sum(other.bit for other in pending if other.is_required and other.overwrites)
        points.append(Point(item, reads, tuple(fresh), tuple(others), overwriting, len(endless)))
        pending.remove(item)
        fresh = []
        heapq.heappush(free[kind], item.bit.bit_length() - 1)
    later = deque(item for _, is_end, item in events if item.is_read and not is_end)
    for point in points:
        while later and later[0].began < point.item.end:
            later.popleft()
        point.next_read = later[0] if later else None
    return points, endless


def _events(items: Iterable[Item]) -> Iterable[tuple[float, bool, Item]]:
    for item in items:
        yield item.began, False, item
        if item.end < math.inf:
            yield item.end, True, item
