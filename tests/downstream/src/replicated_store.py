"""A key-value store with a replica on each node of a cluster. The majority can write, everybody can read.

- A write is a message to a process group. All replicas get all messages in the same order, and apply them in it.
- A *view* is a ring of nodes together with the group's members on it. In each new view every replica sends its copy to
  all, and a member that has the copies of all members goes on with the newest one. That brings new members up to date,
  and makes one of the sides of a network that has been mended.
- A write counts in the view that it was sent in only, else it is sent again. Its sender had all copies of that view,
  so by then everybody has.
- Only a majority writes, and the copy with the latest write is the newest, so a majority's writes stay. (Corosync's
  order is agreed, not safe: a node that is cut off may take a last write of its own that the others never hear of.)

`python replicated_store.py NAME` is a replica that takes commands from standard input: `set KEY VALUE`, `get KEY` and
`show`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from types import MappingProxyType
from typing import Any

import trio

import triocoro
from triocoro import Address, ConfigChange, Message, MessageLost, QuorumChange, QuorumEvent, RingId


class NoQuorumError(Exception):
    """This replica is not with a majority, and must not write."""


@asynccontextmanager
async def open_both(name: str) -> AsyncGenerator[tuple[triocoro.Group, triocoro.EventStream[QuorumEvent]], None]:
    """Open what a replica needs: the group, and news of the quorum."""
    async with (
        triocoro.open_quorum() as quorum,
        quorum.track() as changes,
        triocoro.open_group(name, totem_changes=True) as group,
    ):
        yield group, changes


class Store:
    """A replica. Start `run` in a nursery; it goes on when its daemon dies and comes back."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._data: dict[str, str] = {}
        self._version = [0, 0]  # the ring of the last write, and the number of writes
        self._group: triocoro.Group | None = None
        self._quorum: QuorumChange | None = None
        self._ring: RingId | None = None
        self._members: tuple[Address, ...] = ()
        self._copies: dict[Address, dict[str, Any]] = {}
        self._in_sync = False
        self._numbers = count()
        self._results: dict[int, list[str | None]] = {}  # what comes of our writes: None where one did not count
        self._changed = trio.Event()

    @property
    def data(self) -> Mapping[str, str]:
        """What this replica has."""
        return MappingProxyType(self._data)

    @property
    def nodes(self) -> list[int]:
        """The nodes with a replica that this one is in touch with, its own included."""
        return [address.nodeid for address in self._members]

    @property
    def writable(self) -> bool | None:
        """Whether this replica may write; `None` while that is being settled."""
        if self._group is None:
            return False
        # The group and the quorum service tell of a change independently of each other.
        if self._quorum is None or self._quorum.ring_id != self._ring:
            return None
        return (self._in_sync or None) if self._quorum.quorate else False

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at whenever something has changed here."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    async def set(self, key: str, value: str) -> None:
        """Write a value. Raises `NoQuorumError`, or what `Group.send_and_wait` raises."""
        await self._write("set", key, value)

    async def setdefault(self, key: str, value: str) -> str:
        """Write a value if there is none, and return what there is: the same to all who ask. Otherwise as `set`."""
        return await self._write("setdefault", key, value)

    async def _write(self, *write: str) -> str:
        while True:
            await self.until(lambda: self.writable is not None)
            if not self.writable or (group := self._group) is None:
                raise NoQuorumError(f"{write[1]!r} cannot be written: this replica is with nodes {self.nodes} only")
            if (result := await self._try_to_write(group, write)) is not None:
                return result

    async def _try_to_write(self, group: triocoro.Group, write: tuple[str, ...]) -> str | None:
        number, results = next(self._numbers), list[str | None]()
        self._results[number] = results
        try:
            await group.send_and_wait(self._encode(number=number, write=write))
            # It has been delivered: `_replicate` comes to it, unless the daemon dies first.
            await self.until(lambda: results or self._group is not group)
            return results[0] if results else None
        finally:
            del self._results[number]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a replica, until cancelled. It has started once it is up to date."""
        async for session in triocoro.sessions(open_both, self._name):
            try:
                async with session as (self._group, changes), trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_quorum, changes)
                    nursery.start_soon(self._replicate, self._group)
                    await self.until(lambda: self._in_sync)
                    task_status.started()
                    task_status = trio.TASK_STATUS_IGNORED
            finally:  # the daemon is gone, or we are cancelled
                self._group = self._quorum = self._ring = None
                self._members, self._in_sync = (), False
                self._wake()

    async def _watch_quorum(self, changes: trio.abc.ReceiveChannel[QuorumEvent]) -> None:
        async for change in changes:
            if isinstance(change, QuorumChange):
                self._quorum = change
                self._wake()

    async def _replicate(self, group: triocoro.Group) -> None:
        async for event in group:
            if isinstance(event, Message):
                self._handle(event.sender, json.loads(event.payload), ours=event.sender == group.address)
            elif isinstance(event, MessageLost):
                if not self._in_sync:  # it was our copy; the tasks that wait for a write are told of its loss
                    await group.send(self._encode(version=self._version, data=self._data))
            else:
                if isinstance(event, ConfigChange):
                    self._members = event.members
                else:
                    self._ring = event.ring_id
                self._copies, self._in_sync = {}, False
                await group.send(self._encode(version=self._version, data=self._data))
            self._wake()

    @property
    def _view(self) -> str:
        return f"{self._ring} {self._members}"

    def _encode(self, **message: object) -> bytes:
        return json.dumps({"view": self._view, **message}).encode()

    def _handle(self, sender: Address, message: dict[str, Any], *, ours: bool) -> None:
        result = None
        if message["view"] == self._view:
            if "write" in message:
                result = self._apply(*message["write"])
            elif not self._in_sync:
                self._copies[sender] = message
                if self._copies.keys() == set(self._members):
                    newest = max(self._copies.values(), key=lambda copy: copy["version"])
                    self._version, self._data, self._in_sync = newest["version"], newest["data"], True
        if ours and "write" in message:
            self._results.get(message["number"], []).append(result)

    def _apply(self, operation: str, key: str, value: str) -> str:
        assert self._ring is not None
        self._version = [self._ring.seq, self._version[1] + 1]
        if operation == "set":
            self._data[key] = value
        return self._data.setdefault(key, value)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


async def obey(store: Store, commands: AsyncIterable[str], show: Callable[[object], object]) -> None:
    """Carry out commands from a user of the store."""
    async for command in commands:
        match command.strip().split(maxsplit=2):
            case ["set", key, value]:
                try:
                    await store.set(key, value)
                except NoQuorumError as exc:
                    show(exc)
            case ["get", key]:
                show(store.data.get(key))
            case ["show"]:
                show(f"{dict(store.data)} on nodes {store.nodes}, {'' if store.writable else 'not '}writable")
            case _:
                show("commands: set KEY VALUE, get KEY, show")


async def typed_lines() -> AsyncIterator[str]:
    """The lines of standard input. A thread reads them, so that the store goes on meanwhile."""
    while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        yield line


async def main(name: str) -> None:
    """Run a replica, with commands from standard input until that ends."""
    store = Store(name)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        await obey(store, typed_lines(), print)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    trio.run(main, sys.argv[1] if sys.argv[1:] else "settings")
