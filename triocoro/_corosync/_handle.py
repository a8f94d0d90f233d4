"""What the handles of all services share: dispatch, round trips on a worker thread, undoing, closing."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import trio

from .._errors import BadHandleError, CsError
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
    """A call on a worker thread that is undone if its caller was cancelled before it was over."""

    def __init__(self, call: Callable[[], T], undo: Callable[[T], object]) -> None:
        self._call = call
        self._undo = undo
        self._lock = threading.Lock()
        self._abandoned = False
        self._result: list[T] = []

    def run(self) -> T:
        """On the worker: make the call; undo it, if nobody waits for it any more."""
        result = self._call()
        with self._lock:
            self._result.append(result)
            abandoned = self._abandoned
        if abandoned:
            self._undo(result)
        return result

    def abandon(self) -> list[T]:
        """On the caller's thread: nobody waits. A result that it returns was too late for `run` to undo."""
        with self._lock:
            self._abandoned = True
            return self._result


async def run_undoable(
    trip: Undoable[T],
    around: Callable[[Callable[[], T]], T],
    undo_late: Callable[[T], object],
    lane: trio.CapacityLimiter,
) -> T:
    """Run `around(trip.run)` on a worker; a cancelled caller returns at once, and what the call did is undone.

    Where the call was over before the cancellation, yet Trio had not heard of it, `undo_late` is called here instead.
    """
    try:
        return await trio.to_thread.run_sync(around, trip.run, abandon_on_cancel=True, limiter=lane)
    except BaseException:
        for result in trip.abandon():
            undo_late(result)
        raise


def in_background(call: Callable[[], object], done: Callable[[], object] | None = None) -> None:
    """`call` on a worker thread that outlives the run if it must, then `done` there. Nobody hears of errors."""

    def deliver(_: object) -> None:
        if done is not None:
            done()

    trio.lowlevel.start_thread_soon(call, deliver, "triocoro")


class CorosyncHandle(ABC, Generic[EventT_co]):
    """One handle of one of the libraries."""

    library: ClassVar[Library]
    dispatch_function: ClassVar[str]

    def __init__(self, connection: LibraryConnection, lane: trio.CapacityLimiter, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._handle = connection.handle
        self._fd = connection.fd
        self._lane = lane
        self._token = trio.lowlevel.current_trio_token()
        # Worker threads hold this while they are in C. The lane cannot serve for it: it belongs to the run, which may
        # be over while a thread still waits for a frozen daemon.
        self._in_c = threading.Lock()
        self._failure: int | None = None
        self._closing = False
        self._closed = False
        self._closed_event = trio.Event()

    @property
    def lane(self) -> trio.CapacityLimiter:
        return self._lane

    def fileno(self) -> int:
        return self._fd

    # --- dispatch ---

    @abstractmethod
    def _decode(self, arena: Arena) -> Sequence[EventT_co]:
        """The events in the arena. An exception here would lose events, so there must be none."""

    @trio.lowlevel.enable_ki_protection
    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[EventT_co]]:
        if self._failure is not None:
            raise failure(self._failure, self.dispatch_function)
        arena = _arena.borrow()
        try:
            code = lib.tc_dispatch(self.library.index, self._handle, arena, max_events, max_bytes)
            taken = arena.taken
            events: Sequence[EventT_co] = self._decode(arena) if arena.count else ()
        except BaseException:  # pragma: no cover # out of memory: what was taken is lost, so this handle is done for
            self._failure = CsError.NO_MEMORY
            raise
        finally:
            _arena.give_back(arena)
        if code not in _QUIET:
            self._failure = code
            if not taken:
                raise failure(code, self.dispatch_function)
        return taken, events

    # --- round trips ---

    def _exclusively(self, call: Callable[[], T]) -> T:
        """On a worker: `call`, once no other worker is in C with this handle, and only while it is open."""
        with self._in_c:
            if self._closing:
                raise BadHandleError("the handle was closed")
            return call()

    async def _trip(self, call: Callable[[], T]) -> T:
        """`call` on a worker, when the lane is free."""
        return await trio.to_thread.run_sync(self._exclusively, call, abandon_on_cancel=True, limiter=self._lane)

    async def _request(self, function: str, call: Callable[[], int]) -> None:
        """A round trip that yields nothing but its code."""
        code = await self._trip(call)
        if code != CsError.OK:
            raise failure(code, function)

    @trio.lowlevel.enable_ki_protection
    async def _undoable(self, call: Callable[[], T], undo: Callable[[T], object]) -> T:
        """`call` on a worker, when the lane is free; if the caller is cancelled, `undo` there of what it did."""

        def undo_late(result: T) -> None:
            trio.lowlevel.spawn_system_task(self._late, partial(undo, result))

        return await run_undoable(Undoable(call, undo), self._exclusively, undo_late, self._lane)

    async def _late(self, call: Callable[[], object]) -> None:  # noqa: ASYNC910 - suppress hides the checkpoint
        """`call` on a worker, when the lane is free, for a caller who is gone."""
        with contextlib.suppress(BadHandleError):  # closed in the meantime, which is as good
            await self._trip(call)

    # --- closing ---

    def _finalize(self, *, leave: bool) -> None:
        """Finalize the handle; on a worker, and nobody else uses it any more."""
        del leave
        lib.tc_finalize(self.library.index, self._handle)

    def close(self, *, leave: bool = False) -> None:
        if self._closing:
            return
        self._closing = True
        in_background(partial(self._finalize_last, leave=leave), self._note_closed)

    def _finalize_last(self, *, leave: bool) -> None:
        with self._in_c:
            self._finalize(leave=leave)

    def _note_closed(self) -> None:
        self._closed = True
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._closed_event.set)

    async def wait_closed(self) -> None:
        await self._closed_event.wait()

    @property
    def closed(self) -> bool:
        return self._closed


def retry_briefly(call: Callable[[], int], attempts: int = 100) -> int:
    """On a worker: repeat `call` while the daemon is under flow control, for a second or so."""
    code = call()
    while code == CsError.TRY_AGAIN and attempts:
        time.sleep(0.01)
        attempts -= 1
        code = call()
    return code
