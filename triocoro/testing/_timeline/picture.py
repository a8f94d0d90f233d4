"""`Picture`: a history laid out for the page: lanes, where things are on the axis, and what is drawn.

Most of it is rows of plain values for JSON, which page.js draws; `Picture` says what the rows consist of.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs

from ..._types import (
    ConfigChange,
    ExpectedVotesChange,
    Message,
    MessageLost,
    NodelistChange,
    QuorumChange,
    TotemChange,
    VotequorumChange,
    VotequorumNodelist,
)
from .._checkers.violation import Violation
from .._history.entries import (
    SENDS,
    Call,
    Cancellation,
    Delivery,
    Entry,
    Failure,
    Fault,
    Invocation,
    Loss,
    Note,
    Outcome,
    Return,
)
from . import words
from .axis import axis
from .bands import network_bands, node_bands
from .ending import clean_up_begins
from .evidence import Evidence
from .lanes import Lanes
from .story import Kind, Sending, Story
from .text import Line, merged
from .told import told

Row: TypeAlias = "list[Any]"
"""A row of plain values."""


_KINDS: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((ConfigChange,), "members"),
    ((TotemChange, NodelistChange, VotequorumNodelist), "ring"),
    ((QuorumChange, VotequorumChange, ExpectedVotesChange), "quorum"),
    ((MessageLost,), "lost"),
)

_TOLD: Final = frozenset({Kind.OPERATION, Kind.RING, Kind.QUORUM, Kind.LOSS, Kind.NOTE, Kind.FAULT, Kind.FAILURE})
"""What the story in words consists of, besides failed calls and messages that a member missed."""

_REPAIRS: Final = frozenset({"the network is healed", "is thawed", "is started", "is restarted", "is added"})
_MANY: Final = 100
"""With more operations than this, the story leaves out those that returned."""

_LONG: Final = 600


@attrs.frozen(kw_only=True)
class Picture:
    """Everything that the page draws. Positions are steps of the axis; events are numbered in their order."""

    end: float
    """The position after the last entry."""
    duration: float
    """Seconds from the first entry to the last."""
    lanes: Sequence[Mapping[str, Any]]
    events: Sequence[Row]
    """Entry of the history, position, time, lane, kind, text, detail. A delivery with an arrow has no text."""
    arrows: Sequence[Row]
    """The events of a message's sending and of one of its deliveries."""
    missed: Sequence[Row]
    """The event of a message's sending, and the lane of a member that went on without the message."""
    bars: Sequence[Row]
    """Event, position and time of its end, status, and row in its lane."""
    bands: Sequence[Mapping[str, Any]]
    """A node in a ring."""
    spans: Sequence[Row]
    """A client in a group: lane, and from where to where."""
    network: Sequence[Row]
    """The network while it is not whole: from where to where, and how."""
    story: Sequence[Row]
    """Event, time, whom it is about, what happened in words, class."""
    bad: Sequence[int]
    """The events that show the violations."""
    violations: Sequence[Row]
    """Rule, text, events, and the operations as a picture in text."""
    failure: float
    """Where a failure is marked: before the connections of the test end."""


def draw(entries: Sequence[Entry], story: Story, violations: Iterable[Violation] = ()) -> Picture:
    """Lay a history out.

    Args:
        entries: the history.
        story: the same history, told.
        violations: what checkers found in it.
    """
    return _Draughtsman(entries, story).picture(violations)


class _Draughtsman:
    def __init__(self, entries: Sequence[Entry], story: Story) -> None:
        self._entries = entries
        self._story = story
        self._x = axis(entries)
        self._began = entries[0].time if entries else 0.0
        self._lanes = Lanes(entries, story)
        self._events: list[Row] = []
        self._numbers: dict[int, list[int]] = defaultdict(list)
        """The events of each entry."""
        self._bars: list[Row] = []
        self._missed: list[Row] = []
        self._evidence_of = Evidence(entries)
        self._calls: dict[tuple[str, int], list[int]] = {}
        """The events of calls that have not ended, and those of operations (with negative numbers)."""

    def picture(self, violations: Iterable[Violation]) -> Picture:
        for index, entry in told(self._entries):
            self._read(index, entry)
        for numbers in self._calls.values():
            for number in numbers:
                self._bar(number, len(self._entries), "open")
        arrows, self._missed = self._messages()
        found = [(each, self._evidence(each)) for each in violations]
        failure = clean_up_begins(self._entries)
        return Picture(
            end=self._x[-1],
            duration=self._story.duration,
            lanes=self._lanes.rows(),
            events=self._events,
            arrows=arrows,
            missed=self._missed,
            bars=self._bars,
            bands=[{**band, "lane": self._lanes.of_node(band["node"])} for band in node_bands(self._story, self._x)],
            spans=[
                [self._lanes.of_group(span), self._x[span.first], self._x[span.end]] for span in self._story.group_spans
            ],
            network=network_bands(self._entries, self._x),
            story=self._told(),
            bad=sorted({number for _, numbers in found for number in numbers}),
            violations=[[each.rule.value, each.text, numbers, each.picture] for each, numbers in found],
            failure=max(self._x[failure] - 0.5, 0.0),
        )

    # -- events ----------------------------------------------------------------------------------------------------

    def _add(self, index: int, lane: int, kind: str, text: str, detail: str = "") -> int:
        self._events.append([index, self._x[index], self._time(self._entries[index]), lane, kind, text, detail])
        self._numbers[index].append(len(self._events) - 1)
        return len(self._events) - 1

    def _bar(self, number: int, end: int, status: str) -> None:
        """Draw an event as a bar, up to the entry `end`."""
        _, began, _, lane, *_ = self._events[number]
        at = self._entries[min(end, len(self._entries) - 1)]
        row = self._lanes.row_for(lane, began, self._x[end])
        self._bars.append([number, self._x[end], self._time(at), status, row])

    def _time(self, entry: Entry) -> float:
        return round(entry.time - self._began, 6)

    def _read(self, index: int, entry: Entry) -> None:
        match entry:
            case Call():
                self._read_call(index, entry)
            case Return() | Failure() | Cancellation():
                self._read_end(index, entry)
            case Delivery():
                self._read_delivery(index, entry)
            case Loss():
                self._add(index, self._lanes.of_client(entry), "loss", "loses its connection to the daemon")
            case Fault():
                lane = self._lanes.of_node(words.node_of_fault(entry))
                text = words.fault_in_words(entry)
                self._add(index, lane, "repair" if text in _REPAIRS else "fault", text, entry.where or "")
            case Note():
                self._add(index, self._lanes.of_node(entry.node), "note", entry.text)
            case Invocation():
                lane = self._lanes.of_operations(entry.client, entry.node)
                number = self._add(index, lane, "operation", words.operation_in_words(entry))
                self._calls[entry.client, -entry.number] = [number]
            case Outcome():
                self._read_outcome(index, entry)

    def _read_call(self, index: int, call: Call) -> None:
        lane = self._lanes.of_client(call)
        if call.function in SENDS:
            payloads: Sequence[bytes] = call.arguments.get("payloads") or (call.arguments.get("payload", b""),)
            numbers = [self._add_payload(index, lane, "send", payload) for payload in payloads]
        elif call.function.startswith("connect_"):
            numbers = [self._add(index, lane, "call", f"connect to {call.function.removeprefix('connect_')}")]
        else:
            text = words.call_in_words(call.function, call.arguments)
            numbers = [self._add(index, lane, "call", text)]
        if call.function != "close":
            self._calls[call.client, call.number] = numbers
            return
        for key, pending in [*self._calls.items()]:  # whose answers do not come any more
            if key[0] == call.client and key[1] > 0 and self._events[pending[0]][3] == lane:
                self._end(key, index, "", "was not answered before the connection was closed")

    def _add_payload(self, index: int, lane: int, kind: str, payload: bytes) -> int:
        short, long = words.payload_in_words(payload), words.payload_in_words(payload, _LONG)
        return self._add(index, lane, kind, short, "" if short == long else long)

    def _read_end(self, index: int, end: Return | Failure | Cancellation) -> None:
        key = (end.client, end.number)
        match end:
            case Return():
                self._end(key, index, "", "" if end.result is None else f"returns {words.value_in_words(end.result)}")
            case Failure():
                kind = "call" if end.error == "TryAgainError" else "failed"
                self._end(key, index, kind, f"raises {end.error}")
            case Cancellation():
                self._end(key, index, "", "is cancelled")

    def _end(self, key: tuple[str, int], index: int, kind: str, detail: str) -> None:
        for number in self._calls.pop(key, ()):
            event = self._events[number]
            event[4] = kind or event[4]
            event[6] = "\n".join(filter(None, [event[6], detail]))
            self._numbers[index].append(number)
            if event[4] != "send":
                self._bar(number, index, "")

    def _read_delivery(self, index: int, entry: Delivery) -> None:
        event = entry.event
        lane = self._lanes.of_client(entry)
        if isinstance(event, Message):
            self._add_payload(index, lane, "receive", event.payload)
            return
        kind = next((kind for types, kind in _KINDS if isinstance(event, types)), "other")
        self._add(index, lane, kind, words.event_in_words(event)[:_LONG], words.value_in_words(event)[:_LONG])

    def _read_outcome(self, index: int, outcome: Outcome) -> None:
        for number in self._calls.pop((outcome.client, -outcome.number), ()):
            ending = words.value_in_words(outcome.result) if outcome.error is None else outcome.error
            self._events[number][5] += f" → {ending}"
            self._numbers[index].append(number)
            self._bar(number, index, outcome.status.value)

    # -- messages --------------------------------------------------------------------------------------------------

    def _messages(self) -> tuple[list[Row], list[Row]]:
        """The arrows of all messages, and those that members missed."""
        receives = {index: numbers[0] for index, numbers in self._numbers.items() if numbers}
        arrows: list[Row] = []
        missed: list[Row] = []
        places: dict[int, int] = defaultdict(int)
        later = self._last_received()
        for sending in self._story.sendings:
            # Several messages of one call have as many events.
            number = self._numbers[sending.index][places[sending.index]]
            places[sending.index] += 1
            for receipt in sending.receipts:
                received = receives[receipt.index]
                self._events[received][5:] = ["", ""]  # the payload is that of the sending
                arrows.append([number, received])
            for node in sorted(set(sending.missed)):
                missed += [
                    [number, lane]
                    for lane in self._lanes.of_members(node, sending.group)
                    if later[lane] > sending.index or self._parted(lane, sending)
                ]
        return arrows, missed

    def _last_received(self) -> Mapping[int, int]:
        """For each lane, when the latest message was sent that it received."""
        latest: dict[int, int] = defaultdict(lambda: -1)
        for sending in self._story.sendings:
            for receipt in sending.receipts:
                lane = self._events[self._numbers[receipt.index][0]][3]
                latest[lane] = max(latest[lane], sending.index)
        return latest

    def _parted(self, lane: int, sending: Sending) -> bool:
        """Whether the member at a lane has gone on without the sender, so that the message will never come."""
        return any(
            span.first > sending.index and sending.node not in {member.nodeid for member in span.members}
            for span in self._lanes.views(lane)
        )

    def _told(self) -> list[Row]:
        """The story in words."""
        rows: list[Row] = []
        missed = {self._events[number][0]: number for number, _ in self._missed}
        many = len(self._story.operations) > _MANY
        for line in merged(self._story.events):
            style = _style(line)
            if line.kind is Kind.MESSAGE:
                style = "bad" if line.index in missed or "LOST" in line.text else ""
            if not (style or line.kind in _TOLD) or (many and line.kind is Kind.OPERATION and not style):
                continue
            number = self._number_at(line.index)
            if number is not None:
                rows.append([number, round(line.time, 6), line.where(self._story.nodes), line.what(), style])
        return rows

    def _number_at(self, index: int) -> int | None:
        """The event of an entry; for the end of the history, the last one."""
        if index < len(self._entries):
            return next(iter(self._numbers[index]), None)
        return len(self._events) - 1 if self._events else None

    def _evidence(self, violation: Violation) -> list[int]:
        """The events that show a violation."""
        places = self._evidence_of.places(violation)
        return sorted({number for index in places for number in self._numbers[index][:1]})


def _style(line: Line) -> str:
    """How a line of the story is written: as a fault or a repair, as something bad, or plainly."""
    match line.kind:
        case Kind.FAULT:
            return "repair" if line.text in _REPAIRS else "fault"
        case Kind.LOSS | Kind.FAILURE:
            return "bad"
        case Kind.RING | Kind.QUORUM if "NOT" in line.text:
            return "bad"
        case Kind.CALL if line.notable:
            return "failed"
        case Kind.OPERATION if line.notable:
            return "unknown"
        case _:
            return ""
