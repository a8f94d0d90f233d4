"""A node's services and the endpoint to connect to them.

A new service adds a line to `services` and a case to `FakeEndpoint._connect_to`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import trio

from ..._enums import CsError
from ..._errors import NoResourcesError, error_from_code, naming_descriptors
from ..._runs import Run
from ..._services import CfgSpec, CmapSpec, CpgSpec, QuorumSpec, ServiceSpec, VotequorumSpec
from .exec.cfg import CfgService
from .exec.cmap import CmapService
from .exec.cpg import CpgService
from .exec.daemon import Daemon
from .exec.icmap import Icmap
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

RawT = TypeVar("RawT")
ServiceT = TypeVar("ServiceT", bound=Service)
HandleT = TypeVar("HandleT", bound="FakeHandle[Any, Any]")


def services(daemon: Daemon, read_configuration: Callable[[], Icmap]) -> list[Service]:
    """Make the services of a daemon, in the order in which they synchronise."""
    quorum = QuorumService(daemon)
    return [
        CmapService(daemon, read_configuration()),
        CfgService(daemon, read_configuration),
        CpgService(daemon),
        quorum,
        VotequorumService(daemon, quorum),
    ]


class FakeEndpoint:
    """The `Endpoint` of a node of a `FakeCluster`.

    Args:
        label: names the node in messages.
        daemon: returns the node's daemon; `None` if none is running. Its exceptions come out of `connect`.
        pid: the process id of its clients.
    """

    def __init__(self, label: str, daemon: Callable[[], Daemon | None], pid: int, *, identity: Hashable) -> None:
        self._label = label
        self._identity = identity
        self._daemon = daemon
        self._pid = pid

    def __repr__(self) -> str:
        return f"<FakeEndpoint {self.label} pid {self._pid}>"

    @property
    def label(self) -> str:
        """The name of the daemon in error messages."""
        return self._label

    @property
    def identity(self) -> Hashable:
        """Equal for all endpoints of the same node of the same cluster."""
        return self._identity

    @property
    def pid(self) -> int:
        """The pid of this endpoint's clients, as it appears in groups."""
        return self._pid

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        """Connect to one of the daemon's services."""
        return cast("RawT", await self._connect_to(service))

    async def _connect_to(self, spec: ServiceSpec[object, object]) -> FakeHandle[Any, Any]:
        if isinstance(spec, CpgSpec):

            def make_cpg(connection: IpcConnection, service: CpgService) -> FakeCpg:
                return FakeCpg(connection, service, self._pid, initial_totem_conf=spec.initial_totem_conf)

            return await self._connect("cpg_model_initialize", CpgService, make_cpg)
        if isinstance(spec, VotequorumSpec):
            if spec.extra_info:
                await trio.lowlevel.checkpoint()
                raise error_from_code(CsError.NOT_SUPPORTED, "votequorum_model_initialize", TOO_OLD)
            return await self._connect("votequorum_initialize", VotequorumService, FakeVotequorum)
        if isinstance(spec, QuorumSpec):
            return await self._connect("quorum_model_initialize", QuorumService, FakeQuorum)
        if isinstance(spec, CmapSpec):

            def make_cmap(connection: IpcConnection, service: CmapService) -> FakeCmap:
                return FakeCmap(connection, service, spec.map)

            return await self._connect("cmap_initialize_map", CmapService, make_cmap)
        if isinstance(spec, CfgSpec):
            return await self._connect("corosync_cfg_initialize", CfgService, FakeCfg)
        raise TypeError(f"not a service of Corosync: {spec!r}")

    async def _connect(
        self, function: str, kind: type[ServiceT], make: Callable[[IpcConnection, ServiceT], HandleT]
    ) -> HandleT:
        """Connect to the service of class `kind`; `function` is the C function to name in errors."""
        await trio.lowlevel.checkpoint()
        daemon = self._daemon()
        if daemon is None:
            raise broken(function)
        run = Run()
        pending = PendingReply[HandleT](function, run)

        def accept() -> None:
            service = daemon.service(kind)
            try:
                with naming_descriptors(function):
                    connection = IpcConnection(daemon, service, self._pid, run)
            except NoResourcesError as error:
                pending.finish(error)  # the daemon goes on
            else:
                pending.finish(make(connection, service))

        daemon.submit(_ConnectJob(accept, pending.abort))

        def unclaimed(handle: HandleT | None) -> None:
            if handle is not None:
                handle.close()

        return await pending.wait(unclaimed=unclaimed)


class _ConnectJob:
    """A connect request in the queue of a daemon."""

    def __init__(self, accept: Callable[[], None], refuse: Callable[[], None]) -> None:
        self.run = accept
        self.abort = refuse
