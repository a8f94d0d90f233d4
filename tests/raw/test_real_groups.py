"""CPG over the C libraries: bounds of dispatch, iteration, cancelled calls, frozen and dead daemons, namespaces."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from support.c_libraries import cancelled, of_the_libraries, open_fds, poll_until
from support.raw_handles import EVERYTHING, close, joined, payloads, take

import triocoro
from triocoro._corosync import CorosyncEndpoint
from triocoro._enums import IterationType, Reason
from triocoro._raw import MULTICAST_BURST, MulticastStatus, RawCpg
from triocoro._services import CPG, QUORUM, STATS, VOTEQUORUM
from triocoro._types import ConfigChange
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(30)


async def test_payloads_of_all_sizes(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"sizes\0")
    limit = handle.max_atomic_message_size
    for burst in ([b"", b"a", b"\0" * 7], [os.urandom(n) for n in (64 * 1024, 64 * 1024 + 1)], [os.urandom(limit)]):
        assert handle.multicast(burst) == (len(burst), MulticastStatus.SENT)
        assert payloads(await take(handle, len(burst))) == burst
    with pytest.raises(ValueError, match="fragmented"):
        handle.multicast([bytes(limit + 1)])
    large = os.urandom(3 * limit)
    await handle.multicast_fragmented(large)
    assert payloads(await take(handle, 1)) == [large]
    await close(handle)


async def test_dispatch_keeps_its_bounds(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"bounds")
    messages = [bytes([n]) * 100 for n in range(MULTICAST_BURST + 1)]
    assert handle.multicast(messages) == (MULTICAST_BURST, MulticastStatus.SENT)
    seen: list[bytes] = []
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while len(seen) < MULTICAST_BURST:
            await trio.lowlevel.wait_readable(handle.fileno())
            # Three events are the first to exceed 250 bytes.
            taken, events = handle.dispatch(5, 250)
            assert 1 <= taken == len(events) <= 3
            seen += payloads(events)
    assert seen == messages[:MULTICAST_BURST]
    taken, events = handle.dispatch(5, 250)
    assert (taken, list(events)) == (0, [])
    await close(handle)


async def test_a_fragment_is_taken_but_makes_no_event(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"fragments")
    await handle.multicast_fragmented(bytes(2 * handle.max_atomic_message_size))
    taken: list[int] = []
    events: list[object] = []
    with trio.fail_after(10):  # noqa: ASYNC912 - it runs at least once
        while not events:
            await trio.lowlevel.wait_readable(handle.fileno())
            number, more = handle.dispatch(1, EVERYTHING)
            taken.append(number)
            events += more
    assert taken == [1, 1]
    await close(handle)


async def test_iteration(corosync: Node) -> None:
    handles = [await joined(corosync.endpoint, group) for group in (b"one", b"two\0", b"x" * 127)]
    names = {member.group: member.address for member in await handles[0].iterate(IterationType.ALL, None)}
    address = triocoro.Address(corosync.nodeid, os.getpid())
    assert names == {b"one": address, b"two\0": address, b"x" * 127: address}
    only_names = await handles[0].iterate(IterationType.NAME_ONLY, None)
    assert {(member.group, member.address) for member in only_names} == {(name, None) for name in names}
    (member,) = await handles[1].iterate(IterationType.ONE_GROUP, b"two\0")
    assert (member.group, member.address) == (b"two\0", address)
    assert await handles[1].membership(b"two\0") == (address,)
    assert await handles[1].membership(b"two") == ()
    await close(*handles)


@pytest.mark.deadline(60)
async def test_many_connects_at_once(corosync: Node) -> None:
    """libqb's table of handles breaks when two threads create one at the same time."""

    async def use(number: int) -> None:
        group = b"group %d" % number
        handle = await joined(corosync.endpoint, group)
        assert await handle.local_nodeid() == corosync.nodeid
        assert len(await handle.iterate(IterationType.ONE_GROUP, group)) == 1
        await close(handle)

    for _ in range(3):
        async with trio.open_nursery() as nursery:
            for number in range(24):
                nursery.start_soon(use, number)


async def test_frozen_daemon_spins_nobody(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"frozen")
    await corosync.freeze()
    try:
        bursts, began = 0, time.process_time()
        while handle.multicast([b"x" * 64] * MULTICAST_BURST)[1] is MulticastStatus.SENT:
            bursts += 1
        assert bursts > 0
        filled = time.process_time()
        # As often as before, and it takes less: that there is no room is seen at once.
        for _ in range(bursts):
            assert handle.multicast([b"x" * 64] * MULTICAST_BURST) == (0, MulticastStatus.FULL)
        assert time.process_time() - filled < filled - began
        await cancelled(handle.local_nodeid)
        assert handle.lane.statistics().borrowed_tokens == 1
        await cancelled(lambda: corosync.endpoint.connect(VOTEQUORUM))
        handle.close(leave=True)
        assert not handle.closed
        await cancelled(handle.wait_closed)
    finally:
        await corosync.thaw()
    await close(handle)


async def test_cancelled_join_is_undone(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(CPG)
    await corosync.freeze()
    try:
        await cancelled(lambda: handle.join(b"undone"))
    finally:
        await corosync.thaw()
    await expect_left(handle)
    await close(handle)


@of_the_libraries
async def test_join_that_ended_before_its_cancellation_is_undone(
    corosync: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triocoro._corosync._handle import Undoable

    handle = await corosync.endpoint.connect(CPG)
    token = trio.lowlevel.current_trio_token()
    run = Undoable[int].run

    told = threading.Event()

    def cancel() -> None:
        # The task has stopped waiting for its thread when this returns.
        scope.cancel()
        told.set()

    def dawdle(self: Undoable[int]) -> int:
        code = run(self)
        token.run_sync_soon(cancel)
        assert told.wait(10)
        return code

    with monkeypatch.context() as patch, trio.CancelScope() as scope:
        patch.setattr(Undoable, "run", dawdle)
        await handle.join(b"late")
    assert scope.cancelled_caught
    await expect_left(handle)
    await close(handle)


async def expect_left(handle: RawCpg) -> None:
    changes = [event for event in await take(handle, 2) if isinstance(event, ConfigChange)]
    while len(changes) < 2:  # a freeze brings a ring of its own
        changes += [event for event in await take(handle, 1) if isinstance(event, ConfigChange)]
    assert [change.reason for change in changes[0].joined] == [Reason.JOIN]
    assert [change.reason for change in changes[1].left] == [Reason.LEAVE]


@of_the_libraries
async def test_cancelled_connects_leave_nothing(corosync: Node) -> None:
    before = open_fds()
    await corosync.freeze()
    try:
        with trio.move_on_after(0.2) as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(corosync.endpoint.connect, CPG)
                    nursery.start_soon(corosync.endpoint.connect, VOTEQUORUM)
                    nursery.start_soon(corosync.endpoint.connect, QUORUM)
                    nursery.start_soon(corosync.endpoint.connect, STATS)
        assert scope.cancelled_caught
    finally:
        await corosync.thaw()
    await poll_until(lambda: open_fds() <= before)


@of_the_libraries
async def test_death_in_the_middle_of_an_iteration(corosync: Node) -> None:
    """cpg_iteration_next would wait for ever for a daemon that is gone."""
    handles = [await joined(corosync.endpoint, b"group %d" % number) for number in range(10)]

    async def iterate() -> None:
        with pytest.raises(triocoro.LibraryError):
            while True:
                await handles[0].iterate(IterationType.ALL, None)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(iterate)
            await trio.sleep(0.2)
            await corosync.freeze()
            await trio.sleep(0.1)
            await corosync.kill()
    with pytest.raises(triocoro.LibraryError):
        handles[1].dispatch(1, 1)
    with pytest.raises(triocoro.LibraryError):
        for _ in range(100):
            handles[1].multicast([b"x"])
    await close(*handles)


@of_the_libraries
async def test_namespaces_that_cannot_be_entered() -> None:
    class OurOwnError(Exception):
        pass

    def refuse() -> NoReturn:
        raise OurOwnError

    with pytest.raises(OurOwnError):
        await CorosyncEndpoint("refused", refuse).connect(CPG)

    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, ["sleep", "60"])
        pidfd = os.pidfd_open(process.pid)
        nursery.cancel_scope.cancel()
    try:
        with pytest.raises(triocoro.CorosyncUnavailableError, match=r"namespaces.*setns"):
            await CorosyncEndpoint("gone", lambda: pidfd).connect(CPG)
    finally:
        os.close(pidfd)


@of_the_libraries
async def test_child_in_the_namespaces_is_seen_by_nobody(corosync: Node) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: received.append(number))
    try:
        for _ in range(3):
            handle = await corosync.endpoint.connect(CPG)
            await close(handle)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert received == []
    assert not re.search(rf"^\d+ \(\S+\) Z {os.getpid()} ", _all_stat(), re.MULTILINE)


def _all_stat() -> str:
    lines: list[str] = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                lines.append((folder / "stat").read_text())
            except OSError:
                continue
    return "\n".join(lines)
