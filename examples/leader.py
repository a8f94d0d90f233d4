"""A leader for a cluster: one node does the work, and another one takes over when it dies or is cut off.

    python examples/leader.py COMMAND [ARGUMENT...]

On each node, run it with the command of which one node at a time shall run one. Nodes without a majority of the votes
have no leader.

What this cannot do: a command that is terminated may take a moment to end, and a machine that is paused terminates
nothing. The environment variables LEADER_EPOCH and LEADER_INDEX have a token that is greater for each later leader.
Where two leaders would do harm, let the resource refuse smaller tokens, or fence the old leader (docs/recipes/lock.md).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Awaitable, Callable

import trio

from triocoro.recipes import Held, open_leadership


async def stand(
    work: Callable[[Held], Awaitable[object]], *, name: str = "leader", lock_delay: float | None = None
) -> None:
    """Be a candidate, until cancelled; whenever this node leads, do the work.

    Args:
        work: cancelled when another node may lead. If it ends before, another candidate gets its turn.
        name: of the office.
        lock_delay: seconds after which another node takes over from a leader that is silent.
    """
    async with open_leadership(name, lock_delay=lock_delay) as leadership:
        while True:
            async with leadership.lead() as leader:
                await work(leader)


async def run_command(leader: Held) -> None:
    """Run the command of this program's arguments; when cancelled, terminate it."""
    print("leading:", leader.token)
    token = {"LEADER_EPOCH": str(leader.token.epoch), "LEADER_INDEX": str(leader.token.index)}
    try:
        await trio.run_process(sys.argv[1:], check=False, env={**os.environ, **token})
    finally:
        print("not leading")


def main() -> None:
    """Run the program."""
    if len(sys.argv) < 2:  # noqa: PLR2004
        sys.exit(__doc__)
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    trio.run(stand, run_command)


if __name__ == "__main__":
    main()
