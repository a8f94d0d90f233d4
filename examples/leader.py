"""A leader for a cluster: one node does the work, and stops when its partition loses quorum.

    python examples/leader.py COMMAND [ARGUMENT...]

On each node, run it with the command of which one node at a time shall run one. The node with the lowest id leads, of
those that run this program in the quorate partition. When it dies or is cut off, another one takes over.

What this cannot do: a node that is cut off learns of it only after the token timeout, and a process that stands still
learns of nothing. So a new leader waits for as long as an old one may take to notice, before it begins. That covers
nodes whose clocks and processes run. Where two leaders would do harm, fence the old one first (docs/promises.md).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

import triocoro
from triocoro import ConfigChange, EventStream, Group, QuorumChange, QuorumEvent, RingId, TotemChange


class Candidate:
    """A candidate on this node.

    Args:
        work: what the leader does. It is cancelled when this node must step down.
        group: the process group of the candidates.
        patience: seconds that a new leader waits; by default, twice the time in which Corosync gives up a node.
    """

    def __init__(
        self, work: Callable[[], Awaitable[object]], *, group: str = "leader", patience: float | None = None
    ) -> None:
        self._work = work
        self._group = group
        self._patience = patience
        self._forget()

    def _forget(self) -> None:
        self._term = trio.CancelScope()
        self._changed = trio.Event()
        self._first = False
        self._ring: RingId | None = None
        self._quorum: QuorumChange | None = None

    @property
    def elected(self) -> bool:
        """Whether this node shall lead: the first member, in a quorate partition.

        The group and the quorum service tell of a change independently of each other, so both must be of one ring.
        """
        return self._first and self._quorum is not None and self._quorum.quorate and self._quorum.ring_id == self._ring

    async def run(self) -> None:
        """Be a candidate, until cancelled. When the daemon dies, stop the work, and go on when it is back."""
        async for session in triocoro.sessions(open_both, self._group):
            self._forget()
            async with session as (group, changes), trio.open_nursery() as nursery:
                patience = await gives_up_after() * 2 if self._patience is None else self._patience
                nursery.start_soon(self._watch_group, group)
                nursery.start_soon(self._watch_quorum, changes)
                while True:
                    await self._lead(patience)

    async def _lead(self, patience: float) -> None:
        while not self.elected:
            await self._changed.wait()
        with trio.CancelScope() as self._term:
            await trio.sleep(patience)
            await self._work()
            await trio.sleep_forever()  # it is done, and stays so until another node leads

    async def _watch_group(self, group: Group) -> None:
        async for event in group:
            if isinstance(event, ConfigChange):
                self._first = event.members[0] == group.address
            elif isinstance(event, TotemChange):
                self._ring = event.ring_id
            self._decide()

    async def _watch_quorum(self, changes: EventStream[QuorumEvent]) -> None:
        async for change in changes:
            if isinstance(change, QuorumChange):
                self._quorum = change
            self._decide()

    def _decide(self) -> None:
        if not self.elected:
            self._term.cancel()
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def open_both(group_name: str) -> AsyncGenerator[tuple[Group, EventStream[QuorumEvent]], None]:
    """The membership of a group, with its rings, and the changes of the quorum."""
    async with (
        triocoro.open_quorum() as quorum,
        quorum.track() as changes,
        triocoro.open_group(group_name, totem_changes=True) as group,
    ):
        yield group, changes


async def gives_up_after() -> float:
    """The seconds in which Corosync gives up a node that is silent, and agrees on a new membership."""
    async with triocoro.open_cmap() as cmap:
        token = await cmap.get("runtime.config.totem.token", int)
        consensus = await cmap.get("runtime.config.totem.consensus", int)
    return (token + consensus) / 1000


async def run_command() -> None:
    """Run the command of this program's arguments; when cancelled, terminate it."""
    print("leading")
    try:
        await trio.run_process(sys.argv[1:], check=False)
    finally:
        print("not leading")


def main() -> None:
    """Run the program."""
    if len(sys.argv) < 2:  # noqa: PLR2004
        sys.exit(__doc__)
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    trio.run(Candidate(run_command).run)


if __name__ == "__main__":
    main()
