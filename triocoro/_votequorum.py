"""The vote counts: `open_votequorum`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, final

from . import _validate
from ._connection import Connection, open_connection
from ._errors import CsError
from ._raw import RawVotequorum
from ._services import VOTEQUORUM, Endpoint
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


def _as_it_is(event: VotequorumEvent) -> VotequorumEvent:
    return event


def _if_there_is_any(event: QdeviceExtraInfo) -> QdeviceExtraInfo | None:
    return event if event.extra_info else None


def _subject(event: VotequorumEvent) -> object:
    """What an event is about: extra information is each node's own."""
    return (QdeviceExtraInfo, event.nodeid) if isinstance(event, QdeviceExtraInfo) else type(event)


_STATE: Final = (
    (VotequorumNodelist, _as_it_is),
    (VotequorumChange, _as_it_is),
    (QdeviceExtraInfo, _if_there_is_any),
)


@final
class Votequorum:
    """A connection to the votequorum service. Objects of this class come from `open_votequorum`."""

    def __init__(
        self, raw: RawVotequorum, connection: Connection[VotequorumEvent], tracker: Tracker[VotequorumEvent]
    ) -> None:
        self._raw = raw
        self._connection = connection
        self._tracker = tracker

    async def info(self, nodeid: int | None = None) -> VotequorumInfo:
        """Return what votequorum knows of a node.

        Args:
            nodeid: the node; `None` is the daemon's own.

        Raises:
            NotExistError: votequorum has never seen that node.

        Source: votequorum_getinfo(3).
        """
        # The C call takes 0 for oneself.
        number = 0 if nodeid is None else _validate.uint32(nodeid, "nodeid", minimum=1)
        return await self._connection.requests.run(
            lambda: self._raw.info(number),
            explain={CsError.NOT_EXIST: f"votequorum on {self._connection.label} has never seen a node {nodeid}"},
        )

    async def set_expected(self, expected_votes: int) -> None:
        """Set the expected votes, on every node of the partition; the daemons forget it when they restart.

        Raises:
            InvalidParamError: fewer than the votes that are present, or so many that quorum would be lost.

        Cancelled: it may have been set.

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
        """Set a node's votes, on every node of the partition; the daemons forget it when they restart.

        Raises:
            NameNotFoundError: votequorum has never seen that node.
            InvalidParamError: the cluster would lose quorum.

        Cancelled: it may have been set.

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
        """Register a quorum device on this node; its votes count once it polls. Once more changes nothing.

        It can be registered without being configured (quorum.device in corosync.conf(5)), and then has no votes.

        Args:
            name: the device's name, 1 to 254 bytes of UTF-8.

        Raises:
            AccessError: the configuration was changed such that there can be no quorum device.
            ExistError: a device of another name is registered, here or on another node; see `qdevice_update`.

        Cancelled: it may be registered.

        Source: votequorum_qdevice_register(3).
        """
        text = _validate.qdevice_name(name)
        await self._connection.requests.run(lambda: self._raw.qdevice_register(text), explain=_QDEVICE)

    async def qdevice_unregister(self, name: str) -> None:
        """Take back `qdevice_register`; the device's votes are gone at once.

        Raises:
            NotExistError: no device is registered on this node.
            InvalidParamError: the one that is registered has another name.

        Cancelled: it may be unregistered.

        Source: votequorum_qdevice_unregister(3).
        """
        text = _validate.qdevice_name(name)
        await self._connection.requests.run(lambda: self._raw.qdevice_unregister(text), explain=_QDEVICE)

    async def qdevice_update(self, old_name: str, new_name: str) -> None:
        """Give the quorum device another name, on every node.

        Raises: as `qdevice_unregister`.

        Cancelled: it may have the new name.

        Source: votequorum_qdevice_update(3).
        """
        old, new = _validate.qdevice_name(old_name), _validate.qdevice_name(new_name)
        await self._connection.requests.run(lambda: self._raw.qdevice_update(old, new), explain=_QDEVICE)

    async def qdevice_poll(self, name: str, *, cast_vote: bool, ring_id: RingId) -> None:
        """Say that the quorum device lives, and whether it votes for us.

        It must be called again and again, at least once in quorum.device.timeout milliseconds, else votequorum takes
        the device for dead.

        Args:
            name: the device's name.
            cast_vote: whether its votes count.
            ring_id: the ring that it has decided about, from the latest `VotequorumNodelist`.

        Raises:
            MessageError: the ring is not the present one; poll again with that.
            AccessError: as `qdevice_register`.
            NotExistError, InvalidParamError: as `qdevice_unregister`.

        Cancelled: the poll may count.

        Source: votequorum_qdevice_poll(3).
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(cast_vote, "cast_vote")
        _validate.ring_id(ring_id)
        await self._connection.requests.run(lambda: self._raw.qdevice_poll(text, cast_vote, ring_id), explain=_QDEVICE)

    async def qdevice_master_wins(self, name: str, *, allow: bool) -> None:
        """Say whether the partition that the quorum device votes for wins, whatever its size.

        Raises:
            AccessError: as `qdevice_register`.
            NotExistError, InvalidParamError: as `qdevice_unregister`.

        Cancelled: it may be set.

        Source: votequorum_qdevice_master_wins(3).
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(allow, "allow")
        await self._connection.requests.run(lambda: self._raw.qdevice_master_wins(text, allow), explain=_QDEVICE)

    async def qdevice_extra_info(self, nodeid: int | None = None) -> bytes:
        """Return what the quorum device of a node tells of itself; `track` tells of changes, as `QdeviceExtraInfo`.

        Args:
            nodeid: the node; `None` is the daemon's own.

        Returns:
            At most 4,096 bytes; empty if it tells nothing.

        Raises:
            NotSupportedError: the installed libvotequorum has no such call; those up to Corosync 3.1.10 have not.
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
        """Tell something of this node's quorum device to all nodes, until the device is unregistered.

        Args:
            extra_info: at most 4,096 bytes; none at all takes back what was told.

        Raises:
            NotSupportedError: as `qdevice_extra_info`.
            NotExistError: no quorum device is registered on this node; register it first.
            AccessError: as `qdevice_register`.

        Cancelled: it may be set.

        Source: votequorum_set_qdevice_extra_info(3).
        """
        payload = _validate.extra_info(extra_info)
        await self._connection.requests.run(lambda: self._raw.set_qdevice_extra_info(payload), explain=_QDEVICE)

    async def wait_quorate(self) -> None:
        """Return once our partition is quorate; at once if it is so already.

        Source: votequorum_trackstart(3).
        """
        async with self.track() as changes:
            async for change in changes:
                if isinstance(change, VotequorumChange) and change.quorate:
                    return

    @asynccontextmanager
    async def track(self) -> AsyncGenerator[EventStream[VotequorumEvent], None]:
        """Follow the changes: first the present state (node list, then quorum), then what happens.

        The present state ends with a `QdeviceExtraInfo` of each node that has one, if the library is new enough. Any
        number of trackers may be open; each gets everything. A transition begins with a `VotequorumNodelist` and ends
        with a `VotequorumChange`. The stream's `receive` raises as `Group.receive` does.

        Cancelled: nothing is left behind.

        Source: votequorum_trackstart(3).
        """
        async with self._tracker.track() as changes:
            yield changes


@asynccontextmanager
async def open_votequorum(*, endpoint: Endpoint | None = None) -> AsyncGenerator[Votequorum, None]:
    """Connect to the votequorum service for the length of the block.

    Args:
        endpoint: the daemon; without it, the default one.

    Raises:
        CorosyncUnavailableError: no daemon, no library, or the daemon runs without votequorum.
        ConnectionLostError: the daemon died; the block was cancelled.

    Source: votequorum_overview(3), votequorum_initialize(3).
    """
    raw, connection = await open_connection(VOTEQUORUM, endpoint)
    tracker = Tracker(raw, connection, _STATE, _subject, retold=(QdeviceExtraInfo,))
    async with connection.serving(tracker.handle):
        yield Votequorum(raw, connection, tracker)
