"""Whether the partition is quorate, and its nodes: `open_quorum`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import attrs

from ._connection import Connection, open_connection
from ._enums import QuorumType
from ._raw import RawQuorum
from ._services import QUORUM, Endpoint, HasEndpoint
from ._stream import EventStream
from ._tracking import Tracker
from ._types import NodelistChange, QuorumChange, QuorumEvent


@final
class Quorum:
    """A connection to the quorum service. Objects of this class come from `open_quorum`.

    Cancelled: no effect, unless a method says otherwise.
    """

    def __init__(self, raw: RawQuorum, connection: Connection[QuorumEvent], tracker: Tracker[QuorumEvent]) -> None:
        self._raw = raw
        self._connection = connection
        self._tracker = tracker

    def __repr__(self) -> str:
        return f"<triocoro.Quorum on {self._connection.lifetime.describe()}>"

    @property
    def type(self) -> QuorumType:
        """Whether a quorum provider is configured (quorum_model_initialize(3))."""
        return self._raw.type

    async def is_quorate(self) -> bool:
        """Return whether the partition of our node is quorate.

        Source: quorum_getquorate(3).
        """
        return await self._connection.requests.run(self._raw.is_quorate)

    async def wait_quorate(self) -> None:
        """Wait until the partition of our node is quorate. Returns at once if it is.

        Raises:
            ConnectionLostError: the daemon died.

        Cancelled: there is no effect.

        Source: quorum_trackstart(3).
        """
        await self._wait_until(quorate=True)

    async def wait_not_quorate(self) -> None:
        """Wait until the partition of our node is not quorate. Returns at once if it is not.

        A node that is cut off notices only after the token timeout, while others may be quorate without it already. So
        this is for stopping soon, not for proving that no other node has taken over.

        Raises:
            ConnectionLostError: the daemon died.

        Cancelled: there is no effect.

        Source: quorum_trackstart(3).
        """
        await self._wait_until(quorate=False)

    async def _wait_until(self, *, quorate: bool) -> None:
        async with self.track() as changes:
            async for change in changes:
                if isinstance(change, QuorumChange) and change.quorate is quorate:
                    return

    @asynccontextmanager
    async def track(self) -> AsyncGenerator[EventStream[QuorumEvent], None]:
        """Receive the present state and then all changes, for the duration of the block.

        The present state is a `NodelistChange` followed by a `QuorumChange`, and so is each transition. Any number of
        blocks may be open at the same time; each receives all changes.

        Yields:
            the stream of changes. Its `receive` raises what `Group.receive` raises.

        Cancelled: the daemon may keep on sending changes, which are dropped.

        Source: quorum_trackstart(3), quorum_model_initialize(3).
        """
        async with self._tracker.track() as changes:
            yield changes


def _present_nodelist(event: NodelistChange) -> NodelistChange:
    # As the daemon does at the start of tracking: an earlier transition is no part of the present state.
    return attrs.evolve(event, joined=(), left=())


def _present_quorum(event: QuorumChange) -> QuorumChange:
    return event


@asynccontextmanager
async def open_quorum(*, endpoint: Endpoint | HasEndpoint | None = None) -> AsyncGenerator[Quorum, None]:
    """Connect to the quorum service for the duration of the block.

    Args:
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ConnectionLostError: the daemon died; the block was cancelled.

    Cancelled: no connection is left open. If the block is cancelled, the connection closes in the background.

    Source: quorum_overview(3), quorum_model_initialize(3).
    """
    raw, connection = await open_connection(QUORUM, endpoint)
    tracker = Tracker(raw, connection, ((NodelistChange, _present_nodelist), (QuorumChange, _present_quorum)))
    async with connection.serving(tracker.handle):
        yield Quorum(raw, connection, tracker)
