"""Views under faults by chance: what all members see of a ring, and what each sees of its own."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
import trio
from support.random_faults import faults

import triocoro
from triocoro import Address, Message, PrimaryChange, RingId, View, ViewEvent
from triocoro.testing import FakeCluster, History, Node

Lives = list[tuple[Address, list[ViewEvent]]]
"""For each membership, its address and what it received."""

SEEDS = 12

pytestmark = pytest.mark.corosync_fake_only(reason="real nodes cannot repeat a seed")


async def live(node: Node, lives: Lives) -> None:
    """Be a member again and again, and say in each view which one it is."""
    async for session in triocoro.sessions(triocoro.open_views, "g", endpoint=node):
        async with session as views:
            events: list[ViewEvent] = []
            lives.append((views.address, events))
            async for event in views:
                events.append(event)
                if isinstance(event, View):
                    await views.send(str(event.ring_id).encode())


def check_life(address: Address, events: list[ViewEvent]) -> None:
    if not events:
        return
    assert isinstance(events[0], View)
    assert events[0].together == frozenset()
    views = [event for event in events if isinstance(event, View)]
    for before, after in pairwise(views):
        assert before.ring_id.seq <= after.ring_id.seq
        assert after.together <= {*before.members} & {*after.members}
        assert address in after.together
        if before.ring_id == after.ring_id:
            assert before.nodes == after.nodes
            assert before.members != after.members
    view = views[0]
    primary = view.primary
    for event in events[1:]:
        if isinstance(event, View):
            assert event.ring_id != view.ring_id or event.primary is primary
            view, primary = event, event.primary
        elif isinstance(event, PrimaryChange):
            assert (event.ring_id, event.primary) == (view.ring_id, not primary)
            primary = event.primary


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_views_agree(
    seed: int,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001 - using the fixture installs the clock
) -> None:
    lives: Lives = []
    async with (
        FakeCluster(nodes=3, latency=0.004, jitter=0.004, seed=seed) as cluster,
        trio.open_nursery() as nursery,
    ):
        for node in cluster.nodes.values():
            nursery.start_soon(live, node, lives)
        await faults(cluster, History(), random.Random(seed), 3)
        await trio.sleep(3)  # sessions try again within a second
        nursery.cancel_scope.cancel()
    rings: dict[RingId, frozenset[int]] = {}
    for address, events in lives:
        check_life(address, events)
        for event in events:
            if isinstance(event, View):
                assert rings.setdefault(event.ring_id, event.nodes) == event.nodes
    assert len(rings) > 3
    last = {address: [event for event in events if isinstance(event, View)][-1] for address, events in lives if events}
    assert {(view.ring_id, view.members, view.primary) for view in last.values()} == {
        (view.ring_id, tuple(sorted(last)), True) for view in last.values()
    }
    assert any(isinstance(event, Message) for _, events in lives for event in events)
