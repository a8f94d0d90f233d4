"""A membership of a process group: what is behind a `Group`.

It tells own messages from those of others, keeps count of the losses that the program has not heard of yet, and joins
and leaves. A registry of the memberships of this process tells apart two reasons for which the daemon refuses a join:
this process is a member already, or its earlier membership has not ended yet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Final, Generic, TypeVar, cast, final

import attrs
import trio

from . import _log
from ._backoff import retry
from ._connection import Connection
from ._enums import CsError
from ._errors import ExistError, TryAgainError
from ._lifetime import Lifetime
from ._outstanding import Outstanding, OwnMessage, lost_error
from ._raw import RawCpg
from ._requests import GRACE, MAY_PASS
from ._sending import Sender
from ._settling import Settling
from ._stream import EventStream
from ._types import Address, ConfigChange, CpgEvent, GroupEvent, Message, MessageLost, View

EventT = TypeVar("EventT")


@attrs.frozen(eq=False)
class _Entry:
    """A membership in the registry. It does not lead to messages, which may be large: it stays until the next join."""

    key: tuple[Hashable, int, bytes]
    lifetime: Lifetime
    raw: RawCpg

    @property
    def closed(self) -> bool:
        """Whether the daemon knows that the membership has ended."""
        return self.raw.closed


_memberships: Final[set[_Entry]] = set()
"""Memberships of this process, each until a join notices that the daemon knows of its end. They are not those of one
Trio run: to a daemon all runs are one process, and a membership that ends in the background may outlast its run."""


_MESSAGES_ONLY: Final = {Message}
_FEW: Final = 4
"""So few events are handled faster one by one."""


def payload_bytes(event: object) -> int:
    """Return the bytes of payload that an event has."""
    return len(event.payload) if isinstance(event, (Message, MessageLost)) else 0


@final
class Membership(Generic[EventT]):
    """The membership of one group, by one connection.

    Args:
        name: the group's name.
        address: our own address in the group.
        raw: the handle.
        connection: its connection.
        arrange: turns the group's events into those that are received; it may hold some of them back.
        totem_changes: whether to pass on `TotemChange` events.
        receive: whether to buffer events for receivers.
        max_buffered_bytes: the bound of that buffer.
        order: joins and leaves a private group of the same daemon; see `_settling.py`.
    """

    def __init__(
        self,
        name: bytes,
        address: Address,
        raw: RawCpg,
        connection: Connection[CpgEvent],
        arrange: Callable[[Sequence[GroupEvent]], Sequence[EventT]],
        *,
        totem_changes: bool,
        receive: bool,
        max_buffered_bytes: int,
        order: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self.address = address
        self.connection = connection
        self.receive = receive
        self.view: ConfigChange = ConfigChange(members=(), joined=(), left=())
        self.component: View | None = None
        """The latest `View` received."""
        self.stream: EventStream[EventT] = EventStream(connection.lifetime, max_buffered_bytes)
        self.stream.on_receive = self._note_received
        self.outstanding: Outstanding = Outstanding(address)
        self.about: dict[str, object] = {**connection.lifetime.about, "group": name.decode(errors="backslashreplace")}
        self.sender: Sender = Sender(connection, raw, self.stream, self.outstanding, self.about)
        self.settling: Settling = Settling(
            connection, raw, self.outstanding, order=order, report=self._report_settled, about=self.about
        )
        self._raw = raw
        self._arrange = arrange
        self._totem_changes = totem_changes
        self._joined = trio.Event()
        self._left = trio.Event()
        self._untold: list[MessageLost] = []
        self._notable = 0  # how many events other than messages wait in the stream
        connection.lifetime.count_unconfirmed = self.count_unconfirmed
        # The daemon lets a process, here of this endpoint, join a group once.
        self._key = connection.endpoint.identity, connection.endpoint.pid, name
        _memberships.add(_Entry(self._key, connection.lifetime, raw))

    # -- events --------------------------------------------------------------------------------------------------------

    def handle(self, events: Sequence[CpgEvent]) -> None:
        """Take a batch of events that were dispatched."""
        if self.settling.counting:
            self.settling.count(events)
        if len(events) > _FEW and _MESSAGES_ONLY.issuperset(map(type, events)):
            messages = cast("Sequence[Message]", events)
            if self._handle_expected(messages):
                return
        out: list[GroupEvent] = []
        for event in events:
            if isinstance(event, Message):
                self._handle_message(event, out)
            elif isinstance(event, ConfigChange):
                self._handle_config_change(event, out)
            elif self._totem_changes:
                out.append(event)
        self._put(out)

    def _put(self, out: list[GroupEvent]) -> None:
        if self.receive:
            self.put(self._arrange(out))

    def put(self, events: Sequence[EventT]) -> None:
        """Let events be received, which have been arranged."""
        self._notable += sum([not isinstance(event, Message) for event in events])
        self.stream.put(events, list(map(payload_bytes, events)))

    def _handle_expected(self, messages: Sequence[Message]) -> bool:
        """Take messages if our own ones among them are as expected, which most are: no call for each message."""
        own = self.address
        # Mostly it is the same object.
        payloads = [message.payload for message in messages if message.sender is own or message.sender == own]
        if not self.outstanding.on_expected_deliveries(payloads):
            return False
        if self.receive:
            events = self._arrange(messages)
            if events is messages:
                self.stream.put(events, [len(message.payload) for message in messages])
            else:
                self.put(events)
        return True

    def _handle_message(self, message: Message, out: list[GroupEvent]) -> None:
        if message.sender is self.address or message.sender == self.address:
            lost = self.outstanding.on_self_delivery(message)
            if lost:
                self._report(lost, out)
        out.append(message)

    def _handle_config_change(self, event: ConfigChange, out: list[GroupEvent]) -> None:
        if not self._joined.is_set() or not self.receive:
            self.view = event
        self._joined.set()
        if any(change.address == self.address for change in event.left):
            self._report(self.outstanding.lose_all(), out)
            self._left.set()
        out.append(event)

    def _report(self, lost: list[OwnMessage], out: list[GroupEvent]) -> None:
        if lost:
            count, size = len(lost), sum(len(own.payload) for own in lost)
            _log.note(
                _log.GROUP,
                "dropped",
                self.about,
                "the daemon dropped %d messages of ours to group %r (%d bytes)",
                count,
                self.name,
                size,
                count=count,
                bytes=size,
            )
            self._raw.report_lost([own.payload for own in lost])
        for own in lost:
            report = MessageLost(own.payload)
            out.append(report)
            if own.caller is None:  # else `send_and_wait` raises
                self._untold.append(report)

    def _report_settled(self, lost: list[OwnMessage]) -> None:
        out: list[GroupEvent] = []
        self._report(lost, out)
        self._put(out)

    def _note_received(self, events: Sequence[EventT]) -> None:
        if not self._notable:
            return
        for event in events:
            if isinstance(event, Message):
                continue
            self._notable -= 1
            if isinstance(event, ConfigChange):
                self.view = event
            elif isinstance(event, View):
                self.component = event
            elif isinstance(event, MessageLost):
                self._untold = [report for report in self._untold if report is not event]

    def count_unconfirmed(self) -> int:
        """Return how many of our messages have not been delivered, as far as the program knows."""
        return self.outstanding.certain + len(self._untold)

    def raise_untold(self) -> None:
        """Raise `MessageLostError` if messages were lost and the program has not received the report."""
        if self._untold:
            raise lost_error([report.payload for report in self._untold])

    # -- joining and leaving -------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Join, and wait until the join has been agreed on."""
        await self.connection.requests.run(
            self._join,
            explain={
                CsError.EXIST: (
                    f"process {self.address.pid} is a member of group {self.name!r} on node {self.address.nodeid}"
                    " already; a process can be in a group once on each node (a container has pids of its own: run it"
                    " with docker run --pid=host)"
                )
            },
        )
        with self.connection.lifetime.interruptible():
            await self._joined.wait()
        members = len(self.view.members)
        _log.note(
            _log.GROUP,
            "joined",
            self.about,
            "joined group %r as %s; members: %d",
            self.name,
            self.address,
            members,
            members=members,
        )

    async def _join(self) -> None:
        # Asked before and after: the earlier membership may end before we hear of the refusal.
        departing = self._is_earlier_one_departing()
        try:
            await self._raw.join(self.name)
        except ExistError as exc:
            if departing or self._is_earlier_one_departing():
                raise TryAgainError(str(exc), function=exc.function) from None
            raise

    async def leave(self) -> None:
        """Leave, and wait until the leave has been agreed on: only then is the fate of all our messages known."""
        self.sender.leaving = True
        self.stream.ending = True
        await self._assemble()
        await self.connection.requests.run(lambda: retry(lambda: self._raw.leave(self.name), MAY_PASS, self.about))
        with self.connection.lifetime.interruptible():
            await self._left.wait()
        _log.note(_log.GROUP, "left", self.about, "left group %r", self.name)

    async def _assemble(self) -> None:  # noqa: ASYNC910 - the request that follows is a checkpoint
        """Wait until no message is under way in parts, which our leave would interrupt, for half of the grace."""
        with trio.move_on_after(GRACE / 2):  # noqa: ASYNC912 - likewise
            while self._raw.assembling:
                await self.connection.dispatched.park()

    def close(self) -> None:
        """Leave in the background."""
        self.sender.leaving = True
        self.connection.lifetime.close(leave=True)

    def _is_earlier_one_departing(self) -> bool:
        """Whether a membership of the same process and group has ended, and the daemon may not know of it yet."""
        departing = False
        # Other runs in other threads may add and discard meanwhile.
        for other in tuple(_memberships):
            if other.closed:
                _memberships.discard(other)
            elif other.key == self._key and other.lifetime.ended:
                departing = True
        return departing
