"""A chat in the terminal, for all nodes of a cluster: every line that is typed is a message to a process group.

    python examples/chat.py NAME [GROUP]

All see all lines in the same order. When the daemon dies, the chat waits until it is back and joins again; what was
typed meanwhile is sent then.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable

import trio

import triocoro
from triocoro import ConfigChange, Group, Message, MessageLost


class Chat:
    """One participant.

    Args:
        name: what the others see.
        lines: what is typed. When it ends, the participant leaves, once all of it has been sent.
        show: called with each line to show.
        group: the name of the process group.
    """

    def __init__(
        self, name: str, lines: AsyncIterator[str], show: Callable[[str], object], group: str = "chat"
    ) -> None:
        self._name = name
        self._lines = lines
        self._show = show
        self._group = group
        self._unsent: str | None = None

    async def run(self) -> None:
        """Take part until there are no more lines."""
        async for session in triocoro.sessions(self._group):
            # If the connection is lost, all in this block is cancelled, and the loop goes on behind it.
            async with session as group, trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, group)
                await self._talk(group)
                nursery.cancel_scope.cancel()
            if session.lost is None:
                return
            doubtful = session.lost.unconfirmed
            self._show(f"* the connection is lost{f'; lines that may be lost: {doubtful}' if doubtful else ''}")

    async def _talk(self, group: Group) -> None:
        while True:
            if self._unsent is None:
                self._unsent = await anext(self._lines, None)
            if self._unsent is None:
                return
            # If it is cancelled, it has not been sent: the next session does it.
            await group.send_and_wait(f"{self._name}: {self._unsent}".encode())
            self._unsent = None

    async def _listen(self, group: Group) -> None:
        async for event in group:
            if isinstance(event, Message):
                self._show(event.payload.decode(errors="replace"))
            elif isinstance(event, MessageLost):
                self._show("* a line was dropped under load; type it again")
            elif isinstance(event, ConfigChange):
                for change in event.left:
                    self._show(f"* {change.address} has left ({change.reason.name.lower()})")
                self._show(f"* here: {', '.join(map(str, event.members))}")


async def typed_lines() -> AsyncIterator[str]:
    """The lines of standard input. A thread reads them, so that the chat goes on meanwhile."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        yield line.rstrip("\n")


def main() -> None:
    """Run the program."""
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    name, *group = sys.argv[1:]
    trio.run(Chat(name, typed_lines(), print, *group).run)


if __name__ == "__main__":
    main()
