"""A key-value store with a replica on each node of a cluster."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType

import trio

import triocoro


class Store:
    """A replica. Start `run` in a nursery."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._data: dict[str, str] = {}
        self._group: triocoro.Group | None = None
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
        """Write a value: to this replica, and to all others."""
        assert self._group is not None
        await self._group.send_and_wait(json.dumps([key, value]).encode())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be a replica, until cancelled."""
        async with triocoro.open_group(self._name) as self._group:
            task_status.started()
            async for event in self._group:
                if isinstance(event, triocoro.Message):
                    key, value = json.loads(event.payload)
                    self._data[key] = value
                    self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
