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
from collections.abc import Awaitable, Callable

import trio

import triocoro
from triocoro import PrimaryChange, View, Views


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
        self._primary = False

    async def run(self) -> None:
        """Be a candidate, until cancelled. When the daemon dies, stop the work, and go on when it is back."""
        async for session in triocoro.sessions(triocoro.open_views, self._group):
            async with session as views, trio.open_nursery() as nursery:
                patience = await gives_up_after() * 2 if self._patience is None else self._patience
                term = trio.CancelScope()
                term.cancel()
                while True:
                    if await self._must_step_down(views):
                        term.cancel()
                    if term.cancel_called and self.elected(views):
                        term = trio.CancelScope()
                        nursery.start_soon(self._lead, patience, term)

    def elected(self, views: Views) -> bool:
        """Whether this node shall lead: the first member, in a quorate partition."""
        return self._primary and views.view is not None and views.view.members[0] == views.address

    async def _must_step_down(self, views: Views) -> bool:
        """Wait for a change; whether a leader must not go on after it."""
        before = views.view
        event = await views.receive()
        if isinstance(event, (View, PrimaryChange)):
            self._primary = event.primary
        # Members that have been away, or that have missed us, may have had another leader.
        away = isinstance(event, View) and before is not None and {*before.members} & {*event.members} - event.together
        return bool(away) or not self.elected(views)

    async def _lead(self, patience: float, term: trio.CancelScope) -> None:
        with term:
            await trio.sleep(patience)
            await self._work()


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
