"""Daemons that talk to their clients by sockets (system.qb_ipc_type: socket), whose fds do not report their death."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing
from support.load import Stopwatch
from support.raw_handles import caught_up, close, joined, multicast, payloads, take

import triocoro
from triocoro import BusyError, ConnectionLostError, LibraryError, Message, TooBigError, TryAgainError, lowlevel
from triocoro._corosync._cpg import CorosyncCpg
from triocoro._corosync._namespaces import Namespaces
from triocoro._enums import IterationType
from triocoro._raw import MulticastStatus
from triocoro._services import CFG, CPG, ICMAP
from triocoro.lowlevel import Dispatch
from triocoro.testing import Cluster, Node

pytestmark = [
    pytest.mark.deadline(30),
    pytest.mark.corosync(nodes=1, extra={"system": ["qb_ipc_type: socket"]}),
    pytest.mark.corosync_real_only(reason="the fake's connections are like those over shared memory"),
]
IN_TIME = 0.1
"""Seconds within which the end of the daemon must be noticed."""
OPENERS: tuple[Callable[[], Any], ...] = (
    lambda: triocoro.open_group("g"),
    triocoro.open_cpg,
    triocoro.open_votequorum,
    triocoro.open_quorum,
    triocoro.open_cmap,
    triocoro.open_cfg,
)


async def raises(error: type[Exception], call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(error):
        await call()


async def test_clients_that_only_wait_notice_the_death(corosync: Node, figure: Any) -> None:
    opened, noticed = 0, dict[int, float]()
    watch = Stopwatch()

    async def wait(number: int, opener: Callable[[], Any]) -> None:
        nonlocal opened
        with pytest.raises(ConnectionLostError):
            async with opener():
                opened += 1
                try:
                    await trio.sleep_forever()
                finally:
                    noticed[number] = watch.seconds

    async with trio.open_nursery() as nursery:
        for number, opener in enumerate(OPENERS):
            nursery.start_soon(wait, number, opener)
        while opened < len(OPENERS):  # noqa: ASYNC110 - of tasks of ours
            await trio.sleep(0.01)
        watch = Stopwatch()
        await corosync.kill()
    slowest = max(noticed.values())
    figure("kill -9 to cancellation of the slowest body, with sockets", f"{slowest * 1000:.1f} ms")
    assert slowest < IN_TIME


async def test_lowlevel_dispatchers_notice_the_death(corosync: Node) -> None:
    async def wait(handle: lowlevel.CpgHandle, kind: Dispatch) -> None:
        with pytest.raises(ConnectionLostError):
            await handle.dispatch(kind)

    handles = [await lowlevel.cpg_initialize() for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for handle, kind in zip(handles, (Dispatch.ONE, Dispatch.BLOCKING), strict=True):
            nursery.start_soon(wait, handle, kind)
        await trio.testing.wait_all_tasks_blocked()
        await corosync.stop()
    for handle in handles:
        await handle.finalize()


async def test_calls_notice_the_death(corosync: Node) -> None:
    """Those too whose result the libraries make up when no reply comes, or that wait for one for ever."""
    cpg, cfg = await corosync.endpoint.connect(CPG), await corosync.endpoint.connect(CFG)
    cmap = await corosync.endpoint.connect(ICMAP)
    await cpg.join(b"g")
    await corosync.freeze()
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: cpg.iterate(IterationType.ALL, None),
        lambda: cfg.kill_node(1, "test"),
        lambda: cmap.get("totem.token"),
    )

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(raises, LibraryError, call)
        await trio.testing.wait_all_tasks_blocked()
        await corosync.kill()
    await raises(LibraryError, lambda: cpg.zcb_alloc(100))
    await raises(LibraryError, lambda: cpg.multicast_fragmented(bytes(2**21)))
    with pytest.raises(LibraryError):
        cpg.multicast([b"x"])
    with pytest.raises(LibraryError):
        cpg.dispatch(1, 1)
    await close(cpg, cfg, cmap)


async def test_waiting_events_are_counted(corosync: Node) -> None:
    handle, other = await joined(corosync.endpoint), await joined(corosync.endpoint, b"other")
    assert not handle.hangs_up
    assert handle.waiting() == 0
    sizes = (1, 100_000, 10, 1)
    await multicast(handle, *map(bytes, sizes))
    await handle.local_nodeid()  # the daemon has taken them
    await caught_up(other)
    assert [(handle.waiting(), handle.dispatch(1, 1)[0]) for _ in range(5)] == [(4, 1), (3, 1), (2, 1), (1, 1), (0, 0)]
    await close(handle, other)


async def test_dispatching_all_takes_what_waits(corosync: Node) -> None:
    received: list[bytes] = []

    async def deliver(message: Message) -> None:
        received.append(message.payload)
        await handle.mcast_joined(b"another")

    handle = await lowlevel.cpg_initialize(deliver=deliver)
    other = await joined(corosync.endpoint, b"other")
    await handle.join("g")
    await handle.mcast_joined(b"1")
    await handle.mcast_joined(b"2")
    await handle.local_get()  # the daemon has taken them
    await caught_up(other)
    await handle.dispatch(Dispatch.ALL)
    assert received == [b"1", b"2"]
    await handle.finalize()
    await close(other)


async def test_large_messages(corosync: Node) -> None:
    async with triocoro.open_group("g", endpoint=corosync.endpoint) as group:
        for size in (1_000_000, 3_000_000):
            assert (await group.send_and_wait(bytes(size))).payload == bytes(size)


async def test_cfg_handle_that_has_replied_is_not_asked_once_it_is_closed(corosync: Node) -> None:
    """The library leaves two sockets of it open, so the daemon does not notice the close."""
    before = cfg_sockets()
    tracker = await corosync.endpoint.connect(CFG)
    await tracker.trackstart()
    async with triocoro.open_cfg() as cfg:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raises, BusyError, cfg.try_shutdown)
            await take(tracker, 1)
            await tracker.reply_to_shutdown(accept=False)
        await close(tracker)
        with suppress(ConnectionLostError):
            await cfg.try_shutdown()
    left = cfg_sockets() - before
    assert len(left) == 2
    for fd in left:
        os.close(fd)


def cfg_sockets() -> set[int]:
    """Our fds of connections to the cfg service."""
    found: set[int] = set()
    fds = list(Path("/proc/self/fd").iterdir())
    sockets = [int(fd.name) for fd in fds if fd.is_socket()]
    for fd in sockets:
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as end:
            if end.family == socket.AF_UNIX and "cfg" in repr(end.getpeername()):
                found.add(fd)
    return found


async def test_messages_that_exceed_the_sockets() -> None:
    """As with the kernel's defaults, which apply to both ends; the library would call the connection broken."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
    connection = SimpleNamespace(handle=0, fd=ends[0].fileno(), max_message_size=2**20)
    handle = CorosyncCpg(cast("Any", connection), trio.CapacityLimiter(1), Namespaces(None))
    assert 199_000 < handle.max_atomic_message_size < 200_000
    for size in (200_000, 2**21):
        with pytest.raises(TooBigError, match=r"take 19\d+; .* net.core.wmem_max"):
            await handle.multicast_fragmented(bytes(size))
    for end in ends:
        end.close()


@asynccontextmanager
async def frozen(node: Node) -> AsyncGenerator[None, None]:
    await node.freeze()
    try:
        yield
    finally:
        await node.thaw()


async def test_frozen_daemon(corosync: Node) -> None:
    """Waiting costs next to no CPU; the library says "try again" once the sockets are full; nothing is lost."""
    handle = await joined(corosync.endpoint)
    async with triocoro.open_votequorum() as votequorum:
        async with frozen(corosync):
            sent, status = 0, MulticastStatus.SENT
            while status is MulticastStatus.SENT:
                count, status = handle.multicast([b"%d" % (sent + index) for index in range(10)])
                sent += count
            assert status is MulticastStatus.TRY_AGAIN
            cpu, watch = time.process_time(), Stopwatch()
            with trio.move_on_after(0.5) as scope:
                await votequorum.info()
            assert scope.cancelled_caught
            assert watch.seconds < 0.5 + IN_TIME
            assert time.process_time() - cpu < 0.1
        assert payloads((await caught_up(handle))[0]) == [b"%d" % number for number in range(sent)]
        assert (await votequorum.info()).nodeid == 1
    await close(handle)


async def test_lowlevel_reports_flow_control(corosync: Node) -> None:
    handle = await lowlevel.cpg_initialize()
    await handle.join("g")
    async with frozen(corosync):
        with pytest.raises(TryAgainError):
            while True:
                await handle.mcast_joined(bytes(100_000))
    await handle.finalize()


@pytest.mark.corosync(nodes=2)
async def test_slow_reader_loses_nothing(corosync_cluster: Cluster) -> None:
    messages = [b"%d" % number for number in range(2000)]
    async with (
        triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint, receive=False) as sender,
        triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as reader,
    ):
        await sender.send_batch(messages)
        received: list[bytes] = []
        while len(received) < len(messages):
            events = await reader.receive_batch(max_events=100)
            received += [event.payload for event in events if isinstance(event, Message)]
    assert received == messages
