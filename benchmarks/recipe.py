"""A member of a recipe, or of the raw group that it is compared with: one of three, each on a node of its own.

    python recipe.py WORK GROUP [ADDRESS OF THE FIRST MEMBER] SIZE COUNT SENDERS

The first member, on node 1, measures; the others take part.

    trip       `send_and_wait` of a raw group, COUNT times, one after the other
    safe       `SafeGroup.send`, COUNT times, one after the other
    execute    `Replica.execute` by TASKS tasks, COUNT commands in all
    failover   the leader on node 1 is cut off; the time until node 2 leads, beyond lock_delay and Corosync's own
    snapshot   a joiner gets 100 MB while COUNT commands come at a rate of 1,000 a second

It prints "ready" once it is in the primary component, and starts when it reads a line. Then it prints its result as a
line of JSON, and exits at the end of its input. It uses public names only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable

import trio

import triocoro
from triocoro import recipes

TASKS = 1000
RATE = 1000
CHUNK = 64 * 1024
STATE = 100_000_000
Result = dict[str, float]


class Nothing:
    """A machine without a state of its own, whose snapshot has a given size."""

    def __init__(self, size: int = 0) -> None:
        self._size = size
        self.received = 0

    def apply(self, command: bytes) -> bytes:
        """Count."""
        return b""

    def snapshot(self) -> Iterable[bytes]:
        """So many bytes."""
        chunk = bytes(CHUNK)
        return (chunk for _ in range(self._size // CHUNK))

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Count."""
        self.received = sum(map(len, chunks))


async def one_after_the_other(send: Callable[[], Awaitable[object]], count: int) -> Result:
    """The times that calls take."""
    times: list[float] = []
    used = time.process_time()
    start = time.perf_counter()
    for _ in range(count):
        sent = time.perf_counter()
        await send()
        times.append(time.perf_counter() - sent)
    return result(start, used, times)


async def all_at_once(send: Callable[[], Awaitable[object]], count: int) -> Result:
    """The times that calls of many tasks take."""
    times: list[float] = []

    async def task() -> None:
        for _ in range(count // TASKS):
            sent = time.perf_counter()
            await send()
            times.append(time.perf_counter() - sent)

    used = time.process_time()
    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(task)
    return result(start, used, times)


async def at_a_rate(send: Callable[[], Awaitable[object]], count: int) -> Result:
    """The times from when a call should have begun to its end: so a queue that builds up counts."""
    times: list[float] = []
    used = time.process_time()
    start = time.perf_counter()

    async def call(due: float) -> None:
        await send()
        times.append(time.perf_counter() - due)

    async with trio.open_nursery() as nursery:
        for number in range(count):
            due = start + number / RATE
            await trio.sleep(max(0.0, due - time.perf_counter()))
            nursery.start_soon(call, due)
    return result(start, used, times)


def result(start: float, used: float, times: list[float]) -> Result:
    """The figures of a run."""
    seconds = time.perf_counter() - start
    times.sort()
    found = {"seconds": seconds, "cpu": time.process_time() - used, "received": float(len(times))}
    for name, thousandths in (("p50", 500), ("p99", 990), ("p999", 999)):
        found[name] = times[len(times) * thousandths // 1000]
    return found | {"max": times[-1]}


async def starting() -> None:
    """Say that we are ready, and wait for the start."""
    print("ready", flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)


async def main(work: str, name: str, *numbers: int) -> None:
    """Take part, and measure on node 1."""
    size, count, senders = numbers
    async with triocoro.open_cpg() as cpg:
        first = cpg.local_nodeid == 1
    payload = bytes(size)
    found: Result = {}
    if work == "trip":
        async with triocoro.open_group(name, max_buffered_bytes=2**30) as group:
            while len(group.view.members) < senders:
                await group.receive()
            await starting()
            if first:
                found = await one_after_the_other(lambda: group.send_and_wait(payload), count)
            print(json.dumps(found), flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
    elif work == "safe":
        async with recipes.open_safe_group(name, max_buffered_bytes=2**30) as safe:
            await safe.wait_primary()
            await starting()
            if first:
                found = await one_after_the_other(lambda: safe.send(payload), count)
            print(json.dumps(found), flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)
    elif work in ("execute", "single"):
        async with recipes.open_replica(name, Nothing()) as replica:
            await replica.wait_primary()
            await starting()
            if first:
                run = all_at_once if work == "execute" else one_after_the_other
                found = await run(lambda: replica.execute(payload), count)
            print(json.dumps(found), flush=True)
            await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    _, chosen, group_name, *given = sys.argv
    trio.run(main, chosen, group_name, *map(int, given))
