"""Views: a group and quorum in one stream, on real nodes and on the fake."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from itertools import count

import pytest
import trio
from support.news import LateEndpoint
from support.proxy import FaultyEndpoint
from support.streams import until
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    Address,
    ConnectionLostError,
    ExistError,
    LibraryError,
    Message,
    MessageLostError,
    NotSupportedError,
    PrimaryChange,
    QuorumChange,
    QuorumType,
    SlowConsumerError,
    TotemChange,
    View,
    ViewEvent,
    Views,
)
from triocoro.lowlevel import Track
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


def a_view(
    *members: Address, nodes: set[int] | None = None, primary: bool | None = None
) -> Callable[[ViewEvent], bool]:
    """Whether an event is a view of these members, and of these nodes."""
    return lambda event: (
        isinstance(event, View)
        and set(event.members) == set(members)
        and nodes in (None, event.nodes)
        and primary in (None, event.primary)
    )


async def next_view(views: Views, *members: Address, nodes: set[int] | None = None) -> View:
    """The next view of these members; on the way there, real nodes may pass through others."""
    event = (await until(views, a_view(*members, nodes=nodes)))[-1]
    assert isinstance(event, View)
    assert views.view is event
    return event


def is_message(payload: bytes) -> Callable[[ViewEvent], bool]:
    return lambda event: isinstance(event, Message) and event.payload == payload


async def poll(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110 - as said
        await trio.sleep(0.001)


# -- views -------------------------------------------------------------------------------------------------------------


async def test_joins_leaves_and_rings(corosync_cluster: Cluster) -> None:
    async with triocoro.open_views("g", endpoint=corosync_cluster[1]) as views:
        one = views.address
        assert (views.name, views.view) == (b"g", None)
        assert repr(views) == f"<triocoro.Views b'g' as node 1, pid {one.pid}>"
        first = await views.receive()
        assert isinstance(first, View)
        assert first == View(first.ring_id, (one,), frozenset({1, 2, 3}), primary=True, together=frozenset())
        assert views.view is first

        async with triocoro.open_views("g", endpoint=corosync_cluster[2]) as other:
            two = other.address
            both = await next_view(views, one, two)
            assert both == View(first.ring_id, (one, two), first.nodes, primary=True, together=frozenset({one}))
            second = View(first.ring_id, (one, two), first.nodes, primary=True, together=frozenset())
            assert await other.receive() == second
            message = await other.send_and_wait(b"in ", b"the ring")
            assert await views.receive() == await other.receive() == message

            await corosync_cluster[3].kill()
            without = await next_view(views, one, two, nodes={1, 2})
            assert without.ring_id != first.ring_id
            assert without.primary is True
            assert without.together == {one, two}
            assert await next_view(other, one, two, nodes={1, 2}) == without

        left = await next_view(views, one)
        assert (left.ring_id, left.nodes, left.together) == (without.ring_id, {1, 2}, {one})
        views.send_nowait(b"1")
        await views.send_batch([b"2", b"3"])
        await views.send(b"4")
        events = await until(views, is_message(b"4"))
        assert [event.payload for event in events if isinstance(event, Message)] == [b"1", b"2", b"3", b"4"]
        assert views.statistics().confirmed == 4


async def test_members_of_a_raw_group_are_members_too(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_group("g", endpoint=corosync_cluster[2]) as group,
        triocoro.open_views("g", endpoint=corosync_cluster[1]) as views,
    ):
        await next_view(views, views.address, group.address)
        await group.send(b"raw")
        assert is_message(b"raw")(await views.receive())


async def test_a_minority_and_its_return(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_views("g", endpoint=corosync_cluster[1]) as views,
        triocoro.open_views("g", endpoint=corosync_cluster[3]) as other,
    ):
        one, three = views.address, other.address
        await next_view(views, one, three)
        await next_view(other, one, three)
        await corosync_cluster.partition({1, 2}, {3})
        assert (await next_view(views, one, nodes={1, 2})).primary is True
        assert (await next_view(other, three, nodes={3})).primary is False
        await corosync_cluster.heal()
        for stream, own in ((views, one), (other, three)):
            met = await next_view(stream, one, three, nodes={1, 2, 3})
            assert met.primary is True
            assert met.together == {own}


async def test_a_node_that_goes_from_ring_to_ring(corosync_cluster: Cluster) -> None:
    """Node 2 leaves one side and joins another; there may be a ring of its own in between."""
    async with (
        triocoro.open_views("g", endpoint=corosync_cluster[1]) as first,
        triocoro.open_views("g", endpoint=corosync_cluster[2]) as views,
        triocoro.open_views("g", endpoint=corosync_cluster[3]) as third,
    ):
        one, two, three = first.address, views.address, third.address
        for stream in (first, views, third):
            await next_view(stream, one, two, three)
        await corosync_cluster.partition({1}, {2, 3})
        assert three in (await next_view(views, two, three, nodes={2, 3})).together
        await corosync_cluster.partition({1, 2}, {3})
        met = await next_view(views, one, two, nodes={1, 2})
        assert met.together == {two}
        await corosync_cluster.heal()
        assert one in (await next_view(first, one, two, three, nodes={1, 2, 3})).together
        met = await next_view(third, one, two, three, nodes={1, 2, 3})
        assert met.together == {three}


def ring_of(views: Views) -> bytes:
    """The ring of a member, as the beginning of a message."""
    assert views.view is not None
    return b"%d %d " % (views.view.ring_id.seq, views.view.ring_id.nodeid)


async def keep_sending(views: Views, numbers: Iterator[int]) -> None:
    """Send messages that say in which ring that is."""
    while True:
        await views.send_and_wait(b"%s%d" % (ring_of(views), next(numbers)))


def all_receive_in(
    sides: Collection[frozenset[int]], all_views: Sequence[Views], received: Mapping[Address, set[Message]]
) -> bool:
    """Whether each member is in a ring of one of these sides, and has got a message in it."""
    return all(
        views.view is not None
        and views.view.nodes in sides
        and any(event.payload.startswith(ring_of(views)) for event in received.get(views.address, ()))
        for views in all_views
    )


async def test_what_comes_in_the_ring_in_which_it_was_sent_has_come_back_in_it(corosync_cluster: Cluster) -> None:
    """Recipes rely on it: a member that has not read its message when a ring begins knows that no member has."""
    numbers = count()
    received: dict[Address, set[Message]] = {}  # what each member got in the ring in which it was sent

    async def receive(views: Views) -> None:
        its = received[views.address] = set()
        async for event in views:
            if isinstance(event, Message) and event.payload.startswith(ring_of(views)):
                its.add(event)

    async with AsyncExitStack() as stack:
        nodes = [corosync_cluster[nodeid] for nodeid in (1, 2, 3)]
        all_views = [await stack.enter_async_context(triocoro.open_views("g", endpoint=node)) for node in nodes]
        for views in all_views:
            await next_view(views, *(it.address for it in all_views))
        async with trio.open_nursery() as nursery:
            for views in all_views:
                nursery.start_soon(receive, views)
                for _ in range(5):
                    nursery.start_soon(keep_sending, views, numbers)
            for cut in ("123",), ("1", "23"), ("12", "3"), ("123",):
                sides = [frozenset(map(int, side)) for side in cut]
                await corosync_cluster.partition(*sides)
                await poll(partial(all_receive_in, sides, all_views, received))
            nursery.cancel_scope.cancel()
        last = ring_of(all_views[0])
    for its in received.values():
        assert all(event in received[event.sender] for event in its if not event.payload.startswith(last))


async def test_a_thawed_node_sees_that_the_others_were_away(corosync_cluster: Cluster) -> None:
    """It may learn of that in one ring: with the same members as before, even with the same pids."""
    async with (
        triocoro.open_views("g", endpoint=corosync_cluster[1]) as views,
        triocoro.open_views("g", endpoint=corosync_cluster[3]) as other,
    ):
        one, three = views.address, other.address
        before = await next_view(other, one, three)
        await corosync_cluster[3].freeze()
        await next_view(views, one, nodes={1, 2})
        await corosync_cluster[3].thaw()
        for stream, own in ((views, one), (other, three)):
            after = await next_view(stream, one, three, nodes={1, 2, 3})
            assert (after.members, after.nodes) == (before.members, before.nodes)
            assert after.ring_id != before.ring_id
            assert after.together == {own}


async def test_a_node_that_restarts_was_away(corosync_cluster: Cluster) -> None:
    """Its daemon is back before the token timeout, and its application has the pid that it had."""
    async with triocoro.open_views("g", endpoint=corosync_cluster[1]) as views:
        one, two = views.address, Address(2, corosync_cluster[2].endpoint.pid)
        with pytest.raises(ConnectionLostError):
            async with triocoro.open_views("g", endpoint=corosync_cluster[2]):
                await next_view(views, one, two)
                with trio.CancelScope(shield=True):
                    await corosync_cluster[2].kill()
                    await corosync_cluster[2].start()
                await trio.sleep_forever()
        async with triocoro.open_views("g", endpoint=corosync_cluster[2]) as other:
            assert other.address == two
            await next_view(other, one, two)
            await other.send(b"back")
            events = await until(views, is_message(b"back"))
        changes = [event for event in events if isinstance(event, View)]
        assert changes[-1].members == (one, two)
        assert any(two not in change.together for change in changes)
        assert all(one in change.together for change in changes)


# -- the order of news -------------------------------------------------------------------------------------------------


async def test_messages_that_come_before_the_news_of_quorum_wait(corosync_cluster: Cluster) -> None:
    endpoint = LateEndpoint(corosync_cluster[1].endpoint)
    news = endpoint.news["quorum"]
    async with (
        triocoro.open_votequorum(endpoint=corosync_cluster[2]) as votequorum,
        triocoro.open_views("g", endpoint=endpoint) as views,
    ):
        before = await next_view(views, views.address)
        await votequorum.set_expected(5)
        news.held = True
        await corosync_cluster[3].kill()
        await poll(lambda: any(isinstance(event, QuorumChange) for event in news.waiting))
        await views.send_and_wait(b"in the new ring")
        assert views.statistics().stream.buffered_events == 0
        with trio.move_on_after(0.01) as scope:
            await views.receive()
        assert scope.cancelled_caught
        assert views.view is before
        # Quorum changes within the ring, and so all its news come.
        news.held = False
        await votequorum.set_expected(2)
        after = await next_view(views, views.address, nodes={1, 2})
        assert after.primary is False
        assert is_message(b"in the new ring")(await views.receive())
        assert await views.receive() == PrimaryChange(after.ring_id, primary=True)


async def test_news_of_quorum_may_come_first(corosync_cluster: Cluster) -> None:
    endpoint = LateEndpoint(corosync_cluster[1].endpoint)
    news = endpoint.news["cpg"]
    async with triocoro.open_views("g", endpoint=endpoint) as views:
        await next_view(views, views.address)
        news.held = True
        await corosync_cluster[3].kill()
        await poll(lambda: any(isinstance(event, TotemChange) for event in news.waiting))
        await corosync_cluster.settled()
        await views.send(b"in the new ring")
        assert views.statistics().stream.buffered_events == 0
        await poll(lambda: any(isinstance(event, Message) for event in news.waiting))
        news.held = False
        await views.send(b"later")
        await next_view(views, views.address, nodes={1, 2})
        assert is_message(b"in the new ring")(await views.receive())
        assert is_message(b"later")(await views.receive())


async def test_a_ring_without_news_of_quorum_has_no_view(corosync_cluster: Cluster) -> None:
    """Its messages come after the next view."""
    endpoint = LateEndpoint(corosync_cluster[1].endpoint)
    async with (
        triocoro.open_views("g", endpoint=endpoint) as views,
        triocoro.open_group("watching", totem_changes=True, endpoint=corosync_cluster[1]) as watcher,
    ):
        await next_view(views, views.address)
        endpoint.news["quorum"].drop = lambda event: isinstance(event, QuorumChange) and 3 not in event.members
        await corosync_cluster[3].kill()
        await until(watcher, lambda event: isinstance(event, TotemChange) and event.members == (1, 2))
        await views.send_and_wait(b"in the ring that is skipped")
        await corosync_cluster[3].start()
        event = await views.receive()
        assert a_view(views.address, nodes={1, 2, 3})(event)
        assert is_message(b"in the ring that is skipped")(await views.receive())


async def test_quorum_changes_within_a_ring(corosync_cluster: Cluster) -> None:
    async with (
        triocoro.open_votequorum(endpoint=corosync_cluster[2]) as votequorum,
        triocoro.open_views("g", endpoint=corosync_cluster[1]) as views,
    ):
        await votequorum.set_expected(5)
        await corosync_cluster[3].kill()
        view = await next_view(views, views.address, nodes={1, 2})
        assert view.primary is False
        await votequorum.set_expected(2)
        assert await views.receive() == PrimaryChange(view.ring_id, primary=True)
        async with triocoro.open_group("g", endpoint=corosync_cluster[2]) as group:
            assert a_view(views.address, group.address, primary=True)(await views.receive())


# -- the ends ----------------------------------------------------------------------------------------------------------


async def test_without_a_quorum_provider_there_are_no_views(corosync: Node) -> None:
    endpoint = LateEndpoint(corosync.endpoint, QuorumType.FREE)
    with pytest.raises(NotSupportedError, match=r"has no quorum provider.*provider: corosync_votequorum"):
        async with triocoro.open_views("g", endpoint=endpoint):
            raise AssertionError("there is no quorum")
    async with triocoro.open_cpg() as cpg:
        assert await cpg.members("g") == ()


@pytest.mark.usefixtures("corosync")
async def test_bad_arguments() -> None:
    for name in ("", "x" * 128):
        with pytest.raises(ValueError, match="name"):
            await triocoro.open_views(name).__aenter__()
    with pytest.raises(ValueError, match="max_buffered_bytes"):
        await triocoro.open_views("g", max_buffered_bytes=0).__aenter__()


async def test_views_in_sessions(corosync: Node) -> None:
    """Each session begins with a view, in which no member was together with us."""
    async for session in triocoro.sessions(triocoro.open_views, "g", endpoint=corosync):
        async with session as views:
            view = await views.receive()
            assert isinstance(view, View)
            assert (view.members, view.together) == ((views.address,), frozenset())
            if session.epoch == 3:
                break
            if session.epoch == 2:
                await corosync.freeze()
                await views.send(b"not confirmed")
            await corosync.kill()
            await trio.sleep_forever()
        assert isinstance(session.lost, ConnectionLostError)
        assert session.lost.unconfirmed == session.epoch - 1
        await corosync.start()


def broken(*_: object) -> None:
    raise LibraryError("it was cut off")


async def test_the_loss_of_either_connection_ends_the_block(corosync: Node) -> None:
    for service in ("cpg", "quorum"):
        endpoint = LateEndpoint(corosync.endpoint)
        with pytest.raises(ConnectionLostError) as caught:
            async with triocoro.open_views("g", endpoint=endpoint) as views:
                endpoint.news["cpg"].held = True
                await views.send(b"not confirmed")
                endpoint.raw[service].dispatch = broken
                await views.send(b"nor this")
                with suppress(ExistError):
                    await endpoint.raw["quorum"].trackstart(Track.CHANGES)  # which tells the present state again
                await trio.sleep_forever()
        assert caught.value.unconfirmed == 2


async def test_closed_views(corosync: Node) -> None:
    async with triocoro.open_views("g", endpoint=corosync) as views:
        await views.receive()
        await views.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await views.receive()
        with pytest.raises(trio.ClosedResourceError):
            await views.send(b"")


async def test_a_task_that_receives_while_the_block_leaves(corosync: Node) -> None:
    """It may see a view without us, if it comes to that before the end."""
    events: list[ViewEvent] = []

    async def receive(views: Views) -> None:
        with pytest.raises(trio.ClosedResourceError):
            async for event in views:
                events.append(event)  # noqa: PERF401 - it ends with an error

    async with trio.open_nursery() as nursery:
        async with triocoro.open_views("g", endpoint=corosync) as views:
            nursery.start_soon(receive, views)  # noqa: ASYNC111 - it gets an error
            await views.send_and_wait(b"x")
        await wait_all_tasks_blocked()
    first, message, *last = events
    assert isinstance(first, View)
    assert is_message(b"x")(message)
    assert last in ([], [View(first.ring_id, (), first.nodes, first.primary, frozenset())])


async def test_a_cancelled_entry_leaves_no_member(corosync: Node) -> None:
    await corosync.freeze()
    with trio.move_on_after(0.01) as scope:
        async with triocoro.open_views("g", endpoint=corosync):
            raise AssertionError("the daemon is frozen")
    assert scope.cancelled_caught
    await corosync.thaw()
    async with triocoro.open_views("g", endpoint=corosync) as views:
        assert a_view(views.address)(await views.receive())


async def test_events_that_wait_for_their_view_are_bounded(corosync_cluster: Cluster) -> None:
    endpoint = LateEndpoint(corosync_cluster[1].endpoint)
    with pytest.raises(SlowConsumerError, match="max_buffered_bytes=2000"):
        async with triocoro.open_views("g", max_buffered_bytes=2000, endpoint=endpoint) as views:
            await views.receive()
            endpoint.news["quorum"].held = True
            async with triocoro.open_group("watching", totem_changes=True, endpoint=corosync_cluster[1]) as watcher:
                await corosync_cluster[3].kill()
                await until(watcher, lambda event: isinstance(event, TotemChange) and event.members == (1, 2))
            await views.send_and_wait(bytes(1000))
            assert views.statistics().stream.buffered_events == 0
            await views.send_and_wait(bytes(1000))
            await views.receive()


async def test_what_has_waited_for_its_view_counts_once(corosync_cluster: Cluster) -> None:
    endpoint = LateEndpoint(corosync_cluster[1].endpoint)
    news = endpoint.news["quorum"]
    async with (
        triocoro.open_votequorum(endpoint=corosync_cluster[2]) as votequorum,
        triocoro.open_views("g", max_buffered_bytes=2000, endpoint=endpoint) as views,
    ):
        await next_view(views, views.address)
        await votequorum.set_expected(5)
        news.held = True
        await corosync_cluster[3].kill()
        await poll(lambda: any(isinstance(event, QuorumChange) for event in news.waiting))
        await views.send_and_wait(bytes(1000))
        assert views.statistics().stream.buffered_events == 0
        news.held = False
        await votequorum.set_expected(2)
        await next_view(views, views.address, nodes={1, 2})
        assert is_message(bytes(1000))(await views.receive())


async def test_lost_messages_are_reported(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload == b"dropped"
    with pytest.raises(MessageLostError):
        async with triocoro.open_views("g", endpoint=endpoint) as views:
            await views.send(b"dropped")
            await views.send_and_wait(b"delivered")
