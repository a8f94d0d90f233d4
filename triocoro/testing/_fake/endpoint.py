"""What a node serves, and a client's way to it. A further service adds a line to `services` and a connect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import trio

from ..._errors import CsError, error_from_code
from ..._raw import RawCfg, RawCmap, RawCpg, RawQuorum, RawVotequorum
from ..._types import CmapMap
from .._cluster.options import ClusterOptions
from .exec.cfg import CfgService
from .exec.cmap import CmapService
from .exec.cpg import CpgService
from .exec.daemon import Daemon
from .exec.ipc import IpcConnection
from .exec.jobs import PendingReply, broken
from .exec.quorum import QuorumService
from .exec.service import Service
from .exec.votequorum import VotequorumService
from .lib.cfg import FakeCfg
from .lib.cmap import FakeCmap
from .lib.cpg import FakeCpg
from .lib.handle import FakeHandle
from .lib.quorum import FakeQuorum
from .lib.votequorum import TOO_OLD, FakeVotequorum

ServiceT = TypeVar("ServiceT", bound=Service)
HandleT = TypeVar("HandleT", bound="FakeHandle[Any, Any]")


def services(daemon: Daemon, options: ClusterOptions) -> list[Service]:
    """The services of a daemon, in the order in which they synchronise."""
    quorum = QuorumService(daemon)
    return [
        CmapService(daemon, options),
        CfgService(daemon, options),
        CpgService(daemon),
        quorum,
        VotequorumService(daemon, quorum),
    ]


class FakeEndpoint:
    """A client's way to a node of a `FakeCluster`."""

    def __init__(self, nodeid: int, daemon: Callable[[], Daemon | None], pid: int) -> None:
        self._nodeid = nodeid
        self._daemon = daemon
        self._pid = pid

    def __repr__(self) -> str:
        return f"<FakeEndpoint {self.label} pid {self._pid}>"

    @property
    def label(self) -> str:
        """Names the daemon in messages."""
        return f"node {self._nodeid}"

    @property
    def pid(self) -> int:
        """The pid under which our clients appear in groups."""
        return self._pid

    async def connect_cpg(self, *, initial_totem_conf: bool = False) -> RawCpg:
        """Connect to the daemon's CPG service."""

        def make(connection: IpcConnection, service: CpgService) -> FakeCpg:
            return FakeCpg(connection, service, self._pid, initial_totem_conf=initial_totem_conf)

        return await self._connect("cpg_model_initialize", CpgService, make)

    async def connect_votequorum(self, *, extra_info: bool = False) -> RawVotequorum:
        """Connect to the daemon's votequorum service."""
        if extra_info:
            await trio.lowlevel.checkpoint()
            raise error_from_code(CsError.NOT_SUPPORTED, "votequorum_model_initialize", TOO_OLD)
        return await self._connect("votequorum_initialize", VotequorumService, FakeVotequorum)

    async def connect_quorum(self) -> RawQuorum:
        """Connect to the daemon's quorum service."""
        return await self._connect("quorum_model_initialize", QuorumService, FakeQuorum)

    async def connect_cmap(self, map: CmapMap) -> RawCmap:  # noqa: A002 - as in C
        """Connect to one of the daemon's maps."""

        def make(connection: IpcConnection, service: CmapService) -> FakeCmap:
            return FakeCmap(connection, service, map)

        return await self._connect("cmap_initialize_map", CmapService, make)

    async def connect_cfg(self) -> RawCfg:
        """Connect to the daemon's cfg service."""
        return await self._connect("corosync_cfg_initialize", CfgService, FakeCfg)

    async def _connect(
        self, function: str, kind: type[ServiceT], make: Callable[[IpcConnection, ServiceT], HandleT]
    ) -> HandleT:
        """Connect to the service of that kind; `function` is the C function to name where that fails."""
        await trio.lowlevel.checkpoint()
        daemon = self._daemon()
        if daemon is None:
            raise broken(function)
        pending = PendingReply[HandleT](function)

        def accept() -> None:
            service = daemon.service(kind)
            pending.finish(make(IpcConnection(daemon, service, self._pid), service))

        daemon.submit(_Accept(accept, pending.abort))

        def unclaimed(handle: HandleT | None) -> None:
            if handle is not None:
                handle.close()

        return await pending.wait(unclaimed=unclaimed)


class _Accept:
    """A client that knocks at a daemon's door."""

    def __init__(self, accept: Callable[[], None], refuse: Callable[[], None]) -> None:
        self.run = accept
        self.abort = refuse
