"""Clusters are used again if they are clean: what is seen of what a test has left, and what becomes of the cluster."""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias, cast

import pytest
import trio
from support.fixtures.figures import Bound, Figure
from support.fixtures.inner_runs import Run
from trio.testing import MockClock

import triocoro
from triocoro import lowlevel
from triocoro.testing import Cluster, ClusterOptions, FakeCluster, NetnsCluster, NetnsClusterPool, Node
from triocoro.testing._netns.node_processes import NodeProcesses
from triocoro.testing._pool.state import Observer

FIXTURE_BOUND = 0.050
"""Seconds that the fixtures of a test may take when its cluster is there already."""

PATIENCE = 10.0
"""Seconds, on a busy machine, until the daemons have noticed that clients have gone."""

NO_WAIT = 2.0
"""Seconds, as above, for a look without any wait."""

Deed: TypeAlias = Callable[[Cluster], Awaitable[object]]


# --- what a test may do, and leave ------------------------------------------------------------------------------------


async def nothing(_: object) -> None:
    await trio.lowlevel.checkpoint()


async def set_key(cluster: Cluster) -> None:
    """Beside those that Corosync reads."""
    async with triocoro.open_cmap(endpoint=cluster[2].endpoint) as cmap:
        await cmap.set("logging.threshold", 3)


async def admit_user(cluster: Cluster) -> None:
    """Where there is nothing at first."""
    async with triocoro.open_cmap(endpoint=cluster[2].endpoint) as cmap:
        await cmap.set("uidgid.uid.1234", 1, triocoro.CmapType.UINT8)


async def change_type_of_key(cluster: Cluster) -> None:
    """The number stays."""
    async with triocoro.open_cmap(endpoint=cluster[1].endpoint) as cmap:
        typed = await cmap.get_typed("quorum.two_node")
        assert typed.type is not triocoro.CmapType.INT64
        await cmap.set("quorum.two_node", typed.value, triocoro.CmapType.INT64)


async def delete_key(cluster: Cluster) -> None:
    async with triocoro.open_cmap(endpoint=cluster[1].endpoint) as cmap:
        await cmap.delete("logging.to_syslog")


async def stay_in_a_group(cluster: Cluster) -> None:
    handle = await lowlevel.cpg_initialize(confchg=nothing, endpoint=cluster[2].endpoint)
    LEFT_OPEN.append(handle)
    await handle.join("chat")
    await handle.dispatch(lowlevel.Dispatch.ONE)
    async with triocoro.open_cpg(endpoint=cluster[1].endpoint) as cpg:
        while not await cpg.members("chat"):  # noqa: ASYNC110 - only members get events
            await trio.sleep(0.005)


async def stay_connected(cluster: Cluster) -> None:
    """With a tracker that is asked when a client wants to shut the node down."""
    handle = await lowlevel.cfg_initialize(shutdown_callback=nothing, endpoint=cluster[1].endpoint)
    await handle.trackstart()
    LEFT_OPEN.append(handle)


async def reset_statistics(cluster: Cluster) -> None:
    """Among them, how many are connected."""
    async with triocoro.open_cmap(triocoro.CmapMap.STATS, endpoint=cluster[1].endpoint) as stats:
        await stats.set("stats.clear.ipc", 1)


async def expect_more_votes(cluster: Cluster) -> None:
    async with triocoro.open_votequorum(endpoint=cluster[1].endpoint) as votequorum:
        await votequorum.set_expected(3)
    for node in cluster.nodes.values():
        async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
            # A node may hear of it later than the one that was asked.
            while (await votequorum.info()).expected_votes != 3:  # noqa: ASYNC110 - it may have come before we look
                await trio.sleep(0.005)


async def register_device(cluster: Cluster) -> None:
    async with triocoro.open_votequorum(endpoint=cluster[1].endpoint) as votequorum:
        await votequorum.qdevice_register("arbiter")


async def partition(cluster: Cluster) -> None:
    await cluster.partition({1}, {2})
    await cluster.settled()


async def lose(cluster: Cluster) -> None:
    await cluster.lose(1)


async def kill(cluster: Cluster) -> None:
    await cluster[2].kill()


async def freeze(cluster: Cluster) -> None:
    await cluster[2].freeze()


LEFT_OPEN: list[Any] = []
"""The handles that a deed has left open."""

LASTING = [
    (set_key, "node 2: the key logging.threshold is new: *value=3*"),
    (admit_user, "node 2: the key uidgid.uid.1234 is new: *value=1*"),
    (change_type_of_key, "node 1: the key quorum.two_node is *INT64*, and was *UINT8*"),
    (delete_key, "node 1: the key logging.to_syslog is gone: it was *'no'*"),
    (partition, "node 2 does not hear node 1"),
    (lose, "node 1 loses 1 per cent of what it should hear"),
    (kill, "node 2 is down or frozen"),
    (freeze, "node 2 is down or frozen"),
]
PASSING = [
    (stay_in_a_group, "node 1: 2:* is in the group b'chat'"),
    (stay_connected, "node 1: 5 connections, of which 4 are ours"),
    pytest.param(
        reset_statistics,
        "node 1: * connections, of which 4 are ours",
        marks=pytest.mark.corosync_real_only(reason="the fake knows how many there are in any case"),
    ),
    (expect_more_votes, "node 2: votes of node 1 is *expected_votes=3*, and was *expected_votes=2*"),
    (register_device, "node 1: votes of node 1 is *arbiter*, and was *"),
]
"""Of such a kind that it might pass."""


async def set_keys_of_ones_own(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        async with triocoro.open_cmap(endpoint=node.endpoint) as cmap:
            await cmap.set("myapp.threshold", node.nodeid)
            await cmap.set("solitary", b"bytes")


async def use_everything(cluster: Cluster) -> None:
    endpoint = cluster[2].endpoint
    async with (
        triocoro.open_group("chat", endpoint=endpoint) as group,
        triocoro.open_cmap(endpoint=endpoint) as cmap,
        cmap.track("myapp.", prefix=True),
        triocoro.open_cfg(endpoint=endpoint) as cfg,
        cfg.track_shutdown(),
        triocoro.open_quorum(endpoint=endpoint) as quorum,
        quorum.track(),
    ):
        await group.send_and_wait(b"hello")
        await cmap.set("myapp.threshold", 3)
        await cmap.delete("myapp.threshold")
        await cmap.set("logging.debug", "on")
        await cmap.set("logging.debug", "off")


async def set_votes_and_back(cluster: Cluster) -> None:
    async with triocoro.open_votequorum(endpoint=cluster[1].endpoint) as votequorum:
        await votequorum.set_votes(2, 2)
        await votequorum.set_votes(2, 1)
        await votequorum.set_expected(2)


async def partition_and_heal(cluster: Cluster) -> None:
    await partition(cluster)
    await cluster.lose(1)
    await cluster.lose(0)
    await cluster.heal()
    await cluster.settled()


async def freeze_for_a_moment(cluster: Cluster) -> None:
    await cluster[2].freeze()
    await cluster[2].thaw()


NOT_LEFT = [nothing, use_everything, set_keys_of_ones_own, set_votes_and_back, partition_and_heal, freeze_for_a_moment]


# --- what is seen -----------------------------------------------------------------------------------------------------


@pytest.fixture
def new_cluster(corosync_mode: str) -> type[NetnsCluster | FakeCluster]:
    """Clusters of our own, since the plugin looks at its own ones, too."""
    return NetnsCluster if corosync_mode == "real" else FakeCluster


async def finalize_handles() -> None:
    """In the background: what they were opened in may be a Trio run that is over."""
    while LEFT_OPEN:
        with trio.move_on_after(0):
            await LEFT_OPEN.pop().finalize()
    await trio.lowlevel.checkpoint()


async def check_it_is_seen(
    new_cluster: type[NetnsCluster | FakeCluster], deed: Deed, seen: str, patience: float
) -> None:
    async with new_cluster(nodes=2) as cluster:
        observer = Observer(cluster)
        try:
            before = await observer.first_snapshot()
            assert before is not None
            assert await observer.differences(before, PATIENCE) == []
            await deed(cluster)
            with trio.fail_after(NO_WAIT):
                found = await observer.differences(before, patience)
            assert any(fnmatch.fnmatchcase(line, seen) for line in found), found
        finally:
            observer.close()
            await finalize_handles()


@pytest.mark.parametrize("deed,seen", LASTING)
async def test_changes_that_a_test_left_are_noticed(
    new_cluster: type[NetnsCluster | FakeCluster], deed: Deed, seen: str
) -> None:
    """At once: it does not pass."""
    await check_it_is_seen(new_cluster, deed, seen, PATIENCE)


@pytest.mark.parametrize("deed,seen", PASSING)
async def test_changes_that_may_pass_are_noticed(
    new_cluster: type[NetnsCluster | FakeCluster], deed: Deed, seen: str
) -> None:
    await check_it_is_seen(new_cluster, deed, seen, 0)


@pytest.mark.parametrize("deed", NOT_LEFT)
async def test_nothing_else_is_seen(new_cluster: type[NetnsCluster | FakeCluster], deed: Deed) -> None:
    async with new_cluster(nodes=2) as cluster:
        observer = Observer(cluster)
        try:
            before = await observer.first_snapshot()
            assert before is not None
            await deed(cluster)
            assert await observer.differences(before, PATIENCE) == []
        finally:
            observer.close()


# --- what becomes of a cluster ----------------------------------------------------------------------------------------


@pytest.fixture
def pool() -> Iterator[NetnsClusterPool]:
    pool = NetnsClusterPool(None, patience=PATIENCE)
    yield pool
    pool.close()


@pytest.fixture
def impatient_pool() -> Iterator[NetnsClusterPool]:
    pool = NetnsClusterPool(None, patience=0)
    yield pool
    pool.close()


def pids(cluster: Cluster) -> list[int | None]:
    return [node.pid for node in cluster.nodes.values()]


TWO = ClusterOptions(nodes=2)


@pytest.mark.corosync_real_only(reason="fakes are always new")
@pytest.mark.parametrize("deed", NOT_LEFT)
def test_a_clean_cluster_is_used_again(pool: NetnsClusterPool, deed: Deed) -> None:
    cluster = pool.borrow(TWO, "a test").cluster
    assert cluster.options is TWO
    daemons = pids(cluster)
    trio.run(deed, cluster)
    pool.give_back(cluster)
    assert pool.borrow(TWO, "a test").cluster is cluster
    assert pids(cluster) == daemons


async def end(cluster: Cluster) -> None:
    await trio.to_thread.run_sync(cluster.__exit__, None, None, None)


async def kill_and_start(cluster: Cluster) -> None:
    await cluster[2].kill()
    await cluster[2].start()
    await cluster.settled()


@pytest.mark.corosync_real_only(reason="fakes are always new")
@pytest.mark.parametrize(
    "deed", [set_key, stay_in_a_group, stay_connected, partition, lose, freeze, kill_and_start, end]
)
def test_a_changed_cluster_is_not_reused(impatient_pool: NetnsClusterPool, deed: Deed) -> None:
    cluster = impatient_pool.borrow(TWO, "a test").cluster
    trio.run(deed, cluster)
    impatient_pool.give_back(cluster)
    other = impatient_pool.borrow(TWO, "another test").cluster
    assert other is not cluster
    assert not any(node.running for node in cluster.nodes.values())
    assert all(node.running for node in other.nodes.values())
    trio.run(finalize_handles)


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_a_cluster_whose_votequorum_remembers_a_test_is_not_reused(pool: NetnsClusterPool) -> None:
    """With most of its options, what it does depends on what it has seen, and no client can see that."""
    options = ClusterOptions(nodes=2, last_man_standing=True)
    cluster = pool.borrow(options, "a test").cluster
    pool.give_back(cluster)
    assert pool.borrow(options, "a test").cluster is cluster
    trio.run(partition_and_heal, cluster)
    pool.give_back(cluster)
    assert pool.borrow(options, "a test").cluster is not cluster


async def follow(node: Node, seen: list[object], task_status: trio.TaskStatus[None]) -> None:
    async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
        # The first two tell what there is.
        first = [await changes.receive(), await changes.receive()]
        task_status.started()
        async for change in changes:
            seen.append((first, change))  # noqa: PERF401 - now, since this is cancelled


@pytest.mark.corosync_real_only(reason="fakes are always new")
@pytest.mark.parametrize("seconds", [0.6, 0.8])
def test_a_cluster_has_settled_when_it_is_used_again(pool: NetnsClusterPool, seconds: float) -> None:
    """A cut so short that the memberships change only after it was mended."""
    three = ClusterOptions(nodes=3)

    async def cut_for_a_moment(cluster: Cluster) -> None:
        await cluster.isolate(3)
        await trio.sleep(seconds)  # this is what is tested: a fault of that length
        await cluster.heal()

    async def changes_in(cluster: Cluster) -> list[object]:
        seen: list[object] = []
        async with trio.open_nursery() as nursery:
            for node in cluster.nodes.values():
                await nursery.start(follow, node, seen)
            await trio.sleep(1)  # longer than totem takes to lose a token, and to form a ring
            nursery.cancel_scope.cancel()
        return seen

    cluster = pool.borrow(three, "a test").cluster
    trio.run(cut_for_a_moment, cluster)
    pool.give_back(cluster)
    again = pool.borrow(three, "a test").cluster
    assert again is cluster
    assert trio.run(changes_in, again) == []


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_other_options_are_other_clusters(pool: NetnsClusterPool) -> None:
    one = ClusterOptions(nodes=1)
    cluster = pool.borrow(one, "a test").cluster
    pool.give_back(cluster)
    others = [ClusterOptions(nodes=1, votes={1: 3}), ClusterOptions(nodes=1, token=600), TWO]
    assert cluster not in [pool.borrow(options, "a test").cluster for options in others]
    assert pool.borrow(ClusterOptions(nodes=1), "a test").cluster is cluster
    # While it is borrowed, no other test gets it.
    assert pool.borrow(one, "a test").cluster is not cluster


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_the_pool_keeps_three_idle_clusters_and_drops_the_oldest(pool: NetnsClusterPool) -> None:
    """Three, and those that were used longest ago go first."""
    options = [ClusterOptions(nodes=1, token=token) for token in (500, 501, 502, 503)]
    clusters = [pool.borrow(each, "a test").cluster for each in options]
    for cluster in clusters[:3]:
        pool.give_back(cluster)
    assert pool.borrow(options[0], "a test").cluster is clusters[0]
    pool.give_back(clusters[0])
    assert all(cluster[1].running for cluster in clusters)
    pool.give_back(clusters[3])
    assert [cluster[1].running for cluster in clusters] == [True, False, True, True]
    pool.close()
    assert not any(cluster[1].running for cluster in clusters)


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_all_end_though_one_fails_to(pool: NetnsClusterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = [pool.borrow(ClusterOptions(nodes=1), "a test").cluster for _ in range(2)]
    end = NetnsCluster.__exit__

    def end_and_fail(cluster: NetnsCluster, *_: object) -> None:
        end(cluster, None, None, None)
        raise RuntimeError("no end")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no end"):
        patch.setattr(NetnsCluster, "__exit__", end_and_fail)
        pool.close()
    assert not any(cluster[1].running for cluster in clusters)


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_a_cluster_whose_daemon_dies_meanwhile(pool: NetnsClusterPool) -> None:
    cluster = pool.borrow(TWO, "a test").cluster
    pool.give_back(cluster)
    trio.run(kill, cluster)
    assert pool.borrow(TWO, "a test").cluster is not cluster


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_a_cluster_whose_nodes_have_changed(pool: NetnsClusterPool) -> None:
    """It is ended when it comes back, although it is whole."""
    cluster = pool.borrow(ClusterOptions(nodes=1), "a test").cluster
    trio.run(cluster.add_node)
    assert cluster.reachable(1) == {1, 2}
    pool.give_back(cluster)
    assert not any(node.running for node in cluster.nodes.values())


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_logs_are_not_read_for_it(pool: NetnsClusterPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be long."""
    cluster = pool.borrow(TWO, "a test").cluster
    pool.give_back(cluster)

    def read(*_: object) -> bytes:
        raise AssertionError

    monkeypatch.setattr(NodeProcesses, "_logged", read)
    assert pool.borrow(TWO, "another test").cluster is cluster
    monkeypatch.undo()  # they are, once the cluster ends


@pytest.mark.corosync_real_only(reason="fakes are always new")
async def test_a_cluster_is_taken_within_a_run(pool: NetnsClusterPool, autojump_clock: MockClock) -> None:
    """As make_corosync_cluster does, whatever the clock."""
    cluster = pool.borrow(TWO, "a test").cluster
    pool.give_back(cluster)
    await trio.sleep(3600)
    assert autojump_clock.current_time() == 3600
    assert pool.borrow(TWO, "another test").cluster is cluster
    assert trio.current_time() == 3600


# --- what a test run sees of it ---------------------------------------------------------------------------------------

COUNTING = """
import pytest
import trio
import triocoro

daemons = set()

@pytest.mark.parametrize("number", range(12))
async def test_it(FIXTURE, number):
    async with triocoro.open_group("chat") as group:
        await group.send_and_wait(b"hello")
    async with triocoro.open_cmap() as cmap:
        await cmap.set("myapp.number", number)
        await cmap.delete("myapp.number")
"""


@pytest.mark.corosync_real_only(reason="fakes are always new")
@pytest.mark.parametrize("fixture", ["corosync", "corosync_cluster"])
def test_a_warm_cluster_costs_little(pytester: pytest.Pytester, figure: Figure, bound: Bound, fixture: str) -> None:
    pytester.makepyfile(COUNTING.replace("FIXTURE", fixture))
    reports = (
        cast("Any", pytester)
        .inline_run("--corosync=real", "-o", "trio_mode=true")
        .getreports("pytest_runtest_logreport")
    )
    assert {report.outcome for report in reports} == {"passed"}
    spent: dict[str, float] = {}
    for report in reports:
        if report.when != "call":
            spent[report.nodeid] = spent.get(report.nodeid, 0) + report.duration
    first, *others = spent.values()
    figure(f"fixture time with {fixture}", f"first {first * 1000:.0f} ms, slowest other {max(others) * 1000:.0f} ms")
    bound(f"fixture time with {fixture}, warm: seconds, median", statistics.median(others), FIXTURE_BOUND)


def test_changes_of_a_test_do_not_reach_the_next_one(run: Run) -> None:
    result = run(
        """
        import pytest
        import triocoro

        daemons = set()

        @pytest.mark.parametrize("left", ["myapp.left"] * 2 + ["logging.left"] * 2)
        async def test_it(corosync, left):
            async with triocoro.open_cmap() as cmap:
                with pytest.raises(triocoro.KeyNotFoundError):
                    await cmap.get(left)
                await cmap.set(left, 1)
            daemons.add(corosync.pid)

        def test_daemons(corosync_mode):
            # What is a key of the test's own is deleted; what Corosync may heed is not.
            assert len(daemons) == (2 if corosync_mode == "real" else 1)
        """,
        "-o",
        "trio_mode=true",
    )
    result.assert_outcomes(passed=5)


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_why_a_cluster_is_not_used_again(run: Run) -> None:
    """The log says so."""
    result = run(
        """
        import triocoro

        async def test_first(corosync):
            async with triocoro.open_cmap() as cmap:
                await cmap.set("logging.left", 1)

        def test_second(corosync):
            assert False
        """,
        "-o",
        "trio_mode=true",
        "--log-level=INFO",
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "INFO *<NetnsCluster *> is not clean any more since test_why_a_cluster_is_not_used_again.py::test_first:",
            "node 1: the key logging.left is new: *value=1*",
        ]
    )


def test_logs_since_the_test_began(run: Run, corosync_mode: str) -> None:
    """Of a cluster that was there before, the report has what came since; of a new one, it has everything."""
    result = run(
        """
        import pytest
        import triocoro

        @pytest.mark.parametrize("test", ["first", "second"])
        async def test_it(corosync, test):
            async with triocoro.open_group("chat"):
                pass
            assert False
        """,
        "--corosync-log-level=debug",
        "--corosync-logs",
        "-o",
        "trio_mode=true",
    )
    result.assert_outcomes(failed=2)
    first, _, second = result.stdout.str().partition("_ test_it[second] _")
    start, join = "Corosync Cluster Engine", "got procjoin message"
    assert start in first
    if corosync_mode == "real":
        assert first.count(join) == second.count(join) == 1
        assert start not in second
    else:
        assert start in second


@pytest.mark.corosync_real_only(reason="fakes are always new")
def test_when_nothing_was_logged(run: Run) -> None:
    result = run("def test_first(corosync): pass\ndef test_second(corosync): assert False", "--corosync-logs")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*- corosync node 1 log -*", "(nothing since the test began)"])
