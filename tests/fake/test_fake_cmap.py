"""cmap and cfg in tests that only the fake allows: exact times, dying clients, and large clusters."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from trio.testing import MockClock

import triocoro
from triocoro import BusyError, CmapMap, CmapType, LibraryError, NotExistError, ShutdownFlag
from triocoro._services import CFG
from triocoro.testing import FakeCluster
from triocoro.testing._fake.lib.cfg import FakeCfg

pytestmark = pytest.mark.corosync_fake_only(reason="it makes its own fakes, whose time is that of a clock which jumps")

_BOUND = 20
"""Seconds that no test comes near, unless something hangs."""


async def refusal_takes(cluster: FakeCluster, seconds: float) -> None:
    """Check how long a shutdown takes to be refused if no client replies."""
    endpoint = cluster[1].endpoint
    async with (
        triocoro.open_cfg(endpoint=endpoint) as cfg,
        triocoro.open_cfg(endpoint=endpoint) as other,
        other.track_shutdown(),
    ):
        start = trio.current_time()
        with pytest.raises(BusyError):
            await cfg.try_shutdown()
        assert trio.current_time() - start == pytest.approx(seconds, abs=1e-6)


async def test_how_long_answers_are_waited_for(autojump_clock: MockClock) -> None:  # noqa: ARG001 - it is in force
    async with FakeCluster(nodes=1) as cluster, triocoro.open_cmap(endpoint=cluster[1].endpoint) as cmap:
        await refusal_takes(cluster, 5)
        await cmap.set("cfg.shutdown_timeout", 60_000, CmapType.UINT32)
        await refusal_takes(cluster, 60)
        # A value of another type is ignored.
        await cmap.set("cfg.shutdown_timeout", 60_000, CmapType.INT32)
        await refusal_takes(cluster, 5)


async def test_when_statistics_are_looked_at(autojump_clock: MockClock) -> None:  # noqa: ARG001 - it is in force
    """Every 1.5 s, while a key is tracked."""
    async with FakeCluster(nodes=1) as cluster:
        endpoint = cluster[1].endpoint
        async with triocoro.open_cmap(CmapMap.STATS, endpoint=endpoint) as stats:
            for _ in range(2):
                start = trio.current_time()
                async with stats.track("stats.ipcs.global.closed") as changes:
                    for seconds in (1.5, 3):
                        async with triocoro.open_cpg(endpoint=endpoint):
                            pass
                        await changes.receive()
                        assert trio.current_time() - start == pytest.approx(seconds, abs=1e-6)
                    # A value that has been reported is not reported again.
                    await trio.sleep(15)
                    assert changes.statistics().buffered_events == 0


async def test_a_client_that_dies_ends_its_negotiation() -> None:
    with trio.fail_after(_BOUND):
        async with FakeCluster(nodes=1) as cluster:
            endpoint = cluster[1].endpoint
            dying = cast("FakeCfg", await endpoint.connect(CFG))
            async with triocoro.open_cfg(endpoint=endpoint) as cfg, triocoro.open_cfg(endpoint=endpoint) as tracker:
                async with tracker.track_shutdown() as requests, trio.open_nursery() as nursery:

                    async def ask() -> None:
                        with pytest.raises(LibraryError):
                            await dying.try_shutdown(ShutdownFlag.REQUEST)

                    nursery.start_soon(ask)
                    request = await requests.receive()
                    dying._connection.disconnect()
                    # This reply counts no more.
                    await request.reply(accept=True)
                    assert cluster[1].running
                await cfg.local_nodeid()
                async with tracker.track_shutdown() as requests, trio.open_nursery() as nursery:

                    async def refuse() -> None:
                        await (await requests.receive()).reply(accept=False)

                    nursery.start_soon(refuse)
                    with pytest.raises(BusyError):
                        await cfg.try_shutdown()
            dying.close()
            await dying.wait_closed()


async def test_more_nodes_than_a_digit_counts() -> None:
    """The node list is ordered by position, although the key of 10 sorts before that of 2."""
    async with FakeCluster(nodes=12) as cluster:
        for nodeid, node in cluster.nodes.items():
            async with triocoro.open_cmap(endpoint=node.endpoint) as cmap:
                assert await cmap.get("nodelist.local_node_pos") == nodeid - 1
                assert len(await cmap.items("runtime.members.")) == 4 * 12
        async with triocoro.open_cfg(endpoint=cluster[11].endpoint) as cfg:
            assert [ring.status for ring in await cfg.ring_status()] == ["3" * 10 + "n3"]
            await cluster.partition({11, 12}, set(range(1, 11)))
            assert [ring.status for ring in await cfg.ring_status()] == ["1" * 10 + "n3"]
            # A kill request goes through the ring.
            with pytest.raises(NotExistError):
                await cfg.kill_node(1)
            await cfg.kill_node(12)
        assert cluster[1].running
        assert not cluster[12].running


async def test_two_clusters_do_not_share_their_maps() -> None:
    async with FakeCluster(nodes=1) as one, FakeCluster(nodes=1) as two:
        async with triocoro.open_cmap(endpoint=one[1].endpoint) as cmap:
            await cmap.set("test.key", 1)
        async with triocoro.open_cmap(endpoint=two[1].endpoint) as cmap:
            assert await cmap.items("test.") == []
