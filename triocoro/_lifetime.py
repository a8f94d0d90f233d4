"""How a connection ends, and how everything that waits on it finds out.

A connection is open until the first of three ends:

- closed: the program closed it. Calls raise `trio.ClosedResourceError`.
- lost: the daemon died or disconnected us. The scope of the user's block is cancelled, calls raise
  `ConnectionLostError`. If instead this process lacked something, such as memory, they raise the error that names it,
  such as `NoMemoryError`: to connect anew would not help.
- cut: a consumer was too slow, and we disconnected. Calls raise `SlowConsumerError`.

A wait on a connection ends at once when the connection does. It parks in a lot that `Lifetime.add_waiters` registered,
or waits for the fd, which `notify_closing` ends, or runs inside `Lifetime.interruptible`.

The block's scope is cancelled before any task can see the loss. So calls inside the block end with `trio.Cancelled`,
which `Connection.serving` replaces by one `ConnectionLostError`. Tasks outside that scope, or shielded from it, get the
error from the call itself.

Giving up the fd has no checkpoint between marking the connection as ended, `notify_closing`, and forgetting the number:
from then on the worker thread may close the fd at any time, and the kernel may reuse its number.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NoReturn, final
from weakref import WeakKeyDictionary

import trio

from . import _forks, _log
from ._errors import ConnectionLostError, CorosyncError, LibraryError, SlowConsumerError
from ._raw import RawHandle
from ._runs import Run, require_trio

LOOK: Final = 0.03
"""Seconds after which a connection whose fd does not report the end of the daemon is dispatched without an event."""


_numbers = itertools.count()
_origins: Final[WeakKeyDictionary[CorosyncError, Lifetime]] = WeakKeyDictionary()
"""The errors that say how a connection was lost or cut. Not an attribute of theirs, which would be pickled."""
_note: Final[ContextVar[Callable[[Lifetime], object] | None]] = ContextVar("triocoro._lifetime.note", default=None)
"""Called with each new connection."""


def lifetime_of(error: BaseException) -> Lifetime | None:
    """The connection whose loss an error reports; `None` if it reports something else."""
    return _origins.get(error) if isinstance(error, CorosyncError) else None


@contextmanager
def noting_lifetimes() -> Generator[list[Lifetime], None, None]:
    """Collect the connections that are made within the block, also by tasks that it starts."""
    lifetimes: list[Lifetime] = []
    noting = True

    def note(lifetime: Lifetime) -> None:
        if noting:  # a task may outlast the block
            lifetimes.append(lifetime)

    token = _note.set(note)
    try:
        yield lifetimes
    finally:
        noting = False
        _note.reset(token)


@final
class Lifetime:
    """The state of one raw handle: open, closed, lost or cut.

    Args:
        raw: the handle. It is closed through this class only.
        label: names the daemon in error messages.
        daemon: identifies the daemon, as `Endpoint.identity`.
        service: the name of the service.
    """

    def __init__(self, raw: RawHandle[object], label: str, daemon: Hashable, service: str) -> None:
        self.label = label
        self.daemon = daemon
        self.number: int = next(_numbers)
        """Those that were made later have greater ones."""
        self.about: Mapping[str, object] = {"service": service, "daemon": label, "connection": self.number}
        """The connection's attributes of records of the log."""
        self.block: trio.CancelScope = trio.CancelScope()
        """The scope of the user's block; cancelled when the connection is lost."""
        self.count_unconfirmed: Callable[[], int] = int
        """Supplies `ConnectionLostError.unconfirmed`; set by the service."""
        self._raw = raw
        self._fd = raw.fileno()
        self._hangs_up = raw.hangs_up
        self._origin = _forks.Origin()
        self._run = Run()
        self._ended = False
        self._closed = False
        self._make_loss: Callable[[], CorosyncError] | None = None
        self._told = False
        self._scopes: set[trio.CancelScope] = set()
        self._lots: set[trio.lowlevel.ParkingLot] = set()
        note = _note.get()
        if note is not None:
            note(self)
        _log.note(_log.CONNECTION, "connected", self.about, "connected to %s of %s", service, label)

    # -- state ---------------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the program closed the connection."""
        return self._closed

    @property
    def lost(self) -> bool:
        """Whether the connection was lost or cut."""
        return self._make_loss is not None

    @property
    def ended(self) -> bool:
        """Whether the connection was closed, lost or cut."""
        return self._ended

    @property
    def usable(self) -> bool:
        """Whether the connection is open, and of this process and this run."""
        return self._origin.forks == _forks.count and not self._ended and self._run.current

    @property
    def told(self) -> bool:
        """Whether a call has raised the error that says how the connection was lost or cut."""
        return self._told

    @property
    def forked(self) -> bool:
        """Whether this is a child of the process that connected. The handle is the parent's, and stays so."""
        return self._origin.forked

    @property
    def fd(self) -> int:
        """The fd to wait on, while the connection is open."""
        self.check()
        return self._fd

    def describe(self) -> str:
        """Name the daemon, and say how the connection has ended, if it has; for reprs."""
        if self._closed:
            return f"{self.label}, closed"
        return f"{self.label}, lost" if self.lost else self.label

    def loss(self) -> CorosyncError:
        """Return a new error that says how the connection was lost or cut."""
        if self._make_loss is None:
            raise AssertionError("the connection is not lost")
        error = self._make_loss()
        _origins[error] = self
        return error

    def check_process(self) -> None:
        """Raise `RuntimeError` in a child of the process that connected."""
        self._origin.check(f"this connection to {self.label} was opened", "open one here")

    def enter(self) -> None:
        """Let the current run use the connection; the beginning of every async call.

        Raises:
            RuntimeError: this is a child of the process that connected, or no task of Trio, or another run uses it.
        """
        if self._origin.forks != _forks.count:
            self.check_process()
        if self._run.current:
            return
        require_trio()
        if not self._run.over:
            raise RuntimeError(
                f"this connection to {self.label} belongs to another Trio run, in another thread; call it there, with"
                " trio.from_thread.run and that run's trio_token, or open one here"
            )
        # One run after another may use a connection that no block ends, such as a handle of lowlevel.
        self._run.enter()

    def check(self) -> None:
        """Raise if the connection has ended (the first end counts), or belongs to another process."""
        if self._origin.forks == _forks.count and not self._ended:
            return
        self.check_process()
        if self._make_loss is not None:
            self._told = True
            raise self.loss()
        raise trio.ClosedResourceError(f"this connection to {self.label} was closed")

    async def check_async(self) -> None:  # noqa: ASYNC910 - a checkpoint only if the connection has ended
        """`enter`, then `check`, but raise a pending cancellation first: the block's scope is cancelled at a loss."""
        self.enter()
        if self.ended:
            await trio.lowlevel.checkpoint()
        self.check()

    # -- the three ends ------------------------------------------------------------------------------------------------

    def lose(self, cause: CorosyncError) -> None:
        """Note that the connection is broken: cancel the block and wake every wait.

        Args:
            cause: a `LibraryError` if the daemon is gone; any other error is a failure of this process.
        """
        if self.ended:
            return
        unconfirmed = self.count_unconfirmed()
        doubt = f"; {unconfirmed} of our messages had not come back: each may or may not have been delivered"
        text = f"the connection to {self.label} is lost: "
        # Not the cause itself: its traceback leads to messages.
        kind, function, code = type(cause), cause.function, cause.code
        if isinstance(cause, LibraryError):
            text += f"the daemon died or cut us off; connect again once it runs ({cause})" + doubt * bool(unconfirmed)
            self._make_loss = lambda: ConnectionLostError(text, function=function, code=code, unconfirmed=unconfirmed)
        else:
            text += str(cause) + doubt * bool(unconfirmed)
            self._make_loss = lambda: kind(text, function=function, code=code)
        _log.note(_log.CONNECTION, "lost", self.about, "%s", text, error=str(cause), unconfirmed=unconfirmed)
        self._end()
        self.block.cancel()
        self._wake()
        if not self.forked:
            trio.lowlevel.notify_closing(self._fd)

    async def fail(self, cause: CorosyncError) -> NoReturn:
        """Note that a call has found the connection broken, and raise: a cancellation of the block first."""
        self.lose(cause)
        await self.check_async()
        raise AssertionError("a connection that is lost must not pass the check")

    def cut(self, text: str) -> None:
        """Disconnect because a consumer is too slow. Events that it has buffered can still be received."""
        if self.ended:
            return
        _log.note(_log.CONNECTION, "slow_consumer", self.about, "cut off from %s: %s", self.label, text)
        self._make_loss = lambda: SlowConsumerError(text)
        self._end()
        self._wake()
        self._release(reason=text)

    def close(self, *, leave: bool = False) -> None:
        """Close without waiting for the daemon; idempotent.

        Args:
            leave: leave the joined group first.
        """
        if self._closed:
            return
        _log.note(_log.CONNECTION, "closed", self.about, "closed the connection to %s", self.label)
        self._closed = True
        self._end()
        self._wake()
        self._release(leave=leave)

    async def wait_closed(self) -> None:
        """Wait until the daemon knows of the close."""
        await self._raw.wait_closed()

    def _end(self) -> None:
        self._ended = True
        self.count_unconfirmed = int  # it leads to messages, and may be referred to for longer than the connection

    def _wake(self) -> None:
        for scope in self._scopes:
            scope.cancel()
        for lot in self._lots:
            lot.unpark_all()

    def _release(self, *, leave: bool = False, reason: str = "") -> None:
        if self.forked or self._fd < 0:
            return
        trio.lowlevel.notify_closing(self._fd)
        self._fd = -1
        self._raw.close(leave=leave, reason=reason)

    # -- waits ---------------------------------------------------------------------------------------------------------

    def add_waiters(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Unpark all tasks in `lot` when the connection ends."""
        self._lots.add(lot)

    def remove_waiters(self, lot: trio.lowlevel.ParkingLot) -> None:
        """Undo `add_waiters`."""
        self._lots.discard(lot)

    @contextmanager
    def cancelled_at_end(self, scope: trio.CancelScope) -> Generator[None, None, None]:
        """Enter `scope`, and cancel it when the connection ends, or at once if it has ended."""
        if self.ended:
            scope.cancel()
        self._scopes.add(scope)
        try:
            with scope:
                yield
        finally:
            self._scopes.discard(scope)

    @contextmanager
    def interruptible(self) -> Generator[None, None, None]:
        """Within the block, waits end when the connection does, and raise what `check` raises."""
        self.check()
        scope = trio.CancelScope()
        with self.cancelled_at_end(scope):
            yield
        if scope.cancelled_caught:
            self.check()

    async def park_until_readable(self) -> None:  # noqa: ASYNC910 - a checkpoint, however it is left
        """Wait until it makes sense to dispatch: events wait, or the connection is broken, or may be.

        The connection has not ended. If it ends meanwhile, this raises `trio.ClosedResourceError`.
        """
        if self._hangs_up:
            await trio.lowlevel.wait_readable(self._fd)
        else:
            with trio.move_on_after(LOOK):
                await trio.lowlevel.wait_readable(self._fd)

    async def wait_readable(self) -> None:
        """Like `park_until_readable`, but if the connection has ended or ends, raise what `check` raises."""
        self.check()
        try:
            await self.park_until_readable()
        except trio.ClosedResourceError:
            self.check()
            raise

    async def wait_writable(self) -> None:
        """Wait until the daemon has room for notifications of requests again."""
        self.check()
        try:
            await trio.lowlevel.wait_writable(self._fd)
        except trio.ClosedResourceError:
            self.check()
            raise
