"""A handle at the raw seam: its fd, its bounds, and what becomes of it when the daemon stands still or dies."""

from __future__ import annotations

import os
import select
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
import trio.testing
from support.raw_handles import (
    CAUGHT_UP,
    EVERYTHING,
    caught_up,
    close,
    closed,
    given_up,
    joined,
    multicast,
    payloads,
    poll,
    take_until,
)

from triocoro._errors import LibraryError
from triocoro._raw import MulticastStatus, RawCpg
from triocoro._services import CPG
from triocoro._types import Address, Message
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


async def until_waiting(handle: RawCpg, count: int) -> None:
    """Until that many events are there to be taken."""
    while handle.waiting() < count:
        # The daemon handles requests in order, so by the answer it has taken them; the ring brings them back.
        await handle.local_nodeid()


async def test_the_fd_counts_events(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(CPG)
    assert poll(handle) == select.POLLOUT
    await handle.join(b"g")
    handle.multicast([b"a", b"b"])
    await until_waiting(handle, 3)
    assert poll(handle) == select.POLLIN | select.POLLOUT
    assert handle.dispatch(2, EVERYTHING)[0] == 2
    assert handle.waiting() == 1
    assert payloads(handle.dispatch(EVERYTHING, EVERYTHING)[1]) == [b"b"]
    assert poll(handle) == select.POLLOUT
    await close(handle)


@pytest.mark.corosync(extra={"system": ["qb_ipc_type: socket"]})
async def test_fds_of_the_fake_always_hang_up(corosync: Node, corosync_mode: str) -> None:
    handle = await corosync.endpoint.connect(CPG)
    assert handle.hangs_up is (corosync_mode == "fake")
    await close(handle)


async def test_the_bounds_of_a_dispatch(corosync: Node) -> None:
    handle = await joined(corosync.endpoint)
    handle.multicast([b"x" * 10] * 5)
    await until_waiting(handle, 5)
    bounds = ((0, EVERYTHING), (EVERYTHING, 0), (EVERYTHING, 10), (EVERYTHING, 15), (EVERYTHING, 15))
    assert [handle.dispatch(*bound)[0] for bound in bounds] == [0, 1, 2, 2, 0]
    await close(handle)


async def test_a_slow_reader_loses_nothing(corosync_cluster: Cluster) -> None:
    """Nor does it count more events than the socket holds bytes."""
    sender = await joined(corosync_cluster[1].endpoint)
    reader = await joined(corosync_cluster[2].endpoint)
    messages = [b"%d" % number for number in range(2000)]
    for start in range(0, len(messages), 50):
        await multicast(sender, *messages[start : start + 50])
        await caught_up(sender)
    assert 0 < reader.waiting() < 2000
    received: list[bytes] = []
    while len(received) < 2000:
        await trio.lowlevel.wait_readable(reader.fileno())
        received += [payload for payload in payloads(reader.dispatch(7, EVERYTHING)[1]) if payload != CAUGHT_UP]
    assert received == messages
    await close(sender, reader)


async def test_events_that_wait_in_a_frozen_daemon_come_after_the_thaw(corosync: Node) -> None:
    """The ring of events holds two of five; the others are in the daemon, which sends no more of them meanwhile."""
    handle = await joined(corosync.endpoint)
    other = await joined(corosync.endpoint, b"other")
    messages = [bytes([number]) * 400_000 for number in range(5)]
    await multicast(handle, *messages)
    await handle.local_nodeid()
    await caught_up(other)
    assert handle.waiting() == 2
    await corosync.freeze()
    assert payloads(handle.dispatch(EVERYTHING, EVERYTHING)[1]) == messages[:2]
    assert handle.dispatch(EVERYTHING, EVERYTHING)[0] == 0
    await corosync.thaw()
    assert (
        payloads(await take_until(handle, lambda event: isinstance(event, Message) and event.payload == messages[4]))
        == (messages[2:])
    )
    await close(handle, other)


async def test_a_frozen_daemon_takes_what_the_socket_holds(corosync: Node) -> None:
    handle = await joined(corosync.endpoint)
    await corosync.freeze()
    sent, status = 0, MulticastStatus.SENT
    while status is MulticastStatus.SENT:
        count, status = handle.multicast([b"%d" % (sent + index) for index in range(10)])
        sent += count
    assert status is MulticastStatus.FULL
    assert 64 <= sent <= 278
    assert not poll(handle) & select.POLLOUT
    assert handle.dispatch(EVERYTHING, EVERYTHING)[0] == 0
    await corosync.thaw()
    await trio.lowlevel.wait_writable(handle.fileno())
    assert payloads((await caught_up(handle))[0]) == [b"%d" % number for number in range(sent)]
    await close(handle)


async def test_a_frozen_daemon_takes_what_the_ring_of_requests_holds(corosync: Node) -> None:
    handle = await joined(corosync.endpoint)
    await corosync.freeze()
    large = bytes(400_000)
    assert handle.multicast([large] * 4) == (2, MulticastStatus.TRY_AGAIN)
    assert handle.multicast([b"small"]) == (1, MulticastStatus.SENT)
    await corosync.thaw()
    assert payloads((await caught_up(handle))[0]) == [large, large, b"small"]
    await close(handle)


async def test_round_trips_wait_for_the_thaw(corosync: Node) -> None:
    """One at a time; one whose caller has gone keeps the lane."""
    handle = await corosync.endpoint.connect(CPG)
    await corosync.freeze()
    await given_up(handle.local_nodeid)
    answers: list[int] = []

    async def ask() -> None:
        answers.append(await handle.local_nodeid())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert handle.lane.borrowed_tokens == 1
        assert answers == []
        await corosync.thaw()
    assert answers == [1, 1]
    assert handle.lane.borrowed_tokens == 0
    await close(handle)


async def test_a_daemon_that_dies(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(CPG)
    await handle.join(b"g")
    await until_waiting(handle, 1)
    await corosync.kill()
    assert not corosync.running
    await trio.lowlevel.wait_readable(handle.fileno())
    # With an error besides, if the daemon has left something unread.
    assert poll(handle) & ~select.POLLERR == select.POLLIN | select.POLLOUT | select.POLLHUP
    # The join's configuration change was waiting, and is lost.
    with pytest.raises(LibraryError):
        handle.dispatch(1, EVERYTHING)
    with pytest.raises(LibraryError):
        handle.multicast([b"x"])
    with pytest.raises(LibraryError):
        await handle.local_nodeid()
    with pytest.raises(LibraryError):
        await corosync.endpoint.connect(CPG)
    await corosync.start()
    with pytest.raises(LibraryError):
        handle.dispatch(1, EVERYTHING)
    await close(handle)
    assert handle.closed
    again = await joined(corosync.endpoint)
    assert await again.membership(b"g") == (Address(1, os.getpid()),)
    await close(again)


async def test_a_frozen_daemon_that_is_killed_answers_nobody(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(CPG)
    await corosync.freeze()

    async def fail(call: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(LibraryError):
            await call()

    async with trio.open_nursery() as nursery:
        for call in (lambda: corosync.endpoint.connect(CPG), handle.local_nodeid, handle.local_nodeid):
            nursery.start_soon(fail, call)
        await trio.testing.wait_all_tasks_blocked()
        await corosync.kill()
    await close(handle)


async def test_a_frozen_daemon_that_is_stopped_thaws(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(CPG)
    await corosync.freeze()

    async def ask() -> None:
        # It may still answer.
        with suppress(LibraryError):
            await handle.local_nodeid()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await corosync.stop()
    assert not corosync.running
    await close(handle)


async def test_closing_waits_for_the_thaw(corosync: Node) -> None:
    """And for the round trip that is under way; it may be asked for twice."""
    handle = await joined(corosync.endpoint)
    await corosync.freeze()
    await given_up(lambda: handle.multicast_fragmented(bytes(3_000_000)))
    for _again in range(2):
        handle.close()
    assert not handle.closed
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.wait_closed)
        await trio.testing.wait_all_tasks_blocked()
        await corosync.thaw()
    assert closed(handle)
