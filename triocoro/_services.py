"""What the SDK connects to: the five services of a daemon, and the `Endpoint` that leads to a daemon.

A `ServiceSpec` says which service to connect to and with which options. Its type parameters carry the types of the raw
handle and of the handle's events, so that connecting to each service is typed without a method for each::

    raw = await endpoint.connect(CPG)  # a RawCpg
    raw = await endpoint.connect(CmapSpec(CmapMap.STATS))  # a RawCmap
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import ClassVar, Final, Generic, Protocol, TypeVar, runtime_checkable

import attrs

from ._enums import CmapMap, ShutdownFlag
from ._raw import RawCfg, RawCmap, RawCpg, RawQuorum, RawVotequorum
from ._types import CmapNotification, CpgEvent, QuorumEvent, VotequorumEvent

RawT = TypeVar("RawT")
RawT_co = TypeVar("RawT_co", covariant=True)
EventT_co = TypeVar("EventT_co", covariant=True)


@attrs.frozen
class ServiceSpec(Generic[RawT_co, EventT_co]):
    """A service and the options to connect to it with. The fields of a subclass are the options of that service."""

    name: ClassVar[str]
    """The service's name, such as ``"cpg"``."""


@attrs.frozen
class CpgSpec(ServiceSpec[RawCpg, CpgEvent]):
    """The CPG service, by cpg_model_initialize(3)."""

    name = "cpg"

    initial_totem_conf: bool = False
    """Deliver a `TotemChange` with the current ring after the join (`CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF`)."""


@attrs.frozen
class VotequorumSpec(ServiceSpec[RawVotequorum, VotequorumEvent]):
    """The votequorum service, by votequorum_model_initialize(3), or votequorum_initialize(3) in older libraries."""

    name = "votequorum"

    extra_info: bool = False
    """Fail with `NotSupportedError` unless the library delivers `QdeviceExtraInfo`."""


@attrs.frozen
class QuorumSpec(ServiceSpec[RawQuorum, QuorumEvent]):
    """The quorum service, by quorum_model_initialize(3)."""

    name = "quorum"


@attrs.frozen
class CmapSpec(ServiceSpec[RawCmap, CmapNotification]):
    """One map of the cmap service, by cmap_initialize_map(3)."""

    name = "cmap"

    map: CmapMap = CmapMap.ICMAP
    """The map to connect to."""


@attrs.frozen
class CfgSpec(ServiceSpec[RawCfg, ShutdownFlag]):
    """The cfg service, by corosync_cfg_initialize."""

    name = "cfg"


CPG: Final = CpgSpec()
VOTEQUORUM: Final = VotequorumSpec()
QUORUM: Final = QuorumSpec()
ICMAP: Final = CmapSpec(CmapMap.ICMAP)
STATS: Final = CmapSpec(CmapMap.STATS)
CFG: Final = CfgSpec()


@runtime_checkable
class HasEndpoint(Protocol):
    """What may stand for an endpoint: an object with one, such as a node of a test cluster."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint to connect to."""
        ...


@runtime_checkable
class Endpoint(Protocol):
    """A daemon to connect to: the system's Corosync, or a node of a test cluster.

    Pass an endpoint to any `open_*` function, or make it the default with `default_endpoint`. Endpoints come from
    `triocoro.testing`: each node of a cluster has one, so `open_*` takes the node as well, and `History.endpoint` wraps
    another one. An endpoint looks its daemon up at each connect, so it stays valid when the daemon restarts.

    This is a protocol, so a program can wrap an endpoint in a class of its own and pass the calls on. The handles that
    `connect` returns are not part of the public API.
    """

    @property
    def label(self) -> str:
        """Names the daemon in error messages, such as ``"the system's Corosync"`` or ``"node 2 of fake-1"``."""
        ...

    @property
    def identity(self) -> Hashable:
        """Identifies the daemon within this process: equal for two endpoints if they lead to the same daemon.

        It stays the same when the daemon restarts. An endpoint that wraps another one returns that one's identity.
        """
        ...

    @property
    def pid(self) -> int:
        """The process id under which clients of this endpoint appear as members of groups."""
        ...

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        """Connect to one service of the daemon.

        Args:
            service: the service and its options.

        Returns:
            a new handle. The caller closes it.

        Raises:
            LibraryError: no daemon answers.
            AccessError: the daemon refuses this user.
            CorosyncUnavailableError: the client library or the extension module is missing.
            NotSupportedError: the client library is too old for an option.
            TryAgainError: the daemon is still starting.

        Cancelled: returns at once; a connection that is made nevertheless is closed in the background.
        """
        ...
