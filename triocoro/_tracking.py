"""Tracking of changes in votequorum and quorum: one subscription of a connection, for any number of streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, TypeVar

import trio

from ._connection import Connection
from ._enums import Track
from ._errors import ExistError
from ._raw import RawTracking
from ._stream import MAX_CHANGES_BYTES, EventStream

EventT = TypeVar("EventT")


class Tracker(Generic[EventT]):
    """Passes tracked events to any number of streams, each of which begins with the present state.

    The daemon sends the present state once, at the start. A later stream gets it from the latest events.

    Args:
        raw: the handle. Only this tracker may start tracking on it.
        connection: its connection.
        state: the types of the events that describe the present state, in the order in which the daemon sends them.
            Each comes with a function that turns the latest event of the type into one that describes the present
            state, or into `None` to leave it out.
        subject: what an event is about. Of the events with an equal subject, the latest describes the present state.
        retold: the types of events that the daemon repeats after each event of the first type of `state`, as far as
            they still hold. Earlier events of these types are forgotten then.
    """

    def __init__(
        self,
        raw: RawTracking,
        connection: Connection[EventT],
        state: Sequence[tuple[type, Callable[[Any], EventT | None]]],
        subject: Callable[[EventT], object] = type,
        retold: tuple[type, ...] = (),
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._state = state
        self._subject = subject
        self._retold = retold
        self._latest: dict[object, EventT] = {}
        self._streams: list[EventStream[EventT]] = []
        self._starting = trio.Lock()
        self._started = False

    def handle(self, events: Sequence[EventT]) -> None:
        """Take a batch of events that were dispatched."""
        for event in events:
            if self._retold and type(event) is self._state[0][0]:
                self._latest = {key: it for key, it in self._latest.items() if type(it) not in self._retold}
            self._latest[self._subject(event)] = event
        for stream in self._streams:
            stream.put(events)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def track(self) -> AsyncGenerator[EventStream[EventT], None]:
        """Yield a stream of the present state and then of all events."""
        await self._start()
        # No checkpoint from here on, so that the stream misses no event after the state that we remember.
        stream: EventStream[EventT] = EventStream(self._connection.lifetime, MAX_CHANGES_BYTES)
        self._streams.append(stream)
        try:
            stream.put(self._present())
            yield stream
        finally:
            self._streams.remove(stream)
            stream.close()

    def _present(self) -> list[EventT]:
        """The present state, as far as the daemon has sent it."""
        events = [
            present(event) for kind, present in self._state for event in self._latest.values() if type(event) is kind
        ]
        return [event for event in events if event is not None]

    async def _start(self) -> None:
        """Subscribe to changes, and wait until `_latest` is the present state."""
        async with self._starting:
            # Checked even if there is nothing to request: a dead daemon's state is outdated.
            await self._connection.lifetime.check_async()
            if self._started:
                return
            await self._connection.requests.run(self._trackstart)
            # The present state arrives before the reply. It arrives twice if an earlier, cancelled start had reached
            # the daemon.
            await self._connection.drained()
            # Tracking stays on until the connection ends, so it is never half stopped.
            self._started = True

    async def _trackstart(self) -> None:  # noqa: ASYNC910 - suppress hides the checkpoint from the linter
        # EXIST: an earlier start that was cancelled had reached the daemon.
        with suppress(ExistError):
            await self._raw.trackstart(Track.CHANGES)
