"""The cfg service of one daemon: exec/cfg.c."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

import attrs

from ...._enums import CmapType, CsError, ShutdownFlag
from ...._errors import error_from_code
from ...._types import IPAddress, NodeStatus, RingStatus
from . import coroparse, totemconfig
from .daemon import Daemon
from .icmap import Icmap
from .jobs import Reply
from .service import ClientConnection, Service
from .timers import Timer

_SHUTDOWN_TIMEOUT: Final = 5000
"""The default of cfg.shutdown_timeout, in milliseconds."""

_RELOADED: Final = ("logging.", "totem.", "nodelist.", "quorum.")
"""A reload deletes the keys under these prefixes that corosync.conf does not have, even those that a client has set."""


# The messages between the daemons.


@attrs.frozen
class _KillNode:
    nodeid: int
    reason: str


@attrs.frozen
class _Shutdown:
    pass


@attrs.frozen
class _ReloadConfig:
    reply: Reply
    """Called on the node that has sent this."""


@attrs.define(eq=False)
class _Negotiation:
    """A shutdown request, and the replies of the clients that were asked to agree."""

    originator: ClientConnection
    flags: ShutdownFlag
    reply: Reply
    timer: Timer
    expected: int
    """The number of replies to wait for."""
    yes: int = 0
    no: int = 0


class CfgService(Service):
    """The state of nodes and links, the reload of the configuration, and shutdowns."""

    name = "cfg"

    def __init__(self, daemon: Daemon, read_configuration: Callable[[], Icmap]) -> None:
        super().__init__(daemon.multicast)
        self.daemon = daemon
        self._read_configuration = read_configuration
        # The clients that track shutdowns, the latest first, each with its reply if it has given one.
        self._trackers: dict[ClientConnection, bool | None] = {}
        self._tried: set[ClientConnection] = set()
        self._negotiation: _Negotiation | None = None

    # Requests about nodes.

    def node_status(self, nodeid: int) -> NodeStatus:
        """Return the state of a node and its links, as the transport sees them."""
        links = self.daemon.links
        # knet's ids have 16 bits; the upper bits of this one are not checked.
        known = nodeid & 0xFFFF if links.on_knet else nodeid
        if links.on_knet and known not in links.nodes():
            raise error_from_code(CsError.FAILED_OPERATION, "corosync_cfg_node_status_get", f"no node {nodeid}")
        statuses = tuple(
            links.status(known, number, connected=self.daemon.connected(known, number)) for number in links.to(known)
        )
        # Debian builds Corosync without the on-wire versions.
        return NodeStatus(
            nodeid=nodeid,
            reachable=any(status.connected for status in statuses),
            remote=False,
            external=False,
            onwire_min=0,
            onwire_max=0,
            onwire_version=0,
            links=statuses,
        )

    def ring_status(self) -> tuple[RingStatus, ...]:
        """Return our links, each with one character for each node: n for us, 3 if connected, 1 if not."""
        daemon, nodes = self.daemon, self.daemon.links.nodes()

        def status(link: int) -> str:
            if not daemon.links.on_knet:
                return "OK"
            return "".join(
                "n" if nodeid == daemon.nodeid else "13"[daemon.connected(nodeid, link)] for nodeid in sorted(nodes)
            )

        return tuple(RingStatus(f"{link} {address}", status(link)) for link, address in nodes[daemon.nodeid].items())

    def node_addresses(self, nodeid: int) -> tuple[IPAddress, ...]:
        """Return the addresses of a node; 0 is our own."""
        links = coroparse.addresses(self.daemon.icmap).get(nodeid or self.daemon.nodeid)
        if links is None:
            raise error_from_code(CsError.NOT_EXIST, "corosync_cfg_get_node_addrs", f"there is no node {nodeid}")
        return tuple(map(ipaddress.ip_address, links.values()))

    def kill_node(self, nodeid: int, reason: str) -> None:
        """Kill the daemon of a node in the ring, which may be our own."""
        status = self.daemon.icmap.get(f"runtime.members.{nodeid}.status")
        if status is None or status.value != "joined":
            raise error_from_code(CsError.NOT_EXIST, "corosync_cfg_kill_node", f"no node {nodeid} is in the ring")
        self.multicast(_KillNode(nodeid, reason))

    # Requests about the configuration.

    def reload_config(self, reply: Reply) -> None:
        """Tell all daemons to reload their configuration. The reply comes once our own has."""
        self.multicast(_ReloadConfig(reply))

    def reopen_log_files(self) -> None:
        """Log the request; the fake has no log files."""
        self.daemon.log("CFG", "Reopening logging files")

    def _reload(self) -> CsError:
        icmap, result = self.daemon.icmap, CsError.OK
        configured = self._read_configuration()
        icmap.set("config.totemconfig_reload_in_progress", CmapType.UINT8, 1)
        icmap.set("config.reload_in_progress", CmapType.UINT8, 1)
        for prefix in _RELOADED:
            for key, _ in icmap.items(prefix):
                if configured.get(key) is None:
                    icmap.delete(key)
        try:
            totemconfig.check(configured)
        except coroparse.ConfigurationError as error:
            # Too late for the keys that were deleted.
            self.daemon.log("CFG", f"Configuration is not valid: {error}")
            result = CsError.INVALID_PARAM
        else:
            position = coroparse.own_position(configured, self.daemon.nodeid)
            icmap.set("nodelist.local_node_pos", CmapType.UINT32, position)
            for key, typed in sorted({**dict(configured.items()), **dict(totemconfig.runtime(configured))}.items()):
                icmap.set(key, typed.type, typed.value)
        icmap.set("config.reload_status", CmapType.INT32, result.value)
        icmap.set("config.totemconfig_reload_in_progress", CmapType.UINT8, 0)
        icmap.set("config.reload_in_progress", CmapType.UINT8, 0)
        return result

    # Requests about a shutdown.

    def trackstart(self, connection: ClientConnection) -> None:
        """Ask a client to agree to shutdowns, including one that is being negotiated."""
        if connection in self._trackers:
            return
        self._trackers = {connection: None, **self._trackers}
        if self._negotiation is not None:
            self._negotiation.expected += 1
            connection.send(self._negotiation.flags)

    def trackstop(self, connection: ClientConnection) -> None:
        """Ask a client no more. This agrees to a shutdown that is being negotiated."""
        negotiation = self._negotiation
        if negotiation is not None and connection is negotiation.originator:
            self._end(negotiation)
        if connection not in self._trackers:
            return
        replied = self._trackers.pop(connection)
        if self._negotiation is not None:
            # This replaces the reply that it has given.
            self._negotiation.yes += 1 - (replied is True)
            self._negotiation.no -= replied is False
            self._decide()

    def connection_closed(self, connection: ClientConnection) -> None:
        # A daemon that is shutting down negotiates no more.
        if not self.daemon.stopping:
            self.trackstop(connection)
            self._tried.discard(connection)

    def try_shutdown(self, connection: ClientConnection, flags: ShutdownFlag, reply: Reply) -> None:
        """Shut down if the clients that track shutdowns agree."""
        if flags is ShutdownFlag.IMMEDIATE:
            self._shut_down(reply)
            return
        if self._negotiation is not None:
            raise error_from_code(CsError.EXIST, "corosync_cfg_try_shutdown", "a shutdown is being negotiated")
        self._tried.add(connection)
        asked = [tracker for tracker in self._trackers if tracker is not connection]
        self._trackers.update(dict.fromkeys(asked))
        if not asked:
            self._shut_down(reply)
            return
        configured = self.daemon.icmap.get("cfg.shutdown_timeout")
        timeout = _SHUTDOWN_TIMEOUT
        if configured is not None and configured.type is CmapType.UINT32:
            timeout = int(configured.value)
        timer = self.daemon.call_after(timeout / 1000, lambda: self._timed_out(negotiation))
        negotiation = self._negotiation = _Negotiation(connection, flags, reply, timer, len(asked))
        for tracker in asked:
            tracker.send(flags)

    def reply_to_shutdown(self, connection: ClientConnection, *, accept: bool) -> None:
        """Count a reply. As in Corosync, any client may reply, and as often as it likes."""
        negotiation = self._negotiation
        if negotiation is None:
            return  # The daemon answers ACCESS, which the library drops.
        if accept:
            negotiation.yes += 1
        else:
            negotiation.no += 1
        if connection in self._trackers:
            self._trackers[connection] = accept
        self._decide()

    def _decide(self) -> None:
        negotiation = self._negotiation
        if negotiation is None or negotiation.yes + negotiation.no < negotiation.expected:
            return
        self._end(negotiation)
        if negotiation.yes >= negotiation.expected or negotiation.flags is ShutdownFlag.REGARDLESS:
            self._shut_down(negotiation.reply)
        else:
            negotiation.reply(error_from_code(CsError.BUSY, "corosync_cfg_try_shutdown", "the shutdown was refused"))

    def _timed_out(self, negotiation: _Negotiation) -> None:
        negotiation.no = negotiation.expected
        self._decide()
        # Corosync means to tell all trackers of the end, but leaves out those that have never requested a shutdown. The
        # event looks like a new request.
        for tracker in self._trackers:
            if tracker in self._tried and self.daemon.alive:
                tracker.send(negotiation.flags)

    def _end(self, negotiation: _Negotiation) -> None:
        negotiation.timer.cancel()
        self._negotiation = None

    def _shut_down(self, reply: Reply) -> None:
        reply(None)
        self.multicast(_Shutdown())

    # The other daemons.

    def deliver(self, message: object, sender: int) -> None:
        daemon = self.daemon
        match message:
            case _KillNode(nodeid, reason):
                if nodeid == daemon.nodeid:
                    daemon.log("CFG", f"Killed by node {sender} : {reason}")
                    daemon.totem.after_delivery(self._die)
            case _Shutdown():
                daemon.log("CFG", f"Node {sender} was shut down by sysadmin")
                if sender == daemon.nodeid:
                    daemon.totem.after_delivery(daemon.shut_down)
            case _ReloadConfig(reply):
                daemon.log("CFG", f"Config reload requested by node {sender}")
                result = self._reload()
                if sender == daemon.nodeid:
                    reply(None if result is CsError.OK else error_from_code(result, "corosync_cfg_reload_config"))
            case _:
                raise AssertionError(message)

    def _die(self) -> None:
        self.daemon.die()
        self.daemon.totem.reform()
