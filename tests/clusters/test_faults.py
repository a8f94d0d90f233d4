"""Networks that break, on both kinds of clusters."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from statistics import median

import pytest
import trio
import trio.testing
from support.external_programs import ask
from support.fixtures.figures import Bound
from support.fixtures.long import long
from trio.testing import MockClock

import triocoro
from pytest_corosync.plugin import ClusterFactory
from triocoro import ConfigChange, CorosyncUnavailableError, MemberChange, Message, Reason, VotequorumNodelist
from triocoro.testing import Cluster, FakeCluster, NetnsCluster
from triocoro.testing._cluster.network import Network


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


async def rings_of(cluster: Cluster) -> list[triocoro.RingId]:
    found: list[triocoro.RingId] = []
    for node in cluster.nodes.values():
        async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
            nodelist = await changes.receive()
            assert isinstance(nodelist, VotequorumNodelist)
            found.append(nodelist.ring_id)
    return found


async def quorate_nodes(cluster: Cluster) -> set[int]:
    found: set[int] = set()
    for nodeid, node in cluster.nodes.items():
        async with triocoro.open_quorum(endpoint=node.endpoint) as quorum:
            if await quorum.is_quorate():
                found.add(nodeid)
    return found


async def test_a_minority_loses_quorum_and_regains_it(corosync_cluster: Cluster) -> None:
    await corosync_cluster.partition({1, 2}, {3})
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == {1: (1, 2), 2: (1, 2), 3: (3,)}
    assert await quorate_nodes(corosync_cluster) == {1, 2}
    await corosync_cluster.heal()
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))
    assert await quorate_nodes(corosync_cluster) == {1, 2, 3}


async def test_groups_part_and_meet(corosync_cluster: Cluster) -> None:
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
    with pytest.raises(ValueError, match=r"disjoint sets of the nodes \[1, 2, 3\]"):
        await corosync_cluster.partition(*sides)
    with pytest.raises(ValueError, match="no node 4"):
        await corosync_cluster.isolate(4)
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


async def test_a_node_is_started_anew(corosync_cluster: Cluster) -> None:
    with pytest.raises(triocoro.ConnectionLostError):
        async with triocoro.open_cpg(endpoint=corosync_cluster[2].endpoint):
            with trio.CancelScope(shield=True):
                await corosync_cluster[2].restart()
            await trio.sleep_forever()
    assert corosync_cluster[2].running
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


async def test_verbs_that_have_nothing_to_do(corosync_cluster: Cluster) -> None:
    node = corosync_cluster[3]
    await node.start()
    await node.thaw()
    for _again in range(2):
        await node.freeze()
    for _again in range(2):
        await node.stop()
    await node.kill()
    await node.thaw()
    with pytest.raises(RuntimeError, match=rf"{re.escape(node.label)} does not run, so it cannot be frozen"):
        await node.freeze()
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == {1: (1, 2), 2: (1, 2)}
    await node.restart()
    for _again in range(2):
        await corosync_cluster.isolate(3)
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == {1: (1, 2), 2: (1, 2), 3: (3,)}


async def test_a_network_cut_in_one_direction(corosync_cluster: Cluster) -> None:
    """One of the two loses the other. With whom a third node stays, who hears both, is a matter of luck."""
    for _again in range(2):
        await corosync_cluster.cut(1, 3)
    assert [corosync_cluster.reachable(nodeid) for nodeid in (1, 2, 3)] == [{1, 2}, {1, 2, 3}, {2, 3}]

    async def lose(nodeid: int, other: int) -> None:
        endpoint = corosync_cluster[nodeid].endpoint
        async with triocoro.open_votequorum(endpoint=endpoint) as votequorum, votequorum.track() as changes:
            async for change in changes:
                if isinstance(change, VotequorumNodelist) and other not in change.nodes:
                    nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose, 1, 3)
        nursery.start_soon(lose, 3, 1)
    # A partition takes the place of any cut.
    await corosync_cluster.partition({1, 2, 3})
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


@pytest.mark.corosync(nodes=2)
@pytest.mark.parametrize("source,target", [(1, 2), (2, 1)])
async def test_two_nodes_of_which_one_is_deaf(
    corosync_cluster: Cluster, corosync_mode: str, source: int, target: int
) -> None:
    await corosync_cluster.cut(source, target)
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == {1: (1,), 2: (2,)}
    if corosync_mode == "real":
        assert await dropped_packets(corosync_cluster, target) > 0
        assert await dropped_packets(corosync_cluster, source) == 0
    await corosync_cluster.heal()
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == {1: (1, 2), 2: (1, 2)}


@pytest.mark.corosync(nodes=4)
async def test_a_ring_holds_while_its_token_gets_around(corosync_cluster: Cluster, corosync_mode: str) -> None:
    """Neighbours pass on the token, and messages that another node has missed."""
    async with (
        triocoro.open_group("g", totem_changes=True, endpoint=corosync_cluster[3].endpoint) as three,
        triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint) as one,
        triocoro.open_cfg(endpoint=corosync_cluster[1].endpoint) as cfg,
    ):
        while len(three.view.members) < 2:
            await three.receive()
        await corosync_cluster.cut(1, 3)
        while corosync_mode == "real" and (await cfg.node_status(3)).reachable:  # noqa: ASYNC110 - no event announces it
            await trio.sleep(0.01)
        sent = [number.to_bytes(1, "big") for number in range(200)]
        for payload in sent:
            await one.send(payload)
        await one.send_and_wait(b"end")
        # No change of the membership comes between them.
        assert [await three.receive() for _ in range(201)] == [
            Message(one.address, payload) for payload in [*sent, b"end"]
        ]
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3, 4), (1, 2, 3, 4))


async def dropped_packets(cluster: Cluster, nodeid: int) -> int:
    """How many packets a real node's filter has dropped."""
    listing = await ask(cluster[nodeid], "nft", "list", "table", "inet", "triocoro")
    return sum(int(number) for number in re.findall(r"counter packets (\d+)", listing))


async def test_messages_survive_a_loss_of_packets(corosync_cluster: Cluster, corosync_mode: str) -> None:
    count = 500
    async with (
        triocoro.open_group("g") as one,
        triocoro.open_group("g", endpoint=corosync_cluster[3].endpoint) as three,
    ):
        while len(one.view.members) < 2:
            await one.receive()
        await corosync_cluster.lose(3)
        for number in range(count):
            await one.send(number.to_bytes(2, "big"))
        heard: list[int] = []
        while len(heard) < count:
            event = await three.receive()
            if isinstance(event, Message):
                heard.append(int.from_bytes(event.payload, "big"))
        assert heard == list(range(count))
        while corosync_mode == "real" and await dropped_packets(corosync_cluster, 3) == 0:
            # Many messages are in one packet.
            await one.send_and_wait(b"once more")


async def test_the_loss_of_all_packets_is_a_cut(corosync_cluster: Cluster) -> None:
    await corosync_cluster.lose(100, nodes=[2])
    assert corosync_cluster.reachable(2) == {2}
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == {1: (1, 3), 2: (2,), 3: (1, 3)}
    await corosync_cluster.lose(0)
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


async def test_bad_cuts_and_losses(corosync_cluster: Cluster) -> None:
    for percent in (-1, 100.5, "3"):
        with pytest.raises(ValueError, match="a loss is 0 to 100 per cent, not"):
            await corosync_cluster.lose(percent)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"no node 4 is among \[1, 2, 3\]"):
        await corosync_cluster.lose(1, nodes=[4])
    with pytest.raises(ValueError, match=r"no node 4 is among \[1, 2, 3\]"):
        await corosync_cluster.cut(1, 4)
    with pytest.raises(ValueError, match="node 1 cannot be cut off from itself"):
        await corosync_cluster.cut(1, 1)
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


@pytest.mark.parametrize(
    "nodes,cut,rings",
    [
        # What the real daemons did, a second or a few after the cut (docs/facts.md).
        (3, [(1, 2)], [(2, 3), (1,)]),
        (3, [(1, 3)], [(1, 2), (3,)]),
        (3, [(3, 1)], [(1, 2), (3,)]),
        (3, [(2, 3)], [(1, 3), (2,)]),
        (4, [(1, 2)], [(2, 3, 4), (1,)]),
        (4, [(3, 4)], [(1, 2, 4), (3,)]),
        (4, [(4, 1)], [(1, 2, 3), (4,)]),
        (4, [(1, 2), (1, 3)], [(2, 3, 4), (1,)]),
        (4, [(1, 3)], [(1, 2, 3, 4)]),
        (5, [(2, 4), (4, 2)], [(1, 2, 3, 4, 5)]),
        (4, [(1, 2), (3, 4)], [(2, 4), (1, 3)]),
        # What they did not, as that cannot be told: whatever is left, no two rings could be one.
        (4, [(1, 2), (2, 3), (3, 4), (4, 1)], [(1, 3), (2, 4)]),
    ],
)
def test_the_rings_of_a_network(nodes: int, cut: list[tuple[int, int]], rings: list[tuple[int, ...]]) -> None:
    network = Network(frozenset(range(1, nodes + 1)))
    for source, target in cut:
        network = network.cut_off(source, target)
    everybody = tuple(range(1, nodes + 1))
    assert list(network.rings(everybody, lambda members: members == everybody)) == rings


def test_a_new_ring_needs_nodes_that_all_hear_each_other() -> None:
    network = Network(frozenset({1, 2, 3, 4})).cut_off(1, 3)
    assert list(network.rings({1, 2, 3, 4}, lambda _: False)) == [(2, 3, 4), (1,)]


@pytest.mark.parametrize("seconds", [0.5, 0.6, 0.8])
async def test_nothing_changes_once_it_has_settled(corosync_cluster: Cluster, seconds: float) -> None:
    """After a cut so short that its end comes while totem gathers anew, all node lists still being those of before."""
    await corosync_cluster.isolate(3)
    await trio.sleep(seconds)  # this is what is tested: a fault of that length
    await corosync_cluster.heal()
    await corosync_cluster.settled()
    rings = await rings_of(corosync_cluster)
    for node in corosync_cluster.nodes.values():
        # That it is delivered would be the end of a gathering that was under way.
        async with triocoro.open_group("g", endpoint=node.endpoint) as group:
            await group.send_and_wait(b"message")
    assert await rings_of(corosync_cluster) == rings


async def test_verbs_at_once(corosync_cluster: Cluster) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(corosync_cluster.isolate, 1)
        nursery.start_soon(corosync_cluster.isolate, 2)
    assert [corosync_cluster.reachable(nodeid) for nodeid in (1, 2, 3)] == [{1}, {2}, {3}]
    await corosync_cluster.settled()
    assert await members_of(corosync_cluster) == {1: (1,), 2: (2,), 3: (3,)}


async def test_a_cancelled_verb_is_done_or_not_done(corosync_cluster: Cluster) -> None:
    with trio.move_on_after(0):
        await corosync_cluster.isolate(3)
    await corosync_cluster.settled()
    alone = len(corosync_cluster.reachable(3)) == 1
    assert await members_of(corosync_cluster) == (
        {1: (1, 2), 2: (1, 2), 3: (3,)} if alone else dict.fromkeys((1, 2, 3), (1, 2, 3))
    )


async def test_settling_while_the_network_is_mended(corosync_cluster: Cluster) -> None:
    """Before anybody has noticed that it was cut: no membership changes."""
    with trio.fail_after(15):
        await corosync_cluster.isolate(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(corosync_cluster.settled)
            await trio.testing.wait_all_tasks_blocked(0.02)
            await corosync_cluster.heal()
        assert await members_of(corosync_cluster) == dict.fromkeys((1, 2, 3), (1, 2, 3))


async def test_settling_while_nodes_come_and_go(corosync_cluster: Cluster) -> None:
    await corosync_cluster.isolate(3)
    await corosync_cluster[1].freeze()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(corosync_cluster.settled)
        await corosync_cluster[2].kill()
        await corosync_cluster[1].thaw()
        await corosync_cluster[2].start()
    assert await members_of(corosync_cluster) == {1: (1, 2), 2: (1, 2), 3: (3,)}


async def test_a_cluster_that_does_not_run(corosync_mode: str) -> None:
    cluster = NetnsCluster(nodes=1) if corosync_mode == "real" else FakeCluster(nodes=1)
    for before in (True, False):
        for verb in (cluster.settled, cluster.heal, partial(cluster.isolate, 1)):
            with pytest.raises(RuntimeError, match="does not run"):
                await verb()
        if before:
            async with cluster:
                pass


@pytest.mark.corosync_fake_only(reason="its time is that of a clock which jumps")
async def test_the_error_of_settled_says_what_each_node_sees(
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


@pytest.mark.corosync_fake_only(reason="its time is that of a clock which jumps")
@pytest.mark.corosync(token=16000)
async def test_settling_takes_longer_with_a_longer_token(
    autojump_clock: MockClock,  # noqa: ARG001 - it is in force
    corosync_cluster: Cluster,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real nodes need 35 seconds to lose one of them."""
    monkeypatch.setattr(corosync_cluster, "_up", lambda: frozenset({1, 2}))
    began = trio.current_time()
    with pytest.raises(trio.TooSlowError, match=r"have not settled within 140\.8 seconds"):
        await corosync_cluster.settled()
    assert trio.current_time() - began == pytest.approx(140.8)


@pytest.mark.deadline(240)
@pytest.mark.parametrize("rounds", [5, *long(20)])
async def test_many_partitions(corosync_cluster: Cluster, rounds: int, bound: Bound) -> None:
    """Round after round, each seen by all."""
    cuts: list[float] = []
    heals: list[float] = []

    async def timed(verb: Callable[[], Awaitable[None]], times: list[float]) -> None:
        start = time.monotonic()
        await verb()
        await corosync_cluster.settled()
        times.append(time.monotonic() - start)

    for number in range(rounds):
        alone = number % 3 + 1
        await timed(partial(corosync_cluster.isolate, alone), cuts)
        assert await quorate_nodes(corosync_cluster) == {1, 2, 3} - {alone}
        await timed(corosync_cluster.heal, heals)
        assert await quorate_nodes(corosync_cluster) == {1, 2, 3}
    for name, times, at_most in (("a cut of three nodes", cuts, 2.0), ("a network mended", heals, 1.5)):
        bound(f"{name}, seen by all: seconds, median", median(times), at_most)
        bound(f"{name}, seen by all: seconds, slowest", max(times), 3 * at_most)


async def test_clusters_can_be_told_apart(make_corosync_cluster: ClusterFactory) -> None:
    one, two = make_corosync_cluster(nodes=1), make_corosync_cluster(nodes=1)
    labels = {cluster[1].endpoint.label for cluster in (one, two)}
    assert labels == {cluster[1].label for cluster in (one, two)}
    assert labels == {f"node 1 of {cluster.name}" for cluster in (one, two)}
    assert len(labels) == 2
    for cluster in (one, two):
        assert repr(cluster) == f"<{type(cluster).__name__} {cluster.name!r}, 1 nodes>"
        assert repr(cluster[1]) == f"<{type(cluster[1]).__name__} 1 of {cluster.name}>"
        await cluster[1].stop()
        with pytest.raises(CorosyncUnavailableError, match=f"^cannot connect to {cluster[1].label}: "):
            async with triocoro.open_cpg(endpoint=cluster[1]):
                pass
