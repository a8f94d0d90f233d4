"""examples/leader.py on clusters that break."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from leader import stand
from support.screens import Screen

from triocoro.recipes import Held
from triocoro.testing import Cluster

pytestmark = pytest.mark.deadline(60)


async def test_the_leader_steps_down_when_it_loses_quorum(corosync_cluster: Cluster) -> None:
    leading: list[int] = []
    tokens: list[object] = []
    most = 0
    screen = Screen()

    async def lead(nodeid: int, leader: Held) -> None:
        nonlocal most
        leader.check()
        leading.append(nodeid)
        tokens.append(leader.token)
        most = max(most, len(leading))
        screen.note()
        try:
            await trio.sleep_forever()
        finally:
            leading.remove(nodeid)
            screen.note()

    async with trio.open_nursery() as nursery:
        for nodeid, node in corosync_cluster.nodes.items():
            with node.as_default():
                nursery.start_soon(partial(stand, partial(lead, nodeid)))
        await screen.until(lambda: leading)
        first = leading[0]
        await corosync_cluster.isolate(first)
        await screen.until(lambda: leading and leading[0] != first)
        second = leading[0]
        await corosync_cluster[second].kill()
        await screen.until(lambda: not leading)  # the third node alone has no majority
        await corosync_cluster.heal()
        await screen.until(lambda: leading)
        assert leading != [second]
        nursery.cancel_scope.cancel()
    assert leading == []
    assert most == 1
    assert tokens == sorted(tokens)  # type: ignore[type-var]
    assert len(set(tokens)) == len(tokens) == 3


async def test_work_that_ends_gives_others_their_turn(corosync_cluster: Cluster) -> None:
    turns: list[int] = []
    screen = Screen()

    async def work(nodeid: int, leader: Held) -> None:
        leader.check()
        turns.append(nodeid)
        screen.note()

    async with trio.open_nursery() as nursery:
        for nodeid, node in corosync_cluster.nodes.items():
            with node.as_default():
                nursery.start_soon(partial(stand, partial(work, nodeid)))
        await screen.until(lambda: {*turns} == {*corosync_cluster.nodes})
        nursery.cancel_scope.cancel()
