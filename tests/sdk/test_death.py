"""The daemon dies: the block that holds the connection is cancelled, and one ConnectionLostError comes out."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
import trio.testing
from support.groups import raises_group
from support.load import Stopwatch

import triocoro
from triocoro import ConnectionLostError, Group, Message
from triocoro.testing import Cluster, Node

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = pytest.mark.deadline(20)
IN_TIME = 0.1
"""Seconds within which the block must be cancelled."""


async def test_the_body_is_cancelled_in_time(corosync: Node, figure: Any) -> None:
    for opener in (
        lambda: triocoro.open_group("g"),
        triocoro.open_cpg,
        triocoro.open_votequorum,
        triocoro.open_quorum,
        triocoro.open_cmap,
        triocoro.open_cfg,
    ):
        await corosync.start()
        seconds = 0.0
        with pytest.raises(ConnectionLostError) as caught:
            async with opener():
                watch = Stopwatch()
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(corosync.kill)
                        await trio.sleep_forever()
                finally:
                    seconds = watch.seconds
        assert type(caught.value) is ConnectionLostError
        assert isinstance(caught.value, trio.BrokenResourceError)
        assert corosync.endpoint.label in str(caught.value)
        figure("kill -9 to cancellation of the body", f"{seconds * 1000:.1f} ms")
        assert seconds < IN_TIME


async def test_receivers_in_nurseries_of_the_users(corosync: Node) -> None:
    ended: list[str] = []

    async def receive(group: Group) -> None:
        try:
            async for _ in group:
                pass
        except trio.Cancelled:
            ended.append("cancelled")
            raise

    with pytest.raises(ConnectionLostError) as caught:
        async with triocoro.open_group("g") as group, trio.open_nursery() as outer:
            outer.start_soon(receive, group)
            async with trio.open_nursery() as inner:
                for _ in range(3):
                    inner.start_soon(receive, group)
                await corosync.kill()
    assert type(caught.value) is ConnectionLostError
    assert ended == ["cancelled"] * 4


async def test_nested_connections_give_one_error(corosync: Node) -> None:
    with pytest.raises(ConnectionLostError) as caught:
        async with (
            triocoro.open_group("a"),
            triocoro.open_votequorum() as votequorum,
            votequorum.track(),
            triocoro.open_quorum() as quorum,
            quorum.track(),
            triocoro.open_cmap() as cmap,
            cmap.track("death.", prefix=True),
            triocoro.open_cfg() as cfg,
            cfg.track_shutdown(),
            triocoro.open_group("b") as group,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(group.receive)
            await corosync.kill()
            await trio.sleep_forever()
    assert type(caught.value) is ConnectionLostError


async def test_nested_connections_with_shielded_receivers_give_one_error(corosync: Node) -> None:
    async def drain(group: Group) -> None:
        with trio.CancelScope(shield=True):
            async for _ in group:
                pass

    with pytest.raises(ConnectionLostError) as caught:
        async with triocoro.open_group("a") as a, triocoro.open_group("b") as b, trio.open_nursery() as nursery:
            nursery.start_soon(drain, a)
            nursery.start_soon(drain, b)
            await corosync.kill()
            await trio.sleep_forever()
    assert type(caught.value) is ConnectionLostError


async def test_an_exception_of_the_users_wins(corosync: Node) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with triocoro.open_group("g"):
            try:
                await corosync.kill()
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")


async def test_an_exception_of_the_users_in_a_nursery_stays_in_its_group(corosync: Node) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("mine")

    with raises_group(KeyError):
        async with triocoro.open_group("g"), trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.testing.wait_all_tasks_blocked()
            await corosync.kill()
            await trio.sleep_forever()


async def test_an_outer_cancellation_wins(corosync: Node) -> None:
    with trio.CancelScope() as scope:
        async with triocoro.open_group("g"):
            with trio.CancelScope(shield=True):
                scope.cancel()
                await corosync.kill()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_outer_cancellation_wins_over_the_error_of_a_shielded_task(corosync: Node) -> None:
    async def drain(group: Group) -> None:
        with trio.CancelScope(shield=True):
            async for _ in group:
                pass

    with trio.CancelScope() as scope:
        async with triocoro.open_group("g") as group, trio.open_nursery() as nursery:
            nursery.start_soon(drain, group)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            with trio.CancelScope(shield=True):
                await corosync.kill()
            await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.usefixtures("corosync")
async def test_a_bug_of_ours_comes_out_and_not_the_cancellation_that_it_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with raises_group(MemoryError):
        async with triocoro.open_group("g") as group:
            monkeypatch.setattr(group._membership.connection, "take", fail)
            await group.send(b"x")
            await trio.sleep_forever()


async def test_a_body_that_ends_meanwhile_hears_of_it_too(corosync: Node) -> None:
    with pytest.raises(ConnectionLostError):
        async with triocoro.open_group("g"):
            with trio.CancelScope(shield=True):
                await corosync.kill()
                await trio.sleep(0.2)  # shielded from the cancellation: it is to come while we sleep


@pytest.mark.usefixtures("corosync")
async def test_a_slow_consumer_that_is_cut_at_the_end_of_a_tracker_hears_of_it() -> None:
    with pytest.raises(triocoro.SlowConsumerError, match="too slow"):
        async with triocoro.open_cmap() as cmap:

            async def cut() -> None:
                cmap._connection.lifetime.cut("too slow")
                await trio.sleep_forever()

            await cmap._connection.requests.undo(cut)


@pytest.mark.usefixtures("corosync")
async def test_a_slow_consumer_that_another_task_has_told_is_not_told_again_after_an_undo_request() -> None:
    started, told = trio.Event(), trio.Event()
    with trio.fail_after(20):
        async with triocoro.open_cmap() as cmap, trio.open_nursery() as nursery:

            async def undo() -> None:
                started.set()
                with trio.CancelScope(shield=True):
                    await told.wait()
                await trio.sleep_forever()

            nursery.start_soon(cmap._connection.requests.undo, undo)
            await started.wait()
            cmap._connection.lifetime.cut("too slow")
            with pytest.raises(triocoro.SlowConsumerError, match="too slow"):
                await cmap.get("totem.version")
            told.set()


async def test_a_shielded_task_drains_what_had_arrived(corosync: Node) -> None:
    drained: list[bytes] = []
    with pytest.raises(ConnectionLostError) as caught:
        async with triocoro.open_group("g") as group, trio.open_nursery() as nursery:

            async def drain() -> None:
                with trio.CancelScope(shield=True):
                    while True:
                        event = await group.receive()
                        if isinstance(event, Message):
                            drained.append(event.payload)

            for i in range(10):
                await group.send_and_wait(b"%d" % i)
            with trio.CancelScope(shield=True):
                await corosync.kill()
                while not group._membership.connection.lifetime.lost:
                    await trio.testing.wait_all_tasks_blocked(0.001)
                with pytest.raises(ConnectionLostError):
                    await group.send(b"x")
                with pytest.raises(ConnectionLostError):
                    group.send_nowait(b"x")
            nursery.start_soon(drain)
    assert drained == [b"%d" % i for i in range(10)]
    assert not isinstance(caught.value, BaseExceptionGroup)
    assert isinstance(caught.value, ConnectionLostError)


async def test_a_task_outside_of_the_block_gets_the_error(corosync: Node) -> None:
    got: list[BaseException] = []
    groups: list[Group] = []

    async def receive(group: Group) -> None:
        try:
            async for _ in group:
                pass
        except ConnectionLostError as exc:
            got.append(exc)

    async with trio.open_nursery() as outside:
        with pytest.raises(ConnectionLostError):
            async with triocoro.open_group("g") as group:
                groups.append(group)
                outside.start_soon(receive, group)  # noqa: ASYNC111 - that is the case
                await trio.testing.wait_all_tasks_blocked()
                await corosync.kill()
                await trio.sleep_forever()
    assert len(got) == 1
    with pytest.raises(ConnectionLostError):
        await groups[0].send(b"x")


async def test_unconfirmed_messages_are_counted(corosync: Node) -> None:
    with pytest.raises(ConnectionLostError) as caught:
        async with triocoro.open_group("g") as group:
            await group.send_and_wait(b"confirmed")
            await corosync.freeze()
            for _ in range(3):
                await group.send(b"not confirmed")
            await corosync.kill()
            await trio.sleep_forever()
    assert caught.value.unconfirmed == 3
    assert "3 of our messages" in str(caught.value)


async def test_others_go_on_and_a_new_connection_works(corosync_cluster: Cluster) -> None:
    async with triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as other:
        address = other.address
        with pytest.raises(ConnectionLostError):
            async with triocoro.open_group("g", endpoint=corosync_cluster[3].endpoint) as group:
                address = group.address
                # A node that dies at once may take the news of the join along.
                while address not in other.view.members:
                    await other.receive()
                await corosync_cluster[3].kill()
                await trio.sleep_forever()
        while not other.view.left:
            await other.receive()
        assert other.view.left == (triocoro.MemberChange(address, triocoro.Reason.NODEDOWN),)
        await corosync_cluster[3].start()
        await corosync_cluster.settled()
        async with triocoro.open_group("g", endpoint=corosync_cluster[3].endpoint) as group:
            assert group.view.members == (other.address, group.address)
