"""The process can start no thread for a while: what calls raise, and that every block ends nevertheless."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio
from support.public_calls import OPENERS
from support.refusals import still_works
from trio._core import _thread_cache
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import ConfigChange, ConnectionLostError, Group, NoResourcesError, Reason, lowlevel
from triocoro.testing import Cluster, NetnsCluster

pytestmark = [pytest.mark.deadline(20), pytest.mark.corosync_real_only(reason="a fake needs no threads")]


@attrs.frozen
class Threads:
    """Takes threads from the process, as the limit of a container does; Trio has no idle ones then."""

    _patch: pytest.MonkeyPatch

    def deny(self) -> None:
        def refuse(_: threading.Thread) -> NoReturn:
            raise RuntimeError("can't start new thread")

        self._patch.setattr(threading.Thread, "start", refuse)
        self._patch.setattr(_thread_cache, "THREAD_CACHE", _thread_cache.ThreadCache())

    def allow(self) -> None:
        self._patch.undo()


@pytest.fixture
def threads() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        yield Threads(patch)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triocoro._requests.GRACE", 0.1)


async def receive_change(group: Group) -> ConfigChange:
    event = await group.receive()
    assert isinstance(event, ConfigChange)
    return event


async def enter(opener: Callable[[], Any]) -> None:
    async with opener():
        pytest.fail("it was opened without a thread")


@pytest.mark.usefixtures("corosync")
async def test_calls_say_what_is_missing(threads: Threads) -> None:
    words = r"cannot start a thread .* limit .*ulimit -u, or pids.max .*can't start new thread"
    async with triocoro.open_votequorum() as votequorum, triocoro.open_group("g") as group:
        handle = await lowlevel.cpg_initialize()
        threads.deny()
        calls: list[Callable[[], Any]] = [
            *(partial(enter, opener) for opener in OPENERS.values()),
            lowlevel.cpg_initialize,
            votequorum.info,
            handle.local_get,
            lambda: handle.join("i"),
            lambda: group.send(bytes(2**21)),
        ]
        for call in calls:
            with pytest.raises(NoResourcesError, match=words):
                await call()
        await still_works(group)
        threads.allow()
        assert (await votequorum.info()).quorate
        assert await handle.local_get() == group.address.nodeid
        await handle.finalize()
        async with triocoro.open_cpg() as cpg:
            assert {member.group for member in await cpg.groups()} == {b"g"}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.usefixtures("corosync", "short_grace")
async def test_blocks_end(threads: Threads, opener: str) -> None:
    async with OPENERS[opener]():
        threads.deny()
    threads.allow()
    async with OPENERS[opener]():
        pass


@pytest.mark.usefixtures("corosync", "short_grace")
async def test_tracking_ends(threads: Threads) -> None:
    async with triocoro.open_cfg() as cfg, triocoro.open_cmap() as cmap:
        async with cmap.track("a.key"), cfg.track_shutdown():
            threads.deny()
        threads.allow()
    # A tracker that does not answer would make it fail.
    with pytest.raises(ConnectionLostError):
        async with triocoro.open_cfg() as cfg:
            with trio.CancelScope(shield=True):  # its success may come with the loss of the connection
                await cfg.try_shutdown()
            await trio.sleep_forever()


def count_fds() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


@pytest.mark.usefixtures("corosync", "short_grace")
def test_the_next_run_ends_what_the_last_one_could_not(threads: Threads) -> None:
    async def cannot_close() -> None:
        async with triocoro.open_cpg():
            threads.deny()

    async def closes() -> None:
        async with triocoro.open_cpg():
            pass

    before = count_fds()
    trio.run(cannot_close)
    threads.allow()
    trio.run(closes)
    deadline = time.monotonic() + 10
    while count_fds() > before and time.monotonic() < deadline:
        time.sleep(0.001)  # threads of their own close them
    assert count_fds() == before


@pytest.mark.usefixtures("short_grace")
async def test_the_daemon_ends_a_member_that_cannot_leave(corosync_cluster: Cluster, threads: Threads) -> None:
    async with triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as other:
        await receive_change(other)
        for end in ("aclose", "block"):
            async with triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint) as group:
                await receive_change(other)
                threads.deny()
                if end == "aclose":
                    await group.aclose()
            change = await receive_change(other)
            assert [(it.address, it.reason) for it in change.left] == [(group.address, Reason.PROCDOWN)]
            threads.allow()
        async with triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint) as group:
            await still_works(group)


async def test_a_leave_waits_for_a_thread(corosync_cluster: Cluster, threads: Threads) -> None:
    async with triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as other, trio.open_nursery() as nursery:
        await receive_change(other)
        denied = trio.Event()

        async def join_and_leave() -> None:
            async with triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint):
                threads.deny()
                denied.set()

        nursery.start_soon(join_and_leave)
        await receive_change(other)
        await denied.wait()
        await wait_all_tasks_blocked()
        threads.allow()
        assert [it.reason for it in (await receive_change(other)).left] == [Reason.LEAVE]


@pytest.mark.usefixtures("corosync", "short_grace")
async def test_a_shared_buffer_is_freed(threads: Threads) -> None:
    handle = await lowlevel.cpg_initialize()
    async with handle.zcb_alloc(100):
        threads.deny()
        await wait_all_tasks_blocked()
    threads.allow()
    assert await handle.local_get() == 1  # behind the freeing, which waited for a thread
    await handle.finalize()
    maps = await trio.Path("/proc/self/maps").read_text()
    assert "zcb" not in maps


async def test_a_cluster_ends(threads: Threads) -> None:
    threads.deny()
    with pytest.raises(NoResourcesError, match="cannot start a thread"):
        async with NetnsCluster(nodes=1):
            pytest.fail("it was started without a thread")
    threads.allow()
    async with NetnsCluster(nodes=1) as cluster:
        threads.deny()
    threads.allow()
    with pytest.raises(RuntimeError, match="does not run"):
        cluster._check_runs()
