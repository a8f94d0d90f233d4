"""A key-value store with a replica on each node of a cluster."""

import json
from collections.abc import Callable, Mapping
from itertools import count
from types import MappingProxyType

import trio

import triocoro


class Store:
    """A replica. Start `run` in a nursery."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._data: dict[str, str] = {}
        self._group: triocoro.Group | None = None
        self._numbers = count()
        self._results: dict[int, list[str]] = {}  # what comes of our writes
        self._changed = trio.Event()

    @property
    def data(self) -> Mapping[str, str]:
        """What this replica has."""
        return MappingProxyType(self._data)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds; it is looked at whenever something has changed here."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._changed.wait()

    async def set(self, key: str, value: str) -> None:
        """Write a value."""
        await self._write("set", key, value)

    async def setdefault(self, key: str, value: str) -> str:
        """Write a value if there is none, and return what there is: the same to all who ask."""
        return await self._write("setdefault", key, value)

    async def _write(self, *write: str) -> str:
        assert self._group is not None
        number, results = next(self._numbers), list[str]()
        self._results[number] = results
        try:
            await self._group.send_and_wait(json.dumps({"number": number, "write": write}).encode())
            await self.until(lambda: results)  # it has been delivered: `run` comes to it
            return results[0]
        finally:
            del self._results[number]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a replica, until cancelled."""
        async with triocoro.open_group(self._name) as self._group:
            task_status.started()
            async for event in self._group:
                if isinstance(event, triocoro.Message):
                    message = json.loads(event.payload)
                    result = self._apply(*message["write"])
                    if event.sender == self._group.address:
                        self._results.get(message["number"], []).append(result)
                    self._wake()

    def _apply(self, operation: str, key: str, value: str) -> str:
        if operation == "set":
            self._data[key] = value
        return self._data.setdefault(key, value)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
