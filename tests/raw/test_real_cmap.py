"""Cmap over the C libraries: values, listing, trackers, cancelled calls."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
import trio
from support.c_libraries import cancelled, of_the_libraries, open_fds
from support.external_programs import ask
from support.raw_handles import close, take

import triocoro
from triocoro._enums import CmapMap, CmapTrack, CmapType
from triocoro._services import ICMAP, QUORUM, STATS, CmapSpec
from triocoro._types import CmapChange, CmapNotification, CmapValue, TypedValue
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)

# Each type, what corosync-cmapctl calls it, and values with what it prints for them.
TYPED: list[tuple[CmapType, str, dict[CmapValue, str]]] = [
    (CmapType.INT8, "i8", {-(2**7): "-128", 2**7 - 1: "127"}),
    (CmapType.UINT8, "u8", {0: "0", 2**8 - 1: "255"}),
    (CmapType.INT16, "i16", {-(2**15): "-32768", 2**15 - 1: "32767"}),
    (CmapType.UINT16, "u16", {0: "0", 2**16 - 1: "65535"}),
    (CmapType.INT32, "i32", {-(2**31): "-2147483648", 2**31 - 1: "2147483647"}),
    (CmapType.UINT32, "u32", {0: "0", 2**32 - 1: "4294967295"}),
    (CmapType.INT64, "i64", {-(2**63): "-9223372036854775808", 2**63 - 1: "9223372036854775807"}),
    (CmapType.UINT64, "u64", {0: "0", 2**64 - 1: "18446744073709551615"}),
    (CmapType.FLOAT, "flt", {-0.5: "-0.500000", 1048576.0: "1048576.000000"}),
    (CmapType.DOUBLE, "dbl", {-0.1: "-0.100000", 2.0**40: "1099511627776.000000"}),
    (CmapType.STRING, "str", {"text": "text", "hé": "hé"}),
    (CmapType.BINARY, "bin", {b"bytes": "bytes", b"\0\x01": "\\x00\\x01"}),
]


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.parametrize("kind, letters, values", TYPED, ids=[letters for _, letters, _ in TYPED])
async def test_typed_values(corosync: Node, kind: CmapType, letters: str, values: dict[CmapValue, str]) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    for value, shown in values.items():
        await handle.set("test.ours", TypedValue(kind, value))
        assert await ask(corosync, "corosync-cmapctl", "-b", "-g", "test.ours") == f"test.ours ({letters}) = {shown}\n"
        assert await handle.get("test.ours") == TypedValue(kind, value)
        if letters != "bin":  # of which the program wants a file
            await ask(corosync, "corosync-cmapctl", "-s", "--", "test.its", letters, shown)
            assert await handle.get("test.its") == TypedValue(kind, value)
            assert await handle.items("test.its") == [("test.its", TypedValue(kind, value))]
    await close(handle)


@of_the_libraries
async def test_values_at_the_bounds(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    key = "test." + "k" * 250
    for value in (
        TypedValue(CmapType.STRING, "x" * 16384),
        TypedValue(CmapType.BINARY, os.urandom(16384)),
        TypedValue(CmapType.STRING, ""),
        TypedValue(CmapType.BINARY, b""),
        # Not UTF-8, and nothing is lost.
        TypedValue(CmapType.STRING, b"\xff\xfe".decode(errors="surrogateescape")),
    ):
        await handle.set(key, value)
        assert await handle.get(key) == value
        assert await handle.items("test.") == [(key, value)]
    with pytest.raises(triocoro.InvalidParamError):
        await handle.set(key, TypedValue(CmapType.BINARY, bytes(16385)))
    await close(handle)


async def test_keys_that_cannot_be_used(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "cmap_get": handle.get,
        "cmap_delete": handle.delete,
        "cmap_inc": handle.increment,
        "cmap_dec": handle.decrement,
    }
    for function, call in calls.items():
        with pytest.raises(triocoro.KeyNotFoundError, match=r"test\.absent") as caught:
            await call("test.absent")
        assert caught.value.function == function
    with pytest.raises(triocoro.AccessError, match="read-only"):
        await handle.set("internal_configuration.service.0.name", TypedValue(CmapType.STRING, "x"))
    await handle.set("test.number", TypedValue(CmapType.INT32, 5))
    await handle.increment("test.number")
    await handle.increment("test.number")
    await handle.decrement("test.number")
    assert await handle.get("test.number") == TypedValue(CmapType.INT32, 6)
    await handle.delete("test.number")
    assert await handle.items("test.") == []
    await close(handle)


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_items_are_those_of_cmapctl(corosync: Node) -> None:
    letters = {kind: name for kind, name, _ in TYPED}
    maps: list[tuple[CmapMap, list[str]]] = [(CmapMap.ICMAP, []), (CmapMap.STATS, ["-m", "stats"])]
    for number, arguments in maps:
        handle = await corosync.endpoint.connect(CmapSpec(number))
        for prefix in ("", "runtime.", "stats.srp.", "totem.token"):
            # It fails where there is nothing.
            command = ["corosync-cmapctl", "-b", *arguments, *filter(None, [prefix])]
            printed = await ask(corosync, *command, statuses=(0, 1))
            # Connections come and go, and the program's own is one.
            theirs = [line.partition(") = ")[0] for line in printed.splitlines() if "stats.ipcs.service" not in line]
            ours = [f"{key} ({letters[value.type]}" for key, value in await handle.items(prefix)]
            assert [line for line in ours if "stats.ipcs.service" not in line] == theirs
        await close(handle)


@pytest.mark.deadline(60)
async def test_listing_while_keys_come_and_go(corosync: Node) -> None:
    handles = [await corosync.endpoint.connect(ICMAP) for _ in range(2)]
    steady = {f"test.{number:03}" for number in range(0, 100, 2)}
    for key in steady:
        await handles[0].set(key, TypedValue(CmapType.UINT8, 0))

    async def churn() -> None:
        while True:
            for number in range(1, 100, 2):
                await handles[1].set(f"test.{number:03}", TypedValue(CmapType.STRING, "x"))
            for number in range(1, 100, 2):
                await handles[1].set(f"test.{number:03}", TypedValue(CmapType.STRING, "x" * 10 * number))
            for number in range(99, 0, -2):
                await handles[1].delete(f"test.{number:03}")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(churn)
        for _ in range(200):
            assert steady <= {key for key, _ in await handles[0].items("test.")}
        nursery.cancel_scope.cancel()
    await close(*handles)


async def test_changes(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    every = CmapTrack.ADD | CmapTrack.MODIFY | CmapTrack.DELETE
    await handle.track_add(2**40, "test.", every | CmapTrack.PREFIX)
    await handle.track_add(2, "test.b", CmapTrack.DELETE)
    one, text = TypedValue(CmapType.UINT8, 1), TypedValue(CmapType.STRING, "text")
    await handle.set("test.a", one)
    await handle.set("test.a", one)  # equal: no change
    await handle.set("test.a", text)
    await handle.delete("test.a")
    await handle.set("test.b", one)
    await handle.delete("test.b")
    added = CmapChange(CmapTrack.ADD, "test.a", 1, None, CmapType.UINT8)
    modified = CmapChange(CmapTrack.MODIFY, "test.a", "text", 1, CmapType.STRING, CmapType.UINT8)
    deleted = CmapChange(CmapTrack.DELETE, "test.a", None, "text", None, CmapType.STRING)
    gone = CmapChange(CmapTrack.DELETE, "test.b", None, 1, None, CmapType.UINT8)
    events = await take(handle, 6)
    assert events[:4] == [
        *(CmapNotification(2**40, change) for change in (added, modified, deleted)),
        CmapNotification(2**40, CmapChange(CmapTrack.ADD, "test.b", 1, None, CmapType.UINT8)),
    ]
    assert {event.tracker: event.change for event in events[4:] if isinstance(event, CmapNotification)} == {
        2**40: gone,
        2: gone,
    }
    await close(handle)


async def test_tracker_of_all_keys(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    await handle.track_add(1, "", CmapTrack.ADD | CmapTrack.PREFIX)
    await handle.set("test.a", TypedValue(CmapType.UINT8, 1))
    (event,) = await take(handle, 1)
    assert event == CmapNotification(1, CmapChange(CmapTrack.ADD, "test.a", 1, None, CmapType.UINT8))
    await close(handle)


async def test_statistics_that_come_and_go_have_one_value(corosync: Node) -> None:
    """The daemon tells of two, which are the same."""
    handle = await corosync.endpoint.connect(STATS)
    await handle.track_add(1, "stats.ipcs.service", CmapTrack.ADD | CmapTrack.DELETE | CmapTrack.PREFIX)
    other = await corosync.endpoint.connect(QUORUM)
    (event,) = await take(handle, 1)
    assert isinstance(event, CmapNotification)
    added = event.change
    assert added == CmapChange(CmapTrack.ADD, added.key, added.new, None, added.new_type)
    assert added.new is not None
    await close(other)
    while event.change.event is CmapTrack.ADD:
        (event,) = await take(handle, 1)
        assert isinstance(event, CmapNotification)
    deleted = event.change
    assert deleted == CmapChange(CmapTrack.DELETE, deleted.key, None, deleted.old, None, deleted.old_type)
    assert deleted.old is not None
    await close(handle)


async def test_deleted_tracker_drops_what_waits(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    for tracker in (1, 2):
        await handle.track_add(tracker, "test.a", CmapTrack.ADD)
    await handle.set("test.a", TypedValue(CmapType.UINT8, 1))
    await handle.track_delete(1)
    # Both are taken, in one batch and without an error; one is told of.
    change = CmapChange(CmapTrack.ADD, "test.a", 1, None, CmapType.UINT8)
    assert handle.dispatch(10, 2**20) == (2, [CmapNotification(2, change)])
    with pytest.raises(triocoro.BadHandleError, match="tracker"):
        await handle.track_delete(1)
    await handle.delete("test.a")
    await handle.set("test.a", TypedValue(CmapType.UINT8, 2))
    assert handle.dispatch(10, 2**20)[0] == 1
    await close(handle)


async def test_cancelled_track_add_is_undone(corosync: Node) -> None:
    handle = await corosync.endpoint.connect(ICMAP)
    await handle.track_add(1, "test.", CmapTrack.ADD | CmapTrack.PREFIX)
    await corosync.freeze()
    try:
        await cancelled(lambda: handle.track_add(2, "test.", CmapTrack.ADD | CmapTrack.PREFIX))
    finally:
        await corosync.thaw()
    for number in range(3):
        await handle.set(f"test.{number}", TypedValue(CmapType.UINT8, 1))
    assert [event.tracker for event in await take(handle, 3)] == [1, 1, 1]
    await close(handle)


@pytest.mark.deadline(60)
async def test_many_trackers_at_once(corosync: Node) -> None:
    """libcmap keeps the trackers of all connections in one table, which has no lock."""

    async def use(number: int) -> None:
        handle = await corosync.endpoint.connect(ICMAP)
        for turn in range(20):
            key = f"test.{number}.{turn}"
            await handle.track_add(number, key, CmapTrack.ADD)
            await handle.set(key, TypedValue(CmapType.UINT32, turn))
            assert await take(handle, 1) == [
                CmapNotification(number, CmapChange(CmapTrack.ADD, key, turn, None, CmapType.UINT32))
            ]
            if turn % 2:
                await handle.track_delete(number)
            else:
                await close(handle)
                handle = await corosync.endpoint.connect(ICMAP)
        await close(handle)

    async with trio.open_nursery() as nursery:
        for number in range(16):
            nursery.start_soon(use, number)


@pytest.mark.corosync(nodes=2)
async def test_frozen_daemon_holds_up_no_tracker_of_another(corosync_cluster: Cluster) -> None:
    handles = [await corosync_cluster[nodeid].endpoint.connect(ICMAP) for nodeid in (1, 2)]
    await corosync_cluster[1].freeze()
    try:
        await cancelled(lambda: handles[0].track_add(1, "test.", CmapTrack.ADD | CmapTrack.PREFIX))
        with trio.fail_after(10):
            await handles[1].track_add(2, "test.", CmapTrack.ADD | CmapTrack.PREFIX)
            await handles[1].set("test.a", TypedValue(CmapType.UINT8, 1))
            assert len(await take(handles[1], 1)) == 1
            await close(handles[1])
    finally:
        await corosync_cluster[1].thaw()
    await close(handles[0])


@of_the_libraries
async def test_connect_that_fails_halfway_leaves_nothing(corosync: Node) -> None:
    before = open_fds()
    with pytest.raises(triocoro.NotExistError, match="cmap_initialize_map"):
        await corosync.endpoint.connect(CmapSpec(cast("CmapMap", 7)))
    assert open_fds() == before
