"""The fake with latency and jitter: messages take time, rings break meanwhile, and Corosync's rules hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial, partialmethod, wraps
from typing import Any

import attrs
import pytest
import trio
from support.fixtures.figures import Figure
from support.fixtures.inner_runs import Run
from support.fixtures.long import long
from support.histories import history
from support.random_faults import random_faults

import triocoro
from triocoro import ConfigChange, Message, MessageLost, Reason, TotemChange
from triocoro.testing import ClusterOptions, Delivery, FakeCluster, History, NetnsCluster, Rule, check, seeded_run
from triocoro.testing._fake.exec.transit import Transit

pytestmark = pytest.mark.corosync_fake_only(reason="the network of real nodes takes the time that it takes")

LATENCY = 0.5


def seeded(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """A test in virtual time, which begins at 0."""

    @wraps(test)
    def run_it() -> None:
        seeded_run(test, seed=1)

    return run_it


@attrs.define(eq=False)
class Watcher:
    """A member of a group on each node, and what it has been told, with the times."""

    group: triocoro.Group
    told: list[tuple[float, str]] = attrs.field(factory=list[tuple[float, str]])

    async def watch(self) -> None:
        async for event in self.group:
            if isinstance(event, Message):
                self.told.append((trio.current_time(), f"{event.payload.decode()} of {event.sender.nodeid}"))
            elif isinstance(event, ConfigChange):
                for change in event.joined + event.left:
                    text = f"{change.reason.name} {change.address.nodeid}"
                    self.told.append((trio.current_time(), text))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.told]

    @property
    def messages(self) -> list[str]:
        return [text for text in self.texts if " of " in text]


@asynccontextmanager
async def watchers(cluster: FakeCluster) -> AsyncGenerator[dict[int, Watcher], None]:
    """A member on each node; they have seen each other come."""
    async with trio.open_nursery() as nursery:
        watching: dict[int, Watcher] = {}

        async def one(nodeid: int) -> None:
            try:
                async with triocoro.open_group("g", endpoint=cluster[nodeid].endpoint) as group:
                    watching[nodeid] = Watcher(group)
                    await watching[nodeid].watch()
            except triocoro.ConnectionLostError:
                pass

        for nodeid in cluster.nodes:
            nursery.start_soon(one, nodeid)
        await trio.sleep(10)
        for watcher in watching.values():
            watcher.told.clear()
        yield dict(sorted(watching.items()))
        nursery.cancel_scope.cancel()


def delays(cluster: FakeCluster, *of_messages: Iterable[float]) -> None:
    """What the next messages take to node 1, to node 2, and so on, in place of what chance says."""
    transit: Any = cluster._totem._transit
    transit._latency, transit._jitter = 0.0, 1.0

    class Scripted:
        values: Iterator[float] = itertools.chain.from_iterable(of_messages)

        def random(self) -> float:
            return next(self.values, 0.0)

    transit._random = Scripted()


# -- the way of a message ----------------------------------------------------------------------------------------------


@seeded
async def test_a_message_takes_its_time_to_each_node_its_sender_included() -> None:
    async with FakeCluster(nodes=3, latency=LATENCY) as cluster, watchers(cluster) as watching:
        now = trio.current_time()
        await watching[1].group.send(b"x")
        await trio.sleep(1)
        assert [watcher.told for watcher in watching.values()] == [[(now + LATENCY, "x of 1")]] * 3


@seeded
async def test_a_join_takes_its_time_as_well() -> None:
    async with FakeCluster(nodes=1, latency=LATENCY) as cluster:
        now = trio.current_time()
        async with triocoro.open_group("g", endpoint=cluster[1].endpoint):
            assert trio.current_time() == now + LATENCY


@seeded
async def test_requests_to_the_own_node_take_no_time() -> None:
    async with FakeCluster(nodes=2, latency=LATENCY) as cluster:
        now = trio.current_time()
        async with triocoro.open_votequorum(endpoint=cluster[1].endpoint) as votequorum:
            assert (await votequorum.info()).total_votes == 2
        await cluster[2].kill()
        await cluster[2].start()
        await cluster.partition({1}, {2})
        assert cluster.reachable(1) == {1}
        assert trio.current_time() == now


@seeded
async def test_settling_takes_the_time_of_a_join_and_a_leave_whoever_dies_meanwhile() -> None:
    async with FakeCluster(nodes=3, latency=LATENCY) as cluster:
        await cluster.settled()
        assert trio.current_time() == 2 * LATENCY
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cluster.settled)
            await trio.sleep(LATENCY / 2)
            await cluster[2].kill()
        assert trio.current_time() < 8 * LATENCY


async def told_with(*, seed: int) -> list[list[tuple[float, str]]]:
    """What three nodes are told of thirty messages that set out within 0.3 s and take 0.5 to 1 s."""
    cluster = FakeCluster(nodes=3, latency=LATENCY, jitter=LATENCY, seed=seed)
    async with cluster, watchers(cluster) as watching:
        began = trio.current_time()
        for number in range(10):
            for watcher in watching.values():
                await watcher.group.send(b"%d" % number)
                await trio.sleep(0.01)
        await trio.sleep(2)
        return [[(time - began, text) for time, text in watcher.told] for watcher in watching.values()]


@seeded
async def test_with_jitter_each_node_has_its_own_times_and_all_have_one_order() -> None:
    told = await told_with(seed=1)
    orders = [[text for _, text in of_one] for of_one in told]
    assert orders == [[f"{number} of {nodeid}" for number in range(10) for nodeid in (1, 2, 3)]] * 3
    times = [[time for time, _ in of_one] for of_one in told]
    assert times[0] != times[1] != times[2]
    for of_one in times:
        taken = [time - sent * 0.01 for sent, time in enumerate(of_one)]
        assert all(LATENCY <= one <= 2 * LATENCY + 1e-9 for one in taken)
        # Some had to wait for others.
        assert len(set(of_one)) < len(of_one)


def test_the_seed_of_a_cluster_decides_about_the_times() -> None:
    one, same, other = (seeded_run(partial(told_with, seed=seed), seed=1) for seed in (1, 1, 2))
    assert one == same != other


@seeded
async def test_times_are_told_by_the_pump_only_while_something_is_in_flight() -> None:
    def system_tasks() -> set[str]:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        return {task.name for nursery in root.child_nurseries for task in nursery.child_tasks}

    before = system_tasks()
    async with FakeCluster(nodes=3) as cluster, watchers(cluster) as watching:
        await watching[1].group.send(b"x")
        assert system_tasks() == before
    async with FakeCluster(nodes=3, latency=LATENCY) as cluster, watchers(cluster) as watching:
        assert system_tasks() == before
        for watcher in watching.values():
            await watcher.group.send(b"x")
        assert len(system_tasks() - before) == 1
        await trio.sleep(1)
        assert system_tasks() == before


# -- rings that break meanwhile ----------------------------------------------------------------------------------------


@seeded
async def test_a_message_that_reached_no_other_node_is_delivered_to_its_sender_alone() -> None:
    async with FakeCluster(nodes=3, latency=LATENCY) as cluster, watchers(cluster) as watching:
        now = trio.current_time()
        await watching[1].group.send(b"x")
        await cluster.partition({1}, {2, 3})
        await trio.sleep(1)
        assert watching[1].told == [(now, "x of 1"), (now, "NODEDOWN 2"), (now, "NODEDOWN 3")]
        assert watching[2].texts == watching[3].texts == ["NODEDOWN 1"]


@seeded
async def test_those_who_go_on_together_share_what_one_of_them_has() -> None:
    async with FakeCluster(nodes=4, latency=LATENCY) as cluster, watchers(cluster) as watching:
        delays(cluster, [0.9, 0.1, 0.9, 0.9])
        await watching[1].group.send(b"x")
        await trio.sleep(0.5)
        assert [watcher.messages for watcher in watching.values()] == [[], ["x of 1"], [], []]
        await cluster.partition({1}, {2, 3}, {4})
        await trio.sleep(1)
        assert watching[1].texts[0] == "x of 1"
        assert watching[2].texts == watching[3].texts == ["x of 1", "NODEDOWN 1", "NODEDOWN 4"]
        assert watching[4].messages == []


@seeded
async def test_a_message_that_waits_for_an_earlier_one_counts_as_received() -> None:
    async with FakeCluster(nodes=3, latency=LATENCY) as cluster, watchers(cluster) as watching:
        # The first is late at node 2, the second at node 3.
        delays(cluster, [0.9, 0.9, 0.1], [0.9, 0.1, 0.9])
        await watching[1].group.send(b"x")
        await watching[1].group.send(b"y")
        await trio.sleep(0.5)
        assert [watcher.messages for watcher in watching.values()] == [[], [], ["x of 1"]]
        await cluster[1].kill()
        await trio.testing.wait_all_tasks_blocked()
        assert watching[2].texts == watching[3].texts == ["x of 1", "y of 1", "NODEDOWN 1"]


@seeded
async def test_behind_a_gap_only_those_who_go_along_count() -> None:
    async with FakeCluster(nodes=3, latency=LATENCY) as cluster, watchers(cluster) as watching:
        delays(cluster, [0.9, 0.9, 0.9], [0.1, 0.1, 0.1], [0.9, 0.9, 0.9])
        await watching[1].group.send(b"x")
        await watching[1].group.send(b"y")
        await watching[2].group.send(b"z")
        await trio.sleep(0.5)
        await cluster[1].kill()
        await trio.sleep(1)
        # Node 2 and node 3 had the second one, but not what comes before it.
        assert watching[2].texts == watching[3].texts == ["z of 2", "NODEDOWN 1"]


@seeded
async def test_a_node_that_was_frozen_delivers_its_own_messages_and_those_received_meanwhile() -> None:
    async with FakeCluster(nodes=2, latency=LATENCY) as cluster, watchers(cluster) as watching:
        delays(cluster, [0.9, 0.1], [0.9, 0.9], [0.9, 0.9], [0.3])
        await watching[1].group.send(b"come")
        await watching[1].group.send(b"late")
        await watching[2].group.send(b"own")
        await cluster[2].freeze()
        await watching[1].group.send(b"on")
        await trio.sleep(0.5)
        assert watching[1].texts == ["come of 1", "late of 1", "NODEDOWN 2", "on of 1"]
        assert watching[2].texts == []
        await cluster[2].thaw()
        await trio.testing.wait_all_tasks_blocked()
        assert watching[2].texts == ["come of 1", "own of 2", "NODEDOWN 1", "NODEUP 1"]


@seeded
async def test_a_node_that_thaws_alone_delivers_what_it_received_meanwhile() -> None:
    async with FakeCluster(nodes=1, latency=LATENCY) as cluster, watchers(cluster) as watching:
        now = trio.current_time()
        await watching[1].group.send(b"x")
        await cluster[1].freeze()
        await trio.sleep(1)
        assert watching[1].told == []
        await cluster[1].thaw()
        await trio.sleep(0.1)
        assert watching[1].told == [(now + 1, "x of 1")]


@seeded
async def test_a_node_that_stops_has_its_say() -> None:
    async with FakeCluster(nodes=2, latency=LATENCY) as cluster, watchers(cluster) as watching:
        await watching[1].group.send(b"x")
        await cluster[1].stop()
        await trio.sleep(1)
        assert watching[2].texts == ["x of 1", f"{Reason.PROCDOWN.name} 1"]


@seeded
async def test_a_node_that_is_killed_has_not() -> None:
    async with FakeCluster(nodes=2, latency=LATENCY) as cluster, watchers(cluster) as watching:
        await watching[1].group.send(b"x")
        await cluster[1].kill()
        await trio.sleep(1)
        assert watching[2].texts == ["NODEDOWN 1"]


@seeded
async def test_a_join_completes_although_the_ring_breaks_meanwhile() -> None:
    async with FakeCluster(nodes=2, latency=LATENCY) as cluster, watchers(cluster) as watching:
        async with trio.open_nursery() as nursery:

            async def join() -> None:
                now = trio.current_time()
                async with triocoro.open_group("g", endpoint=cluster[1].client()) as group:
                    assert trio.current_time() == now + 0.125
                    assert {member.nodeid for member in group.view.members} == {1, 2}

            nursery.start_soon(join)
            await trio.sleep(0.125)
            await cluster.partition({1}, {2})
        await cluster.heal()
        await trio.sleep(1)
        assert watching[2].texts == ["NODEDOWN 1", "NODEUP 1"]


@seeded
async def test_a_daemon_told_to_die_in_a_transition_dies_after_it() -> None:
    async with FakeCluster(nodes=3, latency=LATENCY) as cluster:
        async with triocoro.open_cfg(endpoint=cluster[1].endpoint) as cfg:
            await cfg.kill_node(2, "enough")
        assert cluster[2].running
        await cluster[3].kill()
        assert not cluster[2].running
        await cluster.settled()
        async with triocoro.open_quorum(endpoint=cluster[1].endpoint) as quorum:
            assert not await quorum.is_quorate()


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_messages_in_transit_arrive_at_the_end_of_the_run(*, frozen: bool) -> None:
    told = "Config reload requested by node 1"

    async def ask() -> None:
        async with triocoro.open_cfg(endpoint=cluster[1].endpoint) as cfg, trio.open_nursery() as nursery:
            nursery.start_soon(cfg.reload_config)
            await trio.testing.wait_all_tasks_blocked()
            if frozen:
                await cluster[1].freeze()
            nursery.cancel_scope.cancel()
        assert told not in cluster[1].log

    async def thaw() -> None:
        # This clock begins anew.
        await cluster[1].thaw()
        await trio.testing.wait_all_tasks_blocked()
        assert told in cluster[1].log

    with FakeCluster(nodes=1, latency=1000) as cluster:
        seeded_run(ask, seed=1)
        assert (told in cluster[1].log) is not frozen
        seeded_run(thaw, seed=1)
        assert cluster[1].log.count(told) == 1


# -- options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"latency": -0.1}, {"jitter": -1}, {"latency": math.inf}, {"jitter": math.nan}])
def test_latencies_that_are_no_times_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="latency and jitter are seconds, 0 or more"):
        FakeCluster(**options)  # type: ignore[arg-type]  # the names are right


@pytest.mark.parametrize("name", ["latency", "jitter", "seed"])
def test_real_clusters_take_the_time_that_they_take(name: str) -> None:
    cluster: Any = NetnsCluster
    with pytest.raises(TypeError, match=name):
        cluster(nodes=1, **{name: 1})


def test_a_marker_says_what_holds_in_both_modes(run: Run) -> None:
    result = run(
        """
        import pytest

        @pytest.mark.corosync(latency=1)
        def test_it(corosync):
            pass
        """
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*latency*"])


# -- what recorded runs have taught the checkers -----------------------------------------------------------------------

TOGETHER = (
    "a join a; a ring 4 123; b join ab; b ring 4 123; a +b ab; c join abc; c ring 4 123; a +c abc; b +c abc;"
    "a ring 8 123; b ring 8 123; c ring 8 123"
)
PAIR = "a join a; a ring 4 123; b join ab; b ring 4 123; a +b ab; a ring 8 123; b ring 8 123"
C_JOINS = "c join abc; c ring 8 123; b +c abc; a send z; b got a z; c got a z; a got a z"

EXCUSED = {
    "who leaves in the transition is not told who is down": (
        f"{TOGETHER}; c send x; a send z; b got c x; b got a z; a leave; a got a z; a -a bc"
    ),
    "the node of a member whose join is lost": (
        f"{PAIR}; {C_JOINS}; b down a bc; b ring 12 23; c down a bc; c ring 12 23; a down b a; a ring 12 1"
    ),
    "that node, back at once": f"{PAIR}; {C_JOINS}; b down a bc; b ring 12 23; a down b a; a up bc abc; a ring 16 123",
    "that node, when the member has left again": (
        f"{PAIR}; {C_JOINS}; b down a bc; b ring 12 23; b -c b; a down b a; a up b ab; a ring 16 123"
    ),
}
NOT_EXCUSED = {
    "who leaves in the transition has later ones of that node": (
        f"{TOGETHER}; c send x y; a send z; b got c x; b got a z; b got c y; a leave; a got a z; a got c y; a -a bc"
    ),
    "who leaves in the transition misses its own": (
        f"{TOGETHER}; a send x; c send z; b got a x; b got c z; a leave; a got c z; a -a bc"
    ),
    "the node goes along": f"{PAIR}; {C_JOINS}; b ring 12 123; c ring 12 123; a ring 12 123",
    "the node was in a later ring only": (
        f"{PAIR}; {C_JOINS}; a down b a; a ring 12 13; b down a bc; b up a abc; b ring 16 123"
    ),
}


@pytest.mark.parametrize("script", EXCUSED.values(), ids=EXCUSED)
def test_histories_that_a_broken_ring_excuses(script: str) -> None:
    assert list(map(str, check(history(script)))) == []


@pytest.mark.parametrize("script", NOT_EXCUSED.values(), ids=NOT_EXCUSED)
def test_histories_that_a_broken_ring_does_not_excuse(script: str) -> None:
    assert {violation.rule for violation in check(history(script))} & {Rule.TOTAL_ORDER, Rule.SELF_DELIVERY}


# -- whatever happens, Corosync's rules hold ---------------------------------------------------------------------------

TIMES = ((0.001, 0.0), (0.0, 0.02), (0.01, 0.05), (0.05, 0.005))
"""Latency and jitter; members send every 10 ms, and something happens every 50 ms."""


async def recorded(seed: int, latency: float, jitter: float) -> History:
    async with FakeCluster(nodes=3 + seed % 3, latency=latency, jitter=jitter, seed=seed) as cluster:
        return await random_faults(cluster, seed, seconds=0.5)


def rules_broken(seed: int, latency: float, jitter: float) -> set[Rule]:
    run = seeded_run(recorded, seed, latency, jitter, seed=seed)
    # A loss that the SDK has noticed is no violation, but the fake loses nothing here.
    lost = any(isinstance(entry, Delivery) and isinstance(entry.event, MessageLost) for entry in run)
    return {violation.rule for violation in check(run)} | ({Rule.SELF_DELIVERY} if lost else set())


@pytest.mark.parametrize("seeds", [6, *long(25)])
@pytest.mark.parametrize("latency, jitter", TIMES)
def test_recorded_runs_break_no_rule(latency: float, jitter: float, seeds: int, figure: Figure) -> None:
    messages = 0
    for seed in range(seeds):
        run = seeded_run(recorded, seed, latency, jitter, seed=seed)
        assert list(map(str, check(run, options=ClusterOptions(nodes=3 + seed % 3)))) == [], seed
        told = [entry.event for entry in run if isinstance(entry, Delivery)]
        assert not any(isinstance(event, MessageLost) for event in told)
        messages += sum(isinstance(event, Message) for event in told)
        assert any(isinstance(event, TotemChange) for event in told)
    figure(f"latency {latency} s, jitter {jitter} s", f"{messages} messages came in {seeds} runs")
    assert messages > seeds * 100


def _shares_nothing(transit: Any, nodeids: Any) -> None:
    for nodeid in nodeids:
        RECOVER(transit, [nodeid])


def _loses_what_is_in_flight(transit: Any, nodeids: Any) -> None:
    for nodeid in nodeids:
        transit.forget(nodeid)


def _in_order_of_arrival(transit: Any, now: float) -> None:
    for nodeid, inbox in list(transit._inboxes.items()):
        packets = sorted(inbox, key=lambda packet: packet.arrival)
        inbox.clear()
        inbox.extend(packet for packet in packets if packet.arrival > now)
        for packet in packets:
            if packet.arrival <= now:
                transit._deliver(nodeid, packet.multicast)


def _with_gaps(transit: Any, nodeids: Any, *, drops: bool) -> None:
    inboxes = [transit._inbox(nodeid) for nodeid in nodeids]
    missing = set(transit._missing(inboxes, nodeids))
    for nodeid, inbox in zip(nodeids, inboxes, strict=True):
        while inbox:
            packet = inbox.popleft()
            if packet.number < min(missing, default=math.inf) if drops else packet.number not in missing:
                transit._deliver(nodeid, packet.multicast)


RECOVER = Transit.recover


@pytest.mark.parametrize(
    "name, wrong",
    [
        pytest.param("recover", _shares_nothing, id="everybody has its own"),
        pytest.param("recover", _loses_what_is_in_flight, id="nothing comes any more"),
        pytest.param("recover", partialmethod(_with_gaps, drops=True), id="nothing comes behind a gap"),
        pytest.param("recover", partialmethod(_with_gaps, drops=False), id="everything comes behind a gap"),
        pytest.param("_deliver_due", _in_order_of_arrival, id="in the order of arrival"),
    ],
)
def test_another_rule_would_be_found_out(name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Transit, name, wrong)
    broken = (rules_broken(seed, *TIMES[2]) for seed in range(25))
    assert next(filter(None, broken), None) is not None
