"""Record what the clients of a cluster do and see, and what is done to its nodes and its network."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, TypeVar
from weakref import WeakSet

import trio

from ..._reached import listeners
from ..._services import Endpoint, ServiceSpec
from .._history.callers import calling_line
from .._history.entries import Fault
from .._history.history import History, RecordedNode
from .._history.recording import EndpointWrapper, RecordingEndpoint
from .._history.values import immutable

RawT = TypeVar("RawT")

_parts: ContextVar[list[Fault] | None] = ContextVar("triocoro.testing.parts_of_a_fault", default=None)
"""Collects the faults that the one under way consists of."""


_active: Final[WeakSet[Recording]] = WeakSet()
"""The clusters of this process that are recorded."""


def _note_place(place: str, node: int | None) -> None:
    for recording in list(_active):
        history = recording.history
        if history is not None:
            with suppress(Exception):  # the clock of the history may work only in a run, and this must fail none
                history.note(f"reached: {place}", node=node)


listeners.append(_note_place)


class Recording:
    """Records one cluster, while it has a history to do so."""

    def __init__(self) -> None:
        self._history: History | None = None
        self._endpoints: dict[str, RecordingEndpoint] = {}

    @property
    def history(self) -> History | None:
        """The history that the cluster is recorded into."""
        return self._history

    def record(self, history: History | None) -> None:
        """Record into this history from now on; `None` ends it."""
        if history is not self._history:
            self._endpoints = {}
            self._history = history
        if history is None:
            _active.discard(self)
        else:
            _active.add(self)

    async def connect(
        self, node: RecordedNode, endpoint: Endpoint, client: str, service: ServiceSpec[RawT, object]
    ) -> RawT:
        """Make a connection of a client, and record it if need be."""
        if self._history is None:
            return await endpoint.connect(service)
        if client not in self._endpoints:
            self._endpoints[client] = self._history.endpoint(node, client=client, via=endpoint)
        recording = self._endpoints[client]
        return await (recording if recording.wanted else endpoint).connect(service)

    @contextmanager
    def fault(self, verb: str, **arguments: object) -> Generator[dict[str, object], None, None]:
        """Record the fault that takes effect within the block, which may change its arguments.

        If others are injected in the block, they are its parts: they are recorded only if it fails. A fault that is
        cancelled may have taken effect, or may yet do so: it has the argument ``cancelled``.
        """
        outer = _parts.get()
        parts: list[Fault] = []
        token = _parts.set(parts)
        try:
            yield arguments
        except BaseException as error:
            if not parts and isinstance(error, (trio.Cancelled, KeyboardInterrupt)):
                parts = self._faults(verb, {**arguments, "cancelled": True})
            raise
        else:
            parts = self._faults(verb, arguments)
        finally:
            _parts.reset(token)
            if outer is not None:
                outer += parts
            elif self._history is not None:
                for fault in parts:
                    self._history.append(fault)

    def _faults(self, verb: str, arguments: dict[str, object]) -> list[Fault]:
        history = self._history
        if history is None:
            return []
        where = calling_line()
        return [Fault(time=history.clock(), verb=verb, arguments=immutable(arguments), where=where)]


class NodeEndpoint(EndpointWrapper):
    """An endpoint of a node, whose clients are recorded while its cluster is.

    Args:
        node: the node.
        endpoint: leads to its daemon.
        recording: that of the cluster.
        client: the name of its clients in histories.
    """

    def __init__(self, node: RecordedNode, endpoint: Endpoint, recording: Recording, client: str) -> None:
        super().__init__(endpoint)
        self._node = node
        self._recording = recording
        self._client = client

    def __repr__(self) -> str:
        return repr(self._endpoint)

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        """Connect to one of the daemon's services."""
        return await self._recording.connect(self._node, self._endpoint, self._client, service)
