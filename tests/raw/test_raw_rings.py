"""Rings at the raw seam: what members are told when nodes part, meet, die and stop."""

from __future__ import annotations

import re

import pytest
import trio
import trio.testing
from support import installed
from support.raw_handles import (
    caught_up,
    changes,
    close,
    joined,
    multicast,
    payloads,
    ring_of,
    take,
    take_until,
    view_of,
)

from triocoro._enums import FlowControlState, Reason, Track
from triocoro._raw import RawCpg
from triocoro._services import CPG, VOTEQUORUM, CpgSpec
from triocoro._types import Address, ConfigChange, Message, TotemChange, VotequorumNodelist
from triocoro.testing import Cluster

pytestmark = pytest.mark.deadline(30)


async def members(cluster: Cluster) -> tuple[dict[int, RawCpg], list[Address]]:
    """A member on each node, and their addresses; everybody knows everybody."""
    handles = {nodeid: await joined(node.endpoint) for nodeid, node in cluster.nodes.items()}
    addresses = [Address(nodeid, node.endpoint.pid) for nodeid, node in cluster.nodes.items()]
    await caught_up(*reversed(handles.values()))
    return handles, addresses


async def test_a_ring_parts_and_meets(corosync_cluster: Cluster, corosync_mode: str) -> None:
    handles, (one, two, three) = await members(corosync_cluster)
    idle = await corosync_cluster[1].endpoint.connect(CPG)
    at_once = False
    # Real ones may meet in steps, and then it is another story.
    while not at_once:
        await corosync_cluster.partition({1}, {2, 3})
        change, alone = await ring_of(handles[1], 1)
        assert change == ConfigChange((one,), (), changes(Reason.NODEDOWN, two, three))
        change, ring = await ring_of(handles[2], 2, 3)
        assert change == ConfigChange((two, three), (), changes(Reason.NODEDOWN, one))
        assert await ring_of(handles[3], 2, 3) == [change, ring]
        assert isinstance(alone, TotemChange)
        assert isinstance(ring, TotemChange)
        assert (alone.ring_id.nodeid, ring.ring_id.nodeid) == (1, 2)
        # Every connection to the service hears of the ring.
        assert await ring_of(idle, 1) == [alone]

        await corosync_cluster.heal()
        await corosync_cluster.settled()
        met = [await ring_of(handle, 1, 2, 3) for handle in (*handles.values(), idle)]
        at_once = all(sum(isinstance(event, TotemChange) for event in events) == 1 for events in met)
        assert at_once or corosync_mode == "real"
        if at_once:
            change, meeting = met[0]
            assert isinstance(change, ConfigChange)
            assert change.members == (one, two, three)
            assert set(change.joined) == {*changes(Reason.NODEUP, two, three)}
            assert change.left == ()
            assert isinstance(meeting, TotemChange)
            assert meeting.ring_id.nodeid == 1
            assert meeting.ring_id.seq > max(alone.ring_id.seq, ring.ring_id.seq)
            met_one = [ConfigChange((one, two, three), changes(Reason.NODEUP, one), ()), meeting]
            assert met[1:] == [met_one, met_one, [meeting]]
    # What is as it should be is not changed.
    await corosync_cluster.heal()
    await corosync_cluster.settled()
    assert await caught_up(handles[1]) == [[]]
    await close(idle, *handles.values())


async def test_a_node_that_changes_rings_leaves_some_members_and_joins_others(corosync_cluster: Cluster) -> None:
    handles, (one, two, three) = await members(corosync_cluster)
    await corosync_cluster.partition({1}, {2, 3})
    await ring_of(handles[1], 1)
    await ring_of(handles[2], 2, 3)
    await corosync_cluster.partition({1, 2}, {3})
    assert corosync_cluster.reachable(1) == {1, 2}
    events = await ring_of(handles[2], 1, 2)
    # Real ones may be alone in between, which is another ring.
    assert [event for event in events if isinstance(event, ConfigChange)] == [
        ConfigChange((two,), (), changes(Reason.NODEDOWN, three)),
        ConfigChange((one, two), changes(Reason.NODEUP, one), ()),
    ]
    await ring_of(handles[1], 1, 2)
    for nodeid in (1, 2):
        assert await handles[nodeid].membership(b"g") == (one, two)
    await corosync_cluster.heal()
    await close(*handles.values())


async def test_killed_and_stopped_nodes(corosync_cluster: Cluster, corosync_mode: str) -> None:
    handles, (one, two, three) = await members(corosync_cluster)
    watcher = handles[1]
    for _again in range(2):
        await corosync_cluster[2].kill()
    change, _ = await ring_of(watcher, 1, 3)
    assert change == ConfigChange((one, three), (), changes(Reason.NODEDOWN, two))
    # One that stops parts from its clients first, so that it is they who go, and then an empty node; unless the daemon
    # has too little else to do at its end.
    for _again in range(2):
        await corosync_cluster[3].stop()
    change, _ = await ring_of(watcher, 1)
    in_haste = corosync_mode == "real" and not installed.tells_of_leaves()
    reasons = (Reason.PROCDOWN, Reason.NODEDOWN) if in_haste else (Reason.PROCDOWN,)
    assert change in [ConfigChange((one,), (), changes(reason, three)) for reason in reasons]
    for _again in range(2):
        await corosync_cluster[2].start()
    assert [type(event) for event in await ring_of(watcher, 1, 2)] == [TotemChange]
    assert corosync_cluster.reachable(2) == {1, 2}
    assert corosync_cluster.reachable(3) == frozenset()
    assert re.search(r"A new membership \(1\.[0-9a-f]+\) was formed\. Members joined: 2\n", corosync_cluster[1].log)
    await close(*handles.values())


async def test_nodes_of_a_ring_agree_on_its_id(corosync_cluster: Cluster) -> None:
    await corosync_cluster[1].kill()
    await corosync_cluster.settled()
    cpg = await joined(corosync_cluster[2].endpoint)
    vqs = [await corosync_cluster[nodeid].endpoint.connect(VOTEQUORUM) for nodeid in (2, 3)]
    for vq in vqs:
        await vq.trackstart(Track.CHANGES_ONLY)
    await corosync_cluster[1].start()
    ring = (await ring_of(cpg, 1, 2, 3))[-1]
    assert isinstance(ring, TotemChange)
    for vq in vqs:
        events = await take_until(vq, lambda event: isinstance(event, VotequorumNodelist) and event.nodes == (1, 2, 3))
        assert events[-1] == VotequorumNodelist(ring.ring_id, (1, 2, 3))
    await close(cpg, *vqs)


async def test_the_first_view_comes_with_the_ring(corosync_cluster: Cluster) -> None:
    """For who has asked for that; before the first join it hears nothing."""
    handle = await corosync_cluster[2].endpoint.connect(CpgSpec(initial_totem_conf=True))
    assert handle.waiting() == 0
    await handle.join(b"g")
    me = Address(2, corosync_cluster[2].endpoint.pid)
    change, ring = await ring_of(handle, 1, 2, 3)
    assert change == ConfigChange((me,), changes(Reason.JOIN, me), ())
    assert isinstance(ring, TotemChange)
    assert ring.ring_id.nodeid == 1
    assert handle.flow_control_state is FlowControlState.DISABLED
    assert handle.max_atomic_message_size == 1_047_552
    assert await handle.local_nodeid() == 2
    await close(handle)


async def test_a_node_that_was_frozen_hears_of_what_it_missed(corosync_cluster: Cluster) -> None:
    """The others have gone on in a ring of their own: first it loses them all, then it meets those who are there."""
    handles, (one, two, three) = await members(corosync_cluster)
    await corosync_cluster[1].freeze()
    assert corosync_cluster[1].running
    assert corosync_cluster.reachable(1) == frozenset()
    assert corosync_cluster.reachable(2) == {2, 3}
    change, _ = await ring_of(handles[2], 2, 3)
    assert change == ConfigChange((two, three), (), changes(Reason.NODEDOWN, one))
    await close(handles.pop(3))
    # The library gives up on a fragment that a transition holds up for a second: that is past when all have come to it.
    await corosync_cluster.settled()
    await handles[2].multicast_fragmented(bytes(2_000_000))
    await view_of(handles[2], two)
    await corosync_cluster[1].thaw()
    # No message that it has missed, whole or in part.
    assert [event for event in await view_of(handles[1], one, two) if not isinstance(event, TotemChange)] == [
        ConfigChange((one,), (), changes(Reason.NODEDOWN, two, three)),
        ConfigChange((one, two), changes(Reason.NODEUP, two), ()),
    ]
    await ring_of(handles[1], 1, 2, 3)
    assert await view_of(handles[2], one, two) != []
    await ring_of(handles[2], 1, 2, 3)
    assert payloads((await caught_up(*handles.values()))[0]) == []
    await close(*handles.values())


async def test_messages_that_wait_in_a_frozen_node_are_sent_in_its_next_ring(corosync_cluster: Cluster) -> None:
    at_once = False
    # A real one may be alone first, and that is the ring that it comes to; or work off what waits before it notices.
    while not at_once:
        handles, (one, _, three) = await members(corosync_cluster)
        newcomer = await corosync_cluster[1].endpoint.connect(CPG)
        watcher = await joined(corosync_cluster[3].endpoint, b"other")
        await corosync_cluster[1].freeze()
        for handle in (handles[2], watcher):
            await ring_of(handle, 2, 3)
        await multicast(handles[1], b"stale")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(newcomer.join, b"other")
            await trio.testing.wait_all_tasks_blocked()
            await corosync_cluster[1].thaw()
        events = await ring_of(handles[1], 1, 2, 3)
        at_once = sum(isinstance(event, TotemChange) for event in events) == 1 and payloads(events) == []
        if at_once:
            assert payloads(await ring_of(handles[2], 1, 2, 3)) == []
            assert await take(handles[2], 1) == [Message(one, b"stale")]
            assert (await view_of(watcher, one, three))[-1] == ConfigChange((one, three), changes(Reason.JOIN, one), ())
        await close(newcomer, watcher, *handles.values())
        # Who joins in a transition may be told to try again.
        await corosync_cluster.settled()


async def test_all_nodes_frozen_one_after_the_other(corosync_cluster: Cluster) -> None:
    handles, addresses = await members(corosync_cluster)
    for node in corosync_cluster.nodes.values():
        await node.freeze()
    for node in corosync_cluster.nodes.values():
        await node.thaw()
    await corosync_cluster.settled()
    await caught_up(*handles.values())
    for handle in handles.values():
        assert await handle.membership(b"g") == tuple(addresses)
    await close(*handles.values())
