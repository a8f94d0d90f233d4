"""The heart: one raw handle, and everything about it that does not depend on the service.

The rules of this file:

- The fd is waited on with Trio; the handle's own dispatch never waits. Whoever dispatches takes a bounded batch, then
  lets others run.
- A connection ends by `close` (we did it), by `lose` (the daemon died) or by `cut` (somebody was too slow). Every wait
  that concerns it goes through `interruptible`, or parks in a lot that is known here, so that it is woken at once.
- `close` has no checkpoint between marking, `notify_closing` and forgetting the fd: the finalize on its worker may
  close the number at any time after, and the kernel may give it to somebody else.
- The scope of the user's block is cancelled before anybody can see the loss: calls inside it end with `Cancelled`, and
  `serving` turns that into one `ConnectionLostError`. Who is outside of it, or shielded, gets the error from the call.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, Generic, NoReturn, TypeVar, cast

import trio

from ._errors import (
    ConnectionLostError,
    CorosyncError,
    CorosyncUnavailableError,
    CsError,
    LibraryError,
    NotExistError,
    SlowConsumerError,
    TryAgainError,
)
from ._raw import RawHandle
from ._services import Endpoint, ServiceSpec

if sys.version_info < (3, 11):
    # Trio depends on it there.
    from exceptiongroup import BaseExceptionGroup

T = TypeVar("T")
EventT = TypeVar("EventT")

BATCH_EVENTS: Final = 256
"""What one dispatch takes at most, before other tasks run."""
BATCH_BYTES: Final = 2**20

GRACE: Final = 1.0
"""Seconds that closing may take when the daemon does not answer."""

_BACKOFF: Final = (0.001, 0.1)
"""Seconds: the first and the longest pause after a try-again."""


async def retry(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat `call` for as long as the daemon says try-again, with capped back-off."""
    delay, longest = _BACKOFF
    while True:
        try:
            return await call()
        except TryAgainError:
            pass
        await trio.sleep(delay)
        delay = min(2 * delay, longest)


async def connect(service: ServiceSpec[T, object], endpoint: Endpoint, *, retrying: bool = True) -> T:
    """Connect to a service; while the daemon is starting, try again if `retrying`."""
    try:
        return await (retry(lambda: endpoint.connect(service)) if retrying else endpoint.connect(service))
    except (LibraryError, NotExistError) as exc:
        # The latter is of a daemon that is about to end, and has removed its files.
        raise CorosyncUnavailableError(
            f"cannot connect to {endpoint.label}: no Corosync daemon answers there; start it, then try again ({exc})",
            function=exc.function,
        ) from exc


class Connection(Generic[EventT]):
    """Owns one raw handle: its dispatching, its requests, its end."""

    def __init__(self, raw: RawHandle[EventT], endpoint: Endpoint) -> None:
        self._raw = raw
        self._fd = raw.fileno()
        self._pid = os.getpid()
        self.label = endpoint.label
        self.scope = trio.CancelScope()
        """The scope of the user's block."""
        self.progress = trio.lowlevel.ParkingLot()
        """Unparked whenever events have been dispatched: what flow control holds up may go on then."""
        self.count_unconfirmed: Callable[[], int] = int
        """What `ConnectionLostError.unconfirmed` is to be; the service sets it."""
        self._serving = trio.CancelScope(shield=True)
        self._dispatching = False
        self._closed = False
        self._loss: Callable[[], CorosyncError] | None = None
        self._told = False
        self._waits: set[trio.CancelScope] = set()
        self._lots = [self.progress]

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether we closed it."""
        return self._closed

    @property
    def lost(self) -> bool:
        """Whether it ended without us."""
        return self._loss is not None

    @property
    def fd(self) -> int:
        """The fd to wait on, while the connection is open."""
        self.check()
        return self._fd

    def check_process(self) -> None:
        """Raise if this is a child of the process that connected: the handle is the parent's, and stays so."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                f"this connection to {self.label} was opened by process {self._pid} and cannot be used in its forked"
                f" child {os.getpid()}; open one here"
            )

    def check(self) -> None:
        """Raise if the connection has ended (how it ended first counts), or belongs to another process."""
        self.check_process()
        if self._loss is not None:
            raise self.loss()
        if self._closed:
            raise trio.ClosedResourceError(f"this connection to {self.label} was closed")

    async def check_async(self) -> None:  # noqa: ASYNC910 - a checkpoint only if there is bad news
        """As `check`, but a cancellation comes first: the block's own scope is cancelled when the daemon dies."""
        if self._closed or self._loss is not None:
            await trio.lowlevel.checkpoint()
        self.check()

    def loss(self) -> CorosyncError:
        """A new error that tells of the loss."""
        if self._loss is None:
            raise AssertionError("the connection is not lost")
        self._told = True
        return self._loss()

    # -- the two ends --------------------------------------------------------------------------------------------------

    def lose(self, cause: CorosyncError) -> None:
        """The daemon is gone: cancel the block, wake everybody."""
        if self._loss is not None or self._closed:
            return
        unconfirmed = self.count_unconfirmed()
        text = f"the connection to {self.label} is lost: the daemon died or cut us off ({cause})"
        if unconfirmed:
            text += f"; {unconfirmed} of our messages had not come back: each may or may not have been delivered"
        self._loss = lambda: ConnectionLostError(
            text, function=cause.function, code=cause.code, unconfirmed=unconfirmed
        )
        self.scope.cancel()
        self._wake()

    def cut(self, text: str) -> None:
        """Disconnect a consumer that is too slow; what it has buffered is still its own."""
        if self._loss is not None or self._closed:
            return
        self._loss = lambda: SlowConsumerError(text)
        self._serving.cancel()
        self._wake()
        self._release()

    def close(self, *, leave: bool = False) -> None:
        """Close, without waiting for the daemon; idempotent. Waiters get `ClosedResourceError`."""
        if self._closed:
            return
        self._closed = True
        self._serving.cancel()
        self._wake()
        self._release(leave=leave)

    async def wait_closed(self) -> None:
        """Wait until the daemon knows of the close."""
        await self._raw.wait_closed()

    def add_waiters(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Unpark `lot` too when the connection ends."""
        self._lots.append(lot)

    def remove_waiters(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Take back what `add_waiters` did."""
        self._lots.remove(lot)

    def _wake(self) -> None:
        for scope in self._waits:
            scope.cancel()
        for lot in self._lots:
            lot.unpark_all()

    def _release(self, *, leave: bool = False) -> None:
        if os.getpid() != self._pid or self._fd < 0:
            return
        trio.lowlevel.notify_closing(self._fd)
        self._fd = -1
        self._raw.close(leave=leave)

    @contextmanager
    def interruptible(self) -> Generator[None, None, None]:
        """Within, waits end when the connection does: with `ClosedResourceError`, or the loss."""
        self.check()
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                yield
            finally:
                self._waits.discard(scope)
        if scope.cancelled_caught:
            self.check()

    # -- requests ------------------------------------------------------------------------------------------------------

    async def request(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        retrying: bool = True,
        explain: Mapping[CsError, str] | None = None,
    ) -> T:
        """Do one round trip, in its turn.

        Args:
            call: the raw handle's method.
            retrying: whether to repeat it on try-again.
            explain: what an error code means here, for the person who reads the message.

        Cancelled: the caller is let go at once; the daemon may still do what was asked.
        """
        await self.check_async()
        try:
            with self.interruptible():
                return await (retry(call) if retrying else call())
        except LibraryError as exc:
            await self.fail(exc)
        except CorosyncError as exc:
            text = (explain or {}).get(exc.code)
            if text is None:
                raise
            raise type(exc)(f"{exc.function}: CS_ERR_{exc.code.name}: {text}", function=exc.function) from None

    async def request_surely(self, call: Callable[[], Awaitable[object]]) -> None:
        """Do one round trip that takes something back: cancelled, it goes on in the background.

        A connection that has ended has taken it back already.
        """
        done = trio.Event()

        async def run() -> None:  # noqa: ASYNC910 - a task of its own
            told = self._told
            try:
                await self.request(call)
            except (CorosyncError, trio.ClosedResourceError):
                # What cannot be taken back is gone, or goes with the connection; and nobody was told of its end here.
                self._told = told
            finally:
                done.set()

        if not self._closed and not self.lost and os.getpid() == self._pid:
            trio.lowlevel.spawn_system_task(run, name=f"triocoro: {self.label}")
            await done.wait()
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def lane(self) -> AsyncGenerator[None, None]:
        """Within, no round trip is under way: the library allows one request at a time on a handle."""
        borrower = object()
        with self.interruptible():
            await self._raw.lane.acquire_on_behalf_of(borrower)
        try:
            self.check()
            yield
        finally:
            self._raw.lane.release_on_behalf_of(borrower)

    async def fail(self, exc: CorosyncError) -> NoReturn:
        """A call has found the connection broken: note it, and raise, the cancellation of the block first."""
        self.lose(exc)
        await self.check_async()
        raise AssertionError("a connection that is lost must not pass the check")

    async def wait_writable(self) -> None:
        """Wait until the daemon takes notifications of requests again."""
        with self.interruptible():
            await trio.lowlevel.wait_writable(self._fd)

    # -- dispatch ------------------------------------------------------------------------------------------------------

    @contextmanager
    def dispatcher(self) -> Generator[None, None, None]:
        """Within, the caller is the one task that dispatches."""
        if self._dispatching:
            raise trio.BusyResourceError(f"another task is dispatching this connection to {self.label}")
        self._dispatching = True
        try:
            yield
        finally:
            self._dispatching = False

    def waiting(self) -> int:
        """How many events wait: the daemon writes one byte for each."""
        self.check()
        return int(struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, b"\0" * 4))[0])

    async def drained(self) -> None:
        """Wait until the connection's own task has taken what waits."""
        while True:
            await trio.lowlevel.checkpoint()
            await self.check_async()
            if not self.waiting():
                return

    def take(self, max_events: int = BATCH_EVENTS, max_bytes: int = BATCH_BYTES) -> tuple[int, Sequence[EventT]]:
        """Take what waits: how many, and the events. Raises `ConnectionLostError` if the connection is broken."""
        self.check()
        try:
            return self._raw.dispatch(max_events, max_bytes)
        except CorosyncError as exc:
            self.lose(exc)
            raise self.loss() from exc
        finally:
            self.progress.unpark_all()

    async def wait_readable(self) -> None:
        """Wait until there is something to take, or the connection is broken."""
        with self.interruptible():
            await trio.lowlevel.wait_readable(self._fd)

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, handle: Callable[[Sequence[EventT]], None]) -> None:  # noqa: ASYNC910 - a task of our own
        """The service's own task: drain always, whether or not anybody receives."""
        with self._serving, self.dispatcher():
            while not self.lost and not self._closed:
                try:
                    taken, events = self.take()
                except ConnectionLostError:
                    return  # noqa: ASYNC910
                handle(events)
                if taken:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._fd)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def serving(
        self, handle: Callable[[Sequence[EventT]], None], *, leave: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncGenerator[None, None]:
        """The user's block: dispatch to `handle` while it runs, and close when it ends.

        What the block raises comes out as itself. If the connection was lost meanwhile, one `ConnectionLostError`
        comes out, unless the block raised something else of its own or was cancelled from the outside. A consumer that
        was cut for being slow, and has not noticed, hears of it here too.

        Args:
            handle: takes each batch of events; called on the Trio thread, must not raise.
            leave: what to do before closing, with `GRACE` seconds for it all.
        """
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve, handle)
                # What is raised in here is kept until the nursery is gone, which would put it into a group.
                try:
                    with self.scope:
                        yield
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
                    failure = exc
                try:
                    await self._finish(leave)
                except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
                    failure = failure or exc
        except BaseException:  # noqa: ASYNC103 - as said:
            # A cancellation that came while the nursery closed, or a bug, which has cancelled the block.
            if failure is None or is_cancellation(failure):
                raise
        outcome = self._outcome(failure)
        if outcome is not None:
            raise outcome

    def _outcome(self, failure: BaseException | None) -> BaseException | None:
        """What the block raises, if its body has raised `failure`."""
        if not self.lost:
            return failure
        told = self._told
        error = self.loss()
        if not isinstance(error, ConnectionLostError):
            # A slow consumer, who may never have come back for its events.
            return error if failure is None and not told else failure
        # Nurseries of the user's own put it into groups, and there may be one of each connection in them.
        others = failure
        if isinstance(failure, BaseExceptionGroup):
            failure = cast("BaseExceptionGroup[BaseException]", failure)
            others = failure.split(ConnectionLostError)[1]
        if others is None:
            error.__cause__ = failure
            return error
        return others if is_cancellation(others) else failure

    async def _finish(self, leave: Callable[[], Awaitable[None]] | None) -> None:  # noqa: ASYNC910
        """Say goodbye within the grace, then close; if cancelled, the rest goes on in the background."""
        try:
            with trio.move_on_after(GRACE):  # noqa: ASYNC912 - in a forked child there is nothing to wait for
                if leave is not None and not self.lost and not self._closed and os.getpid() == self._pid:
                    await leave()
                self.close(leave=leave is not None)
                if os.getpid() == self._pid:
                    await self.wait_closed()
        finally:
            self.close(leave=leave is not None)


def is_cancellation(exc: BaseException) -> bool:
    """Whether `exc` is nothing but `trio.Cancelled`, in groups or not."""
    if isinstance(exc, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", exc)
        return all(map(is_cancellation, group.exceptions))
    return isinstance(exc, trio.Cancelled)
