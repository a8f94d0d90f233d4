"""The base class of all handles: dispatch, round trips on a worker thread, undoing, closing."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import trio

from .._backoff import retry
from .._enums import CsError
from .._errors import BadHandleError, CorosyncError, NoResourcesError
from .._runs import Latch, Run
from .._workers import in_background, on_worker
from . import _arena
from ._libraries import Library, failure
from ._namespaces import Namespaces
from ._shim import lib

if TYPE_CHECKING:
    from ._shim import Arena, LibraryConnection

T = TypeVar("T")
EventT_co = TypeVar("EventT_co", covariant=True)

_QUIET = (CsError.OK, CsError.TRY_AGAIN)


class Undoable(Generic[T]):
    """A call on a worker thread that is undone if its caller is cancelled before it returns.

    The call returns on the worker while the caller may be cancelled on the Trio thread. Whichever of `run` and
    `abandon` comes second notices, and sees to it that the call is undone: exactly once.
    """

    def __init__(self, call: Callable[[], T], undo: Callable[[T], object]) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._abandoned = False
        self._result: list[T] = []

    def run(self) -> T:
        """On the worker: make the call, and undo it if it was abandoned meanwhile."""
        result = self._call()
        with self._lock:
            self._result.append(result)
            abandoned = self._abandoned
        if abandoned:
            self._undo(result)
        return result

    def abandon(self) -> list[T]:
        """On the caller's thread: give up waiting. Returns the result, which the caller must undo, if `run` is over."""
        with self._lock:
            self._abandoned = True
            return self._result


async def run_undoable(
    trip: Undoable[T],
    around: Callable[[Callable[[], T]], T],
    undo_late: Callable[[T], object],
    lane: trio.CapacityLimiter,
) -> T:
    """Run `around(trip.run)` on a worker. If cancelled, return at once, and undo the call.

    The worker undoes it. If the call had returned already, and only Trio had not noticed, `undo_late` is called here.
    """
    try:
        return await on_worker(partial(around, trip.run), lane)
    except BaseException:
        for result in trip.abandon():
            undo_late(result)
        raise


class CorosyncHandle(ABC, Generic[EventT_co]):
    """One handle of one of the libraries.

    Calls that may wait for the daemon run on a worker thread, one at a time. Dispatch and multicast do not wait; they
    run on the Trio thread.
    """

    library: ClassVar[Library]
    dispatch_function: ClassVar[str]

    def __init__(self, connection: LibraryConnection, lane: trio.CapacityLimiter, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._handle = connection.handle
        self._fd = connection.fd
        self._hangs_up = not lib.tc_is_datagram(self._fd)
        self._lane = lane
        self._run = Run()
        # Held by a worker thread while it is in C. The lane cannot do this: it belongs to the run, which may be over
        # while a thread still waits for a frozen daemon.
        self._in_c = threading.Lock()
        self._failure: int | None = None
        self._closing = False
        self._closed = Latch()

    @property
    def lane(self) -> trio.CapacityLimiter:
        if not self._run.current:
            # The run that it belonged to is over, and may have left a call in it, which will not release it any more.
            self._run = Run()
            self._lane = trio.CapacityLimiter(1)
        return self._lane

    def fileno(self) -> int:
        return self._fd

    @property
    def hangs_up(self) -> bool:
        return self._hangs_up

    def waiting(self) -> int:
        return lib.tc_waiting(self._fd)

    # --- dispatch ---

    @abstractmethod
    def _decode(self, arena: Arena) -> Sequence[EventT_co]:
        """Decode the events in the arena. Must not raise: events would be lost."""

    def _note_without_callback(self) -> None:
        """Take note that the library called no callback for an event that was dispatched."""

    @trio.lowlevel.enable_ki_protection
    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[EventT_co]]:
        if self._failure is not None:
            raise failure(self._failure, self.dispatch_function)
        events: Sequence[EventT_co] = ()
        try:
            arena = _arena.borrow()
            try:
                code = lib.tc_dispatch(self.library.index, self._handle, arena, max_events, max_bytes)
                taken = arena.taken
                if taken != arena.count:
                    self._note_without_callback()
                if arena.count:
                    events = self._decode(arena)
            finally:
                _arena.give_back(arena)
        except MemoryError:  # events are lost, so this handle is of no use any more
            code, taken = CsError.NO_MEMORY, 0
        if code not in _QUIET:
            self._failure = code
            if not taken:
                raise failure(code, self.dispatch_function)
        return taken, events

    def complete(self) -> bool:
        return True

    # --- round trips ---

    def _exclusively(self, call: Callable[[], T]) -> T:
        """On a worker: run `call`, once no other worker is in C with this handle. Raises if the handle is closed."""
        with self._in_c:
            if self._closing:
                raise BadHandleError("the handle was closed")
            return call()

    async def _trip(self, call: Callable[[], T]) -> T:
        """Run `call` on a worker, once the lane is free."""
        return await on_worker(partial(self._exclusively, call), self.lane)

    async def _request(self, function: str, call: Callable[[], int]) -> None:
        """Do a round trip whose only result is a code; raise if it is not OK."""
        code = await self._trip(call)
        if code != CsError.OK:
            raise failure(code, function)

    @trio.lowlevel.enable_ki_protection
    async def _undoable(self, call: Callable[[], T], undo: Callable[[T], object]) -> T:
        """Run `call` on a worker, once the lane is free. If the caller is cancelled, `undo` its result on a worker."""

        def undo_late(result: T) -> None:
            trio.lowlevel.spawn_system_task(self._late, partial(undo, result))

        return await run_undoable(Undoable(call, undo), self._exclusively, undo_late, self.lane)

    async def _late(self, call: Callable[[], object]) -> None:  # noqa: ASYNC910 - a task of its own
        """Run `call` on a worker, once the lane is free, after its caller was cancelled."""
        with contextlib.suppress(CorosyncError):  # closing the handle, after which it refuses, undoes the call
            await retry(partial(self._trip, call), (NoResourcesError,))

    # --- closing ---

    def _finalize(self, *, leave: bool) -> None:
        """On a worker: finalize the handle. No other call uses it any more."""
        del leave
        lib.tc_finalize(self.library.index, self._handle)

    def close(self, *, leave: bool = False, reason: str = "") -> None:  # noqa: ARG002 - for handles that record
        if self._closing:
            return
        self._closing = True
        # Without a thread for now, the daemon must learn of our end nevertheless: it would keep us as a member, and our
        # events in its memory.
        in_background(
            partial(self._finalize_last, leave=leave), self._closed.set, if_delayed=partial(lib.tc_hang_up, self._fd)
        )

    def _finalize_last(self, *, leave: bool) -> None:
        with self._in_c:
            self._finalize(leave=leave)

    async def wait_closed(self) -> None:
        await self._closed.wait()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()


def retry_briefly(call: Callable[[], int], attempts: int = 100) -> int:
    """On a worker: repeat `call` for about a second while it returns TRY_AGAIN."""
    code = call()
    while code == CsError.TRY_AGAIN and attempts:
        time.sleep(0.01)
        attempts -= 1
        code = call()
    return code
