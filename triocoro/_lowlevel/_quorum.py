"""The functions of libquorum, one to one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import final

from .. import _validate
from .._connection import Connection, open_connection
from .._enums import QuorumType, Track
from .._raw import RawQuorum
from .._services import QUORUM, Endpoint, HasEndpoint
from .._types import NodelistChange, QuorumChange, QuorumEvent
from ._handle import Callbacks, Handle


@final
class QuorumHandle(Handle[QuorumEvent]):
    """A handle of libquorum. Objects of this class come from `quorum_initialize`.

    Cancelled: the request may have taken effect, unless a method says otherwise.
    """

    def __init__(
        self, raw: RawQuorum, connection: Connection[QuorumEvent], callbacks: Callbacks, context: object
    ) -> None:
        super().__init__(connection, callbacks, context)
        self._raw = raw

    @property
    def quorum_type(self) -> QuorumType:
        """Whether a quorum provider is configured (quorum_model_initialize(3))."""
        return self._raw.type

    async def getquorate(self) -> bool:
        """Return whether the partition of our node is quorate (quorum_getquorate(3))."""
        return await self._request(self._raw.is_quorate)

    async def trackstart(self, flags: Track) -> None:
        """Subscribe to notifications (quorum_trackstart(3)).

        `Track.CURRENT` and `Track.CHANGES` send the present state at once: node list, then quorum.

        Raises:
            ExistError: the handle tracks already. The present state is sent again nevertheless.
        """
        flags = _validate.track(flags)
        await self._request(lambda: self._raw.trackstart(flags))

    async def trackstop(self) -> None:
        """Unsubscribe from notifications, if subscribed (quorum_trackstop(3))."""
        await self._request(self._raw.trackstop)


async def quorum_initialize(
    *,
    quorum_notify: Callable[[QuorumChange], Awaitable[object]] | None = None,
    nodelist_notify: Callable[[NodelistChange], Awaitable[object]] | None = None,
    context: object = None,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> QuorumHandle:
    """Connect to the quorum service, with model v1 (quorum_model_initialize(3)).

    Args:
        quorum_notify: async function, called with each `QuorumChange`.
        nodelist_notify: async function, called with each `NodelistChange`.
        context: the initial value of the handle's `context`.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises, Cancelled: as `cpg_initialize`.
    """
    raw, connection = await open_connection(QUORUM, endpoint, retrying=False)
    callbacks = {QuorumChange: quorum_notify, NodelistChange: nodelist_notify}
    return QuorumHandle(raw, connection, callbacks, context)
