"""Measurements that need one process: Trio's own costs, the fake, the import, checks of operations, idle groups, ...

    python local.py channel|wakeup|fake|recorded|seeds|import|map|register    without a daemon
    python local.py idle|flood|raw                                      with the daemon of this namespace

It prints "ready", starts when it reads a line, prints its result as a line of JSON, and exits at the end of its input.

Like peer.py, it measures whichever triocoro PYTHONPATH leads to. Only `raw` uses private names.
"""

from __future__ import annotations

import json
import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

import triocoro
from triocoro.testing import FakeCluster, History

if TYPE_CHECKING:
    from triocoro.testing import OperationResult

PAYLOAD = bytes(64)
BATCH = 256
WINDOW = 512
"""How many messages `raw` may have sent and not received yet: the daemon drops none of so few."""


async def channel() -> dict[str, float]:
    """Send and receive one at a time through a memory channel of Trio, between two tasks."""
    count = 50_000
    sender, receiver = trio.open_memory_channel[bytes](64)

    async def send() -> None:
        async with sender:
            for _ in range(count):
                await sender.send(PAYLOAD)

    used = time.process_time()
    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        async for _ in receiver:
            pass
    return {"received": count, "seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


async def wakeup() -> dict[str, float]:
    """Two tasks wake each other with a byte through a socket, there and back."""
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    async def echo() -> None:
        while data := await theirs.recv(1):
            await theirs.send(data)

    trips: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo)
        for _ in range(20_000):
            start = time.perf_counter()
            await ours.send(b"x")
            await ours.recv(1)
            trips.append(time.perf_counter() - start)
        ours.close()
    theirs.close()
    trips.sort()
    return {name: trips[len(trips) * share // 1000] for name, share in (("p50", 500), ("p99", 990), ("p999", 999))}


async def fake(history: History | None = None) -> dict[str, float]:
    """Send batches from one of three nodes of a fake, with a member on each; counts the deliveries to all members."""
    count = 10_000
    async with FakeCluster(nodes=3) as cluster, AsyncExitStack() as stack:
        if history is not None:
            cluster.record(history)
        groups = [
            await stack.enter_async_context(triocoro.open_group("bench", endpoint=cluster[nodeid].endpoint))
            for nodeid in (1, 2, 3)
        ]

        async def receive(group: triocoro.Group) -> None:
            received = 0
            while received < count:
                events = await group.receive_batch(max_events=1024)
                received += sum(isinstance(event, triocoro.Message) for event in events)

        used = time.process_time()
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for group in groups:
                nursery.start_soon(receive, group)
            for first in range(0, count, BATCH):
                await groups[0].send_batch([PAYLOAD] * min(BATCH, count - first))
        seconds = time.perf_counter() - start
        used = time.process_time() - used
    return {"received": len(groups) * count, "seconds": seconds, "cpu": used}


async def recorded() -> dict[str, float]:
    """The same, while the cluster is recorded as those of tests are."""
    return await fake(History(limit=100_000))


SEEDED = """
import json, os, time
import pytest, trio
import triocoro

@pytest.fixture(scope="module", autouse=True)
def measured():
    used, start = time.process_time(), time.perf_counter()
    yield
    result = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    with open(os.environ["RESULT"], "w") as file:
        json.dump(result, file)

async def use(node):
    async with triocoro.open_group("bench", endpoint=node) as group, trio.open_nursery() as nursery:
        nursery.start_soon(receive, group)
        for number in range(20):
            await group.send(b"%d" % number)
            await trio.sleep(0.5)
        nursery.cancel_scope.cancel()

async def receive(group):
    async for event in group:
        pass

@pytest.mark.corosync_seeds(100, latency=0.01, jitter=0.01)
async def test_it(corosync_cluster):
    async with trio.open_nursery() as nursery:
        for node in corosync_cluster.nodes.values():
            nursery.start_soon(use, node)
"""
"""A test of 10 seconds with a client on each of three nodes. Each sends two messages a second, and receives all."""


async def seeds() -> dict[str, float]:
    """Run a test under 100 seeds, with pytest's part and the recording, but without pytest's start."""
    with tempfile.TemporaryDirectory() as folder:
        result = trio.Path(folder, "result.json")
        await trio.Path(folder, "test_seeds.py").write_text(SEEDED, encoding="utf-8")
        options = ("-q", "-p", "no:cacheprovider", "-o", "trio_mode=true", "--corosync=fake", folder)
        await trio.run_process(
            [sys.executable, "-m", "pytest", *options],
            env={**os.environ, "RESULT": str(result)},
            capture_stdout=True,
            cwd=folder,
        )
        measured: dict[str, float] = json.loads(await result.read_text(encoding="utf-8"))
    return {"received": 100, **measured}


async def imports() -> dict[str, float]:
    """Import triocoro after Trio, in new processes: the median of their times."""
    code = "import time, trio; start = time.perf_counter(); import triocoro; print(time.perf_counter() - start)"
    command = [sys.executable, "-c", code]
    # One after the other: nothing else of this process runs meanwhile.
    times = [float((await trio.run_process(command, capture_stdout=True)).stdout) for _ in range(7)]
    return {"import": sorted(times)[len(times) // 2]}


async def check(  # noqa: ASYNC124 - as all of the work is async
    kind: str, number: int, clients: int, keys: int
) -> dict[str, float]:
    """Check operations that are linearizable: half reads, half writes of values that differ.

    Args:
        kind: of what object, "map" or "register".
        number: how many operations.
        clients: how many clients; each is nearly always in an operation.
        keys: how many keys a map has.
    """
    from triocoro.testing import check_linearizable, models

    rng = random.Random(1)  # noqa: S311 - nothing secret
    history = History(clock=lambda: 0.0)
    values: dict[int, int | None] = {}
    pending: dict[int, ExitStack] = {}
    actions: dict[int, Callable[[], None]] = {}
    started = 0
    while started < number or pending:
        client = rng.randrange(clients)
        if client in actions:
            actions.pop(client)()
        elif client in pending:
            pending.pop(client).close()
        elif started < number:
            key, value, is_read = rng.randrange(keys), started, rng.choice([True, False])
            started += 1
            name = {("map", True): "get", ("map", False): "put", ("register", True): "read"}.get(
                (kind, is_read), "write"
            )
            arguments = ([key] if kind == "map" else []) + ([] if is_read else [value])
            pending[client] = ExitStack()
            operation = pending[client].enter_context(history.operation(name, *arguments, client=f"c{client}"))

            def act(operation: OperationResult = operation, key: int = key, value: int | None = value) -> None:
                operation.result, values[key] = values.get(key), value

            def look(operation: OperationResult = operation, key: int = key) -> None:
                operation.result = values.get(key)

            actions[client] = look if is_read else act
    operations = history.operations()
    used = time.process_time()
    start = time.perf_counter()
    if check_linearizable(operations, models.Map() if kind == "map" else models.Register(), budget=10**9):
        raise AssertionError("they are linearizable")
    return {"received": number, "seconds": time.perf_counter() - start, "cpu": time.process_time() - used}


def resident() -> int:
    """The memory of this process that is in RAM, in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def idle() -> dict[str, float]:
    """Hold 100 groups in which nothing happens: their share of one CPU together, and the memory of each."""
    count, seconds = 100, 5.0
    async with AsyncExitStack() as stack:
        # The first one also pays for what all share.
        await stack.enter_async_context(triocoro.open_group("first"))
        before = resident()
        for number in range(count):
            await stack.enter_async_context(triocoro.open_group(f"idle {number}"))
        await trio.sleep(0.5)
        size = resident() - before
        used = time.process_time()
        await trio.sleep(seconds)
        return {"share": (time.process_time() - used) / seconds, "bytes": size / count}


async def flood() -> dict[str, float]:
    """Flood a group and receive from it, beside a task that wakes every 5 ms: how late that task is."""
    late: list[float] = []
    period, seconds = 0.005, 10.0
    async with triocoro.open_group("bench") as group, trio.open_nursery() as nursery:

        async def send() -> None:
            while True:
                await group.send_batch([PAYLOAD] * BATCH)

        async def receive() -> None:
            async for _ in group:
                pass

        nursery.start_soon(send)
        nursery.start_soon(receive)
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            due += period
            await trio.sleep(max(0.0, due - time.perf_counter()))
            late.append(time.perf_counter() - due)
            due = max(due, time.perf_counter())
        nursery.cancel_scope.cancel()
    return {"late": sorted(late)[len(late) * 999 // 1000]}


async def raw() -> dict[str, float]:
    """Send and receive batches with the raw handle alone, in one task: the floor of all above."""
    from triocoro._corosync import SYSTEM
    from triocoro._raw import MULTICAST_BURST
    from triocoro._services import CPG

    count = 100_000
    burst = [PAYLOAD] * MULTICAST_BURST
    handle = await SYSTEM.connect(CPG)
    try:
        await handle.join(b"bench")
        sent = received = 0
        used = time.process_time()
        start = time.perf_counter()
        while received < count:
            accepted = handle.multicast(burst[: count - sent])[0] if sent < count else 0
            sent += accepted
            if sent > received and (accepted == 0 or sent - received > WINDOW):
                await trio.lowlevel.wait_readable(handle.fileno())
            _, events = handle.dispatch(1024, 2**20)
            received += sum(isinstance(event, triocoro.Message) for event in events)
        return {"received": count, "seconds": time.perf_counter() - start, "cpu": time.process_time() - used}
    finally:
        handle.close(leave=True)


WORK: dict[str, Callable[[], Awaitable[dict[str, float]]]] = {
    "channel": channel,
    "wakeup": wakeup,
    "fake": fake,
    "recorded": recorded,
    "seeds": seeds,
    "import": imports,
    "map": partial(check, "map", 10_000, 10, 10),
    "register": partial(check, "register", 1_000, 50, 1),
    "idle": idle,
    "flood": flood,
    "raw": raw,
}

if __name__ == "__main__":
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(trio.run(WORK[sys.argv[1]])), flush=True)
    sys.stdin.readline()
