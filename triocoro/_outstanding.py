"""What becomes of our own messages: a record of those that have not been delivered back yet.

The daemon accepts a message without promising anything: under pressure it drops some, and only logs it. But it delivers
our own messages back to us in the order in which we sent them. So a queue of what was sent, compared with each own
delivery, shows every loss that is followed by a later delivery, or by our own leave, which is ordered behind all our
messages. `_settling.py` finds the others.

Messages carry no mark of ours, so equal payloads cannot be told apart. Of equal messages, exactly as many are reported
as lost as were lost. Which of them it was is a convention: deliveries count for the oldest ones, but a caller of
`send_and_wait` hears of a loss only if no delivery is left that it can have. See `Outstanding._claim`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, final

import attrs
import trio

from ._errors import MessageLostError
from ._types import Address, Message
from ._window import OVERHEAD, SendWindow, cost

_MOST_COMPARED: Final = 4 * 2**20
"""Bytes of a payload that is compared with others. Of larger ones, mostly just one is outstanding that has its size."""


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
    caller: trio.lowlevel.ParkingLot | None = None
    """Where the caller of `send_and_wait` waits, unless it was cancelled."""

    @property
    def cost(self) -> int:
        """What it occupies of the window."""
        return 0 if self.abandoned else cost((self.payload,))

    def settle(self, delivery: Message | None) -> None:
        """Note that it was delivered, or is lost."""
        self.settled = True
        self.delivery = delivery
        if self.caller is not None:
            self.caller.unpark_all()


@attrs.define(eq=False)
class _Unclaimed:
    """Payloads that were delivered, for which no caller waited, while callers waited for later messages."""

    payloads: list[bytes]
    entered: int
    """How many messages had been sent by then: the earlier callers can have them."""
    certain: bool = True
    """Whether they were certainly sent."""


@final
class Outstanding:
    """The messages that have been sent and not been delivered back yet, oldest first.

    Args:
        address: our own address in the group.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        # Of most messages nothing but the payload.
        self._entries: list[bytes | OwnMessage] = []
        self._entered = 0  # how many entries there have ever been,
        self._gone = 0  # and how many of them are delivered or lost
        self._callers = 0  # how many of the entries have a caller
        self._unclaimed: deque[_Unclaimed] = deque()
        self.window: SendWindow = SendWindow()
        self.room: Final = trio.lowlevel.ParkingLot()
        """Unparked when the window has opened."""
        self.unwatched: Final = trio.lowlevel.ParkingLot()
        """Unparked when the first message has been sent."""
        self._watched = True
        self.sent: int = 0
        self.confirmed: int = 0
        self.lost: int = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def certain(self) -> int:
        """How many messages have certainly been sent and not been delivered back yet."""
        return sum(isinstance(own, bytes) or own.certain for own in self._entries)

    @property
    def gone(self) -> int:
        """How many messages have been delivered back or are known to be lost."""
        return self._gone

    async def wait_for_some(self) -> None:
        """Wait until there are outstanding messages. For one task."""
        if self._entries:
            await trio.lowlevel.checkpoint()
            return
        self._watched = False
        try:
            await self.unwatched.park()
        finally:
            self._watched = True

    # -- sending -------------------------------------------------------------------------------------------------------

    def add(self, payloads: Sequence[bytes]) -> None:
        """Note that messages were sent."""
        self._entries += payloads
        self._count(len(payloads), cost(payloads))

    def add_one(self, entry: bytes | OwnMessage, size: int) -> None:
        """Note that a message of `size` bytes was sent, or that a fragmented one is now being sent."""
        self._entries.append(entry)
        self._count(1, size + OVERHEAD)
        if isinstance(entry, OwnMessage) and entry.caller is not None:
            self._callers += 1

    def await_last(self, own: OwnMessage) -> None:
        """Note that a caller waits for the message that was just sent."""
        self._entries[-1] = own
        self._callers += 1

    def _count(self, count: int, occupied: int) -> None:
        self._entered += count
        self.sent += count
        self.window.add(count, occupied)
        if not self._watched:
            self._watched = True
            self.unwatched.unpark_all()

    def give_up(self, own: OwnMessage) -> None:
        """Note that the caller of a message no longer waits: from now on it is one like others."""
        if own.caller is not None and not own.settled:
            self._answered()
        own.caller = None

    def abandon(self, own: OwnMessage) -> None:
        """Note that a fragmented send was cancelled: nothing is known of it."""
        self._free(0, own.cost)
        own.abandoned = True
        self.give_up(own)

    def forget(self, own: OwnMessage) -> None:
        """Note that a fragmented send has failed, and no member gets the message."""
        if own not in self._entries:
            return
        self._entries.remove(own)
        self.sent -= 1
        self._free(1, own.cost)
        self.give_up(own)

    # -- deliveries ----------------------------------------------------------------------------------------------------

    def on_expected_deliveries(self, payloads: list[bytes]) -> bool:
        """Take note of own messages that were delivered, if they are the oldest outstanding ones, and none is awaited.

        Returns:
            whether they are. If not, nothing is noted: `on_self_delivery` must take one after the other.
        """
        count = len(payloads)
        if not count:
            return True
        if self._entries[:count] != payloads:
            return False
        del self._entries[:count]
        self.confirmed += count
        self._free(count, cost(payloads))
        if self._callers:
            self._keep(_Unclaimed(payloads, self._entered))
        return True

    def on_self_delivery(self, message: Message) -> list[OwnMessage]:
        """Take note of an own message that was delivered; return those sent before it, which are therefore lost."""
        payload = message.payload
        if self._entries and self._entries[0] == payload:
            del self._entries[0]
            self.confirmed += 1
            self._free(1, len(payload) + OVERHEAD)
            if self._callers:
                self._keep(_Unclaimed([payload], self._entered))
            return []
        index = self._match(payload)
        if index is None:
            return []
        lost = self._lose(index)
        own = _with_state(self._entries.pop(0))
        self.confirmed += 1
        if own.caller is not None:
            self._answered()
        elif self._callers:
            self._keep(_Unclaimed([payload], self._entered, own.certain))
        own.settle(message)
        self._free(1, own.cost)
        return lost

    def _match(self, payload: bytes) -> int | None:
        """Which outstanding message was delivered: of equal ones the first that was not abandoned, else the first."""
        if len(payload) > _MOST_COMPARED:
            similar = [index for index, entry in enumerate(self._entries) if _size(entry) == len(payload)]
            if len(similar) == 1:
                return similar[0]
        found = None
        for index, entry in enumerate(self._entries):
            own = _with_state(entry)
            if own.payload != payload:
                if found is not None:
                    break
            elif not own.abandoned:
                return index
            elif found is None:
                found = index
        return found

    # -- losses --------------------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return the end of what has been sent by now, for `lose_until`. A message that is being sent is not in it."""
        return self._gone + sum(isinstance(own, bytes) or own.certain or own.abandoned for own in self._entries)

    def lose_until(self, mark: int) -> list[OwnMessage]:
        """Note that what is still outstanding up to a `mark` is lost; return it."""
        return self._lose(max(mark - self._gone, 0))

    def lose_all(self) -> list[OwnMessage]:
        """Note that all that is still outstanding is lost; return it."""
        return self._lose(len(self._entries))

    def _lose(self, count: int) -> list[OwnMessage]:
        """Drop the first `count` outstanding messages; return those that were certainly sent."""
        if not count:
            return []
        gone = [_with_state(entry) for entry in self._entries[:count]]
        del self._entries[:count]
        lost: list[OwnMessage] = []
        for number, own in enumerate(gone, self._gone):
            claimed = None
            if own.caller is not None:
                claimed = self._claim(number, own.payload)
                self._answered()
            if claimed is None:
                own.settle(None)
                lost += [own] * own.certain
            else:
                own.settle(Message(self._address, own.payload))
                lost += [OwnMessage(own.payload)] * claimed.certain
        self.lost += len(lost)
        if lost:
            self.window.narrow()
        self._free(count, sum(own.cost for own in gone))
        return lost

    def _answered(self) -> None:
        self._callers -= 1
        if not self._callers:
            self._unclaimed.clear()

    def _keep(self, unclaimed: _Unclaimed) -> None:
        while self._unclaimed and self._unclaimed[0].entered <= self._gone:
            self._unclaimed.popleft()
        self._unclaimed.append(unclaimed)

    def _claim(self, number: int, payload: bytes) -> _Unclaimed | None:
        """Find a delivery for the caller of message `number`, in place of its own, which never came.

        An equal message was delivered since, and counted for an earlier one that no caller waited for. Either may be
        the lost one. The caller gets the delivery, and the loss of the other is reported to the program.
        """
        for unclaimed in self._unclaimed:
            if unclaimed.entered > number and payload in unclaimed.payloads:
                unclaimed.payloads.remove(payload)
                return unclaimed
        return None

    def _free(self, count: int, occupied: int) -> None:
        self._gone += count
        self.window.remove(count, occupied)
        if self.room:
            self.room.unpark_all()


def _size(entry: bytes | OwnMessage) -> int:
    return len(entry if isinstance(entry, bytes) else entry.payload)


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
