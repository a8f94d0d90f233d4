"""examples/leader.py on clusters that break."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import pytest
import trio
from leader import Candidate, gives_up_after
from support.screens import Screen

from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


async def test_the_leader_steps_down_when_it_loses_quorum(corosync_cluster: Cluster, corosync_mode: str) -> None:
    leading: list[int] = []
    most = 0
    screen = Screen()

    async def lead(nodeid: int) -> NoReturn:
        nonlocal most
        leading.append(nodeid)
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
                nursery.start_soon(Candidate(partial(lead, nodeid), patience=0.1).run)
        await screen.until(lambda: leading == [1])
        await corosync_cluster.isolate(1)
        await screen.until(lambda: leading == [2])
        await corosync_cluster[2].kill()
        await screen.until(lambda: leading == [])  # node 3 alone has no quorum
        await corosync_cluster.heal()
        await screen.until(lambda: leading == [1])
        nursery.cancel_scope.cancel()
    assert leading == []
    # On real nodes it takes them some time to notice, and 0.1 s of patience is for a test only.
    assert most == 1 or corosync_mode == "real"


async def test_how_long_corosync_takes_to_give_up_a_node(corosync: Node) -> None:
    del corosync
    assert await gives_up_after() == pytest.approx(0.5 + 0.6)
