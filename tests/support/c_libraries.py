"""Raw handles over the C libraries: what they hold open in this process, and markers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from support.traces import names_in

of_the_libraries = pytest.mark.corosync_real_only(reason="it is about the C libraries, or our shim over them")


def open_fds() -> int:
    return len(names_in("/proc/self/fd"))


async def poll_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition whose change no event announces."""
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while not condition():  # noqa: ASYNC110 - no event announces it
            await trio.sleep(0.02)


async def cancelled(call: Callable[[], Awaitable[object]]) -> None:
    with trio.move_on_after(0.1) as scope:
        await call()
    assert scope.cancelled_caught
