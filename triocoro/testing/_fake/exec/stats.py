"""The statistics of one daemon: exec/stats.c.

The fake counts connections with their requests and events, links, and rings. The other counters of a real daemon exist
too, and stay 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Final

import attrs

from ...._enums import CmapTrack, CmapType, CsError
from ...._errors import error_from_code
from ...._types import CmapChange, CmapValue, TypedValue
from .default_services import SERVICE_IDS
from .icmap import MapTracker, MapTrackers
from .links import Links
from .timers import Timer

_PERIOD: Final = 1.5
"""The seconds between two checks of tracked values."""

_CLEAR: Final = "stats.clear."


def _zeros(**names: str) -> dict[str, TypedValue]:
    """Counters that are 0, from lists of names by type."""
    return {
        name: TypedValue(CmapType[type_], "" if type_ == "STRING" else 0)
        for type_, text in names.items()
        for name in text.split()
    }


_TOTEM: Final = _zeros(
    UINT32="pg.msg_queue_avail pg.msg_reserved srp.continuous_gather srp.continuous_sendmsg_failures srp.mtt_rx_token"
    " srp.avg_token_workload srp.avg_backlog_calc",
    UINT64="srp.orf_token_tx srp.orf_token_rx srp.memb_merge_detect_tx srp.memb_merge_detect_rx srp.memb_join_tx"
    " srp.memb_join_rx srp.mcast_tx srp.mcast_retx srp.mcast_rx srp.memb_commit_token_tx srp.memb_commit_token_rx"
    " srp.token_hold_cancel_tx srp.token_hold_cancel_rx srp.operational_token_lost srp.gather_token_lost"
    " srp.commit_token_lost srp.recovery_token_lost srp.consensus_timeouts srp.rx_msg_dropped"
    " srp.time_since_token_last_received",
    UINT8="srp.firewall_enabled_or_nic_failure",
)
_KNET: Final = _zeros(
    UINT64="tx_uncompressed_packets tx_compressed_packets tx_compressed_original_bytes tx_compressed_size_bytes"
    " tx_compress_time_min tx_compress_time_max tx_compress_time_ave rx_compressed_packets"
    " rx_compressed_original_bytes rx_compressed_size_bytes rx_compress_time_min rx_compress_time_max"
    " rx_compress_time_ave tx_crypt_time_min tx_crypt_time_max tx_crypt_time_ave tx_crypt_byte_overhead"
    " tx_crypt_packets rx_crypt_time_min rx_crypt_time_max rx_crypt_time_ave rx_crypt_packets"
)
_LINK: Final = _zeros(
    UINT64="tx_data_packets rx_data_packets tx_data_bytes rx_data_bytes tx_ping_packets rx_ping_packets tx_ping_bytes"
    " rx_ping_bytes tx_pong_packets rx_pong_packets tx_pong_bytes rx_pong_bytes tx_pmtu_packets rx_pmtu_packets"
    " tx_pmtu_bytes rx_pmtu_bytes tx_total_packets rx_total_packets tx_total_bytes rx_total_bytes tx_total_errors"
    " rx_total_retries",
    UINT32="tx_pmtu_errors tx_pmtu_retries tx_ping_errors tx_ping_retries tx_pong_errors tx_pong_retries"
    " tx_data_errors tx_data_retries latency_min latency_max latency_ave latency_samples down_count up_count",
)
_CONNECTION: Final = _zeros(
    INT32="queueing",
    UINT32="queued sent flow_control",
    UINT64="invalid_request overload requests responses dispatched send_retries recv_retries flow_control_count",
    STRING="procname",
)


@attrs.define(eq=False)
class ConnectionCounters:
    """What is counted of one client's connection."""

    prefix: str
    """What its keys begin with."""
    requests: int = 0
    events: int = 0


class Stats:
    """The map of a daemon's statistics, a `cmap.Map`. Clients can only read it and reset counters.

    Args:
        links: the links of the daemon's node.
        connected: returns whether a link to a node is up.
        call_after: calls something after some seconds, unless the timer that it returns is cancelled.
    """

    def __init__(
        self,
        links: Links,
        *,
        connected: Callable[[int, int], bool],
        call_after: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self._links = links
        self._connected = connected
        self._call_after = call_after
        self._connections: list[ConnectionCounters] = []
        self._numbers = itertools.count(1)
        self._closed = 0
        self._rings = 0
        self._trackers = MapTrackers()
        # The trackers of values, the latest first, with the value that each was last told.
        self._polled: dict[MapTracker, CmapValue] = {}
        self._timer: Timer | None = None

    # Events that count.

    def ring_formed(self) -> None:
        """Count a new ring."""
        self._rings += 1

    def connected(self, service: str, pid: int) -> ConnectionCounters:
        """Add a connection; returns its counters, which the connection keeps up to date."""
        # Corosync tells connections apart by their addresses in memory.
        address = 0x550000000000 + next(self._numbers) * 0x1000
        counters = ConnectionCounters(f"stats.ipcs.service{SERVICE_IDS[service]}.{pid}.0x{address:x}")
        self._connections.append(counters)
        self._notify(CmapTrack.ADD, counters)
        return counters

    def disconnected(self, counters: ConnectionCounters) -> None:
        """Remove a connection."""
        self._notify(CmapTrack.DELETE, counters)
        self._connections.remove(counters)
        self._closed += 1

    def _notify(self, event: CmapTrack, counters: ConnectionCounters) -> None:
        added = event is CmapTrack.ADD
        for key, typed in _connection_values(counters).items():
            new, old = (typed, None) if added else (None, typed)
            self._trackers.notify(event, key, new=new, old=old)

    # The map.

    def get(self, key: str) -> TypedValue | None:
        """The value of a key; `None` if the key does not exist."""
        return self._values().get(key)

    def items(self, prefix: str) -> Sequence[tuple[str, TypedValue]]:
        """The keys that begin with `prefix`, in order, with their values."""
        return [item for item in sorted(self._values().items()) if item[0].startswith(prefix)]

    def is_read_only(self, key: str) -> bool:
        """Whether a key is read-only for clients: all are, except the ones that reset counters."""
        return not key.startswith(_CLEAR)

    def set(self, key: str, type_: CmapType, value: CmapValue) -> None:  # noqa: ARG002 - any value resets
        """Reset the counters that the key names."""
        what = key.removeprefix(_CLEAR)
        if not what.startswith(("knet", "ipc", "totem", "schedmiss", "all")):
            raise error_from_code(CsError.NOT_SUPPORTED, "cmap_set", f"{key!r} resets nothing")
        if what.startswith(("ipc", "all")):
            self._closed = 0
            for counters in self._connections:
                counters.requests = counters.events = 0
        if what.startswith(("totem", "all")):
            self._rings = 0

    def delete(self, key: str) -> bool:
        """Refuse to delete a key."""
        raise error_from_code(CsError.NOT_SUPPORTED, "cmap_delete", f"{key!r} cannot be deleted")

    def adjust(self, key: str, step: int) -> bool:
        """Refuse to increment or decrement a key."""
        raise error_from_code(CsError.NOT_SUPPORTED, "cmap_inc" if step > 0 else "cmap_dec", f"{key!r} is no counter")

    def _values(self) -> dict[str, TypedValue]:
        values = {f"stats.{name}": zero for name, zero in _TOTEM.items()}
        for state in ("gather", "commit", "recovery", "operational"):
            values[f"stats.srp.{state}_entered"] = TypedValue(CmapType.UINT64, self._rings)
        values["stats.ipcs.global.active"] = TypedValue(CmapType.UINT64, len(self._connections))
        values["stats.ipcs.global.closed"] = TypedValue(CmapType.UINT64, self._closed)
        for counters in self._connections:
            values |= _connection_values(counters)
        if self._links.on_knet:
            # A minimum of no measurements.
            least = TypedValue(CmapType.UINT64, 2**64 - 1)
            values |= {f"stats.knet.handle.{name}": least if name.endswith("_min") else z for name, z in _KNET.items()}
            for nodeid in self._links.nodes():
                for link in self._links.to(nodeid):
                    values |= self._link_values(nodeid, link)
        return values

    def _link_values(self, nodeid: int, link: int) -> dict[str, TypedValue]:
        prefix = f"stats.knet.node{nodeid}.link{link}"
        values = {f"{prefix}.{name}": zero for name, zero in _LINK.items()}
        values[f"{prefix}.latency_min"] = TypedValue(CmapType.UINT32, 2**32 - 1)
        values[f"{prefix}.enabled"] = TypedValue(CmapType.UINT8, 1)
        values[f"{prefix}.connected"] = TypedValue(CmapType.UINT8, int(self._connected(nodeid, link)))
        values[f"{prefix}.mtu"] = TypedValue(CmapType.UINT32, self._links.mtu(nodeid, link))
        return values

    # Trackers.

    def track(self, tracker: MapTracker) -> None:
        """Notify a tracker: of new and removed keys at once, of a single key's value when it is next checked."""
        wanted = CmapTrack.ADD | CmapTrack.DELETE
        if CmapTrack.PREFIX in tracker.track_type and wanted not in tracker.track_type:
            raise error_from_code(
                CsError.NOT_SUPPORTED,
                "cmap_track_add",
                "a prefix of the statistics can be tracked for ADD | DELETE only",
            )
        if tracker.track_type & wanted:
            self._trackers.add(tracker)
        if tracker.key and CmapTrack.PREFIX not in tracker.track_type:
            present = self.get(tracker.key)
            self._polled = {tracker: 0 if present is None else present.value, **self._polled}
            if self._timer is None:
                self._timer = self._call_after(_PERIOD, self._poll)

    def untrack(self, tracker: MapTracker) -> None:
        """Stop notifying a tracker."""
        if tracker.track_type & (CmapTrack.ADD | CmapTrack.DELETE):
            self._trackers.remove(tracker)
        self._polled.pop(tracker, None)
        if not self._polled and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _poll(self) -> None:
        self._timer = self._call_after(_PERIOD, self._poll)
        values = self._values()
        for tracker, last in self._polled.items():
            present = values.get(tracker.key)
            if present is not None and present.value != last:
                self._polled[tracker] = present.value
                # Corosync reports the new value as the old one too, whichever changes are tracked.
                value, type_ = present.value, present.type
                tracker.notify(CmapChange(CmapTrack.MODIFY, tracker.key, value, value, type_, type_))


def _connection_values(counters: ConnectionCounters) -> dict[str, TypedValue]:
    counted = {"requests": counters.requests, "dispatched": counters.events, "sent": counters.events}
    return {
        f"{counters.prefix}.{name}": TypedValue(zero.type, counted.get(name, zero.value))
        for name, zero in _CONNECTION.items()
    }
