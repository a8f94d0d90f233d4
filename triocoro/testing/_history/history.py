"""`History`: a list of entries that can be recorded, saved, merged and compared."""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, runtime_checkable

import trio

from ... import _validate
from ..._endpoint import check_endpoint
from ..._services import Endpoint, HasEndpoint
from . import json_lines
from .callers import calling_line
from .clock import HistoryClock
from .entries import ENTRIES, Call, ClientEntry, Entry, Fault, Invocation, Note
from .log import Log, payload_bytes, places
from .normalising import normalised
from .operations import Operation, OperationResult, operations, recorded
from .recording import RecordingEndpoint
from .undecided import UndecidedError
from .values import immutable


@runtime_checkable
class RecordedNode(HasEndpoint, Protocol):
    """A node of a cluster."""

    @property
    def nodeid(self) -> int:
        """Its id."""
        ...


class History:  # noqa: PLW1641 - it changes, so it has no hash
    """A record of what clients did and were told, in order.

    `endpoint` returns an endpoint that records, and `check` finds what Corosync could not have done. Histories of
    several processes can be put together with `merge` if their clocks agree, as `time.monotonic` does on one machine.

    Args:
        entries: the first entries.
        clock: returns the time in seconds. By default it is that of the Trio run if its clock is a
            `trio.testing.MockClock`, else `time.monotonic`.
        limit: how many entries to keep; `None` for all. The oldest go, and `dropped` counts them. A payload counts as
            one more entry for each KiB, so this bounds the memory. Messages that were sent or received in a batch go
            together, and the latest batch stays, however large.

    Raises:
        TypeError: one of the entries is none, or the limit is no integer.
        ValueError: the limit is less than 1.
    """

    def __init__(
        self,
        entries: Iterable[Entry] = (),
        *,
        clock: Callable[[], float] | None = None,
        limit: int | None = None,
    ) -> None:
        self._log = Log(None if limit is None else _validate.integer(limit, "limit", 1, sys.maxsize))
        self._clients: set[str] = set()
        self.clock: Callable[[], float] = HistoryClock() if clock is None else clock
        for entry in entries:
            self.append(entry)
        numbers = (entry.number for entry in self if isinstance(entry, Invocation))
        self._numbers = itertools.count(1 + max(numbers, default=0))

    @property
    def dropped(self) -> int:
        """How many of the oldest entries are gone: the history was longer than its limit."""
        return self._log.dropped

    @classmethod
    def _with(cls, entries: Iterable[Entry], dropped: int) -> History:
        history = cls(entries)
        history._log.dropped_before = dropped
        return history

    def __repr__(self) -> str:
        gone = f" after {self.dropped} that were dropped" if self.dropped else ""
        return f"<triocoro.testing.History of {len(self)} entries{gone}>"

    def __len__(self) -> int:
        return len(self._log.entries())

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._log.entries())

    def __getitem__(self, index: int) -> Entry:
        return self._log.entries()[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self.dropped == other.dropped and self._log.entries() == other._log.entries()

    def append(self, entry: Entry) -> None:
        """Add an entry at the end.

        Raises:
            TypeError: it is no entry.
        """
        if not isinstance(entry, ENTRIES):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers need not be typed
            raise TypeError(f"an entry of a history is needed, not {type(entry).__name__}")
        if isinstance(entry, ClientEntry):
            self._clients.add(entry.client)
        self._log.add((next(places), 1, payload_bytes(entry), _as_is, (entry,)))

    def endpoint(
        self, node: RecordedNode, *, client: str, via: Endpoint | HasEndpoint | None = None
    ) -> RecordingEndpoint:
        """Return an endpoint of `node` that records everything that passes through it.

        Args:
            node: the daemon's node.
            client: a name for the client that will use the endpoint.
            via: the endpoint to connect with instead of the node's own, such as one with a different pid.

        Raises:
            ValueError: the history already has a client of that name, or entries of one.
            TypeError: the node, the name or the endpoint is none.
        """
        if isinstance(node, type) or not isinstance(node, RecordedNode):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"node must be a node of a cluster, not {type(node).__name__}")
        if not isinstance(client, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"client must be a str, not {type(client).__name__}")
        endpoint = node.endpoint if via is None else check_endpoint(via)
        if client in self._clients:
            raise ValueError(f"this history has a client {client!r} already; each needs a name of its own")
        self._clients.add(client)
        return RecordingEndpoint(
            endpoint,
            add=self._log.add,
            clock=self.clock,
            client=client,
            node=node.nodeid,
        )

    def fault(self, verb: str, **arguments: object) -> None:
        """Note what was done to the cluster. This is for readers of the history; `check` does not need it.

        Args:
            verb: what was done.
            arguments: to which nodes, and how. Lists and sets become tuples, and the keys of mappings text.
        """
        self.append(Fault(time=self.clock(), verb=verb, arguments=immutable(arguments), where=calling_line()))

    def note(self, text: str, *, node: int | None = None) -> None:
        """Add a line for readers of the history; `check` does not need it.

        Args:
            text: what happened.
            node: the id of the node that it is about.

        Raises:
            TypeError: the text is no str.
        """
        _validate.instance(text, str, "text")
        self.append(Note(time=self.clock(), text=text, node=node))

    def operation(
        self,
        name: str,
        *arguments: object,
        client: str | None = None,
        node: int | None = None,
        refused: type[BaseException] | tuple[type[BaseException], ...] = (),
    ) -> AbstractContextManager[OperationResult]:
        """Record an operation of the application, which takes place within a `with` block.

        The block sets `result` of what it gets. An operation whose block raises has no result. If the exception says
        that it never took effect (it is one of `refused`, `NotCommittedError` or `NotPrimaryError`), it is REFUSED;
        else it is UNKNOWN. The exception propagates.

        ::

            with history.operation("put", "key", 1, client="one") as operation:
                operation.result = await store.put("key", 1)

        Args:
            name: what it does, such as ``put``.
            arguments: its arguments: plain values, as in JSON, bytes, and values of triocoro. Lists and sets become
                tuples.
            client: who carries it out; by default the name of the current task.
            node: the id of the node that the client uses.
            refused: exceptions that say that the operation never took effect.

        Raises:
            TypeError: an argument or the result cannot be kept, or the name is no str.
        """
        _validate.instance(name, str, "name")
        return recorded(
            self.append,
            self.clock,
            Invocation(
                time=self.clock(),
                client=trio.lowlevel.current_task().name if client is None else client,
                node=node,
                number=next(self._numbers),
                name=name,
                arguments=immutable(arguments),
            ),
            refused if isinstance(refused, tuple) else (refused,),
        )

    def operations(self) -> list[Operation]:
        """Return the application's operations in the order in which they began, without those that were refused.

        Raises:
            UndecidedError: the history has lost its first entries, and maybe operations that explain later results.
        """
        check_whole(self)
        return operations(self)

    @classmethod
    def merge(cls, histories: Iterable[History]) -> History:
        """Merge several histories by time. The order of the entries within each history is kept.

        Clients keep their names. Entries of one name in several histories count as parts of one client, whose
        connections and calls were numbered continuously.

        Raises:
            ValueError: clients of the same name opened the same handle, or began the same operation, in two histories,
                so they are two clients.
            TypeError: one of them is no history.
        """
        parts = list(histories)
        for part in parts:
            check_history(part)
        begun: set[tuple[str, str, int]] = set()
        for part in parts:
            own = {
                ("connection", entry.client, entry.handle)
                for entry in part
                if isinstance(entry, Call) and entry.function.startswith("connect_")
            } | {("operation", entry.client, entry.number) for entry in part if isinstance(entry, Invocation)}
            if own & begun:
                _, client, _ = min(own & begun)
                raise ValueError(f"two histories have a client {client!r} each; give them names of their own")
            begun |= own
        return cls._with(heapq.merge(*parts, key=lambda entry: entry.time), sum(part.dropped for part in parts))

    def normalised(self) -> History:
        """Return a copy that is equal for any two runs that did the same.

        Pids and the sequence numbers of rings are counted from 1, in the order in which they appear; times are the
        positions of the entries, and `Return.waiting` is False. Use it to compare runs, not to `check` them: rings
        no longer ascend in it.
        """
        return self._with(normalised(self), self.dropped)

    def to_json_lines(self) -> str:
        """Return the history as text, one JSON object a line; the first one says how many entries were dropped, if any.

        Raises:
            TypeError: an entry that was not recorded holds a value that no recording produces, such as a list.
        """
        return json_lines.encode(self, self.dropped)

    @classmethod
    def from_json_lines(cls, text: str) -> History:
        """Return the history that `to_json_lines` turned into text.

        Raises:
            ValueError: a line is not an entry of a history.
            TypeError: the text is no str.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a history is read from a str, not {type(text).__name__}")
        return cls._with(*json_lines.decode(text))

    def save(self, path: str | Path) -> None:
        """Write the history to a file of JSON lines. Errors are those of `to_json_lines`."""
        Path(path).write_text(self.to_json_lines(), encoding="ascii")

    @classmethod
    def load(cls, path: str | Path) -> History:
        """Read a file that `save` wrote. Errors are those of `from_json_lines`."""
        return cls.from_json_lines(Path(path).read_text(encoding="ascii"))


def _as_is(entry: Entry) -> Iterable[Entry]:
    return (entry,)


def check_history(history: object) -> None:
    """Raise `TypeError` for an object that is no history."""
    if not isinstance(history, History):
        raise TypeError(f"a History is needed, not {type(history).__name__}")


def check_whole(history: History) -> None:
    """Raise `UndecidedError` if the first entries are gone."""
    if history.dropped:
        raise UndecidedError(
            f"the history has lost its first {history.dropped} entries, which may explain what seems to be wrong in the"
            " rest; record into a History with a larger limit"
        )
