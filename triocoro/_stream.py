"""The bounded buffer between a connection's task and those who receive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Generic, TypeVar, final

import attrs
import trio

from . import _validate
from ._lifetime import Lifetime

T = TypeVar("T")

MAX_CHANGES_BYTES: Final = 4 * 2**20
"""For changes, which are few and small: whoever has this much waiting has stopped receiving."""

_EVENT_COST: Final = 256
"""Bytes that an event is taken to need beside its payload, so that a flood of empty ones is bounded too."""


def _no_payload(_: object) -> int:
    return 0


@attrs.frozen
class StreamStatistics:
    """What waits in a stream."""

    buffered_events: int
    """Events that wait to be received."""
    buffered_bytes: int
    """Their payloads, and 256 bytes for each."""
    max_buffered_bytes: int
    """The bound; beyond it the connection is cut."""
    tasks_waiting_receive: int
    """Tasks that wait in `receive` or `receive_batch`."""


@final
class EventStream(trio.abc.ReceiveChannel[T], Generic[T]):
    """What a connection's task records, for whoever receives; each event goes to one receiver.

    Objects of this class come from the services, such as `Votequorum.track`.
    """

    def __init__(
        self,
        lifetime: Lifetime,
        max_buffered_bytes: int,
        *,
        payload_bytes: Callable[[T], int] = _no_payload,
    ) -> None:
        self._lifetime = lifetime
        self._max_bytes = max_buffered_bytes
        self._payload_bytes = payload_bytes
        # Each event with the bytes that it counts for.
        self._buffer: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._overflow = False
        self._closed = False
        self._receivers = trio.lowlevel.ParkingLot()
        lifetime.add_waiters(self._receivers)
        self.on_receive: Callable[[T], None] | None = None
        self.ending = False
        """Whether nobody is obliged to receive any more: what does not fit is dropped, and cuts nothing."""

    def put(self, events: Iterable[T]) -> None:
        """Record events; what does not fit cuts the connection."""
        count = 0
        for event in events:
            if self._closed or self._overflow:
                return
            size = _EVENT_COST + self._payload_bytes(event)
            # One event may be larger than the bound: there is no other way to get it.
            if self._buffer and self._bytes + size > self._max_bytes:
                self._overflow = True
                if self.ending:
                    break
                self._lifetime.cut(
                    f"{len(self._buffer)} events ({self._bytes} bytes) waited to be received and the next one did not"
                    f" fit into max_buffered_bytes={self._max_bytes}; receive faster, or allow more"
                )
                break
            self._buffer.append((event, size))
            self._bytes += size
            count += 1
        if self._receivers:
            self._receivers.unpark(count=max(count, 1))

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> T:
        """Return the next event.

        Raises:
            trio.ClosedResourceError: the stream or its connection was closed by us.
            ConnectionLostError: the daemon died; events that had arrived before come first.
            SlowConsumerError: too much had waited; events that fitted come first.

        Cancelled: no event was taken.
        """
        return (await self.receive_batch(max_events=1))[0]

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, *, max_events: int = 256) -> list[T]:
        """Return what waits: at least one event, and at most `max_events`. Otherwise as `receive`."""
        _validate.positive(max_events, "max_events")
        await trio.lowlevel.checkpoint_if_cancelled()
        parked = False
        while True:
            self._lifetime.check_process()
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if not self._buffer or (self._lifetime.closed and not self._lifetime.lost):
                self._lifetime.check()
                await self._receivers.park()
                parked = True
                continue
            break
        events: list[T] = []
        for _ in range(min(max_events, len(self._buffer))):
            event, size = self._buffer.popleft()
            self._bytes -= size
            events.append(event)
            if self.on_receive is not None:
                self.on_receive(event)
        if not parked:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return events

    async def aclose(self) -> None:
        """Stop receiving; what waits is dropped. Tasks in `receive` get `trio.ClosedResourceError`."""
        self._lifetime.check_process()
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """As `aclose`, at once."""
        if self._closed:
            return
        self._closed = True
        self._lifetime.remove_waiters(self._receivers)
        self._buffer.clear()
        self._bytes = 0
        self._receivers.unpark_all()

    def statistics(self) -> StreamStatistics:
        """What waits now."""
        return StreamStatistics(
            buffered_events=len(self._buffer),
            buffered_bytes=self._bytes,
            max_buffered_bytes=self._max_bytes,
            tasks_waiting_receive=len(self._receivers),
        )
