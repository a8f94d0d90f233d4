"""Finding out what has become of own messages that no own delivery follows.

If nothing of ours comes back for a while although messages are outstanding, the daemon is slow, or it has dropped the
last ones. To tell, we would only have to send another message, but not to this group: others listen there. Instead:

1. A round trip on the group's own handle. The daemon takes the requests of a handle in the order in which they were
   made, so by then it has dropped each of our messages, or given it to totem.
2. The join of a private group, on another handle. Totem keeps the order in which one daemon gave it messages, and
   delivers all of a daemon's own ones to it, whatever happens to the membership meanwhile. (During a transition, when
   that daemon sends messages of its own first, it takes no requests.) So once this join has been delivered, the daemon
   has put all our messages that it had not dropped on the way to us.
3. Waiting until the group's handle has dispatched what is on its way. That is what its event ring holds, and, if the
   ring was full, what waits for it in the daemon. The daemon refills the ring in each turn of its loop, for at least
   four connections, before it takes requests. So we drain the ring, and do some round trips, each followed by draining.
   Had something waited in the daemon all the while, then a full ring and the event that did not fit would have come.
   If less came, nothing waits any more.

What has not come back then is lost.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Final, final
from weakref import WeakValueDictionary

import trio

from . import _log
from ._connection import Connection
from ._errors import CorosyncError
from ._outstanding import Outstanding, OwnMessage
from ._raw import RawCpg
from ._stream import EVENT_COST
from ._types import Address, CpgEvent, Message

STALL: Final = 1.0
"""Seconds without an own delivery after which we look into it."""
_ROUND_TRIPS: Final = 8
"""How many round trips the last step takes: enough for 32 connections whose events wait in the daemon."""
_RING_BYTES: Final = 1_000_000
"""Somewhat less than the capacity of an event ring, where a message takes its length and 192 bytes."""

_private_groups: Final = itertools.count(1)
_PRIVATE_GROUP: Final = re.compile(rb"triocoro \d+ \d+ \d+")

_turns: Final = trio.lowlevel.RunVar[WeakValueDictionary[Hashable, trio.StrictFIFOLock]]("turns")


def private_group(address: Address) -> str:
    """The name of a new group for this process alone."""
    return f"triocoro {address.nodeid} {address.pid} {next(_private_groups)}"


def is_private_group(name: bytes) -> bool:
    """Whether a group is one that a process has made for itself, to find out what has become of its messages."""
    return _PRIVATE_GROUP.fullmatch(name) is not None


@final
class Settling:
    """Settles the fate of the outstanding messages of one group when they stall.

    Args:
        connection: the group's connection.
        raw: its handle.
        outstanding: its messages.
        order: joins and leaves a private group of the same daemon.
        report: takes the messages that are lost.
        about: for the log, the group.
    """

    def __init__(
        self,
        connection: Connection[CpgEvent],
        raw: RawCpg,
        outstanding: Outstanding,
        *,
        order: Callable[[], Awaitable[None]],
        report: Callable[[list[OwnMessage]], None],
        about: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self._about = about
        self._connection = connection
        self._raw = raw
        self._outstanding = outstanding
        self._order = order
        self._report = report
        self.counting: bool = False
        """Whether `count` takes note of events that are dispatched."""
        self._messages = 0
        self._bytes = 0

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Watch for stalls, until cancelled. Raises nothing else."""
        outstanding = self._outstanding
        turn = self._turn()
        while True:
            await outstanding.wait_for_some()
            gone = outstanding.gone
            await trio.sleep(STALL)
            if outstanding and outstanding.gone == gone:
                # If there is no fd, no thread or no daemon to be had, we try again after another pause.
                with suppress(CorosyncError, OSError):
                    async with turn:
                        await self._settle()

    def _turn(self) -> trio.StrictFIFOLock:
        """The lock that admits one group of each daemon at a time: a frozen one costs one thread, not one a group."""
        try:
            turns = _turns.get()
        except LookupError:
            turns = WeakValueDictionary[Hashable, trio.StrictFIFOLock]()
            _turns.set(turns)
        return turns.setdefault(self._connection.endpoint.identity, trio.StrictFIFOLock())

    async def _settle(self) -> None:
        outstanding = self._outstanding
        mark = outstanding.mark()
        _log.note(
            _log.GROUP,
            "stalled",
            self._about,
            "none of %d messages of ours has come back for %g s: finding out whether they are lost",
            len(outstanding),
            STALL,
            outstanding=len(outstanding),
        )
        await self._round_trip()
        if outstanding.gone < mark:
            await self._order()
            await self._catch_up()
            self._report(outstanding.lose_until(mark))

    async def _round_trip(self) -> None:
        await self._connection.requests.run(self._raw.local_nodeid)

    async def _catch_up(self) -> None:
        """Wait until all events that the daemon has put on the way to us by now have been dispatched."""
        connection = self._connection
        self.counting = True
        try:
            while True:
                await connection.drained()
                before = connection.taken
                self._messages = self._bytes = 0
                for _ in range(_ROUND_TRIPS):
                    await self._round_trip()
                    await connection.drained()
                # Fragments, and events other than messages, are not worth being measured: they are rare.
                if connection.taken - before == self._messages and self._bytes < _RING_BYTES:
                    return
        finally:
            self.counting = False

    def count(self, events: Sequence[CpgEvent]) -> None:
        """Take note of events that were dispatched."""
        sizes = [len(event.payload) for event in events if isinstance(event, Message)]
        self._messages += len(sizes)
        self._bytes += sum(sizes) + EVENT_COST * len(sizes)
