"""A story as text: what happened at all nodes in one column, and the state at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

import attrs

from ... import _validate
from .._cluster.options import ClusterOptions
from .._history.history import History, check_history
from . import words
from .end import state_at_the_end
from .story import Event, Kind, Story
from .telling import tell

_MOMENT: Final = 0.5
"""Seconds within which nodes may report the same for it to take one line: real nodes do not learn of it at once."""

_TAIL: Final = 5
"""How many of the last messages, and of the last operations, are always shown."""

_MESSAGES: Final = 10
"""How many of the messages, and of the calls, are shown at most, however many lines there are left."""

_PLURALS: Final = {
    Kind.CALL: ("call", "calls"),
    Kind.MESSAGE: ("message", "messages"),
    Kind.OPERATION: ("operation", "operations"),
    Kind.GROUP: ("view of a group", "views of groups"),
    Kind.LOG: ("line of a log", "lines of logs"),
    Kind.RING: ("ring", "rings"),
    Kind.QUORUM: ("change of quorum", "changes of quorum"),
    Kind.LOSS: ("loss", "losses"),
    Kind.NOTE: ("note", "notes"),
    Kind.FAULT: ("fault", "faults"),
    Kind.FAILURE: ("failure", "failures"),
}

_BARRIERS: Final = frozenset({Kind.FAULT, Kind.NOTE, Kind.FAILURE})
"""What happens after one of these is not merged with what happened before."""

_MARKED: Final = frozenset({Kind.FAULT, Kind.LOSS, Kind.FAILURE})

LEAST: Final = 10
"""The least number of lines that a timeline may be limited to."""


@attrs.define
class Line:
    """One or several events that read the same."""

    index: int
    """The place in the history of the first one."""
    kind: Kind
    time: float
    latest: float
    nodes: set[int]
    clients: set[str | None]
    text: str
    details: set[str]
    notable: bool
    count: int = 1
    views: list[Line] = attrs.field(factory=list["Line"])
    """For a ring: the views of groups that came with it."""

    @classmethod
    def of(cls, event: Event) -> Line:
        return cls(
            event.index,
            event.kind,
            event.time,
            event.time,
            set(event.nodes),
            {event.client},
            event.text,
            {event.detail},
            event.notable,
        )

    def absorb(self, event: Event) -> None:
        self.count += not self.nodes.isdisjoint(event.nodes) or not event.nodes
        self.latest = event.time
        self.nodes |= set(event.nodes)
        self.clients.add(event.client)
        self.details.add(event.detail)
        self.notable = self.notable or event.notable

    def where(self, every: Sequence[int]) -> str:
        if not self.nodes:
            clients = [client for client in self.clients if client is not None]
            return clients[0] if len(clients) == 1 else "cluster" if self.kind is Kind.FAULT else "test"
        where = words.nodes_in_words(sorted(self.nodes), every)
        names = [client for client in self.clients if client is not None and words.client_in_words(client) == client]
        return f"{where} {names[0]}" if len(self.clients) == len(names) == 1 else where

    def what(self) -> str:
        detail = next(iter(self.details)) if len(self.details) == 1 else ""
        times = f" ({self.count} times)" if self.count > 1 else ""
        return "; ".join(
            [f"{self.text}{f' ({detail})' if detail else ''}{times}", *(view.what() for view in self.views)]
        )


def timeline(history: History, *, limit: int = 40, options: ClusterOptions | None = None) -> str:
    """Return what happened according to a history as text: one column for all nodes, then the state at the end.

    Faults, rings with their quorum, views of groups, losses and notes are shown first, then operations, messages and
    calls, the last ones first. Events that several nodes report at about the same time share a line. The text says
    what was left out.

    Args:
        history: the history.
        limit: the greatest number of lines, 10 or more.
        options: how the cluster was configured. With them, the quorum of rings is derived from the votes.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: the limit is too low.
    """
    check_history(history)
    _validate.integer(limit, "limit", LEAST, 2**31 - 1)
    if options is not None:
        _validate.instance(options, ClusterOptions, "options")
    return "\n".join(lines_of(tell(history, options), limit))


def lines_of(story: Story, limit: int, evidence: Collection[int] = ()) -> list[str]:
    """A story as lines.

    Args:
        story: the story. Its failure is the last line: after it comes the clean-up.
        limit: the greatest number of lines.
        evidence: the places in the history of what matters most.
    """
    failures = [place for place, event in enumerate(story.events) if event.kind is Kind.FAILURE]
    failed = bool(failures)
    events = story.events[: failures[-1] + 1] if failed else story.events
    state = state_at_the_end(story.end)
    if state:
        state.insert(0, "at the failure:" if failed else "at the end:")
    if len(state) > limit // 2:
        left_out = len(state) - limit // 2 + 1
        state = [*state[: limit // 2 - 1], f"  ... {left_out} more lines"]
    shown = _condensed(merged(events), limit - len(state), story.dropped, evidence)
    rows = [
        (f"{line.time:9.3f}", line.where(story.nodes), line.what()) if isinstance(line, Line) else ("...", "", line)
        for line in shown
    ]
    width = min(max((len(where) for _, where, _ in rows), default=0), 24)
    marks = ["!" if isinstance(line, Line) and line.kind in _MARKED else " " for line in shown]
    return [
        *(f"{mark}{time:>9}  {where:<{width}}  {what}" for mark, (time, where, what) in zip(marks, rows, strict=True)),
        *state,
    ]


def merged(events: Iterable[Event]) -> list[Line]:
    """The events, with one line for what several nodes report at about the same time."""
    lines: list[Line] = []
    recent: dict[tuple[Kind, str], Line] = {}
    views: dict[str | None, Line] = {}
    for event in events:
        if event.kind in _BARRIERS:
            recent.clear()
            views.clear()
        line = recent.get((event.kind, event.text))
        mergeable = line is not None and (event.kind in _MERGED or line is lines[-1])
        if line is not None and mergeable and (event.time - line.latest <= _MOMENT or line is lines[-1]):
            line.absorb(event)
        else:
            line = recent[event.kind, event.text] = Line.of(event)
            lines.append(line)
        if event.kind is Kind.GROUP:
            _supersede(views.get(event.client), event, line)
            views[event.client] = line
        elif event.kind is not Kind.RING:
            views.clear()
    return _joined([line for line in lines if line.clients])


_MERGED: Final = frozenset({Kind.GROUP, Kind.LOG, Kind.RING, Kind.QUORUM, Kind.LOSS})
"""Kinds of events that several nodes report."""


def _supersede(before: Line | None, event: Event, line: Line) -> None:
    """Take a client out of the line of its earlier view, if another one came at once and nothing happened in it."""
    if before is None or before is line or event.time - before.latest > _MOMENT:
        return
    before.clients.discard(event.client)
    if before.clients:
        before.nodes -= set(event.nodes)
    else:
        line.details |= before.details


def _joined(lines: Sequence[Line]) -> list[Line]:
    """The lines, with one line for a ring and for the views that the same nodes got with it."""
    joined: list[Line] = []
    for line in lines:
        last = joined[-1] if joined else None
        if last is not None and _confirms(last, line):
            joined[-1] = attrs.evolve(line, index=last.index, time=last.time)
        elif (
            last is not None
            and (last.kind, line.kind) in {(Kind.RING, Kind.GROUP), (Kind.GROUP, Kind.RING)}
            and last.nodes == line.nodes
            and line.time - last.latest <= _MOMENT
        ):
            ring, view = (line, last) if line.kind is Kind.RING else (last, line)
            joined[-1] = attrs.evolve(ring, views=[*ring.views, view], time=last.time, latest=line.latest)
        else:
            joined.append(line)
    return joined


def _confirms(quorum: Line, ring: Line) -> bool:
    """Whether a change of quorum is only the first that was heard of a ring."""
    return (
        (quorum.kind, ring.kind) == (Kind.QUORUM, Kind.RING)
        and quorum.nodes == ring.nodes
        and ring.time - quorum.latest <= _MOMENT
        and ring.text.endswith(quorum.text)
    )


def _condensed(lines: list[Line], budget: int, dropped: int, evidence: Collection[int]) -> list[Line | str]:
    """The lines that matter, with words for those left out between them, in at most `budget` lines."""
    kept = _choose(lines, budget - bool(dropped), evidence)
    shown: list[Line | str] = [f"the history has dropped its first {dropped} entries"] if dropped else []
    left_out: list[Line] = []
    for place, line in enumerate(lines):
        if place not in kept:
            left_out.append(line)
            continue
        if left_out:
            shown.append(_summary(left_out))
            left_out = []
        shown.append(line)
    return [*shown, _summary(left_out)] if left_out else shown


def _choose(lines: list[Line], budget: int, evidence: Collection[int]) -> set[int]:
    size = 1  # of the gap that is all of it
    kept = set[int]()

    def is_kept(place: int) -> bool:
        return place in kept or not 0 <= place < len(lines)

    for place in _by_importance(lines, budget, evidence):
        # A line splits the gap that it is in, or shortens or ends it.
        growth = 2 - is_kept(place - 1) - is_kept(place + 1)
        if place not in kept and size + growth <= budget:
            kept.add(place)
            size += growth
    return kept


def _by_importance(lines: list[Line], budget: int, evidence: Collection[int]) -> Iterator[int]:
    """The places of all lines, the most important one first; some come twice."""
    latest = list(reversed(range(len(lines))))
    by_kind = {kind: [place for place in latest if lines[place].kind is kind] for kind in reversed(Kind)}
    yield from latest[:2]
    yield from [place for place in latest if lines[place].index in evidence][: budget // 2]
    if not evidence:
        for kind in (Kind.OPERATION, Kind.MESSAGE):
            yield from by_kind[kind][:_TAIL]
    # Many of one kind must not displace all others.
    for kind, places in by_kind.items():
        yield from (places if kind >= Kind.RING else [p for p in places if lines[p].notable])[: budget // 3]
    for kind, places in by_kind.items():
        if not evidence or kind >= Kind.RING:
            yield from places if kind > Kind.MESSAGE else places[:_MESSAGES]


def _summary(lines: Iterable[Line]) -> str:
    numbers: Counter[Kind] = Counter()
    for line in lines:
        numbers[line.kind] += line.count
        for view in line.views:
            numbers[view.kind] += view.count
    parts = [f"{number} {_PLURALS[kind][number > 1]}" for kind, number in sorted(numbers.items(), reverse=True)]
    return f"({', '.join(parts)})"
