"""Whether we are quorate, and with whom: `open_quorum`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import attrs

from ._connection import Connection, open_connection
from ._enums import QuorumType
from ._raw import RawQuorum
from ._services import QUORUM, Endpoint
from ._stream import EventStream
from ._tracking import Tracker
from ._types import NodelistChange, QuorumChange, QuorumEvent


@final
class Quorum:
    """A connection to the quorum service. Objects of this class come from `open_quorum`."""

    def __init__(self, raw: RawQuorum, connection: Connection[QuorumEvent], tracker: Tracker[QuorumEvent]) -> None:
        self._raw = raw
        self._connection = connection
        self._tracker = tracker

    @property
    def type(self) -> QuorumType:
        """Whether a quorum provider is configured (quorum_model_initialize(3))."""
        return self._raw.type

    async def is_quorate(self) -> bool:
        """Return whether our partition is quorate.

        Source: quorum_getquorate(3).
        """
        return await self._connection.requests.run(self._raw.is_quorate)

    async def wait_quorate(self) -> None:
        """Return once our partition is quorate; at once if it is so already.

        Source: quorum_trackstart(3).
        """
        async with self.track() as changes:
            async for change in changes:
                if isinstance(change, QuorumChange) and change.quorate:
                    return

    @asynccontextmanager
    async def track(self) -> AsyncGenerator[EventStream[QuorumEvent], None]:
        """Follow the changes: first the present state (node list, then quorum), then what happens.

        Any number of trackers may be open; each gets everything. A transition brings a `NodelistChange`, then a
        `QuorumChange`. The stream's `receive` raises as `Group.receive` does.

        Cancelled: nothing is left behind.

        Source: quorum_trackstart(3), quorum_model_initialize(3).
        """
        async with self._tracker.track() as changes:
            yield changes


def _nodelist_as_it_is(event: NodelistChange) -> NodelistChange:
    # As the daemon does at the start of tracking: who came or went is no news by now.
    return attrs.evolve(event, joined=(), left=())


def _quorum_as_it_is(event: QuorumChange) -> QuorumChange:
    return event


@asynccontextmanager
async def open_quorum(*, endpoint: Endpoint | None = None) -> AsyncGenerator[Quorum, None]:
    """Connect to the quorum service for the length of the block.

    Args:
        endpoint: the daemon; without it, the default one.

    Raises:
        CorosyncUnavailableError: no daemon, or no library.
        ConnectionLostError: the daemon died; the block was cancelled.

    Source: quorum_overview(3), quorum_model_initialize(3).
    """
    raw, connection = await open_connection(QUORUM, endpoint)
    tracker = Tracker(raw, connection, ((NodelistChange, _nodelist_as_it_is), (QuorumChange, _quorum_as_it_is)))
    async with connection.serving(tracker.handle):
        yield Quorum(raw, connection, tracker)
