"""Closed process groups: `open_group` joins one, `open_cpg` queries groups without joining."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import trio

from . import _validate
from ._connection import Connection, open_connection
from ._enums import IterationType
from ._member import DEFAULT_MAX_BUFFERED_BYTES, Member, as_they_come, open_membership
from ._raw import RawCpg
from ._services import CPG, Endpoint, HasEndpoint
from ._types import Address, ConfigChange, CpgEvent, GroupEvent, GroupMember


@final
class Group(Member[GroupEvent]):
    """A member of a process group, to send to it and receive from it. Objects of this class come from `open_group`."""

    @property
    def view(self) -> ConfigChange:
        """The `ConfigChange` of our join, or the latest one received since (cpg_overview(3)).

        With `receive=False`, the latest one that has arrived.
        """
        return self._membership.view

    # -- receiving -----------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> GroupEvent:
        """Wait for the next event and return it. The first is the `ConfigChange` of our own join.

        Raises:
            RuntimeError: the group was opened with `receive=False`.
            trio.ClosedResourceError: the group was closed.
            ConnectionLostError: the daemon died. Events that had arrived before are returned first.
            SlowConsumerError: events exceeded `max_buffered_bytes`. Those that fitted are returned first.

        Cancelled: no event was taken.
        """
        self._check_receive()
        return await self._membership.stream.receive()

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, *, max_events: int = 256) -> list[GroupEvent]:
        """Wait for events and return all that have arrived.

        Args:
            max_events: the most events to return.

        Returns:
            at least one event, oldest first.

        Raises: as `receive`.

        Cancelled: no event was taken.
        """
        self._check_receive()
        return await self._membership.stream.receive_batch(max_events=max_events)

    def _check_receive(self) -> None:
        if not self._membership.receive:
            raise RuntimeError(f"group {self.name!r} was opened with receive=False, to send only")


@asynccontextmanager
async def open_group(
    name: bytes | str,
    *,
    totem_changes: bool = False,
    receive: bool = True,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Group, None]:
    """Join a process group, and leave it at the end of the block.

    The block starts once the members have agreed on the join. Its end waits until they have agreed on the leave, for at
    most one second. If the daemon does not answer in that time, the leave completes in the background, and messages of
    ours that were not delivered back stay outstanding in `Group.statistics`. A process can join a group once on each
    node.

    Args:
        name: the name of the group, 1 to 127 bytes; text is encoded as UTF-8. Some programs send a trailing NUL as part
            of the name, which makes it another group.
        totem_changes: whether to receive `TotemChange` events.
        receive: `False` for a program that only sends: no events are buffered, and `receive` raises.
        max_buffered_bytes: the bound for events that wait to be received, in bytes. Each event counts for its payload
            and 256 bytes.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        ValueError, TypeError: the name or the bound is invalid.
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ExistError: this process is a member of that group already.
        ConnectionLostError: the daemon died; the block was cancelled.
        SlowConsumerError: at the end of the block: events exceeded `max_buffered_bytes`, and no call has raised this
            error yet.
        MessageLostError: at the end of the block: messages of ours were lost, and `receive` or `send_and_wait` have not
            reported them yet.

    Cancelled: we are not a member. If the block is cancelled, the leave completes in the background.

    Source: cpg_overview(3), cpg_join(3), cpg_leave(3).
    """
    async with open_membership(
        name,
        as_they_come,
        totem_changes=totem_changes,
        receive=receive,
        max_buffered_bytes=max_buffered_bytes,
        endpoint=endpoint,
    ) as membership:
        await membership.join()
        yield Group(membership)


@final
class Cpg:
    """Queries about process groups, without joining one. Objects of this class come from `open_cpg`.

    Cancelled: no effect, unless a method says otherwise.
    """

    def __init__(self, raw: RawCpg, connection: Connection[CpgEvent]) -> None:
        self._raw = raw
        self._connection = connection

    def __repr__(self) -> str:
        return f"<triocoro.Cpg on {self._connection.lifetime.describe()}>"

    @property
    def max_atomic_message_size(self) -> int:
        """The atomic size: the largest message in bytes that is sent in one piece (cpg_max_atomic_msgsize_get(3))."""
        self._connection.lifetime.check()
        return self._raw.max_atomic_message_size

    async def local_nodeid(self) -> int:
        """Return the id of the daemon's node.

        Source: cpg_local_get(3).
        """
        return await self._connection.requests.run(self._raw.local_nodeid)

    async def members(self, group: bytes | str) -> tuple[Address, ...]:
        """Return the members of a group on all nodes, as this node sees it.

        Args:
            group: the name of the group, 1 to 127 bytes; text is encoded as UTF-8.

        Returns:
            the addresses of the members; none if there is no such group.

        Raises:
            ValueError, TypeError: the name is invalid.

        Source: cpg_membership_get(3).
        """
        name = _validate.group_name(group)
        return await self._connection.requests.run(lambda: self._raw.membership(name))

    async def groups(self) -> tuple[GroupMember, ...]:
        """Return all members of all groups, ordered by group.

        Source: cpg_iteration_initialize(3).
        """
        return await self._connection.requests.run(lambda: self._raw.iterate(IterationType.ALL, None))


@asynccontextmanager
async def open_cpg(*, endpoint: Endpoint | HasEndpoint | None = None) -> AsyncGenerator[Cpg, None]:
    """Connect to the CPG service for the duration of the block, to query groups.

    Args:
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        CorosyncUnavailableError: no daemon answers, or the library is missing.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ConnectionLostError: the daemon died; the block was cancelled.

    Cancelled: no connection is left open. If the block is cancelled, the connection closes in the background.

    Source: cpg_initialize(3).
    """
    raw, connection = await open_connection(CPG, endpoint)
    # Totem changes arrive at every handle, requested or not. They are drained and dropped.
    async with connection.serving(lambda _: None):
        yield Cpg(raw, connection)
