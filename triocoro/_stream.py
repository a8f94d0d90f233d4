"""The bounded buffer between the task that dispatches a connection and the tasks that receive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar, final

import attrs
import trio

from . import _validate
from ._lifetime import Lifetime

T = TypeVar("T")

MAX_CHANGES_BYTES: Final = 4 * 2**20
"""The bound for changes, which are few and small: a receiver that has so much waiting has stopped receiving."""

_BACKLOG: Final = 2**20
"""Bytes that may wait to be received, or half of the stream's bound if that is less, before our own sends wait."""

_BACKLOG_EVENTS: Final = 256
"""Events that may wait to be received before our own sends wait."""

EVENT_COST: Final = 256
"""Bytes that each event counts for beside its payload, so that a flood of empty messages is bounded too."""


@attrs.frozen
class StreamStatistics:
    """The state of a stream's buffer."""

    buffered_events: int
    """The number of events that wait to be received."""
    buffered_bytes: int
    """The bytes that these events count for: their payloads, and 256 bytes for each event."""
    max_buffered_bytes: int
    """The bound of `buffered_bytes`. An event that exceeds it ends the connection with `SlowConsumerError`."""
    tasks_waiting_receive: int
    """The number of tasks that wait in `receive` or `receive_batch`."""


@final
class EventStream(trio.abc.ReceiveChannel[T], Generic[T]):
    """A stream of events, to receive from. Several tasks may receive; each event goes to one of them.

    Objects of this class come from the methods that track changes, such as `Votequorum.track`.
    """

    def __init__(self, lifetime: Lifetime, max_buffered_bytes: int) -> None:
        self._lifetime = lifetime
        self._max_bytes = max_buffered_bytes
        self._backlog = min(_BACKLOG, max_buffered_bytes // 2)
        self._buffer: deque[T] = deque()
        self._sizes: deque[int] = deque()  # of the payload of each event in the buffer
        self._bytes = 0
        self._held = 0  # bytes that events count for which wait elsewhere
        self._overflow = False
        self._closed = False
        self._receivers = trio.lowlevel.ParkingLot()
        lifetime.add_waiters(self._receivers)
        self.on_receive: Callable[[Sequence[T]], None] | None = None
        self.ending = False
        """Whether receivers may have stopped because the stream ends. Events that do not fit are then dropped."""
        self.receives: int = 0
        """How often a task has received."""
        self.drained: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        """Unparked when a task has received, and half of what our own sends may have waiting has been received."""
        lifetime.add_waiters(self.drained)

    def put(self, events: Sequence[T], sizes: Sequence[int] | None = None) -> None:
        """Buffer events. The first event that does not fit cuts the connection.

        Args:
            events: the events.
            sizes: for each event the bytes of its payload; by default 0.
        """
        if self._closed or self._overflow:
            return
        if sizes is None:
            sizes = [0] * len(events)
        total = sum(sizes) + EVENT_COST * len(events)
        if self._bytes + self._held + total <= self._max_bytes:
            self._buffer.extend(events)
            self._sizes.extend(sizes)
            self._bytes += total
        else:
            self._put_fitting(events, sizes)
        if self._receivers:
            self._receivers.unpark(count=max(len(events), 1))

    def _put_fitting(self, events: Sequence[T], sizes: Sequence[int]) -> None:
        for event, size in zip(events, sizes, strict=True):
            # A single event may be larger than the bound, as it could not be received otherwise.
            if self._buffer and self._bytes + self._held + size + EVENT_COST > self._max_bytes:
                self._cut()
                break
            self._buffer.append(event)
            self._sizes.append(size)
            self._bytes += size + EVENT_COST

    def hold(self, count: int, size: int) -> None:
        """Note that events wait elsewhere until they can be put. If they do not fit, the connection is cut.

        Args:
            count: how many events.
            size: the bytes that they count for.
        """
        self._held = size
        if count + len(self._buffer) > 1 and self._bytes + size > self._max_bytes and not self._overflow:
            self._cut()

    def _cut(self) -> None:
        self._overflow = True
        if not self.ending:
            self._lifetime.cut(
                f"{len(self._buffer)} events ({self._bytes + self._held} bytes) waited to be received and the next one"
                f" did not fit into max_buffered_bytes={self._max_bytes}; receive faster, or allow more"
            )

    @property
    def empty(self) -> bool:
        """Whether no event waits to be received."""
        return not self._buffer

    def filling(self, coming: int) -> bool:
        """Whether our own sends should wait for receivers, once `coming` more bytes have arrived."""
        return self._bytes + self._held + coming > self._backlog or len(self._buffer) > _BACKLOG_EVENTS

    @property
    def fullness(self) -> float:
        """How much of the first half of the bound is in use: 0 to 1."""
        return min(1.0, self._bytes / max(self._max_bytes // 2, 1))

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> T:
        """Wait for the next event and return it.

        Raises:
            trio.ClosedResourceError: the stream or its connection was closed by this program.
            ConnectionLostError: the daemon died. Events that had arrived before are returned first.
            SlowConsumerError: events exceeded `StreamStatistics.max_buffered_bytes`. Those that fitted are returned
                first.

        Cancelled: no event was taken.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        parked = False
        if not (self._buffer and self._lifetime.usable):
            parked = await self._wait_for_events()
        event = self._buffer.popleft()
        self._bytes -= self._sizes.popleft() + EVENT_COST
        self._note_received((event,))
        if not parked:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return event

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, *, max_events: int = 256) -> list[T]:
        """Wait for events and return all that have arrived.

        Args:
            max_events: the most events to return.

        Returns:
            at least one event, oldest first.

        Raises: as `receive`.

        Cancelled: no event was taken.
        """
        _validate.positive(max_events, "max_events")
        await trio.lowlevel.checkpoint_if_cancelled()
        parked = False
        if not (self._buffer and self._lifetime.usable):
            parked = await self._wait_for_events()
        buffer, sizes = self._buffer, self._sizes
        if max_events >= len(buffer):
            events = list(buffer)
            buffer.clear()
            sizes.clear()
            self._bytes = 0
        else:
            events = [buffer.popleft() for _ in range(max_events)]
            self._bytes -= sum([sizes.popleft() for _ in range(max_events)]) + EVENT_COST * max_events
        self._note_received(events)
        if not parked:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return events

    async def _wait_for_events(self) -> bool:  # noqa: ASYNC910 - the callers have been checkpoints
        """Wait until events can be taken from the buffer; whether that took a checkpoint."""
        parked = False
        self._lifetime.enter()
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed")
            if self._buffer and (self._lifetime.lost or not self._lifetime.closed):
                return parked  # noqa: ASYNC910
            self._lifetime.check()
            await self._receivers.park()
            parked = True

    def _note_received(self, events: Sequence[T]) -> None:
        if self.on_receive is not None:
            self.on_receive(events)
        self.receives += 1
        if self.drained and self._bytes <= self._backlog // 2 and len(self._buffer) <= _BACKLOG_EVENTS // 2:
            self.drained.unpark_all()

    async def aclose(self) -> None:
        """Stop receiving and drop the buffered events. Tasks in `receive` get `trio.ClosedResourceError`.

        Cancelled: the stream is closed nevertheless.
        """
        self._lifetime.enter()
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Like `aclose`, without a checkpoint."""
        if self._closed:
            return
        self._closed = True
        self._lifetime.remove_waiters(self._receivers)
        self._lifetime.remove_waiters(self.drained)
        self._buffer.clear()
        self._sizes.clear()
        self._bytes = 0
        self._receivers.unpark_all()

    def statistics(self) -> StreamStatistics:
        """Return the state of the buffer."""
        return StreamStatistics(
            buffered_events=len(self._buffer),
            buffered_bytes=self._bytes,
            max_buffered_bytes=self._max_bytes,
            tasks_waiting_receive=len(self._receivers),
        )
