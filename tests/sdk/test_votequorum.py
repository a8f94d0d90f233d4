"""Votes, quorum, and how we are told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import pytest
import trio
from support.streams import until
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    CmapType,
    EventStream,
    ExpectedVotesChange,
    InvalidParamError,
    NodeState,
    Votequorum,
    VotequorumChange,
    VotequorumEvent,
    VotequorumFlag,
    VotequorumInfo,
    VotequorumNodelist,
)
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)

_MEMBER, _DEAD = NodeState.MEMBER, NodeState.DEAD
_QUORATE = VotequorumFlag.QUORATE


def info(nodeid: int = 1, **fields: object) -> VotequorumInfo:
    """What is known of a node of three, all of them well, unless told otherwise."""
    values: dict[str, object] = {
        "nodeid": nodeid,
        "state": _MEMBER,
        "votes": 1,
        "expected_votes": 3,
        "highest_expected": 3,
        "total_votes": 3,
        "quorum": 2,
        "flags": _QUORATE,
        "qdevice_votes": 0,
        "qdevice_name": "",
        **fields,
    }
    return VotequorumInfo(**values)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def states(change: VotequorumChange) -> Mapping[int, NodeState]:
    return {node.nodeid: node.state for node in change.nodes}


def is_change(*, quorate: bool, members: set[int]) -> Callable[[VotequorumEvent], bool]:
    """Whether quorum was counted with these members."""

    def test(event: VotequorumEvent) -> bool:
        return (
            isinstance(event, VotequorumChange)
            and event.quorate is quorate
            and {nodeid for nodeid, state in states(event).items() if state is _MEMBER} == members
        )

    return test


# -- questions ---------------------------------------------------------------------------------------------------------


async def test_info_of_each_node_by_each_node(corosync_cluster: Cluster) -> None:
    for node in corosync_cluster.nodes.values():
        async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
            assert await votequorum.info() == info(node.nodeid)
            for nodeid in corosync_cluster.nodes:
                assert await votequorum.info(nodeid) == info(nodeid)
                assert (await votequorum.info(nodeid)).quorate is True


async def test_many_questions_at_once(corosync: Node) -> None:
    """One handle takes one request at a time; callers need not know."""
    answers: list[VotequorumInfo] = []

    async def ask(votequorum: Votequorum) -> None:
        answers.extend([await votequorum.info() for _ in range(20)])

    async with triocoro.open_votequorum() as votequorum, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask, votequorum)
    assert answers == [info(corosync.nodeid, expected_votes=1, highest_expected=1, total_votes=1, quorum=1)] * 200


# -- changes -----------------------------------------------------------------------------------------------------------


async def transition(
    trackers: Sequence[EventStream[VotequorumEvent]], members: set[int], expected: Mapping[int, NodeState]
) -> tuple[VotequorumNodelist, VotequorumChange]:
    """Let every tracker receive one transition, which begins with the node list and ends with the count."""
    seen: list[tuple[VotequorumNodelist, VotequorumChange]] = []
    for changes in trackers:
        nodelist, change = await until(changes, is_change(quorate=True, members=members))
        assert isinstance(nodelist, VotequorumNodelist)
        assert isinstance(change, VotequorumChange)
        assert nodelist.nodes == tuple(sorted(members))
        assert states(change) == expected
        seen.append((nodelist, change))
    # The one state of the cluster, under one name everywhere.
    assert len({nodelist for nodelist, _ in seen}) == 1
    return seen[0]


async def test_trackers_through_a_death_and_a_return(corosync_cluster: Cluster) -> None:
    """Node 3 dies and comes back; two trackers of one connection, one of another node's, one that comes late."""
    well: dict[int, NodeState] = dict.fromkeys((1, 2, 3), _MEMBER)
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
        votequorum.track() as first,
        votequorum.track() as second,
        other.track() as elsewhere,
    ):
        trackers = (first, second, elsewhere)
        before, _ = await transition(trackers, {1, 2, 3}, well)
        assert all(changes.statistics().buffered_events == 0 for changes in trackers)

        await corosync_cluster[3].kill()
        without = await transition(trackers, {1, 2}, {**well, 3: _DEAD})
        assert await votequorum.info() == info(1, total_votes=2)
        assert await votequorum.info(3) == info(3, state=_DEAD, total_votes=2)
        async with votequorum.track() as late:
            # It gets the present state only, as if it had asked the daemon itself.
            assert tuple(await late.receive_batch()) == without

        await corosync_cluster[3].start()
        again, _ = await transition(trackers, {1, 2, 3}, well)
        assert await votequorum.info() == info(1)
        assert await votequorum.info(3) == info(3)

        rings = [before.ring_id, without[0].ring_id, again.ring_id]
        assert [ring.nodeid for ring in rings] == [1, 1, 1]
        assert rings[0].seq < rings[1].seq < rings[2].seq


async def test_closed_tracker_gets_nothing_more(corosync: Node) -> None:
    del corosync
    async with triocoro.open_votequorum() as votequorum:
        async with votequorum.track() as changes:
            await changes.receive()
        async with votequorum.track() as closed, votequorum.track() as changes:
            await closed.aclose()
            await votequorum.set_expected(1)
            events = await until(changes, lambda event: isinstance(event, ExpectedVotesChange))
            assert [type(event) for event in events] == [VotequorumNodelist, VotequorumChange, ExpectedVotesChange]
            assert closed.statistics().buffered_events == 0
        # Not one stream is kept.
        assert votequorum._tracker._streams == []


@pytest.mark.usefixtures("corosync")
async def test_closed_trackers_are_forgotten() -> None:
    async with triocoro.open_votequorum() as votequorum, votequorum.track():
        waiters = len(votequorum._connection.lifetime._lots)
        for _ in range(10):
            await votequorum.wait_quorate()
        assert len(votequorum._connection.lifetime._lots) == waiters


async def test_each_event_goes_to_one_receiver_of_a_stream(corosync: Node) -> None:
    del corosync
    received: list[VotequorumEvent] = []

    async def receive(changes: EventStream[VotequorumEvent]) -> None:
        received.append(await changes.receive())

    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await changes.receive()
        await changes.receive()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(receive, changes)
            await wait_all_tasks_blocked()
            assert changes.statistics().tasks_waiting_receive == 3
            for _ in range(3):
                await votequorum.set_expected(1)
    assert received == [ExpectedVotesChange(1)] * 3


# -- quorum ------------------------------------------------------------------------------------------------------------


async def test_wait_quorate(corosync_cluster: Cluster) -> None:
    """At once where it is so; else when it becomes so; and it can be given up."""
    done: list[str] = []

    async def wait(votequorum: Votequorum, name: str) -> None:
        await votequorum.wait_quorate()
        done.append(name)

    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await votequorum.wait_quorate()
        await votequorum.wait_quorate()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(corosync_cluster[2].kill)
            nursery.start_soon(corosync_cluster[3].kill)
        await until(changes, is_change(quorate=False, members={1}))
        assert await votequorum.info() == info(1, total_votes=1, flags=VotequorumFlag(0))
        assert (await votequorum.info(2)).state is _DEAD
        assert (await votequorum.info(2)).quorate is False

        async with triocoro.open_votequorum() as fresh, trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(wait, votequorum, "same connection")
                nursery.start_soon(wait, fresh, "its own connection")
                async with trio.open_nursery() as given_up:
                    given_up.start_soon(wait, votequorum, "given up")
                    await wait_all_tasks_blocked()
                    assert done == []
                    scope.cancel()
            assert scope.cancelled_caught
            assert done == []
            await corosync_cluster[2].start()
            await until(changes, is_change(quorate=True, members={1, 2}))
        assert sorted(done) == ["its own connection", "same connection"]
        assert await votequorum.info() == info(1, total_votes=2)
        assert votequorum._tracker._streams == [changes]


async def test_tracking_that_was_cancelled_at_its_start(corosync: Node) -> None:
    """The daemon may have been asked to begin, or not: the next tracker begins with the present state either way."""
    del corosync
    for checkpoints in range(6):
        async with triocoro.open_votequorum() as votequorum:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(votequorum.wait_quorate)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert votequorum._tracker._streams == []
            async with votequorum.track() as changes:
                assert isinstance(await changes.receive(), VotequorumNodelist)
                assert isinstance(await changes.receive(), VotequorumChange)
                assert (await votequorum.info()).quorate


async def test_tracking_that_was_cancelled_while_the_daemon_stood_still(corosync: Node) -> None:
    """After the thaw it starts tracking without a tracker; the next tracker does not hear of the earlier request."""
    async with triocoro.open_votequorum() as votequorum:
        await corosync.freeze()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(votequorum.wait_quorate)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await corosync.thaw()
        async with votequorum.track() as changes:
            assert isinstance(await changes.receive(), VotequorumNodelist)
            assert isinstance(await changes.receive(), VotequorumChange)
        await votequorum.wait_quorate()


# -- votes -------------------------------------------------------------------------------------------------------------


def _is_expected(number: int) -> Callable[[VotequorumEvent], bool]:
    return lambda event: event == ExpectedVotesChange(number)


async def test_set_expected(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
        votequorum.track() as changes,
        other.track() as elsewhere,
    ):
        for stream in (changes, elsewhere):
            await stream.receive()
            await stream.receive()
        for number, quorum in ((4, 3), (5, 3), (3, 2)):
            await votequorum.set_expected(number)
            # Every node is told, and of nothing else; that we are told ends the wait for its effect.
            assert await changes.receive() == ExpectedVotesChange(number)
            assert await elsewhere.receive() == ExpectedVotesChange(number)
            expected = info(1, expected_votes=number, highest_expected=number, quorum=quorum)
            assert await votequorum.info() == expected
            assert await other.info() == info(2, expected_votes=number, highest_expected=number, quorum=quorum)

        # One node more than quorum needs; its death ends quorum, unless the expected votes are lowered.
        await votequorum.set_expected(5)
        await until(elsewhere, _is_expected(5))
        await corosync_cluster[3].kill()
        await until(changes, is_change(quorate=False, members={1, 2}))
        await until(elsewhere, is_change(quorate=False, members={1, 2}))
        assert (await votequorum.info()).quorum == 3
        with pytest.raises(InvalidParamError, match="expected votes of 1 are refused"):
            await votequorum.set_expected(1)
        await other.set_expected(2)
        for stream in (changes, elsewhere):
            events = await until(stream, is_change(quorate=True, members={1, 2}))
            assert events[:-1] == [ExpectedVotesChange(2)]
        assert await votequorum.info() == info(1, expected_votes=2, highest_expected=2, total_votes=2)


async def test_set_votes(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
        votequorum.track() as changes,
        other.track() as elsewhere,
    ):
        for stream in (changes, elsewhere):
            await stream.receive()
            await stream.receive()
        # More votes than were expected: more are expected.
        await votequorum.set_votes(2, 3)
        assert await changes.receive() == ExpectedVotesChange(5)
        assert await elsewhere.receive() == ExpectedVotesChange(5)
        assert await votequorum.info() == info(1, expected_votes=5, highest_expected=5, total_votes=5, quorum=3)
        # Of the others, each node goes on telling what they said of themselves at the last transition.
        assert await votequorum.info(2) == info(2, votes=3, highest_expected=5, total_votes=5, quorum=3)
        assert await other.info(2) == info(2, votes=3, expected_votes=5, highest_expected=5, total_votes=5, quorum=3)

        # Fewer votes: the expected votes stay until they are set.
        await other.set_votes(2, 1)
        await other.set_expected(4)
        for stream in (changes, elsewhere):
            assert await stream.receive() == ExpectedVotesChange(4)
        assert await votequorum.info(2) == info(2, expected_votes=4, highest_expected=4, quorum=3)

        # What would end quorum is refused, and leaves no trace.
        with pytest.raises(InvalidParamError, match="0 votes for node 2 are refused: the cluster would lose quorum"):
            await votequorum.set_votes(2, 0)
        assert await votequorum.info(2) == info(2, expected_votes=4, highest_expected=4, quorum=3)
        await votequorum.set_expected(3)
        await until(changes, _is_expected(3))
        await votequorum.set_votes(3, 0)
        await votequorum.set_expected(2)
        await until(changes, _is_expected(2))
        assert await votequorum.info(3) == info(3, votes=0, expected_votes=2, highest_expected=2, total_votes=2)


async def test_the_arithmetic_of_votes_wraps_around(corosync: Node) -> None:
    """More can be expected than there are numbers for; a bit less is refused, as it should be."""
    del corosync
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        with pytest.raises(InvalidParamError):
            await votequorum.set_expected(2**32 - 3)
        for number in (2**32 - 2, 2**32 - 1):
            await votequorum.set_expected(number)
            await until(changes, _is_expected(number))
            found = await votequorum.info()
            assert found == info(
                1, expected_votes=number, highest_expected=number, total_votes=1, quorum=1, flags=_QUORATE
            )


async def expectations(cluster: Cluster) -> dict[int, tuple[int, ...]]:
    """What each node that is up says that the nodes of the cluster expect."""
    found: dict[int, tuple[int, ...]] = {}
    for nodeid, node in cluster.nodes.items():
        if node.running:
            async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum:
                found[nodeid] = tuple([(await votequorum.info(other)).expected_votes for other in cluster.nodes])
    return found


async def test_of_two_nodes_the_second_speaks_first(corosync_cluster: Cluster) -> None:
    """It expects less, and both have been quorate: so it is the first one who takes over what the other one says."""
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[3].endpoint) as other,
        other.track() as changes,
    ):
        await votequorum.set_expected(5)
        await until(changes, _is_expected(5))
    await corosync_cluster[2].restart()
    await corosync_cluster.settled()
    assert await expectations(corosync_cluster) == {1: (5, 5, 5), 2: (3, 3, 3), 3: (5, 5, 5)}
    await corosync_cluster[3].kill()
    await corosync_cluster.settled()
    assert await expectations(corosync_cluster) == {1: (5, 3, 5), 2: (5, 3, 3)}
    for nodeid in (1, 2):
        async with triocoro.open_votequorum(endpoint=corosync_cluster[nodeid].endpoint) as votequorum:
            found = await votequorum.info()
            assert (found.quorate, found.quorum) == (False, 3)


@pytest.mark.corosync(nodes=4)
async def test_of_four_nodes_the_second_speaks_first(corosync_cluster: Cluster) -> None:
    """Two rings meet, one quorate and one not: what its nodes expect afterwards tells who spoke when."""
    everybody = {1, 2, 3, 4}
    async with AsyncExitStack() as stack:
        services = [
            await stack.enter_async_context(triocoro.open_votequorum(endpoint=node.endpoint))
            for node in corosync_cluster.nodes.values()
        ]
        trackers = [await stack.enter_async_context(votequorum.track()) for votequorum in services]
        for changes in trackers:
            await until(changes, is_change(quorate=True, members=everybody))
        at_once = False
        # Real nodes may meet in steps, and then it is another story.
        while not at_once:
            await services[0].set_expected(4)
            for changes in trackers:
                await until(changes, _is_expected(4))
            await corosync_cluster.partition({1, 2}, {3, 4})
            for changes, members in zip(trackers, ({1, 2}, {1, 2}, {3, 4}, {3, 4}), strict=True):
                await until(changes, is_change(quorate=False, members=members))
            await services[2].set_expected(2)
            for changes in trackers[2:]:
                await until(changes, is_change(quorate=True, members={3, 4}))
            await corosync_cluster.heal()
            at_once = True
            for changes in trackers:
                events = await until(changes, is_change(quorate=True, members=everybody))
                at_once &= sum(isinstance(event, VotequorumNodelist) for event in events) == 1
            await corosync_cluster.settled()
    assert await expectations(corosync_cluster) == {
        1: (4, 4, 2, 2),
        2: (4, 4, 2, 2),
        3: (3, 2, 4, 2),
        4: (3, 2, 2, 4),
    }


# -- other kinds of clusters -------------------------------------------------------------------------------------------


@pytest.mark.corosync(nodes=2, two_node=True)
async def test_two_nodes(corosync_cluster: Cluster) -> None:
    """Either node goes on alone; but once started alone, it waits for the other."""
    flags = VotequorumFlag.TWONODE | VotequorumFlag.WAIT_FOR_ALL
    both = {"expected_votes": 2, "highest_expected": 2, "quorum": 1}
    one, two = corosync_cluster[1], corosync_cluster[2]
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        assert await votequorum.info() == info(1, total_votes=2, flags=flags | _QUORATE, **both)
        await two.kill()
        await until(changes, is_change(quorate=True, members={1}))
        assert await votequorum.info() == info(1, total_votes=1, flags=flags | _QUORATE, **both)
    await one.stop()
    await one.start()
    await corosync_cluster.settled()
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        assert await votequorum.info() == info(1, total_votes=1, flags=flags, **both)
        await two.start()
        await votequorum.wait_quorate()
        await until(changes, is_change(quorate=True, members={1, 2}))
        assert await votequorum.info() == info(1, total_votes=2, flags=flags | _QUORATE, **both)


@pytest.mark.corosync(nodes=3, wait_for_all=True)
async def test_wait_for_all(corosync_cluster: Cluster) -> None:
    """A majority is not enough at first; later it is."""
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        flags = VotequorumFlag.WAIT_FOR_ALL
        assert await votequorum.info() == info(1, flags=flags | _QUORATE)
        await corosync_cluster[3].kill()
        await until(changes, is_change(quorate=True, members={1, 2}))
        assert await votequorum.info() == info(1, flags=flags | _QUORATE, total_votes=2)
    for nodeid in (1, 2):
        await corosync_cluster[nodeid].kill()
    async with trio.open_nursery() as nursery:
        for nodeid in (1, 2):
            nursery.start_soon(corosync_cluster[nodeid].start)
    await corosync_cluster.settled()
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await until(changes, is_change(quorate=False, members={1, 2}))
        assert await votequorum.info() == info(1, flags=flags, total_votes=2)
        await corosync_cluster[3].start()
        await until(changes, is_change(quorate=True, members={1, 2, 3}))
        assert await votequorum.info() == info(1, flags=flags | _QUORATE)


@pytest.mark.corosync(nodes=2, allow_downscale=True)
async def test_a_node_that_stops_says_so(corosync_cluster: Cluster) -> None:
    """Its votes are gone before it is; when it is killed, the others are not told beforehand."""
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await until(changes, is_change(quorate=True, members={1, 2}))
        await corosync_cluster[2].stop()
        leaving, nodelist, gone = [await changes.receive() for _ in range(3)]
        assert isinstance(leaving, VotequorumChange)
        assert (leaving.quorate, states(leaving)) == (False, {1: _MEMBER, 2: NodeState.LEAVING})
        assert isinstance(nodelist, VotequorumNodelist)
        assert isinstance(gone, VotequorumChange)
        assert (gone.quorate, states(gone)) == (False, {1: _MEMBER, 2: _DEAD})
        expected = {"expected_votes": 1, "highest_expected": 1, "total_votes": 1, "quorum": 2}
        assert await votequorum.info() == info(1, flags=VotequorumFlag.ALLOW_DOWNSCALE, **expected)

        await corosync_cluster[2].start()
        await until(changes, is_change(quorate=True, members={1, 2}))
        await corosync_cluster[2].kill()
        nodelist, gone = [await changes.receive() for _ in range(2)]
        assert isinstance(nodelist, VotequorumNodelist)
        assert isinstance(gone, VotequorumChange)
        assert (gone.quorate, states(gone)) == (False, {1: _MEMBER, 2: _DEAD})
        # A killed node keeps the expected votes.
        assert (await votequorum.info()).expected_votes == 2


async def tracked(node: Node) -> int:
    """The most votes that the node has ever expected."""
    async with triocoro.open_cmap(endpoint=node.endpoint) as cmap:
        number = await cmap.get("runtime.votequorum.ev_tracking_barrier")
        assert isinstance(number, int)
        return number


@pytest.mark.corosync(nodes=2, allow_downscale=True)
async def test_expected_votes_that_were_set_do_not_outlive_the_daemon(corosync_cluster: Cluster) -> None:
    """It is meant to, but Corosync has closed the file by the time it writes."""
    one, two = corosync_cluster[1], corosync_cluster[2]
    async with triocoro.open_votequorum(endpoint=two.endpoint) as votequorum, votequorum.track() as changes:
        await votequorum.set_votes(1, 3)
        await until(changes, _is_expected(4))
        await one.kill()
        await until(changes, is_change(quorate=False, members={2}))
        await one.start()
        await corosync_cluster.settled()
        assert await expectations(corosync_cluster) == {1: (2, 4), 2: (2, 4)}
    assert [await tracked(node) for node in (one, two)] == [2, 4]


# -- the configuration, while the daemon runs --------------------------------------------------------------------------


@pytest.mark.corosync(nodes=2)
async def test_expected_votes_in_the_map(corosync_cluster: Cluster) -> None:
    """A key of one node's map is what that node then says to all."""
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
        triocoro.open_cmap() as cmap,
        votequorum.track() as changes,
        other.track() as elsewhere,
    ):
        for stream in (changes, elsewhere):
            await until(stream, is_change(quorate=True, members={1, 2}))
        await cmap.set("quorum.expected_votes", 4, type=CmapType.UINT32)
        for stream in (changes, elsewhere):
            events = await until(stream, _is_expected(4))
            assert [type(event) for event in events] == [VotequorumChange, ExpectedVotesChange]
            assert is_change(quorate=False, members={1, 2})(events[0])
        numbers = {"expected_votes": 4, "highest_expected": 4, "quorum": 3, "total_votes": 2}
        assert await votequorum.info() == info(1, flags=VotequorumFlag(0), **numbers)
        assert await other.info() == info(2, flags=VotequorumFlag(0), **numbers)

        await cmap.set("quorum.two_node", 1, type=CmapType.UINT8)
        await until(changes, is_change(quorate=True, members={1, 2}))
        flags = VotequorumFlag.TWONODE | VotequorumFlag.WAIT_FOR_ALL | _QUORATE
        assert await votequorum.info() == info(1, flags=flags, **{**numbers, "quorum": 1})
        # Node 2 has not heard of that.
        assert (await other.info()).flags & VotequorumFlag.TWONODE == VotequorumFlag(0)


@pytest.mark.corosync(nodes=2, wait_for_all=True, expected_votes=3)
async def test_waiting_for_all_can_be_called_off(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=corosync_cluster[2].endpoint) as other,
        triocoro.open_cmap() as cmap,
        votequorum.track() as changes,
        other.track() as elsewhere,
    ):
        for stream in (changes, elsewhere):
            await until(stream, is_change(quorate=False, members={1, 2}))
        await cmap.set("quorum.cancel_wait_for_all", 1, type=CmapType.UINT8)
        for stream in (changes, elsewhere):
            assert len(await until(stream, is_change(quorate=True, members={1, 2}))) == 1
        assert await cmap.get("quorum.cancel_wait_for_all") == 0
        assert (await votequorum.info()).flags == VotequorumFlag.WAIT_FOR_ALL | _QUORATE


async def test_quorum_is_counted_in_one_byte(corosync: Node) -> None:
    """As odd as it is, a test of an application should see what its users would."""
    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        for votes, quorum in ((509, 255), (511, 0), (600, 45)):
            await votequorum.set_votes(corosync.nodeid, votes)
            await until(changes, _is_expected(votes))
            assert (await votequorum.info()).quorum == quorum
