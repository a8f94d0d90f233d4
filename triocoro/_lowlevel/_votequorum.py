"""libvotequorum, one to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import Track
from .._errors import CorosyncError
from .._raw import RawVotequorum
from .._services import Endpoint, VotequorumSpec
from .._types import (
    Buffer,
    ExpectedVotesChange,
    QdeviceExtraInfo,
    RingId,
    VotequorumChange,
    VotequorumEvent,
    VotequorumInfo,
    VotequorumNodelist,
)
from ._handle import Callbacks, Handle


@final
class VotequorumHandle(Handle[VotequorumEvent]):
    """A handle of libvotequorum. Objects of this class come from `votequorum_initialize`."""

    def __init__(
        self,
        raw: RawVotequorum,
        connection: Connection[VotequorumEvent],
        callbacks: Callbacks,
        context: object,
    ) -> None:
        super().__init__(connection, callbacks, context)
        self._raw = raw
        self.tracking_context: object = None
        """What the `trackstart` that is in force was given; C hands it to each callback."""

    async def getinfo(self, nodeid: int) -> VotequorumInfo:
        """Return what is known of a node; 0 is the daemon's own (votequorum_getinfo(3)).

        Raises:
            NotExistError: no such node.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.info(nodeid))

    async def setexpected(self, expected_votes: int) -> None:
        """Set the expected votes (votequorum_setexpected(3)).

        Raises:
            InvalidParamError: 0, too few or too many.
        """
        _validate.uint32(expected_votes, "expected_votes")
        await self._request(lambda: self._raw.set_expected(expected_votes))

    async def setvotes(self, nodeid: int, votes: int) -> None:
        """Set a node's votes (votequorum_setvotes(3)).

        Raises:
            NameNotFoundError: no such node.
            InvalidParamError: too few or too many.
        """
        _validate.uint32(nodeid, "nodeid")
        _validate.uint32(votes, "votes")
        await self._request(lambda: self._raw.set_votes(nodeid, votes))

    async def trackstart(self, flags: Track, *, context: object = None) -> None:
        """Ask for notifications (votequorum_trackstart(3)).

        `Track.CURRENT` and `Track.CHANGES` send the present state at once: node list, then quorum.

        Args:
            flags: what to send.
            context: the handle's `tracking_context` from now on, unless it tracks already.

        Raises:
            ExistError: the handle tracks already; the present state was sent again all the same.
        """
        flags = _validate.track(flags)
        before, self.tracking_context = self.tracking_context, context
        try:
            await self._request(lambda: self._raw.trackstart(flags))
        except CorosyncError:
            self.tracking_context = before
            raise

    async def trackstop(self) -> None:
        """End what `trackstart` began (votequorum_trackstop(3)).

        Raises:
            NotExistError: the handle does not track.
        """
        await self._request(self._raw.trackstop)

    async def qdevice_register(self, name: str) -> None:
        """Register a quorum device (votequorum_qdevice_register(3)).

        Raises:
            AccessError: the configuration was changed such that there can be none.
            ExistError: one of another name is registered.
            TryAgainError: a registration is under way.
        """
        text = _validate.qdevice_name(name)
        await self._request(lambda: self._raw.qdevice_register(text))

    async def qdevice_unregister(self, name: str) -> None:
        """Take back `qdevice_register` (votequorum_qdevice_unregister(3)).

        Raises:
            NotExistError: none is registered on this node.
            InvalidParamError: it has another name.
        """
        text = _validate.qdevice_name(name)
        await self._request(lambda: self._raw.qdevice_unregister(text))

    async def qdevice_update(self, oldname: str, newname: str) -> None:
        """Give the quorum device another name (votequorum_qdevice_update(3)). Raises: as `qdevice_unregister`."""
        old, new = _validate.qdevice_name(oldname), _validate.qdevice_name(newname)
        await self._request(lambda: self._raw.qdevice_update(old, new))

    async def qdevice_poll(self, name: str, cast_vote: bool, ring_id: RingId) -> None:  # noqa: FBT001 - as in C
        """Say that the quorum device lives, and whether it votes (votequorum_qdevice_poll(3)).

        Raises:
            MessageError: the ring is not the present one.
            AccessError: as `qdevice_register`.
            NotExistError, InvalidParamError: as `qdevice_unregister`.
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(cast_vote, "cast_vote")
        _validate.ring_id(ring_id)
        await self._request(lambda: self._raw.qdevice_poll(text, cast_vote, ring_id))

    async def qdevice_master_wins(self, name: str, allow: bool) -> None:  # noqa: FBT001 - as in C
        """Say whether the device's partition wins (votequorum_qdevice_master_wins(3)).

        Raises: as `qdevice_poll`, but for `MessageError`.
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(allow, "allow")
        await self._request(lambda: self._raw.qdevice_master_wins(text, allow))

    async def get_qdevice_extra_info(self, nodeid: int) -> bytes:
        """Return what a node's quorum device has told (votequorum_get_qdevice_extra_info(3)).

        Node 0 is the daemon's own, as for `getinfo`; in C it is none, and gives nothing.

        Raises:
            NotSupportedError: the installed library has no such call; those up to Corosync 3.1.10 have not.
            NotExistError: votequorum has never seen that node.
            AccessError: as `qdevice_register`.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.get_qdevice_extra_info(nodeid))

    async def set_qdevice_extra_info(self, extra_info: Buffer) -> None:
        """Have this node's quorum device tell something, at most 4,096 bytes (votequorum_set_qdevice_extra_info(3)).

        Raises:
            NotSupportedError, AccessError: as `get_qdevice_extra_info`.
            NotExistError: no quorum device is registered on this node.
        """
        payload = _validate.extra_info(extra_info)
        await self._request(lambda: self._raw.set_qdevice_extra_info(payload))


async def votequorum_initialize(
    *,
    quorum_notify: Callable[[VotequorumChange], Awaitable[object]] | None = None,
    expectedvotes_notify: Callable[[ExpectedVotesChange], Awaitable[object]] | None = None,
    nodelist_notify: Callable[[VotequorumNodelist], Awaitable[object]] | None = None,
    qdevice_extra_info: Callable[[QdeviceExtraInfo], Awaitable[object]] | None = None,
    context: object = None,
    endpoint: Endpoint | None = None,
) -> VotequorumHandle:
    """Connect to the votequorum service (votequorum_initialize(3), or votequorum_model_initialize(3) where it exists).

    Args:
        quorum_notify: called with each `VotequorumChange`.
        expectedvotes_notify: called with each `ExpectedVotesChange`.
        nodelist_notify: called with each `VotequorumNodelist`.
        qdevice_extra_info: called with each `QdeviceExtraInfo`, of which only newer libraries tell.
        context: the handle's `context`.
        endpoint: the daemon to connect to; by default the default endpoint.

    Raises:
        NotSupportedError: the installed library knows of no extra information, and `qdevice_extra_info` was given.
        CorosyncUnavailableError, TryAgainError: as `cpg_initialize`.

    Cancelled: as `cpg_initialize`.
    """
    needed = qdevice_extra_info is not None
    raw, connection = await open_connection(VotequorumSpec(extra_info=needed), endpoint, retrying=False)
    callbacks = {
        VotequorumChange: quorum_notify,
        ExpectedVotesChange: expectedvotes_notify,
        VotequorumNodelist: nodelist_notify,
        QdeviceExtraInfo: qdevice_extra_info,
    }
    return VotequorumHandle(raw, connection, callbacks, context)
