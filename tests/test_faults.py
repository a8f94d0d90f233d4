"""Networks that break, on both kinds of clusters."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from statistics import median

import pytest
import trio
from conftest import Figure
from trio.testing import MockClock

import triocoro
from triocoro import ConfigChange, MemberChange, Message, Reason, VotequorumNodelist
from triocoro.testing import Cluster

_BOUND = 60
"""Seconds for what takes a few at most."""
_ROUNDS = 20


async def members_of(cluster: Cluster) -> dict[int, tuple[int, ...]]:
    """Whom each running node's votequorum has in its ring."""
    found: dict[int, tuple[int, ...]] = {}
    for nodeid, node in cluster.nodes.items():
        if node.running:
            async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
                nodelist = await changes.receive()
                assert isinstance(nodelist, VotequorumNodelist)
                found[nodeid] = nodelist.nodes
    return found


async def quorate_nodes(cluster: Cluster) -> set[int]:
    found: set[int] = set()
    for nodeid, node in cluster.nodes.items():
        async with triocoro.open_quorum(endpoint=node.endpoint) as quorum:
            if await quorum.is_quorate():
                found.add(nodeid)
    return found


async def test_a_minority_loses_quorum_and_regains_it(corosync_cluster: Cluster) -> None:
    with trio.fail_after(_BOUND):
        await corosync_cluster.partition({1, 2}, {3})
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == {1: (1, 2), 2: (1, 2), 3: (3,)}
        assert await quorate_nodes(corosync_cluster) == {1, 2}
        await corosync_cluster.heal()
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))
        assert await quorate_nodes(corosync_cluster) == {1, 2, 3}


async def test_groups_part_and_meet(corosync_cluster: Cluster) -> None:
    with trio.fail_after(_BOUND):
        async with (
            triocoro.open_group("g") as one,
            triocoro.open_group("g", endpoint=corosync_cluster[3].endpoint) as three,
        ):
            while len(one.view.members) < 2 or len(three.view.members) < 2:
                await (one if len(one.view.members) < 2 else three).receive()
            await corosync_cluster.partition({1, 2}, {3})
            for group, other in ((one, three), (three, one)):
                while len(group.view.members) == 2:
                    await group.receive()
                assert group.view == ConfigChange((group.address,), (), (MemberChange(other.address, Reason.NODEDOWN),))
            # Each side goes on by itself; the message of one is never the other's.
            await one.send_and_wait(b"alone")
            await corosync_cluster.heal()
            for group, other in ((one, three), (three, one)):
                while len(group.view.members) == 1:
                    event = await group.receive()
                    assert group is one or not isinstance(event, Message)
                assert group.view.members == tuple(sorted((group.address, other.address)))
                assert {change.reason for change in group.view.joined} <= {Reason.NODEUP}


async def test_a_cut_takes_the_place_of_the_one_before(corosync_cluster: Cluster) -> None:
    with trio.fail_after(_BOUND):
        await corosync_cluster.partition({1}, {2})  # 3 stays with the first
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == {1: (1, 3), 2: (2,), 3: (1, 3)}
        assert corosync_cluster.reachable(3) == {1, 3}
        await corosync_cluster.partition({1}, {2, 3})
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == {1: (1,), 2: (2, 3), 3: (2, 3)}
        await corosync_cluster.isolate(2)
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == {1: (1,), 2: (2,), 3: (3,)}
        assert await quorate_nodes(corosync_cluster) == set()
        for _again in range(2):
            await corosync_cluster.heal()
        await corosync_cluster.settled()
        assert await quorate_nodes(corosync_cluster) == {1, 2, 3}


async def test_a_cut_outlives_the_daemons(corosync_cluster: Cluster) -> None:
    with trio.fail_after(_BOUND):
        await corosync_cluster.isolate(3)
        await corosync_cluster[3].kill()
        await corosync_cluster.settled()
        await corosync_cluster[3].start()
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == {1: (1, 2), 2: (1, 2), 3: (3,)}
        await corosync_cluster.heal()
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


@pytest.mark.parametrize("sides", [(), ({1}, {1, 2}), ({4},), ({1}, {0})])
async def test_bad_sides(corosync_cluster: Cluster, sides: Iterable[set[int]]) -> None:
    with trio.fail_after(_BOUND):
        with pytest.raises(ValueError, match=r"disjoint sets of the nodes \[1, 2, 3\]"):
            await corosync_cluster.partition(*sides)
        with pytest.raises(ValueError, match="no node 4"):
            await corosync_cluster.isolate(4)
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


async def test_a_node_is_started_anew(corosync_cluster: Cluster) -> None:
    with trio.fail_after(_BOUND):
        with pytest.raises(triocoro.ConnectionLostError):
            async with triocoro.open_cpg(endpoint=corosync_cluster[2].endpoint):
                with trio.CancelScope(shield=True):
                    await corosync_cluster[2].restart()
                await trio.sleep_forever()
        assert corosync_cluster[2].running
        await corosync_cluster.settled()
        assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


@pytest.mark.corosync_fake_only  # for its clock
async def test_who_sees_what_when_nothing_settles(
    autojump_clock: MockClock,  # noqa: ARG001 - it is in force
    corosync_cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(corosync_cluster, "_up", lambda: frozenset({1, 2}))
    with pytest.raises(trio.TooSlowError) as caught:
        await corosync_cluster.settled()
    assert str(caught.value).splitlines() == [
        "the memberships have not settled within 30 seconds:",
        "- node 1 sees [1, 2, 3], and hears [1, 2]",
        "- node 2 sees [1, 2, 3], and hears [1, 2]",
    ]


async def test_many_partitions(corosync_cluster: Cluster, figure: Figure) -> None:
    """Round after round, each seen by all."""
    cuts: list[float] = []
    heals: list[float] = []

    async def timed(verb: Callable[[], Awaitable[None]], times: list[float]) -> None:
        start = time.monotonic()
        await verb()
        await corosync_cluster.settled()
        times.append(time.monotonic() - start)

    with trio.fail_after(4 * _BOUND):  # noqa: ASYNC912 - there are rounds
        for number in range(_ROUNDS):
            alone = number % 3 + 1
            await timed(partial(corosync_cluster.isolate, alone), cuts)
            assert await quorate_nodes(corosync_cluster) == {1, 2, 3} - {alone}
            await timed(corosync_cluster.heal, heals)
            assert await quorate_nodes(corosync_cluster) == {1, 2, 3}
    figure("a cut of three nodes, seen by all", f"{median(cuts):.2f} s, at most {max(cuts):.2f} s")
    # Half of the rounds may have had the bad luck of a busy machine.
    assert median(cuts) < 2
    assert median(heals) < 1.5
    figure("a network mended, seen by all", f"{median(heals):.2f} s, at most {max(heals):.2f} s")
