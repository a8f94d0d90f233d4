"""A quorum device: it registers, says again and again that it lives, and votes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import pytest
import trio
from support.external_programs import ask
from support.groups import raises_group
from trio.testing import MockClock, wait_all_tasks_blocked

import triocoro
from triocoro import (
    AccessError,
    CmapType,
    Cpg,
    EventStream,
    ExistError,
    InvalidParamError,
    MessageError,
    NodeState,
    NotExistError,
    RingId,
    TryAgainError,
    Votequorum,
    VotequorumChange,
    VotequorumEvent,
    VotequorumFlag,
    VotequorumInfo,
    VotequorumNode,
    VotequorumNodelist,
    lowlevel,
)
from triocoro.lowlevel import Track
from triocoro.testing import Cluster, FakeCluster, Node

pytestmark = pytest.mark.deadline(30)

_QUORATE = VotequorumFlag.QUORATE
_REGISTERED = VotequorumFlag.QDEVICE_REGISTERED
_ALIVE = _REGISTERED | VotequorumFlag.QDEVICE_ALIVE
_VOTING = _ALIVE | VotequorumFlag.QDEVICE_CAST_VOTE
_WINS = VotequorumFlag.QDEVICE_MASTER_WINS

_DEVICE = VotequorumNode(0, NodeState.DEAD)
"""Nobody ever gives the device another state."""


@pytest.fixture
def clock(corosync_mode: str) -> MockClock | None:
    """The fake's time passes at once; daemons' time does not."""
    return MockClock(autojump_threshold=0) if corosync_mode == "fake" else None


async def ring_of(changes: EventStream[VotequorumEvent], *members: int) -> RingId:
    """Wait for the beginning of the transition to these nodes."""
    async for change in changes:
        if isinstance(change, VotequorumNodelist) and change.nodes == members:
            return change.ring_id
    raise AssertionError


async def present_ring(votequorum: Votequorum) -> RingId:
    async with votequorum.track() as changes:
        nodelist = await changes.receive()
        assert isinstance(nodelist, VotequorumNodelist)
        return nodelist.ring_id


async def until_info(ask_for: Callable[[], Awaitable[VotequorumInfo]], **fields: object) -> None:
    """Wait until the fields have these values: the daemons multicast them, and no event announces the arrival."""
    while {name: getattr(info := await ask_for(), name) for name in fields} != fields:  # noqa: ASYNC110 - above
        del info
        await trio.sleep(0.01)


async def until_known(node: Node, flags: VotequorumFlag) -> None:
    """Wait until this node knows that about node 1's device.

    What is still on its way when the ring breaks comes after the transition, and takes node 1 back to where it was.
    """
    async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
        await until_info(lambda: votequorum.info(1), flags=_QUORATE | flags)


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
async def test_votes_of_the_device_count_where_it_says_so(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
    ):
        ring_id = await present_ring(votequorum)
        info = await votequorum.info()
        assert (info.expected_votes, info.quorum, info.total_votes) == (3, 2, 2)
        assert (info.flags, info.qdevice_votes, info.qdevice_name) == (_QUORATE, 1, "")

        await votequorum.qdevice_register("disk")
        await until_info(votequorum.info, flags=_QUORATE | _REGISTERED, qdevice_name="disk", total_votes=2)
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        await until_info(votequorum.info, flags=_QUORATE | _VOTING, total_votes=3, quorum=2)
        await votequorum.qdevice_poll("disk", cast_vote=False, ring_id=ring_id)
        await until_info(votequorum.info, flags=_QUORATE | _ALIVE, total_votes=2)
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        await votequorum.qdevice_master_wins("disk", allow=True)
        await until_info(votequorum.info, flags=_QUORATE | _VOTING | _WINS, total_votes=3)

        # The other node knows the device's name, and what node 1 says of it; it has none of its own.
        await until_info(lambda: other.info(1), flags=_QUORATE | _VOTING | _WINS, total_votes=3)
        await until_info(other.info, flags=_QUORATE, total_votes=2, qdevice_name="disk", qdevice_votes=1)

        await votequorum.qdevice_update("disk", "lamp")
        for each in (votequorum, other):
            await until_info(each.info, qdevice_name="lamp")
        await votequorum.qdevice_unregister("lamp")
        await until_info(votequorum.info, flags=_QUORATE, total_votes=2, qdevice_name="")
        await until_info(lambda: other.info(1), flags=_QUORATE, total_votes=2, qdevice_name="")


@pytest.mark.corosync(nodes=3, qdevice_votes=1)
async def test_a_device_stays_where_it_is_registered(corosync_cluster: Cluster) -> None:
    """In a transition every node tells of the device; that registers none."""
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
    ):
        await votequorum.qdevice_register("disk")
        await until_info(other.info, flags=_QUORATE, qdevice_name="disk")
        await corosync_cluster[3].kill()
        await corosync_cluster.settled()
        await corosync_cluster[3].start()
        await corosync_cluster.settled()
        for each in (votequorum, other):
            assert (await each.info(1)).flags == _QUORATE | _REGISTERED
            assert (await each.info(2)).flags == _QUORATE
        async with triocoro.open_votequorum(endpoint=corosync_cluster[3].endpoint) as newcomer:
            info = await newcomer.info()
            assert (info.flags, info.qdevice_name) == (_QUORATE, "disk")
        with pytest.raises(NotExistError):
            await other.qdevice_unregister("disk")


@pytest.mark.corosync_fake_only(reason="no message of a real cluster is late by a known time")
async def test_a_registration_is_answered_when_it_has_come_back(autojump_clock: MockClock) -> None:
    """Meanwhile another one is put off. Whoever asked may be gone by then."""
    del autojump_clock
    async with FakeCluster(nodes=2, qdevice_votes=1, latency=0.5) as cluster:
        first = await lowlevel.votequorum_initialize(endpoint=cluster[1].endpoint)
        second = await lowlevel.votequorum_initialize(endpoint=cluster[1].endpoint)
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.qdevice_register, "disk")
            await wait_all_tasks_blocked()
            with pytest.raises(TryAgainError, match="another registration is under way"):
                await second.qdevice_register("disk")
        assert trio.current_time() - start == pytest.approx(0.5)
        await until_info(lambda: second.getinfo(0), flags=_QUORATE | _REGISTERED, qdevice_name="disk")

        with pytest.raises(ExistError, match="is called 'disk'"):
            await second.qdevice_register("lamp")
        elsewhere = await lowlevel.votequorum_initialize(endpoint=cluster[2].endpoint)
        with raises_group(triocoro.ConnectionLostError):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(elsewhere.qdevice_register, "disk")
                await wait_all_tasks_blocked()
                await cluster[2].stop()
        for handle in (first, second, elsewhere):
            await handle.finalize()


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
async def test_a_transition_waits_for_the_device(corosync_cluster: Cluster) -> None:
    """Node 2 dies and comes back: each time, quorum is counted when the device has spoken about the new ring."""
    done: list[str] = []

    async def ask(cpg: Cpg, answered: str) -> None:
        await cpg.local_nodeid()
        done.append(answered)

    async def join() -> None:
        async with triocoro.open_group("chat"):
            done.append("joined")

    async with (
        triocoro.open_cpg() as older,
        triocoro.open_votequorum() as votequorum,
        votequorum.track() as changes,
    ):
        old = await ring_of(changes, 1, 2)
        await changes.receive()
        await votequorum.qdevice_register("disk")
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=old)
        await until_known(corosync_cluster[2], _VOTING)
        await corosync_cluster[2].kill()
        alone = await ring_of(changes, 1)
        with pytest.raises(MessageError):
            await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=old)
        async with trio.open_nursery() as nursery:
            # Meanwhile, votequorum answers. The other services do so on connections that are made now, and let no one
            # join; those that were there wait.
            nursery.start_soon(ask, older, "older answered")
            nursery.start_soon(join)
            await wait_all_tasks_blocked()
            assert (await votequorum.info()).flags == _QUORATE | _VOTING
            async with triocoro.open_cpg() as newer:
                await ask(newer, "newer answered")
            done.append("polled")
            await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=alone)
        assert done[:2] == ["newer answered", "polled"]
        assert sorted(done[2:]) == ["joined", "older answered"]
        nodes = (VotequorumNode(2, NodeState.DEAD), VotequorumNode(1, NodeState.MEMBER), _DEVICE)
        assert await changes.receive() == VotequorumChange(quorate=True, nodes=nodes)
        info = await votequorum.info()
        assert (info.total_votes, info.quorum) == (2, 2)

        # Without its vote, there is no quorum; no ring is needed for that.
        await votequorum.qdevice_poll("disk", cast_vote=False, ring_id=alone)
        assert await changes.receive() == VotequorumChange(quorate=False, nodes=nodes)

        await corosync_cluster[2].start()
        async with (
            triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
            other.track() as elsewhere,
        ):
            again = await ring_of(changes, 1, 2)
            assert await ring_of(elsewhere, 1, 2) == again
            await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=again)
            nodes = (VotequorumNode(2, NodeState.MEMBER), VotequorumNode(1, NodeState.MEMBER), _DEVICE)
            assert (await counted(changes)) == VotequorumChange(quorate=True, nodes=nodes)
            # It lists the device only where that is registered.
            assert (await counted(elsewhere)) == VotequorumChange(
                quorate=True, nodes=(VotequorumNode(1, NodeState.MEMBER), VotequorumNode(2, NodeState.MEMBER))
            )


async def counted(changes: EventStream[VotequorumEvent]) -> VotequorumChange:
    """The quorum at the end of the transition in which we are."""
    async for change in changes:
        if isinstance(change, VotequorumChange) and change.quorate:
            return change
    raise AssertionError


@pytest.mark.corosync(nodes=2, qdevice_votes=1, qdevice_sync_timeout=400)
async def test_a_transition_does_not_wait_for_ever(corosync_cluster: Cluster, clock: MockClock | None) -> None:
    del clock
    with trio.fail_after(30):
        async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
            ring_id = await ring_of(changes, 1, 2)
            await changes.receive()
            await votequorum.qdevice_register("disk")
            await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
            await until_known(corosync_cluster[2], _VOTING)
            await corosync_cluster[2].kill()
            await ring_of(changes, 1)
            nodes = (VotequorumNode(2, NodeState.DEAD), VotequorumNode(1, NodeState.MEMBER), _DEVICE)
            assert await changes.receive() == VotequorumChange(quorate=False, nodes=nodes)
            # It is taken for dead, and its vote with it.
            info = await votequorum.info()
            assert (info.flags, info.total_votes) == (_REGISTERED, 1)


@pytest.mark.corosync(nodes=1, qdevice_votes=1, qdevice_timeout=400)
async def test_a_device_that_falls_silent_votes_no_more(corosync: Node, clock: MockClock | None) -> None:
    del clock
    nodes = (VotequorumNode(corosync.nodeid, NodeState.MEMBER), _DEVICE)
    with trio.fail_after(30):
        async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
            ring_id = await ring_of(changes, 1)
            assert await changes.receive() == VotequorumChange(quorate=False, nodes=nodes[:1])
            await votequorum.qdevice_register("disk")
            assert not (await votequorum.info()).quorate
            for _ in range(2):
                await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
                assert await changes.receive() == VotequorumChange(quorate=True, nodes=nodes)
                assert await changes.receive() == VotequorumChange(quorate=False, nodes=nodes)
                info = await votequorum.info()
                assert (info.flags, info.total_votes, info.quorum) == (_REGISTERED, 1, 2)


@pytest.mark.corosync(nodes=2, votes={2: 5}, qdevice_votes=1)
async def test_master_wins(corosync_cluster: Cluster) -> None:
    """The smaller part goes on, if the device votes for it and says so."""
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        ring_id = await ring_of(changes, 1, 2)
        await changes.receive()
        await votequorum.qdevice_register("disk")
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        await votequorum.qdevice_master_wins("disk", allow=True)
        await until_known(corosync_cluster[2], _VOTING | _WINS)
        await corosync_cluster[2].kill()
        alone = await ring_of(changes, 1)
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=alone)
        change = await changes.receive()
        assert isinstance(change, VotequorumChange)
        assert change.quorate is True
        info = await votequorum.info()
        assert (info.flags, info.total_votes, info.quorum) == (_QUORATE | _VOTING | _WINS, 2, 4)
        # It must vote for us, too.
        await votequorum.qdevice_poll("disk", cast_vote=False, ring_id=alone)
        change = await changes.receive()
        assert isinstance(change, VotequorumChange)
        assert change.quorate is False


@pytest.mark.corosync(nodes=1, expected_votes=5, qdevice_votes=1)
async def test_master_wins_at_once(corosync: Node) -> None:
    nodes = (VotequorumNode(corosync.nodeid, NodeState.MEMBER), _DEVICE)
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        ring_id = await ring_of(changes, 1)
        assert await changes.receive() == VotequorumChange(quorate=False, nodes=nodes[:1])
        await votequorum.qdevice_register("disk")
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        await until_info(votequorum.info, flags=_VOTING, total_votes=2, quorum=3)
        for allow in (True, False):
            await votequorum.qdevice_master_wins("disk", allow=allow)
            assert await changes.receive() == VotequorumChange(quorate=allow, nodes=nodes)


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
async def test_errors_leave_the_connection_usable(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
    ):
        ring_id = await present_ring(votequorum)

        async def poll(name: str, ring_id: RingId = ring_id) -> None:
            await votequorum.qdevice_poll(name, cast_vote=True, ring_id=ring_id)

        # None is registered yet.
        with pytest.raises(NotExistError):
            await poll("disk")
        with pytest.raises(NotExistError):
            await votequorum.qdevice_master_wins("disk", allow=True)
        with pytest.raises(NotExistError):
            await votequorum.qdevice_update("disk", "lamp")
        with pytest.raises(NotExistError):
            await votequorum.qdevice_unregister("disk")

        await votequorum.qdevice_register("disk")
        await votequorum.qdevice_register("disk")
        with pytest.raises(ExistError):
            await votequorum.qdevice_register("lamp")
        await until_info(other.info, qdevice_name="disk")
        with pytest.raises(ExistError):
            await other.qdevice_register("lamp")
        with pytest.raises(NotExistError):
            await other.qdevice_unregister("disk")

        with pytest.raises(MessageError):
            await poll("disk", RingId(ring_id.nodeid, ring_id.seq + 4))
        # The ring is looked at first.
        with pytest.raises(MessageError):
            await poll("lamp", RingId(ring_id.nodeid + 1, ring_id.seq))
        with pytest.raises(InvalidParamError):
            await poll("lamp")
        with pytest.raises(InvalidParamError):
            await votequorum.qdevice_master_wins("lamp", allow=True)
        with pytest.raises(InvalidParamError):
            await votequorum.qdevice_update("lamp", "disk")
        with pytest.raises(InvalidParamError):
            await votequorum.qdevice_unregister("lamp")
        assert (await votequorum.info()).flags == _QUORATE | _REGISTERED
        await poll("disk")
        assert (await votequorum.info()).flags == _QUORATE | _VOTING


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
async def test_a_registration_outlives_its_connection_and_goes_with_the_last_node(corosync_cluster: Cluster) -> None:
    two = corosync_cluster[2].endpoint
    async with triocoro.open_votequorum() as first:
        await first.qdevice_register("disk")
    async with triocoro.open_votequorum() as votequorum, triocoro.open_votequorum(endpoint=two) as other:
        assert (await votequorum.info()).flags == _QUORATE | _REGISTERED
        await until_info(other.info, qdevice_name="disk")
        await other.qdevice_register("disk")
        await until_info(lambda: votequorum.info(2), flags=_QUORATE | _REGISTERED)
        await votequorum.qdevice_unregister("disk")
        # Node 2 has it still: so it keeps its name.
        for each in (votequorum, other):
            await until_info(lambda each=each: each.info(1), flags=_QUORATE, qdevice_name="disk")  # type: ignore[misc]
        await other.qdevice_unregister("disk")
        for each in (votequorum, other):
            await until_info(each.info, flags=_QUORATE, qdevice_name="")
        await other.qdevice_register("lamp")
        await until_info(votequorum.info, qdevice_name="lamp")


@pytest.mark.corosync(nodes=2)
async def test_a_device_that_is_not_configured_has_no_votes(corosync_cluster: Cluster) -> None:
    """The daemon lets it register all the same."""
    del corosync_cluster
    async with triocoro.open_votequorum() as votequorum:
        ring_id = await present_ring(votequorum)
        await votequorum.qdevice_register("disk")
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        await until_info(votequorum.info, flags=_QUORATE | _VOTING, qdevice_votes=0, total_votes=2, expected_votes=2)


@pytest.mark.corosync(nodes=1, qdevice_votes=1)
async def test_the_calls_one_to_one(corosync: Node) -> None:
    del corosync
    seen: list[VotequorumNodelist] = []

    async def nodelist(event: VotequorumNodelist) -> None:
        seen.append(event)

    handle = await lowlevel.votequorum_initialize(nodelist_notify=nodelist)
    try:
        await handle.trackstart(Track.CURRENT)
        await handle.dispatch(lowlevel.Dispatch.ALL)
        ring_id = seen[0].ring_id
        with pytest.raises(NotExistError):
            await handle.qdevice_poll("disk", True, ring_id)  # noqa: FBT003 - as in C
        await handle.qdevice_register("disk")
        await handle.qdevice_poll("disk", True, ring_id)  # noqa: FBT003
        await handle.qdevice_master_wins("disk", True)  # noqa: FBT003
        assert (await handle.getinfo(0)).flags & ~_QUORATE == _VOTING | _WINS
        await handle.qdevice_poll("disk", False, ring_id)  # noqa: FBT003
        await handle.qdevice_master_wins("disk", False)  # noqa: FBT003
        assert (await handle.getinfo(0)).flags & ~_QUORATE == _ALIVE
        await handle.qdevice_update("disk", "lamp")
        await until_info(lambda: handle.getinfo(0), qdevice_name="lamp")
        with pytest.raises(InvalidParamError):
            await handle.qdevice_unregister("disk")
        await handle.qdevice_unregister("lamp")
        await until_info(lambda: handle.getinfo(0), qdevice_name="")
    finally:
        await handle.finalize()


@pytest.mark.corosync_real_only(reason="Corosync's tool cannot ask the fake")
@pytest.mark.corosync(nodes=2, qdevice_votes=1)
async def test_quorumtool_sees_the_device(corosync_cluster: Cluster) -> None:
    async def seen() -> tuple[str, str, str]:
        text = await ask(corosync_cluster[1], "corosync-quorumtool", "-s")
        told = [re.search(pattern, text, re.MULTILINE) for pattern in (r"^Total votes: +(\d+)", r"^ +1 +1 +(\S+) ")]
        device = re.search(r"^ +0 +(.*?) *$", text, re.MULTILINE)
        return (*(found[1] if found else "" for found in told), device[1] if device else "")  # type: ignore[return-value]

    async with triocoro.open_votequorum() as votequorum:
        ring_id = await present_ring(votequorum)
        await votequorum.qdevice_register("disk")
        await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        assert await seen() == ("3", "A,V,NMW", "1            disk")


@pytest.mark.corosync(nodes=2, qdevice_votes=1)
async def test_two_node_and_a_device_exclude_each_other(corosync_cluster: Cluster) -> None:
    """What comes second, while the daemon runs, has no effect."""
    two = corosync_cluster[2].endpoint
    async with triocoro.open_votequorum() as votequorum, triocoro.open_cmap() as cmap:
        ring_id = await present_ring(votequorum)
        await cmap.set("quorum.two_node", 1, type=CmapType.UINT8)
        assert VotequorumFlag.TWONODE in (await votequorum.info()).flags
        with pytest.raises(AccessError):
            await votequorum.qdevice_register("disk")
        with pytest.raises(AccessError):
            await votequorum.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        with pytest.raises(AccessError):
            await votequorum.qdevice_master_wins("disk", allow=True)
        with pytest.raises(NotExistError):
            await votequorum.qdevice_unregister("disk")
        await cmap.set("quorum.two_node", 0, type=CmapType.UINT8)
        await votequorum.qdevice_register("disk")
    async with triocoro.open_votequorum(endpoint=two) as other, triocoro.open_cmap(endpoint=two) as cmap:
        await other.qdevice_register("disk")
        await cmap.set("quorum.two_node", 1, type=CmapType.UINT8)
        assert VotequorumFlag.TWONODE not in (await other.info()).flags
        await other.qdevice_poll("disk", cast_vote=True, ring_id=ring_id)
        assert (await other.info()).flags == _QUORATE | _VOTING
