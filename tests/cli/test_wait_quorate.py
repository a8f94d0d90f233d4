"""`triocoro wait-quorate`."""

from __future__ import annotations

import pytest
import trio
from support.commands import Result, invoke, run_inside

from triocoro.testing import Cluster


@pytest.mark.corosync(nodes=1)
@pytest.mark.usefixtures("corosync")
async def test_a_quorate_partition_ends_it_at_once() -> None:
    assert await invoke("wait-quorate", "--timeout=60") == Result(0, "quorate\n", "")
    done = await invoke("wait-quorate", "--json")
    assert done.envelopes == [
        {"schema": "triocoro.wait-quorate", "version": 1, "result": {"quorate": True, "members": [1]}}
    ]


async def test_it_waits_for_the_daemon_and_for_the_quorum(corosync_cluster: Cluster) -> None:
    first, second = list(corosync_cluster.nodes)[:2]
    others = [nodeid for nodeid in corosync_cluster.nodes if nodeid != first]
    for nodeid in others:
        await corosync_cluster[nodeid].stop()
    with corosync_cluster[first].as_default():
        done = await invoke("wait-quorate", "--timeout=0.5")
        assert done == Result(1, f"not quorate after 0.5 s: nodes {first} are together, which is too few\n", "")
        await corosync_cluster[first].stop()
        done = await invoke("wait-quorate", "--timeout=0.2", "--json")
        assert (done.status, done.result) == (1, {"quorate": False, "members": None})
        assert await invoke("wait-quorate", "--timeout=0.2") == Result(
            1, "not quorate after 0.2 s: no daemon answers\n", ""
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(corosync_cluster[first].start)
            nursery.start_soon(corosync_cluster[second].start)
            done = await invoke("wait-quorate")
            assert (done.status, done.stdout) == (0, "quorate\n")


@pytest.mark.corosync_real_only(reason="a process of its own needs a real node")
async def test_as_a_process(corosync_cluster: Cluster) -> None:
    done = await run_inside(next(iter(corosync_cluster.nodes.values())), "wait-quorate", "--timeout=60")
    assert done == Result(0, "quorate\n", "")
