"""libcfg, one to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import ShutdownFlag
from .._raw import RawCfg
from .._services import CFG, Endpoint
from .._types import IPAddress, NodeStatus, RingStatus
from ._handle import Callbacks, Handle


@final
class CfgHandle(Handle[ShutdownFlag]):
    """A handle of libcfg. Objects of this class come from `cfg_initialize`.

    The manual pages are few; corosync/cfg.h declares everything.
    """

    def __init__(
        self, raw: RawCfg, connection: Connection[ShutdownFlag], callbacks: Callbacks, context: object
    ) -> None:
        super().__init__(connection, callbacks, context)
        self._raw = raw

    async def local_get(self) -> int:
        """Return the id of the daemon's node (corosync_cfg_local_get(3))."""
        return await self._request(self._raw.local_nodeid)

    async def node_status_get(self, nodeid: int) -> NodeStatus:
        """Return how totem sees a node (corosync_cfg_node_status_get).

        Raises:
            FailedOperationError: totem knows no such node.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.node_status(nodeid))

    async def ring_status_get(self) -> tuple[RingStatus, ...]:
        """Return how our own links fare (corosync_cfg_ring_status_get)."""
        return await self._request(self._raw.ring_status)

    async def get_node_addrs(self, nodeid: int) -> tuple[IPAddress, ...]:
        """Return the addresses of a node; 0 is the daemon's own (corosync_cfg_get_node_addrs(3)).

        Raises:
            NotExistError: totem knows no such node.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.node_addresses(nodeid))

    async def reload_config(self) -> None:
        """Have every node read its corosync.conf again (corosync_cfg_reload_config)."""
        await self._request(self._raw.reload_config)

    async def reopen_log_files(self) -> None:
        """Have the daemon open its log files anew (corosync_cfg_reopen_log_files)."""
        await self._request(self._raw.reopen_log_files)

    async def kill_node(self, nodeid: int, reason: str) -> None:
        """End the daemon of a node at once (corosync_cfg_kill_node(3)).

        Raises:
            NotExistError: no such node is in our partition.
        """
        _validate.uint32(nodeid, "nodeid")
        _validate.text(reason, "reason", _validate.MAX_REASON)
        await self._request(lambda: self._raw.kill_node(nodeid, reason))

    async def try_shutdown(self, flags: ShutdownFlag) -> None:
        """Shut down our node's daemon if nobody refuses; returns once it is decided (corosync_cfg_try_shutdown(3)).

        Raises:
            BusyError: refused, or not agreed to in time.
            ExistError: another one is being negotiated.
        """
        flags = ShutdownFlag(flags)
        await self._request(lambda: self._raw.try_shutdown(flags))

    async def trackstart(self) -> None:
        """Ask to be asked before a shutdown (corosync_cfg_trackstart); once more changes nothing."""
        await self._request(self._raw.trackstart)

    async def trackstop(self) -> None:
        """End what `trackstart` began, if anything; agrees to a shutdown that is being negotiated."""
        await self._request(self._raw.trackstop)

    async def replyto_shutdown(self, accept: bool) -> None:  # noqa: FBT001 - as in C
        """Answer a shutdown request (corosync_cfg_replyto_shutdown(3)).

        Each call counts as one more answer; without a request under way, it does nothing.
        """
        _validate.boolean(accept, "accept")
        await self._request(lambda: self._raw.reply_to_shutdown(accept))


async def cfg_initialize(
    *,
    shutdown_callback: Callable[[ShutdownFlag], Awaitable[object]] | None = None,
    context: object = None,
    endpoint: Endpoint | None = None,
) -> CfgHandle:
    """Connect to the cfg service (corosync_cfg_initialize).

    Args:
        shutdown_callback: called when the daemon is asked to shut down, and wants to know what we say.
        context: the handle's `context`.
        endpoint: the daemon to connect to; by default the default endpoint.

    Raises, Cancelled: as `cpg_initialize`.
    """
    raw, connection = await open_connection(CFG, endpoint, retrying=False)
    return CfgHandle(raw, connection, {ShutdownFlag: shutdown_callback}, context)
