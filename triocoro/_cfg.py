"""The daemon itself, its links, and its end: `open_cfg`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from . import _validate
from ._connection import Connection, open_connection
from ._enums import ShutdownFlag
from ._errors import CsError
from ._raw import RawCfg
from ._services import CFG, Endpoint
from ._stream import EventStream
from ._types import IPAddress, NodeStatus, RingStatus

_MAX_BUFFERED_BYTES: Final = 2**20
"""Requests to shut down are rare: whoever has this much waiting has stopped receiving."""


@final
class ShutdownRequest:
    """Somebody wants the daemon to shut down, and asks us. Objects of this class come from `Cfg.track_shutdown`."""

    def __init__(self, flags: ShutdownFlag, raw: RawCfg, connection: Connection[ShutdownFlag]) -> None:
        self.flags = flags
        """How it was asked; with `ShutdownFlag.REGARDLESS` the answer does not count."""
        self._raw = raw
        self._connection = connection
        self._replied = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.flags.name}>"

    async def reply(self, accept: bool) -> None:  # noqa: FBT001 - what else could it be
        """Answer, once: the daemon counts answers, and does not look whose they are.

        Without an answer the request fails after cfg.shutdown_timeout milliseconds (5,000, unless that key is set).

        Args:
            accept: whether we agree.

        Raises:
            RuntimeError: this request was answered before.

        Cancelled: the answer may have been given.

        Source: corosync_cfg_replyto_shutdown(3).
        """
        _validate.boolean(accept, "accept")
        if self._replied:
            raise RuntimeError("this request was answered before")
        await self._connection.lifetime.check_async()
        self._replied = True
        await self._connection.requests.run(lambda: self._raw.reply_to_shutdown(accept))


@final
class Cfg:
    """A connection to the cfg service. Objects of this class come from `open_cfg`."""

    def __init__(
        self, raw: RawCfg, connection: Connection[ShutdownFlag], streams: list[EventStream[ShutdownRequest]]
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._streams = streams

    async def local_nodeid(self) -> int:
        """Return the id of the daemon's node.

        Source: corosync_cfg_local_get(3).
        """
        return await self._connection.requests.run(self._raw.local_nodeid)

    async def node_status(self, nodeid: int) -> NodeStatus:
        """Return how totem sees a node, with all links to it.

        Raises:
            FailedOperationError: totem knows no such node.

        Source: corosync_cfg_node_status_get (corosync/cfg.h), corosync-cfgtool(8).
        """
        _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.requests.run(
            lambda: self._raw.node_status(nodeid),
            explain={CsError.FAILED_OPERATION: f"totem on {self._connection.label} knows no node {nodeid}"},
        )

    async def ring_status(self) -> tuple[RingStatus, ...]:
        """Return how the links of our own node fare.

        Source: corosync_cfg_ring_status_get (corosync/cfg.h), corosync-cfgtool(8).
        """
        return await self._connection.requests.run(self._raw.ring_status)

    async def node_addresses(self, nodeid: int | None = None) -> tuple[IPAddress, ...]:
        """Return the addresses of a node, one a link.

        Args:
            nodeid: the node; `None` is the daemon's own.

        Raises:
            NotExistError: totem knows no such node.

        Source: corosync_cfg_get_node_addrs(3).
        """
        # The C call takes 0 for oneself.
        number = 0 if nodeid is None else _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.requests.run(
            lambda: self._raw.node_addresses(number),
            explain={CsError.NOT_EXIST: f"totem on {self._connection.label} knows no node {nodeid}"},
        )

    async def reload_config(self) -> None:
        """Have every node of the partition read its corosync.conf again; returns once our own node has.

        Raises:
            CorosyncError: our node could not; its log says why.

        Cancelled: it may have been reloaded.

        Source: corosync-cfgtool(8), -R.
        """
        await self._connection.requests.run(self._raw.reload_config)

    async def reopen_log_files(self) -> None:
        """Have the daemon open its log files anew, after they were rotated.

        Source: corosync-cfgtool(8), -L.
        """
        await self._connection.requests.run(self._raw.reopen_log_files)

    async def kill_node(self, nodeid: int, reason: str = "") -> None:
        """End the daemon of a node of our partition at once, as if it had crashed.

        Args:
            nodeid: the node; possibly our own.
            reason: what that daemon logs; at most 255 bytes.

        Raises:
            NotExistError: no such node is in our partition.

        Cancelled: it may have been killed.

        Source: corosync_cfg_kill_node(3).
        """
        _validate.uint32(nodeid, "nodeid", minimum=1)
        _validate.text(reason, "reason", _validate.MAX_REASON)
        await self._connection.requests.run(
            lambda: self._raw.kill_node(nodeid, reason),
            explain={CsError.NOT_EXIST: f"no node {nodeid} is in the partition of {self._connection.label}"},
        )

    async def try_shutdown(self, flags: ShutdownFlag = ShutdownFlag.REQUEST) -> None:
        """Shut down the daemon of our node, if nobody who tracks shutdowns there refuses; returns once that is decided.

        We are not asked ourselves. Then the daemon stops in good order, and every connection to it is lost.

        Args:
            flags: whom to ask, and whether their answers count.

        Raises:
            BusyError: somebody refused, or did not answer in time.
            ExistError: somebody else tries it right now.

        Cancelled: the negotiation goes on, and may succeed. Until it is over, other calls on this connection wait.

        Source: corosync_cfg_try_shutdown(3).
        """
        flags = ShutdownFlag(flags)
        await self._connection.requests.run(
            lambda: self._raw.try_shutdown(flags),
            explain={
                CsError.BUSY: f"the shutdown of {self._connection.label} was refused, or not agreed to in time",
                CsError.EXIST: f"{self._connection.label} is negotiating another shutdown",
            },
        )

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def track_shutdown(self) -> AsyncGenerator[EventStream[ShutdownRequest], None]:
        """Be asked before the daemon shuts down: each `ShutdownRequest` wants a `reply`.

        To end this block while a request is open is to agree to it; who still waits in `receive` gets
        `trio.ClosedResourceError`. Where this connection has tried a shutdown itself, a request that ran out of time
        comes once more, and nobody waits for that answer: so use a connection of its own for it.

        Raises:
            trio.BusyResourceError: this connection tracks shutdowns already.

        Cancelled: nothing is left behind.

        Source: corosync_cfg_trackstart (corosync/cfg.h).
        """
        await self._connection.lifetime.check_async()
        if self._streams:
            raise trio.BusyResourceError("this connection tracks shutdowns already; open another one")
        stream: EventStream[ShutdownRequest] = EventStream(self._connection.lifetime, _MAX_BUFFERED_BYTES)
        self._streams.append(stream)
        try:
            try:
                await self._connection.requests.run(self._raw.trackstart)
                yield stream
            finally:
                stream.close()
                # Also after a start that was cancelled: else every shutdown would wait for our answer, in vain.
                await self._connection.requests.undo(self._raw.trackstop)  # noqa: ASYNC102
        finally:
            self._streams.remove(stream)


@asynccontextmanager
async def open_cfg(*, endpoint: Endpoint | None = None) -> AsyncGenerator[Cfg, None]:
    """Connect to the cfg service for the length of the block.

    Args:
        endpoint: the daemon; without it, the default one.

    Raises:
        CorosyncUnavailableError: no daemon, or no library.
        ConnectionLostError: the daemon died; the block was cancelled.

    Source: corosync/cfg.h, corosync_cfg_initialize.
    """
    raw, connection = await open_connection(CFG, endpoint)
    streams: list[EventStream[ShutdownRequest]] = []

    def handle(events: Sequence[ShutdownFlag]) -> None:
        for stream in streams:
            stream.put(ShutdownRequest(flags, raw, connection) for flags in events)

    async with connection.serving(handle):
        yield Cfg(raw, connection, streams)
