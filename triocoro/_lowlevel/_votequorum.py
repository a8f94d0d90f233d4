"""The functions of libvotequorum, one to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import Track
from .._errors import CorosyncError
from .._raw import RawVotequorum
from .._services import Endpoint, HasEndpoint, VotequorumSpec
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
    """A handle of libvotequorum. Objects of this class come from `votequorum_initialize`.

    Cancelled: the request may have taken effect, unless a method says otherwise.
    """

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
        """The context given to the `trackstart` that is in effect; C passes it to each callback."""

    async def getinfo(self, nodeid: int) -> VotequorumInfo:
        """Return the votes and the state of a node; 0 stands for the daemon's own (votequorum_getinfo(3)).

        Raises:
            NotExistError: votequorum has never seen that node.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.info(nodeid))

    async def setexpected(self, expected_votes: int) -> None:
        """Set the expected votes (votequorum_setexpected(3)).

        Raises:
            InvalidParamError: the number is 0, too low or too high.
        """
        _validate.uint32(expected_votes, "expected_votes")
        await self._request(lambda: self._raw.set_expected(expected_votes))

    async def setvotes(self, nodeid: int, votes: int) -> None:
        """Set a node's votes (votequorum_setvotes(3)).

        Raises:
            NameNotFoundError: votequorum has never seen that node.
            InvalidParamError: the number is too low or too high.
        """
        _validate.uint32(nodeid, "nodeid")
        _validate.uint32(votes, "votes")
        await self._request(lambda: self._raw.set_votes(nodeid, votes))

    async def trackstart(self, flags: Track, *, context: object = None) -> None:
        """Subscribe to notifications (votequorum_trackstart(3)).

        `Track.CURRENT` and `Track.CHANGES` send the present state at once: node list, then quorum.

        Args:
            flags: what to subscribe to.
            context: the new `tracking_context` of the handle, unless it tracks already.

        Raises:
            ExistError: the handle tracks already. The present state is sent again nevertheless.
        """
        flags = _validate.track(flags)
        before, self.tracking_context = self.tracking_context, context
        try:
            await self._request(lambda: self._raw.trackstart(flags))
        except CorosyncError:
            self.tracking_context = before
            raise

    async def trackstop(self) -> None:
        """Unsubscribe from notifications (votequorum_trackstop(3)).

        Raises:
            NotExistError: the handle does not track.
        """
        await self._request(self._raw.trackstop)

    async def qdevice_register(self, name: str) -> None:
        """Register a quorum device (votequorum_qdevice_register(3)).

        Raises:
            AccessError: the configuration rules out a quorum device.
            ExistError: a device of another name is registered.
            TryAgainError: a registration is under way.
        """
        text = _validate.qdevice_name(name)
        await self._request(lambda: self._raw.qdevice_register(text))

    async def qdevice_unregister(self, name: str) -> None:
        """Unregister the quorum device (votequorum_qdevice_unregister(3)).

        Raises:
            NotExistError: no device is registered on this node.
            InvalidParamError: the registered device has another name.
        """
        text = _validate.qdevice_name(name)
        await self._request(lambda: self._raw.qdevice_unregister(text))

    async def qdevice_update(self, oldname: str, newname: str) -> None:
        """Rename the quorum device (votequorum_qdevice_update(3)). Raises: as `qdevice_unregister`."""
        old, new = _validate.qdevice_name(oldname), _validate.qdevice_name(newname)
        await self._request(lambda: self._raw.qdevice_update(old, new))

    async def qdevice_poll(self, name: str, cast_vote: bool, ring_id: RingId) -> None:  # noqa: FBT001 - as in C
        """Report that the quorum device is alive, and whether it votes (votequorum_qdevice_poll(3)).

        Raises:
            MessageError: that is not the present ring.
            AccessError: as `qdevice_register`.
            NotExistError, InvalidParamError: as `qdevice_unregister`.
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(cast_vote, "cast_vote")
        _validate.ring_id(ring_id)
        await self._request(lambda: self._raw.qdevice_poll(text, cast_vote, ring_id))

    async def qdevice_master_wins(self, name: str, allow: bool) -> None:  # noqa: FBT001 - as in C
        """Set whether the partition that the device votes for wins (votequorum_qdevice_master_wins(3)).

        Raises: as `qdevice_poll`, except `MessageError`.
        """
        text = _validate.qdevice_name(name)
        _validate.boolean(allow, "allow")
        await self._request(lambda: self._raw.qdevice_master_wins(text, allow))

    async def get_qdevice_extra_info(self, nodeid: int) -> bytes:
        """Return the extra information of a node's quorum device (votequorum_get_qdevice_extra_info(3)).

        0 stands for the daemon's own node, as in `getinfo`; in C it stands for no node, and returns nothing.

        Raises:
            NotSupportedError: the installed library, up to Corosync 3.1.10, lacks this function.
            NotExistError: votequorum has never seen that node.
            AccessError: as `qdevice_register`.
        """
        _validate.uint32(nodeid, "nodeid")
        return await self._request(lambda: self._raw.get_qdevice_extra_info(nodeid))

    async def set_qdevice_extra_info(self, extra_info: Buffer) -> None:
        """Set the extra information of this node's quorum device (votequorum_set_qdevice_extra_info(3)).

        Args:
            extra_info: at most 4,096 bytes; empty to remove it.

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
    endpoint: Endpoint | HasEndpoint | None = None,
) -> VotequorumHandle:
    """Connect to the votequorum service (votequorum_initialize(3), or votequorum_model_initialize(3) where it exists).

    Args:
        quorum_notify: async function, called with each `VotequorumChange`.
        expectedvotes_notify: async function, called with each `ExpectedVotesChange`.
        nodelist_notify: async function, called with each `VotequorumNodelist`.
        qdevice_extra_info: async function, called with each `QdeviceExtraInfo`, which only newer libraries deliver.
        context: the initial value of the handle's `context`.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        NotSupportedError: `qdevice_extra_info` was given, and the installed library does not support it.
        CorosyncUnavailableError, TryAgainError, AccessError: as `cpg_initialize`.

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
