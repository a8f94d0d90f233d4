"""examples/party.py on clusters that break."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import pytest
import trio
from party import Party
from support.screens import Screen

from triocoro import Address
from triocoro.testing import Cluster, random_schedule

pytestmark = pytest.mark.deadline(60)


class Parties:
    """A member on each node, and whom each of them sees."""

    def __init__(self, cluster: Cluster, nursery: trio.Nursery) -> None:
        self._screen = Screen()
        self.seen: dict[int, list[str]] = {}
        for nodeid, node in cluster.nodes.items():
            with node.as_default():
                nursery.start_soon(Party({"name": f"member {nodeid}"}, partial(self._show, nodeid)).run)

    def _show(self, nodeid: int, members: Mapping[Address, dict[str, str]]) -> None:
        assert all(about["name"] == f"member {address.nodeid}" for address, about in members.items())
        self.seen[nodeid] = [about["name"] for about in members.values()]
        self._screen.note()

    async def meet(self, *sides: set[int]) -> None:
        """Wait until those of each side see each other, and no one else."""
        wanted = {nodeid: [f"member {it}" for it in sorted(side)] for side in sides for nodeid in side}
        await self._screen.until(lambda: {nodeid: self.seen.get(nodeid) for nodeid in wanted} == wanted)

    async def sees_no_one(self, nodeid: int) -> None:
        await self._screen.until(lambda: not self.seen[nodeid])


async def test_members_come_and_go(corosync_cluster: Cluster) -> None:
    async with trio.open_nursery() as nursery:
        parties = Parties(corosync_cluster, nursery)
        await parties.meet({1, 2, 3})
        await corosync_cluster.partition({1}, {2, 3})
        await parties.meet({1}, {2, 3})
        await corosync_cluster.heal()
        await parties.meet({1, 2, 3})
        await corosync_cluster[2].kill()
        await parties.meet({1, 3})
        await parties.sees_no_one(2)
        await corosync_cluster[2].start()
        await parties.meet({1, 2, 3})
        await corosync_cluster[3].freeze()
        await parties.meet({1, 2})
        await corosync_cluster[3].thaw()
        await parties.meet({1, 2, 3})
        nursery.cancel_scope.cancel()


@pytest.mark.corosync_seeds(20, latency=0.01, jitter=0.02)
async def test_faults_at_random_times(corosync_cluster: Cluster) -> None:
    async with trio.open_nursery() as nursery:
        parties = Parties(corosync_cluster, nursery)
        async with corosync_cluster.nemesis(random_schedule(seconds=10, steps=10, minority=False)) as over:
            await over.wait()
        await corosync_cluster.settled()
        await parties.meet({1, 2, 3})
        nursery.cancel_scope.cancel()
