"""Calls: a request to all members of a view, and their replies as they come.

One task reads the events of the views, and never waits for a handler. It gives requests to the tasks that run the
handler, replies to the calls that are open, and everything else to the program. An open call is in one of these states:

=========  ============================================  ===============================================================
state      it has                                        what ends it
=========  ============================================  ===============================================================
sent       the request, and whether the ring has         its delivery to ourselves: awaiting the members of the `View`,
           changed since                                 which are probed if the ring has changed; its loss: sent again
awaiting   the members that have not replied             for each member: its `Answer` or `Failure`; a `View` without
                                                         it, or its "not here": `Unknown`; its "no handler": no reply.
                                                         None is left: over
over       nothing                                       nothing; what still comes for it is ignored
=========  ============================================  ===============================================================

Why a call ends if its members answer or leave: as long as the ring stays the same, a member receives what we receive.
When it changes, a member may have missed our request, or we its answer, or it may have been replaced by another one of
the same address; and views cannot show all of that (docs/views.md, "What it does not promise"). So each change of the
ring has every awaited member *probed*: a member that neither runs the request nor has it waiting says "not here". If we
have not received its answer by then, we never will, unless it was lost and is sent again, which then is ignored.
"""

from __future__ import annotations

import math
import secrets
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Final, TypeAlias, final

import trio

from triocoro import (
    Address,
    InterruptedSendError,
    Message,
    MessageLost,
    SlowConsumerError,
    View,
    ViewEvent,
    Views,
    reached,
)

from ._calls_frames import VERSION, Frame, Kind
from ._calls_replies import Answer, Failure, OpenCall, Reply, Request, Unknown
from ._errors import described

Buffer: TypeAlias = "bytes | bytearray | memoryview"
Handler: TypeAlias = Callable[[Request], Awaitable[Buffer]]

OUTBOX: Final = 1024
"""Frames that may wait to be sent by the task that does it for the reader. If there are more, the reader waits."""
EVENT_COST: Final = 256
"""Bytes that an event counts for besides its payload, as in `open_views`."""

_NUMBER: Final = struct.Struct("!Q")


@final
class Core:
    """What the tasks of `open_calls` do."""

    def __init__(
        self, views: Views, handler: Handler | None, *, max_waiting: int, receive: bool, max_buffered_bytes: int
    ) -> None:
        self.views = views
        self.incarnation: bytes = secrets.token_bytes(16)
        self.numbers: Iterator[int] = count(1)
        self.open: dict[int, OpenCall] = {}
        self.begun: trio.Event = trio.Event()
        """Set when there has been a `View`."""
        self.closed: bool = False
        self.receive = receive
        self.events: trio.MemoryReceiveChannel[ViewEvent]
        self._events_in, self.events = trio.open_memory_channel[ViewEvent](math.inf)  # bounded by their bytes
        self.buffered_bytes: int = 0
        self._max_buffered_bytes = max_buffered_bytes
        self._handler = handler
        self._view: View | None = None
        self._present: set[tuple[bytes, int]] = set()  # the requests that wait or run
        self._waiting_in, self._waiting = trio.open_memory_channel[tuple[Address, Frame]](max_waiting)
        self._posted: deque[bytes] = deque()  # what the reader has to put into the outbox
        self._outbox_in, self._outbox = trio.open_memory_channel[bytes](OUTBOX)

    def close(self) -> None:
        """Let the tasks that wait for replies and events know that there will be none."""
        self.closed = True
        for call in self.open.values():
            call.abandon()
        self.events.close()

    # -- sending -------------------------------------------------------------------------------------------------------

    async def send(self, *buffers: Buffer) -> None:  # noqa: ASYNC910 - an interrupted send is one, too
        """Send a frame, again if a change of the membership has interrupted it. Its loss comes to the reader."""
        sent = False
        while not sent:
            try:
                await self.views.send(*buffers)
                sent = True
            except InterruptedSendError:
                reached("a frame of a call was interrupted")

    async def send_for_the_reader(self) -> None:
        """A task: sends wait for receivers, so the reader itself must not send."""
        async for frame in self._outbox:
            await self.send(frame)

    def _post(self, frame: Frame) -> None:
        self._posted.append(frame.encode())

    # -- serving -------------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """A task: runs the handler for one request after the other."""
        async for caller, frame in self._waiting:
            kind, body = await self._run(Request(caller, frame.body))
            await self.send(Frame(kind, frame.incarnation, frame.number).head(), body)
            self._present.discard((frame.incarnation, frame.number))

    async def _run(self, request: Request) -> tuple[Kind, Buffer]:
        if self._handler is None:
            raise AssertionError("a request waits for no handler")
        try:
            result = await self._handler(request)
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            return Kind.FAILURE, described(exc)  # noqa: ASYNC910 - it is sent next
        if not is_buffer(result):
            error = TypeError(f"the handler must return bytes, not {type(result).__name__}")
            return Kind.FAILURE, described(error)
        return Kind.ANSWER, result

    # -- reading -------------------------------------------------------------------------------------------------------

    async def read(self) -> None:
        """A task: gives each event to what it is for."""
        while True:
            for event in await self.views.receive_batch():
                if isinstance(event, View):
                    self._change_view(event)
                    if self._view is None:
                        self.begun.set()
                    self._view = event
                    self._pass_on(event)
                elif isinstance(event, Message) and (frame := Frame.decode(event.payload)) is not None:
                    self._take(event.sender, frame)
                elif isinstance(event, MessageLost) and (frame := Frame.decode(event.payload)) is not None:
                    self._send_again(frame)
                else:
                    self._pass_on(event)
                while self._posted:
                    await self._outbox_in.send(self._posted.popleft())

    def _pass_on(self, event: ViewEvent) -> None:
        if not self.receive:
            return
        self.buffered_bytes += event_bytes(event)
        if self.buffered_bytes > self._max_buffered_bytes:
            raise SlowConsumerError(
                f"events exceeded max_buffered_bytes={self._max_buffered_bytes}: receive them from the Calls in a task"
                " of its own, or do without receive=True"
            )
        self._events_in.send_nowait(event)

    def _change_view(self, view: View) -> None:
        ring_changed = self._view is not None and view.ring_id != self._view.ring_id
        numbers: list[int] = []
        for number, call in self.open.items():
            if not call.begun.is_set():
                call.moved = call.moved or ring_changed
                continue
            for member in sorted(call.awaited.difference(view.members)):
                call.settle(member, Unknown(member))
            if ring_changed and call.awaited:
                numbers.append(number)
        self._probe(numbers)

    def _probe(self, numbers: list[int]) -> None:
        if numbers:
            body = b"".join(map(_NUMBER.pack, numbers))
            self._post(Frame(Kind.PROBE, self.incarnation, 0, body))

    def _take(self, sender: Address, frame: Frame) -> None:
        ours = frame.incarnation == self.incarnation
        if frame.kind == Kind.OTHER_VERSION and ours:
            text = (
                f"VersionError: {sender} speaks version {frame.version} of triocoro's calls, and we speak {VERSION}:"
                " run the same version of triocoro on all members; the request was not executed"
            )
            self._settle(frame.number, sender, Failure(sender, text))
        elif frame.version != VERSION:
            if frame.kind == Kind.REQUEST:
                self._post(Frame(Kind.OTHER_VERSION, frame.incarnation, frame.number))
        elif frame.kind == Kind.REQUEST:
            if ours:
                self._begin(frame.number)
            self._accept(sender, frame)
        elif frame.kind == Kind.PROBE:
            for (number,) in _NUMBER.iter_unpack(frame.body):
                if (frame.incarnation, number) not in self._present:
                    self._post(Frame(Kind.NOT_HERE, frame.incarnation, number))
        elif ours:
            self._settle(frame.number, sender, _reply(sender, frame))

    def _settle(self, number: int, member: Address, reply: Reply | None) -> None:
        call = self.open.get(number)
        if call is not None:
            call.settle(member, reply)

    def _begin(self, number: int) -> None:
        call = self.open.get(number)
        if call is None or self._view is None:
            return
        call.begin(self._view.members)
        if call.moved:
            reached("the ring changed between a request and its delivery")
            self._probe([number])

    def _accept(self, sender: Address, frame: Frame) -> None:
        if self._handler is None:
            self._post(Frame(Kind.NO_HANDLER, frame.incarnation, frame.number))
            return
        try:
            self._waiting_in.send_nowait((sender, frame))
        except trio.WouldBlock:
            text = b"WouldBlock: busy, as max_waiting requests wait already; the request was not executed"
            self._post(Frame(Kind.FAILURE, frame.incarnation, frame.number, text))
        else:
            self._present.add((frame.incarnation, frame.number))

    def _send_again(self, frame: Frame) -> None:
        if frame.kind == Kind.REQUEST:
            call = self.open.get(frame.number)
            if call is None:
                return
            call.moved = False
        self._post(frame)


def _reply(sender: Address, frame: Frame) -> Reply | None:
    if frame.kind == Kind.ANSWER:
        return Answer(sender, frame.body)
    if frame.kind == Kind.FAILURE:
        return Failure(sender, frame.body.decode(errors="replace"))
    if frame.kind == Kind.NOT_HERE:
        reached("an awaited member does not have the request")
        return Unknown(sender)
    return None


def is_buffer(value: object) -> bool:
    """Whether a value may be a payload; the programs that call us need not be typed."""
    return isinstance(value, (bytes, bytearray, memoryview))


def event_bytes(event: ViewEvent) -> int:
    """The bytes that an event counts for while it waits to be received."""
    return EVENT_COST + (len(event.payload) if isinstance(event, (Message, MessageLost)) else 0)
