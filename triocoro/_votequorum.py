"""Votes, expected votes, and the quorum device: `open_votequorum`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, final

from . import _validate
from ._connection import Connection, open_connection
from ._enums import CsError
from ._raw import RawVotequorum
from ._services import VOTEQUORUM, Endpoint, HasEndpoint
from ._stream import EventStream
from ._tracking import Tracker
from ._types import (
    Buffer,
    QdeviceExtraInfo,
    RingId,
    VotequorumChange,
    VotequorumEvent,
    VotequorumInfo,
    VotequorumNodelist,
)

_QDEVICE: Final = {
    CsError.ACCESS: (
        "the node's configuration rules a quorum device out: an option such as two_node does not go together with it,"
        " or quorum.device.votes does not fit; the daemon's log says which (votequorum(5))"
    ),
    CsError.NOT_EXIST: "no quorum device is registered on this node",
    CsError.EXIST: "a quorum device of another name is registered",
    CsError.INVALID_PARAM: "the quorum device has another name",
    CsError.MESSAGE_ERROR: "the ring id is not that of the present ring: poll again with the latest one",
}


def _unchanged(event: VotequorumEvent) -> VotequorumEvent:
    return event


def _unless_removed(event: QdeviceExtraInfo) -> QdeviceExtraInfo | None:
    return event if event.extra_info else None


def _subject(event: VotequorumEvent) -> object:
    """What an event is about: its type, and for extra information the node as well."""
    return (QdeviceExtraInfo, event.nodeid) if isinstance(event, QdeviceExtraInfo) else type(event)


_STATE: Final = (
    (VotequorumNodelist, _unchanged),
    (VotequorumChange, _unchanged),
    (QdeviceExtraInfo, _unless_removed),
)


@final
class Votequorum:
    """A connection to the votequorum service. Objects of this class come from `open_votequorum`.

    Cancelled: no effect, unless a method says otherwise.
    """

    def __init__(
        self, raw: RawVotequorum, connection: Connection[VotequorumEvent], tracker: Tracker[VotequorumEvent]
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._tracker = tracker

    def __repr__(self) -> str:
        return f"<triocoro.Votequorum on {self._connection.lifetime.describe()}>"

    async def info(self, nodeid: int | None = None) -> VotequorumInfo:
        """Return the votes and the state of a node, and of the cluster.

        Args:
            nodeid: the id of the node; `None` stands for the daemon's own.

        Raises:
            NotExistError: votequorum has never seen that node.

        Source: votequorum_getinfo(3).
        """
        # In C, 0 stands for the daemon's own node.
        number = 0 if nodeid is None else _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.requests.run(
            lambda: self._raw.info(number),
            explain={CsError.NOT_EXIST: f"votequorum on {self._connection.label} has never seen a node {nodeid}"},
        )

    async def set_expected(self, expected_votes: int) -> None:
        """Set the expected votes on every node of the partition, until its daemon restarts.

        Args:
            expected_votes: the number of expected votes, at least 1.

        Raises:
            InvalidParamError: there are more votes present, or the cluster would lose quorum.

        Cancelled: the expected votes may have been set.

        Source: votequorum_setexpected(3).
        """
        number = _validate.uint32(expected_votes, "expected_votes", minimum=1)
        await self._connection.requests.run(
            lambda: self._raw.set_expected(number),
            explain={
                CsError.INVALID_PARAM: (
                    f"expected votes of {number} are refused: fewer than the votes that are present, or so many that"
                    " the cluster would lose quorum"
                )
            },
        )

    async def set_votes(self, nodeid: int, votes: int) -> None:
        """Set the votes of a node on every node of the partition, until its daemon restarts.

        Args:
            nodeid: the id of the node.
            votes: its number of votes.

        Raises:
            NameNotFoundError: votequorum has never seen that node.
            InvalidParamError: the cluster would lose quorum.

        Cancelled: the votes may have been set.

        Source: votequorum_setvotes(3).
        """
        _validate.uint32(nodeid, "nodeid", minimum=1)
        _validate.uint32(votes, "votes")
        await self._connection.requests.run(
            lambda: self._raw.set_votes(nodeid, votes),
            explain={
                CsError.NAME_NOT_FOUND: f"votequorum on {self._connection.label} has never seen a node {nodeid}",
                CsError.INVALID_PARAM: f"{votes} votes for node {nodeid} are refused: the cluster would lose quorum",
            },
        )

    async def qdevice_register(self, name: str) -> None:
        """Register a quorum device on this node. Its votes count once it polls.

        Registering it again has no effect. A device that is not configured (quorum.device in corosync.conf(5)) can be
        registered, but has no votes.

        Args:
            name: the name of the device, 1 to 254 bytes of UTF-8.

        Raises:
            AccessError: the configuration rules out a quorum device.
            ExistError: a device of another name is registered, here or on another node; see `qdevice_update`.

        Cancelled: the device may have been registered.

        Source: votequorum_qdevice_register(3).
        """
        text = _validate.qdevice_name(name)
        await self._connection.requests.run(lambda: self._raw.qdevice_register(text), explain=_QDEVICE)

    async def qdevice_unregister(self, name: str) -> None:
        """Unregister the quorum device of this node. Its votes stop counting at once.

        Args:
            name: the name of the device.

        Raises:
            NotExistError: no device is registered on this node.
            InvalidParamError: the registered device has another name.

        Cancelled: the device may have been unregistered.

        Source: votequorum_qdevice_unregister(3).
        """
        text = _validate.qdevice_name(name)
        await self._connection.requests.run(lambda: self._raw.qdevice_unregister(text), explain=_QDEVICE)

    async def qdevice_update(self, old_name: str, new_name: str) -> None:
        """Rename the quorum device on every node.

        Args:
            old_name: the present name of the device.
            new_name: the new name, 1 to 254 bytes of UTF-8.

        Raises: as `qdevice_unregister`.

        Cancelled: the device may have been renamed.

        Source: votequorum_qdevice_update(3).
        """
        old, new = _validate.qdevice_name(old_name), _validate.qdevice_name(new_name)
        await self._connection.requests.run(lambda: self._raw.qdevice_update(old, new), explain=_QDEVICE)

    async def qdevice_poll(self, name: str, *, cast_vote: bool, ring_id: RingId) -> None:
        """Report that the quorum device is alive, and whether it votes for this partition.

        Call it at least once in quorum.device.timeout milliseconds, or votequorum considers the device dead.

        Args:
            name: the name of the device.
            cast_vote: whether the votes of the device count.
            ring_id: the ring that the device has decided about, from the latest `VotequorumNodelist`.

        Raises:
            MessageError: that is not the present ring; poll again with the present one.
            AccessError: as `qdevice_register`.
            NotExistError, InvalidParamError: as `qdevice_unregister`.

        Cancelled: the poll may have been counted.

        Source: votequorum_qdevice_poll(3).
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(cast_vote, "cast_vote")
        _validate.ring_id(ring_id)
        await self._connection.requests.run(lambda: self._raw.qdevice_poll(text, cast_vote, ring_id), explain=_QDEVICE)

    async def qdevice_master_wins(self, name: str, *, allow: bool) -> None:
        """Set whether the partition that the quorum device votes for wins, whatever its size.

        Args:
            name: the name of the device.
            allow: whether that partition wins.

        Raises:
            AccessError: as `qdevice_register`.
            NotExistError, InvalidParamError: as `qdevice_unregister`.

        Cancelled: it may have been set.

        Source: votequorum_qdevice_master_wins(3).
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(allow, "allow")
        await self._connection.requests.run(lambda: self._raw.qdevice_master_wins(text, allow), explain=_QDEVICE)

    async def qdevice_extra_info(self, nodeid: int | None = None) -> bytes:
        """Return the extra information of a node's quorum device. `track` reports changes as `QdeviceExtraInfo`.

        Args:
            nodeid: the id of the node; `None` stands for the daemon's own.

        Returns:
            at most 4,096 bytes; empty if none is set.

        Raises:
            NotSupportedError: the installed libvotequorum, up to Corosync 3.1.10, lacks this function.
            NotExistError: votequorum has never seen that node.
            AccessError: as `qdevice_register`.

        Source: votequorum_get_qdevice_extra_info(3).
        """
        number = 0 if nodeid is None else _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.requests.run(
            lambda: self._raw.get_qdevice_extra_info(number),
            explain={
                **_QDEVICE,
                CsError.NOT_EXIST: f"votequorum on {self._connection.label} has never seen a node {nodeid}",
            },
        )

    async def set_qdevice_extra_info(self, extra_info: Buffer) -> None:
        """Set the extra information of this node's quorum device on all nodes, until the device is unregistered.

        Args:
            extra_info: at most 4,096 bytes; empty to remove it.

        Raises:
            NotSupportedError: as `qdevice_extra_info`.
            NotExistError: no quorum device is registered on this node; register it first.
            AccessError: as `qdevice_register`.

        Cancelled: it may have been set.

        Source: votequorum_set_qdevice_extra_info(3).
        """
        payload = _validate.extra_info(extra_info)
        await self._connection.requests.run(lambda: self._raw.set_qdevice_extra_info(payload), explain=_QDEVICE)

    async def wait_quorate(self) -> None:
        """Wait until the partition of our node is quorate. Returns at once if it is.

        Raises:
            ConnectionLostError: the daemon died.

        Cancelled: there is no effect.

        Source: votequorum_trackstart(3).
        """
        await self._wait_until(quorate=True)

    async def wait_not_quorate(self) -> None:
        """Wait until the partition of our node is not quorate. Returns at once if it is not.

        A node that is cut off notices only after the token timeout, while others may be quorate without it already. So
        this is for stopping soon, not for proving that no other node has taken over.

        Raises:
            ConnectionLostError: the daemon died.

        Cancelled: there is no effect.

        Source: votequorum_trackstart(3).
        """
        await self._wait_until(quorate=False)

    async def _wait_until(self, *, quorate: bool) -> None:
        async with self.track() as changes:
            async for change in changes:
                if isinstance(change, VotequorumChange) and change.quorate is quorate:
                    return

    @asynccontextmanager
    async def track(self) -> AsyncGenerator[EventStream[VotequorumEvent], None]:
        """Receive the present state and then all changes, for the duration of the block.

        The present state is a `VotequorumNodelist`, a `VotequorumChange`, and a `QdeviceExtraInfo` of each node that
        has one, if the library supports that. A transition begins with a `VotequorumNodelist` and ends with a
        `VotequorumChange`. Any number of blocks may be open at the same time; each receives all changes.

        Yields:
            the stream of changes. Its `receive` raises what `Group.receive` raises.

        Cancelled: the daemon may keep on sending changes, which are dropped.

        Source: votequorum_trackstart(3).
        """
        async with self._tracker.track() as changes:
            yield changes


@asynccontextmanager
async def open_votequorum(*, endpoint: Endpoint | HasEndpoint | None = None) -> AsyncGenerator[Votequorum, None]:
    """Connect to the votequorum service for the duration of the block.

    Args:
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        CorosyncUnavailableError: no daemon answers, the library is missing, or the daemon runs without votequorum.
        AccessError: the daemon refuses this user; the message says how to allow it (uidgid.d, corosync.conf(5)).
        ConnectionLostError: the daemon died; the block was cancelled.

    Cancelled: no connection is left open. If the block is cancelled, the connection closes in the background.

    Source: votequorum_overview(3), votequorum_initialize(3).
    """
    raw, connection = await open_connection(VOTEQUORUM, endpoint)
    tracker = Tracker(raw, connection, _STATE, _subject, retold=(QdeviceExtraInfo,))
    async with connection.serving(tracker.handle):
        yield Votequorum(raw, connection, tracker)
