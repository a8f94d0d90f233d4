"""What votequorum and quorum share: one tracking a connection, for any number of streams."""

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
    """Hands what is tracked to any number of streams.

    Args:
        raw: the handle; nobody else may start tracking on it.
        connection: its connection.
        state: the types of the events that tell the present state, in the order in which the daemon sends them, each
            with what makes an event of the past into one that tells how things stand, or into `None`.
        subject: what an event is about; the latest one about it tells how that stands.
        retold: the types of events that come again after each event of the first type of `state`, as far as they still
            hold; what was told before is forgotten then.
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
        """Take a batch of what the daemon sent."""
        for event in events:
            if self._retold and type(event) is self._state[0][0]:
                self._latest = {key: it for key, it in self._latest.items() if type(it) not in self._retold}
            self._latest[self._subject(event)] = event
        for stream in self._streams:
            stream.put(events)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def track(self) -> AsyncGenerator[EventStream[EventT], None]:
        """A stream of the present state, then of everything."""
        await self._start()
        # No checkpoint from here on: what comes after the state that we remember, the stream gets.
        stream: EventStream[EventT] = EventStream(self._connection.lifetime, MAX_CHANGES_BYTES)
        self._streams.append(stream)
        try:
            stream.put(self._present())
            yield stream
        finally:
            self._streams.remove(stream)
            stream.close()

    def _present(self) -> list[EventT]:
        """The present state, as far as the daemon has told it."""
        events = [
            present(event) for kind, present in self._state for event in self._latest.values() if type(event) is kind
        ]
        return [event for event in events if event is not None]

    async def _start(self) -> None:
        """Have the daemon tell of changes, and `_latest` be the present state."""
        async with self._starting:
            # Also where there is nothing to ask the daemon: the state that we remember is no news of a dead one.
            await self._connection.lifetime.check_async()
            if self._started:
                return
            await self._connection.requests.run(self._trackstart)
            # It has sent the present state before its reply; twice, if a start that was cancelled had reached it.
            await self._connection.drained()
            # It stays on for as long as the connection does: so there is no state in which it is half off.
            self._started = True

    async def _trackstart(self) -> None:  # noqa: ASYNC910 - suppress hides the checkpoint from the linter
        # EXIST: as said, the start has reached the daemon before.
        with suppress(ExistError):
            await self._raw.trackstart(Track.CHANGES)
