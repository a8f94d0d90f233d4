"""Changes of cmap keys as trackers see them, and statistics, through the SDK and through lowlevel."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import pytest
import trio
from support.cmap import (
    ADD,
    ALL,
    DELETE,
    MODIFY,
    PREFIX,
    STRING,
    U8,
    U64,
    change,
    ignore,
    receive,
    refused,
)
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    AccessError,
    Cmap,
    CmapChange,
    CmapMap,
    CmapType,
    CmapValue,
    EventStream,
    KeyNotFoundError,
    NotSupportedError,
    TryAgainError,
    TypedValue,
    lowlevel,
)
from triocoro.lowlevel import CmapHandle, Dispatch
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


# -- changes -----------------------------------------------------------------------------------------------------------


async def make_changes(cmap: Cmap) -> list[CmapChange]:
    """Add, modify and delete; returns what there is to be heard of it."""
    await cmap.set("test.key", 1, CmapType.INT8)
    await cmap.set("test.key", 1, CmapType.INT8)  # which changes nothing
    await cmap.set("test.key", 1, U8)
    await cmap.increment("test.key")
    await cmap.set("test.key", "text", STRING)
    await cmap.set("test.other", b"\0", CmapType.BINARY)
    await cmap.delete("test.key")
    await cmap.delete("test.other")
    return [
        change(ADD, "test.key", (CmapType.INT8, 1)),
        change(MODIFY, "test.key", (U8, 1), (CmapType.INT8, 1)),
        change(MODIFY, "test.key", (U8, 2), (U8, 1)),
        change(MODIFY, "test.key", (STRING, "text"), (U8, 2)),
        change(ADD, "test.other", (CmapType.BINARY, b"\0")),
        change(DELETE, "test.key", None, (STRING, "text")),
        change(DELETE, "test.other", None, (CmapType.BINARY, b"\0")),
    ]


@pytest.mark.usefixtures("corosync")
async def test_changes_of_a_key_and_of_a_prefix() -> None:
    """Several trackers of one connection, and one of another; who changes is told as well."""
    async with (
        triocoro.open_cmap() as cmap,
        triocoro.open_cmap() as other,
        cmap.track("test.key") as one,
        cmap.track("test.key") as again,
        cmap.track("test.", prefix=True) as several,
        cmap.track("test.key", prefix=True) as both,
        cmap.track("test.nothing") as nothing,
        other.track("test.o", prefix=True) as elsewhere,
    ):
        events = await make_changes(cmap)
        of_key = [event for event in events if event.key == "test.key"]
        for stream, expected in ((one, of_key), (again, of_key), (several, events), (both, of_key)):
            assert await receive(stream, len(expected)) == expected
        assert await receive(elsewhere, 2) == [event for event in events if event.key == "test.other"]
        for stream in (one, again, several, both, nothing, elsewhere):
            assert stream.statistics().buffered_events == 0


@pytest.mark.usefixtures("corosync")
async def test_values_are_compared_bit_by_bit_to_decide_whether_they_changed() -> None:
    async with triocoro.open_cmap() as cmap, cmap.track("test.key") as changes:
        for value in (0.0, -0.0, 0.0, math.nan, math.nan, 1.0, 1.0):
            await cmap.set("test.key", value, CmapType.DOUBLE)
        await cmap.set("test.key", 1, CmapType.UINT64)
        heard = [repr((await changes.receive()).new) for _ in range(6)]
        assert heard == ["0.0", "-0.0", "0.0", "nan", "1.0", "1"]
        assert changes.statistics().buffered_events == 0


@pytest.mark.usefixtures("corosync")
async def test_changes_of_everything() -> None:
    async with triocoro.open_cmap() as cmap, cmap.track(prefix=True) as changes:
        events = await make_changes(cmap)
        heard: list[CmapChange] = []
        while len(heard) < len(events):
            event = await changes.receive()
            # The daemon counts messages in this map, too.
            if event.key.startswith("test."):
                heard.append(event)
        assert heard == events


@pytest.mark.usefixtures("corosync")
async def test_a_tracker_that_has_ended_hears_nothing() -> None:
    async with triocoro.open_cmap() as cmap, cmap.track("test.key") as lasting:
        async with cmap.track("test.key") as ended:
            await cmap.set("test.key", 1)
            assert (await ended.receive()).new == 1
        await cmap.set("test.key", 2)
        assert [event.new for event in await receive(lasting, 2)] == [1, 2]
        assert ended.statistics().buffered_events == 0
        with pytest.raises(trio.ClosedResourceError):
            await ended.receive()


@pytest.mark.usefixtures("corosync")
async def test_the_daemon_forgets_a_tracker_that_has_ended() -> None:
    """Else it would go on sending: its own statistics count what it has sent us."""
    async with (
        triocoro.open_cmap(CmapMap.STATS) as stats,
        stats.track("stats.ipcs.", prefix=True) as connections,
        triocoro.open_cmap() as cmap,
    ):
        sent = next(key for key in [await added(connections) for _ in range(13)] if key.endswith(".dispatched"))
        async with cmap.track("test.key") as changes:
            await cmap.set("test.key", 1)
            await changes.receive()
            assert await stats.get(sent) == 1
        await cmap.set("test.key", 2)
        await cmap.delete("test.key")
        assert await stats.get(sent) == 1


async def added(connections: EventStream[CmapChange]) -> str:
    event = await connections.receive()
    assert event.event is ADD
    return event.key


# -- statistics --------------------------------------------------------------------------------------------------------


async def test_statistics_follow_the_connections(corosync: Node) -> None:
    async with triocoro.open_cmap(CmapMap.STATS) as stats:
        active = await stats.get("stats.ipcs.global.active")
        assert isinstance(active, int)
        before = dict(await stats.items("stats.ipcs.service"))
        async with stats.track("stats.ipcs.service3.", prefix=True) as changes:
            async with triocoro.open_quorum(endpoint=corosync.endpoint):
                assert await stats.get("stats.ipcs.global.active") == active + 1
                # In the order of the keys they are listed; told of, in the daemon's own.
                keys = {event.key for event in await receive(changes, 13) if event.event is ADD}
                listed = dict(await stats.items("stats.ipcs.service3."))
                assert len(keys) == 13
                assert keys == set(listed)
                name = {key.split(".")[-1]: value for key, value in listed.items()}
                assert name["queueing"] == 0
                assert name["procname"] == ""
            gone = await receive(changes, 13)
            assert {event.key for event in gone} == keys
            assert {(event.event, event.new) for event in gone} == {(DELETE, None)}
        assert set(dict(await stats.items("stats.ipcs.service"))) == set(before)


async def test_a_statistic_that_changes_is_told_of_now_and_then(corosync: Node) -> None:
    """The daemon looks every 1.5 s, and does not tell the old value, though it says so."""
    async with (
        triocoro.open_cmap(CmapMap.STATS) as stats,
        stats.track("stats.ipcs.global.active") as changes,
    ):
        active = cast("int", await stats.get("stats.ipcs.global.active"))
        async with triocoro.open_cpg(endpoint=corosync.endpoint):
            value = (U64, active + 1)
            assert await changes.receive() == change(MODIFY, "stats.ipcs.global.active", value, value)


@pytest.mark.corosync(nodes=2)
async def test_statistics_of_the_links(corosync_cluster: Cluster) -> None:
    async with triocoro.open_cmap(CmapMap.STATS) as stats, triocoro.open_cmap() as cmap:
        for nodeid in (1, 2):
            assert await stats.get_typed(f"stats.knet.node{nodeid}.link0.enabled") == TypedValue(U8, 1)
            assert await stats.get_typed(f"stats.knet.node{nodeid}.link0.connected") == TypedValue(U8, 1)
        async with cmap.track("runtime.members.2.status") as changes:
            await corosync_cluster[2].kill()
            await changes.receive()
        assert await stats.get("stats.knet.node2.link0.connected") == 0
        assert await stats.get("stats.knet.node1.link0.connected") == 1


@pytest.mark.usefixtures("corosync")
async def test_statistics_can_be_reset_and_nothing_else() -> None:
    async with triocoro.open_cmap():
        pass
    async with triocoro.open_cmap(CmapMap.STATS) as stats:
        while await stats.get("stats.ipcs.global.closed") == 0:  # noqa: ASYNC110 - until the daemon has noticed
            await trio.sleep(0.01)
        await stats.set("stats.clear.ipc", 1, U8)
        assert await stats.get("stats.ipcs.global.closed") == 0
        for key in ("stats.clear.totem", "stats.clear.all"):
            assert (await stats.get("stats.srp.operational_entered") == 0) is (key == "stats.clear.all")
            await stats.set(key, "whatever", STRING)
            assert await stats.get("stats.srp.operational_entered") == 0
        for key, value in (("stats.srp.mcast_tx", 1), ("stats.no", "text"), ("totem.token", 1)):
            await refused(AccessError, "read-only", partial(stats.set, key, value, None), stats)
        await refused(
            NotSupportedError,
            "only what resets them can be set",
            partial(stats.set, "stats.clear.nothing", 1, U8),
            stats,
        )
        await refused(AccessError, "read-only", partial(stats.delete, "stats.srp.mcast_tx"), stats)
        await refused(
            NotSupportedError, "only what resets them can be set", partial(stats.delete, "stats.clear.ipc"), stats
        )
        await refused(AccessError, "read-only", partial(stats.increment, "stats.srp.mcast_tx"), stats)
        await refused(
            NotSupportedError,
            "only what resets them can be set",
            partial(stats.decrement, "stats.clear.ipc"),
            stats,
        )
        await refused(KeyNotFoundError, "'totem.token' is not in the map", partial(stats.get, "totem.token"), stats)


@pytest.mark.usefixtures("corosync")
async def test_statistics_of_a_prefix_are_tracked_as_a_whole() -> None:
    handle = await lowlevel.cmap_initialize(CmapMap.STATS)
    for track_type in (MODIFY | PREFIX, ADD | PREFIX, DELETE | PREFIX, MODIFY | ADD | PREFIX):
        with pytest.raises(NotSupportedError):
            await handle.track_add("stats.", track_type, ignore)
    await handle.track_add("stats.", ADD | DELETE | PREFIX, ignore)
    await handle.finalize()


# -- lowlevel ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def tracking(
    *keys: str, notify: Callable[[CmapChange], Awaitable[object]]
) -> AsyncGenerator[tuple[CmapHandle, Cmap], None]:
    """A handle that tracks these keys, and another connection to change them with."""
    async with triocoro.open_cmap() as cmap:
        handle = await lowlevel.cmap_initialize(context="mine")
        try:
            for key in keys:
                await handle.track_add(key, ALL, notify)
            yield handle, cmap
        finally:
            with trio.CancelScope(shield=True):
                await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_every_call_of_a_handle() -> None:
    handle = await lowlevel.cmap_initialize(context="mine")
    assert handle.context == "mine"
    assert handle.fd >= 0
    await handle.set("test.key", 255, U8)
    await handle.inc("test.key")
    assert await handle.get("test.key") == TypedValue(U8, 0)
    await handle.dec("test.key")
    assert await handle.items("test.") == [("test.key", TypedValue(U8, 255))]
    await handle.delete("test.key")
    for call in (handle.get, handle.delete, handle.inc, handle.dec):
        with pytest.raises(KeyNotFoundError):
            await call("test.key")
    with pytest.raises(AccessError):
        await handle.set("system.key", 1, U8)
    await handle.finalize()
    with pytest.raises(trio.ClosedResourceError):
        await handle.get("test.key")


@pytest.mark.usefixtures("corosync")
async def test_trackers_of_one_handle_are_called_in_corosyncs_order() -> None:
    """First those of the key, the latest first; then the prefixes, from the longest on, and those that came first."""
    heard: list[str] = []

    def note(name: str) -> Callable[[CmapChange], Awaitable[None]]:
        async def notify(event: CmapChange) -> None:
            await trio.lowlevel.checkpoint()
            if event.key == "test.key":
                heard.append(f"{name} {event.event.name}")

        return notify

    handle = await lowlevel.cmap_initialize()
    for name, key, track_type in (
        ("prefix 1", "test.", ALL | PREFIX),
        ("key 1", "test.key", ALL),
        ("everything 1", "", ALL | PREFIX),
        ("key as prefix 1", "test.key", ALL | PREFIX),
        ("key 2", "test.key", ALL),
        ("short prefix", "t", ALL | PREFIX),
        ("prefix 2", "test.", ALL | PREFIX),
        ("key as prefix 2", "test.key", ALL | PREFIX),
        ("everything 2", "", ALL | PREFIX),
        ("only adds", "test.key", ADD),
        ("only modifications", "test.", MODIFY | PREFIX),
        ("another", "test.keys", ALL),
    ):
        await handle.track_add(key, track_type, note(name))
    await handle.set("test.key", 1, U8)
    await handle.dispatch(Dispatch.ALL)
    keys = ["key 2", "key 1", "key as prefix 1", "key as prefix 2"]
    prefixes = ["prefix 1", "prefix 2", "short prefix", "everything 2", "everything 1"]
    assert heard == [f"{name} ADD" for name in ["only adds", *keys, *prefixes]]
    heard.clear()
    await handle.set("test.key", 2, U8)
    await handle.dispatch(Dispatch.ALL)
    prefixes.insert(2, "only modifications")
    assert heard == [f"{name} MODIFY" for name in [*keys, *prefixes]]
    await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_notifications_of_a_deleted_tracker_are_dropped() -> None:
    heard: list[str] = []

    async def first(event: CmapChange) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(f"first {event.new!r}")

    async def second(event: CmapChange) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(f"second {event.new!r}")

    handle = await lowlevel.cmap_initialize()
    deleted = await handle.track_add("test.key", ALL, first)
    await handle.track_add("test.key", ALL, second)
    await handle.set("test.key", 1, U8)
    await handle.track_delete(deleted)
    await handle.set("test.key", 2, U8)
    await handle.dispatch(Dispatch.ALL)
    assert heard == ["second 1", "second 2"]
    await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_dispatch_all_and_one_nonblocking() -> None:
    heard: list[CmapValue | None] = []

    async def notify(event: CmapChange) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(event.new)

    async with tracking("test.key", notify=notify) as (handle, cmap):
        with pytest.raises(TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        await handle.dispatch(Dispatch.ALL)
        assert heard == []
        for value in range(5):
            await cmap.set("test.key", value)
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        assert heard == [0, 1]
        await handle.dispatch(Dispatch.ALL)
        assert heard == [0, 1, 2, 3, 4]
        with pytest.raises(TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)


@pytest.mark.usefixtures("corosync")
async def test_dispatch_one_and_blocking() -> None:
    heard: list[CmapValue | None] = []

    async def notify(event: CmapChange) -> None:
        heard.append(event.new)
        # A callback may use its own handle. The key may have changed again meanwhile.
        value = (await handle.get(event.key)).value
        assert isinstance(value, int)
        assert isinstance(event.new, int)
        assert value >= event.new
        if event.new == 3:
            await handle.finalize()

    async with tracking("test.key", "test.last", notify=notify) as (handle, cmap):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.ONE)
            await wait_all_tasks_blocked()
            await cmap.set("test.key", 1)
        assert heard == [1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.BLOCKING)
            for value in (2, 3):
                await wait_all_tasks_blocked()
                await cmap.set("test.key", value)
        assert heard == [1, 2, 3]
