"""The base class of all handles: the four dispatch types, requests, and finalizing."""

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
    """Call the user's code, which Control-C may interrupt as it may elsewhere."""
    await callback(event)


class Handle(Generic[EventT]):
    """The base class of the handles of all services."""

    context: Any
    """An object for the caller's own use (cpg_context_get(3), cpg_context_set(3), and those of other services)."""

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
        """The fd, which is readable while events wait (cpg_fd_get(3), and those of other services).

        Once the daemon is gone, it is readable and hung up; but not if the daemon talks to its clients by sockets
        (``system.qb_ipc_type: socket``). Then only `dispatch` notices, within 30 ms if it waits.
        """
        return self._connection.lifetime.fd

    async def dispatch(self, dispatch_types: Dispatch) -> None:
        """Call the callbacks for waiting events, one at a time, and await each in this task.

        - `Dispatch.ONE`: wait until one callback has been dispatched.
        - `Dispatch.ALL`: dispatch the events that wait when it is called, without waiting for more.
        - `Dispatch.BLOCKING`: dispatch until the handle is finalized.
        - `Dispatch.ONE_NONBLOCKING`: dispatch at most one callback.

        Events without a callback are skipped. A callback may use its own handle, except for `dispatch`. An exception of
        a callback is raised unchanged.

        Args:
            dispatch_types: how many callbacks to dispatch.

        Raises:
            TryAgainError: with `ONE_NONBLOCKING`, if no event waits.
            trio.BusyResourceError: another task, or a callback, dispatches this handle already.
            trio.ClosedResourceError: the handle is finalized.
            ConnectionLostError: the daemon died. Events that had arrived and were not dispatched are lost.

        Cancelled: no event was consumed, except one whose callback was cancelled.

        Source: cpg_dispatch(3), votequorum_dispatch(3).
        """
        kind = Dispatch(dispatch_types)
        self._connection.lifetime.enter()
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
        # Fetch at least once: if the daemon has died, nothing waits, and only fetching shows that.
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
                with suppress(trio.ClosedResourceError):  # finalized; an error of a callback passes
                    await self._connection.lifetime.wait_readable()

    @trio.lowlevel.enable_ki_protection
    async def _fetch_and_call(self) -> tuple[int, bool]:
        """Fetch one event and call its callback, without a checkpoint in between.

        Returns:
            how many events were taken (0 or 1), and whether a callback was called.
        """
        taken, events = self._connection.take(max_events=1)
        await self._connection.complete()
        if not events:
            return taken, False  # noqa: ASYNC910 - this is what must have no checkpoint
        callback, argument = self._callback(events[0])
        if callback is None:
            return taken, False  # noqa: ASYNC910 - this is what must have no checkpoint
        await _call(callback, argument)
        return taken, True

    def _callback(self, event: EventT) -> tuple[Callback | None, object]:
        """The callback for an event, and its argument."""
        return self._callbacks.get(type(event)), event

    async def _request(self, call: Callable[[], Awaitable[T]]) -> T:
        return await self._connection.requests.run(call, retrying=False)

    async def finalize(self) -> None:
        """Finalize the handle (cpg_finalize(3), and those of other services). Idempotent.

        Other tasks that use the handle get `trio.ClosedResourceError`; `Dispatch.BLOCKING` returns. Other members see a
        joined handle leave with `Reason.PROCDOWN`. It takes at most one second: if the daemon does not answer in that
        time, the handle is finalized in the background.

        Cancelled: the handle is finalized in the background.
        """
        self._connection.lifetime.enter()
        grace_ends = self._connection.requests.grace_ends()
        self._connection.lifetime.close()
        await trio.lowlevel.checkpoint()
        with trio.move_on_at(grace_ends):
            await self._connection.lifetime.wait_closed()
