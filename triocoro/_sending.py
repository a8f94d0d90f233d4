"""Sending to a group: one sender at a time, and a record of the messages that have not been delivered back yet.

The daemon accepts a message without promising anything: under pressure it drops some, and only logs it. But it delivers
our own messages back to us in the order in which we sent them. So a queue of what was sent, compared with each own
delivery, shows every loss that is followed by a later delivery, or by our own leave, which is ordered behind all our
messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import attrs
import trio

from ._backoff import Backoff
from ._connection import Connection
from ._errors import CorosyncError, InterruptedSendError, InterruptError, LibraryError, MessageLostError
from ._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from ._stream import EVENT_COST, EventStream
from ._types import CpgEvent, GroupEvent, Message
from ._window import OVERHEAD, SendWindow, cost

_STALL: Final = 1.0
"""Seconds without progress after which sending goes on. Without own deliveries, one more message may go although the
window is full: if all messages in it were lost, only a later one can show that, and open the window again. Without
receives, messages may go although our own stream is filling up, and sooner if less than half of its bound is in use."""


@attrs.define(eq=False)
class OwnMessage:
    """An outstanding message of ours that needs more memory than its payload: one awaited, or one fragmented."""

    payload: bytes
    certain: bool = True
    """False while a fragmented send is in progress or was cancelled."""
    abandoned: bool = False
    """Whether its send was cancelled. It may be delivered or not, and occupies nothing of the window."""
    settled: bool = False
    """Whether it was delivered, or is known to be lost."""
    delivery: Message | None = None
    """The delivered message; `None` until then, or if it was lost."""
    waiters: trio.lowlevel.ParkingLot | None = None
    """Unparked once it is settled, if it was sent with `send_and_wait`."""

    @property
    def cost(self) -> int:
        """What it occupies of the window."""
        return 0 if self.abandoned else cost((self.payload,))

    def settle(self, delivery: Message | None) -> None:
        """Note that it was delivered, or is lost."""
        self.settled = True
        self.delivery = delivery
        if self.waiters is not None:
            self.waiters.unpark_all()


@final
class Sender:
    """The sending half of a group.

    Args:
        connection: the connection.
        raw: its handle.
        stream: the stream of the same group. While it is filling up, sending waits for its receivers.
    """

    def __init__(self, connection: Connection[CpgEvent], raw: RawCpg, stream: EventStream[GroupEvent]) -> None:
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
        # In the order of sending; of most messages nothing but the payload.
        self._outstanding: list[bytes | OwnMessage] = []
        self.window: SendWindow = SendWindow()
        self._room = trio.lowlevel.ParkingLot()
        self._lifetime.add_waiters(self._room)
        # How often the stream had been received from when its receivers were found to make no progress.
        self._stuck_at = -1
        self.sent: int = 0
        self.confirmed: int = 0
        self.lost: int = 0
        self.leaving: bool = False
        """Whether the group is being left: nothing more can be sent."""

    @property
    def outstanding(self) -> int:
        """How many messages have been sent and not been delivered back yet."""
        return sum(isinstance(own, bytes) or own.certain for own in self._outstanding)

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
        own = OwnMessage(payload, waiters=trio.lowlevel.ParkingLot())
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
        if own.settled or own.waiters is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        self._lifetime.add_waiters(own.waiters)
        try:
            await own.waiters.park()
        finally:
            self._lifetime.remove_waiters(own.waiters)
        if not own.settled:
            self._lifetime.check()

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, payload: bytes) -> None:
        """Send one message, or raise `trio.WouldBlock`."""
        try:
            sent = self._try_now(payload, payload)
        except LibraryError as exc:
            self._lifetime.lose(exc)
            raise self._lifetime.loss() from exc
        if not sent:
            raise trio.WouldBlock

    async def _send_now(self, payload: bytes, entry: bytes | OwnMessage) -> bool:  # noqa: ASYNC910 - it never waits
        """Like `_try_now`, but if the connection breaks, a cancellation of the block comes first."""
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
            or not self.window.fits(size)
            or self._filling_up(1, size)
            or not self._cross((payload,))[0]
        ):
            return False
        self._outstanding.append(entry)
        self.window.add(1, size + OVERHEAD)
        self.sent += 1
        return True

    def _cross(self, burst: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Cross into C once. The caller remembers what was sent."""
        sent, status = self._raw.multicast(burst)
        if sent:
            self._backoff.reset()
        if status is MulticastStatus.TRY_AGAIN:
            self.window.narrow()
        return sent, status

    async def _take_turn(self) -> None:  # noqa: ASYNC910 - the callers are checkpoints
        """Acquire the turn to send; without waiting if no other task has it."""
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

    async def _send_awaited(self, own: OwnMessage) -> None:  # noqa: ASYNC910 - the caller is a checkpoint
        """Send one message that is awaited; the caller has the turn."""
        await self._check_async()
        if len(own.payload) > self._max_atomic_size:
            await self._send_fragmented(own)
        else:
            await self._send((own.payload,))
            self._outstanding[-1] = own

    def _fitting(self, payloads: Sequence[bytes], start: int) -> Sequence[bytes]:
        """The messages from `start` on that can be sent now: they fit into the window, and into our own stream."""
        largest = self._max_atomic_size
        burst = payloads[start : start + MULTICAST_BURST]
        burst = burst[: self.window.fitting(burst)]
        if any(map(largest.__lt__, map(len, burst))):
            burst = burst[: next(index for index, payload in enumerate(burst) if len(payload) > largest)]
        while burst and self._filling_up(len(burst), sum(map(len, burst))):
            burst = burst[: len(burst) // 2]
        return burst

    def _filling_up(self, count: int, size: int) -> bool:
        """Whether our own stream is filling up, and `count` messages of `size` bytes must wait for its receivers."""
        stream = self._stream
        under_way = len(self._outstanding)
        if not stream.filling(self.window.occupied + size + EVENT_COST * (under_way + count)):
            return False
        if count == 1 and stream.empty and not under_way:
            return False  # it could not be sent otherwise
        return self._stuck_at != stream.receives

    async def _wait_for_room(self, payloads: Sequence[bytes], start: int) -> Sequence[bytes]:  # noqa: ASYNC910
        """Wait until some of the messages from `start` on can be sent, and return these."""
        while not (burst := self._fitting(payloads, start)):
            first = payloads[start : start + 1]
            if self.window.fitting(first):
                receives = self._stream.receives
                # The more waits to be received, the longer receivers are given.
                unparked = await self._wait_briefly(self._stream.drained, _STALL * self._stream.fullness)
                if not unparked and receives == self._stream.receives:
                    self._stuck_at = receives
            elif not await self._wait_briefly(self._room):
                burst = first
                break
            await self._check_async()
        return burst  # noqa: ASYNC910

    async def _wait_briefly(self, lot: trio.lowlevel.ParkingLot, seconds: float = _STALL) -> bool:
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
            self._remember(burst if sent == len(burst) else burst[:sent])
        return sent, status  # noqa: ASYNC910 - a checkpoint here could forget what was sent

    async def _pause(self, status: MulticastStatus) -> None:
        """Wait until it makes sense to go on after a burst."""
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
        self._outstanding.append(own)
        self.window.add(1, own.cost)
        self.sent += 1
        try:
            await self._requests.run(lambda: self._raw.multicast_fragmented(payload))
        except (trio.Cancelled, KeyboardInterrupt):
            self.window.remove(0, own.cost)
            own.abandoned = True
            raise
        except InterruptError as exc:
            self._forget(own)
            raise InterruptedSendError(
                f"a membership change interrupted a message of {len(payload)} bytes, and no member receives it;"
                f" send it again (up to {self._raw.max_atomic_message_size} bytes this cannot happen)",
                function=exc.function,
            ) from None
        except CorosyncError:
            self._forget(own)
            raise
        own.certain = True

    async def _wait_until_alone(self) -> None:  # noqa: ASYNC910 - the caller has been a checkpoint
        """Wait until nothing of ours is on its way, or until nothing has come back for too long."""
        while self.window.occupied:
            if not await self._wait_briefly(self._room):
                return
            await self._check_async()

    # -- what becomes of what was sent ---------------------------------------------------------------------------------

    def _remember(self, payloads: Sequence[bytes]) -> None:
        self._outstanding += payloads
        self.window.add(len(payloads), cost(payloads))
        self.sent += len(payloads)

    def _forget(self, own: OwnMessage) -> None:
        if own in self._outstanding:
            self._outstanding.remove(own)
            self.window.remove(1, own.cost)
            self.sent -= 1

    def on_expected_deliveries(self, payloads: Sequence[bytes]) -> bool:
        """Take note of own messages that were delivered, if they are the oldest outstanding ones, and none is awaited.

        Returns:
            whether they are. If not, nothing is noted: `on_self_delivery` must take one after the other.
        """
        count = len(payloads)
        if not count:
            return True
        if self._outstanding[:count] != payloads:
            return False
        del self._outstanding[:count]
        self.confirmed += count
        self._free(count, cost(payloads))
        return True

    def on_self_delivery(self, message: Message) -> list[OwnMessage]:
        """Take note of an own message that was delivered; return those sent before it, which are therefore lost."""
        payload = message.payload
        if self._outstanding and self._outstanding[0] == payload:
            del self._outstanding[0]
            self.confirmed += 1
            self._free(1, len(payload) + OVERHEAD)
            return []
        index = self._match(payload)
        if index is None:
            return []
        lost = self._lose(index)
        own = _with_state(self._outstanding.pop(0))
        self.confirmed += 1
        own.settle(message)
        self._free(1, own.cost)
        return lost

    def on_leave(self) -> list[OwnMessage]:
        """Take note that our leave was delivered; return what is still outstanding, and therefore lost."""
        return self._lose(len(self._outstanding))

    def _match(self, payload: bytes) -> int | None:
        """Which outstanding message was delivered: of equal ones the first that was not abandoned, else the first."""
        found = None
        for index, entry in enumerate(self._outstanding):
            own = _with_state(entry)
            if own.payload != payload:
                if found is not None:
                    break
            elif not own.abandoned:
                return index
            elif found is None:
                found = index
        return found

    def _lose(self, count: int) -> list[OwnMessage]:
        """Drop the first `count` outstanding messages; return those that were certainly sent."""
        if not count:
            return []
        gone = [_with_state(entry) for entry in self._outstanding[:count]]
        del self._outstanding[:count]
        for own in gone:
            own.settle(None)
        lost = [own for own in gone if own.certain]
        self.lost += len(lost)
        if lost:
            self.window.narrow()
        self._free(count, sum(own.cost for own in gone))
        return lost

    def _free(self, count: int, occupied: int) -> None:
        self.window.remove(count, occupied)
        if self._room:
            self._room.unpark_all()


def _with_state(entry: bytes | OwnMessage) -> OwnMessage:
    return OwnMessage(entry) if isinstance(entry, bytes) else entry


def lost_error(payloads: Sequence[bytes]) -> MessageLostError:
    """The error that tells of own messages that were lost."""
    size = sum(map(len, payloads))
    what = "a message" if len(payloads) == 1 else f"{len(payloads)} messages"
    return MessageLostError(
        f"the daemon accepted {what} of ours ({size} bytes) and dropped it under load: no member has received it;"
        " send it again",
        function="cpg_mcast_joined",
        payloads=tuple(payloads),
    )
