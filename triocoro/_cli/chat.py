"""The application of the demonstration: it sends lines to a group, prints what it receives, and reconnects."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from typing import Final

import trio

from .._cpg import Group
from .._services import Endpoint
from .._sessions import sessions
from .._types import ConfigChange, Message, MessageLost, VotequorumChange, VotequorumInfo
from .._votequorum import open_votequorum
from .transcript import Transcript

GROUP: Final = "chat"
"""The process group that the applications join."""


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
            nursery.start_soon(self._chat)
            nursery.start_soon(self._watch_quorum)

    async def _chat(self) -> None:
        async for session in sessions(GROUP, endpoint=self._endpoint):
            # When the daemon dies, everything in this block is cancelled, and the loop goes on behind it.
            async with session as group, trio.open_nursery() as nursery:
                nursery.start_soon(self._talk, group)
                async for event in group:
                    if isinstance(event, ConfigChange):
                        self._membership_changed(event)
                    elif isinstance(event, Message):
                        self.heard.append(event.payload.decode())
                    elif isinstance(event, MessageLost):
                        self._print(f"its message {event.payload.decode()} was dropped")
                    self._wake()
            self.members = ()
            self._print("lost its connection to the group")

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
        async for session in sessions(open_votequorum, endpoint=self._endpoint):
            async with session as votequorum, votequorum.track() as changes:
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
            self.votes = None
            self._print("lost its connection to votequorum")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
