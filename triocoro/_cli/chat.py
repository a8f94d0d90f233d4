"""The application of the demonstration: it sends lines to a group, prints what it receives, and reconnects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Final, NoReturn

import trio

from .._cpg import Group, open_group
from .._errors import ConnectionLostError, CorosyncUnavailableError
from .._services import Endpoint
from .._types import ConfigChange, Message, MessageLost, VotequorumChange, VotequorumInfo
from .._votequorum import open_votequorum
from .transcript import Transcript

GROUP: Final = "chat"
"""The process group that the applications join."""

_RETRY: Final = 0.1
"""Seconds between attempts to connect."""


class ChatMember:
    """The application on one node. It joins the group again whenever its connection is lost."""

    def __init__(self, nodeid: int, endpoint: Endpoint, transcript: Transcript) -> None:
        self.nodeid = nodeid
        self.heard: list[str] = []
        """The payloads that it received, in that order."""
        self.members: tuple[int, ...] = ()
        """The nodes that have a member in the group; empty while this application is not a member."""
        self.votes: VotequorumInfo | None = None
        """The votes after the last change; `None` without a connection."""
        self._endpoint = endpoint
        self._print = partial(transcript.line, node=nodeid)
        self._changed = trio.Event()
        self._to_say, self._sayings = trio.open_memory_channel[str](inf)

    def say(self, text: str) -> None:
        """Send `text` to the group, now or after the next reconnect."""
        self._to_say.send_nowait(text)

    async def until(self, condition: Callable[[ChatMember], bool]) -> None:
        """Wait until `condition` holds."""
        await trio.lowlevel.checkpoint()
        while not condition(self):
            await self._changed.wait()

    async def run(self) -> None:
        """Keep joining the group and watching the quorum, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reconnecting, "the group", self._chat)
            nursery.start_soon(self._reconnecting, "votequorum", self._watch_quorum)

    async def _reconnecting(self, what: str, use_connection: Callable[[], Awaitable[None]]) -> NoReturn:
        """Call `use_connection` again after each loss: a connection does not survive its daemon."""
        while True:
            try:
                await use_connection()
            except ConnectionLostError:
                self._print(f"lost its connection to {what}")
            except CorosyncUnavailableError:
                pass  # the daemon is not back yet
            await trio.sleep(_RETRY)

    async def _chat(self) -> None:
        try:
            # When the daemon dies, everything in this block is cancelled, and one ConnectionLostError comes out of it.
            async with open_group(GROUP, endpoint=self._endpoint) as group, trio.open_nursery() as nursery:
                nursery.start_soon(self._talk, group)
                async for event in group:
                    if isinstance(event, ConfigChange):
                        self._membership_changed(event)
                    elif isinstance(event, Message):
                        self.heard.append(event.payload.decode())
                    elif isinstance(event, MessageLost):
                        self._print(f"its message {event.payload.decode()} was dropped")
                    self._wake()
        finally:
            self.members = ()

    async def _talk(self, group: Group) -> None:
        async for text in self._sayings:
            await group.send(text.encode())

    def _membership_changed(self, change: ConfigChange) -> None:
        self.members = tuple(address.nodeid for address in change.members)
        news = [
            *(f"node {member.address.nodeid} join ({member.reason.name})" for member in change.joined),
            *(f"node {member.address.nodeid} leave ({member.reason.name})" for member in change.left),
        ]
        self._print(f"sees {', '.join(news)}; members: {' '.join(map(str, self.members))}")

    async def _watch_quorum(self) -> None:
        try:
            async with open_votequorum(endpoint=self._endpoint) as votequorum, votequorum.track() as changes:
                async for change in changes:
                    if isinstance(change, VotequorumChange):
                        votes = await votequorum.info()
                        if votes != self.votes:
                            self.votes = votes
                            self._print(
                                f"counts {votes.total_votes} of {votes.expected_votes} votes, {votes.quorum} needed:"
                                f" {'quorate' if votes.quorate else 'NOT quorate'}"
                            )
                            self._wake()
        finally:
            self.votes = None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
