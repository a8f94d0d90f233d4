"""A fault at each point of a short course of events, for each node and kind of fault; and several by chance."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest
import trio
from support.applications import send_until_committed
from support.fixtures.long import long
from support.recipe_workloads import Log, Register, Sent, index_of

import triocoro
from triocoro import Message, View, ViewEvent
from triocoro.recipes import (
    Delivery,
    LeaseLostError,
    NotPrimaryError,
    SafeGroup,
    UncertainError,
    open_lock,
    open_safe_group,
)
from triocoro.testing import FakeCluster, FaultSchedule, FaultStep, Node, explore, random_schedule

pytestmark = pytest.mark.corosync_fake_only(reason="only runs on the fake can be repeated")

NODES = (1, 2, 3)
LATENCY = 0.01
FAULTS = {"isolate": "heal", "kill": "start", "freeze": "thaw"}
"""Each fault and what mends it."""

Program = Callable[[FakeCluster], Awaitable[object]]


def each_point(end: float, step: float, lasts: float) -> Iterator[FaultSchedule]:
    """A fault at each point of time, of each kind and at each node, which is mended after some seconds."""
    for number in range(round(end / step)):
        for fault, mend in FAULTS.items():
            for nodeid in NODES:
                at = round(number * step, 3)
                mended = FaultStep(at + lasts, mend, () if mend == "heal" else (nodeid,))
                yield FaultSchedule([FaultStep(at, fault, (nodeid,)), mended])


def try_each(program: Program, schedules: Iterable[FaultSchedule], latency: float = LATENCY) -> None:
    """Run the program with each schedule, and a seed of its own."""

    async def bounded(cluster: FakeCluster) -> None:
        with trio.fail_after(60):
            await program(cluster)

    for seed, schedule in enumerate(schedules):
        explore(bounded, schedules=schedule, seeds=seed, latency=latency, jitter=latency)


def schedules_by_chance(number: int) -> Iterator[FaultSchedule]:
    verbs = ["isolate", "partition", "cut", "kill", "freeze"]
    for seed in range(number):
        yield random_schedule(random.Random(seed), verbs=verbs, seconds=1, steps=6)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110 - as said
        await trio.sleep(0.02)


# -- sends in a safe group ---------------------------------------------------------------------------------------------


async def sends(cluster: FakeCluster) -> None:
    """Three members send; whatever happens, each message is in all logs at one place, once, or in none."""
    log = Log()
    groups: dict[int, SafeGroup] = {}

    async def receive(group: SafeGroup, nodeid: int) -> None:
        events = log.received[str(nodeid)] = []
        async for event in group:
            events.append(event)  # noqa: PERF401 - until it is cancelled

    async def send(group: SafeGroup, nodeid: int) -> None:
        await group.wait_primary()
        for number in range(10):
            sent = Sent(b"%d: %d" % (nodeid, number), committed_before=log.acknowledged)
            log.sent.append(sent)
            try:
                sent.outcome = commit = await group.send(sent.payload)
                log.acknowledged = max(log.acknowledged, commit.index)
            except NotPrimaryError:
                sent.outcome = "refused"
            except UncertainError:
                pass
            await trio.sleep(LATENCY)
        groups[nodeid] = group

    async def member(nodeid: int) -> None:
        async with open_safe_group("log", endpoint=cluster[nodeid]) as group, trio.open_nursery() as nursery:
            nursery.start_soon(receive, group, nodeid)
            nursery.start_soon(send, group, nodeid)

    async with trio.open_nursery() as nursery:
        for nodeid in NODES:
            nursery.start_soon(member, nodeid)
        await until(lambda: len(groups) == len(NODES))
        last = max([(await send_until_committed(groups[nodeid], b"last")).index for nodeid in NODES])
        await until(lambda: all(events and index_of(events[-1]) >= last for events in log.received.values()))
        nursery.cancel_scope.cancel()
    assert all(isinstance(event, Delivery) for events in log.received.values() for event in events)
    assert [line for line in log.violations(all_received=True) if "b'last'" not in line] == []


@pytest.mark.deadline(900)
@pytest.mark.parametrize("step", [0.03, *long(0.003)])
def test_a_fault_at_each_point_of_sends(step: float) -> None:
    try_each(sends, each_point(0.36, step, lasts=1.5))


@pytest.mark.deadline(900)
@pytest.mark.parametrize("number", [20, *long(1000)])
def test_several_faults_around_sends(number: int) -> None:
    try_each(sends, schedules_by_chance(number))


# -- a lock and its holder ---------------------------------------------------------------------------------------------


async def a_lock(cluster: FakeCluster) -> None:
    """Three clients hold a lock in turn: at most one at a time, with tokens that grow; in the end each has had it."""
    register = Register()
    done: set[int] = set()

    async def client(nodeid: int) -> None:
        async with open_lock("lock", lock_delay=2.0, endpoint=cluster[nodeid]) as lock:
            while True:
                with suppress(LeaseLostError):
                    async with lock.hold() as held:
                        register.enter(held, str(nodeid))
                        for _ in range(5):
                            register.write(held, str(nodeid))
                            await trio.sleep(0.03)
                            register.write(held, str(nodeid))
                        done.add(nodeid)
                await trio.sleep(0.03)

    async with trio.open_nursery() as nursery:
        for nodeid in NODES:
            nursery.start_soon(client, nodeid)
        await trio.sleep(1)  # all that the schedule does has begun
        done.clear()
        await until(lambda: done == {*NODES})
        nursery.cancel_scope.cancel()
    assert register.found == []


@pytest.mark.deadline(900)
@pytest.mark.parametrize("step", [0.1, *long(0.01)])
def test_the_holder_of_a_lock_is_lost_at_each_point(step: float) -> None:
    try_each(a_lock, each_point(0.6, step, lasts=3.0))


@pytest.mark.deadline(900)
@pytest.mark.parametrize("number", [10, *long(300)])
def test_several_faults_around_a_lock(number: int) -> None:
    try_each(a_lock, schedules_by_chance(number))


# -- views -------------------------------------------------------------------------------------------------------------


async def views_of_three(cluster: FakeCluster) -> None:
    """Three members say in each view which one it is."""
    lives: list[tuple[int, list[ViewEvent]]] = []
    latest: dict[int, View | None] = {}

    async def member(node: Node) -> None:
        async for session in triocoro.sessions(triocoro.open_views, "g", endpoint=node):
            async with session as views:
                events: list[ViewEvent] = []
                lives.append((node.nodeid, events))
                async for event in views:
                    events.append(event)
                    if isinstance(event, View):
                        latest[node.nodeid] = event
                        await views.send(f"{event.ring_id.seq} {len(event.members)}".encode())
            latest[node.nodeid] = None

    def at_rest() -> bool:
        found = {view and (view.ring_id, view.members, view.primary) for view in latest.values()}
        return len(latest) == len(found) + 2 == 3 and all(view and len(view.members) == 3 for view in latest.values())

    async with trio.open_nursery() as nursery:
        for node in cluster.nodes.values():
            nursery.start_soon(member, node)
        await trio.sleep(2.5)  # the schedule is over
        await until(at_rest)
        await trio.sleep(0.2)
        assert at_rest()
        nursery.cancel_scope.cancel()
    for nodeid, events in lives:
        check_life(nodeid, events)


def check_life(nodeid: int, events: list[ViewEvent]) -> None:
    """What one membership has received."""
    views = [event for event in events if isinstance(event, View)]
    assert events[:1] == views[:1]
    for view in views:
        assert nodeid in view.nodes
        assert {member.nodeid for member in view.members} <= view.nodes
        assert view.primary is (len(view.nodes) >= 2)
    for before, after in pairwise(views):
        assert before.ring_id.seq <= after.ring_id.seq
        assert after.together <= {*before.members} & {*after.members}
        assert nodeid in {member.nodeid for member in after.together}
        if before.ring_id == after.ring_id:  # only nodes that go take members along
            assert {*before.members} < {*after.members}
    seen = 0
    for event in events:
        if isinstance(event, View):
            seen = event.ring_id.seq
        elif isinstance(event, Message):
            assert int(event.payload.split()[0]) <= seen  # the view that it was sent in has come


@pytest.mark.deadline(900)
@pytest.mark.parametrize("step", [0.02, *long(0.002)])
def test_a_fault_at_each_point_of_views(step: float) -> None:
    try_each(views_of_three, each_point(0.24, step, lasts=1.5))


@pytest.mark.deadline(900)
@pytest.mark.parametrize("number", [20, *long(1000)])
def test_several_faults_around_views(number: int) -> None:
    """Without latency, messages of a ring may be read before the news of quorum."""
    for latency in (LATENCY, 0.0):
        try_each(views_of_three, schedules_by_chance(number), latency)
