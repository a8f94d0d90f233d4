"""The map of a node: values of all types, keys that other parts of the daemon set, and mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pytest
from support.cmap import (
    ALL,
    INTEGER_RANGES,
    MAX_VALUE_SIZE,
    MODIFY,
    PREFIX,
    STRING,
    U8,
    U32,
    U64,
    VALUES,
    change,
    ignore,
    receive,
    refused,
)

import triocoro
from triocoro import (
    AccessError,
    CmapType,
    CmapValue,
    InvalidParamError,
    KeyNotFoundError,
    TypedValue,
    lowlevel,
)
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", CmapType, ids=lambda type_: type_.name)
async def test_a_value_of_each_type_at_both_ends(corosync: Node, type_: CmapType) -> None:
    async with triocoro.open_cmap() as cmap, triocoro.open_cmap(endpoint=corosync.endpoint) as other:
        for value in VALUES[type_]:
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
@pytest.mark.parametrize("type_", INTEGER_RANGES, ids=lambda type_: type_.name)
async def test_counting_wraps_around(type_: CmapType) -> None:
    lowest, highest = INTEGER_RANGES[type_]
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
        assert left == change(MODIFY, "runtime.members.3.status", (STRING, "left"), (STRING, "joined"))
        await corosync_cluster[3].start()
        assert isinstance(joined, int)
        assert await receive(changes, 2) == [
            change(MODIFY, "runtime.members.3.join_count", (U32, joined + 1), (U32, joined)),
            change(MODIFY, "runtime.members.3.status", (STRING, "joined"), (STRING, "left")),
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
        await cmap.set("totem.config_version", 7, U64)
        assert await changes.receive() == change(MODIFY, key, (U64, 7), (U64, 0))
        # That it is deleted they do not hear.
        await cmap.delete("totem.config_version")
        await cmap.set("totem.config_version", 8, U64)
        assert await changes.receive() == change(MODIFY, key, (U64, 8), (U64, 7))
        # Of another type it is none.
        await cmap.set("totem.config_version", 9, U32)
        assert await changes.receive() == change(MODIFY, key, (U64, 0), (U64, 8))


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("corosync")
async def test_a_value_of_another_kind_than_wanted() -> None:
    values: list[tuple[CmapType, CmapValue]] = [
        (U32, 7),
        (CmapType.FLOAT, 1.5),
        (STRING, "seven"),
        (CmapType.BINARY, b"seven"),
    ]
    kinds: list[type[Any]] = [int, float, str, bytes]
    async with triocoro.open_cmap() as cmap:
        for type_, value in values:
            await cmap.set("test.key", value, type_)
            for kind in kinds:
                if kind is type(value):
                    assert await cmap.get("test.key", kind) == value
                    continue
                words = f"'test.key' is no {kind.__name__}: its type is {type_.name}, its value {value!r}"
                await refused(TypeError, words, partial(cmap.get, "test.key", kind), cmap)
        await refused(KeyNotFoundError, "'test.missing' is not in the map", lambda: cmap.get("test.missing", int), cmap)
        wrongs: list[Any] = [bool, U32, "int", object]
        for wrong in wrongs:
            await refused(
                TypeError, "kind must be int, float, str or bytes", partial(cmap.get, "test.key", wrong), cmap
            )


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
            ("1", STRING),
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
            await cmap.set(key, 3, U32)
            assert await cmap.get(key) == 3


def _natural(value: CmapValue) -> CmapType:
    return STRING if isinstance(value, str) else U32


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
    *((type_, lowest - 1, ValueError, f"must be {lowest} to") for type_, (lowest, _) in INTEGER_RANGES.items()),
    *((type_, highest + 1, ValueError, f"to {highest}, not") for type_, (_, highest) in INTEGER_RANGES.items()),
    *((type_, "1", TypeError, "must be an int, not str") for type_ in INTEGER_RANGES),
    *((type_, 1.0, TypeError, "must be an int, not float") for type_ in INTEGER_RANGES),
    *((type_, True, TypeError, "must be an int, not bool") for type_ in INTEGER_RANGES),
    (CmapType.FLOAT, 3.5e38, ValueError, "out of the range of type FLOAT"),
    (CmapType.FLOAT, "1", TypeError, "must be a float, not str"),
    (CmapType.DOUBLE, True, TypeError, "must be a float, not bool"),
    (CmapType.STRING, b"text", TypeError, "must be a str, not bytes"),
    (CmapType.STRING, "a\0b", ValueError, "must not contain a NUL character"),
    (CmapType.STRING, "x" * (MAX_VALUE_SIZE + 1), ValueError, "0 to 16384 bytes, not 16385"),
    (CmapType.STRING, "é" * (MAX_VALUE_SIZE // 2 + 1), ValueError, "0 to 16384 bytes, not 16386"),
    (CmapType.BINARY, "text", TypeError, "must be bytes, not str"),
    (CmapType.BINARY, bytes(MAX_VALUE_SIZE + 1), ValueError, "at most 16384 bytes, not 16385"),
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
                partial(handle.set, key, 1, U8),
                partial(handle.track_add, key, ALL, ignore),
                tracked,
            ):
                await refused(error, words, call, cmap)
        # What is too short for a key does as a prefix.
        assert await cmap.items("zz") == await handle.items("zz") == []
        for key, error, words in _BAD_KEYS[2:]:
            await refused(error, words, partial(cmap.items, key), cmap)
            await refused(error, words, partial(cmap.items_typed, key), cmap)
            await refused(error, words, partial(handle.items, key), cmap)
            await refused(error, words, partial(handle.track_add, key, ALL | PREFIX, ignore), cmap)
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
        number = await handle.track_add("test.key", ALL, ignore)
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
