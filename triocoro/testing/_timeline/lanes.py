"""`Lanes`: which lane of the page each entry of a history belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import attrs

from ..._types import ConfigChange, Message, TotemChange
from .._history.entries import Call, ClientEntry, Delivery, Entry, Invocation
from .story import GroupSpan, Story
from .told import told

_Kind: TypeAlias = "tuple[str, bytes | None]"
"""What a connection is for: ``group`` and its name, which may be unknown, or ``other``."""

_OTHER: Final[_Kind] = ("other", None)


@attrs.define(eq=False)
class _Lane:
    kind: str
    """``test``, ``client`` (of operations), ``node``, ``group`` (a client in a group), ``other`` (a client's other
    connections)."""
    label: str
    node: int | None
    rows: list[float] = attrs.field(factory=list[float])
    """Where the last bar in each row ends."""
    views: list[GroupSpan] = attrs.field(factory=list[GroupSpan])
    """What the client in the group was told of its members."""
    number: int = 0
    """Its place from the top."""


class Lanes:
    """The lanes from top to bottom: the test, the clients without a node, and each node with its clients."""

    def __init__(self, entries: Sequence[Entry], story: Story) -> None:
        self._test = _Lane("test", "test", None)
        self._nodes = {node: _Lane("node", f"node {node}", node) for node in story.nodes}
        self._operations: dict[tuple[str, int | None], _Lane] = {}
        self._clients: dict[tuple[str, _Kind], _Lane] = {}
        self._services: dict[str, list[str]] = defaultdict(list)
        self._kinds = _kinds(entries)
        for _, entry in told(entries):
            if isinstance(entry, Invocation):
                lane = _Lane("client", entry.client, entry.node)
                self._operations.setdefault((entry.client, entry.node), lane)
            elif isinstance(entry, ClientEntry) and entry.handle:
                self._note_client(entry)
        for (client, kind), lane in self._clients.items():
            if kind == _OTHER:
                lane.label = ", ".join([*filter(None, [lane.label]), *self._services[client]])
        self._all = self._ordered()
        for number, lane in enumerate(self._all):
            lane.number = number
        for span in story.group_spans:
            self._clients[span.client, self._kinds[span.client, span.handle]].views.append(span)

    def _note_client(self, entry: ClientEntry) -> None:
        kind = self._kinds.get((entry.client, entry.handle), _OTHER)
        if isinstance(entry, Call) and kind == _OTHER and entry.function.startswith("connect_"):
            service = entry.function.removeprefix("connect_")
            if service not in self._services[entry.client]:
                self._services[entry.client].append(service)
        if (entry.client, kind) in self._clients:
            return
        # A node's own endpoint is called like the node.
        labels = [] if entry.client == f"node {entry.node}" else [entry.client]
        if kind != _OTHER:
            labels.append("a group" if kind[1] is None else kind[1].decode(errors="backslashreplace"))
        self._clients[entry.client, kind] = _Lane(kind[0], ": ".join(labels), entry.node)

    def _ordered(self) -> list[_Lane]:
        operations = sorted(self._operations.values(), key=lambda lane: _natural(lane.label))
        ordered = [self._test, *(lane for lane in operations if lane.node not in self._nodes)]
        for node, of_node in self._nodes.items():
            clients = [lane for lane in self._clients.values() if lane.node == node]
            ordered += [of_node, *(lane for lane in operations if lane.node == node)]
            ordered += sorted(clients, key=lambda lane: (lane.kind != "group", _natural(lane.label)))
        return ordered

    def rows(self) -> list[dict[str, Any]]:
        """The lanes for the page."""
        return [
            {"kind": lane.kind, "label": lane.label, "node": lane.node, "rows": max(len(lane.rows), 1)}
            for lane in self._all
        ]

    def of_node(self, node: int | None) -> int:
        """The lane of a node; without one, that of the test."""
        lane = self._test if node is None else self._nodes.get(node, self._test)
        return lane.number

    def of_operations(self, client: str, node: int | None) -> int:
        """The lane of an application's operations."""
        return self._operations[client, node].number

    def of_client(self, entry: ClientEntry) -> int:
        """The lane of a client's entry."""
        lane = self._clients.get((entry.client, self._kinds.get((entry.client, entry.handle), _OTHER)))
        if lane is None:  # a loss that the client noted itself: it belongs to no connection
            found = (lane for (client, _), lane in self._clients.items() if client == entry.client)
            lane = next(found, self._nodes[entry.node])
        return lane.number

    def of_group(self, span: GroupSpan) -> int:
        """The lane of a client's view of a group."""
        return self._clients[span.client, self._kinds[span.client, span.handle]].number

    def of_members(self, node: int, group: bytes | None) -> list[int]:
        """The lanes of the clients on a node that are in a group."""
        found = (lane for (_, kind), lane in self._clients.items() if kind == ("group", group) and lane.node == node)
        return [lane.number for lane in found]

    def views(self, lane: int) -> Sequence[GroupSpan]:
        """What the client of a lane was told of the members of its group."""
        return self._all[lane].views

    def row_for(self, lane: int, began: float, ended: float) -> int:
        """A row for a bar, in which it overlaps with no other; bars come in the order in which they end."""
        rows = self._all[lane].rows
        row = next((row for row, end in enumerate(rows) if end <= began), len(rows))
        rows[row : row + 1] = [ended]
        return row


def _natural(label: str) -> list[tuple[int, str]]:
    """A key that sorts "client 9" before "client 10"."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", label)]


def _kinds(entries: Sequence[Entry]) -> dict[tuple[str, int], _Kind]:
    """What each connection is for. Of a history whose first entries were dropped, events tell."""
    kinds: dict[tuple[str, int], _Kind] = {}
    for entry in entries:
        match entry:
            case Call(function="join"):
                kinds[entry.client, entry.handle] = ("group", entry.arguments.get("group"))
            case Delivery(event=Message() | ConfigChange() | TotemChange()) if entry.handle:
                kinds.setdefault((entry.client, entry.handle), ("group", None))
            case _:
                pass
    return kinds
