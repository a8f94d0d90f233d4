"""A party: each member says something of itself, and sees what the others say of themselves, as they come and go.

    python examples/party.py NAME

What this cannot do: it agrees on nothing. Members may see different parties for a moment; and one that is cut off, or
whose machine stands still, is seen until Corosync gives it up. See docs/views.md.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

import trio

import triocoro
from triocoro import Address, Message, MessageLost, View, Views

About = dict[str, str]


class Party:
    """A member's part.

    Args:
        about: what this member says of itself.
        name: of the group.
        show: called with the members, and what each says, whenever that changes.
    """

    def __init__(self, about: About, show: Callable[[Mapping[Address, About]], object], *, name: str = "party") -> None:
        self._about = about
        self._show = show
        self._name = name
        self._heard: dict[Address, tuple[list[int], About]] = {}  # what was said last, and in which ring

    async def run(self) -> None:
        """Be there, until cancelled. When the daemon dies, the party is empty until it is back."""
        async for session in triocoro.sessions(triocoro.open_views, self._name):
            async with session as views:
                self._heard.clear()
                async for event in views:
                    if isinstance(event, View):
                        await self._meet(views, event)
                    elif isinstance(event, Message):
                        ring, about = json.loads(event.payload)
                        self._heard[event.sender] = ring, about
                        self._tell(views)
                    elif isinstance(event, MessageLost):
                        await self._say(views)
            self._show({})

    async def _meet(self, views: Views, view: View) -> None:
        """Forget those who are gone, and introduce ourselves to those who are new.

        What members said in this ring may have come before its view.
        """
        ring = _ring(view)
        heard = {address: it for address, it in self._heard.items() if address in view.together or it[0] == ring}
        self._heard = {address: it for address, it in heard.items() if address in view.members}
        if {*view.members} - view.together:
            await self._say(views)
        self._tell(views)

    async def _say(self, views: Views) -> None:
        if views.view is not None:
            await views.send(json.dumps([_ring(views.view), self._about]).encode())

    def _tell(self, views: Views) -> None:
        members = views.view.members if views.view is not None else ()
        self._show(MappingProxyType({it: self._heard[it][1] for it in members if it in self._heard}))


def _ring(view: View) -> list[int]:
    return [view.ring_id.nodeid, view.ring_id.seq]


def show(members: Mapping[Address, About]) -> None:
    """Print who is there."""
    print("here:", *(f"{it['name']} ({it['machine']}, pid {it['pid']})" for it in members.values()), sep="\n  ")


if __name__ == "__main__":
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    about = {"name": sys.argv[1], "machine": platform.node(), "pid": str(os.getpid())}
    trio.run(Party(about, show).run)
