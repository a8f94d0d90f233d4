"""The daemon itself, its nodes and links, and its shutdown: `open_cfg`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final, final

import trio

from . import _validate
from ._connection import Connection, open_connection
from ._enums import CsError, ShutdownFlag
from ._raw import RawCfg
from ._services import CFG, Endpoint, HasEndpoint
from ._stream import EventStream
from ._types import IPAddress, NodeStatus, RingStatus

_MAX_BUFFERED_BYTES: Final = 2**20
"""The bound for shutdown requests, which are rare: a receiver that has so much waiting has stopped receiving."""


@final
class ShutdownRequest:
    """A request to agree to a shutdown of the daemon. Objects of this class come from `Cfg.track_shutdown`."""

    def __init__(self, flags: ShutdownFlag, raw: RawCfg, connection: Connection[ShutdownFlag]) -> None:
        self.flags = flags
        """The kind of request. With `ShutdownFlag.REGARDLESS` the reply has no effect."""
        self._raw = raw
        self._connection = connection
        self._replied = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.flags.name}>"

    async def reply(self, accept: bool) -> None:  # noqa: FBT001 - what else could it be
        """Reply to the request. A second reply is refused: the daemon counts replies without looking at the sender.

        Without a reply the request fails after cfg.shutdown_timeout milliseconds (5,000 by default).

        Args:
            accept: whether to agree.

        Raises:
            RuntimeError: this request was answered before.

        Cancelled: the reply may have been sent.

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
    """A connection to the cfg service. Objects of this class come from `open_cfg`.

    Cancelled: no effect, unless a method says otherwise.
    """

    def __init__(
        self, raw: RawCfg, connection: Connection[ShutdownFlag], streams: list[EventStream[ShutdownRequest]]
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._streams = streams

    def __repr__(self) -> str:
        return f"<triocoro.Cfg on {self._connection.lifetime.describe()}>"

    async def local_nodeid(self) -> int:
        """Return the id of the daemon's node.

        Source: corosync_cfg_local_get(3).
        """
        return await self._connection.requests.run(self._raw.local_nodeid)

    async def node_status(self, nodeid: int) -> NodeStatus:
        """Return the state of a node and of all links to it, as totem sees them.

        Args:
            nodeid: the id of the node.

        Raises:
            FailedOperationError: totem does not know that node.

        Source: corosync_cfg_node_status_get (corosync/cfg.h), corosync-cfgtool(8).
        """
        _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.requests.run(
            lambda: self._raw.node_status(nodeid),
            explain={CsError.FAILED_OPERATION: f"totem on {self._connection.label} knows no node {nodeid}"},
        )

    async def ring_status(self) -> tuple[RingStatus, ...]:
        """Return the state of the links of our own node.

        Source: corosync_cfg_ring_status_get (corosync/cfg.h), corosync-cfgtool(8).
        """
        return await self._connection.requests.run(self._raw.ring_status)

    async def node_addresses(self, nodeid: int | None = None) -> tuple[IPAddress, ...]:
        """Return the addresses of a node, one for each link.

        Args:
            nodeid: the id of the node; `None` stands for the daemon's own.

        Raises:
            NotExistError: totem does not know that node.

        Source: corosync_cfg_get_node_addrs(3).
        """
        # The C call takes 0 for oneself.
        number = 0 if nodeid is None else _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.requests.run(
            lambda: self._raw.node_addresses(number),
            explain={CsError.NOT_EXIST: f"totem on {self._connection.label} knows no node {nodeid}"},
        )

    async def reload_config(self) -> None:
        """Reload corosync.conf on every node of the partition. Returns once our own node has reloaded it.

        Raises:
            InvalidParamError: our node refused it, and keeps the old one; its log says why.

        Cancelled: the configuration may have been reloaded.

        Source: corosync-cfgtool(8), -R.
        """
        await self._connection.requests.run(
            self._raw.reload_config,
            explain={
                CsError.INVALID_PARAM: f"{self._connection.label} refused the new configuration and keeps the old one;"
                " its log says why"
            },
        )

    async def reopen_log_files(self) -> None:
        """Reopen the daemon's log files, after they were rotated.

        Cancelled: the files may have been reopened.

        Source: corosync-cfgtool(8), -L.
        """
        await self._connection.requests.run(self._raw.reopen_log_files)

    async def kill_node(self, nodeid: int, reason: str = "") -> None:
        """Terminate the daemon of a node in our partition at once, as if it had crashed.

        Args:
            nodeid: the id of the node, which may be our own.
            reason: printable text that the daemon logs, at most 255 bytes.

        Raises:
            NotExistError: that node is not in our partition.

        Cancelled: the daemon may have been terminated.

        Source: corosync_cfg_kill_node(3).
        """
        _validate.uint32(nodeid, "nodeid", minimum=1)
        _validate.reason(reason)
        await self._connection.requests.run(
            lambda: self._raw.kill_node(nodeid, reason),
            explain={CsError.NOT_EXIST: f"no node {nodeid} is in the partition of {self._connection.label}"},
        )

    async def try_shutdown(self, flags: ShutdownFlag = ShutdownFlag.REQUEST) -> None:
        """Shut the daemon of our node down cleanly, unless a program that tracks shutdowns there refuses.

        Returns once that is decided. This connection is not asked, even if it tracks shutdowns. After a successful
        call, the daemon stops, and every connection to it is lost.

        Args:
            flags: whom to ask, and whether the replies count.

        Raises:
            BusyError: a program refused, or did not reply in time.
            ExistError: another shutdown is being negotiated.

        Cancelled: the negotiation continues and may succeed. Until it is over, other calls on this connection wait.

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
        """Receive a `ShutdownRequest` before the daemon shuts down, for the duration of the block. `reply` to each.

        Ending the block while a request is open agrees to it. Tasks that still wait in `receive` then get
        `trio.ClosedResourceError`. Use another connection for `try_shutdown`: if the same connection calls it, a
        request that timed out arrives a second time, and the reply to it has no effect.

        Yields:
            the stream of requests. Its `receive` raises what `Group.receive` raises.

        Raises:
            trio.BusyResourceError: this connection tracks shutdowns already.

        Cancelled: tracking ends, if necessary in the background.

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
                # Also after a start that was cancelled, as otherwise every shutdown would wait for our reply in vain.
                await self._connection.requests.undo(self._raw.trackstop)  # noqa: ASYNC102
        finally:
            self._streams.remove(stream)


@asynccontextmanager
async def open_cfg(*, endpoint: Endpoint | HasEndpoint | None = None) -> AsyncGenerator[Cfg, None]:
    """Connect to the cfg service for the duration of the block.

    Args:
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ConnectionLostError: the daemon died; the block was cancelled.

    Cancelled: no connection is left open. If the block is cancelled, the connection closes in the background.

    Source: corosync/cfg.h, corosync_cfg_initialize.
    """
    raw, connection = await open_connection(CFG, endpoint)
    streams: list[EventStream[ShutdownRequest]] = []

    def handle(events: Sequence[ShutdownFlag]) -> None:
        for stream in streams:
            stream.put([ShutdownRequest(flags, raw, connection) for flags in events])

    async with connection.serving(handle):
        yield Cfg(raw, connection, streams)
