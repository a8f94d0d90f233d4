"""Quorum as the quorum service tells it: with the nodes, who came and who went, and the ring."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest
import trio
from support.external_programs import ask
from support.streams import until
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    EventStream,
    NodelistChange,
    Quorum,
    QuorumChange,
    QuorumEvent,
    QuorumType,
    RingId,
    TotemChange,
    Votequorum,
    VotequorumNodelist,
    lowlevel,
)
from triocoro.lowlevel import Dispatch, QuorumHandle, Track
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


async def decision(
    changes: EventStream[QuorumEvent], members: tuple[int, ...], *, quorate: bool
) -> tuple[NodelistChange, QuorumChange]:
    """The two events that tell of these members: who they are, then whether they are quorate.

    On a busy machine, daemons may lose each other for a moment on the way there. Then the first event returned sums up.
    """
    events = await until(
        changes,
        lambda event: isinstance(event, QuorumChange) and event.members == members and event.quorate is quorate,
    )
    nodelists = [event for event in events if isinstance(event, NodelistChange)]
    for earlier, later in itertools.pairwise(nodelists):
        assert {*earlier.members} - {*later.left} | {*later.joined} == {*later.members}
    first, nodelist, change = nodelists[0], nodelists[-1], events[-1]
    assert isinstance(change, QuorumChange)
    assert (nodelist.ring_id, nodelist.members) == (change.ring_id, members)
    if first is not nodelist:
        before = {*first.members} - {*first.joined} | {*first.left}
        joined, left = tuple(sorted({*members} - before)), tuple(sorted(before - {*members}))
        nodelist = NodelistChange(nodelist.ring_id, members, joined, left)
    return nodelist, change


class Opener(Protocol):
    def __call__(self, *, endpoint: Node) -> AbstractAsyncContextManager[Quorum | Votequorum]: ...


# -- the service -------------------------------------------------------------------------------------------------------


async def test_each_node_says_whether_it_is_quorate(corosync_cluster: Cluster) -> None:
    for node in corosync_cluster.nodes.values():
        async with triocoro.open_quorum(endpoint=node.endpoint) as quorum:
            assert quorum.type is QuorumType.SET
            assert await quorum.is_quorate() is True
            await quorum.wait_quorate()


@pytest.mark.parametrize("opener", [triocoro.open_votequorum, triocoro.open_quorum])
async def test_the_loss_and_the_return_of_quorum(corosync_cluster: Cluster, opener: Opener) -> None:
    """Each wait ends when it is so, and not before; and at once if it is so already."""
    ended: list[str] = []

    async def wait(name: str, function: Callable[[], Awaitable[None]]) -> None:
        await function()
        ended.append(name)

    async with opener(endpoint=corosync_cluster[3]) as service:
        await service.wait_quorate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "not quorate", service.wait_not_quorate)
            await wait_all_tasks_blocked()
            assert ended == []
            await corosync_cluster.isolate(3)
        assert ended == ["not quorate"]
        await service.wait_not_quorate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, "quorate", service.wait_quorate)
            await corosync_cluster.heal()
        await service.wait_quorate()


async def test_trackers_through_a_death_and_a_return(corosync_cluster: Cluster) -> None:
    """Node 3 dies and comes back; two trackers of one connection, one of another node's, one that comes late."""
    async with (
        triocoro.open_quorum() as quorum,
        triocoro.open_quorum(endpoint=corosync_cluster[2].endpoint) as other,
        quorum.track() as first,
        quorum.track() as second,
        other.track() as elsewhere,
    ):
        trackers = (first, second, elsewhere)
        rings: list[RingId] = []
        for members, verb, joined, left in (
            ((1, 2, 3), None, (), ()),
            ((1, 2), "kill", (), (3,)),
            ((1, 2, 3), "start", (3,), ()),
            ((1, 2), "stop", (), (3,)),
        ):
            if verb is not None:
                await getattr(corosync_cluster[3], verb)()
            seen = {await decision(changes, members, quorate=True) for changes in trackers}
            # The one state of the cluster, under one name everywhere.
            [(nodelist, change)] = seen
            assert (nodelist.joined, nodelist.left) == (joined, left)
            rings.append(change.ring_id)
            async with quorum.track() as late:
                # It gets the present state, in which no node joins or leaves.
                present = await late.receive_batch()
                assert present == [NodelistChange(change.ring_id, members, (), ()), change]
        assert [ring.nodeid for ring in rings] == [1] * 4
        assert sorted(set(rings), key=lambda ring: ring.seq) == rings


async def test_quorum_is_lost_and_regained(corosync_cluster: Cluster) -> None:
    done: list[str] = []

    async def wait(quorum: triocoro.Quorum) -> None:
        await quorum.wait_quorate()
        done.append("quorate")

    async with triocoro.open_quorum() as quorum, quorum.track() as changes:
        await decision(changes, (1, 2, 3), quorate=True)
        async with trio.open_nursery() as nursery:
            for nodeid in (2, 3):
                nursery.start_soon(corosync_cluster[nodeid].kill)
        # They may leave one after the other.
        lost = (await until(changes, lambda event: isinstance(event, QuorumChange) and not event.quorate))[-1]
        assert isinstance(lost, QuorumChange)
        assert lost.members == (1,)
        assert await quorum.is_quorate() is False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, quorum)
            await wait_all_tasks_blocked()
            assert done == []
            await corosync_cluster[2].start()
            nodelist, _ = await decision(changes, (1, 2), quorate=True)
            assert (nodelist.joined, nodelist.left) == ((2,), ())
        assert done == ["quorate"]
        assert await quorum.is_quorate() is True


async def test_votes_change_quorum_without_a_new_ring(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_quorum(endpoint=corosync_cluster[2].endpoint) as quorum,
        quorum.track() as changes,
    ):
        await decision(changes, (1, 2, 3), quorate=True)
        await votequorum.set_expected(5)
        await corosync_cluster[3].kill()
        _, before = await decision(changes, (1, 2), quorate=False)
        await votequorum.set_expected(2)
        assert await changes.receive() == QuorumChange(quorate=True, ring_id=before.ring_id, members=(1, 2))


async def test_all_services_name_the_same_ring(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_quorum() as quorum,
        triocoro.open_votequorum() as votequorum,
        triocoro.open_group("g", totem_changes=True) as group,
        quorum.track() as changes,
        votequorum.track() as votes,
    ):
        await decision(changes, (1, 2, 3), quorate=True)
        await corosync_cluster[3].kill()
        nodelist, _ = await decision(changes, (1, 2), quorate=True)
        expected = VotequorumNodelist(nodelist.ring_id, (1, 2))
        assert await until(votes, lambda event: event == expected)
        closing = TotemChange(nodelist.ring_id, (1, 2))
        assert await until(group, lambda event: event == closing)


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
async def test_quorumtool_agrees(corosync_cluster: Cluster) -> None:
    async def told() -> tuple[bool, RingId, tuple[int, ...]]:
        text = await ask(corosync_cluster[1], "corosync-quorumtool", "-s", statuses=(0, 2))
        fields = dict(re.findall(r"^([A-Z][^:\n]*): +(\S+)", text, re.MULTILINE))
        nodeid, seq = (int(number, 16) for number in fields["Ring ID"].split("."))
        nodes = re.findall(r"^ +(\d+) +\d+ .*node\d", text, re.MULTILINE)
        return fields["Quorate"] == "Yes", RingId(nodeid, seq), tuple(map(int, nodes))

    async with triocoro.open_quorum() as quorum, quorum.track() as changes:
        for members, quorate in (((1, 2, 3), True), ((1, 2), True), ((1,), False)):
            if len(members) < len(corosync_cluster.nodes):
                await corosync_cluster[len(members) + 1].kill()
            _, change = await decision(changes, members, quorate=quorate)
            assert (change.quorate, change.ring_id, change.members) == await told()


async def test_a_node_that_was_away_joins_anew(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_quorum() as quorum,
        triocoro.open_quorum(endpoint=corosync_cluster[3].endpoint) as other,
        quorum.track() as changes,
        other.track() as elsewhere,
    ):
        await decision(changes, (1, 2, 3), quorate=True)
        await decision(elsewhere, (1, 2, 3), quorate=True)
        await corosync_cluster.partition({1, 2}, {3})
        nodelist, _ = await decision(changes, (1, 2), quorate=True)
        assert (nodelist.joined, nodelist.left) == ((), (3,))
        nodelist, _ = await decision(elsewhere, (3,), quorate=False)
        assert (nodelist.joined, nodelist.left) == ((), (1, 2))
        await corosync_cluster.heal()
        nodelist, _ = await decision(changes, (1, 2, 3), quorate=True)
        assert (nodelist.joined, nodelist.left) == ((3,), ())
        nodelist, _ = await decision(elsewhere, (1, 2, 3), quorate=True)
        assert (nodelist.joined, nodelist.left) == ((1, 2), ())


@pytest.mark.corosync_fake_only(reason="a real node may pass through a ring of its own")
async def test_a_node_that_was_frozen_finds_that_the_others_left_and_joined(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_quorum(endpoint=corosync_cluster[3].endpoint) as other,
        other.track() as elsewhere,
    ):
        await decision(elsewhere, (1, 2, 3), quorate=True)
        await corosync_cluster[3].freeze()
        await corosync_cluster[3].thaw()
        nodelist, _ = await decision(elsewhere, (1, 2, 3), quorate=True)
        assert (nodelist.joined, nodelist.left) == ((1, 2), (1, 2))


# -- one to one --------------------------------------------------------------------------------------------------------


Record = list[Any]


@asynccontextmanager
async def handle_into(record: Record, **options: Any) -> AsyncGenerator[QuorumHandle, None]:
    """A handle that notes every event."""

    async def note(event: object) -> None:
        record.append(event)

    callbacks: dict[str, Any] = {"quorum_notify": note, "nodelist_notify": note}
    handle = await lowlevel.quorum_initialize(**callbacks | options)
    try:
        yield handle
    finally:
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_the_four_kinds_of_dispatch() -> None:
    record: Record = []
    both = [NodelistChange, QuorumChange]
    async with handle_into(record, context="mine") as handle:
        assert handle.context == "mine"
        assert handle.quorum_type is QuorumType.SET
        assert await handle.getquorate() is True
        await handle.dispatch(Dispatch.ALL)
        with pytest.raises(triocoro.TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.ONE)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await handle.dispatch(Dispatch.ALL)
            await handle.trackstart(Track.CURRENT | Track.CHANGES)
        assert [type(event) for event in record] == [NodelistChange]
        await trio.lowlevel.wait_readable(handle.fd)
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        assert [type(event) for event in record] == both
        with pytest.raises(triocoro.ExistError):
            await handle.trackstart(Track.CHANGES)
        # It was told once more all the same.
        await handle.dispatch(Dispatch.ALL)
        assert [type(event) for event in record] == both * 2
        assert record[:2] == record[2:]
        record.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.BLOCKING)
            with pytest.raises(triocoro.ExistError):
                await handle.trackstart(Track.CURRENT)
            while len(record) < 2:
                await wait_all_tasks_blocked(0.001)
            await handle.finalize()
        assert [type(event) for event in record] == both


async def test_tracking_one_to_one(corosync_cluster: Cluster) -> None:
    """Only changes, then only the present state, then nothing."""
    record: Record = []
    async with handle_into(record) as handle, triocoro.open_quorum() as quorum, quorum.track() as changes:
        await decision(changes, (1, 2, 3), quorate=True)
        # Corosync does not mind.
        await handle.trackstop()
        await handle.trackstart(Track.CHANGES_ONLY)
        await handle.dispatch(Dispatch.ALL)
        assert record == []
        await corosync_cluster[3].kill()
        await handle.dispatch(Dispatch.ONE)
        await handle.dispatch(Dispatch.ONE)
        before = await decision(changes, (1, 2), quorate=True)
        assert tuple(record) == before
        await handle.trackstop()
        await handle.trackstop()
        record.clear()
        # Twice, as this begins nothing.
        for _ in range(2):
            await handle.trackstart(Track.CURRENT)
        await handle.dispatch(Dispatch.ALL)
        nodelist, change = before
        assert record == [NodelistChange(nodelist.ring_id, (1, 2), (), ()), change] * 2
        record.clear()
        await corosync_cluster[2].kill()
        await decision(changes, (1,), quorate=False)
        await handle.dispatch(Dispatch.ALL)
        assert record == []
        assert await handle.getquorate() is False


@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
async def test_a_callback_that_raises_has_had_its_event(corosync: Node, kind: Dispatch) -> None:
    del corosync
    record: Record = []

    async def fail(event: object) -> None:
        record.append(event)
        raise KeyError("mine")

    async with handle_into(record, nodelist_notify=fail) as handle:
        await handle.trackstart(Track.CURRENT)
        with pytest.raises(KeyError, match="mine"):
            await handle.dispatch(kind)
        assert [type(event) for event in record] == [NodelistChange]
        await handle.dispatch(Dispatch.ALL)
        assert [type(event) for event in record] == [NodelistChange, QuorumChange]
