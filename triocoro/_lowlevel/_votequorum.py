"""libvotequorum, one to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, connect
from .._endpoint import resolve_endpoint
from .._raw import Endpoint, RawVotequorum
from .._types import ExpectedVotesChange, Track, VotequorumChange, VotequorumEvent, VotequorumInfo, VotequorumNodelist
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

    async def trackstart(self, flags: Track) -> None:
        """Ask for notifications (votequorum_trackstart(3)).

        `Track.CURRENT` and `Track.CHANGES` send the present state at once: node list, then quorum.

        Raises:
            ExistError: the handle tracks already; the present state was sent again all the same.
        """
        _validate.uint32(flags, "flags")
        await self._request(lambda: self._raw.trackstart(Track(flags)))

    async def trackstop(self) -> None:
        """End what `trackstart` began (votequorum_trackstop(3)).

        Raises:
            NotExistError: the handle does not track.
        """
        await self._request(self._raw.trackstop)


async def votequorum_initialize(
    *,
    quorum_notify: Callable[[VotequorumChange], Awaitable[object]] | None = None,
    expectedvotes_notify: Callable[[ExpectedVotesChange], Awaitable[object]] | None = None,
    nodelist_notify: Callable[[VotequorumNodelist], Awaitable[object]] | None = None,
    context: object = None,
    endpoint: Endpoint | None = None,
) -> VotequorumHandle:
    """Connect to the votequorum service (votequorum_initialize(3)).

    Args:
        quorum_notify: called with each `VotequorumChange`.
        expectedvotes_notify: called with each `ExpectedVotesChange`.
        nodelist_notify: called with each `VotequorumNodelist`.
        context: the handle's `context`.
        endpoint: the daemon; without it, the default one.

    Raises, Cancelled: as `cpg_initialize`.
    """
    endpoint = resolve_endpoint(endpoint)
    raw = await connect(endpoint.connect_votequorum, endpoint, retrying=False)
    callbacks = {
        VotequorumChange: quorum_notify,
        ExpectedVotesChange: expectedvotes_notify,
        VotequorumNodelist: nodelist_notify,
    }
    return VotequorumHandle(raw, Connection(raw, endpoint), callbacks, context)
