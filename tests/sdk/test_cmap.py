"""The maps of a node: keys, types, changes, and what Corosync's own tool says of them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
import trio
from support import installed
from support.fixtures.figures import Bound, Figure
from support.witness import ask
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    AccessError,
    Cmap,
    CmapChange,
    CmapMap,
    CmapTrack,
    CmapType,
    CmapValue,
    EventStream,
    InvalidParamError,
    KeyNotFoundError,
    NotSupportedError,
    TryAgainError,
    TypedValue,
    lowlevel,
)
from triocoro.lowlevel import CmapHandle, Dispatch
from triocoro.testing import Cluster, ClusterSettings, FakeCluster, NetnsCluster, Node

pytestmark = pytest.mark.deadline(30)

_ADD, _MODIFY, _DELETE, _PREFIX = CmapTrack.ADD, CmapTrack.MODIFY, CmapTrack.DELETE, CmapTrack.PREFIX
_ALL = _ADD | _MODIFY | _DELETE

_U8, _U32, _U64 = CmapType.UINT8, CmapType.UINT32, CmapType.UINT64
_STRING = CmapType.STRING

_BOUNDS: Mapping[CmapType, tuple[int, int]] = {
    CmapType.INT8: (-128, 127),
    CmapType.UINT8: (0, 255),
    CmapType.INT16: (-32768, 32767),
    CmapType.UINT16: (0, 65535),
    CmapType.INT32: (-(2**31), 2**31 - 1),
    CmapType.UINT32: (0, 2**32 - 1),
    CmapType.INT64: (-(2**63), 2**63 - 1),
    CmapType.UINT64: (0, 2**64 - 1),
}
_FLT_MAX = 3.4028234663852886e38
_DBL_MAX = 1.7976931348623157e308
_FULL = 16 * 1024

_VALUES: Mapping[CmapType, Sequence[CmapValue]] = {
    **{type_: (lowest, 1, highest) for type_, (lowest, highest) in _BOUNDS.items()},
    CmapType.FLOAT: (-_FLT_MAX, -0.0, 0.5, 1.401298464324817e-45, _FLT_MAX, math.inf),
    CmapType.DOUBLE: (-_DBL_MAX, -0.0, 0.1, 5e-324, _DBL_MAX, -math.inf),
    CmapType.STRING: ("", "text", "é €", "x" * _FULL),
    CmapType.BINARY: (b"", b"\0", bytes(range(256)), b"\xff" * _FULL),
}


def change(
    event: CmapTrack,
    key: str,
    new: tuple[CmapType, CmapValue] | None = None,
    old: tuple[CmapType, CmapValue] | None = None,
) -> CmapChange:
    return CmapChange(
        event,
        key,
        new=None if new is None else new[1],
        old=None if old is None else old[1],
        new_type=None if new is None else new[0],
        old_type=None if old is None else old[0],
    )


async def receive(changes: EventStream[CmapChange], count: int) -> list[CmapChange]:
    return [await changes.receive() for _ in range(count)]


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", CmapType, ids=lambda type_: type_.name)
async def test_a_value_of_each_type_at_both_ends(corosync: Node, type_: CmapType) -> None:
    async with triocoro.open_cmap() as cmap, triocoro.open_cmap(endpoint=corosync.endpoint) as other:
        for value in _VALUES[type_]:
            await cmap.set("test.key", value, type_)
            for reader in (cmap, other):
                typed = await reader.get_typed("test.key")
                # As -0.0 equals 0.0, and 1 equals 1.0.
                assert (typed.type, repr(typed.value)) == (type_, repr(value))
                assert repr(await reader.get("test.key")) == repr(value)
                assert await reader.items_typed("test.") == [("test.key", TypedValue(type_, value))]


@pytest.mark.usefixtures("corosync")
async def test_a_number_is_rounded_as_its_type_does() -> None:
    async with triocoro.open_cmap() as cmap:
        await cmap.set("test.float", 0.1, CmapType.FLOAT)
        assert await cmap.get("test.float") == 0.10000000149011612
        await cmap.set("test.nan", math.nan, CmapType.DOUBLE)
        assert math.isnan(cast("float", await cmap.get("test.nan")))


@pytest.mark.usefixtures("corosync")
async def test_the_type_of_a_value_that_comes_without() -> None:
    async with triocoro.open_cmap() as cmap:
        for value, type_ in (
            ("text", CmapType.STRING),
            (b"binary", CmapType.BINARY),
            (0.5, CmapType.DOUBLE),
            (2**40, CmapType.INT64),
        ):
            await cmap.set(f"test.{type_.name}", value)
            assert await cmap.get_typed(f"test.{type_.name}") == TypedValue(type_, value)
        # A key that is there keeps its type,
        await cmap.set("test.number", 7, CmapType.UINT16)
        await cmap.set("test.number", 8)
        assert await cmap.get_typed("test.number") == TypedValue(CmapType.UINT16, 8)
        # unless the new one is given.
        await cmap.set("test.number", "eight", CmapType.STRING)
        assert await cmap.get_typed("test.number") == TypedValue(CmapType.STRING, "eight")


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("type_", _BOUNDS, ids=lambda type_: type_.name)
async def test_counting_wraps_around(type_: CmapType) -> None:
    lowest, highest = _BOUNDS[type_]
    async with triocoro.open_cmap() as cmap:
        await cmap.set("test.count", highest - 1, type_)
        await cmap.increment("test.count")
        assert await cmap.get_typed("test.count") == TypedValue(type_, highest)
        await cmap.increment("test.count")
        assert await cmap.get_typed("test.count") == TypedValue(type_, lowest)
        await cmap.decrement("test.count")
        assert await cmap.get_typed("test.count") == TypedValue(type_, highest)


@pytest.mark.usefixtures("corosync")
async def test_items_are_sorted_and_begin_with_the_prefix() -> None:
    values = {"test.b": 2, "test.a.b": 3, "test.a": 1, "test.ab": 4, "test.a-c": 5, "testing": 6, "Test.a": 7}
    async with triocoro.open_cmap() as cmap:
        for key, value in values.items():
            await cmap.set(key, value)
        for prefix in ("test.a", "test.a.", "test.", "test", "te", "T", "test.a.b", "no.such.key"):
            expected = sorted(item for item in values.items() if item[0].startswith(prefix))
            assert await cmap.items(prefix) == expected
        every = await cmap.items()
        assert [key for key, _ in every] == sorted(key for key, _ in every)
        assert set(values.items()) < set(every)
        assert dict(every)["totem.cluster_name"] == await cmap.get("totem.cluster_name")


async def test_a_map_is_its_nodes_own_and_ends_with_the_daemon(corosync_cluster: Cluster) -> None:
    one, two = corosync_cluster[1], corosync_cluster[2]
    async with triocoro.open_cmap(endpoint=one.endpoint) as cmap:
        await cmap.set("test.key", 1)
    async with (
        triocoro.open_cmap(endpoint=one.endpoint) as later,
        triocoro.open_cmap(endpoint=two.endpoint) as elsewhere,
    ):
        assert await later.get("test.key") == 1
        with pytest.raises(KeyNotFoundError):
            await elsewhere.get("test.key")
    await one.stop()
    await one.start()
    async with triocoro.open_cmap(endpoint=one.endpoint) as cmap:
        assert await cmap.items("test.") == []


async def test_members_come_and_go(corosync_cluster: Cluster) -> None:
    """What the daemon itself writes."""
    async with triocoro.open_cmap() as cmap, cmap.track("runtime.members.3.", prefix=True) as changes:
        assert await cmap.get("runtime.members.3.ip") == "r(0) ip(192.0.2.3) "
        joined = await cmap.get("runtime.members.3.join_count")
        await corosync_cluster[3].kill()
        left = await changes.receive()
        assert left == change(_MODIFY, "runtime.members.3.status", (_STRING, "left"), (_STRING, "joined"))
        await corosync_cluster[3].start()
        assert isinstance(joined, int)
        assert await receive(changes, 2) == [
            change(_MODIFY, "runtime.members.3.join_count", (_U32, joined + 1), (_U32, joined)),
            change(_MODIFY, "runtime.members.3.status", (_STRING, "joined"), (_STRING, "left")),
        ]


@pytest.mark.corosync(nodes=2)
async def test_the_version_of_the_configuration_is_told_to_the_others(corosync_cluster: Cluster) -> None:
    """The one thing in a map that other nodes hear of."""
    key = "runtime.members.1.config_version"
    async with (
        triocoro.open_cmap() as cmap,
        triocoro.open_cmap(endpoint=corosync_cluster[2].endpoint) as other,
        other.track(key) as changes,
    ):
        assert await other.get(key) == 0
        await cmap.set("totem.config_version", 7, _U64)
        assert await changes.receive() == change(_MODIFY, key, (_U64, 7), (_U64, 0))
        # That it is deleted they do not hear.
        await cmap.delete("totem.config_version")
        await cmap.set("totem.config_version", 8, _U64)
        assert await changes.receive() == change(_MODIFY, key, (_U64, 8), (_U64, 7))
        # Of another type it is none.
        await cmap.set("totem.config_version", 9, _U32)
        assert await changes.receive() == change(_MODIFY, key, (_U64, 0), (_U64, 8))


# -- changes -----------------------------------------------------------------------------------------------------------


async def make_changes(cmap: Cmap) -> list[CmapChange]:
    """Add, modify and delete; returns what there is to be heard of it."""
    await cmap.set("test.key", 1, CmapType.INT8)
    await cmap.set("test.key", 1, CmapType.INT8)  # which changes nothing
    await cmap.set("test.key", 1, _U8)
    await cmap.increment("test.key")
    await cmap.set("test.key", "text", _STRING)
    await cmap.set("test.other", b"\0", CmapType.BINARY)
    await cmap.delete("test.key")
    await cmap.delete("test.other")
    return [
        change(_ADD, "test.key", (CmapType.INT8, 1)),
        change(_MODIFY, "test.key", (_U8, 1), (CmapType.INT8, 1)),
        change(_MODIFY, "test.key", (_U8, 2), (_U8, 1)),
        change(_MODIFY, "test.key", (_STRING, "text"), (_U8, 2)),
        change(_ADD, "test.other", (CmapType.BINARY, b"\0")),
        change(_DELETE, "test.key", None, (_STRING, "text")),
        change(_DELETE, "test.other", None, (CmapType.BINARY, b"\0")),
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
async def test_what_is_a_change_is_decided_bit_by_bit() -> None:
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
    assert event.event is _ADD
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
                keys = {event.key for event in await receive(changes, 13) if event.event is _ADD}
                listed = dict(await stats.items("stats.ipcs.service3."))
                assert len(keys) == 13
                assert keys == set(listed)
                name = {key.split(".")[-1]: value for key, value in listed.items()}
                assert name["queueing"] == 0
                assert name["procname"] == ""
            gone = await receive(changes, 13)
            assert {event.key for event in gone} == keys
            assert {(event.event, event.new) for event in gone} == {(_DELETE, None)}
        assert set(dict(await stats.items("stats.ipcs.service"))) == set(before)


async def test_a_statistic_that_changes_is_told_of_now_and_then(corosync: Node) -> None:
    """The daemon looks every 1.5 s, and does not tell the old value, though it says so."""
    async with (
        triocoro.open_cmap(CmapMap.STATS) as stats,
        stats.track("stats.ipcs.global.active") as changes,
    ):
        active = cast("int", await stats.get("stats.ipcs.global.active"))
        async with triocoro.open_cpg(endpoint=corosync.endpoint):
            value = (_U64, active + 1)
            assert await changes.receive() == change(_MODIFY, "stats.ipcs.global.active", value, value)


@pytest.mark.corosync(nodes=2)
async def test_statistics_of_the_links(corosync_cluster: Cluster) -> None:
    async with triocoro.open_cmap(CmapMap.STATS) as stats, triocoro.open_cmap() as cmap:
        for nodeid in (1, 2):
            assert await stats.get_typed(f"stats.knet.node{nodeid}.link0.enabled") == TypedValue(_U8, 1)
            assert await stats.get_typed(f"stats.knet.node{nodeid}.link0.connected") == TypedValue(_U8, 1)
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
        await stats.set("stats.clear.ipc", 1, _U8)
        assert await stats.get("stats.ipcs.global.closed") == 0
        for key in ("stats.clear.totem", "stats.clear.all"):
            assert (await stats.get("stats.srp.operational_entered") == 0) is (key == "stats.clear.all")
            await stats.set(key, "whatever", _STRING)
            assert await stats.get("stats.srp.operational_entered") == 0
        for key, value in (("stats.srp.mcast_tx", 1), ("stats.no", "text"), ("totem.token", 1)):
            await refused(AccessError, "read-only", partial(stats.set, key, value, None), stats)
        await refused(
            NotSupportedError,
            "only what resets them can be set",
            partial(stats.set, "stats.clear.nothing", 1, _U8),
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
    for track_type in (_MODIFY | _PREFIX, _ADD | _PREFIX, _DELETE | _PREFIX, _MODIFY | _ADD | _PREFIX):
        with pytest.raises(NotSupportedError):
            await handle.track_add("stats.", track_type, ignore)
    await handle.track_add("stats.", _ADD | _DELETE | _PREFIX, ignore)
    await handle.finalize()


async def ignore(event: CmapChange) -> None:
    """A callback that does nothing."""


# -- mistakes ----------------------------------------------------------------------------------------------------------


async def refused(
    error: type[BaseException], words: str, call: Callable[[], Awaitable[object]], cmap: Cmap
) -> BaseException:
    """It is a clear error, and the connection is as good as before."""
    with pytest.raises(error, match=re.escape(words)) as info:
        await call()
    assert await cmap.items("no.such.key") == []
    return info.value


@pytest.mark.usefixtures("corosync")
async def test_missing_keys() -> None:
    async with triocoro.open_cmap() as cmap:
        for call in (cmap.get, cmap.get_typed, cmap.delete, cmap.increment, cmap.decrement):
            words = "'test.missing' is not in the map"
            error = await refused(KeyNotFoundError, words, partial(call, "test.missing"), cmap)
            assert isinstance(error, KeyError)


@pytest.mark.usefixtures("corosync")
async def test_counting_what_is_no_integer() -> None:
    async with triocoro.open_cmap() as cmap:
        for value, type_ in (
            ("1", _STRING),
            (b"1", CmapType.BINARY),
            (1.0, CmapType.FLOAT),
            (1.0, CmapType.DOUBLE),
        ):
            await cmap.set("test.key", value, type_)
            for call in (cmap.increment, cmap.decrement):
                words = "'test.key' is no integer"
                await refused(InvalidParamError, words, partial(call, "test.key"), cmap)
            assert await cmap.get_typed("test.key") == TypedValue(type_, value)


@pytest.mark.usefixtures("corosync")
async def test_read_only_keys() -> None:
    """The same ones on every node; a key under a prefix that is read-only cannot even be made."""
    keys = ["system.state_dir", "system.new", "nodelist.node.0.nodeid", "nodelist.new", "runtime.config.totem.token"]
    keys += ["runtime.services.cpg.service_id", "internal_configuration.service.0.ver", "uidgid.config.uid.7"]
    keys += ["totem.version", "totem.cluster_name", "totem.keyfile", "quorum.wait_for_all"]
    keys += ["config.reload_in_progress"]
    async with triocoro.open_cmap() as cmap:
        for key in keys:
            words = f"{key!r} is read-only"
            for value in (1, "text"):
                await refused(AccessError, words, partial(cmap.set, key, value, _natural(value)), cmap)
            for call in (cmap.delete, cmap.increment, cmap.decrement):
                await refused(AccessError, words, partial(call, key), cmap)
        # What only begins like a single one is not.
        for key in ("totem.versions", "totem.token", "quorum.two_node", "runtime.key", "uidgid.uid.7", "nodelis"):
            await cmap.set(key, 3, _U32)
            assert await cmap.get(key) == 3


def _natural(value: CmapValue) -> CmapType:
    return _STRING if isinstance(value, str) else _U32


_BAD_KEYS: Sequence[tuple[Any, type[Exception], str]] = [
    ("", ValueError, "3 to 255 characters, not 0"),
    ("ab", ValueError, "3 to 255 characters, not 2"),
    ("x" * 256, ValueError, "3 to 255 characters, not 256"),
    ("test key", ValueError, "letters, digits and any of . _ - : / only"),
    ("test.kéy", ValueError, "letters, digits and any of . _ - : / only"),
    ("test.key\0", ValueError, "letters, digits and any of . _ - : / only"),
    ("test.key\n", ValueError, "letters, digits and any of . _ - : / only"),
    (b"test.key", TypeError, "must be a str, not bytes"),
    (None, TypeError, "must be a str, not NoneType"),
]

_BAD_VALUES: Sequence[tuple[CmapType, Any, type[Exception], str]] = [
    *((type_, lowest - 1, ValueError, f"must be {lowest} to") for type_, (lowest, _) in _BOUNDS.items()),
    *((type_, highest + 1, ValueError, f"to {highest}, not") for type_, (_, highest) in _BOUNDS.items()),
    *((type_, "1", TypeError, "must be an int, not str") for type_ in _BOUNDS),
    *((type_, 1.0, TypeError, "must be an int, not float") for type_ in _BOUNDS),
    *((type_, True, TypeError, "must be an int, not bool") for type_ in _BOUNDS),
    (CmapType.FLOAT, 3.5e38, ValueError, "out of the range of type FLOAT"),
    (CmapType.FLOAT, "1", TypeError, "must be a float, not str"),
    (CmapType.DOUBLE, True, TypeError, "must be a float, not bool"),
    (CmapType.STRING, b"text", TypeError, "must be a str, not bytes"),
    (CmapType.STRING, "a\0b", ValueError, "must not contain a NUL character"),
    (CmapType.STRING, "x" * (_FULL + 1), ValueError, "0 to 16384 bytes, not 16385"),
    (CmapType.STRING, "é" * (_FULL // 2 + 1), ValueError, "0 to 16384 bytes, not 16386"),
    (CmapType.BINARY, "text", TypeError, "must be bytes, not str"),
    (CmapType.BINARY, bytes(_FULL + 1), ValueError, "at most 16384 bytes, not 16385"),
]


@pytest.mark.usefixtures("corosync")
async def test_bad_keys() -> None:
    async with triocoro.open_cmap() as cmap:
        handle = await lowlevel.cmap_initialize()
        for key, error, words in _BAD_KEYS:

            async def tracked(key: str = key) -> None:
                async with cmap.track(key):
                    raise AssertionError("it was accepted")

            for call in (
                *(partial(call, key) for call in (cmap.get, cmap.get_typed, cmap.delete)),
                *(partial(call, key) for call in (cmap.increment, cmap.decrement)),
                *(partial(call, key) for call in (handle.get, handle.delete, handle.inc, handle.dec)),
                partial(cmap.set, key, 1, None),
                partial(handle.set, key, 1, _U8),
                partial(handle.track_add, key, _ALL, ignore),
                tracked,
            ):
                await refused(error, words, call, cmap)
        # What is too short for a key does as a prefix.
        assert await cmap.items("zz") == await handle.items("zz") == []
        for key, error, words in _BAD_KEYS[2:]:
            await refused(error, words, partial(cmap.items, key), cmap)
            await refused(error, words, partial(cmap.items_typed, key), cmap)
            await refused(error, words, partial(handle.items, key), cmap)
            await refused(error, words, partial(handle.track_add, key, _ALL | _PREFIX, ignore), cmap)
        await handle.finalize()
        # The longest and the shortest that there may be.
        for key in ("x" * 255, "a-b", "A/:", "0._"):
            await cmap.set(key, key)
            assert await cmap.items(key) == [(key, key)]


@pytest.mark.usefixtures("corosync")
async def test_bad_values() -> None:
    async with triocoro.open_cmap() as cmap:
        handle = await lowlevel.cmap_initialize()
        for type_, value, error, words in _BAD_VALUES:
            await refused(error, words, partial(cmap.set, "test.key", value, type_), cmap)
            await refused(error, words, partial(handle.set, "test.key", value, type_), cmap)
        await refused(ValueError, "13 is not a valid CmapType", partial(cmap.set, "a.b", 1, cast("Any", 13)), cmap)
        await refused(
            TypeError,
            "must be int, float, str or bytes, not NoneType",
            partial(cmap.set, "a.b", cast("Any", None)),
            cmap,
        )
        assert await cmap.items("test.") == []
        # A value without a type must fit the one that the key has.
        await cmap.set("test.key", 1, CmapType.INT8)
        await refused(ValueError, "must be -128 to 127, not 128", partial(cmap.set, "test.key", 128), cmap)
        await refused(TypeError, "must be an int, not str", partial(cmap.set, "test.key", "text"), cmap)
        assert await cmap.get("test.key") == 1
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_bad_trackers() -> None:
    async with triocoro.open_cmap() as cmap:
        handle = await lowlevel.cmap_initialize()
        number = await handle.track_add("test.key", _ALL, ignore)
        with pytest.raises(ValueError, match="has no tracker"):
            await handle.track_delete(number + 1)
        await handle.track_delete(number)
        with pytest.raises(ValueError, match="has no tracker"):
            await handle.track_delete(number)
        with pytest.raises((TypeError, ValueError)):
            await handle.track_add("test.key", cast("Any", 16), ignore)
        with pytest.raises(TypeError, match="prefix must be a bool"):
            await cmap.track("test.key", prefix=cast("Any", 1)).__aenter__()
        with pytest.raises(ValueError, match="2 is not a valid CmapMap"):
            await triocoro.open_cmap(cast("Any", 2)).__aenter__()
        assert await handle.items("test.") == []
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
                await handle.track_add(key, _ALL, notify)
            yield handle, cmap
        finally:
            with trio.CancelScope(shield=True):
                await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_every_call_of_a_handle() -> None:
    handle = await lowlevel.cmap_initialize(context="mine")
    assert handle.context == "mine"
    assert handle.fd >= 0
    await handle.set("test.key", 255, _U8)
    await handle.inc("test.key")
    assert await handle.get("test.key") == TypedValue(_U8, 0)
    await handle.dec("test.key")
    assert await handle.items("test.") == [("test.key", TypedValue(_U8, 255))]
    await handle.delete("test.key")
    for call in (handle.get, handle.delete, handle.inc, handle.dec):
        with pytest.raises(KeyNotFoundError):
            await call("test.key")
    with pytest.raises(AccessError):
        await handle.set("system.key", 1, _U8)
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
        ("prefix 1", "test.", _ALL | _PREFIX),
        ("key 1", "test.key", _ALL),
        ("everything 1", "", _ALL | _PREFIX),
        ("key as prefix 1", "test.key", _ALL | _PREFIX),
        ("key 2", "test.key", _ALL),
        ("short prefix", "t", _ALL | _PREFIX),
        ("prefix 2", "test.", _ALL | _PREFIX),
        ("key as prefix 2", "test.key", _ALL | _PREFIX),
        ("everything 2", "", _ALL | _PREFIX),
        ("only adds", "test.key", _ADD),
        ("only modifications", "test.", _MODIFY | _PREFIX),
        ("another", "test.keys", _ALL),
    ):
        await handle.track_add(key, track_type, note(name))
    await handle.set("test.key", 1, _U8)
    await handle.dispatch(Dispatch.ALL)
    keys = ["key 2", "key 1", "key as prefix 1", "key as prefix 2"]
    prefixes = ["prefix 1", "prefix 2", "short prefix", "everything 2", "everything 1"]
    assert heard == [f"{name} ADD" for name in ["only adds", *keys, *prefixes]]
    heard.clear()
    await handle.set("test.key", 2, _U8)
    await handle.dispatch(Dispatch.ALL)
    prefixes.insert(2, "only modifications")
    assert heard == [f"{name} MODIFY" for name in [*keys, *prefixes]]
    await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_what_waits_for_a_tracker_that_is_deleted_is_passed_over() -> None:
    heard: list[str] = []

    async def first(event: CmapChange) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(f"first {event.new!r}")

    async def second(event: CmapChange) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(f"second {event.new!r}")

    handle = await lowlevel.cmap_initialize()
    deleted = await handle.track_add("test.key", _ALL, first)
    await handle.track_add("test.key", _ALL, second)
    await handle.set("test.key", 1, _U8)
    await handle.track_delete(deleted)
    await handle.set("test.key", 2, _U8)
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
        # A callback may use its own handle.
        assert (await handle.get(event.key)).value == event.new
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


# -- keys of a node ----------------------------------------------------------------------------------------------------

_UNKNOWABLE: Mapping[str, str] = {
    r"totem\.cluster_name": "each cluster has a name of its own",
    r"runtime\.services\.\w+\.\d+\.(rx|tx)": "the fake does not count messages between daemons",
    r"runtime\.members\.\d+\.join_count": "how often the nodes have met depends on how they found each other",
}
"""The keys whose values the fake cannot have, and why."""


def but_for(patterns: Sequence[str], items: Sequence[tuple[str, TypedValue]]) -> dict[str, TypedValue]:
    """All keys but those that match one of the patterns."""
    return {key: typed for key, typed in items if not any(re.fullmatch(pattern, key) for pattern in patterns)}


@pytest.mark.corosync_real_only(reason="it compares the fake with a real node")
@pytest.mark.parametrize(
    "nodes, settings",
    [
        (3, {}),
        (3, {"expected_votes": 5}),
        (2, {"two_node": True}),
        (2, {"wait_for_all": True, "token": 1000, "votes": {1: 2}, "qdevice_votes": 1}),
        (
            4,
            {
                "last_man_standing": True,
                "last_man_standing_window": 2000,
                "auto_tie_breaker": True,
                "auto_tie_breaker_node": "2 3",
                "allow_downscale": True,
            },
        ),
    ],
)
async def test_the_fake_has_the_keys_of_a_real_node(
    make_corosync_cluster: Callable[..., Cluster], nodes: int, settings: ClusterSettings
) -> None:
    cluster = make_corosync_cluster(nodes=nodes, **settings)
    # The fake does not encrypt, which some daemons insist on.
    unknowable = [*_UNKNOWABLE, *([r"totem\.crypto_(cipher|hash)"] if installed.encrypts() else [])]
    async with FakeCluster(nodes=nodes, **settings) as fake:
        for nodeid in cluster.nodes:
            async with (
                triocoro.open_cmap(endpoint=cluster[nodeid].endpoint) as real_map,
                triocoro.open_cmap(endpoint=fake[nodeid].endpoint) as fake_map,
            ):
                real = but_for(installed.keys_besides(), await real_map.items_typed())
                ours = but_for(installed.keys_without(), await fake_map.items_typed())
            assert {key: typed.type for key, typed in ours.items()} == {k: typed.type for k, typed in real.items()}
            for key in list(real):
                if any(re.fullmatch(pattern, key) for pattern in unknowable):
                    del real[key], ours[key]
            assert ours == real


@pytest.mark.corosync_real_only(reason="it compares the fake with a real node")
async def test_the_fake_has_the_statistics_of_a_real_node() -> None:
    """The keys and their types; each connection has its own in both.

    The cluster is our own, as the plugin has connections to its clusters, too.
    """

    def types(items: Sequence[tuple[str, TypedValue]]) -> dict[str, CmapType]:
        return {re.sub(r"\.\d+\.0x[0-9a-f]+\.", ".PID.ADDRESS.", key): typed.type for key, typed in items}

    async with (
        FakeCluster(nodes=3) as fake,
        NetnsCluster(nodes=3) as cluster,
        triocoro.open_cmap(CmapMap.STATS, endpoint=cluster[1].endpoint) as real_map,
        triocoro.open_cmap(CmapMap.STATS, endpoint=fake[1].endpoint) as fake_map,
        triocoro.open_cpg(endpoint=cluster[1].endpoint),
        triocoro.open_cpg(endpoint=fake[1].endpoint),
    ):
        # Who watched the cluster start has gone; the daemon hears of it in its own time.
        while await real_map.items("stats.ipcs.service5."):  # noqa: ASYNC110 - nobody tells; it is votequorum's
            await trio.sleep(0.01)
        real, ours = await real_map.items_typed(), await fake_map.items_typed()
        # How often the daemon came late is no matter of the fake's.
        assert types(ours) == types([item for item in real if not item[0].startswith("stats.schedmiss.")])
        for name in ("stats.knet.handle.", *(f"stats.knet.node{nodeid}.link0.enabled" for nodeid in (1, 2, 3))):
            crypto = [rf"{name}.*_crypt_.*"] if installed.encrypts() else []
            theirs = but_for(crypto, await real_map.items_typed(name))
            assert but_for(crypto, await fake_map.items_typed(name)) == theirs


# -- witnesses ---------------------------------------------------------------------------------------------------------

_TOOL_TYPES = {
    **{f"i{bits}": CmapType[f"INT{bits}"] for bits in (8, 16, 32, 64)},
    **{f"u{bits}": CmapType[f"UINT{bits}"] for bits in (8, 16, 32, 64)},
    "flt": CmapType.FLOAT,
    "dbl": CmapType.DOUBLE,
    "str": CmapType.STRING,
    "bin": CmapType.BINARY,
}


def as_the_tool_prints(typed: TypedValue) -> str:
    """The text that corosync-cmapctl -b has for a value."""
    value = typed.value
    if isinstance(value, float):
        return f"{value:f}"
    if isinstance(value, bytes):
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02X}" for byte in value)
        return shown.replace("\\x5C", "\\\\")
    return str(value)


async def tool_lists(node: Node, *arguments: str) -> dict[str, tuple[CmapType, str]]:
    """What corosync-cmapctl prints: the type and the text of each key."""
    found: dict[str, tuple[CmapType, str]] = {}
    for line in (await ask(node, "corosync-cmapctl", "-b", *arguments)).splitlines():
        match = re.fullmatch(r"(\S+) \((\w+)\) = (.*)", line)
        assert match is not None, line
        found[match[1]] = _TOOL_TYPES[match[2]], match[3]
    return found


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.corosync(nodes=3)
async def test_cmapctl_lists_every_key(corosync_cluster: Cluster) -> None:
    """Every key of every node, and a value of each type at both ends."""
    for node in corosync_cluster.nodes.values():
        async with triocoro.open_cmap(endpoint=node.endpoint) as cmap:
            for type_, values in _VALUES.items():
                for number, value in enumerate(values):
                    # The tool prints bytes above 127 as negative numbers, of 8 digits.
                    shown = bytes(range(128)) if isinstance(value, bytes) and b"\xff" in value else value
                    await cmap.set(f"test.{type_.name}.{number}", shown, type_)
            listed = await tool_lists(node)
            ours = {key: (typed.type, as_the_tool_prints(typed)) for key, typed in await cmap.items_typed()}
            assert ours == listed
            assert len(ours) > 150
            prefix = "runtime.members."
            assert [key for key, _ in await cmap.items(prefix)] == list(await tool_lists(node, prefix))


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_cmapctl_sets_and_we_hear_of_it(corosync: Node) -> None:
    async with triocoro.open_cmap() as cmap, cmap.track("test.", prefix=True) as changes:
        await ask(corosync, "corosync-cmapctl", "-s", "test.key", "i16", "7")
        await ask(corosync, "corosync-cmapctl", "-s", "test.key", "str", "text")
        await ask(corosync, "corosync-cmapctl", "-d", "test.key")
        assert await receive(changes, 3) == [
            change(_ADD, "test.key", (CmapType.INT16, 7)),
            change(_MODIFY, "test.key", (_STRING, "text"), (CmapType.INT16, 7)),
            change(_DELETE, "test.key", None, (_STRING, "text")),
        ]


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.corosync(nodes=2)
async def test_cmapctl_lists_the_statistics(corosync_cluster: Cluster) -> None:
    """The types of all; the values of those that hold still: counters that are the same before and after the tool."""

    def shown(items: Sequence[tuple[str, TypedValue]]) -> dict[str, tuple[CmapType, str]]:
        return {key: (typed.type, as_the_tool_prints(typed)) for key, typed in items}

    async with triocoro.open_cmap(CmapMap.STATS) as stats:
        before = shown(await stats.items_typed())
        listed = await tool_lists(corosync_cluster[1], "-m", "stats")
        after = shown(await stats.items_typed())
    # Ours is listed, too; the tool's own connection was only there for it.
    assert {key for key in listed if key not in after} == {key for key in listed if is_of_another(key, after)}
    assert {key: listed[key][0] for key in after} == {key: type_ for key, (type_, _) in after.items()}
    active = "stats.ipcs.global.active"
    assert int(listed.pop(active)[1]) == int(after.pop(active)[1]) + 1
    wavering = re.compile(r"latency|avg_|mtt_|time_since_|continuous_")
    still = {key: value for key, value in after.items() if before[key] == value and not wavering.search(key)}
    assert {key: listed[key] for key in still} == still
    assert len(still) > len(after) // 2


def is_of_another(key: str, ours: Mapping[str, object]) -> bool:
    """Whether a key is about a connection that is not listed among ours."""
    match = re.fullmatch(r"(stats\.ipcs\.service\d+\.\d+\.0x[0-9a-f]+)\.\w+", key)
    return match is not None and not any(other.startswith(match[1]) for other in ours)


_MANY = 3_000
_AT_MOST = 1.5
_TIMES = 5
"""How often to look."""


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.deadline(60)
async def test_a_large_map_is_listed_as_fast_as_by_the_tool(corosync: Node, figure: Figure, bound: Bound) -> None:
    """The time on the clock for the listing alone, best of several, taken in turns.

    Off the tool's time goes that of a run that prints one key: its start, nsenter's, and its connect, as we have
    connected before. What is left is the same for both: to ask for each key and its value, and to make something of
    them, lines there and objects here.
    """

    async def timed(call: Callable[[], Awaitable[object]]) -> float:
        start = time.perf_counter()
        await call()
        return time.perf_counter() - start

    async with triocoro.open_cmap() as cmap:
        present = len(await cmap.items())
        for number in range(_MANY - present):
            await cmap.set(f"test.key.{number}", number if number % 2 else f"text {number}")
        tool = partial(ask, corosync, "corosync-cmapctl")
        alls: list[float] = []
        ones: list[float] = []
        ours: list[float] = []
        for _ in range(_TIMES):
            alls.append(await timed(tool))
            ones.append(await timed(partial(tool, "-g", "totem.token")))
            ours.append(await timed(cmap.items_typed))
        theirs = min(alls) - min(ones)
        assert len(await cmap.items()) == len((await tool()).splitlines()) == _MANY
    figure(f"listing {_MANY} keys", f"{min(ours) * 1e3:.1f} ms, corosync-cmapctl {theirs * 1e3:.1f} ms")
    bound(f"listing {_MANY} keys, in times of corosync-cmapctl's", min(ours) / theirs, _AT_MOST)
