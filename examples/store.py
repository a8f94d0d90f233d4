"""A key-value store with a replica on each node of a cluster: what a client was told to be written, stays written.

    python examples/store.py [NAME]

takes commands from standard input: `set KEY VALUE`, `get KEY`, `peek KEY` and `show`. A write is acknowledged once a
majority of the nodes has it, `get` returns the latest value, and `peek` what this replica has, which may be older.

What this cannot do: the copies are in memory. If a majority of the nodes loses its memory at the same time, no replica
accepts writes until an operator calls `triocoro.recipes.bootstrap`, and what only those nodes had is gone.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

import trio

from triocoro.recipes import NotPrimaryError, Replica, UncertainError, open_replica


class Data:
    """The replicated state."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def apply(self, command: bytes) -> bytes:
        """Set a value, and return the one before it, as JSON."""
        key, value = json.loads(command)
        before, self.values[key] = self.values.get(key), value
        return json.dumps(before).encode()

    def snapshot(self) -> Iterable[bytes]:
        """Return the state for another replica."""
        return [json.dumps(self.values).encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Take the state of another replica."""
        self.values = json.loads(b"".join(chunks))


async def put(replica: Replica[Data], key: str, value: str) -> str | None:
    """Set a value, and return the one before it. Wait for a majority if there is none."""
    before: str | None = json.loads(await replica.ensure(json.dumps([key, value]).encode()))
    return before


async def obey(replica: Replica[Data], commands: AsyncIterable[str], show: Callable[[object], object]) -> None:
    """Carry out the commands of a user of the store."""
    async for command in commands:
        try:
            match command.strip().split(maxsplit=2):
                case ["set", key, value]:
                    show(f"{key} was {await put(replica, key, value)}")
                case ["get", key]:
                    show(await replica.read(lambda data: data.values.get(key)))
                case ["peek", key]:
                    show(replica.machine.values.get(key))
                case ["show"]:
                    show(f"{replica.machine.values}, {'' if replica.primary else 'not '}writable")
                case _:
                    show("commands: set KEY VALUE, get KEY, peek KEY, show")
        except (NotPrimaryError, UncertainError) as exc:
            show(exc)


async def typed_lines() -> AsyncIterator[str]:
    """The lines of standard input. A thread reads them, so that the replica goes on meanwhile."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        yield line


async def main(name: str) -> None:
    """Run a replica, with commands from standard input until that ends."""
    async with open_replica(name, Data()) as replica:
        await obey(replica, typed_lines(), print)


if __name__ == "__main__":
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    trio.run(main, sys.argv[1] if sys.argv[1:] else "store")
