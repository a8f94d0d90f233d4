"""The keys of a node: the fake has those of a real one, and corosync-cmapctl(8) lists what we list."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import pytest
import trio
from support import installed
from support.cmap import (
    ADD,
    DELETE,
    MODIFY,
    STRING,
    VALUES,
    change,
    receive,
)
from support.external_programs import ask
from support.fixtures.figures import Bound, Figure

import triocoro
from triocoro import (
    CmapMap,
    CmapType,
    TypedValue,
)
from triocoro.testing import Cluster, ClusterSettings, FakeCluster, NetnsCluster, Node

pytestmark = pytest.mark.deadline(30)


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
        (
            1,
            {
                "extra": {
                    "system": ["qb_ipc_type: socket"],
                    "logging": ["logger_subsys {", "  subsys: CPG", "  debug: on", "}", "", "# a comment"],
                    "totem": ["window_size: 40", "config_version: 3", "interface {", "  knet_link_priority: 2", "}"],
                    "quorum": ["expected_votes: 1"],
                    "uidgid": ["uid: 12345"],
                    "myapp": ["limit: 5"],
                }
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
        while await real_map.items("stats.ipcs.service5."):  # noqa: ASYNC110 - no event announces it; it is votequorum's
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
            for type_, values in VALUES.items():
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
            change(ADD, "test.key", (CmapType.INT16, 7)),
            change(MODIFY, "test.key", (STRING, "text"), (CmapType.INT16, 7)),
            change(DELETE, "test.key", None, (STRING, "text")),
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
