"""`open_calls`: a member of a group that calls the others, and answers them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import final

import trio

from triocoro import Address, Endpoint, HasEndpoint, MessageLostError, View, ViewEvent, open_views

from ._block import running_beside
from ._calls_frames import MAGIC, Frame, Kind
from ._calls_replies import OpenCall, Replies
from ._calls_tasks import Buffer, Core, Handler, event_bytes, is_buffer
from ._validate import checked_integer


def _check_payload(payload: object) -> None:
    if not is_buffer(payload):
        raise TypeError(f"a payload must be bytes-like, not {type(payload).__name__}")


@final
class Calls:
    """A member of a group that calls the others, and answers them. Objects of this class come from `open_calls`."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __repr__(self) -> str:
        return f"<triocoro.recipes.Calls {self.name!r} as node {self.address.nodeid}, pid {self.address.pid}>"

    @property
    def name(self) -> bytes:
        """The name of the group."""
        return self._core.views.name

    @property
    def address(self) -> Address:
        """Our own address in the group."""
        return self._core.views.address

    @property
    def view(self) -> View:
        """The latest view: a call that is delivered in it goes to its members."""
        view = self._core.views.view
        if view is None:
            raise AssertionError("the block begins with a view")
        return view

    @asynccontextmanager
    async def call(self, payload: Buffer) -> AsyncGenerator[Replies, None]:
        """Send a request to all members of the group, ourselves included, and get their replies as they come.

        ::

            async with calls.call(b"load?") as replies:
                async for reply in replies:
                    match reply:
                        case Answer(member, payload): ...
                        case Failure(member, text): ...
                        case Unknown(member): ...

        The block begins when the request was delivered to ourselves. The members of the `View` in which that happens
        have to answer; those that join later do not get the request. The replies end when each of them has answered or
        is `Unknown`. Members without a handler give no reply. A request or reply that is reported lost is sent again.

        What this does not promise: a call is no commit, even if all members answer. An `Unknown` member may have
        executed the request, may still do so, or may never have received it. A process that is stopped stays in the
        view and does not answer, so bound the block with a cancel scope; `Replies.awaited` names those it waits for.

        Args:
            payload: what the handlers get.

        Raises:
            TypeError: the payload is not bytes-like.
            trio.ClosedResourceError: the block of `open_calls` has ended.
            ConnectionLostError: the daemon died.

        Cancelled: the request may have been sent. Once it was, the members execute it, whatever becomes of the block.

        Source: cpg_mcast_joined(3).
        """
        _check_payload(payload)
        core = self._core
        self._check_open()
        number = next(core.numbers)
        state = core.open[number] = OpenCall()
        try:
            await core.send(Frame(Kind.REQUEST, core.incarnation, number).head(), payload)
            await state.begun.wait()
            self._check_open()
            yield Replies(state)
        finally:
            del core.open[number]
            state.abandon()

    async def send(self, payload: Buffer) -> None:
        """Send a message of the program's own to the group. Members get it as a `Message`, with `receive=True`.

        Args:
            payload: the payload, which must not begin as the frames of calls do.

        Raises:
            TypeError: the payload is not bytes-like.
            ValueError: it begins with ``b"tricalls"``.
            others: as `Views.send`.

        Cancelled: as `Views.send`.

        Source: cpg_mcast_joined(3).
        """
        _check_payload(payload)
        if bytes(payload[: len(MAGIC)]) == MAGIC:
            raise ValueError(f"a payload must not begin with {MAGIC!r}: members would take it for a call")
        await self._core.views.send(payload)

    async def receive(self) -> ViewEvent:
        """Wait for the next event that is not of a call: `View`, `PrimaryChange`, and messages of other programs.

        The first one is the first `View`. `async for` receives, too.

        Raises:
            RuntimeError: the calls were opened without `receive=True`.
            trio.ClosedResourceError: the block of `open_calls` has ended.

        Cancelled: no event was taken.
        """
        core = self._core
        if not core.receive:
            raise RuntimeError("these calls were opened without receive=True, so they keep no events")
        event = await core.events.receive()
        core.buffered_bytes -= event_bytes(event)
        return event

    def __aiter__(self) -> Calls:
        return self

    async def __anext__(self) -> ViewEvent:
        return await self.receive()

    def _check_open(self) -> None:
        if self._core.closed:
            raise trio.ClosedResourceError("the block of open_calls has ended")


@asynccontextmanager
async def open_calls(
    name: bytes | str,
    handler: Handler | None = None,
    *,
    max_running: int = 16,
    max_waiting: int = 1024,
    receive: bool = False,
    max_buffered_bytes: int = 64 * 2**20,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Calls, None]:
    """Join a group whose members call each other, and answer their calls with a handler.

    What this does not promise:

    - A call is no commit. Nothing is known of members that are in other partitions, and what a member has executed
      is forgotten when it dies. Members execute several requests at once, so not in the same order.
    - A member that leaves before it has answered is `Unknown`, not failed: it may have executed the request.
    - A process that is stopped never answers, and its daemon keeps it in the view. Nor do members of the group that
      have joined it otherwise, such as by `open_group`. Bound calls with a cancel scope.
    - A handler may call, but if all `max_running` of them wait for such calls, none is left to answer those.

    The block begins with a first `View`, and requests are answered from then on. Its end cancels the handlers that run;
    their callers get `Unknown` when we have left. If the connection is lost, the block is cancelled and raises
    `ConnectionLostError`, as that of `open_group`; `sessions(open_calls, name, handler)` connects again.

    Args:
        name: as for `open_group`. All members of the group should use `open_calls`.
        handler: an async function that gets a `Request` and returns the answer, bytes-like. If it raises an
            `Exception`, its class and message are sent to the caller, as a `Failure`. Without a handler we only call;
            then every request of others costs a small message that says so.
        max_running: how many requests are handled at once.
        max_waiting: how many further requests may wait for that. Any more are refused: their callers get a `Failure`.
        receive: whether to buffer events that are not of calls, for `Calls.receive`.
        max_buffered_bytes: the bound for events that wait to be received, for our own tasks or for `Calls.receive`.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        TypeError: the handler is not a function.
        ValueError: a bound is not a positive number.
        SlowConsumerError: with `receive=True`, events that were not received exceeded `max_buffered_bytes`.
        others: as `open_views`.

    Cancelled: we are not a member. If the block is cancelled, the leave completes in the background.

    Source: cpg_overview(3), quorum_overview(3).
    """
    if handler is not None and not callable(handler):
        raise TypeError(f"the handler must be an async function, not {type(handler).__name__}")
    checked_integer(max_running, "max_running")
    checked_integer(max_waiting, "max_waiting", least=0)
    failure: MessageLostError | None = None
    try:
        async with open_views(name, max_buffered_bytes=max_buffered_bytes, endpoint=endpoint) as views:
            core = Core(views, handler, max_waiting=max_waiting, receive=receive, max_buffered_bytes=max_buffered_bytes)

            async def run() -> None:
                async with trio.open_nursery() as nursery:
                    for task in (core.send_for_the_reader, core.read):
                        nursery.start_soon(task)
                    for _ in range(max_running if handler is not None else 0):
                        nursery.start_soon(core.serve)

            async with running_beside(run):
                await core.begun.wait()
                try:
                    yield Calls(core)
                except MessageLostError as exc:
                    failure = exc
                    raise
                finally:
                    core.close()
    except MessageLostError as exc:
        # What the members miss of calls, they get to know from our leaving.
        if exc is failure or not all(map(Frame.decode, exc.payloads)):
            raise
