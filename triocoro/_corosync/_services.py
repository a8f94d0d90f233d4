"""Which handle class serves which service, and the flags of its initialize call."""

from __future__ import annotations

from .._services import CfgSpec, CmapSpec, CpgSpec, QuorumSpec, ServiceSpec, VotequorumSpec
from ._cfg import CorosyncCfg
from ._cmap import CorosyncCmap
from ._cpg import INITIAL_TOTEM_CONF, CorosyncCpg
from ._handle import CorosyncHandle
from ._quorum import CorosyncQuorum
from ._votequorum import NEEDS_EXTRA_INFO, CorosyncVotequorum


def handle_class_and_flags(service: ServiceSpec[object, object]) -> tuple[type[CorosyncHandle[object]], int]:
    """The class of the service's handles, and what to pass to the C initialize function."""
    if isinstance(service, CpgSpec):
        return CorosyncCpg, INITIAL_TOTEM_CONF if service.initial_totem_conf else 0
    if isinstance(service, VotequorumSpec):
        return CorosyncVotequorum, NEEDS_EXTRA_INFO if service.extra_info else 0
    if isinstance(service, QuorumSpec):
        return CorosyncQuorum, 0
    if isinstance(service, CmapSpec):
        return CorosyncCmap, service.map
    if isinstance(service, CfgSpec):
        return CorosyncCfg, 0
    raise TypeError(f"not a service of Corosync: {service!r}")
