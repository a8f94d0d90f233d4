"""Run an async function in a thread and a Trio run of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from typing import Generic, TypeVar

import trio

from ..._errors import naming_descriptors
from ..._workers import no_thread

T = TypeVar("T")

_FDS_OF_A_RUN = 6
"""More than Trio opens for itself. With fewer it fails, and leaves those that it has got to the garbage collector."""

_INTERRUPT_POLL = 0.25
"""Seconds between two checks for a signal, such as an interrupt."""


def require_fds(count: int) -> None:
    """Raise the `OSError` of a process at its limit, unless so many more file descriptors can be opened."""
    with ExitStack() as opened:
        for _ in range(count):
            opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))


class BackgroundRun(Generic[T]):
    """One call of an async function, in a thread of its own that ends with it.

    Synchronous fixtures can wait for it without a Trio run, and tests inside a run whose clock is a virtual one.
    """

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._main, name="triocoro cluster", daemon=True)
        self._cancelled = threading.Event()
        self._running: tuple[trio.lowlevel.TrioToken, trio.CancelScope] | None = None

    def run_blocking(self) -> T:
        """Call the function, and block until it returns.

        An exception that is raised here meanwhile, such as KeyboardInterrupt, cancels the function.
        """
        self._start()
        try:
            # Python handles a signal that arrives just before a wait only after the wait, so no wait is long.
            while not self._future.done():
                wait([self._future], _INTERRUPT_POLL)
            return self._future.result()
        finally:
            self._cancel()
            self._thread.join()

    async def run(self) -> T:
        """Call the function, and wait until it returns. A cancellation cancels the function, and waits for its end."""
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def notify(_: Future[T]) -> None:
            token.run_sync_soon(done.set)

        self._future.add_done_callback(notify)
        self._start()
        try:
            await done.wait()
        finally:
            self._cancel()
            with trio.CancelScope(shield=True):
                await done.wait()
            self._thread.join()
        return self._future.result()

    def _start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError as error:
            raise no_thread(error) from error

    def _cancel(self) -> None:
        self._cancelled.set()
        if self._running is not None and not self._future.done():
            token, scope = self._running
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)

    def _main(self) -> None:
        try:
            with naming_descriptors("NetnsCluster"):
                require_fds(_FDS_OF_A_RUN)
                result = trio.run(self._run)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - the waiting caller raises it
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def _run(self) -> T:
        with trio.CancelScope() as scope:
            self._running = trio.lowlevel.current_trio_token(), scope
            # `_cancel` sets the event before it reads `_running`: it finds the scope, or this finds the event set.
            if self._cancelled.is_set():
                scope.cancel()
            return await self._function()
        raise RuntimeError("cancelled from outside")
