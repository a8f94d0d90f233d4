"""Trio runs in threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable

import trio

PATIENCE = 10.0
"""Seconds that a thread may take to come by a place."""


def run_in_threads(*functions: Callable[[], Awaitable[object]]) -> None:
    """Call each async function in a Trio run in a thread of its own, and raise the first error once all have ended."""
    errors: list[BaseException] = []

    async def bounded(function: Callable[[], Awaitable[object]]) -> None:
        with trio.fail_after(PATIENCE):
            await function()

    def run(function: Callable[[], Awaitable[object]]) -> None:
        try:
            trio.run(bounded, function)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised below
            errors.append(error)

    _join([threading.Thread(target=run, args=(function,), daemon=True) for function in functions])
    if errors:
        raise errors[0]


def _join(threads: Iterable[threading.Thread]) -> None:
    threads = list(threads)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * PATIENCE)
        assert not thread.is_alive()


async def reached(place: threading.Event | threading.Barrier) -> None:
    """Wait until another thread has come by a place, or until all have."""

    def wait() -> None:
        if isinstance(place, threading.Barrier):
            place.wait(PATIENCE)
        else:
            assert place.wait(PATIENCE)

    await trio.to_thread.run_sync(wait, abandon_on_cancel=True)
