"""Shutdowns and refused calls of cfg in tests."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import pytest
import trio

import triocoro
from triocoro import (
    Cfg,
    CmapType,
    ConnectionLostError,
    EventStream,
    ShutdownFlag,
    ShutdownRequest,
)
from triocoro.testing import Node

Requests = EventStream[ShutdownRequest]


async def shut_down_by_itself(node: Node) -> None:
    """A daemon has shut down without being told from the outside; wait for its end."""
    assert f"Node {node.nodeid} was shut down by sysadmin" in node.log
    await node.stop()
    assert not node.running


async def lose(
    opening: AbstractAsyncContextManager[object], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Hold a connection until it is lost."""
    with pytest.raises(ConnectionLostError):
        async with opening:
            task_status.started()
            await trio.sleep_forever()


async def shut_down(flags: ShutdownFlag = ShutdownFlag.REQUEST) -> None:
    """Shut the default node down, and lose the connection, which may happen before the answer is read."""
    with pytest.raises(ConnectionLostError):
        async with triocoro.open_cfg() as cfg:
            await cfg.try_shutdown(flags)
            await trio.sleep_forever()


async def answer(requests: Requests, *, accept: bool, flags: ShutdownFlag = ShutdownFlag.REQUEST) -> None:
    request = await requests.receive()
    assert request.flags is flags
    with suppress(ConnectionLostError):  # the daemon need not wait for us to read that it has heard us
        await request.reply(accept)


@asynccontextmanager
async def shutdown_tracker(*, lasts: bool = True) -> AsyncGenerator[Requests, None]:
    """A connection of its own that is asked; unless it `lasts`, it is lost."""
    try:
        async with triocoro.open_cfg() as cfg, cfg.track_shutdown() as requests:
            yield requests
    except ConnectionLostError:
        assert not lasts


async def set_timeout(milliseconds: int) -> None:
    """How long answers are waited for."""
    async with triocoro.open_cmap() as cmap:
        await cmap.set("cfg.shutdown_timeout", milliseconds, CmapType.UINT32)


async def refused(error: type[BaseException], words: str, call: Callable[[], Awaitable[object]], cfg: Cfg) -> None:
    """It is a clear error, and the connection is as good as before."""
    with pytest.raises(error, match=re.escape(words)):
        await call()
    assert await cfg.local_nodeid() == 1
