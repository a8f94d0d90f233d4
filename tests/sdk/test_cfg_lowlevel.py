"""Handles of cfg through lowlevel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address

import pytest
import trio
from support.cfg import set_timeout, shut_down, shut_down_by_itself, shutdown_tracker
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    BusyError,
    ConnectionLostError,
    RingStatus,
    ShutdownFlag,
    TryAgainError,
    lowlevel,
)
from triocoro.lowlevel import CfgHandle, Dispatch
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(30)


async def request_shutdowns(handle: CfgHandle, count: int) -> None:
    """Have that many requests wait for a handle that tracks; each is refused, unread."""
    async with triocoro.open_cfg() as cfg, shutdown_tracker() as other:

        async def refuse() -> None:
            # Once another one is asked, so is the handle; before, an answer would go nowhere.
            request = await other.receive()
            await handle.replyto_shutdown(accept=False)
            await request.reply(accept=False)

        for _ in range(count):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refuse)
                with pytest.raises(BusyError):
                    await cfg.try_shutdown()


async def test_a_handle_that_has_answered_leaves_nothing_behind(corosync: Node) -> None:
    """libcfg forgets to let go of it, and the daemon would wait for its answers for as long as our process lives."""
    await set_timeout(100)
    handle = await lowlevel.cfg_initialize()
    await handle.trackstart()
    await request_shutdowns(handle, 1)
    await handle.finalize()
    await shut_down()
    await shut_down_by_itself(corosync)


async def test_every_call_of_a_handle(corosync: Node) -> None:
    handle = await lowlevel.cfg_initialize(context="mine")
    assert handle.context == "mine"
    assert await handle.local_get() == 1
    assert (await handle.node_status_get(1)).reachable
    assert await handle.ring_status_get() == (RingStatus("0 192.0.2.1", "n"),)
    assert await handle.get_node_addrs(0) == await handle.get_node_addrs(1) == (IPv4Address("192.0.2.1"),)
    await handle.reload_config()
    await handle.reopen_log_files()
    # Stopping what was not started, answering what was not asked, and starting twice, are no errors.
    await handle.trackstop()
    await handle.replyto_shutdown(accept=True)
    await handle.trackstart()
    await handle.trackstart()
    with pytest.raises(TryAgainError):
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
    other = await lowlevel.cfg_initialize()
    with suppress(ConnectionLostError):
        await other.try_shutdown(ShutdownFlag.IMMEDIATE)
    with pytest.raises(ConnectionLostError):
        await other.dispatch(Dispatch.BLOCKING)
    await other.finalize()
    await handle.finalize()
    with pytest.raises(trio.ClosedResourceError):
        await handle.local_get()
    await shut_down_by_itself(corosync)


@asynccontextmanager
async def tracking(callback: Callable[[ShutdownFlag], Awaitable[object]]) -> AsyncGenerator[CfgHandle, None]:
    handle = await lowlevel.cfg_initialize(shutdown_callback=callback)
    try:
        await handle.trackstart()
        yield handle
    finally:
        with trio.CancelScope(shield=True):
            await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_dispatch_all_and_one_nonblocking() -> None:
    heard: list[ShutdownFlag] = []

    async def callback(flags: ShutdownFlag) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(flags)

    async with tracking(callback) as handle:
        await handle.dispatch(Dispatch.ALL)
        assert heard == []
        await request_shutdowns(handle, 4)
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        assert heard == [ShutdownFlag.REQUEST]
        await handle.dispatch(Dispatch.ALL)
        assert heard == [ShutdownFlag.REQUEST] * 4
        with pytest.raises(TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)


@pytest.mark.usefixtures("corosync")
async def test_dispatch_one_and_blocking() -> None:
    heard: list[ShutdownFlag] = []

    async def callback(flags: ShutdownFlag) -> None:
        heard.append(flags)
        # A callback may use its own handle.
        await handle.replyto_shutdown(accept=False)
        if len(heard) == 3:
            await handle.finalize()

    async with tracking(callback) as handle, triocoro.open_cfg() as cfg:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.ONE)
            await wait_all_tasks_blocked()
            with pytest.raises(BusyError):
                await cfg.try_shutdown()
        assert len(heard) == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.BLOCKING)
            for _ in range(2):
                with pytest.raises(BusyError):
                    await cfg.try_shutdown()
        assert len(heard) == 3


@pytest.mark.usefixtures("corosync")
async def test_which_clients_are_told_of_a_timeout() -> None:
    """A second request, which looks like the first: only for who has tried a shutdown on the same connection."""
    heard: list[str] = []

    def note(name: str) -> Callable[[ShutdownFlag], Awaitable[None]]:
        async def callback(flags: ShutdownFlag) -> None:
            await trio.lowlevel.checkpoint()
            heard.append(f"{name} {flags.name}")

        return callback

    await set_timeout(100)
    async with tracking(note("tracker")) as tracker, tracking(note("asker")) as asker:
        for flags in (ShutdownFlag.REQUEST, ShutdownFlag.REQUEST):
            with pytest.raises(BusyError):
                await asker.try_shutdown(flags)
            await asker.dispatch(Dispatch.ONE)
            await tracker.dispatch(Dispatch.ALL)
            assert heard == ["asker REQUEST", "tracker REQUEST"]
            heard.clear()
