"""Raw handles over the C libraries: what they hold open in this process, and markers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

of_the_libraries = pytest.mark.corosync_real_only(reason="it is about the C libraries, or our shim over them")


def open_fds() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    """For what nobody tells."""
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while not condition():  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.02)


async def cancelled(call: Callable[[], Awaitable[object]]) -> None:
    with trio.move_on_after(0.1) as scope:
        await call()
    assert scope.cancelled_caught
