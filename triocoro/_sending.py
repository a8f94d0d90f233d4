"""Sending to a group: one sender at a time, under flow control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import trio

from . import _log
from ._backoff import Backoff
from ._connection import Connection
from ._errors import CorosyncError, InterruptedSendError, InterruptError, LibraryError
from ._outstanding import Outstanding, OwnMessage, lost_error
from ._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from ._stream import EVENT_COST, EventStream
from ._types import CpgEvent, Message

_STALL: Final = 1.0
"""Seconds without receives after which messages may go although our own stream is filling up; less if less than half of
its bound is in use."""


@final
class Sender:
    """The sending half of a group.

    Args:
        connection: the connection.
        raw: its handle.
        stream: the stream of the same group. While it is filling up, sending waits for its receivers.
        outstanding: where to note what was sent.
        about: for the log, the group.
    """

    def __init__(
        self,
        connection: Connection[CpgEvent],
        raw: RawCpg,
        stream: EventStream[Any],
        outstanding: Outstanding,
        about: Mapping[str, object],
    ) -> None:
        self._lifetime = connection.lifetime
        self._requests = connection.requests
        self._dispatched = connection.dispatched
        self._raw = raw
        self._lane = raw.lane
        self._max_atomic_size = raw.max_atomic_message_size
        self._stream = stream
        # Held by the task that sends, so that senders take turns in the order in which they came.
        self._turn = trio.StrictFIFOLock()
        self._backoff = Backoff.of_multicast()
        self._outstanding = outstanding
        self._window = outstanding.window
        self._lifetime.add_waiters(outstanding.room)
        # How often the stream had been received from when its receivers were found to make no progress.
        self._stuck_at = -1
        self._about = about
        # Since when the task that has the turn has been held up; `None` if it has not.
        self._held_up: float | None = None
        self.leaving: bool = False
        """Whether the group is being left: nothing more can be sent."""

    @property
    def tasks_waiting(self) -> int:
        """How many tasks wait for their turn to send."""
        return self._turn.statistics().tasks_waiting

    # -- sending -------------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def send(self, payload: bytes) -> None:
        """Send one message, waiting under flow control."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if await self._send_now(payload, payload):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self.send_batch((payload,))

    @trio.lowlevel.enable_ki_protection
    async def send_batch(self, payloads: Sequence[bytes]) -> None:
        """Send messages in order, waiting under flow control; as many as possible with each crossing into C."""
        await self._take_turn()
        try:
            await self._send(payloads)
        finally:
            self._turn.release()
        await trio.lowlevel.cancel_shielded_checkpoint()

    @trio.lowlevel.enable_ki_protection
    async def send_and_wait(self, payload: bytes) -> Message:
        """Send one message and wait until it is delivered back to us.

        Raises:
            MessageLostError: the daemon dropped it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        own = OwnMessage(payload, caller=trio.lowlevel.ParkingLot())
        if not await self._send_now(payload, own):
            await self._take_turn()
            try:
                await self._send_awaited(own)
            finally:
                self._turn.release()
        await self._wait_until_settled(own)
        if own.delivery is None:
            raise lost_error([own.payload])
        return own.delivery

    async def _wait_until_settled(self, own: OwnMessage) -> None:
        if own.settled or own.caller is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        lot = own.caller
        self._lifetime.add_waiters(lot)
        try:
            await lot.park()
        finally:
            self._lifetime.remove_waiters(lot)
            if not own.settled:
                self._outstanding.give_up(own)
        if not own.settled:
            self._lifetime.check()

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, payload: bytes | None) -> None:
        """Send one message, or raise `trio.WouldBlock`, as for one that is too large to be gathered: `None`."""
        if payload is None:
            self._check()
            raise trio.WouldBlock
        try:
            sent = self._try_now(payload, payload)
        except LibraryError as exc:
            self._lifetime.lose(exc)
            raise self._lifetime.loss() from exc
        if not sent:
            raise trio.WouldBlock

    async def _send_now(self, payload: bytes, entry: bytes | OwnMessage) -> bool:  # noqa: ASYNC910 - it never waits
        """Like `_try_now`, but if the connection breaks, a cancellation of the block comes first."""
        self._lifetime.enter()
        try:
            return self._try_now(payload, entry)  # noqa: ASYNC910
        except LibraryError as exc:
            await self._lifetime.fail(exc)

    def _try_now(self, payload: bytes, entry: bytes | OwnMessage) -> bool:
        """Send one message if nothing stands in its way, and remember it as `entry`; whether it was sent."""
        self._check()
        size = len(payload)
        if (
            self._turn.locked()
            or self._lane.borrowed_tokens
            or size > self._max_atomic_size
            or not self._window.fits(size)
            or self._filling_up(1, size)
            or not self._cross((payload,))[0]
        ):
            return False
        self._outstanding.add_one(entry, size)
        return True

    def _cross(self, burst: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Cross into C once. The caller remembers what was sent."""
        sent, status = self._raw.multicast(burst)
        if sent:
            self._backoff.reset()
        if status is MulticastStatus.TRY_AGAIN:
            self._window.narrow()
        return sent, status

    async def _take_turn(self) -> None:  # noqa: ASYNC910 - the callers are checkpoints
        """Acquire the turn to send; without waiting if no other task has it."""
        self._lifetime.enter()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._check()
        if self._turn.locked():
            await self._turn.acquire()
        else:
            self._turn.acquire_nowait()

    async def _check_async(self) -> None:
        await self._lifetime.check_async()
        self._check()

    def _check(self) -> None:
        self._lifetime.check()
        if self.leaving:
            raise trio.ClosedResourceError("this group is being left")

    async def _send(self, payloads: Sequence[bytes]) -> None:  # noqa: ASYNC910 - the caller is a checkpoint
        """Send messages; the caller has the turn. There is no checkpoint after the last one was sent."""
        done = 0
        try:
            while done < len(payloads):
                await self._check_async()
                if len(payloads[done]) > self._max_atomic_size:
                    await self._send_fragmented(OwnMessage(payloads[done]))
                    done += 1
                    continue
                burst = self._fitting(payloads, done) or await self._wait_for_room(payloads, done)
                sent, status = await self._multicast(burst)
                done += sent
                if done < len(payloads):
                    await self._pause(status)
        finally:
            self._note_resumed()

    async def _send_awaited(self, own: OwnMessage) -> None:  # noqa: ASYNC910 - the caller is a checkpoint
        """Send one message that is awaited; the caller has the turn."""
        await self._check_async()
        if len(own.payload) > self._max_atomic_size:
            await self._send_fragmented(own)
        else:
            await self._send((own.payload,))
            self._outstanding.await_last(own)

    def _fitting(self, payloads: Sequence[bytes], start: int) -> Sequence[bytes]:
        """The messages from `start` on that can be sent now: they fit into the window, and into our own stream."""
        largest = self._max_atomic_size
        burst = payloads[start : start + MULTICAST_BURST]
        burst = burst[: self._window.fitting(burst)]
        if any(map(largest.__lt__, map(len, burst))):
            burst = burst[: next(index for index, payload in enumerate(burst) if len(payload) > largest)]
        while burst and self._filling_up(len(burst), sum(map(len, burst))):
            burst = burst[: len(burst) // 2]
        return burst

    def _filling_up(self, count: int, size: int) -> bool:
        """Whether our own stream is filling up, and `count` messages of `size` bytes must wait for its receivers."""
        stream = self._stream
        under_way = len(self._outstanding)
        if not stream.filling(self._window.occupied + size + EVENT_COST * (under_way + count)):
            return False
        if count == 1 and stream.empty and not under_way:
            return False  # it could not be sent otherwise
        return self._stuck_at != stream.receives

    async def _wait_for_room(self, payloads: Sequence[bytes], start: int) -> Sequence[bytes]:  # noqa: ASYNC910
        """Wait until some of the messages from `start` on can be sent, and return these."""
        while not (burst := self._fitting(payloads, start)):
            first = payloads[start : start + 1]
            if self._window.fitting(first) and not self._stream.empty:
                self._note_held_up("receivers")
                receives = self._stream.receives
                # The more waits to be received, the longer receivers are given.
                unparked = await self._wait_briefly(self._stream.drained, _STALL * self._stream.fullness)
                if not unparked and receives == self._stream.receives:
                    self._stuck_at = receives
            else:
                # What is under way must come back first; until then, receivers may have nothing to take.
                self._note_held_up("window")
                await self._outstanding.room.park()
            await self._check_async()
        return burst  # noqa: ASYNC910

    def _note_held_up(self, reason: str) -> None:
        """Note that the task that has the turn is held up by flow control: by our window, receivers, or the daemon."""
        if self._held_up is None:
            self._held_up = trio.current_time()
            _log.note(
                _log.GROUP, "flow_control", self._about, "sending is held up by flow control: %s", reason, reason=reason
            )

    def _note_resumed(self) -> None:
        """Note that the task that has the turn is not held up any more, if it was."""
        if self._held_up is not None:
            seconds = trio.current_time() - self._held_up
            self._held_up = None
            text = "sending was held up by flow control for %.3f s"
            _log.note(_log.GROUP, "flow_control_over", self._about, text, seconds, seconds=seconds)

    async def _wait_briefly(self, lot: trio.lowlevel.ParkingLot, seconds: float) -> bool:
        """Park for at most that long; whether another task has unparked us."""
        with trio.move_on_after(seconds) as scope:
            await lot.park()
        return not scope.cancelled_caught

    async def _multicast(self, burst: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Cross into C once, as soon as the lane is free, and remember what was sent."""
        if self._lane.borrowed_tokens:
            async with self._requests.lane():
                self._check()
                return await self._multicast_now(burst)
        return await self._multicast_now(burst)

    async def _multicast_now(self, burst: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        try:
            sent, status = self._cross(burst)
        except LibraryError as exc:
            await self._lifetime.fail(exc)
        if sent:
            self._outstanding.add(burst if sent == len(burst) else burst[:sent])
        return sent, status  # noqa: ASYNC910 - a checkpoint here could forget what was sent

    async def _pause(self, status: MulticastStatus) -> None:
        """Wait until it makes sense to go on after a burst."""
        if status is not MulticastStatus.SENT:
            self._note_held_up("daemon")
        if status is MulticastStatus.FULL:
            await self._lifetime.wait_writable()
        elif status is MulticastStatus.TRY_AGAIN:
            # Deliveries end the pause early: the daemon is making progress.
            with trio.move_on_after(self._backoff.next_pause()):
                await self._dispatched.park()
        else:
            await trio.lowlevel.checkpoint()

    async def _send_fragmented(self, own: OwnMessage) -> None:
        """Send a message above the atomic size, alone. The library fragments it, with a round trip for each piece."""
        await self._wait_until_alone()
        payload = own.payload
        own.certain = False
        # Remembered first: its delivery may be dispatched before the last round trip has returned.
        self._outstanding.add_one(own, len(payload))
        try:
            await self._requests.run(lambda: self._raw.multicast_fragmented(payload))
        except (trio.Cancelled, KeyboardInterrupt):
            self._outstanding.abandon(own)
            raise
        except InterruptError as exc:
            self._outstanding.forget(own)
            raise InterruptedSendError(
                f"a membership change interrupted a message of {len(payload)} bytes, and no member receives it;"
                f" send it again (up to {self._raw.max_atomic_message_size} bytes this cannot happen)",
                function=exc.function,
            ) from None
        except CorosyncError:
            self._outstanding.forget(own)
            raise
        own.certain = True

    async def _wait_until_alone(self) -> None:  # noqa: ASYNC910 - the caller has been a checkpoint
        """Wait until nothing of ours is on its way."""
        while self._window.occupied:
            await self._outstanding.room.park()
            await self._check_async()
