"""The CPG service of one daemon: exec/cpg.c."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import repeat
from typing import TypeAlias

import attrs

from ...._enums import CsError, IterationType, Reason
from ...._errors import error_from_code
from ...._types import (
    Address,
    ConfigChange,
    GroupMember,
    MemberChange,
    Message,
    RingId,
    TotemChange,
    make_address,
    make_messages,
)
from .daemon import Daemon
from .service import ClientConnection, Synchronised


class CpdState(Enum):
    """The state of a client's membership in its group (`CPD_STATE_*`)."""

    UNJOINED = auto()
    LEAVE_STARTED = auto()
    JOIN_STARTED = auto()
    JOIN_COMPLETED = auto()


class CpgClient:
    """A client, as the daemon knows it (`struct cpg_pd`)."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.state = CpdState.UNJOINED
        self.group = b""
        self.pid = 0
        self.initial_totem_conf = False
        self.transitions = 0
        """The number of configuration changes sent to this client."""
        self.first_transition = 0
        """`transitions` at the first fragment of the message being sent."""

    def is_in(self, group: bytes) -> bool:
        """Whether events of `group` go to this client; they do for one that has left, as in Corosync."""
        return self.group == group and self.state in (CpdState.JOIN_COMPLETED, CpdState.LEAVE_STARTED)

    @property
    def may_send(self) -> bool:
        return self.state in (CpdState.JOIN_STARTED, CpdState.JOIN_COMPLETED)


@attrs.frozen
class Fragment:
    """A part of a message that is above the atomic size."""

    sender: Address
    payload: memoryview
    first: bool
    last: bool


CpgRecord: TypeAlias = "Message | Fragment | ConfigChange | TotemChange"
"""A record that the daemon sends to a client."""


@attrs.frozen
class _Process:
    """A member of a group (`struct process_info`)."""

    address: Address
    group: bytes


# The messages between the daemons.


@attrs.frozen
class _ProcJoin:
    group: bytes
    pid: int


@attrs.frozen
class _ProcLeave:
    group: bytes
    pid: int
    reason: Reason


@attrs.frozen
class _JoinList:
    members: tuple[tuple[int, bytes], ...]


@attrs.frozen
class _Mcast:
    """Messages that were sent at once, and that no other message can come between."""

    group: bytes
    pid: int
    payloads: tuple[bytes, ...]


@attrs.frozen
class _PartialMcast:
    group: bytes
    pid: int
    payload: memoryview
    first: bool
    last: bool


class CpgService(Synchronised):
    """Closed process groups, as the daemon of one node keeps them."""

    name = "cpg"

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon.multicast)
        self.daemon = daemon
        self._connections: dict[ClientConnection, CpgClient] = {}
        self._clients: list[CpgClient] = []
        self._processes: list[_Process] = []
        self._members: tuple[int, ...] = ()
        self._old_members: tuple[int, ...] = ()
        self._gone: frozenset[int] = frozenset()
        self._ring_id = RingId(0, 0)
        self._join_lists: list[_Process] = []

    # Requests of the library.

    def connect(self, connection: ClientConnection) -> CpgClient:
        """Add a client."""
        client = self._connections[connection] = CpgClient(connection)
        self._clients.insert(0, client)
        return client

    def join(self, client: CpgClient, group: bytes, pid: int, *, initial_totem_conf: bool) -> None:
        """Join a group. The refusals are those of Corosync, odd as some are."""
        if any(other.pid == pid and other.group == group for other in self._clients):
            raise error_from_code(CsError.EXIST, "cpg_join", "this pid has joined that group, or left it just now")
        if _Process(Address(self.daemon.nodeid, pid), group) in self._processes:
            raise error_from_code(CsError.TRY_AGAIN, "cpg_join", "the leave of this pid is still under way")
        if client.state is CpdState.LEAVE_STARTED:
            # Corosync always answers BUSY, and cpg_join tries again for ever.
            raise error_from_code(
                CsError.BUSY, "cpg_join", "a handle that has left a group can join no other; the C library hangs here"
            )
        if client.state is not CpdState.UNJOINED:
            raise error_from_code(CsError.EXIST, "cpg_join", "a handle joins one group only")
        client.state = CpdState.JOIN_STARTED
        client.group = group
        client.pid = pid
        client.initial_totem_conf = initial_totem_conf
        self.multicast(_ProcJoin(group, pid))

    def leave(self, client: CpgClient, group: bytes) -> None:
        """Leave a group."""
        if client.state in (CpdState.UNJOINED, CpdState.LEAVE_STARTED):
            raise error_from_code(CsError.NOT_EXIST, "cpg_leave", "not a member")
        client.state = CpdState.LEAVE_STARTED
        self.multicast(_ProcLeave(group, client.pid, Reason.LEAVE))

    def finalize(self, client: CpgClient) -> None:
        """Send no more events to a client, which is about to disconnect."""
        self._clients.remove(client)

    def mcast(self, client: CpgClient, payloads: tuple[bytes, ...]) -> None:
        """Send messages to the client's group. There is no reply, not even to refuse them."""
        if client.may_send:
            # With a latency, each message takes a time of its own.
            bursts = [(payload,) for payload in payloads] if self.daemon.totem.takes_time else [payloads]
            for burst in bursts:
                self.multicast(_Mcast(client.group, client.pid, burst))
            return
        for _ in payloads:
            self.daemon.log("CPG", f"*** can't mcast to group {client.group!r} state:{client.state.name}")

    def partial_mcast(self, client: CpgClient, payload: memoryview, *, first: bool, last: bool) -> None:
        """Send a fragment of a message to the client's group."""
        if first:
            client.first_transition = client.transitions
        function = "cpg_mcast_joined"
        if client.transitions != client.first_transition:
            raise error_from_code(CsError.INTERRUPT, function, "a configuration change came between the fragments")
        if not client.may_send:
            raise error_from_code(CsError.NOT_EXIST, function, "not a member")
        self.multicast(_PartialMcast(client.group, client.pid, payload, first, last))

    def membership(self, group: bytes) -> tuple[Address, ...]:
        """The addresses of a group's members."""
        return tuple(process.address for process in self._processes if process.group == group)

    def iterate(self, kind: IterationType, group: bytes | None) -> tuple[GroupMember, ...]:
        """List groups and their members, in the order of a real daemon."""
        items: list[GroupMember] = []
        for process in self._processes:
            first = next((index for index, item in enumerate(items) if item.group == process.group), None)
            if kind is IterationType.NAME_ONLY and first is not None:
                continue
            if kind is IterationType.ONE_GROUP and process.group != group:
                continue
            # A new group goes to the front, a further member of a known group behind that group's first item.
            address = None if kind is IterationType.NAME_ONLY else process.address
            items.insert(0 if first is None else first + 1, GroupMember(process.group, address))
        return tuple(items)

    def connection_closed(self, connection: ClientConnection) -> None:
        client = self._connections.pop(connection)
        if client in self._clients:
            self._clients.remove(client)
        # A client that has not left is reported to its group as PROCDOWN.
        if client.group and client.state is not CpdState.LEAVE_STARTED:
            self.multicast(_ProcLeave(client.group, client.pid, Reason.PROCDOWN))

    # Messages from the other daemons, and our own.

    def deliver(self, message: object, sender: int) -> None:
        match message:
            case _Mcast(group, pid, payloads):  # the most frequent
                address = make_address(sender, pid)
                self._deliver_to_clients(group, address, make_messages(repeat(address), payloads))
            case _ProcJoin(group, pid):
                process = _Process(Address(sender, pid), group)
                if self._add(process):
                    self._config_change(group, joined=[MemberChange(process.address, Reason.JOIN)])
            case _ProcLeave(group, pid, reason):
                self._remove(_Process(Address(sender, pid), group), reason)
            case _JoinList(members):
                # Corosync inserts each one at the head.
                for pid, group in members:
                    self._join_lists.insert(0, _Process(Address(sender, pid), group))
            case _PartialMcast(group, pid, payload, first, last):
                address = Address(sender, pid)
                self._deliver_to_clients(group, address, [Fragment(address, payload, first, last)])
            case _:
                raise AssertionError(message)

    def _deliver_to_clients(
        self, group: bytes, sender: Address, records: Sequence[Message] | Sequence[Fragment]
    ) -> None:
        receivers = [client for client in self._clients if client.is_in(group)]
        if not receivers:
            return
        nodeid = sender.nodeid
        if not any(process.address.nodeid == nodeid and process.group == group for process in self._processes):
            for _ in records:
                self.daemon.log("CPG", "Unknown node -> we will not deliver message")
            return
        sizes = [len(record.payload) for record in records]
        for client in receivers:
            client.connection.send_all(records, sizes)

    # A new ring.

    def sync_init(self, transitional: frozenset[int], members: tuple[int, ...], ring_id: RingId) -> None:
        self._members = members
        self._ring_id = ring_id
        self._gone = frozenset(self._old_members) - transitional
        self._join_lists.clear()

    def sync_process(self) -> None:
        local = [process for process in self._processes if process.address.nodeid == self.daemon.nodeid]
        if local:
            self.multicast(_JoinList(tuple((process.address.pid, process.group) for process in local)))

    def sync_activate(self) -> None:
        self._old_members = self._members
        self._report_left()
        self._report_joined()
        self._join_lists.clear()
        for client in self._clients:
            self._totem_change(client)

    def _report_left(self) -> None:
        """Send one configuration change to each group that has lost members together with their nodes."""
        gone = [process for process in self._processes if process.address.nodeid in self._gone]
        self._processes = [process for process in self._processes if process.address.nodeid not in self._gone]
        for group, addresses in _by_group(gone):
            self._config_change(group, left=[MemberChange(address, Reason.NODEDOWN) for address in addresses])

    def _report_joined(self) -> None:
        """Send one configuration change to each group that has gained members together with their nodes."""
        remote = [process for process in self._join_lists if process.address.nodeid != self.daemon.nodeid]
        added = [process for process in remote if self._add(process)]
        for group, addresses in _by_group(added):
            self._config_change(group, joined=[MemberChange(address, Reason.NODEUP) for address in addresses])
        # Processes that left while their node was not in our ring.
        for process in list(self._processes):
            if process.address.nodeid != self.daemon.nodeid and process not in remote:
                self._remove(process, Reason.PROCDOWN)

    # Events for clients.

    def _add(self, process: _Process) -> bool:
        if process in self._processes:
            return False
        insort(self._processes, process, key=lambda process: process.address)
        return True

    def _remove(self, process: _Process, reason: Reason) -> None:
        self._config_change(process.group, left=[MemberChange(process.address, reason)])
        self._processes = [other for other in self._processes if other != process]

    def _config_change(
        self, group: bytes, *, joined: Iterable[MemberChange] = (), left: Iterable[MemberChange] = ()
    ) -> None:
        joined, left = tuple(joined), tuple(left)
        gone = {change.address for change in left}
        members = tuple(address for address in self.membership(group) if address not in gone)
        for change in joined:
            if change.address.nodeid == self.daemon.nodeid:
                for client in self._clients:
                    if client.pid == change.address.pid and client.group == group:
                        client.state = CpdState.JOIN_COMPLETED
        event = ConfigChange(members, joined, left)
        for client in self._clients:
            if client.is_in(group):
                client.connection.send(event)
                client.transitions += 1
        self._log_change(group, event)
        for client in self._clients:
            if client.initial_totem_conf:
                client.initial_totem_conf = False
                self._totem_change(client)

    def _totem_change(self, client: CpgClient) -> None:
        client.connection.send(TotemChange(self._ring_id, self._old_members))

    def _log_change(self, group: bytes, event: ConfigChange) -> None:
        changes = [("joined", change) for change in event.joined] + [("left", change) for change in event.left]
        for verb, change in changes:
            process = f"node {change.address.nodeid} pid {change.address.pid}"
            self.daemon.log("CPG", f"{verb}_list group:{group!r}, {process}, reason {change.reason.name}")


def _by_group(processes: Iterable[_Process]) -> list[tuple[bytes, list[Address]]]:
    """The addresses of processes by group, in the order of the groups' names.

    Corosync uses a map of C strings here, in which a name ends at its first NUL. So two groups whose names differ only
    after a NUL get one configuration change, under the name of the first.
    """
    groups: dict[bytes, tuple[bytes, list[Address]]] = {}
    for process in processes:
        key = process.group.partition(b"\0")[0]
        groups.setdefault(key, (process.group, []))[1].append(process.address)
    return [groups[key] for key in sorted(groups)]
