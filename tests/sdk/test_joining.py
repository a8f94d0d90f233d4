"""A group's events and the news of quorum, joined in every order in which they may be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TypeAlias

import pytest

from triocoro import (
    Address,
    ConfigChange,
    GroupEvent,
    MemberChange,
    Message,
    MessageLost,
    NodelistChange,
    PrimaryChange,
    QuorumChange,
    QuorumEvent,
    Reason,
    RingId,
    TotemChange,
    View,
    ViewEvent,
)
from triocoro._views import Joining

A, B, C = (Address(nodeid, 4711) for nodeid in (1, 2, 3))
M = [Message(A, b"%d" % number) for number in range(6)]
LOST = MessageLost(b"lost")


def ring(seq: int, nodeid: int = 1) -> RingId:
    return RingId(nodeid, seq)


def totem(seq: int, *nodes: int) -> TotemChange:
    return TotemChange(ring(seq), nodes)


def quorum(seq: int, *nodes: int, quorate: bool = True) -> QuorumChange:
    return QuorumChange(quorate=quorate, ring_id=ring(seq), members=nodes)


def change(
    *members: Address, joined: Sequence[Address] = (), left: Sequence[Address] = (), why: Reason
) -> ConfigChange:
    """A change for one reason; of nodes that left and joined at once, for the two reasons that nodes have."""
    return ConfigChange(
        members, tuple(MemberChange(it, why) for it in joined), tuple(MemberChange(it, why) for it in left)
    )


def view(seq: int, members: Sequence[Address], nodes: Sequence[int], *together: Address, primary: bool = True) -> View:
    return View(ring(seq), tuple(members), frozenset(nodes), primary, frozenset(together))


JOIN = change(A, B, joined=[A], why=Reason.JOIN)
B_DOWN = change(A, left=[B], why=Reason.NODEDOWN)
B_UP = change(A, B, joined=[B], why=Reason.NODEUP)

Reading: TypeAlias = "list[Sequence[GroupEvent] | QuorumEvent]"


def readings(group: Sequence[GroupEvent], news: Sequence[QuorumEvent]) -> Iterator[Reading]:
    """Every order in which the events of two connections may be read, each connection in its own order."""
    total = len(group) + len(news)
    for places in combinations(range(total), len(news)):
        events, changes = iter(group), iter(news)
        yield [next(changes) if index in places else [next(events)] for index in range(total)]


def joined(reading: Reading) -> list[ViewEvent]:
    joining = Joining()
    out: list[ViewEvent] = []
    for read in reading:
        out += joining.on_group(read) if isinstance(read, Sequence) else joining.on_quorum([read])
    assert (joining.held == 0) == (joining.held_bytes == 0)
    return out


FIRST = view(4, [A, B], [1, 2])

STORIES: dict[str, tuple[list[GroupEvent], list[QuorumEvent], list[ViewEvent]]] = {
    "the join": ([JOIN, totem(4, 1, 2), M[0]], [quorum(4, 1, 2)], [FIRST, M[0]]),
    "the ring before the join": ([totem(4, 1, 2), JOIN, M[0]], [quorum(4, 1, 2)], [FIRST, M[0]]),
    "no quorum": ([JOIN, totem(4, 1, 2)], [quorum(4, 1, 2, quorate=False)], [view(4, [A, B], [1, 2], primary=False)]),
    "nodes in another order": ([JOIN, totem(4, 1, 2)], [quorum(4, 2, 1)], [FIRST]),
    "node lists are no decisions": (
        [JOIN, totem(4, 1, 2), M[0]],
        [NodelistChange(ring(4), (1, 2), (), ()), quorum(4, 1, 2)],
        [FIRST, M[0]],
    ),
    "quorum of an earlier ring": ([JOIN, totem(4, 1, 2), M[0]], [quorum(1, 1), quorum(4, 1, 2)], [FIRST, M[0]]),
    "a join and a leave within the ring": (
        [
            JOIN,
            totem(4, 1, 2),
            M[0],
            change(A, B, C, joined=[C], why=Reason.JOIN),
            M[1],
            change(A, B, left=[C], why=Reason.PROCDOWN),
            M[2],
            change(A, left=[B], why=Reason.LEAVE),
            LOST,
        ],
        [quorum(4, 1, 2)],
        [
            FIRST,
            M[0],
            view(4, [A, B, C], [1, 2], A, B),
            M[1],
            view(4, [A, B], [1, 2], A, B),
            M[2],
            view(4, [A], [1, 2], A),
            LOST,
        ],
    ),
    "a member that has joined comes along from then on": (
        [
            JOIN,
            totem(4, 1, 2),
            change(A, B, C, joined=[C], why=Reason.JOIN),
            change(A, C, left=[B], why=Reason.LEAVE),
        ],
        [quorum(4, 1, 2)],
        [FIRST, view(4, [A, B, C], [1, 2], A, B), view(4, [A, C], [1, 2], A, C)],
    ),
    "our own leave": (
        [
            JOIN,
            totem(4, 1, 2),
            change(A, left=[B], why=Reason.LEAVE),
            M[0],
            LOST,
            change(left=[A], why=Reason.LEAVE),
        ],
        [quorum(4, 1, 2)],
        [FIRST, view(4, [A], [1, 2], A), M[0], LOST, view(4, [], [1, 2])],
    ),
    "a node goes and returns": (
        [JOIN, totem(4, 1, 2), M[0], B_DOWN, totem(8, 1), M[1], B_UP, totem(12, 1, 2), M[2]],
        [quorum(4, 1, 2), quorum(8, 1, quorate=False), quorum(12, 1, 2)],
        [FIRST, M[0], view(8, [A], [1], A, primary=False), M[1], view(12, [A, B], [1, 2], A), M[2]],
    ),
    "a thaw: one ring, the same members": (
        [JOIN, totem(4, 1, 2), M[0], B_DOWN, B_UP, totem(8, 1, 2), M[1]],
        [quorum(4, 1, 2), quorum(8, 1, 2)],
        [FIRST, M[0], view(8, [A, B], [1, 2], A), M[1]],
    ),
    "a restart within the token timeout": (
        [JOIN, totem(4, 1, 2), B_DOWN, totem(9, 1, 2), M[0], change(A, B, joined=[B], why=Reason.JOIN), M[1]],
        [quorum(4, 1, 2), quorum(9, 1, 2)],
        [FIRST, view(9, [A], [1, 2], A), M[0], view(9, [A, B], [1, 2], A), M[1]],
    ),
    "the same nodes form a new ring": (
        [JOIN, totem(4, 1, 2), M[0], totem(8, 1, 2), M[1]],
        [quorum(4, 1, 2), quorum(8, 1, 2)],
        [FIRST, M[0], view(8, [A, B], [1, 2], A, B), M[1]],
    ),
    "a ring is skipped": (
        [JOIN, totem(4, 1, 2), M[0], B_DOWN, totem(8, 1), M[1], LOST, B_UP, totem(12, 1, 2), M[2]],
        [quorum(4, 1, 2), quorum(12, 1, 2)],
        [FIRST, M[0], view(12, [A, B], [1, 2], A), M[1], LOST, M[2]],
    ),
    "two rings are skipped, and members change in one": (
        [
            JOIN,
            totem(4, 1, 2),
            B_DOWN,
            totem(8, 1),
            M[0],
            change(A, C, joined=[C], why=Reason.JOIN),
            M[1],
            totem(12, 1),
            M[2],
            totem(16, 1),
            M[3],
        ],
        [quorum(4, 1, 2), quorum(16, 1)],
        [FIRST, view(16, [A, C], [1], A), *M[:4]],
    ),
    "the ring of the join is skipped": (
        [JOIN, totem(4, 1, 2), M[0], totem(8, 1, 2), M[1]],
        [quorum(8, 1, 2)],
        [view(8, [A, B], [1, 2]), M[0], M[1]],
    ),
    "a join in a transition: the ring with the old nodes comes first": (
        [change(A, joined=[A], why=Reason.JOIN), totem(8, 1), M[0], B_UP, totem(8, 1, 2), M[1]],
        [quorum(4, 1), quorum(8, 1, 2)],
        [view(8, [A, B], [1, 2]), M[0], M[1]],
    ),
    "a later ring may have a lower node": (
        [JOIN, TotemChange(ring(4, 2), (1, 2)), M[0], TotemChange(ring(8, 2), (1, 2)), M[1], totem(12, 1, 2), M[2]],
        [QuorumChange(quorate=True, ring_id=ring(4, 2), members=(1, 2)), quorum(12, 1, 2)],
        [
            View(ring(4, 2), (A, B), frozenset({1, 2}), primary=True, together=frozenset()),
            M[0],
            view(12, [A, B], [1, 2], A, B),
            *M[1:3],
        ],
    ),
    "a ring comes with other nodes, and again with its own": (
        [JOIN, totem(4, 1, 2), M[0], totem(4, 1), M[1], totem(4, 1, 2), M[2]],
        [quorum(4, 1, 2)],
        [FIRST, M[0], view(4, [A, B], [1, 2], A, B), M[1], M[2]],
    ),
    "a ring comes twice": (
        [JOIN, totem(4, 1, 2), totem(4, 1, 2), M[0]],
        [quorum(4, 1, 2)],
        [FIRST, M[0]],
    ),
    "a ring comes twice, with other members": (
        [change(A, joined=[A], why=Reason.JOIN), totem(4, 1, 2), M[0], B_UP, totem(4, 1, 2), M[1]],
        [quorum(4, 1, 2)],
        [view(4, [A], [1, 2]), M[0], view(4, [A, B], [1, 2], A), M[1]],
    ),
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_each_order_of_news_makes_the_same_views(
    story: tuple[list[GroupEvent], list[QuorumEvent], list[ViewEvent]],
) -> None:
    group, news, expected = story
    for reading in readings(group, news):
        assert joined(reading) == expected, reading


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_so_do_batches(story: tuple[list[GroupEvent], list[QuorumEvent], list[ViewEvent]]) -> None:
    group, news, expected = story
    assert joined([group, *news]) == expected
    assert joined([*news, group]) == expected


def test_nothing_passes_before_the_quorum_of_its_ring() -> None:
    """However much is read of the group; what is held back is counted."""
    joining = Joining()
    assert joining.on_quorum([quorum(4, 1, 2)]) == []
    assert joining.on_group([JOIN, totem(4, 1, 2)]) == [FIRST]
    assert (joining.held, joining.held_bytes) == (0, 0)
    assert joining.on_group([B_DOWN, totem(8, 1), M[0], LOST]) == []
    assert (joining.held, joining.held_bytes) == (2, 2 * 256 + 1 + 4)
    assert joining.on_group([totem(12, 1)]) == []
    assert joining.on_quorum([quorum(12, 1)]) == [view(12, [A], [1], A), M[0], LOST]
    assert (joining.held, joining.held_bytes) == (0, 0)


def test_messages_of_a_settled_ring_pass_as_they_are() -> None:
    joining = Joining()
    joining.on_quorum([quorum(4, 1, 2)])
    joining.on_group([JOIN, totem(4, 1, 2)])
    assert joining.on_group(M) is M


def test_earlier_rings_are_forgotten() -> None:
    joining = Joining()
    joining.on_group([JOIN])
    for seq in range(4, 400, 4):
        joining.on_quorum([quorum(seq, 1, 2)])
        joining.on_group([totem(seq, 1, 2)])
        assert len(joining._decisions) == 1


def test_quorum_that_changes_within_a_ring() -> None:
    """It is in the view if it was known by then, and else it follows, once for each change."""
    group: list[GroupEvent] = [JOIN, totem(4, 1, 2), M[0], B_DOWN, totem(8, 1), M[1]]
    news = [quorum(4, 1, 2), quorum(8, 1), quorum(8, 1, quorate=False), quorum(8, 1, quorate=False)]
    outcomes: set[tuple[ViewEvent, ...]] = set()
    for reading in readings(group, news):
        out = joined(reading)
        assert [event for event in out if isinstance(event, Message)] == M[:2]
        outcomes.add(tuple(event for event in out if not isinstance(event, Message)))
    assert outcomes == {
        (FIRST, view(8, [A], [1], A), PrimaryChange(ring(8), primary=False)),
        (FIRST, view(8, [A], [1], A, primary=False)),
    }


def test_quorum_may_change_while_the_next_ring_is_undecided() -> None:
    joining = Joining()
    assert joining.on_group([JOIN, totem(4, 1, 2), B_DOWN, totem(8, 1), M[0]]) == []
    assert joining.on_quorum([quorum(4, 1, 2)]) == [FIRST]
    assert joining.on_quorum([quorum(4, 1, 2, quorate=False)]) == [PrimaryChange(ring(4), primary=False)]
    assert joining.on_quorum([quorum(8, 1)]) == [view(8, [A], [1], A), M[0]]
    assert joining.on_quorum([quorum(4, 1, 2)]) == []


def test_a_view_within_a_ring_has_the_latest_quorum() -> None:
    joining = Joining()
    joining.on_quorum([quorum(4, 1, 2)])
    joining.on_group([JOIN, totem(4, 1, 2)])
    joining.on_quorum([quorum(4, 1, 2, quorate=False)])
    out = joining.on_group([change(A, B, C, joined=[C], why=Reason.JOIN)])
    assert out == [view(4, [A, B, C], [1, 2], A, B, primary=False)]


def test_quorum_that_changes_before_the_first_view_is_in_it() -> None:
    joining = Joining()
    joining.on_group([totem(4, 1, 2)])
    assert joining.on_quorum([quorum(4, 1, 2), quorum(4, 1, 2, quorate=False)]) == []
    assert joining.on_group([JOIN]) == [view(4, [A, B], [1, 2], primary=False)]
