"""Sending to a group: one message at a time to the fd, and a record of those that have not been delivered back yet.

The daemon accepts a message without promising anything: under pressure it drops some, and only logs it. But it delivers
our own messages back to us in the order in which we sent them. So a queue of what was sent, compared with each own
delivery, shows every loss that is followed by a later delivery, or by our own leave, which is ordered behind all our
messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, final

import attrs
import trio

from ._backoff import Backoff
from ._connection import Connection
from ._errors import CorosyncError, InterruptedSendError, InterruptError, LibraryError, MessageLostError
from ._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from ._types import CpgEvent, Message

_WINDOW: Final = 64 * 2**10
"""The send window: how many bytes may be on their way at once. A larger message may be on its way alone, since the
daemon drops some of several large ones."""
_COST: Final = 64
"""Bytes of the window that a message occupies beside its payload."""
_STALL: Final = 1.0
"""Seconds without any own delivery after which one more message may go although the window is full. If all messages in
the window were lost, only a later one can show it, and open the window again."""


@attrs.define(eq=False)
class OwnMessage:
    """A message of ours that has not been delivered back to us yet."""

    payload: bytes
    cost: int = attrs.field(default=attrs.Factory(lambda self: len(self.payload) + _COST, takes_self=True))
    """What it occupies of the window. 0 if its send was cancelled: it may be delivered or not, and no task waits."""
    certain: bool = True
    """False while a fragmented send is in progress or was cancelled."""
    settled: trio.Event | None = None
    """Set once the message was delivered or is known to be lost, if a task waits for that."""
    delivery: Message | None = None
    """The delivered message; `None` until then, or if it was lost."""


@final
class Sender:
    """The sending half of a group."""

    def __init__(self, connection: Connection[CpgEvent], raw: RawCpg) -> None:
        self._lifetime = connection.lifetime
        self._requests = connection.requests
        self._dispatched = connection.dispatched
        self._raw = raw
        # Held by the task that sends, so that senders take turns in the order in which they came.
        self._turn = trio.StrictFIFOLock()
        self._backoff = Backoff.of_multicast()
        self._outstanding: deque[OwnMessage] = deque()
        self._cost = 0
        self._room = trio.lowlevel.ParkingLot()
        self._lifetime.add_waiters(self._room)
        self.sent: int = 0
        self.confirmed: int = 0
        self.lost: int = 0
        self.leaving: bool = False
        """Whether the group is being left: nothing more can be sent."""

    @property
    def outstanding(self) -> int:
        """How many messages have been sent and not been delivered back yet."""
        return sum(own.certain for own in self._outstanding)

    @property
    def tasks_waiting(self) -> int:
        """How many tasks wait for their turn to send."""
        return self._turn.statistics().tasks_waiting

    # -- sending -------------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def send(self, payload: bytes, *, settled: trio.Event | None = None) -> OwnMessage:
        """Send one message, waiting under flow control.

        Args:
            payload: the message.
            settled: set once the message was delivered or is known to be lost.
        """
        await self._lifetime.check_async()
        async with self._turn:
            if len(payload) > self._raw.max_atomic_message_size:
                return await self._send_fragmented(payload, settled)
            while True:
                sent, status = await self._send_burst((payload,), 0)
                if sent:
                    own = self._outstanding[-1]
                    own.settled = settled
                    return own
                await self._pause(status)

    @trio.lowlevel.enable_ki_protection
    async def send_batch(self, payloads: Sequence[bytes]) -> None:
        """Send several messages in order, as many as possible with each crossing into C."""
        await self._lifetime.check_async()
        async with self._turn:
            done = 0
            while done < len(payloads):
                if len(payloads[done]) > self._raw.max_atomic_message_size:
                    await self._send_fragmented(payloads[done], None)
                    done += 1
                    continue
                sent, status = await self._send_burst(payloads, done)
                done += sent
                if done < len(payloads):
                    await self._pause(status)

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, payload: bytes) -> None:
        """Send one message, or raise `trio.WouldBlock`."""
        self._check()
        if (
            self._turn.locked()
            or self._raw.lane.borrowed_tokens
            or len(payload) > self._raw.max_atomic_message_size
            or not self._fitting((payload,), 0)
        ):
            raise trio.WouldBlock
        try:
            sent, _ = self._raw.multicast([payload])
        except LibraryError as exc:
            self._lifetime.lose(exc)
            raise self._lifetime.loss() from exc
        if not sent:
            raise trio.WouldBlock
        self._remember(OwnMessage(payload))

    async def _check_async(self) -> None:
        await self._lifetime.check_async()
        self._check()

    def _check(self) -> None:
        self._lifetime.check()
        if self.leaving:
            raise trio.ClosedResourceError("this group is being left")

    def _fitting(self, payloads: Sequence[bytes], start: int) -> list[bytes]:
        """The messages from `start` on that fit into the window now."""
        room = _WINDOW - self._cost
        burst: list[bytes] = []
        for payload in islice(payloads, start, start + MULTICAST_BURST):
            cost = len(payload) + _COST
            if len(payload) > self._raw.max_atomic_message_size or (cost > room and (burst or self._cost)):
                break
            burst.append(payload)
            room -= cost
        return burst

    async def _wait_for_room(self) -> bool:
        """Wait until own messages were delivered, or are known to be lost; False if that takes too long."""
        with trio.move_on_after(_STALL) as scope:
            await self._room.park()
        return not scope.cancelled_caught

    async def _send_burst(self, payloads: Sequence[bytes], start: int) -> tuple[int, MulticastStatus]:
        """Wait for room in the window, then send as many messages from `start` on as fit and go now.

        There is no checkpoint after a message was sent.
        """
        await self._check_async()
        while not (burst := self._fitting(payloads, start)):
            if not await self._wait_for_room():
                burst = [payloads[start]]
                break
            await self._check_async()
        if not self._raw.lane.borrowed_tokens:
            return await self._multicast(burst)
        async with self._requests.lane():
            self._check()
            return await self._multicast(burst)

    async def _multicast(self, burst: list[bytes]) -> tuple[int, MulticastStatus]:
        """Cross into C once, and remember what was sent."""
        try:
            sent, status = self._raw.multicast(burst)
        except LibraryError as exc:
            await self._lifetime.fail(exc)
        for payload in burst[:sent]:
            self._remember(OwnMessage(payload))
        if sent:
            self._backoff.reset()
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

    async def _send_fragmented(self, payload: bytes, settled: trio.Event | None) -> OwnMessage:
        """Send a message above the atomic size, alone. The library fragments it, with a round trip for each piece."""
        await self._check_async()
        while self._cost and await self._wait_for_room():
            await self._check_async()
        own = OwnMessage(payload, certain=False, settled=settled)
        # Remembered first: its delivery may be dispatched before the last round trip has returned.
        self._remember(own)
        try:
            await self._requests.run(lambda: self._raw.multicast_fragmented(payload))
        except (trio.Cancelled, KeyboardInterrupt):
            self._cost -= own.cost
            own.cost = 0
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
        return own

    # -- what becomes of what was sent ---------------------------------------------------------------------------------

    def _remember(self, own: OwnMessage) -> None:
        self._outstanding.append(own)
        self._cost += own.cost
        self.sent += 1

    def _forget(self, own: OwnMessage) -> None:
        if own in self._outstanding:
            self._outstanding.remove(own)
            self._cost -= own.cost
            self.sent -= 1

    def on_self_delivery(self, message: Message) -> list[OwnMessage]:
        """Take note of an own message that was delivered; return those sent before it, which are therefore lost."""
        index = self._match(message.payload)
        if index is None:
            return []
        lost = self._lose(index)
        own = self._outstanding.popleft()
        self._cost -= own.cost
        self._room.unpark_all()
        self.confirmed += 1
        own.delivery = message
        if own.settled is not None:
            own.settled.set()
        return lost

    def on_leave(self) -> list[OwnMessage]:
        """Take note that our leave was delivered; return what is still outstanding, and therefore lost."""
        return self._lose(len(self._outstanding))

    def _match(self, payload: bytes) -> int | None:
        """Which outstanding message was delivered: of equal ones the first that was not cancelled, else the first."""
        found = None
        for index, own in enumerate(self._outstanding):
            if own.payload != payload:
                if found is not None:
                    break
            elif own.cost:
                return index
            elif found is None:
                found = index
        return found

    def _lose(self, count: int) -> list[OwnMessage]:
        """Drop the first `count` outstanding messages; return those that were certainly sent."""
        lost: list[OwnMessage] = []
        for _ in range(count):
            own = self._outstanding.popleft()
            self._cost -= own.cost
            if own.settled is not None:
                own.settled.set()
            if own.certain:
                self.lost += 1
                lost.append(own)
        self._room.unpark_all()
        return lost


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
