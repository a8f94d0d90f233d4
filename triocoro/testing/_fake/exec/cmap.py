"""The cmap service of one daemon (exec/cmap.c), and the keys that a daemon's map has from the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Final, Protocol

import attrs

from ...._enums import CmapMap, CmapTrack, CmapType, CsError
from ...._errors import CorosyncError, KeyNotFoundError, error_from_code
from ...._types import CmapChange, CmapNotification, CmapValue, RingId, TypedValue
from . import coroparse, links, totemconfig
from .daemon import Daemon
from .default_services import DEFAULT_SERVICES
from .icmap import Icmap, MapTracker
from .service import ClientConnection, Synchronised

_READ_ONLY: Final = (
    *(f"totem.crypto_{name}" for name in ("cipher", "hash", "model")),
    *(f"totem.{name}" for name in ("key", "keyfile", "secauth", "ip_version", "rrp_mode", "transport", "cluster_name")),
    *(f"totem.{name}" for name in ("netmtu", "threads", "version", "nodeid", "clear_node_high_bit")),
    *(f"quorum.{name}" for name in ("allow_downscale", "wait_for_all", "expected_votes_tracking")),
    *(f"quorum.last_man_standing{suffix}" for suffix in ("", "_window")),
    *(f"quorum.auto_tie_breaker{suffix}" for suffix in ("", "_node")),
    *(f"config.{name}_in_progress" for name in ("reload", "totemconfig_reload")),
)
_READ_ONLY_PREFIXES: Final = (
    *(f"runtime.{name}." for name in ("services", "config", "totem")),
    *("internal_configuration.", "uidgid.config.", "system.", "nodelist."),
)
_ALL_CHANGES: Final = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE
_GATHER: Final = "runtime.force_gather"
_NO: Final = TypedValue(CmapType.STRING, "no")


class Map(Protocol):
    """A map as clients use it: `icmap.Icmap` or `stats.Stats`."""

    def get(self, key: str) -> TypedValue | None: ...
    def items(self, prefix: str) -> Sequence[tuple[str, TypedValue]]: ...
    def is_read_only(self, key: str) -> bool: ...
    def set(self, key: str, type_: CmapType, value: CmapValue) -> None: ...
    def delete(self, key: str) -> bool: ...
    def adjust(self, key: str, step: int) -> bool: ...
    def track(self, tracker: MapTracker) -> None: ...
    def untrack(self, tracker: MapTracker) -> None: ...


@attrs.frozen
class _ConfigVersion:
    """A message between the daemons: the sender's totem.config_version, 0 if it has none."""

    version: int


class CmapService(Synchronised):
    """The maps of one node: their clients, and the keys on which the daemon acts."""

    name = "cmap"

    def __init__(self, daemon: Daemon, configured: Icmap) -> None:
        super().__init__(daemon.multicast)
        self.daemon = daemon
        self._members: tuple[int, ...] = ()
        # In the first transition to a ring with others, a daemon compares the versions of their configurations.
        self._meets_others = self._version_checked = False
        self._highest_version = 0
        self._trackers: dict[tuple[ClientConnection, int], tuple[Map, MapTracker]] = {}
        icmap = daemon.icmap
        icmap.load(_common_keys(configured))
        icmap.load(_node_keys(daemon.nodeid, configured))
        icmap.protect(keys=_READ_ONLY, prefixes=_READ_ONLY_PREFIXES)
        icmap.track(MapTracker("totem.config_version", _ALL_CHANGES, self._config_version_changed))
        icmap.track(MapTracker("totem.", _ALL_CHANGES | CmapTrack.PREFIX, self._totem_changed))
        icmap.track(MapTracker(_GATHER, _ALL_CHANGES, self._force_gather))

    def map(self, which: CmapMap) -> Map:
        """The map of that name."""
        return self.daemon.icmap if which is CmapMap.ICMAP else self.daemon.stats

    # Requests of the library.

    def get(self, map_: Map, key: str) -> TypedValue:
        """Return the value of a key."""
        value = map_.get(key)
        if value is None:
            raise _not_found("cmap_get", key)
        return value

    def set(self, map_: Map, key: str, typed: TypedValue) -> None:
        """Set a key."""
        self._check_writable("cmap_set", map_, key)
        map_.set(key, typed.type, typed.value)

    def delete(self, map_: Map, key: str) -> None:
        """Remove a key."""
        self._check_writable("cmap_delete", map_, key)
        if not map_.delete(key):
            raise _not_found("cmap_delete", key)

    def adjust(self, function: str, map_: Map, key: str, step: int) -> None:
        """Add `step` to a key that is an integer."""
        self._check_writable(function, map_, key)
        if not map_.adjust(key, step):
            if map_.get(key) is None:
                raise _not_found(function, key)
            raise error_from_code(CsError.INVALID_PARAM, function, f"{key!r} is no integer")

    def track_add(self, connection: ClientConnection, map_: Map, number: int, key: str, track_type: CmapTrack) -> None:
        """Send a client changes, under the number that it has given this tracker."""

        def notify(change: CmapChange) -> None:
            connection.send(CmapNotification(number, change), size=_size_of(change.new) + _size_of(change.old))

        tracker = MapTracker(key, track_type, notify)
        map_.track(tracker)
        self._trackers[connection, number] = map_, tracker

    def track_delete(self, connection: ClientConnection, number: int) -> None:
        """Stop a tracker of a client."""
        map_, tracker = self._trackers.pop((connection, number))
        map_.untrack(tracker)

    def connection_closed(self, connection: ClientConnection) -> None:
        for other, number in list(self._trackers):
            if other is connection:
                self.track_delete(connection, number)

    def _check_writable(self, function: str, map_: Map, key: str) -> None:
        if map_.is_read_only(key):
            raise error_from_code(CsError.ACCESS, function, f"{key!r} is read-only")

    # The other daemons.

    def sync_init(
        self,
        transitional: frozenset[int],
        members: tuple[int, ...],
        ring_id: RingId,  # noqa: ARG002 - no key has it
    ) -> None:
        icmap = self.daemon.icmap
        # The ring of its own that a daemon forms when it starts does not count.
        self._meets_others = bool(self._members)
        self._highest_version = self._config_version()
        stayed = transitional.intersection(self._members)
        for nodeid in self._members:
            if nodeid not in stayed:
                icmap.set(f"runtime.members.{nodeid}.status", CmapType.STRING, "left")
        addresses = coroparse.addresses(icmap)
        for nodeid in members:
            if nodeid not in stayed:
                self._joined(nodeid, addresses[nodeid])
        self._members = members

    def _joined(self, nodeid: int, links: Mapping[int, str]) -> None:
        icmap = self.daemon.icmap
        prefix = f"runtime.members.{nodeid}"
        if not icmap.adjust(f"{prefix}.join_count", 1):
            text = "".join(f"r({link}) ip({address}) " for link, address in links.items())
            icmap.set(f"{prefix}.ip", CmapType.STRING, text)
            icmap.set(f"{prefix}.join_count", CmapType.UINT32, 1)
        icmap.set(f"{prefix}.status", CmapType.STRING, "joined")

    def sync_process(self) -> None:
        self._send_config_version()

    def sync_activate(self) -> None:
        """Exit if our configuration is older than that of the others. Clients see the new ring in the keys."""
        if not self._meets_others or self._version_checked:
            return
        self._version_checked = True
        own, highest = self._config_version(), self._highest_version
        if own not in (0, highest):
            daemon = self.daemon
            daemon.log(
                "CMAP", f"Received config version ({highest}) is different than my config version ({own})! Exiting"
            )
            daemon.totem.after_delivery(daemon.shut_down)

    def deliver(self, message: object, sender: int) -> None:
        match message:
            case _ConfigVersion(version):
                key = f"runtime.members.{sender}.config_version"
                self._highest_version = max(self._highest_version, version)
                self.daemon.icmap.set(key, CmapType.UINT64, version)
            case _:
                raise AssertionError(message)

    def _config_version_changed(self, _: CmapChange) -> None:
        self._send_config_version()

    def _send_config_version(self) -> None:
        self.multicast(_ConfigVersion(self._config_version()))

    def _config_version(self) -> int:
        typed = self.daemon.icmap.get("totem.config_version")
        return int(typed.value) if typed is not None and typed.type is CmapType.UINT64 else 0

    # Keys on which the daemon acts.

    def _totem_changed(self, change: CmapChange) -> None:
        icmap = self.daemon.icmap
        reloading = icmap.get("config.reload_in_progress")
        if reloading is not None and reloading.value:
            return
        known = icmap.get(f"runtime.config.{change.key}") is not None or change.key == "totem.token_coefficient"
        if known and not change.key.startswith("totem.interface."):
            deleted = change.key if change.event is CmapTrack.DELETE else ""
            for key, typed in totemconfig.runtime(icmap, deleted=deleted):
                icmap.set(key, typed.type, typed.value)

    def _force_gather(self, _: CmapChange) -> None:
        daemon = self.daemon
        if daemon.icmap.get(_GATHER) != _NO:
            daemon.icmap.set(_GATHER, _NO.type, _NO.value)
            daemon.log("MAIN", "Forcing into GATHER state")
            daemon.totem.gather(daemon)


@lru_cache(maxsize=8)
def _common_keys(configured: Icmap) -> tuple[tuple[str, TypedValue], ...]:
    """The keys that every daemon of the cluster has at its start."""
    runtime = dict(totemconfig.runtime(configured))
    return (
        *configured.items(),
        *runtime.items(),
        *links.ping_keys(configured, token=int(runtime["runtime.config.totem.token"].value)),
        *links.multicast_keys(configured),
        *_constant_keys(),
    )


def _node_keys(nodeid: int, configured: Icmap) -> Iterator[tuple[str, TypedValue]]:
    """The keys that differ between nodes."""
    yield "nodelist.local_node_pos", TypedValue(CmapType.UINT32, coroparse.own_position(configured, nodeid))
    for link, address in coroparse.addresses(configured)[nodeid].items():
        yield f"totem.interface.{link}.bindnetaddr", TypedValue(CmapType.STRING, address)


def _constant_keys() -> Iterator[tuple[str, TypedValue]]:
    """The keys that do not depend on the configuration. The fake does not count, so counters stay at 0."""
    string = partial(TypedValue, CmapType.STRING)
    for number, (service, messages) in enumerate(DEFAULT_SERVICES):
        yield f"internal_configuration.service.{number}.name", string(f"corosync_{service}")
        yield f"internal_configuration.service.{number}.ver", TypedValue(CmapType.UINT32, 0)
        yield f"runtime.services.{service}.service_id", TypedValue(CmapType.UINT16, number)
        for message in range(messages):
            for direction in ("rx", "tx"):
                yield f"runtime.services.{service}.{message}.{direction}", TypedValue(CmapType.UINT64, 0)
    for name in ("blackbox.dump_flight_data", "blackbox.dump_state", "force_gather"):
        yield f"runtime.{name}", string("no")
    for name, zero in (
        ("load_15min", TypedValue(CmapType.DOUBLE, 0.0)),
        ("memory_used", TypedValue(CmapType.INT32, 0)),
    ):
        yield f"resources.system.{name}.current", zero
        yield f"resources.system.{name}.last_updated", TypedValue(CmapType.UINT64, 0)
        yield f"resources.system.{name}.poll_period", TypedValue(CmapType.UINT64, 3000)
        yield f"resources.system.{name}.state", string("stopped")
    yield "resources.watchdog_timeout", TypedValue(CmapType.UINT32, 6)


def _not_found(function: str, key: str) -> CorosyncError:
    return KeyNotFoundError(f"{function}: CS_ERR_NOT_EXIST: there is no key {key!r}", function=function)


def _size_of(value: CmapValue | None) -> int:
    return len(value) if isinstance(value, (str, bytes)) else 8
