"""votequorum at the raw seam: tracking to the letter, and what a node knows of those it has not met."""

from __future__ import annotations

import pytest
from support.raw_handles import close, take, take_until

from triocoro._enums import NodeState, Track
from triocoro._errors import ExistError, NotExistError
from triocoro._raw import RawVotequorum
from triocoro._services import VOTEQUORUM
from triocoro._types import ExpectedVotesChange, VotequorumChange, VotequorumEvent, VotequorumNode, VotequorumNodelist
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


_MEMBER, _DEAD = NodeState.MEMBER, NodeState.DEAD


def change(*states: tuple[int, NodeState], quorate: bool) -> VotequorumChange:
    return VotequorumChange(quorate=quorate, nodes=tuple(VotequorumNode(*state) for state in states))


async def state(handle: RawVotequorum, *nodeids: int) -> VotequorumEvent:
    """The next event but one, if the next one is the node list of these nodes."""
    nodelist, event = await take(handle, 2)
    assert isinstance(nodelist, VotequorumNodelist)
    assert nodelist == VotequorumNodelist(nodelist.ring_id, nodeids)
    assert nodelist.ring_id.nodeid == nodeids[0]
    return event


async def test_tracking(corosync_cluster: Cluster) -> None:
    handle = await corosync_cluster[1].endpoint.connect(VOTEQUORUM)
    with pytest.raises(NotExistError):
        await handle.trackstop()
    # Corosync's order: each node that is new and above all others comes before the last one.
    start = change((2, _MEMBER), (3, _MEMBER), (1, _MEMBER), quorate=True)
    await handle.trackstart(Track.CHANGES)
    assert await state(handle, 1, 2, 3) == start
    with pytest.raises(ExistError):
        await handle.trackstart(Track.CURRENT)
    assert await state(handle, 1, 2, 3) == start
    await corosync_cluster.partition({1}, {2, 3})
    assert await state(handle, 1) == change((2, _DEAD), (3, _DEAD), (1, _MEMBER), quorate=False)
    await handle.trackstop()
    await corosync_cluster.heal()
    await corosync_cluster.settled()
    await handle.trackstart(Track.CHANGES_ONLY)
    assert handle.waiting() == 0
    await corosync_cluster[3].stop()
    assert await state(handle, 1, 2) == change((2, _MEMBER), (3, _DEAD), (1, _MEMBER), quorate=True)
    await close(handle)


@pytest.mark.corosync(nodes=2)
async def test_a_node_that_was_never_met_is_not_known(corosync_cluster: Cluster) -> None:
    await corosync_cluster.partition({1}, {2})
    await corosync_cluster[2].restart()
    handle = await corosync_cluster[2].endpoint.connect(VOTEQUORUM)
    with pytest.raises(NotExistError):
        await handle.info(1)
    await close(handle)


async def test_votes_of_a_device_that_is_not_registered(corosync: Node) -> None:
    """They are expected, and not there."""
    handle = await corosync.endpoint.connect(VOTEQUORUM)
    await handle.trackstart(Track.CHANGES_ONLY)
    await handle.set_votes(0, 2)
    await take_until(handle, lambda event: event == ExpectedVotesChange(3))
    info = await handle.info(0)
    assert (info.qdevice_votes, info.expected_votes, info.total_votes) == (2, 3, 1)
    await close(handle)


@pytest.mark.corosync(nodes=3, wait_for_all=True)
async def test_a_restarted_node_learns_that_all_nodes_had_been_present(corosync_cluster: Cluster) -> None:
    async def quorate() -> bool:
        await corosync_cluster.settled()
        handle = await corosync_cluster[2].endpoint.connect(VOTEQUORUM)
        info = await handle.info(0)
        await close(handle)
        return info.quorate

    await corosync_cluster[3].kill()
    await corosync_cluster.settled()
    await corosync_cluster[2].restart()
    # Neither has it: the survivor lost quorum, and waits for all again.
    assert not await quorate()
    assert "Waiting for all cluster members. Current votes: 2 expected_votes: 3" in corosync_cluster[2].log
    await corosync_cluster[3].start()
    assert await quorate()
    await corosync_cluster[2].restart()
    assert await quorate()
    await corosync_cluster[3].kill()
    assert await quorate()
