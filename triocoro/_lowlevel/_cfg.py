"""The functions of libcfg, one to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import ShutdownFlag
from .._raw import RawCfg
from .._services import CFG, Endpoint, HasEndpoint
from .._types import IPAddress, NodeStatus, RingStatus
from ._handle import Callbacks, Handle


@final
class CfgHandle(Handle[ShutdownFlag]):
    """A handle of libcfg. Objects of this class come from `cfg_initialize`.

    Only some functions have manual pages; corosync/cfg.h declares all of them.

    Cancelled: the request may have taken effect, unless a method says otherwise.
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
        """Return the state of a node as totem sees it (corosync_cfg_node_status_get).

        Raises:
            FailedOperationError: totem does not know that node.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.node_status(nodeid))

    async def ring_status_get(self) -> tuple[RingStatus, ...]:
        """Return the state of the links of our own node (corosync_cfg_ring_status_get)."""
        return await self._request(self._raw.ring_status)

    async def get_node_addrs(self, nodeid: int) -> tuple[IPAddress, ...]:
        """Return the addresses of a node; 0 stands for the daemon's own (corosync_cfg_get_node_addrs(3)).

        Raises:
            NotExistError: totem does not know that node.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.node_addresses(nodeid))

    async def reload_config(self) -> None:
        """Reload corosync.conf on every node of the partition (corosync_cfg_reload_config)."""
        await self._request(self._raw.reload_config)

    async def reopen_log_files(self) -> None:
        """Reopen the daemon's log files (corosync_cfg_reopen_log_files)."""
        await self._request(self._raw.reopen_log_files)

    async def kill_node(self, nodeid: int, reason: str) -> None:
        """Terminate the daemon of a node at once (corosync_cfg_kill_node(3)).

        Raises:
            NotExistError: that node is not in our partition.
        """
        _validate.uint32(nodeid, "nodeid")
        _validate.reason(reason)
        await self._request(lambda: self._raw.kill_node(nodeid, reason))

    async def try_shutdown(self, flags: ShutdownFlag) -> None:
        """Shut our node's daemon down unless a program refuses (corosync_cfg_try_shutdown(3)).

        Returns once that is decided.

        Raises:
            BusyError: a program refused, or did not reply in time.
            ExistError: another shutdown is being negotiated.
        """
        flags = ShutdownFlag(flags)
        await self._request(lambda: self._raw.try_shutdown(flags))

    async def trackstart(self) -> None:
        """Subscribe to shutdown requests (corosync_cfg_trackstart). A second call has no effect."""
        await self._request(self._raw.trackstart)

    async def trackstop(self) -> None:
        """Unsubscribe, if subscribed (corosync_cfg_trackstop). Agrees to a shutdown that is being negotiated."""
        await self._request(self._raw.trackstop)

    async def replyto_shutdown(self, accept: bool) -> None:  # noqa: FBT001 - as in C
        """Reply to a shutdown request (corosync_cfg_replyto_shutdown(3)).

        Each call counts as one more reply. Without an open request, it has no effect.
        """
        _validate.boolean(accept, "accept")
        await self._request(lambda: self._raw.reply_to_shutdown(accept))


async def cfg_initialize(
    *,
    shutdown_callback: Callable[[ShutdownFlag], Awaitable[object]] | None = None,
    context: object = None,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> CfgHandle:
    """Connect to the cfg service (corosync_cfg_initialize).

    Args:
        shutdown_callback: async function, called when the daemon asks whether we agree to a shutdown.
        context: the initial value of the handle's `context`.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises, Cancelled: as `cpg_initialize`.
    """
    raw, connection = await open_connection(CFG, endpoint, retrying=False)
    return CfgHandle(raw, connection, {ShutdownFlag: shutdown_callback}, context)
