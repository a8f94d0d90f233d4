"""Run an async function in a Trio run of its own, from wherever one is."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

_GLANCE = 0.25
"""Seconds between two looks for an interrupt."""


class Apart(Generic[T]):
    """An async function, run once, by a thread that lives just as long.

    So it can be waited for without a Trio run, as fixtures do, and inside one whose clock is not the wall's.
    """

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self._future: Future[T] = Future()
        self._thread = threading.Thread(target=self._main, name="triocoro cluster", daemon=True)
        self._cancelled = threading.Event()
        self._running: tuple[trio.lowlevel.TrioToken, trio.CancelScope] | None = None

    def run_blocking(self) -> T:
        """Run it, and block until it is over. An exception in between, such as KeyboardInterrupt, cancels it."""
        self._thread.start()
        try:
            # A signal that comes just before a wait is handled only after it.
            while not self._future.done():
                wait([self._future], _GLANCE)
            return self._future.result()
        finally:
            self._cancel()
            self._thread.join()

    async def run(self) -> T:
        """Run it, and wait until it is over. Cancelling this cancels it, and waits for its end."""
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def tell(_: Future[T]) -> None:
            token.run_sync_soon(done.set)

        self._future.add_done_callback(tell)
        self._thread.start()
        try:
            await done.wait()
        finally:
            self._cancel()
            with trio.CancelScope(shield=True):
                await done.wait()
            self._thread.join()
        return self._future.result()

    def _cancel(self) -> None:
        self._cancelled.set()
        if self._running is not None and not self._future.done():
            token, scope = self._running
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(scope.cancel)

    def _main(self) -> None:
        try:
            result = trio.run(self._run)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - whoever waits gets it
            self._future.set_exception(error)
        else:
            self._future.set_result(result)

    async def _run(self) -> T:
        with trio.CancelScope() as scope:
            self._running = trio.lowlevel.current_trio_token(), scope
            # Either this sees that it was set, or whoever set it has seen `_running`.
            if self._cancelled.is_set():
                scope.cancel()
            return await self._function()
        raise RuntimeError("cancelled from outside")
