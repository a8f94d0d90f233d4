"""A daemon that misbehaves as told: it stands between the SDK and a real or fake endpoint, at the raw seam."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import trio

from triocoro import CorosyncError, Endpoint, ExistError
from triocoro._raw import MulticastStatus, RawCpg
from triocoro._services import CpgSpec, ServiceSpec
from triocoro._types import CpgEvent
from triocoro.testing._history.recording import EndpointWrapper

RawT = TypeVar("RawT")


class Faults:
    """What the proxies do wrong; shared by all connections of a `FaultyEndpoint`."""

    def __init__(self) -> None:
        self.drop: Callable[[bytes], bool] = lambda _: False
        """Messages that are accepted and never delivered."""
        self.refuse: deque[MulticastStatus] = deque()
        """Each entry makes one multicast send nothing, and say so."""
        self.fragmented: deque[CorosyncError] = deque()
        """Each entry makes one fragmented multicast fail."""
        self.dispatch: CorosyncError | None = None
        """What each dispatch raises, if anything."""
        self.connects: deque[Exception] = deque()
        """Each entry makes one connect fail."""
        self.connected = 0
        """How many connects there have been."""
        self.joins: Callable[[], CorosyncError | None] = lambda: None
        """Makes a join fail, if it returns an error."""
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

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[CpgEvent]]:
        if self._faults.dispatch is not None:
            raise self._faults.dispatch
        return self._raw.dispatch(max_events, max_bytes)

    async def join(self, group: bytes) -> None:
        failure = self._faults.joins()
        if failure is not None:
            raise failure
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

    def close(self, *, leave: bool = False, reason: str = "") -> None:
        if self._faults.held is None:
            self._raw.close(leave=leave, reason=reason)
        else:
            self._faults.held.append(lambda: self._raw.close(leave=leave, reason=reason))

    async def multicast_fragmented(self, payload: bytes) -> None:
        if self._faults.fragmented:
            raise self._faults.fragmented.popleft()
        await self._raw.multicast_fragmented(payload)


class FaultyEndpoint(EndpointWrapper):
    """An endpoint whose CPG connections have the given faults."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.faults = Faults()

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        if self.faults.connects:
            raise self.faults.connects.popleft()
        self.faults.connected += 1
        raw = await self._endpoint.connect(service)
        return cast("RawT", _CpgProxy(cast("RawCpg", raw), self.faults) if isinstance(service, CpgSpec) else raw)
