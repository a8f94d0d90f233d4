"""The vote counts: `open_votequorum`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final, final

import trio

from . import _validate
from ._connection import Connection, connect
from ._endpoint import resolve_endpoint
from ._errors import CsError, ExistError
from ._raw import Endpoint, RawVotequorum
from ._stream import EventStream
from ._types import Track, VotequorumChange, VotequorumEvent, VotequorumInfo, VotequorumNodelist

_MAX_BUFFERED_BYTES: Final = 4 * 2**20
"""Changes are few and small: whoever has this much waiting has stopped receiving."""


class _Tracker:
    """Hands what is tracked to any number of streams."""

    def __init__(self, raw: RawVotequorum, connection: Connection[VotequorumEvent]) -> None:
        self._raw = raw
        self._connection = connection
        self._streams: list[EventStream[VotequorumEvent]] = []
        self._starting = trio.Lock()
        self._started = False
        self._nodelist: VotequorumNodelist | None = None
        self._quorum: VotequorumChange | None = None

    def handle(self, events: Sequence[VotequorumEvent]) -> None:
        """Take a batch of what the daemon sent."""
        for event in events:
            if isinstance(event, VotequorumNodelist):
                self._nodelist = event
            elif isinstance(event, VotequorumChange):
                self._quorum = event
        for stream in self._streams:
            stream.put(events)

    async def add(self, stream: EventStream[VotequorumEvent]) -> None:
        """Let `stream` have the present state, then everything."""
        async with self._starting:
            # Also where there is nothing to ask the daemon: the state that we remember is no news of a dead one.
            await self._connection.check_async()
            self._streams.append(stream)
            if self._started:
                stream.put(event for event in (self._nodelist, self._quorum) if event is not None)
                return
            try:
                await self._connection.request(self._start)
            except BaseException:
                self._streams.remove(stream)
                raise
            # It stays on for as long as the connection does: so there is no state in which it is half off.
            self._started = True

    def remove(self, stream: EventStream[VotequorumEvent]) -> None:
        """Let `stream` have nothing more."""
        self._streams.remove(stream)
        stream.close()

    async def _start(self) -> None:  # noqa: ASYNC910 - suppress hides the checkpoint from the linter
        # EXIST: a start that was cancelled had reached the daemon, which now has sent the present state once more.
        with suppress(ExistError):
            await self._raw.trackstart(Track.CHANGES)


@final
class Votequorum:
    """A connection to the votequorum service. Objects of this class come from `open_votequorum`."""

    def __init__(self, raw: RawVotequorum, connection: Connection[VotequorumEvent], tracker: _Tracker) -> None:
        self._raw = raw
        self._connection = connection
        self._tracker = tracker

    async def info(self, nodeid: int | None = None) -> VotequorumInfo:
        """Return what votequorum knows of a node.

        Args:
            nodeid: the node; `None` is the daemon's own.

        Raises:
            NotExistError: votequorum has never seen that node.

        Source: votequorum_getinfo(3).
        """
        # The C call takes 0 for oneself.
        number = 0 if nodeid is None else _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.request(
            lambda: self._raw.info(number),
            explain={CsError.NOT_EXIST: f"votequorum on {self._connection.label} has never seen a node {nodeid}"},
        )

    async def set_expected(self, expected_votes: int) -> None:
        """Set the expected votes, on every node of the partition; the daemons forget it when they restart.

        Raises:
            InvalidParamError: fewer than the votes that are present, or so many that quorum would be lost.

        Cancelled: it may have been set.

        Source: votequorum_setexpected(3).
        """
        number = _validate.uint32(expected_votes, "expected_votes", minimum=1)
        await self._connection.request(
            lambda: self._raw.set_expected(number),
            explain={
                CsError.INVALID_PARAM: (
                    f"expected votes of {number} are refused: fewer than the votes that are present, or so many that"
                    " the cluster would lose quorum"
                )
            },
        )

    async def set_votes(self, nodeid: int, votes: int) -> None:
        """Set a node's votes, on every node of the partition; the daemons forget it when they restart.

        Raises:
            NameNotFoundError: votequorum has never seen that node.
            InvalidParamError: the cluster would lose quorum.

        Cancelled: it may have been set.

        Source: votequorum_setvotes(3).
        """
        _validate.uint32(nodeid, "nodeid", minimum=1)
        _validate.uint32(votes, "votes")
        await self._connection.request(
            lambda: self._raw.set_votes(nodeid, votes),
            explain={
                CsError.NAME_NOT_FOUND: f"votequorum on {self._connection.label} has never seen a node {nodeid}",
                CsError.INVALID_PARAM: f"{votes} votes for node {nodeid} are refused: the cluster would lose quorum",
            },
        )

    async def wait_quorate(self) -> None:
        """Return once our partition is quorate; at once if it is so already.

        Source: votequorum_trackstart(3).
        """
        async with self.track() as changes:
            async for change in changes:
                if isinstance(change, VotequorumChange) and change.quorate:
                    return

    @asynccontextmanager
    async def track(self) -> AsyncGenerator[EventStream[VotequorumEvent], None]:
        """Follow the changes: first the present state (node list, then quorum), then what happens.

        Any number of trackers may be open; each gets everything. A transition begins with a `VotequorumNodelist` and
        ends with a `VotequorumChange`. The stream's `receive` raises as `Group.receive` does.

        Cancelled: nothing is left behind.

        Source: votequorum_trackstart(3).
        """
        stream: EventStream[VotequorumEvent] = EventStream(self._connection, _MAX_BUFFERED_BYTES)
        await self._tracker.add(stream)
        try:
            yield stream
        finally:
            self._tracker.remove(stream)


@asynccontextmanager
async def open_votequorum(*, endpoint: Endpoint | None = None) -> AsyncGenerator[Votequorum, None]:
    """Connect to the votequorum service for the length of the block.

    Args:
        endpoint: the daemon; without it, the default one.

    Raises:
        CorosyncUnavailableError: no daemon, no library, or the daemon runs without votequorum.
        ConnectionLostError: the daemon died; the block was cancelled.

    Source: votequorum_overview(3), votequorum_initialize(3).
    """
    endpoint = resolve_endpoint(endpoint)
    raw = await connect(endpoint.connect_votequorum, endpoint)
    connection: Connection[VotequorumEvent] = Connection(raw, endpoint)
    tracker = _Tracker(raw, connection)
    async with connection.serving(tracker.handle):
        yield Votequorum(raw, connection, tracker)
