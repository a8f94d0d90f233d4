"""What the handles of all services share: the four dispatch types, requests, the end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, TypeAlias, TypeVar

import trio

from .._connection import Connection
from .._enums import Dispatch
from .._errors import TryAgainError

T = TypeVar("T")
EventT = TypeVar("EventT")

Callback: TypeAlias = "Callable[[Any], Awaitable[object]]"
"""An async function of one argument, the event."""

Callbacks: TypeAlias = "Mapping[type, Callback | None]"
"""The callback for each type of event."""


@trio.lowlevel.disable_ki_protection
async def _call(callback: Callback, event: object) -> None:
    """The callback is the user's code: Control-C may end it, as it may end theirs elsewhere."""
    await callback(event)


class Handle(Generic[EventT]):
    """What the handles of all services share."""

    context: Any
    """Anything of the caller's (cpg_context_get(3), cpg_context_set(3), and their likes)."""

    def __init__(
        self,
        connection: Connection[EventT],
        callbacks: Callbacks,
        context: object,
    ) -> None:
        self._connection = connection
        self._callbacks = callbacks
        self.context = context

    @property
    def fd(self) -> int:
        """The fd that is readable while events wait (cpg_fd_get(3) and its likes)."""
        return self._connection.lifetime.fd

    async def dispatch(self, dispatch_types: Dispatch) -> None:
        """Call the callbacks for events that wait, one at a time, each awaited in this task.

        - `Dispatch.ONE`: wait until one callback has been dispatched.
        - `Dispatch.ALL`: dispatch what waits when it is called, without waiting for more.
        - `Dispatch.BLOCKING`: go on until the handle is finalized.
        - `Dispatch.ONE_NONBLOCKING`: dispatch at most one callback.

        Events for which no callback was given are passed over. A callback may use its own handle, but for `dispatch`;
        what it raises comes out unchanged.

        Raises:
            TryAgainError: `ONE_NONBLOCKING`, and no event waits.
            trio.BusyResourceError: another task (or a callback) dispatches this handle already.
            trio.ClosedResourceError: the handle is finalized.
            ConnectionLostError: the daemon died. Events that it had sent and nobody had fetched are gone.

        Cancelled: no event was consumed, but for the one whose callback was cancelled.

        Source: cpg_dispatch(3), votequorum_dispatch(3).
        """
        kind = Dispatch(dispatch_types)
        await trio.lowlevel.checkpoint()
        self._connection.lifetime.check()
        with self._connection.dispatcher():
            if kind is Dispatch.ALL:
                await self._dispatch_all()
            elif kind is Dispatch.ONE_NONBLOCKING:
                if not await self._dispatch_one():
                    raise TryAgainError("dispatch: CS_ERR_TRY_AGAIN: no event waits")
            elif kind is Dispatch.ONE:
                await self._dispatch_one(wait=True)
            else:
                await self._dispatch_blocking()

    async def _dispatch_all(self) -> None:  # noqa: ASYNC910 - `dispatch` has been a checkpoint
        # Look at least once: if the daemon has died, nothing waits, and only fetching tells.
        waiting = max(1, self._connection.waiting())
        while waiting > 0 and not self._connection.lifetime.closed:
            taken, _ = await self._fetch_and_call()
            if not taken:
                return
            waiting -= taken
            await trio.lowlevel.checkpoint()

    async def _dispatch_one(self, *, wait: bool = False) -> bool:  # noqa: ASYNC910 - as above
        while True:
            taken, called = await self._fetch_and_call()
            if called:
                return True
            if taken:
                await trio.lowlevel.checkpoint()
            elif wait:
                await self._connection.lifetime.wait_readable()
            else:
                return False

    async def _dispatch_blocking(self) -> None:  # noqa: ASYNC910 - as above
        while not self._connection.lifetime.closed:
            taken, _ = await self._fetch_and_call()
            if taken:
                await trio.lowlevel.checkpoint()
            else:
                with suppress(trio.ClosedResourceError):  # finalized; one that a callback raises is its own
                    await self._connection.lifetime.wait_readable()

    @trio.lowlevel.enable_ki_protection
    async def _fetch_and_call(self) -> tuple[int, bool]:
        """Fetch one event and call its callback, with no checkpoint in between."""
        taken, events = self._connection.take(max_events=1)
        if not events:
            return taken, False  # noqa: ASYNC910 - this is what must have no checkpoint
        callback, argument = self._callback(events[0])
        if callback is None:
            return taken, False  # noqa: ASYNC910 - this is what must have no checkpoint
        await _call(callback, argument)
        return taken, True

    def _callback(self, event: EventT) -> tuple[Callback | None, object]:
        """What to call for an event, and with what."""
        return self._callbacks.get(type(event)), event

    async def _request(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self._connection.requests.run(call, retrying=False)

    async def finalize(self) -> None:
        """Give the handle up (cpg_finalize(3) and its likes); idempotent.

        Tasks that use it get `trio.ClosedResourceError`; `Dispatch.BLOCKING` returns. A group is left with
        `Reason.PROCDOWN`.

        Cancelled: the handle is given up nevertheless, in the background.
        """
        self._connection.lifetime.check_process()
        self._connection.lifetime.close()
        await trio.lowlevel.checkpoint()
        await self._connection.lifetime.wait_closed()
