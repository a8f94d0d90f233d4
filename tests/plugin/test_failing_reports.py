"""Ten deliberate failures: the report of each says what happened in the cluster."""

from __future__ import annotations

import signal

import pytest
from support.fixtures.inner_runs import Run

HEAD = """
import os
import pytest
import trio
import triocoro

pytestmark = pytest.mark.trio


class Member:
    '''A member of the group "store", which keeps what it receives.'''

    def __init__(self, node):
        self.node = node
        self.values = []
        self.nodes = set()

    async def run(self):
        try:
            async with triocoro.open_group("store", endpoint=self.node) as self.group:
                async for event in self.group:
                    if isinstance(event, triocoro.Message):
                        self.values.append(event.payload)
                    elif isinstance(event, triocoro.ConfigChange):
                        self.nodes = {member.nodeid for member in event.members}
        except triocoro.ConnectionLostError:
            self.nodes = set()


async def start(nursery, cluster):
    members = {}
    for nodeid, node in cluster.nodes.items():
        members[nodeid] = Member(node)
        nursery.start_soon(members[nodeid].run)
    while any(len(member.nodes) < len(members) for member in members.values()):
        await trio.sleep(0.01)
    return members


async def parted(member, number):
    while len(member.nodes) != number:
        await trio.sleep(0.01)
"""

ASSERTION_AFTER_A_PARTITION = """
async def test_all_members_stay(corosync_cluster, nursery):
    members = await start(nursery, corosync_cluster)
    await members[1].group.send(b"hello")
    await corosync_cluster.partition({1}, {2, 3})
    await parted(members[1], 1)
    await parted(members[2], 2)
    assert members[1].nodes == {1, 2, 3}
"""

LOST_WRITE = """
async def test_what_is_acknowledged_is_kept(corosync_cluster, nursery):
    history = corosync_cluster.history
    members = await start(nursery, corosync_cluster)
    await corosync_cluster.isolate(1)
    await parted(members[1], 1)
    with history.operation("put", "key=1", client="writer", node=1) as operation:
        # It takes its own delivery for a commit.
        operation.result = (await members[1].group.send_and_wait(b"key=1")).payload
    await corosync_cluster.heal()
    await parted(members[2], 3)
    with history.operation("get", "key", client="reader", node=2) as operation:
        operation.result = members[2].values[-1:] or None
    assert members[2].values == [b"key=1"]
"""

LEADER_TOO_MANY = """
def leaders(members):
    '''The lowest node of the group leads; that is wrong, as it asks for no quorum.'''
    return [nodeid for nodeid, member in members.items() if nodeid == min(member.nodes)]


async def test_one_leader(corosync_cluster, nursery):
    history = corosync_cluster.history
    members = await start(nursery, corosync_cluster)
    assert leaders(members) == [1]
    await corosync_cluster.partition({1, 2}, {3})
    await parted(members[3], 1)
    for nodeid in leaders(members):
        history.note(f"node {nodeid} leads", node=nodeid)
    assert len(leaders(members)) == 1
"""

HANG_ON_A_FROZEN_NODE = """
async def test_the_configuration_can_be_read(corosync_cluster):
    async with triocoro.open_cmap(endpoint=corosync_cluster[2]) as cmap:
        await corosync_cluster[2].freeze()
        await cmap.set("app.limit", 5)


async def test_the_next_one(corosync_cluster):
    async with triocoro.open_group("store") as group:
        await group.send_and_wait(b"unharmed")
"""

EXCEPTION_IN_A_NURSERY = """
async def handle(member):
    prices = {b"apple": 3}
    while True:
        while not member.values:
            await trio.sleep(0.01)
        prices[member.values.pop(0)]


async def test_orders_are_handled(corosync_cluster, nursery):
    members = await start(nursery, corosync_cluster)
    async with trio.open_nursery() as handlers:
        handlers.start_soon(handle, members[3])
        await members[1].group.send_and_wait(b"apple")
        await members[2].group.send_and_wait(b"pear")
        await trio.sleep(5)
"""

KILLED_AND_FORGOTTEN = """
async def test_all_answer(corosync_cluster, nursery):
    members = await start(nursery, corosync_cluster)
    await corosync_cluster[3].kill()
    await parted(members[1], 2)
    await members[1].group.send(b"who is there?")
    for nodeid, member in members.items():
        if member.nodes:
            await member.group.send_and_wait(b"node %d" % nodeid)
    while len(members[1].values) < 3:
        await trio.sleep(0.01)
    assert members[1].values == [b"who is there?", b"node 1", b"node 2", b"node 3"]
"""

SLOW_CONSUMER = """
async def test_a_flood(corosync_cluster):
    async with triocoro.open_group("store", max_buffered_bytes=2000, endpoint=corosync_cluster[2]) as slow:
        await slow.receive()
        async with triocoro.open_group("store", receive=False) as sender:
            for number in range(100):
                await sender.send(b"%d " % number * 100)
        await trio.sleep(0.5)
        async for event in slow:
            pass
"""

PARTITION_LEFT = """
async def test_quorum_is_back(corosync_cluster):
    async with triocoro.open_quorum() as quorum:
        await corosync_cluster.isolate(1)
        await corosync_cluster.settled()
        assert not await quorum.is_quorate()
        # The test forgets to heal.
        with trio.fail_after(1):
            await quorum.wait_quorate()
"""

FIXTURE_MISUSE = """
async def test_a_cluster_of_five(corosync_cluster):
    async with triocoro.open_group("store", endpoint=corosync_cluster[5]) as group:
        await group.send_and_wait(b"hello")


@pytest.mark.corosync(knots=5)
async def test_five_knots(corosync_cluster):
    pass
"""

CONTROL_C = f"""
async def test_waits_for_a_third_member(corosync_cluster, nursery):
    async def press():
        await trio.sleep(0.3)
        os.kill(os.getpid(), {int(signal.SIGINT)})

    await corosync_cluster[3].stop()
    member = Member(corosync_cluster[1])
    nursery.start_soon(press)
    nursery.start_soon(member.run)
    await parted(member, 3)
"""

CASES = {
    "assertion after a partition": (
        ASSERTION_AFTER_A_PARTITION,
        [
            "*- corosync -*",
            " *all nodes *ring of nodes 1-3, quorate; group store: 1-3*",
            " *node 1 *sends b'hello' to group store: received by 1, 2, 3",
            "! *cluster *the network is cut: 1 | 2, 3 (test_*.py:*)",
            "! *test *FAILS in line *: AssertionError: assert {1} == {1, 2, 3}",
            "at the failure:",
            " *network *CUT: 1 | 2, 3",
            " *node 1 *up, alone in its ring, NOT quorate; group store: 1",
            " *nodes 2, 3 *up, ring of nodes 2, 3, quorate; group store: 2, 3",
        ],
    ),
    "a lost write": (
        LOST_WRITE,
        [
            "! *node 1 *is cut off from all others (test_*.py:*)",
            " *node 1 *alone in its ring, NOT quorate; group store: 1 (nodes 2, 3 lost)",
            " *node 1 *sends b'key=1' to group store: received by 1",
            " *node 1 *writer *put('key=1') returns b'key=1'*",
            "! *cluster *the network is healed (test_*.py:*)",
            " *node 2 *reader *get('key') returns None*",
            "! *test *FAILS in line *: AssertionError: assert * == ?b'key=1'?",
        ],
    ),
    "a leader too many": (
        LEADER_TOO_MANY,
        [
            "! *cluster *the network is cut: 1, 2 | 3 (test_*.py:*)",
            " *node 1 *node 1 leads",
            " *node 3 *node 3 leads",
            "! *FAILS in line *: AssertionError: assert 2 == 1",
            " *network *CUT: 1, 2 | 3",
            " *node 3 *up, alone in its ring, NOT quorate; group store: 3",
        ],
    ),
    "a hang on a frozen node": (
        HANG_ON_A_FROZEN_NODE,
        [
            "the test has not ended within 2 s (--corosync-timeout)",
            "! *node 2 *is frozen (test_*.py:*)",
            " *node 2 *get('app.limit') is given up after *s without an answer",
            "! *FAILS: the test has not ended within 2 s (--corosync-timeout)",
            " *node 2 *FROZEN",
            "where the tasks were:",
            "<test 'test_the_configuration_can_be_read'> waits",
            '  *.py:* in test_the_configuration_can_be_read: await cmap.set("app.limit", 5)',
            "*1 failed, 1 passed*",
        ],
    ),
    "an exception in a nursery": (
        EXCEPTION_IN_A_NURSERY,
        [
            " *node 1 *sends b'apple' to group store: received by 1, 2, 3",
            " *node 2 *sends b'pear' to group store: received by 1, 2, 3",
            "! *FAILS in line *: KeyError: b'pear'",
            " *all nodes *up, ring of nodes 1-3, quorate; group store: 1-3",
        ],
    ),
    "a daemon that was killed and forgotten": (
        KILLED_AND_FORGOTTEN,
        [
            "! *node 3 *is killed (test_*.py:*)",
            " *nodes 1, 2 *ring of nodes 1, 2, quorate; group store: 1, 2 (node 3 lost)",
            " *node 2 *sends b'node 2' to group store: received by 1, 2",
            "! *test *FAILS in line *: AssertionError*",
            " *nodes 1, 2 *up, ring of nodes 1, 2, quorate; group store: 1, 2",
            " *node 3 *DOWN",
        ],
    ),
    "a slow consumer": (
        SLOW_CONSUMER,
        [
            " *ring of nodes 1-3, quorate; group store: *",
            "! *node 2 *receives too slowly and is cut off: * did not fit into max_buffered_bytes=2000*",
            "*messages)",
            " *node 1 *sends *99 99 *",
            "! *FAILS in line *: SlowConsumerError: *",
        ],
    ),
    "a partition that is left": (
        PARTITION_LEFT,
        [
            "! *node 1 *is cut off from all others (test_*.py:*)",
            "! *FAILS in line *: TooSlowError*",
            " *network *CUT: 1 | 2, 3",
            " *node 1 *up, alone in its ring, NOT quorate",
        ],
    ),
    "misuse of a fixture": (
        FIXTURE_MISUSE,
        [
            "*@pytest.mark.corosync does not take knots; it takes *",
            "*KeyError: *there is no node 5 in this cluster; its nodes are 1, 2, 3*",
            "*- corosync -*",
            "nothing had happened before: no client had connected, and all nodes were up",
        ],
    ),
    "Control-C": (
        CONTROL_C,
        [
            "*= corosync: *::test_waits_for_a_third_member was interrupted =*",
            "! *node 3 *is stopped (test_*.py:*)",
            " *node 1 *group store: 1 (node 1 joined)",
            "! *is INTERRUPTED in line *",
            " *node 3 *DOWN",
            "where the tasks were:",
            "<test 'test_waits_for_a_third_member'> waits",
            " *.py:* in parted: await trio.sleep(0.01)",
            " *.py:* in test_waits_for_a_third_member: await parted(member, 3)",
        ],
    ),
}


def arguments(name: str) -> list[str]:
    """The options that a case needs."""
    return ["--corosync-timeout=2"] if name.startswith("a hang") else []


@pytest.mark.corosync_fake_only(reason="some of them run on real nodes as well, together")
@pytest.mark.parametrize("name", [name for name in CASES if name != "Control-C"])
def test_the_report_says_what_happened(run: Run, name: str) -> None:
    source, lines = CASES[name]
    run(HEAD + source, *arguments(name)).stdout.fnmatch_lines(lines)


def test_control_c(pytester: pytest.Pytester, corosync_mode: str) -> None:
    """pytest has no report of the test that it ends, so what happened is in the summary."""
    source, lines = CASES["Control-C"]
    pytester.makepyfile(HEAD + source)
    result = pytester.runpytest_subprocess(f"--corosync={corosync_mode}")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(lines)


DIED = """
import signal

async def test_it_runs(corosync):
    async with triocoro.open_group("store") as group:
        await group.send_and_wait(b"hello")
        with trio.CancelScope(shield=True):
            os.kill(corosync.pid, signal.SIGABRT)
            await trio.sleep(0.3)
"""


@pytest.mark.corosync_real_only(reason="it is about what real daemons and their logs add")
def test_reports_of_real_nodes(run: Run) -> None:
    """A hang on a frozen node, which leaves the next test unharmed; and a daemon that ends by itself."""
    source, lines = CASES["a hang on a frozen node"]
    result = run(HEAD + source + DIED, "--corosync-timeout=2")
    result.assert_outcomes(failed=2, passed=1)
    result.stdout.fnmatch_lines([line for line in lines if "passed" not in line])
    result.stdout.fnmatch_lines(
        [
            " *node 1 *sends b'hello' to group store: received by 1",
            "! *node 1 *the connection to the daemon is lost",
            "! *node 1 *the daemon ended, and nothing in the test made it",
            "! *FAILS*ConnectionLostError*",
            " *node 1 *DOWN",
        ]
    )
