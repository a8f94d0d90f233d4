"""A daemon that misbehaves as told: it stands between the SDK and a real or fake endpoint, at the raw seam."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import trio

from triocoro import CmapMap, CorosyncError, Endpoint, ExistError
from triocoro._raw import MulticastStatus, RawCfg, RawCmap, RawCpg, RawQuorum, RawVotequorum


class Faults:
    """What the proxies do wrong; shared by all connections of a `FaultyEndpoint`."""

    def __init__(self) -> None:
        self.drop: Callable[[bytes], bool] = lambda _: False
        """Messages that are accepted and never delivered."""
        self.refuse: deque[MulticastStatus] = deque()
        """Each entry makes one multicast send nothing, and say so."""
        self.fragmented: deque[CorosyncError] = deque()
        """Each entry makes one fragmented multicast fail."""
        self.leaves: deque[CorosyncError] = deque()
        """Each entry makes one leave fail."""
        self.multicasts: list[int] = []
        """How many messages each crossing carried."""
        self.refused = trio.Event()
        """Set when a join was refused because of an earlier one."""
        self.on_refused: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
        """Called then, before the refusal is passed on."""
        self.held: list[Callable[[], None]] | None = None
        """If it is a list, closes wait in it until they are called."""


class _CpgProxy:
    def __init__(self, raw: RawCpg, faults: Faults) -> None:
        self._raw = raw
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        if self._faults.refuse:
            return 0, self._faults.refuse.popleft()
        kept = [payload for payload in payloads if not self._faults.drop(payload)]
        status = MulticastStatus.SENT
        sent = len(payloads)
        if kept:
            taken, status = self._raw.multicast(kept)
            if taken < len(kept):
                sent = payloads.index(kept[taken])
        self._faults.multicasts.append(sent)
        return sent, status

    async def join(self, group: bytes) -> None:
        try:
            await self._raw.join(group)
        except ExistError as exc:
            refusal = exc
        else:
            return
        self._faults.refused.set()
        await self._faults.on_refused()
        raise refusal

    async def leave(self, group: bytes) -> None:
        if self._faults.leaves:
            raise self._faults.leaves.popleft()
        await self._raw.leave(group)

    def close(self, *, leave: bool = False) -> None:
        if self._faults.held is None:
            self._raw.close(leave=leave)
        else:
            self._faults.held.append(lambda: self._raw.close(leave=leave))

    async def multicast_fragmented(self, payload: bytes) -> None:
        if self._faults.fragmented:
            raise self._faults.fragmented.popleft()
        await self._raw.multicast_fragmented(payload)


class FaultyEndpoint:
    """An endpoint whose CPG connections have the given faults."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.faults = Faults()

    @property
    def label(self) -> str:
        return self._endpoint.label

    @property
    def pid(self) -> int:
        return self._endpoint.pid

    async def connect_cpg(self, *, initial_totem_conf: bool = False) -> RawCpg:
        raw = await self._endpoint.connect_cpg(initial_totem_conf=initial_totem_conf)
        return cast("RawCpg", _CpgProxy(raw, self.faults))

    async def connect_votequorum(self, *, extra_info: bool = False) -> RawVotequorum:
        return await self._endpoint.connect_votequorum(extra_info=extra_info)

    async def connect_quorum(self) -> RawQuorum:
        return await self._endpoint.connect_quorum()

    async def connect_cmap(self, map: CmapMap) -> RawCmap:  # noqa: A002 - the protocol's name
        return await self._endpoint.connect_cmap(map)

    async def connect_cfg(self) -> RawCfg:
        return await self._endpoint.connect_cfg()
