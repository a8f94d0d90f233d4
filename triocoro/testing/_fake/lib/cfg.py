"""The cfg library: lib/cfg.c."""

from __future__ import annotations

from collections.abc import Sequence

from ...._enums import ShutdownFlag
from ...._types import IPAddress, NodeStatus, RingStatus
from ..exec.cfg import CfgService
from ..exec.ipc import IpcConnection
from .handle import FakeHandle


class FakeCfg(FakeHandle[ShutdownFlag, ShutdownFlag]):
    """A client's handle of the cfg service: a `RawCfg`."""

    dispatch_function = "corosync_cfg_dispatch"

    def __init__(self, connection: IpcConnection, service: CfgService) -> None:
        super().__init__(connection)
        self._service = service

    async def local_nodeid(self) -> int:
        return await self._round_trip("corosync_cfg_local_get", lambda: self._service.daemon.nodeid)

    async def node_status(self, nodeid: int) -> NodeStatus:
        return await self._round_trip("corosync_cfg_node_status_get", lambda: self._service.node_status(nodeid))

    async def ring_status(self) -> tuple[RingStatus, ...]:
        return await self._round_trip("corosync_cfg_ring_status_get", self._service.ring_status)

    async def node_addresses(self, nodeid: int) -> tuple[IPAddress, ...]:
        return await self._round_trip("corosync_cfg_get_node_addrs", lambda: self._service.node_addresses(nodeid))

    async def reload_config(self) -> None:
        await self._deferred_round_trip("corosync_cfg_reload_config", self._service.reload_config)

    async def reopen_log_files(self) -> None:
        await self._round_trip("corosync_cfg_reopen_log_files", self._service.reopen_log_files)

    async def kill_node(self, nodeid: int, reason: str) -> None:
        await self._round_trip("corosync_cfg_kill_node", lambda: self._service.kill_node(nodeid, reason))

    async def try_shutdown(self, flags: ShutdownFlag) -> None:
        await self._deferred_round_trip(
            "corosync_cfg_try_shutdown", lambda reply: self._service.try_shutdown(self._connection, flags, reply)
        )

    async def trackstart(self) -> None:
        await self._round_trip("corosync_cfg_trackstart", lambda: self._service.trackstart(self._connection))

    async def trackstop(self) -> None:
        await self._round_trip("corosync_cfg_trackstop", lambda: self._service.trackstop(self._connection))

    async def reply_to_shutdown(self, accept: bool) -> None:  # noqa: FBT001 - as in C
        def reply() -> None:
            self._service.reply_to_shutdown(self._connection, accept=accept)

        await self._round_trip("corosync_cfg_replyto_shutdown", reply)

    def _decode(self, records: Sequence[ShutdownFlag]) -> Sequence[ShutdownFlag]:
        return records

    def _finalize(self, *, leave: bool) -> None:  # noqa: ARG002 - there is no group to leave
        # corosync_cfg_finalize is no round trip, so it does not wait for a frozen daemon.
        self._disconnect()
