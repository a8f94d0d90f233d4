"""The search for an order of operations that explains all results.

Each operation takes effect at once, at some time between its beginning and its end. An order of these times is a
*linearization*. The search is that of Wing and Gong, with the improvements of Lowe ("Testing for linearizability",
2017):

- An operation takes effect as late as possible: just before an end, its own or that of another one that needs it. So
  the search goes from one end to the next, and only operations that go on at that time are tried there.
- A *configuration* is a state, with the operations that go on and have taken effect. Each is tried once.

Further rules keep the number of configurations small, and do not lose a linearization:

- A read that fits the state takes effect at once: it changes nothing, and may have no better chance.
- When an operation overwrites the state, each other one that goes on and overwrites may have taken effect right before,
  unseen. From then on it is *free*: it need not take effect any more, but may.
- A configuration is left out if there was one with the same state that can do all that this one can.
- At an end, few further operations are tried before many, and none if even all of them together, each as often as one
  likes, lead to no state that fits the operation that ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, Final, TypeAlias

import attrs

from .items import Item, lay_out
from .model import Model

Trail: TypeAlias = "tuple[Item, int, Trail] | None"
"""What has taken effect: the last item, the number of the point before which it did, and what came before it."""

_MAX_CLOSURE: Final = 10
"""How many states are looked at, besides those of overwriting items, to see that an operation cannot take effect."""


@attrs.frozen(eq=False)
class Configuration:
    """Where the search has come to."""

    state: Any
    """The state of the object."""
    done: int = 0
    """The required items that go on and have taken effect."""
    free: int = 0
    """Those that have not, and need not."""
    spent: int = 0
    """The items that are not required, go on, and have taken effect."""
    trail: Trail = None
    """How it came to be."""

    def can_do_all_of(self, other: Configuration) -> bool:
        """Whether this is no worse than another one with the same state at the same point."""
        differs = (self.done ^ other.done) | other.free
        return not differs & ~self.free and not self.spent & ~other.spent


class OutOfStepsError(Exception):
    """The budget is spent."""


@attrs.define
class Budget:
    """How many steps of a model may still be taken."""

    steps: int

    def spend(self, steps: int = 1) -> None:
        """Take some.

        Raises:
            OutOfStepsError: there are not so many.
        """
        self.steps -= steps
        if self.steps < 0:
            raise OutOfStepsError


@attrs.define(eq=False)
class _Frame:
    """The configurations at one point that are still to be tried."""

    number: int
    queue: deque[Configuration]
    tried: Configuration | None = None
    """A configuration in which the point's item has been tried as the next one, but no other item before it."""
    is_expanded: bool = False
    """Whether other items have been tried."""


def looks_ahead(model: Model[Any]) -> bool:
    """Whether a model knows what states may lead to."""
    return getattr(type(model), "can_lead_to", None) is not Model[Any].can_lead_to


class Search:
    """Searches for a linearization.

    Args:
        model: how the object behaves.
        items: the operations.
        starts: the states in which the object may be before them.
        budget: how many steps may be taken.
        explains: do not use what is known of later ends, which is slower. If there is no linearization, the last point
            that is reached is then the first one that nothing explains.
    """

    def __init__(
        self,
        model: Model[Any],
        items: Iterable[Item],
        starts: Iterable[Hashable],
        budget: Budget,
        *,
        explains: bool = False,
    ) -> None:
        self._model: Final = model
        self._starts: Final = starts
        self._budget: Final = budget
        self.explains: Final = explains
        self.points, self._endless = lay_out(items)
        self._seen: list[dict[tuple[int, Any], list[Configuration]]] = [{} for _ in self.points]
        self._frames: list[_Frame] = []
        self._looks_ahead: Final = looks_ahead(model)
        self.furthest = -1
        """The number of the last point that was reached; if the search explains, nothing explains its item."""
        self.trail: Trail = None
        """An order up to there."""

    def states(self) -> dict[Any, None]:
        """All states that were found, in the order of the operations."""
        return dict.fromkeys(state for seen in self._seen for _, state in seen)

    def last_states(self) -> dict[Any, None]:
        """The states that were found at the last point."""
        return dict.fromkeys(state for _, state in self._seen[self.furthest])

    def run(self) -> bool:
        """Whether there is a linearization.

        Raises:
            OutOfStepsError: the budget is spent, and it is not known.
            others: those of the model.
        """
        return any(self._go_on(0, Configuration(start)) or self._search() for start in self._starts)

    def _search(self) -> bool:
        frames = self._frames
        while frames:
            frame = frames[-1]
            if frame.tried is not None:
                self._expand(frame, frame.tried)
                frame.tried = None
            elif frame.queue:
                frame.tried = configuration = frame.queue.popleft()
                if self._try_item(frame, configuration):
                    return True
            else:
                frames.pop()
        return False

    def _try_item(self, frame: _Frame, now: Configuration) -> bool:
        """Go on after the frame's point; if its item has not taken effect, let it do so."""
        number = frame.number
        item = self.points[number].item
        if item.is_required:
            has_effect, may_miss = now.done & item.bit, now.free & item.bit
        else:
            has_effect, may_miss = now.spent & item.bit, True
        if (has_effect or may_miss) and self._go_on(number + 1, self._without(item, now)):
            return True
        if has_effect:
            frame.tried = None  # what others do can wait for the next point
            return False
        return not item.is_read and any(
            self._go_on(number + 1, self._without(item, further)) for further in self._take(number, now, item)
        )

    def _expand(self, frame: _Frame, now: Configuration) -> None:
        """Let another item take effect before that of the frame's point."""
        if not frame.is_expanded and not self._may_fit(frame.number, now):
            frame.queue.clear()
            return
        frame.is_expanded = True
        for item in self._candidates(frame.number, now):
            for further in self._take(frame.number, now, item):
                if self._is_new(frame.number, further) and self._has_prospects(frame.number, further):
                    frame.queue.append(further)

    def _candidates(self, number: int, now: Configuration) -> Iterator[Item]:
        """The items that may take effect before the item of a point."""
        point = self.points[number]
        for item in point.others:
            if not (now.done if item.is_required else now.spent) & item.bit:
                yield item
        for index in range(point.endless):
            item = self._endless[index]
            if not now.spent & item.bit:
                yield item

    def _has_prospects(self, number: int, now: Configuration) -> bool:
        """Whether the model thinks that reads may yet fit."""
        if not self._looks_ahead:
            return True
        point = self.points[number]
        if self.explains:
            reads = [point.item] if point.item.is_read else []
        else:
            reads = [*point.reads, *([] if point.next_read is None else [point.next_read])]
        self._budget.spend(len(reads))
        return all(now.done & read.bit or self._model.can_lead_to(now.state, read.operation) for read in reads)

    def _may_fit(self, number: int, now: Configuration) -> bool:
        """Whether the item of a point could take effect after others, each of them as often as one likes."""
        item = self.points[number].item
        if self._step(now.state, item):
            return True
        candidates = [*self._candidates(number, now)]
        states = {now.state: None}
        room = _MAX_CLOSURE
        for state in (waiting := [now.state]):
            for candidate in candidates:
                if candidate.overwrites and state is not now.state:
                    continue  # it leaves the same here
                for after in self._step(state, candidate):
                    if after in states:
                        continue
                    room -= not candidate.overwrites
                    if not room or self._step(after, item):
                        return True
                    states[after] = None
                    waiting.append(after)
        return False

    def _take(self, number: int, now: Configuration, item: Item) -> Iterator[Configuration]:
        """Let an item take effect before a point; and then all reads that fit."""
        point = self.points[number]
        done, free, spent = now.done, now.free, now.spent
        if item.overwrites:
            free |= point.overwriting & ~done
        if item.is_required:
            done, free = done | item.bit, free & ~item.bit
        else:
            spent |= item.bit
        for state in self._step(now.state, item):
            further = Configuration(state, done, free, spent, (item, number, now.trail))
            yield self._with_reads(point.reads, number, further)

    @staticmethod
    def _without(item: Item, now: Configuration) -> Configuration:
        """An item has ended."""
        if item.is_required:
            return attrs.evolve(now, done=now.done & ~item.bit, free=now.free & ~item.bit)
        return attrs.evolve(now, spent=now.spent & ~item.bit)

    def _go_on(self, number: int, now: Configuration) -> bool:
        """Go to the first point from `number` on whose item has not taken effect; True if there is none."""
        points = self.points
        while number < len(points):
            point = points[number]
            if point.fresh_reads:
                now = self._with_reads(point.fresh_reads, number, now)
            if not (point.item.is_required and now.done & point.item.bit):
                break
            now = self._without(point.item, now)
            number += 1
        else:
            return True
        if number > self.furthest:
            self.furthest, self.trail = number, now.trail
        if self._is_new(number, now) and self._has_prospects(number, now):
            self._frames.append(_Frame(number, deque([now])))
        return False

    def _with_reads(self, reads: Iterable[Item], number: int, now: Configuration) -> Configuration:
        """Let all reads take effect that fit the state."""
        done, trail = now.done, now.trail
        for read in reads:
            if not done & read.bit and self._step(now.state, read):
                done |= read.bit
                trail = read, number, trail
        return now if done == now.done else attrs.evolve(now, done=done, trail=trail)

    def _is_new(self, number: int, now: Configuration) -> bool:
        """Whether a configuration is to be tried; then it counts as known."""
        key = now.done & ~self.points[number].overwriting, now.state
        known = self._seen[number].setdefault(key, [])
        if any(other.can_do_all_of(now) for other in known):
            return False
        known.append(now)
        return True

    def _step(self, state: Any, item: Item) -> tuple[Any, ...]:  # noqa: ANN401 - states are of any type
        self._budget.spend()
        return tuple(self._model.step(state, item.operation))
