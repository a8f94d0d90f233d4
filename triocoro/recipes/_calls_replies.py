"""A call, and its replies."""

from __future__ import annotations

import math
from typing import TypeAlias, final

import attrs
import trio

from triocoro import Address


@attrs.frozen
class Request:
    """A request, as the handler gets it."""

    caller: Address
    """The member that calls, which may be our own."""
    payload: bytes
    """The payload of the call."""


@attrs.frozen
class Answer:
    """A reply: what the handler of a member returned."""

    member: Address
    """The member."""
    payload: bytes
    """What its handler returned."""


@attrs.frozen
class Failure:
    """A reply: the handler of a member raised an exception, or the member refused the request."""

    member: Address
    """The member."""
    text: str
    """The exception's class and message, without a traceback, or the reason for which it was not executed."""


@attrs.frozen
class Unknown:
    """In place of a reply: there will be none from this member. It may have executed the request, or may yet do so."""

    member: Address
    """The member, which has left the view, or has been out of reach and does not have the request any longer."""


Reply: TypeAlias = "Answer | Failure | Unknown"
"""What `Replies` gives, once for each member that has to answer."""


@final
class Replies(trio.abc.ReceiveChannel[Reply]):
    """The replies to one call, in the order in which they come. Objects of this class come from `Calls.call`."""

    def __init__(self, state: OpenCall) -> None:
        self._state = state

    @property
    def awaited(self) -> frozenset[Address]:
        """The members that have yet to reply."""
        return frozenset(self._state.awaited)

    async def receive(self) -> Reply:
        """Wait for the next reply and return it.

        Raises:
            trio.EndOfChannel: each member has replied, or is `Unknown`. A loop with `async for` ends.
            trio.ClosedResourceError: the block of the call, or of `open_calls`, has ended.

        Cancelled: no reply was taken.
        """
        return await self._state.replies.receive()

    async def aclose(self) -> None:
        """Take no more replies. The members execute the request nevertheless.

        Cancelled: closed nevertheless.
        """
        self._state.abandon()
        await trio.lowlevel.checkpoint()


@final
class OpenCall:
    """The state of a call, from sending its request to the last reply."""

    def __init__(self) -> None:
        self.awaited: set[Address] = set()
        self.begun: trio.Event = trio.Event()  # set once the request was delivered to us, or never will be
        self.moved: bool = False  # whether the ring has changed since the request was sent
        self.replies: trio.MemoryReceiveChannel[Reply]
        self._send, self.replies = trio.open_memory_channel[Reply](math.inf)  # one for each member, at most

    def begin(self, members: tuple[Address, ...]) -> None:
        """The request was delivered to us: these members have to answer."""
        self.awaited.update(members)
        self.begun.set()

    def settle(self, member: Address, reply: Reply | None) -> None:
        """A member is not awaited any longer."""
        if member not in self.awaited:
            return
        self.awaited.remove(member)
        if reply is not None:
            self._send.send_nowait(reply)
        if not self.awaited:
            self._send.close()

    def abandon(self) -> None:
        """There will be no more replies, and no one for whom they are."""
        self.awaited.clear()
        self.begun.set()
        self.replies.close()  # first: else a task that waits would take it for the end of the replies
        self._send.close()
