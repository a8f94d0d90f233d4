"""One connection to one service: the dispatch loop and the user's block.

A `Connection` is composed of a `Lifetime` (how it ends), `Requests` (its round trips) and the dispatching in this
module. Each knows only those before it.

Trio waits for the fd, and the handle's own dispatch never waits. The dispatching task takes a bounded batch, then lets
other tasks run.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Generic, TypeVar, cast, final

import trio

from ._endpoint import resolve_endpoint
from ._errors import CorosyncError, SlowConsumerError, naming_descriptors
from ._lifetime import Lifetime, lifetime_of
from ._raw import RawHandle
from ._requests import Requests, connect
from ._runs import require_trio
from ._services import Endpoint, HasEndpoint, ServiceSpec

if sys.version_info < (3, 11):
    # Trio depends on it there.
    from exceptiongroup import BaseExceptionGroup

RawT = TypeVar("RawT")
EventT = TypeVar("EventT")

BATCH_EVENTS: Final = 256
"""The most events that one dispatch takes before other tasks run."""
BATCH_BYTES: Final = 2**20
"""The bytes of payload after which one dispatch takes no more events."""


async def open_connection(
    service: ServiceSpec[RawT, EventT], endpoint: Endpoint | HasEndpoint | None, *, retrying: bool = True
) -> tuple[RawT, Connection[EventT]]:
    """Connect to a service; the beginning of every `open_*` and every `*_initialize`.

    Args:
        service: the service and its options.
        endpoint: the daemon; `None` stands for the default one.
        retrying: whether to try again while the daemon is starting.

    Returns:
        the raw handle, and the connection that owns it.
    """
    require_trio()
    with naming_descriptors("connect"):  # which importing the C side needs as well
        endpoint = resolve_endpoint(endpoint)
        raw = await connect(service, endpoint, retrying=retrying)
    return raw, Connection(cast("RawHandle[EventT]", raw), endpoint, service.name)


@final
class Connection(Generic[EventT]):
    """Owns one raw handle: dispatches its events, and closes it when the user's block ends."""

    def __init__(self, raw: RawHandle[EventT], endpoint: Endpoint, service: str) -> None:
        self.endpoint = endpoint
        self.label: str = endpoint.label
        self.lifetime: Lifetime = Lifetime(raw, endpoint.label, endpoint.identity, service)
        self.requests: Requests = Requests(raw, self.lifetime)
        self.dispatched: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        """Unparked after each dispatch, and when the connection ends: flow control may have opened."""
        self.lifetime.add_waiters(self.dispatched)
        self._raw = raw
        self._dispatching = False
        self._served = trio.Event()
        self._completing = False
        self.taken: int = 0
        """How many events were dispatched, fragments of messages included."""

    # -- dispatch ------------------------------------------------------------------------------------------------------

    @contextmanager
    def dispatcher(self) -> Generator[None, None, None]:
        """Within the block, the caller is the one task that dispatches."""
        if self._dispatching:
            raise trio.BusyResourceError(f"another task is dispatching this connection to {self.label}")
        self._dispatching = True
        try:
            yield
        finally:
            self._dispatching = False

    def waiting(self) -> int:
        """Return how many events wait to be dispatched."""
        self.lifetime.check()
        return self._raw.waiting()

    async def drained(self) -> None:
        """Wait until the connection's own task has dispatched all events that wait."""
        while True:
            await trio.lowlevel.checkpoint()
            await self.lifetime.check_async()
            if not self.waiting() and not self._completing:
                return

    def take(self, max_events: int = BATCH_EVENTS, max_bytes: int = BATCH_BYTES) -> tuple[int, Sequence[EventT]]:
        """Dispatch without waiting.

        Returns:
            how many events were taken, and those of them that mean something by themselves (a fragment does not).

        Raises:
            ConnectionLostError: the connection is broken.
            NoMemoryError: this process lacks memory or stack; the connection is lost.
        """
        self.lifetime.check()
        try:
            taken, events = self._raw.dispatch(max_events, max_bytes)
        except CorosyncError as exc:
            self.lifetime.lose(exc)
            raise self.lifetime.loss() from exc
        finally:
            if self.dispatched:
                self.dispatched.unpark_all()
        self.taken += taken
        return taken, events

    async def complete(self) -> None:  # noqa: ASYNC910 - a checkpoint only if there is much to copy
        """Wait until the events that were taken are complete: huge messages are copied a piece at a time."""
        if self._raw.complete():
            return  # noqa: ASYNC910
        self._completing = True
        with trio.CancelScope(shield=True):  # else events would be lost
            await trio.lowlevel.checkpoint()
            while not self._raw.complete():  # noqa: ASYNC110 - each call copies a piece
                await trio.lowlevel.checkpoint()
        self._completing = False

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, handle: Callable[[Sequence[EventT]], None]) -> None:  # noqa: ASYNC910 - a task of our own
        """Dispatch until the connection ends, whether or not any task receives."""
        lifetime = self.lifetime
        try:
            with trio.CancelScope(shield=True), self.dispatcher():  # noqa: ASYNC912 - `ended` ends it
                while not lifetime.ended:
                    try:
                        await lifetime.park_until_readable()
                        _, events = self.take()
                    except (trio.ClosedResourceError, CorosyncError):
                        return  # noqa: ASYNC910
                    await self.complete()
                    handle(events)
        finally:
            self._served.set()

    # -- the user's block ----------------------------------------------------------------------------------------------

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def serving(
        self,
        handle: Callable[[Sequence[EventT]], None],
        *,
        leave: Callable[[], Awaitable[None]] | None = None,
        beside: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncGenerator[None, None]:
        """Run the user's block: dispatch to `handle` meanwhile, and close the connection at its end.

        An exception from the block comes out as itself. If the connection was lost meanwhile, one `ConnectionLostError`
        (or the error for what this process lacks) comes out, unless the block raised another exception of its own or
        was cancelled from outside. If the connection was cut and no call has raised `SlowConsumerError` yet, the end of
        the block raises it.

        Args:
            handle: takes each batch of events; called on the Trio thread, must not raise.
            leave: called before closing; leaving and closing together may take `GRACE` seconds.
            beside: runs beside the block, and is cancelled at its end or that of the connection; must not raise.
        """
        failure: BaseException | None = None
        task = trio.lowlevel.current_task()
        scope = trio.CancelScope(shield=True)
        over = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, handle)
                if beside is None:
                    over.set()
                else:
                    nursery.start_soon(self._run_beside, beside, scope, over)
                # Exceptions are kept until the nursery is closed, which would wrap them in a group.
                try:
                    with self.lifetime.block:
                        yield
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
                    failure = exc
                scope.cancel()
                try:
                    await self._finish(leave)
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
                    failure = failure or exc
                if trio.lowlevel.current_task() is not task:
                    # An async generator around the block was abandoned, and Trio closes it in a task of its own, or
                    # another task does. In that task a nursery can report the error, but not wait for its children.
                    with trio.CancelScope(shield=True):
                        await self._served.wait()
                        await over.wait()
        except BaseException:  # noqa: ASYNC103 - raised here, or replaced by `failure` below
            # A cancellation that came while the nursery closed, or a bug in `handle`, which has cancelled the block.
            if failure is None or is_cancellation(failure):
                raise
        outcome = self._outcome(failure)
        if outcome is not None:
            raise outcome

    async def _run_beside(
        self, beside: Callable[[], Awaitable[None]], scope: trio.CancelScope, over: trio.Event
    ) -> None:
        try:
            with self.lifetime.cancelled_at_end(scope):
                await beside()
        finally:
            over.set()

    def _outcome(self, failure: BaseException | None) -> BaseException | None:
        """What the block raises, if its body has raised `failure`."""
        if not self.lifetime.lost:
            return failure
        error = self.lifetime.loss()
        if isinstance(error, SlowConsumerError):
            # A slow consumer, which may never have come back for its events.
            return error if failure is None and not self.lifetime.told else failure
        # The user's own nurseries wrap exceptions in groups, and each connection may have raised one of them.
        others = failure
        if isinstance(failure, BaseExceptionGroup):
            failure = cast("BaseExceptionGroup[BaseException]", failure)
            # Python 3.11 takes no bound method here.
            others = failure.split(lambda exc: self._is_same_loss(exc))[1]  # noqa: PLW0108
        if others is None:
            error.__cause__ = failure
            return error
        return others if is_cancellation(others) else failure

    def _is_same_loss(self, exc: BaseException) -> bool:
        """Whether `exc` is the loss of a connection to the same daemon."""
        lifetime = lifetime_of(exc)
        return lifetime is not None and lifetime.daemon == self.lifetime.daemon

    async def _finish(self, leave: Callable[[], Awaitable[None]] | None) -> None:  # noqa: ASYNC910
        """Leave and close within the grace. After it, or if cancelled, both complete in the background."""
        lifetime = self.lifetime
        try:
            with trio.move_on_at(self.requests.grace_ends()):  # noqa: ASYNC912 - in a forked child nothing to wait for
                if leave is not None and not lifetime.ended and not lifetime.forked:
                    await leave()
                lifetime.close(leave=leave is not None)
                if not lifetime.forked:
                    await lifetime.wait_closed()
        finally:
            lifetime.close(leave=leave is not None)


def is_cancellation(exc: BaseException) -> bool:
    """Whether `exc` is nothing but `trio.Cancelled`, in groups or not."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return all(map(is_cancellation, group.exceptions))
    return isinstance(exc, trio.Cancelled)
