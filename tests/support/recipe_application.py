"""A program that uses a recipe on a node, and may stop itself: it does what the lines of its stdin say.

    python recipe_application.py lock NAME LOCK_DELAY
    python recipe_application.py leadership NAME LOCK_DELAY
    python recipe_application.py replica NAME
    python recipe_application.py safe_group NAME

It says its pid once it has joined. With a lock or a leadership, it says "holds TOKEN" when a block begins, and "lost"
when that was lost. A line "work" makes it check the lease, say "works TOKEN", and say whether it may go on; with
"stop", it stops after the check. With the others, "stop" stops it, and "reach COUNT" makes it wait for so many commands
or messages, and say what its journal is then.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, suppress
from hashlib import blake2b

import trio

from triocoro.recipes import (
    Held,
    LeaseLostError,
    Missed,
    Token,
    open_leadership,
    open_lock,
    open_replica,
    open_safe_group,
)


class Journal:
    """A machine to replicate: how many commands there were, and a digest of all of them."""

    def __init__(self) -> None:
        self.count = 0
        self.digest = bytes(16)
        self.restores = 0

    def apply(self, command: bytes) -> bytes:
        self.count += 1
        self.digest = blake2b(self.digest + command, digest_size=16).digest()
        return b""

    def snapshot(self) -> Iterable[bytes]:
        return (self.digest + str(self.count).encode(),)

    def restore(self, chunks: Iterable[bytes]) -> None:
        data = b"".join(chunks)
        self.digest, self.count = data[:16], int(data[16:])
        self.restores += 1

    def __str__(self) -> str:
        return f"{self.count} {self.digest.hex()}"


def say(text: object) -> None:
    """Tell the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stop() -> None:
    """Stand still until SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


async def hold(holding: Callable[[], AbstractAsyncContextManager[Held]], lines: trio.MemoryReceiveChannel[str]) -> None:
    """Hold it again and again, and work when told to."""
    while True:  # noqa: ASYNC913 - `holding` waits
        with suppress(LeaseLostError):
            async with holding() as held:
                say(f"holds {told(held.token)}")
                async for line in lines:
                    held.check()
                    if line == "stop":
                        stop()
                    say(f"works {told(held.token)}")
                    say("may go on" if held.remaining() else "must not go on")
                return
        say("lost")


def told(token: Token) -> str:
    """A token, as it is told to the test."""
    return f"{token.epoch} {token.index}"


async def replicate(name: str, lines: trio.MemoryReceiveChannel[str]) -> None:
    """Apply commands, and say how far that is."""
    journal = Journal()
    async with open_replica(name, journal) as replica:
        say(os.getpid())
        async for line in lines:
            if line == "stop":
                stop()
            else:
                count = int(line.removeprefix("reach "))
                await replica.wait(lambda journal, count=count: journal.count >= count)  # type: ignore[misc]
                say(f"{journal} {journal.restores}")


async def receive(name: str, lines: trio.MemoryReceiveChannel[str]) -> None:
    """Receive messages, and say which."""
    journal = Journal()
    async with open_safe_group(name) as group:
        say(os.getpid())
        async for line in lines:
            if line == "stop":
                stop()
                continue
            while journal.count < int(line.removeprefix("reach ")):
                event = await group.receive()
                if isinstance(event, Missed):
                    say(event)
                else:
                    journal.apply(event.payload)
            say(journal)


async def read(lines: trio.MemorySendChannel[str]) -> None:
    """Read stdin, to its end."""
    async with lines:
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            await lines.send(line.strip())


async def main(recipe: str, name: str, *arguments: str) -> None:
    """Take part, until the end of stdin."""
    send, lines = trio.open_memory_channel[str](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, send)
        if recipe == "replica":
            await replicate(name, lines)
        elif recipe == "safe_group":
            await receive(name, lines)
        elif recipe == "lock":
            async with open_lock(name, lock_delay=float(arguments[0])) as lock:
                say(os.getpid())
                await hold(lock.hold, lines)
        else:
            async with open_leadership(name, lock_delay=float(arguments[0])) as leadership:
                say(os.getpid())
                await hold(leadership.lead, lines)


if __name__ == "__main__":
    _, chosen, group_name, *given = sys.argv
    trio.run(main, chosen, group_name, *given)
