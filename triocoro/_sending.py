"""Sending to a group: one message at a time to the fd, and a memory of what has not come back yet.

The daemon accepts a message without promising anything: under pressure it drops some, and only logs it. But it hands
our own messages back to us in the order in which we sent them. So a queue of what was sent, compared with each own
delivery, shows every loss that a later delivery (or our own leave, which is ordered behind) follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

import attrs
import trio

from ._connection import Connection
from ._errors import CorosyncError, InterruptedSendError, InterruptError, LibraryError, MessageLostError
from ._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from ._types import CpgEvent, Message

_WINDOW: Final = 64 * 2**10
"""Bytes that may be on their way at once. One larger message may be, alone: several large ones get dropped."""
_COST: Final = 64
"""Bytes that a message is taken to need beside its payload."""
_BACKOFF: Final = (0.001, 0.02)
"""Seconds: the first and the longest pause after a try-again; deliveries end a pause early."""
_STALL: Final = 1.0
"""Seconds without any own delivery, after which one more message may go: if all in the window were lost, only a later
one can show it, and open the window again."""


@attrs.define(eq=False)
class OwnMessage:
    """A message of ours that has not come back yet."""

    payload: bytes
    cost: int = attrs.field(default=attrs.Factory(lambda self: len(self.payload) + _COST, takes_self=True))
    """What it occupies of the window; 0 if it was cancelled: it may come back, or not, and nothing waits for it."""
    certain: bool = True
    """Whether it was sent for sure; not so while it is sent in fragments, or when that was cancelled."""
    back: trio.Event | None = None
    """Set when its fate is known, if somebody waits for it."""
    message: Message | None = None
    """What came back; `None` if it was lost."""


class Sender:
    """The sending half of a group."""

    def __init__(self, connection: Connection[CpgEvent], raw: RawCpg) -> None:
        self._connection = connection
        self._raw = raw
        self._turn = trio.StrictFIFOLock()
        self._own: deque[OwnMessage] = deque()
        self._cost = 0
        self._returns = trio.lowlevel.ParkingLot()
        connection.add_waiters(self._returns)
        self.sent = 0
        self.confirmed = 0
        self.lost = 0
        self.leaving = False

    @property
    def outstanding(self) -> int:
        """How many messages have not come back."""
        return sum(own.certain for own in self._own)

    @property
    def tasks_waiting(self) -> int:
        """Tasks that wait for their turn."""
        return self._turn.statistics().tasks_waiting

    # -- sending -------------------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def send(self, payloads: Sequence[bytes], *, back: trio.Event | None = None) -> OwnMessage:
        """Send in order, waiting under flow control.

        Args:
            payloads: the messages.
            back: set when the fate of the last one is known.

        Returns:
            the last one's entry.
        """
        await self._connection.check_async()
        own = OwnMessage(b"")
        async with self._turn:
            done = 0
            delay = _BACKOFF[0]
            while done < len(payloads):
                await self._check_async()
                if len(payloads[done]) > self._raw.max_atomic_message_size:
                    own = await self._send_fragmented(payloads[done], back)
                    done += 1
                    continue
                burst = self._fitting(payloads, done)
                if not burst:
                    if await self._wait_for_returns():
                        continue
                    burst = [payloads[done]]
                if self._raw.lane.borrowed_tokens:
                    sent, status = await self._multicast_after_lane(burst)
                else:
                    sent, status = await self._multicast(burst)
                done += sent
                if sent:
                    delay = _BACKOFF[0]
                    own = self._own[-1]
                    own.back = back if done == len(payloads) else None
                if status is MulticastStatus.FULL:
                    await self._connection.wait_writable()
                elif status is MulticastStatus.TRY_AGAIN:
                    with trio.move_on_after(delay):
                        await self._connection.progress.park()
                    delay = min(2 * delay, _BACKOFF[1])
                elif done < len(payloads):
                    await trio.lowlevel.checkpoint()
        return own

    @trio.lowlevel.enable_ki_protection
    def send_nowait(self, payload: bytes) -> None:
        """Send one message, or raise `trio.WouldBlock`."""
        self._check()
        if (
            self._turn.locked()
            or self._raw.lane.borrowed_tokens
            or len(payload) > self._raw.max_atomic_message_size
            or not self._fitting([payload], 0)
        ):
            raise trio.WouldBlock
        try:
            sent, _ = self._raw.multicast([payload])
        except LibraryError as exc:
            self._connection.lose(exc)
            raise self._connection.loss() from exc
        if not sent:
            raise trio.WouldBlock
        self._remember(OwnMessage(payload))

    async def _check_async(self) -> None:
        await self._connection.check_async()
        self._check()

    def _check(self) -> None:
        self._connection.check()
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

    async def _wait_for_returns(self) -> bool:
        """Wait until own messages have come back, or are known to be lost; False if that takes too long."""
        with trio.move_on_after(_STALL) as scope:
            await self._returns.park()
        return not scope.cancelled_caught

    async def _multicast(self, burst: list[bytes]) -> tuple[int, MulticastStatus]:
        """One crossing into C; no checkpoint between it and remembering what was sent."""
        try:
            sent, status = self._raw.multicast(burst)
        except LibraryError as exc:
            await self._connection.fail(exc)
        for payload in burst[:sent]:
            self._remember(OwnMessage(payload))
        return sent, status  # noqa: ASYNC910 - a checkpoint here could forget what was sent

    async def _multicast_after_lane(self, burst: list[bytes]) -> tuple[int, MulticastStatus]:
        """As `_multicast`, once no round trip is under way."""
        async with self._connection.lane():
            self._check()
            return await self._multicast(burst)

    async def _send_fragmented(self, payload: bytes, back: trio.Event | None) -> OwnMessage:
        """Send a message above the atomic size, alone; the library cuts it up, with a round trip for each piece."""
        while self._cost and await self._wait_for_returns():
            await self._check_async()
        own = OwnMessage(payload, certain=False, back=back)
        # Remembered first: its delivery may be dispatched before the last round trip has returned.
        self._remember(own)
        try:
            await self._connection.request(lambda: self._raw.multicast_fragmented(payload))
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

    # -- what comes back -----------------------------------------------------------------------------------------------

    def _remember(self, own: OwnMessage) -> None:
        self._own.append(own)
        self._cost += own.cost
        self.sent += 1

    def _forget(self, own: OwnMessage) -> None:
        if own in self._own:
            self._own.remove(own)
            self._cost -= own.cost
            self.sent -= 1

    def came_back(self, message: Message) -> list[OwnMessage]:
        """An own message was delivered; returns those that were sent before it, and therefore lost."""
        index = self._match(message.payload)
        if index is None:
            return []
        lost = self._lose(index)
        own = self._own.popleft()
        self._cost -= own.cost
        self._returns.unpark_all()
        self.confirmed += 1
        own.message = message
        if own.back is not None:
            own.back.set()
        return lost

    def _match(self, payload: bytes) -> int | None:
        """Which of what was sent has come back: the first of equal ones, but rather one that was not cancelled."""
        found = None
        for index, own in enumerate(self._own):
            if own.payload != payload:
                if found is not None:
                    break
            elif own.cost:
                return index
            elif found is None:
                found = index
        return found

    def left(self) -> list[OwnMessage]:
        """Our leave was delivered, and it is ordered behind our messages: what is still on its way was lost."""
        return self._lose(len(self._own))

    def _lose(self, count: int) -> list[OwnMessage]:
        lost: list[OwnMessage] = []
        for _ in range(count):
            own = self._own.popleft()
            self._cost -= own.cost
            if own.back is not None:
                own.back.set()
            if own.certain:
                self.lost += 1
                lost.append(own)
        self._returns.unpark_all()
        return lost


def lost_error(payloads: Sequence[bytes]) -> MessageLostError:
    """Tells of messages that nobody has received."""
    size = sum(map(len, payloads))
    what = "a message" if len(payloads) == 1 else f"{len(payloads)} messages"
    return MessageLostError(
        f"the daemon accepted {what} of ours ({size} bytes) and dropped it under load: no member has received it;"
        " send it again",
        function="cpg_mcast_joined",
        payloads=tuple(payloads),
    )
