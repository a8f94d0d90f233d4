"""What a loan of a cluster explains: violations, logs, and the state of the cluster itself."""

from __future__ import annotations

import time

import pytest

import triocoro
from triocoro import Message
from triocoro._types import Address
from triocoro.testing import Cluster, ClusterLoan, Delivery, FakeCluster, History
from triocoro.testing._timeline.logs import notable, ring_in_log, timed
from triocoro.testing._timeline.story import NodeState

BOOT = """\
Nov 27 22:50:19.210 notice  [MAIN  ] Corosync Cluster Engine 3.1.7 starting up
Nov 27 22:50:19.210 warning [MAIN  ] Could not increase RLIMIT_MEMLOCK, not locking memory: Operation not permitted (1)
Nov 27 22:50:19.622 warning [WD    ] Watchdog not enabled by configuration
Nov 27 22:50:19.642 warning [KNET  ] host: host: 1 has no active links
Nov 27 22:50:19.642 notice  [TOTEM ] A new membership (2.5) was formed. Members joined: 2
Nov 27 22:50:19.642 warning [QB    ] Denied connection, is not ready (/dev/shm/qb-11-0-31-DKenOu/qb)
Nov 27 22:50:19.642 notice  [QUORUM] Members[1]: 2
Nov 27 22:50:20.102 notice  [QUORUM] This node is within the primary component and will provide service.
Nov 27 22:50:20.110 notice  [QUORUM] Members[3]: 1 2 3
"""
SCHEDULED = "Corosync main process was not scheduled (@1795819824930) for 2016.2676 ms (threshold is 400.0000 ms)."
ASSERTION = "corosync: totemsrp.c:4242: message_handler_orf_token: Assertion `range < 512' failed."


def test_what_is_notable_of_a_log() -> None:
    assert list(notable(timed(BOOT), died=False)) == []
    log = f"{BOOT}Nov 27 22:50:24.930 warning [MAIN  ] {SCHEDULED}\n{ASSERTION}\n"
    texts = [text for _, text in notable(timed(log), died=False)]
    assert texts == [f"[MAIN] {SCHEDULED}", ASSERTION]
    last = [text for _, text in notable(timed(BOOT), died=True)]
    assert last[-1] == "[QUORUM] Members[3]: 1 2 3"
    assert len(last) == 3


def test_times_of_a_log() -> None:
    now = time.time()
    line = time.strftime("%b %d %H:%M:%S", time.localtime(now - 100)) + ".250 warning [MAIN  ] late"
    ((at, _),) = timed(line)
    assert at is not None
    assert time.monotonic() - 100.75 - at < 2
    # A log does not say the year: this one is of the year before.
    ((at, _),) = timed(time.strftime("%b %d", time.localtime(now + 10 * 86400)) + " 12:00:00.000 warning [MAIN  ] x")
    assert at is not None
    assert at < time.monotonic() - 300 * 86400
    assert list(timed("Foo 99 12:00:00.000 warning [MAIN  ] x")) == [(None, "Foo 99 12:00:00.000 warning [MAIN  ] x")]


def test_the_ring_that_a_log_ends_with() -> None:
    assert ring_in_log("", NodeState()) == NodeState()
    assert ring_in_log(BOOT, NodeState()) == NodeState(members=(1, 2, 3), quorate=True)
    cut = BOOT + "x [QUORUM] This node is within the non-primary component and\nx [QUORUM] Members[1]: 2\n"
    assert ring_in_log(cut, NodeState()) == NodeState(members=(2,), quorate=False)
    assert ring_in_log(cut + BOOT.splitlines()[0], NodeState()) == NodeState()


async def test_violations_are_explained(corosync_cluster: Cluster) -> None:
    history = History()
    corosync_cluster.record(history)
    async with triocoro.open_group("g") as group:
        await group.send_and_wait(b"hello")
        forged = Message(Address(2, 1), b"forged")
        for _ in range(5):
            history.append(Delivery(time=history.clock(), client="node 1", node=1, handle=1, event=forged))
    text = ClusterLoan(corosync_cluster).explain(failure="FAILS: x")
    lines = text.splitlines()
    assert lines[0] == "5 violations of the rules of Corosync (docs/histories.md):"
    assert lines[1].startswith("  integrity: ")
    assert "  ... 2 more" in lines
    assert "FAILS: x" in text
    corosync_cluster.record(None)


async def test_a_cluster_that_is_not_recorded(corosync_cluster: Cluster) -> None:
    """Its state is known all the same."""
    corosync_cluster.record(None)
    await corosync_cluster.isolate(1)
    await corosync_cluster[2].freeze()
    await corosync_cluster[3].kill()
    lines = ClusterLoan(corosync_cluster).explain().splitlines()
    assert "  network     CUT: 1 | 2, 3" in lines
    assert "  node 2      FROZEN" in lines
    assert "  node 3      DOWN" in lines
    assert corosync_cluster.running
    await corosync_cluster[2].thaw()


@pytest.mark.corosync_fake_only(reason="real logs are in tests/plugin/test_failing_reports.py")
async def test_the_log_of_a_fake_is_merged_in() -> None:
    async with FakeCluster(nodes=2) as cluster:
        cluster.record(History())
        async with triocoro.open_cfg(endpoint=cluster[1]) as cfg:
            await cfg.kill_node(2, reason="it is late")
        text = ClusterLoan(cluster).explain()
    assert "kill_node(2, 'it is late')" in text
    assert "[CFG] Killed by node 1 : it is late" in text
    assert "  node 2      DOWN" in text
    assert not cluster.running


def test_wrong_arguments(corosync_cluster: Cluster) -> None:
    loan = ClusterLoan(corosync_cluster)
    with pytest.raises(TypeError, match="failure must be"):
        loan.explain(failure=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be 10 to"):
        loan.explain(limit=1)
