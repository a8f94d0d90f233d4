"""A member of a recipe, or of the raw group that it is compared with: one of three, each on a node of its own.

    python recipe.py WORK GROUP SIZE COUNT SENDERS

The first member, on node 1, measures; the others take part.

    trip       `send_and_wait` of a raw group, COUNT times, one after the other
    trips      the same by TASKS tasks, COUNT times in all
    safe       `SafeGroup.send`, COUNT times, one after the other
    execute    `Replica.execute` by TASKS tasks, COUNT commands in all
    snapshot   a joiner on node 3 gets 100 MB, while COUNT commands come at a rate of RATE a second

It prints "ready" once it can send, and starts when it reads a line. Then it prints its result as a
line of JSON, and exits at the end of its input. It uses public names only.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

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

    def __init__(self, size: int) -> None:
        self._size = size

    def apply(self, command: bytes) -> bytes:
        """Return nothing of interest."""
        return command[:0]

    def snapshot(self) -> Iterable[bytes]:
        """So many bytes."""
        chunk = bytes(CHUNK)
        return (chunk for _ in range(self._size // CHUNK))

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Read them."""
        for _ in chunks:
            pass


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


async def at_a_rate(send: Callable[[], Awaitable[object]], count: int) -> Result:
    """How late calls return that begin at a steady rate, in seconds after their time."""
    times: list[float] = []

    async def task(due: float) -> None:
        await send()
        times.append(trio.current_time() - due)

    used = time.process_time()
    start = time.perf_counter()
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(count):
            due = begin + number / RATE
            await trio.sleep_until(due)
            nursery.start_soon(task, due)
    found = result(start, used, times)
    return {"received": found["received"], "seconds": found["seconds"], "cpu": found["cpu"], "latest": found["max"]}


@asynccontextmanager
async def sending(
    work: str, name: str, payload: bytes, senders: int
) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    """What sends one message, once all members are there."""
    if work in ("trip", "trips"):
        async with triocoro.open_group(name, max_buffered_bytes=2**30) as group:
            while len(group.view.members) < senders:
                await group.receive()
            yield partial(group.send_and_wait, payload)
    elif work == "safe":
        async with recipes.open_safe_group(name, max_buffered_bytes=2**30) as safe:
            await safe.wait_primary()
            yield partial(safe.send, payload)
    else:
        nodes = [1, 2] if work == "snapshot" else None
        async with recipes.open_replica(name, Nothing(STATE if work == "snapshot" else 0), nodes=nodes) as replica:
            await replica.wait_primary()
            yield partial(replica.execute, payload)


HOW = {
    "trip": one_after_the_other,
    "trips": all_at_once,
    "safe": one_after_the_other,
    "execute": all_at_once,
    "snapshot": at_a_rate,
}


async def main(work: str, name: str, *numbers: int) -> None:
    """Take part, and measure on node 1."""
    size, count, senders = numbers
    async with triocoro.open_cpg() as cpg:
        node = await cpg.local_nodeid()
    joins = work == "snapshot" and node == senders
    if joins:
        await starting()
    async with sending(work, name, bytes(size), senders) as send:
        if not joins:
            await starting()
        print(json.dumps(await HOW[work](send, count) if node == 1 else {}), flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    _, chosen, group_name, *given = sys.argv
    trio.run(main, chosen, group_name, *map(int, given))
