"""What an operator sees and does: the status of a group, another electorate, and the way out of a lost majority."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from support.applications import poll
from support.machines import Map
from support.proxy import FaultyEndpoint

from triocoro.recipes import (
    Delivery,
    Missed,
    NotPrimaryError,
    RecipeError,
    Replica,
    SafeGroup,
    UncertainError,
    bootstrap,
    open_leadership,
    open_lock,
    open_replica,
    open_safe_group,
)
from triocoro.testing import Cluster

NODES = [1, 2, 3]


@asynccontextmanager
async def members(cluster: Cluster, *nodeids: int) -> AsyncGenerator[list[SafeGroup]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_safe_group("log", nodes=NODES, endpoint=cluster[nodeid]))
            for nodeid in nodeids
        ]


async def delivered(group: SafeGroup) -> Delivery:
    """The next event, which must be a message."""
    event = await group.receive()
    assert isinstance(event, Delivery)
    return event


async def poll_status(group: SafeGroup | Replica[Map], **expected: object) -> None:
    """Wait until the status of a member is so."""
    await poll(lambda: all(getattr(group.status(), name) == value for name, value in expected.items()))


async def test_status_says_who_votes_and_who_is_missing(corosync_cluster: Cluster) -> None:
    async with members(corosync_cluster, 1, 2) as (first, second):
        await poll(lambda: "missing on node 3" in (first.status().obstacle or ""))
        assert not first.status().primary
        async with members(corosync_cluster, 3):
            await first.wait_primary()
            await second.send(b"x")
            await poll_status(first, primary=True, obstacle=None, committed=1, nodes=dict.fromkeys(NODES, 1), vacant=())
            assert [(member.address.nodeid, member.votes) for member in first.status().members] == [
                (1, 1),
                (2, 1),
                (3, 1),
            ]
        await poll_status(first, primary=True, vacant=(3,))


async def test_a_stopped_member_is_behind(corosync_cluster: Cluster) -> None:
    async with members(corosync_cluster, 1, 2, 3) as (first, second, third):
        await third.wait_primary()
        await corosync_cluster[3].freeze()
        await corosync_cluster.settled()
        await first.wait_primary()
        await second.send(b"x")
        await poll_status(first, vacant=(3,))
        assert {member.address.nodeid for member in first.status().members} == {1, 2}
        await corosync_cluster[3].thaw()
        await poll_status(first, vacant=())


@pytest.mark.parametrize("waits", NODES)
@pytest.mark.corosync_seeds(30, jitter=0.003)
async def test_a_majority_goes_on_as_soon_as_one_member_is_primary(corosync_cluster: Cluster, waits: int) -> None:
    """The log has begun by then: to begin one, members on all nodes are needed."""
    async with members(corosync_cluster, 1, 2, 3) as groups:
        await groups[waits - 1].wait_primary()
        await corosync_cluster[3].freeze()
        await corosync_cluster.settled()
        for group in groups[:2]:
            await group.wait_primary()
            await group.send(b"x")


async def test_another_electorate(corosync_cluster: Cluster) -> None:
    async with members(corosync_cluster, 1, 2, 3) as (first, second, _):
        await first.wait_primary()
        await first.send(b"before")
        await second.change_nodes({1: 3, 2: 1})
        assert second.status().nodes == {1: 3, 2: 1}
        await first.send(b"after")
        await corosync_cluster.isolate(1)
        await corosync_cluster.settled()
        await first.send(b"alone, with three of four votes")
        await poll_status(second, primary=False)
        with pytest.raises(NotPrimaryError, match="no members on node 1"):
            await second.send(b"never")


async def test_locks_have_a_status_and_an_electorate(corosync_cluster: Cluster) -> None:
    async with (
        open_lock("lock", nodes=[1, 2], endpoint=corosync_cluster[1]) as lock,
        open_leadership("lock", nodes=[1, 2], endpoint=corosync_cluster[2]) as leadership,
    ):
        await lock.wait_primary()
        assert lock.status().nodes == {1: 1, 2: 1}
        await lock.change_nodes([1])
        assert lock.status().nodes == {1: 1}
        await corosync_cluster.isolate(1)
        await corosync_cluster.settled()
        async with lock.hold():
            assert lock.primary
        await poll(lambda: not leadership.primary)
        assert "no members on node 1" in (leadership.status().obstacle or "")


async def test_an_electorate_without_its_members_is_refused(corosync_cluster: Cluster) -> None:
    async with members(corosync_cluster, 1, 2, 3) as (first, *_):
        await first.wait_primary()
        with pytest.raises(NotPrimaryError, match="no members on a majority of the new electorate"):
            await first.change_nodes([1, 7, 8])
        assert first.status().nodes == dict.fromkeys(NODES, 1)
        await first.send(b"goes on")


async def test_a_group_with_a_majority_needs_no_bootstrap(corosync_cluster: Cluster) -> None:
    async with members(corosync_cluster, 1, 2) as (first, _):
        async with members(corosync_cluster, 3):
            await first.wait_primary()
            await first.send(b"x")
        with pytest.raises(RecipeError, match="nothing to bootstrap"):
            await bootstrap("log", endpoint=corosync_cluster[3])
        await first.wait_primary()
        await first.send(b"goes on")


async def test_bootstrap_starts_from_the_most_advanced_member(corosync_cluster: Cluster) -> None:
    async with open_replica("store", Map(), nodes=NODES, endpoint=corosync_cluster[1]) as survivor:
        async with (
            open_replica("store", Map(), nodes=NODES, endpoint=corosync_cluster[2]) as second,
            open_replica("store", Map(), nodes=NODES, endpoint=corosync_cluster[3]),
        ):
            await second.ensure(b'["put", "x", 1]')
        await poll_status(survivor, primary=False)
        with pytest.raises(NotPrimaryError, match="on the nodes 1 alone"):
            await bootstrap("store", endpoint=corosync_cluster[3])
        async with open_replica("store", Map(), nodes=NODES, endpoint=corosync_cluster[2]) as empty:
            with trio.move_on_after(0.5):
                await empty.wait_primary()
            assert not empty.primary  # the memory of a majority is lost
            await bootstrap("store", endpoint=corosync_cluster[3])
            await empty.wait_primary()
            await survivor.wait_primary()
            await empty.ensure(b'["put", "y", 2]')
            assert await survivor.read(lambda machine: machine.values) == {"x": 1, "y": 2}
            assert survivor.status().vacant == (3,)


@pytest.mark.corosync(nodes=4)
@pytest.mark.parametrize("more", [1, 9], ids=["the new log is whole", "the beginning of the new log is cut off"])
async def test_a_member_whose_log_is_discarded_is_told(corosync_cluster: Cluster, more: int) -> None:
    """It was away with all that was committed when an operator has let the others begin anew."""
    async with members(corosync_cluster, 3) as (away,):
        async with members(corosync_cluster, 1, 2) as (first, _):
            await first.wait_primary()
            for number in range(4):
                await first.send(b"old %d" % number)
            assert [(await delivered(away)).commit.index for _ in range(4)] == [1, 2, 3, 4]
            await corosync_cluster.isolate(3)
            await corosync_cluster.settled()
        async with members(corosync_cluster, 1, 2) as (first, second):
            await poll(lambda: "no member has the state" in (first.status().obstacle or ""))
            await bootstrap("log", endpoint=corosync_cluster[4])
            await first.wait_primary()
            for group in (first, second):
                group._member.agreement.holding._retain = 2
            for _ in range(more):
                await first.send(b"new")
            await corosync_cluster.heal()
            await away.wait_primary()
            last = await first.send(b"after")
            assert await away.receive() == Missed(1, more)
            event = await delivered(away)
            assert (event.payload, event.commit) == (b"after", last)


async def test_a_change_of_the_electorate_that_was_sent_is_uncertain(corosync_cluster: Cluster) -> None:
    endpoint = FaultyEndpoint(corosync_cluster[1].endpoint)
    sent = trio.Event()

    def drop(_: bytes) -> bool:
        sent.set()
        return True

    async with members(corosync_cluster, 2, 3), open_safe_group("log", nodes=NODES, endpoint=endpoint) as first:
        await first.wait_primary()
        async with trio.open_nursery() as nursery:

            async def change() -> None:
                with pytest.raises(UncertainError, match="not known to be committed: no majority"):
                    await first.change_nodes([1, 2])

            endpoint.faults.drop = drop
            nursery.start_soon(change)
            await sent.wait()
            await corosync_cluster.isolate(1)


@pytest.mark.corosync_fake_only(reason="only there can a fault come at any moment of a change")
@pytest.mark.corosync_seeds(2, latency=0.001)
async def test_a_change_of_the_electorate_that_is_refused_is_never_made(corosync_cluster: Cluster) -> None:
    async with members(corosync_cluster, 1, 2, 3) as (first, second, _):
        await first.wait_primary()
        refused: list[dict[int, int]] = []
        made: list[dict[int, int]] = []

        async def change(votes: dict[int, int]) -> None:
            try:
                await first.change_nodes(votes)
                made.append(votes)
            except NotPrimaryError:
                refused.append(votes)
            except UncertainError:
                pass

        for number in range(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(change, dict.fromkeys(NODES, 2 + number))
                await trio.sleep(number / 4000)
                await corosync_cluster.isolate(1)
                await corosync_cluster.settled()
            await corosync_cluster.heal()
            await corosync_cluster.settled()
            await first.wait_primary()
            await second.send(b"x")
            assert second.status().nodes not in refused
        assert made


async def test_nobody_is_there_to_bootstrap(corosync_cluster: Cluster) -> None:
    with pytest.raises(NotPrimaryError, match="no members of the group"):
        await bootstrap("log", endpoint=corosync_cluster[1])


async def test_others_know_who_holds_a_lock_and_who_leads(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        locks = [
            await stack.enter_async_context(open_lock("lock", endpoint=node))
            for node in corosync_cluster.nodes.values()
        ]
        assert locks[0].holder is None
        async with locks[1].hold():
            await poll(lambda: {lock.holder and lock.holder.nodeid for lock in locks} == {2})
    async with AsyncExitStack() as stack:
        offices = [
            await stack.enter_async_context(open_leadership("office", endpoint=node))
            for node in corosync_cluster.nodes.values()
        ]
        async with offices[2].lead():
            await poll(lambda: {office.leader and office.leader.nodeid for office in offices} == {3})
