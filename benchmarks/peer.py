"""A member of a process group, written with triocoro: what peer.c does with libcpg, and one more way of doing it.

    python peer.py batch GROUP SIZE COUNT SENDERS     `send_batch` in one task, `receive_batch` in another
    python peer.py single GROUP SIZE COUNT SENDERS    `send` in one task, `receive` in another
    python peer.py trip GROUP SIZE COUNT SENDERS      `send_and_wait`, COUNT times

It joins, prints "ready" once the group has SENDERS members, and starts when it reads a line. Then it prints its result
as a line of JSON, and exits at the end of its input.

It uses public names only, so that it can also measure another commit: whichever triocoro PYTHONPATH leads to.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable

import trio

import triocoro

BATCH = 256
PATIENCE = 2.0
"""With nothing sent and nothing received for so many seconds, the missing messages count as lost."""
BUFFER = 2**30
"""A larger buffer than the default: a member that receives slower than three senders send is to be measured too."""


class Peer:
    """One member and its measurements."""

    def __init__(self, group: triocoro.Group, size: int, count: int, senders: int) -> None:
        self._group = group
        self._payload = bytes(size)
        self._count = count
        self._expected = count * senders
        self._received = 0
        self._reported_lost = 0
        self._sending = False

    async def batch(self) -> dict[str, float]:
        """Send and receive many messages at a time."""

        async def send() -> None:
            for start in range(0, self._count, BATCH):
                await self._group.send_batch([self._payload] * min(BATCH, self._count - start))
            self._sending = False

        async def receive() -> None:
            events = await self._group.receive_batch(max_events=1024)
            messages = sum(isinstance(event, triocoro.Message) for event in events)
            self._received += messages
            if messages < len(events):
                self._reported_lost += sum(isinstance(event, triocoro.MessageLost) for event in events)

        return await self._flood(send, receive)

    async def single(self) -> dict[str, float]:
        """Send and receive one message at a time."""

        async def send() -> None:
            for _ in range(self._count):
                await self._group.send(self._payload)
            self._sending = False

        async def receive() -> None:
            event = await self._group.receive()
            if isinstance(event, triocoro.Message):
                self._received += 1
            elif isinstance(event, triocoro.MessageLost):
                self._reported_lost += 1

        return await self._flood(send, receive)

    async def _flood(
        self, send: Callable[[], Awaitable[None]], receive: Callable[[], Awaitable[None]]
    ) -> dict[str, float]:
        self._sending = True
        used = time.process_time()
        start = last = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(self._watch, nursery.cancel_scope)
            while self._received + self._reported_lost < self._expected:
                await receive()
                last = time.perf_counter()
            nursery.cancel_scope.cancel()
        return self._result(last - start, time.process_time() - used)

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel the run when nothing comes any more: messages of other members were lost."""
        before = -1
        while before < self._received or self._sending:
            before = self._received
            await trio.sleep(PATIENCE)
        scope.cancel()

    async def trip(self) -> dict[str, float]:
        """Measure the time from sending a message to its delivery to us."""
        trips: list[float] = []
        used = time.process_time()
        start = time.perf_counter()
        for _ in range(self._count):
            sent = time.perf_counter()
            try:
                await self._group.send_and_wait(self._payload)
            except triocoro.MessageLostError:
                continue
            trips.append(time.perf_counter() - sent)
        seconds = time.perf_counter() - start
        used = time.process_time() - used
        trips.sort()
        self._received = len(trips)
        result = self._result(seconds, used)
        for name, thousandths in (("p50", 500), ("p99", 990), ("p999", 999)):
            result[name] = trips[len(trips) * thousandths // 1000]
        return result

    def _result(self, seconds: float, used: float) -> dict[str, float]:
        lost = self._expected - self._received
        return {"seconds": seconds, "cpu": used, "received": self._received, "lost": lost}


async def main(work: str, name: str, *numbers: int) -> None:
    """Join, wait for the other members and for the start, and measure."""
    size, count, senders = numbers
    async with triocoro.open_group(name, receive=work != "trip", max_buffered_bytes=BUFFER) as group:
        while len(group.view.members) < senders:
            await group.receive()
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        peer = Peer(group, size, count, senders)
        result = await {"batch": peer.batch, "single": peer.single, "trip": peer.trip}[work]()
        print(json.dumps(result), flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)


if __name__ == "__main__":
    _, chosen_work, group_name, *numbers = sys.argv
    trio.run(main, chosen_work, group_name, *map(int, numbers))
