"""A member of a leadership, one of three, each on a node of its own: the leader is lost, and another one follows.

    python failover.py WORK GROUP SIZE COUNT SENDERS

WORK and the numbers but for COUNT are for running.py. The member on node 2 leads. Right after a renewal of its lease
it prints a line, and is killed, or its daemon is: its successor then has to wait for the whole lock_delay. The
successor, on node 1, leads COUNT times, prints a line each time, and steps down when node 2 is back. It measures from
the view that shows the loss until `lead` returns, less the lock_delay.

It prints "ready" once it has joined, and starts when it reads a line. The successor prints its result as a line of JSON
at last. Each exits at the end of its input. It uses public names only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from statistics import median

import trio

import triocoro
from triocoro import recipes

LEADER = 2
"""The node of the member that is lost."""
TICK = 0.001


class Watch:
    """Which nodes have members, and when the leader was last seen to be lost, as this member's views tell."""

    def __init__(self) -> None:
        self.nodes: set[int] = set()
        self.lost = 0.0

    async def run(self, name: str, *, task_status: trio.TaskStatus[None]) -> None:
        """Follow the views, through the loss of the daemon."""
        async for session in triocoro.sessions(triocoro.open_views, name):
            async with session as views:
                task_status.started()
                task_status = trio.TASK_STATUS_IGNORED
                async for event in views:
                    if isinstance(event, triocoro.View):
                        nodes = {member.nodeid for member in event.members}
                        if LEADER in self.nodes - nodes:
                            self.lost = trio.current_time()
                        self.nodes = nodes


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110 - as said
        await trio.sleep(TICK)


async def renewed(held: recipes.Held) -> None:
    """Wait for the next renewal of a lease."""
    before = after = held.remaining()
    while after <= before:
        await trio.sleep(TICK)
        before, after = after, held.remaining()


async def lead(leadership: recipes.Leadership) -> None:
    """Lead, and say so when the lease has just been renewed for the second time."""
    while True:  # noqa: ASYNC913 - `lead` waits
        async with leadership.lead() as held:
            await renewed(held)
            await renewed(held)
            print("renewed", flush=True)
            await trio.sleep_forever()


async def succeed(leadership: recipes.Leadership, watch: Watch, lock_delay: float, count: int) -> None:
    """Follow the leader so many times."""
    times: list[float] = []
    for _ in range(count):
        await until(lambda: leadership.leader is not None and leadership.leader.nodeid == LEADER)
        async with leadership.lead():
            times.append(trio.current_time() - watch.lost - lock_delay)
            print("leads", flush=True)
            await until(lambda: LEADER in watch.nodes)
    print(json.dumps({"failover": median(times), "latest": max(times)}), flush=True)


async def main(name: str, count: int) -> None:
    """Take part, until the end of the input."""
    async with triocoro.open_cpg() as cpg:
        node = await cpg.local_nodeid()
    lock_delay = await recipes.shortest_lock_delay()
    watch = Watch()
    async with recipes.open_leadership(name, lock_delay=lock_delay) as leadership, trio.open_nursery() as nursery:
        await nursery.start(watch.run, f"{name} views")
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        if node == LEADER:
            nursery.start_soon(lead, leadership)
        elif node == 1:
            nursery.start_soon(succeed, leadership, watch, lock_delay, count)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[2], int(sys.argv[4]))
