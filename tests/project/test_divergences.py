"""The ledger, docs/divergences.md: that it names tests which exist, and those tests that are about nothing else.

Elsewhere a test that runs on both asserts the same of both. Here it says of each what it does.
"""

from __future__ import annotations

import ast
import re
from functools import partial
from pathlib import Path

import pytest
import trio
from support.raw_handles import close, joined, multicast
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    CmapChange,
    CmapMap,
    CmapType,
    ConfigChange,
    ConnectionLostError,
    EventStream,
    Group,
    Message,
    NodeState,
    Reason,
    TotemChange,
    TypedValue,
    VotequorumChange,
    VotequorumNodelist,
)
from triocoro._raw import MulticastStatus
from triocoro.testing import Cluster, FakeCluster, Node

_TESTS = Path(__file__).parent.parent
_LEDGER = (_TESTS.parent / "docs/divergences.md").read_text(encoding="utf-8")
_ENTRIES = dict(re.findall(r"^- \*\*(.+?)\*\*((?:.+\n)+?(?=- |\n|\Z))", _LEDGER, flags=re.MULTILINE))
_PIN = re.compile(r"`tests/([\w/]+\.py)::(\w+)`")

_STRING, _U8, _U32, _U64 = CmapType.STRING, CmapType.UINT8, CmapType.UINT32, CmapType.UINT64

of_the_fake = pytest.mark.corosync_fake_only(reason="what real daemons do here is a matter of time and luck")


def test_every_difference_is_an_entry() -> None:
    assert len(_ENTRIES) == len(re.findall(r"^- ", _LEDGER, flags=re.MULTILINE)) > 1


@pytest.mark.parametrize("what", _ENTRIES)
def test_each_difference_has_a_reason_and_tests_that_exist(what: str) -> None:
    assert "*Why:*" in _ENTRIES[what]
    pins = _PIN.findall(_ENTRIES[what])
    assert pins
    for file, name in pins:
        tree = ast.parse((_TESTS / file).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions


# -- time --------------------------------------------------------------------------------------------------------------


async def of_both(group: Group) -> None:
    """Wait until two members are there."""
    while len(group.view.members) < 2:
        await group.receive()


@pytest.mark.corosync(nodes=2, token=5000)
async def test_a_dead_node_is_noticed_at_once_or_when_the_token_is_missed(
    corosync_cluster: Cluster, corosync_mode: str
) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await corosync_cluster[2].kill()
        state = (await votequorum.info(2)).state
        assert state is (NodeState.DEAD if corosync_mode == "fake" else NodeState.MEMBER)


@pytest.mark.corosync(nodes=2, token=5000)
async def test_a_short_freeze_goes_unnoticed_or_not(corosync_cluster: Cluster, corosync_mode: str) -> None:
    async with (
        triocoro.open_group("g") as one,
        triocoro.open_group("g", endpoint=corosync_cluster[2].endpoint) as two,
    ):
        await of_both(one)
        await corosync_cluster[2].freeze()
        await corosync_cluster[2].thaw()
        await two.send_and_wait(b"awake")
        reasons: list[Reason] = []
        while not isinstance(event := await one.receive(), Message):
            assert isinstance(event, ConfigChange)
            reasons += [change.reason for change in (*event.left, *event.joined)]
        assert reasons == ([Reason.NODEDOWN, Reason.NODEUP] if corosync_mode == "fake" else [])


@of_the_fake
async def test_no_transition_refuses_messages(corosync_cluster: Cluster) -> None:
    async with triocoro.open_group("g") as group:
        for change in (
            partial(corosync_cluster.isolate, 3),
            corosync_cluster[2].kill,
            corosync_cluster.heal,
            corosync_cluster[2].start,
        ):
            await change()
            group.send_nowait(b"now")


@of_the_fake
async def test_nothing_is_dropped_for_lack_of_memory() -> None:
    """Real daemons lose some of this; `tests/support/proxy.py` stands in for that on both."""
    senders, messages, payload = 16, 8, bytes(100_000)
    async with (
        FakeCluster(nodes=1) as cluster,
        triocoro.open_group("g", endpoint=cluster[1].endpoint) as group,
        trio.open_nursery() as nursery,
    ):

        async def send() -> None:
            async with triocoro.open_group("g", receive=False, endpoint=cluster[1].client()) as sender:
                await sender.send_batch([payload] * messages)

        for _ in range(senders):
            nursery.start_soon(send)
        heard = 0
        while heard < senders * messages:
            heard += isinstance(await group.receive(), Message)


# -- membership --------------------------------------------------------------------------------------------------------


@of_the_fake
@pytest.mark.corosync(nodes=2)
async def test_a_node_that_has_started_is_in_the_ring_of_the_others(corosync_cluster: Cluster) -> None:
    two = corosync_cluster[2]
    await two.stop()
    async with triocoro.open_group("g") as one:
        await one.receive()
        await two.start()
        async with triocoro.open_group("g", endpoint=two.endpoint) as other:
            assert set(other.view.members) == {one.address, other.address}
            event = await one.receive()
            assert isinstance(event, ConfigChange)
            assert [change.reason for change in event.joined] == [Reason.JOIN]


@pytest.mark.corosync(nodes=1)
async def test_the_order_of_requests_that_wait_in_a_frozen_daemon(corosync: Node, corosync_mode: str) -> None:
    async with triocoro.open_cmap() as cmap, cmap.track("test.key") as changes:

        async def set_key(value: int, *, task_status: trio.TaskStatus[None]) -> None:
            async with triocoro.open_cmap() as own:
                task_status.started()
                await go[value].wait()
                await own.set("test.key", value, _U8)

        go = [trio.Event() for _ in range(8)]
        async with trio.open_nursery() as nursery:
            for value in range(8):
                await nursery.start(partial(set_key, value))
            await corosync.freeze()
            for event in go:
                event.set()
                await wait_all_tasks_blocked()
            await corosync.thaw()
        values = [(await changes.receive()).new for _ in range(8)]
        assert values == list(range(8)) or corosync_mode == "real"
        assert sorted(map(str, values)) == list("01234567")


@of_the_fake
async def test_a_join_that_its_node_does_not_outlive_leaves_no_ghost() -> None:
    async with FakeCluster(nodes=2, latency=0.01) as cluster, triocoro.open_cpg(endpoint=cluster[1].endpoint) as cpg:

        async def join() -> None:
            with pytest.raises(ConnectionLostError):
                async with triocoro.open_group("g", endpoint=cluster[2].endpoint):
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            await wait_all_tasks_blocked()
            await cluster[2].kill()
        assert await cpg.members("g") == ()
        await cluster[2].start()
        assert await cpg.members("g") == ()


async def test_lost_packets_break_a_ring_or_not(corosync_cluster: Cluster, corosync_mode: str) -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        assert isinstance(await changes.receive(), VotequorumNodelist)
        assert isinstance(await changes.receive(), VotequorumChange)
        await corosync_cluster.lose(99)
        if corosync_mode == "real":
            assert isinstance(await changes.receive(), VotequorumNodelist)
        else:
            async with triocoro.open_group("g") as group:
                await group.send_and_wait(b"message")
            assert changes.statistics().buffered_events == 0
    await corosync_cluster.heal()
    await corosync_cluster.settled()


def test_only_the_fake_has_clients_with_pids_of_their_own(corosync: Node, corosync_mode: str) -> None:
    assert hasattr(corosync, "client") is (corosync_mode == "fake")


# -- maps --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("corosync_cluster")
async def test_which_statistics_stay_zero(corosync_mode: str) -> None:
    async with (
        triocoro.open_group("g") as group,
        triocoro.open_cmap() as cmap,
        triocoro.open_cmap(CmapMap.STATS) as stats,
    ):
        await group.send_and_wait(b"message")
        for counted in (await cmap.get("runtime.services.cpg.3.rx"), await stats.get("stats.srp.mcast_rx")):
            assert isinstance(counted, int)
            assert (counted > 0) is (corosync_mode == "real")


@of_the_fake
@pytest.mark.corosync(nodes=1)
async def test_a_listing_is_a_snapshot(corosync: Node) -> None:
    listed: list[tuple[str, triocoro.CmapValue]] = []
    async with triocoro.open_cmap() as cmap, triocoro.open_cmap() as other:
        for key in ("test.a", "test.b"):
            await cmap.set(key, 1)

        async def list_keys() -> None:
            listed.extend(await cmap.items("test."))

        async with trio.open_nursery() as nursery:
            await corosync.freeze()
            nursery.start_soon(list_keys)
            await wait_all_tasks_blocked()
            nursery.start_soon(other.delete, "test.b")
            await wait_all_tasks_blocked()
            await corosync.thaw()
        assert listed == [("test.a", 1), ("test.b", 1)]
        assert await cmap.items("test.") == [("test.a", 1)]


@pytest.mark.corosync_fake_only(reason="a real daemon crashes")
@pytest.mark.corosync(nodes=1, wait_for_all=True)
@pytest.mark.parametrize(
    "key, on, off",
    [
        ("quorum.cancel_wait_for_all", TypedValue(_U8, 1), TypedValue(_U8, 0)),
        ("runtime.force_gather", TypedValue(_STRING, "yes"), TypedValue(_STRING, "no")),
    ],
)
async def test_no_client_crashes_the_daemon(corosync: Node, key: str, on: TypedValue, off: TypedValue) -> None:
    async with triocoro.open_cmap() as cmap, cmap.track(key[: key.index(".") + 1], prefix=True) as changes:
        await cmap.set(key, on.value, on.type)
        assert await cmap.get_typed(key) == off
        # The latter change is told of before the former.
        assert await heard_of(changes, 2) == [(key, off.value), (key, on.value)]
        assert corosync.running


# -- limits and values -------------------------------------------------------------------------------------------------


@pytest.mark.corosync(nodes=1)
def test_the_log_has_times_or_not(corosync: Node, corosync_mode: str) -> None:
    (line,) = (line for line in corosync.log.splitlines() if "A new membership (1." in line)
    assert re.search(r"\[TOTEM \] A new membership \(1\.\d+\) was formed\. Members joined: 1$", line)
    assert line.startswith("[TOTEM ]") is (corosync_mode == "fake")


@pytest.mark.corosync(nodes=1)
def test_there_is_a_process_or_not(corosync: Node, corosync_mode: str) -> None:
    assert isinstance(corosync.pid, int) is (corosync_mode == "real")


# -- what was in the ledger once ---------------------------------------------------------------------------------------


async def heard_of(changes: EventStream[CmapChange], count: int) -> list[tuple[str, object]]:
    return [(event.key, event.new) for event in [await changes.receive() for _ in range(count)]]


@pytest.mark.parametrize("nodes", [pytest.param(number, marks=pytest.mark.corosync(nodes=number)) for number in (1, 3)])
async def test_a_gathering_that_is_asked_for_makes_a_new_ring(
    corosync_cluster: Cluster, corosync_mode: str, nodes: int
) -> None:
    key = "runtime.force_gather"
    last = corosync_cluster[nodes]
    async with (
        triocoro.open_group("g", totem_changes=True) as group,
        triocoro.open_cmap() as cmap,
        cmap.track(key) as changes,
        triocoro.open_votequorum(endpoint=last.endpoint) as votequorum,
        votequorum.track() as news,
    ):
        before, _ = await news.receive(), await news.receive()
        assert isinstance(before, VotequorumNodelist)
        while not isinstance(await group.receive(), TotemChange):
            pass
        await cmap.set(key, "no")
        await cmap.set(key, "yes")
        assert await heard_of(changes, 2) == [(key, "yes"), (key, "no")]
        rings: list[VotequorumNodelist] = []
        while isinstance(event := await news.receive(), VotequorumNodelist):
            rings.append(event)
        assert isinstance(event, VotequorumChange)
        # Nobody came or went.
        assert {ring.nodes for ring in rings} == {before.nodes}
        after = TotemChange(rings[-1].ring_id, before.nodes)
        assert after.ring_id.nodeid == before.ring_id.nodeid == 1
        growth = after.ring_id.seq - before.ring_id.seq
        told = await group.receive()
        # Several real nodes may need several rings, and a client may hear of those between.
        if corosync_mode == "real" and nodes > 1:
            assert growth > 0
            assert growth % 4 == 0
            while told != after:
                assert isinstance(told, TotemChange)
                assert told.members == before.nodes
                told = await group.receive()
        else:
            assert growth == 4
            assert len(rings) == 1
        assert told == after


@pytest.mark.corosync(nodes=2)
@pytest.mark.parametrize("own, theirs, goes", [(5, 7, True), (7, 5, False), (0, 7, False)])
async def test_a_node_with_an_older_configuration_ends_when_it_joins(
    corosync_cluster: Cluster, own: int, theirs: int, *, goes: bool
) -> None:
    """On the first meeting after its start."""
    two = corosync_cluster[2]
    async with triocoro.open_cmap() as cmap:
        await cmap.set("totem.config_version", theirs, _U64)
        await two.stop()
        await corosync_cluster.isolate(2)
        await two.start()
        async with cmap.track("runtime.members.2.status") as changes:
            async with triocoro.open_cmap(endpoint=two.endpoint) as other:
                if own:
                    await other.set("totem.config_version", own, _U64)
            await corosync_cluster.heal()
            joined = await changes.receive()
            assert joined.new == "joined"
            if goes:
                left = await changes.receive()
                assert left.new == "left"
                assert f"Received config version ({theirs}) is different than my config version ({own})!" in two.log
            else:
                await corosync_cluster.settled()
                # That was the first time; what comes later does not matter.
                async with triocoro.open_cmap(endpoint=two.endpoint) as other:
                    await other.set("totem.config_version", 1, _U64)
                await corosync_cluster.isolate(2)
                assert (await changes.receive()).new == "left"
                await corosync_cluster.heal()
                assert (await changes.receive()).new == "joined"
                await corosync_cluster.settled()
                assert two.running


async def test_a_key_that_is_deleted_counts_until_something_else_changes(corosync_cluster: Cluster) -> None:
    """Deleted under `quorum.`: the daemon looks while the key is still there."""
    assert len(corosync_cluster.nodes) == 3
    async with triocoro.open_cmap() as cmap, triocoro.open_votequorum() as votequorum:

        async def expected() -> int:
            # What goes around the ring after what the change has sent comes back after it.
            async with triocoro.open_group("g") as group:
                await group.send_and_wait(b"around")
            return (await votequorum.info()).expected_votes

        await cmap.set("quorum.expected_votes", 5, _U32)
        assert await expected() == 5
        await cmap.delete("quorum.expected_votes")
        assert await expected() == 5
        await cmap.set("quorum.other", 1, _U32)
        assert await expected() == 3


_SETTINGS: tuple[tuple[str, TypedValue | None, list[tuple[str, int]]], ...] = (
    ("token", TypedValue(_U32, 1500), [("token", 1500), ("token_retransmit", 357), ("hold", 275)]),
    # Of another type it is none.
    ("token", TypedValue(_U64, 1500), [("token", 3000), ("token_retransmit", 714), ("hold", 561)]),
    ("token_coefficient", TypedValue(_U32, 100), [("token", 3100), ("token_retransmit", 738), ("hold", 580)]),
    # For a moment, the time of the token is that of two nodes.
    ("merge", TypedValue(_U32, 300), [("token", 3000), ("token", 3100), ("merge", 300)]),
    ("block_unlisted_ips", TypedValue(_STRING, "no"), [("token", 3000), ("token", 3100), ("block_unlisted_ips", 0)]),
    ("consensus", None, [("token", 3000), ("token", 3100), ("consensus", 3720)]),
    # It is heeded that others are being deleted, but not this one.
    ("token_coefficient", None, [("token", 3000), ("token", 3100)]),
    (
        "token_warning",
        TypedValue(_U32, 0),
        [
            *(("token", 3000), ("token_warning", 0), ("token", 3650)),
            *(("token_retransmit", 869), ("hold", 685), ("consensus", 4380)),
        ],
    ),
    ("window_size", TypedValue(_U32, 0), [("token", 3000), ("token", 3650)]),
    ("other", TypedValue(_U32, 1), []),
)
"""What is set, or deleted, and what is told of runtime.config.totem."""

_AFTER_RELOAD = [
    *(("block_unlisted_ips", 1), ("consensus", 600), ("hold", 85), ("merge", 200)),
    *(("token", 500), ("token_retransmit", 119), ("token_warning", 75)),
]


@pytest.mark.corosync(nodes=3, token=500)
@pytest.mark.usefixtures("corosync_cluster")
async def test_settings_of_totem_take_effect() -> None:
    async with (
        triocoro.open_cmap() as cmap,
        triocoro.open_cfg() as cfg,
        cmap.track("runtime.config.", prefix=True) as changes,
    ):
        before = await cmap.items("runtime.config.")
        for name, typed, expected in _SETTINGS:
            if typed is None:
                await cmap.delete(f"totem.{name}")
            else:
                await cmap.set(f"totem.{name}", typed.value, typed.type)
            heard = await heard_of(changes, len(expected))
            assert heard == [(f"runtime.config.totem.{key}", value) for key, value in expected]
        await cfg.reload_config()
        heard = await heard_of(changes, len(_AFTER_RELOAD))
        assert heard == [(f"runtime.config.totem.{key}", value) for key, value in _AFTER_RELOAD]
        assert await cmap.items("runtime.config.") == before


@pytest.mark.corosync(nodes=1)
@pytest.mark.parametrize("size, fits", [(16_000, 65), (30_000, 35), (200_000, 5), (1_000_000, 1)])
async def test_how_many_messages_fit_before_one_has_to_wait(corosync: Node, size: int, fits: int) -> None:
    handle = await joined(corosync.endpoint)
    await corosync.freeze()
    count = 0
    while handle.multicast([bytes(size)]) == (1, MulticastStatus.SENT):
        count += 1
    await corosync.thaw()
    await close(handle)
    assert count == fits


@pytest.mark.corosync(nodes=1)
@pytest.mark.parametrize("size, fits", [(8_028, 128), (8_032, 127), (40_300, 25), (300_000, 3)])
async def test_how_many_deliveries_fit(corosync: Node, size: int, fits: int) -> None:
    """The others wait in the daemon."""
    handle = await joined(corosync.endpoint)
    async with triocoro.open_group("other") as group:
        for _ in range(fits + 2):
            # When the other one has heard of its own, what went before was delivered here.
            await multicast(handle, bytes(size))
            await group.send_and_wait(b"")
    assert handle.waiting() == fits
    await close(handle)
