"""Zero-copy buffers of CPG."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from support import installed
from support.c_libraries import cancelled, of_the_libraries, open_fds, poll_until
from support.external_programs import inside
from support.raw_handles import close, joined, payloads, take

import triocoro
from triocoro._corosync import CorosyncEndpoint
from triocoro._services import CPG
from triocoro.testing import Node
from triocoro.testing._cluster.recording import NodeEndpoint

pytestmark = pytest.mark.deadline(30)


def shared_memory() -> int:
    """How many buffers we share with daemons."""
    return sum("zerocopy" in line for line in Path("/proc/self/maps").read_text().splitlines())


def assert_shared(buffers: int) -> None:
    """So many buffers are shared; with newer libraries, none."""
    assert shared_memory() == (buffers if installed.shares_zero_copy() else 0)


@pytest.fixture
def shared_with_the_daemon() -> None:
    if not installed.shares_zero_copy():
        pytest.skip("this libcpg shares no memory with the daemon: cpg_zcb_alloc is malloc(3)")


@of_the_libraries
async def test_zero_copy(corosync: Node) -> None:
    handle, other = await joined(corosync.endpoint, b"copies"), await joined(corosync.endpoint, b"others")
    size = handle.max_atomic_message_size
    large, small = await handle.zcb_alloc(size), await handle.zcb_alloc(1)
    assert (len(large), len(small), large.readonly) == (size, 1, False)
    data = os.urandom(size)
    large[:] = data
    small[0] = 7
    for buffer, length in ((large, size), (small, 1), (large, 3), (small, 0)):
        await handle.zcb_mcast_joined(buffer, length)
    assert payloads(await take(handle, 4)) == [data, b"\x07", data[:3], b""]

    foreign = [(other, large), (handle, memoryview(bytearray(8))), (handle, large[1:])]
    for owner, buffer in foreign:
        with pytest.raises(ValueError, match="zcb_alloc"):
            await owner.zcb_free(buffer)
        with pytest.raises(ValueError, match="zcb_alloc"):
            await owner.zcb_mcast_joined(buffer, 1)
    for length in (-1, 2):
        with pytest.raises(ValueError, match="length"):
            await handle.zcb_mcast_joined(small, length)
    for unfit in (-1, 0, size + 1):
        with pytest.raises(ValueError, match="size"):
            await handle.zcb_alloc(unfit)
    del foreign, buffer

    await handle.zcb_free(large)
    with pytest.raises(ValueError, match="freed"):
        await handle.zcb_free(large)
    with pytest.raises(ValueError, match="freed"):
        await handle.zcb_mcast_joined(large, 1)
    with pytest.raises(ValueError, match="released"):
        large[0] = 1
    assert_shared(1)
    await close(handle, other)
    assert_shared(0)
    with pytest.raises(ValueError, match="released"):
        small[0] = 1
    await close(await joined(corosync.endpoint, b"alive"))


@of_the_libraries
async def test_zero_copy_buffer_in_use_stays(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"slices")
    buffer = await handle.zcb_alloc(8)
    part = buffer[2:]
    with pytest.raises(BufferError, match="slices"):
        await handle.zcb_free(buffer)
    part[0] = 1
    assert_shared(1)
    del part
    await handle.zcb_free(buffer)
    assert_shared(0)

    buffer = await handle.zcb_alloc(8)
    part = buffer[2:]
    await close(handle)
    part[0] = 1  # it outlives the handle, as it must
    assert_shared(1)


async def test_zero_copy_needs_a_member(corosync: Node, corosync_mode: str) -> None:
    handle = await corosync.endpoint.connect(CPG)
    buffer = await handle.zcb_alloc(8)
    if corosync_mode == "real" and not installed.shares_zero_copy():
        await handle.zcb_mcast_joined(buffer, 8)  # a plain multicast, of which nothing is said
    else:
        with pytest.raises(triocoro.NotExistError):
            await handle.zcb_mcast_joined(buffer, 8)
    await close(handle)


@of_the_libraries
async def test_zero_copy_without_room(corosync: Node) -> None:
    """The library would end our process."""
    handle = await joined(corosync.endpoint, b"room")
    lines = await trio.run_process([*inside(corosync), "df", "--output=used", "/dev/shm"], capture_stdout=True)
    used = int(lines.stdout.split()[-1])
    # Not with the options that it has: among them is an ordinary user's id, which the user namespace does not know.
    remount = ["mount", "--options-mode=ignore", "-o", f"remount,size={used + 512}k", "/dev/shm"]
    await trio.run_process([*inside(corosync), *remount])
    with pytest.raises(triocoro.NoSpaceError):
        await handle.zcb_alloc(handle.max_atomic_message_size)
    await handle.zcb_free(await handle.zcb_alloc(1))
    await close(handle)


@of_the_libraries
async def test_zero_copy_where_the_namespaces_have_gone(corosync: Node) -> None:
    assert isinstance(corosync.endpoint, NodeEndpoint)
    endpoint = corosync.endpoint._endpoint
    assert isinstance(endpoint, CorosyncEndpoint)
    entrance = endpoint._namespaces.pidfd
    assert entrance is not None
    pidfds = [entrance()]
    handle = await CorosyncEndpoint("moved", lambda: pidfds[-1]).connect(CPG)
    async with trio.open_nursery() as nursery:
        process = await nursery.start(trio.run_process, ["sleep", "60"])
        pidfds.append(os.pidfd_open(process.pid))
        nursery.cancel_scope.cancel()
    before = open_fds()
    with pytest.raises(triocoro.CorosyncUnavailableError, match="setns"):
        await handle.zcb_alloc(1)
    assert open_fds() == before
    os.close(pidfds.pop())
    await handle.zcb_free(await handle.zcb_alloc(1))
    await close(handle)


@of_the_libraries
@pytest.mark.usefixtures("shared_with_the_daemon")
async def test_cancelled_zero_copy(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"cancelled")
    buffer = await handle.zcb_alloc(8)
    maps, fds = shared_memory(), open_fds()
    await corosync.freeze()
    try:
        with trio.move_on_after(0.1) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(handle.zcb_alloc, 8)  # under way
                nursery.start_soon(handle.zcb_alloc, 8)  # not begun
        assert scope.cancelled_caught
        # The lane is taken, so this has not begun, either; yet it is done later.
        await cancelled(lambda: handle.zcb_free(buffer))
        with pytest.raises(ValueError, match="freed"):
            await handle.zcb_free(buffer)
    finally:
        await corosync.thaw()
    await poll_until(lambda: shared_memory() < maps)
    assert open_fds() == fds
    await close(handle)


@of_the_libraries
@pytest.mark.usefixtures("shared_with_the_daemon")
async def test_zero_copy_without_its_daemon(corosync: Node) -> None:
    handle = await joined(corosync.endpoint, b"gone")
    buffer = await handle.zcb_alloc(8)
    left = await handle.zcb_alloc(8)
    maps = shared_memory()
    await corosync.kill()
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(handle.fileno())
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: handle.zcb_mcast_joined(buffer, 8),
        lambda: handle.zcb_free(buffer),
        lambda: handle.zcb_alloc(8),
    ]
    for call in calls:
        with pytest.raises(triocoro.LibraryError):
            await call()
    assert shared_memory() == maps - 1
    await close(handle)
    assert shared_memory() == maps - 2
    with pytest.raises(ValueError, match="released"):
        left[0] = 1
