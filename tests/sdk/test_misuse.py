"""Calls at the wrong time: joining a group twice, after the end, without a daemon."""

from __future__ import annotations

import gc
import os
import re
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

import pytest
import trio
from support.proxy import FaultyEndpoint
from support.refusals import ignore, opened, refused, still_works
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    Address,
    CmapTrack,
    CmapType,
    CorosyncUnavailableError,
    CsError,
    Endpoint,
    ExistError,
    Group,
    NotExistError,
    lowlevel,
)
from triocoro._raw import RawCpg
from triocoro._services import CPG, CpgSpec, ServiceSpec
from triocoro.lowlevel import Dispatch, IterationType, Track
from triocoro.testing import FakeCluster, NetnsCluster, Node

pytestmark = pytest.mark.deadline(20)

RawT = TypeVar("RawT")

# -- the same group twice ----------------------------------------------------------------------------------------------


async def test_second_membership_of_one_process(corosync: Node) -> None:
    async with triocoro.open_group("g") as group:
        with pytest.raises(ExistError) as caught:
            await opened("g")
        text = str(caught.value)
        for words in (f"process {os.getpid()}", "member of group b'g'", "node 1", "once on each node"):
            assert words in text
        assert caught.value.code is CsError.EXIST
        handle = await lowlevel.cpg_initialize()
        await refused(ExistError, "cpg_join", lambda: handle.join("g"))
        await handle.finalize()
        await still_works(group)
        async with triocoro.open_cpg() as cpg:
            assert await cpg.members("g") == (group.address,)
    for _again in range(5):
        async with triocoro.open_group("g") as group:
            assert group.view.members == (Address(corosync.nodeid, os.getpid()),)
    # Left in a hurry: the daemon may not know of it when the next one joins.
    for _again in range(5):
        with trio.CancelScope() as scope:
            async with triocoro.open_group("g"):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        async with triocoro.open_group("g") as group:
            await still_works(group)


async def test_joining_again_while_the_daemon_works_off_the_leave(corosync: Node) -> None:
    """Our own leave is under way, on a daemon that stood still: joining waits for it, and is not refused."""
    for _again in range(5):
        ready = await corosync.endpoint.connect(CPG)

        class Ready:
            """The node, but connecting takes no time."""

            label = corosync.endpoint.label
            pid = corosync.endpoint.pid
            identity = corosync.endpoint.identity

            async def connect(self, service: ServiceSpec[RawT, object], *, raw: RawCpg = ready) -> RawT:
                assert isinstance(service, CpgSpec)
                return cast("RawT", raw)

        with trio.CancelScope() as scope:
            async with triocoro.open_group("g"):
                await corosync.freeze()
                scope.cancel()
        async with trio.open_nursery() as nursery:

            async def join() -> None:
                async with triocoro.open_group("g", endpoint=Ready()) as group:
                    await still_works(group)

            nursery.start_soon(join)
            await wait_all_tasks_blocked()
            await corosync.thaw()


# -- wrong nesting -----------------------------------------------------------------------------------------------------


def test_an_abandoned_generator_around_a_group(corosync_mode: str, caplog: pytest.LogCaptureFixture) -> None:
    """Trio closes it in a task of its own, where no nursery of the generator can end well. Nothing hangs."""

    async def members(endpoint: Endpoint) -> AsyncGenerator[Group, None]:  # noqa: ASYNC900 - this is the mistake
        async with triocoro.open_group("g", endpoint=endpoint) as group:
            yield group  # noqa: ASYNC119 - likewise

    async def abandon() -> None:
        kind = NetnsCluster if corosync_mode == "real" else FakeCluster
        async with kind(nodes=1) as cluster:
            async for _group in members(cluster[1].endpoint):
                break
            gc.collect()
            await wait_all_tasks_blocked()
            async with triocoro.open_group("g", endpoint=cluster[1].endpoint) as group:
                assert group.view.members == (group.address,)
            async with aclosing(members(cluster[1].endpoint)) as closed_in_time:
                async for group in closed_in_time:
                    await still_works(group)
                    break

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Trio's advice about the generator
        trio.run(abandon)
    (record,) = caplog.records
    assert "Cancel scope stack corrupted" in (record.exc_text or "")


@pytest.mark.usefixtures("corosync")
async def test_blocks_that_end_in_the_wrong_order() -> None:
    first, second = triocoro.open_group("a"), triocoro.open_group("b")
    async with trio.open_nursery() as nursery:

        async def misnest() -> None:
            await first.__aenter__()
            await second.__aenter__()
            with pytest.raises(RuntimeError, match="Cancel scope stack corrupted"):
                await first.__aexit__(None, None, None)
            # Trio 0.26 says nothing.
            with pytest.raises(AssertionError, match=r"^$|Nursery misnesting detected"):
                await second.__aexit__(None, None, None)

        nursery.start_soon(misnest)
    async with triocoro.open_cpg() as cpg:
        assert await cpg.groups() == ()


# -- after the end -----------------------------------------------------------------------------------------------------


async def test_use_of_a_group_after_its_end(corosync: Node) -> None:
    words = f"this connection to {corosync.endpoint.label} was closed"
    async with triocoro.open_group("a") as left:
        pass
    async with triocoro.open_group("b") as closed, triocoro.open_group("c") as group:
        await closed.aclose()
        for ended in (left, closed):
            for call in (
                partial(ended.send, b"x"),
                partial(ended.send, bytes(2**21)),
                partial(ended.send_batch, [b"x"]),
                partial(ended.send_batch, []),
                partial(ended.send_and_wait, b"x"),
                ended.receive,
                ended.receive_batch,
            ):
                await refused(trio.ClosedResourceError, words, call)
            with pytest.raises(trio.ClosedResourceError, match=re.escape(words)):
                ended.send_nowait(b"x")
            await ended.aclose()
            assert ended.name in (b"a", b"b")
            assert ended.view.members == (ended.address,)
            assert ended.statistics().sent == 0
            assert "triocoro.Group" in repr(ended)
        # As Trio's channels have it: the end of the loop, and no error, is for what the other side ends.
        with pytest.raises(trio.ClosedResourceError):
            await anext(left)
        await still_works(group)


async def test_use_of_queries_after_their_end(corosync: Node) -> None:
    words = f"this connection to {corosync.endpoint.label} was closed"
    async with triocoro.open_cpg() as cpg, triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        pass

    async def track() -> None:
        async with votequorum.track():
            pytest.fail("tracking began")

    for call in (
        cpg.local_nodeid,
        cpg.groups,
        lambda: cpg.members("g"),
        votequorum.info,
        lambda: votequorum.set_expected(1),
        lambda: votequorum.set_votes(1, 1),
        votequorum.wait_quorate,
        track,
    ):
        await refused(trio.ClosedResourceError, words, call)
    with pytest.raises(trio.ClosedResourceError, match=re.escape(words)):
        _ = cpg.max_atomic_message_size
    for receive in (changes.receive, changes.receive_batch):
        await refused(trio.ClosedResourceError, "this stream was closed", receive)
    await changes.aclose()
    assert changes.statistics().buffered_events == 0


async def test_use_of_a_stream_after_its_end(corosync: Node) -> None:
    del corosync
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as other:
        async with votequorum.track() as left, votequorum.track() as closed:
            await closed.aclose()
        for call in (left.receive, left.receive_batch, closed.receive, closed.receive_batch):
            await refused(trio.ClosedResourceError, "this stream was closed", call)
        assert len(await other.receive_batch()) == 2
        assert (await votequorum.info()).nodeid == 1


async def test_use_of_handles_after_finalize(corosync: Node) -> None:
    words = f"this connection to {corosync.endpoint.label} was closed"
    cpg = await lowlevel.cpg_initialize(context="mine")
    votequorum = await lowlevel.votequorum_initialize()
    quorum = await lowlevel.quorum_initialize()
    cmap = await lowlevel.cmap_initialize()
    cfg = await lowlevel.cfg_initialize()
    tracker = await cmap.track_add("some.key", CmapTrack.ADD, ignore)
    async with cpg.zcb_alloc(10):
        await cpg.finalize()
    await votequorum.finalize()
    await quorum.finalize()
    await cmap.finalize()
    await cfg.finalize()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: cpg.join("g"),
        lambda: cpg.mcast_joined(b"x"),
        lambda: cpg.mcast_joined(bytes(2**21)),
        lambda: cpg.membership_get("g"),
        cpg.local_get,
        lambda: cpg.iteration(IterationType.ALL),
        lambda: votequorum.getinfo(0),
        lambda: votequorum.setexpected(1),
        lambda: votequorum.setvotes(1, 1),
        lambda: votequorum.trackstart(Track.CHANGES),
        votequorum.trackstop,
        lambda: votequorum.qdevice_register("disk"),
        quorum.getquorate,
        lambda: quorum.trackstart(Track.CHANGES),
        lambda: cmap.get("some.key"),
        lambda: cmap.set("some.key", 1, CmapType.UINT8),
        cmap.items,
        lambda: cmap.track_add("some.key", CmapTrack.ADD, ignore),
        lambda: cmap.track_delete(tracker),
        cfg.local_get,
        cfg.trackstart,
        lambda: cpg.zcb_alloc(10).__aenter__(),
        *(partial(cpg.dispatch, kind) for kind in Dispatch),
        *(partial(votequorum.dispatch, kind) for kind in Dispatch),
        *(partial(cmap.dispatch, kind) for kind in Dispatch),
    ]
    for call in calls:
        await refused(trio.ClosedResourceError, words, call)
    for read in (
        cpg.flow_control_state_get,
        cpg.max_atomic_msgsize_get,
        lambda: cpg.fd,
        lambda: votequorum.fd,
    ):
        with pytest.raises(trio.ClosedResourceError, match=re.escape(words)):
            read()
    # What is ours alone stays.
    assert cpg.context == "mine"
    await cpg.finalize()
    await votequorum.finalize()


# -- no daemon ---------------------------------------------------------------------------------------------------------


async def test_no_daemon(corosync: Node) -> None:
    async def in_block(manager: Any) -> None:
        async with manager:
            pytest.fail("connected")

    await corosync.stop()
    for call in (
        lambda: in_block(triocoro.open_group("g")),
        lambda: in_block(triocoro.open_cpg()),
        lambda: in_block(triocoro.open_votequorum()),
        lowlevel.cpg_initialize,
        lowlevel.votequorum_initialize,
    ):
        with pytest.raises(CorosyncUnavailableError) as caught:
            await call()
        for words in ("cannot connect to node 1", "no Corosync daemon answers", "start it", "_initialize"):
            assert words in str(caught.value)
        assert caught.value.code is CsError.LIBRARY
    await corosync.start()
    async with triocoro.open_group("g") as group:
        await still_works(group)


async def test_a_daemon_that_is_about_to_end(corosync: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have removed its files already, of which the library says that they do not exist."""

    async def ending(*_: object, **__: object) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise NotExistError("it has no files any more", function="cpg_model_initialize")

    endpoint = FaultyEndpoint(corosync.endpoint)
    monkeypatch.setattr(endpoint, "connect", ending)
    with pytest.raises(
        CorosyncUnavailableError, match=r"node 1 of \S+: no Corosync daemon answers there.*no files any more"
    ):
        await lowlevel.cpg_initialize(endpoint=endpoint)
