"""The bounded buffer between the task that dispatches a connection and the tasks that receive."""

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
"""The bound for changes, which are few and small: a receiver that has so much waiting has stopped receiving."""

_EVENT_COST: Final = 256
"""Bytes that each event counts for beside its payload, so that a flood of empty messages is bounded too."""


def _no_payload(_: object) -> int:
    return 0


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
        """Whether receivers may have stopped because the stream ends. Events that do not fit are then dropped."""

    def put(self, events: Iterable[T]) -> None:
        """Buffer events. The first event that does not fit cuts the connection."""
        count = 0
        for event in events:
            if self._closed or self._overflow:
                return
            size = _EVENT_COST + self._payload_bytes(event)
            # A single event may be larger than the bound, as it could not be received otherwise.
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
        """Wait for the next event and return it.

        Raises:
            trio.ClosedResourceError: the stream or its connection was closed by this program.
            ConnectionLostError: the daemon died. Events that had arrived before are returned first.
            SlowConsumerError: events exceeded `StreamStatistics.max_buffered_bytes`. Those that fitted are returned
                first.

        Cancelled: no event was taken.
        """
        return (await self.receive_batch(max_events=1))[0]

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
        """Stop receiving and drop the buffered events. Tasks in `receive` get `trio.ClosedResourceError`."""
        self._lifetime.check_process()
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Like `aclose`, without a checkpoint."""
        if self._closed:
            return
        self._closed = True
        self._lifetime.remove_waiters(self._receivers)
        self._buffer.clear()
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
