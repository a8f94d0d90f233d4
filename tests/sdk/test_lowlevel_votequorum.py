"""Votequorum and cmap through lowlevel, and Control-C while a tracker starts."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support.cpg_handle import Record, into

import triocoro
from triocoro import (
    CmapTrack,
    CmapType,
    VotequorumChange,
    VotequorumNodelist,
    lowlevel,
)
from triocoro._lifetime import Lifetime
from triocoro.lowlevel import Dispatch, Track, VotequorumHandle
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(20)


# -- votequorum --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tracking(record: Record, **options: Any) -> AsyncGenerator[VotequorumHandle, None]:
    note = into(record)
    callbacks: dict[str, Any] = {"quorum_notify": note, "expectedvotes_notify": note, "nodelist_notify": note}
    handle = await lowlevel.votequorum_initialize(**callbacks | options)
    try:
        yield handle
    finally:
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_votequorum_dispatches_as_cpg_does() -> None:
    record: Record = []
    async with tracking(record) as handle:
        await handle.dispatch(Dispatch.ALL)
        with pytest.raises(triocoro.TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.ONE)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await handle.dispatch(Dispatch.ALL)
            await handle.trackstart(Track.CURRENT | Track.CHANGES)
        assert [type(event) for event in record] == [VotequorumNodelist]
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        assert [type(event) for event in record] == [VotequorumNodelist, VotequorumChange]
        with pytest.raises(triocoro.ExistError):
            await handle.trackstart(Track.CHANGES)
        await handle.dispatch(Dispatch.ALL)
        assert [type(event) for event in record] == [VotequorumNodelist, VotequorumChange] * 2
        record.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.BLOCKING)
            await handle.setexpected(1)
            while not record:
                await trio.testing.wait_all_tasks_blocked(0.001)
            await handle.finalize()
        assert record[0] == triocoro.ExpectedVotesChange(1)


@pytest.mark.usefixtures("corosync")
async def test_votequorum_all_returns_under_a_flood() -> None:
    """Each callback has another event sent: there is always one that waits."""
    seen: Record = []
    handle: VotequorumHandle

    async def changed(event: triocoro.ExpectedVotesChange) -> None:
        seen.append(event)
        await send_one()

    async def send_one() -> None:
        waiting = handle._connection.waiting()
        await handle.setexpected(1)
        while handle._connection.waiting() == waiting:
            await handle.getinfo(0)

    async with tracking([], expectedvotes_notify=changed) as handle:
        await handle.trackstart(Track.CHANGES_ONLY)
        for _ in range(10):
            await send_one()
        await handle.dispatch(Dispatch.ALL)
        assert seen == [triocoro.ExpectedVotesChange(1)] * 10
        assert handle._connection.waiting() == 10


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
@pytest.mark.parametrize("how", ["raise", "cancel", "finalize"])
async def test_votequorum_callbacks_that_end_the_dispatch(kind: Dispatch, how: str) -> None:
    record: Record = []
    scope = trio.CancelScope()
    handle: VotequorumHandle

    async def nodelist(event: VotequorumNodelist) -> None:
        record.append(event)
        if how == "raise":
            raise KeyError("mine")
        if how == "cancel":
            scope.cancel()
            await trio.sleep_forever()
        await handle.finalize()

    async with tracking(record, nodelist_notify=nodelist) as handle:
        await handle.trackstart(Track.CURRENT)
        if how == "raise":
            with pytest.raises(KeyError, match="mine"):
                await handle.dispatch(kind)
        else:
            with scope:
                await handle.dispatch(kind)
            assert scope.cancelled_caught is (how == "cancel")
        assert [type(event) for event in record] == [VotequorumNodelist]
        if how != "finalize":
            await handle.dispatch(Dispatch.ALL)
            assert [type(event) for event in record] == [VotequorumNodelist, VotequorumChange]


@pytest.mark.usefixtures("corosync")
async def test_votequorum_tracking_one_to_one() -> None:
    record: Record = []
    async with tracking(record, context="mine") as handle:
        assert handle.context == "mine"
        with pytest.raises(triocoro.NotExistError):
            await handle.trackstop()
        await handle.trackstart(Track.CHANGES_ONLY)
        await handle.dispatch(Dispatch.ALL)
        assert record == []
        await handle.setvotes(1, 3)
        await handle.dispatch(Dispatch.ONE)
        assert record
        await handle.trackstop()
        with pytest.raises(triocoro.NotExistError):
            await handle.trackstop()
        assert (await handle.getinfo(0)).nodeid == 1
        assert (await handle.getinfo(1)).votes == 3
        with pytest.raises(triocoro.NotExistError):
            await handle.getinfo(9)
        with pytest.raises(triocoro.InvalidParamError):
            await handle.setexpected(0)
        with pytest.raises(triocoro.NameNotFoundError):
            await handle.setvotes(9, 1)


async def test_a_trackstart_that_fails_keeps_the_context(corosync: Node) -> None:
    async with tracking([]) as handle:
        await handle.trackstart(Track.CHANGES, context="first")
        with pytest.raises(triocoro.ExistError):
            await handle.trackstart(Track.CHANGES, context="second")
        assert handle.tracking_context == "first"
        await corosync.kill()
        with pytest.raises(triocoro.ConnectionLostError):
            await handle.trackstart(Track.CHANGES, context="second")
        assert handle.tracking_context == "first"


# -- cmap --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("corosync")
async def test_a_notification_of_an_unknown_tracker_is_dropped() -> None:
    """Such as one whose `track_add` was cancelled, until it is undone."""
    record: Record = []
    handle = await lowlevel.cmap_initialize()
    await handle._raw.track_add(99, "some.key", CmapTrack.ADD)
    await handle.track_add("some.key", CmapTrack.ADD, into(record))
    await handle.set("some.key", 1, CmapType.UINT8)
    await handle.dispatch(Dispatch.ONE)
    await handle.dispatch(Dispatch.ALL)
    assert [change.key for change in record] == ["some.key"]
    await handle.finalize()


# -- Control-C ---------------------------------------------------------------------------------------------------------


def track_key(cmap: triocoro.Cmap) -> Any:
    return cmap.track("some.key")


TRACKERS: list[Any] = [
    (triocoro.open_cmap, track_key),
    (triocoro.open_cfg, triocoro.Cfg.track_shutdown),
    (triocoro.open_quorum, triocoro.Quorum.track),
]


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("opener, track", TRACKERS)
def test_an_interrupt_at_the_start_of_a_tracker_leaves_nothing(
    opener: Callable[[], Any], track: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_waiters = Lifetime.add_waiters

    def interrupted(lifetime: Lifetime, lot: trio.lowlevel.ParkingLot) -> None:
        add_waiters(lifetime, lot)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with opener() as service:
            monkeypatch.setattr(Lifetime, "add_waiters", interrupted)
            with pytest.raises(KeyboardInterrupt):
                async with track(service):
                    await trio.lowlevel.checkpoint()
            assert service._connection.lifetime._lots == {service._connection.dispatched}

    trio.run(main)
