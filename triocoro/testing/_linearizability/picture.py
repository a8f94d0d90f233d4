"""A window of operations as a picture in text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .._history.operations import Operation
from .._history.values import show
from .items import Item
from .search import Search

_WIDTH: Final = 96
_MAX_CLIENT: Final = 14
_MAX_CALL: Final = 40
_MAX_STATE: Final = 52
_MAX_STATES: Final = 2
_MAX_ITEMS: Final = 20
_MAX_STEP: Final = 4
"""How many columns there are at most from one event to the next."""


def draw(window: Sequence[Item], search: Search, *, others: int) -> str:
    """Draw a line for each operation, by client.

    Args:
        window: the operations; the last one is the one that nothing explains.
        search: the search that has failed.
        others: how many further operations there are.
    """
    drawn = window[-_MAX_ITEMS:]
    places = _places(drawn, search)
    return "\n".join([*_bars(drawn, places), *_notes(search, len(window) - len(drawn), others)])


def show_operation(operation: Operation, *, result: bool = True, width: int = _MAX_CALL) -> str:
    """An operation as a call, shortened.

    Args:
        operation: the operation.
        result: show the result even if it is None.
        width: how many characters there may be.
    """
    arguments = ", ".join(map(show, operation.arguments))
    returned = f" -> {show(operation.result)}" if result or operation.result is not None else ""
    return _shortened(f"{operation.name}({arguments}){returned}", width)


_Places = Mapping[tuple[Item, str], int]
"""At which of the events of the picture an operation begins ("["), takes effect ("*") and ends ("]")."""


def _bars(items: Sequence[Item], places: _Places) -> list[str]:
    last = items[-1]
    first_began: dict[str, int] = {}
    for item in items:
        first_began.setdefault(item.source.client, item.began)
    rows = sorted(items, key=lambda item: (first_began[item.source.client], item.began))
    clients = [_shortened(item.source.client, _MAX_CLIENT) for item in rows]
    calls = [show_operation(item.source, result=item.is_read or item is last, width=_MAX_CALL) for item in rows]
    client_width, call_width = max(map(len, clients)), max(map(len, calls))
    step = max(1, min(_MAX_STEP, (_WIDTH - client_width - call_width - 4) // len(places)))
    lines: list[str] = []
    for number, (item, client, call) in enumerate(zip(rows, clients, calls, strict=True)):
        is_same = number > 0 and rows[number - 1].source.client == item.source.client
        marks = {places[item, mark] * step: mark for mark in "[*]" if (item, mark) in places}
        began, ended = min(marks), max(marks)
        if item is last:
            marks[ended] = "X"
        bar = "".join(marks.get(column, "-") for column in range(began, ended + 1))
        lines.append(f"{'' if is_same else client:<{client_width}}  {call:<{call_width}}  {' ' * began}{bar}")
    return lines


def _notes(search: Search, undrawn: int, others: int) -> list[str]:
    states = [*search.last_states()]
    if len(states) == 1:
        shown = f"only be {_shortened(show(states[0]), _MAX_STATE)}"
    else:
        shown = f"be {' or '.join(_shortened(show(state), _MAX_STATE // 2) for state in states[:_MAX_STATES])}"
    if len(states) > _MAX_STATES:
        shown += f", or {len(states) - _MAX_STATES} more"
    notes = [
        "[ began, * takes effect in an order that explains all before X, ] ended",
        f"before X, the state can {shown}",
    ]
    if undrawn:
        notes.append(f"earlier operations that are part of it, and not drawn: {undrawn}")
    if others:
        notes.append(f"operations that make no difference: {others}")
    return notes


def _places(items: Sequence[Item], search: Search) -> _Places:
    effects = _effects(items, search)
    events: list[tuple[tuple[float, float], Item, str]] = []
    for item in items:
        events.append(((item.began, 0), item, "["))
        events.append(((item.end, 0), item, "]"))
        if item in effects:
            events.append((effects[item], item, "*"))
    return {(item, mark): place for place, (_, item, mark) in enumerate(sorted(events, key=lambda event: event[0]))}


def _effects(items: Sequence[Item], search: Search) -> dict[Item, tuple[float, float]]:
    """When operations take effect in the order that the search has found: before which index, and where among others.

    One that is not in that order has taken effect unseen, right before another one that overwrites.
    """
    order: list[tuple[Item, tuple[float, float]]] = []
    trail = search.trail
    while trail is not None:
        item, number, trail = trail
        order.append((item, (search.points[number].item.end - 0.5, -len(order))))
    order.reverse()
    effects = dict(order)
    for item in items[:-1]:
        if item not in effects:
            unseen = (when for other, when in order if other.overwrites and when[0] > item.began)
            before, position = next(unseen)
            effects[item] = before, position - 0.5
    return {item: effects[item] for item in items[:-1]}


def _shortened(text: str, width: int) -> str:
    """Without its middle: what tells values apart is often at their ends."""
    half = (width - 4) // 2
    return text if len(text) <= width else f"{text[:half]} .. {text[-half:]}"
