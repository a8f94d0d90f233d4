"""The same seed, the same course: Trio's schedule, and what clients of the fake see."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st
from support.fixtures.figures import Bound
from support.fixtures.inner_runs import Run
from support.random_faults import random_faults

import triocoro
from triocoro import Endpoint, Message
from triocoro.testing import FakeCluster, History, StuckError, fail_when_stuck, seeded, seeded_run

scheduler: Any = trio._core._run


async def shuffled(rounds: int = 3) -> list[int]:
    """The order in which five tasks have had their turns."""
    turns: list[int] = []

    async def take_turns(number: int) -> None:
        for _ in range(rounds):
            turns.append(number)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(take_turns, number)
    return turns


# -- Trio's schedule ---------------------------------------------------------------------------------------------------


def test_a_seed_stands_for_one_schedule() -> None:
    schedules = [tuple(seeded_run(shuffled, seed=seed)) for seed in range(20)]
    assert [tuple(seeded_run(shuffled, seed=seed)) for seed in range(20)] == schedules
    assert len(set(schedules)) == 20


@pytest.mark.corosync_fake_only(reason="real daemons do not wait for Trio's turns")
def test_a_seed_stands_for_the_same_pauses_of_sessions() -> None:
    async def attempts() -> list[float]:
        times: list[float] = []
        async with FakeCluster(nodes=1) as cluster:
            await cluster[1].stop()
            began = trio.current_time()
            with trio.move_on_after(5):
                async for session in triocoro.sessions(open_noted, cluster[1].endpoint, times):
                    async with session:
                        raise AssertionError
        return [time - began for time in times]

    state = random.getstate()
    pauses = [seeded_run(attempts, seed=seed) for seed in (1, 1, 2)]
    assert len(pauses[0]) > 5
    assert pauses[0] == pauses[1] != pauses[2]
    assert random.getstate() == state


@asynccontextmanager
async def open_noted(endpoint: Endpoint, times: list[float]) -> AsyncGenerator[None, None]:
    times.append(trio.current_time())
    async with triocoro.open_cpg(endpoint=endpoint):
        yield


def test_arguments_results_and_errors_are_those_of_the_program() -> None:
    assert len(seeded_run(shuffled, 7, seed=1)) == 5 * 7

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        seeded_run(fail, seed=1)


def test_time_is_virtual_unless_a_clock_is_given() -> None:
    async def sleep() -> float:
        began = trio.current_time()
        await trio.sleep(80_000)
        return trio.current_time() - began

    assert seeded_run(sleep, seed=1) == 80_000
    assert seeded_run(sleep, seed=1, clock=trio.testing.MockClock(rate=1e9)) >= 80_000


@pytest.mark.parametrize("before", [False, True])
def test_the_random_state_is_restored_after_a_seeded_run(monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    monkeypatch.setattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", before)
    state = scheduler._r.getstate()
    with pytest.raises(KeyError), seeded(1):
        assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING
        trio.run(shuffled)
        with seeded(2):
            trio.run(shuffled)
        raise KeyError
    assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING is before
    assert scheduler._r.getstate() == state


def test_a_seed_is_an_integer_and_a_clock_is_one() -> None:
    wrong: Any
    for wrong in (None, 1.5, "1"):
        with pytest.raises(TypeError, match=f"seed must be int, not {type(wrong).__name__}"):
            seeded_run(trio.sleep, 0, seed=wrong)
    with pytest.raises(TypeError, match="clock must be Clock, not str"):
        seeded_run(trio.sleep, 0, seed=1, clock=wrong)


@pytest.mark.parametrize("name", ["_r", "_ALLOW_DETERMINISTIC_SCHEDULING"])
def test_a_trio_that_cannot_be_seeded_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(scheduler, name)
    with pytest.raises(RuntimeError, match=f"Trio {trio.__version__} keeps its random numbers elsewhere"):
        seeded_run(shuffled, seed=1)


async def test_within_a_run_of_pytest_trio() -> None:
    with seeded(1):
        one = await shuffled()
    with seeded(1):
        same = await shuffled()
    with seeded(2):
        other = await shuffled()
    assert one == same != other


async def test_within_a_run_with_an_autojump_clock(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.autojump_threshold = 0
    assert [await sleepy(seed) for seed in (1, 1)] == [await sleepy(1)] * 2
    assert await sleepy(1) != await sleepy(2)


async def sleepy(seed: int) -> list[int]:
    """The order in which five tasks come back from sleeping equally long."""
    woken: list[int] = []

    async def sleep(number: int) -> None:
        for _ in range(3):
            await trio.sleep(1)
            woken.append(number)

    with seeded(seed):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(sleep, number)
    return woken


def test_without_trio_mode(run: Run) -> None:
    run(
        """
        import pytest
        import trio
        from triocoro.testing import seeded

        @pytest.mark.trio
        async def test_order():
            orders = []
            for seed in (1, 1, 2):
                order = []

                async def turn(number):
                    order.append(number)

                with seeded(seed):
                    async with trio.open_nursery() as nursery:
                        for number in range(9):
                            nursery.start_soon(turn, number)
                orders.append(order)
            assert orders[0] == orders[1] != orders[2]
        """
    ).assert_outcomes(passed=1)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_under_hypothesis(seed: int) -> None:
    # Hypothesis has seeded Trio's random numbers, and goes on with them afterwards.
    own = scheduler._r.getstate()
    schedule = seeded_run(shuffled, seed=seed)
    assert scheduler._r.getstate() == own
    trio.run(shuffled)
    assert seeded_run(shuffled, seed=seed) == schedule


# -- what clients of the fake see --------------------------------------------------------------------------------------

FAKE = pytest.mark.corosync_fake_only(reason="real daemons do not wait for Trio's turns")
LIMIT = 3.0
"""Seconds of the CPU."""


async def seen(seed: int, latency: float = 0.0, jitter: float = 0.0) -> str:
    """What clients do and see while five nodes come and go."""
    async with FakeCluster(nodes=5, latency=latency, jitter=jitter, seed=seed) as cluster:
        return (await random_faults(cluster, seed, seconds=1)).normalised().to_json_lines()


def digests() -> list[str]:
    """Of histories with latency and without, and of another schedule."""
    courses = [(partial(seen, 1), 1), (partial(seen, 1, 0.01, 0.02), 1), (partial(seen, 1), 2)]
    texts = [seeded_run(course, seed=seed) for course, seed in courses]
    assert min(map(len, texts)) > 100_000
    return [hashlib.sha256(text.encode()).hexdigest() for text in texts]


@FAKE
def test_one_seed_gives_one_history_and_another_seed_another() -> None:
    first = digests()
    assert digests() == first
    assert len(set(first)) == 3


@FAKE
def test_in_another_process_as_well() -> None:
    # Sets of strings have another order there, and everything is elsewhere in memory.
    code = "from test_determinism import digests; print(*digests())"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent), *sys.path])
    expected = digests()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": paths}
        command = [sys.executable, "-c", code]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert process.stdout.split() == expected


async def race() -> str:
    """What three clients of a group see that send at once, on a clock that stands still."""
    history = History()
    async with FakeCluster(nodes=3) as cluster, trio.open_nursery() as nursery:

        async def member(nodeid: int) -> None:
            endpoint = history.endpoint(cluster[nodeid], client=f"client {nodeid}")
            async with triocoro.open_group("g", endpoint=endpoint) as group:
                for number in range(3):
                    await group.send(b"%d" % number)
                own = 0
                async for event in group:
                    own += isinstance(event, Message) and event.sender == group.address
                    if own == 3:
                        break

        for nodeid in cluster.nodes:
            nursery.start_soon(member, nodeid)
    return history.normalised().to_json_lines()


@FAKE
def test_without_a_virtual_clock_while_nobody_sleeps() -> None:
    def raced(seed: int) -> str:
        with seeded(seed):
            return trio.run(race)

    first = raced(1)
    assert raced(1) == first
    assert len({raced(seed) for seed in range(5)}) == 5


@FAKE
async def test_in_a_test_of_pytest_trio() -> None:
    texts: list[str] = []
    for seed in (1, 1, 2):
        with seeded(seed):
            texts.append(await race())
    assert texts[0] == texts[1] != texts[2]


@FAKE
def test_hypothesis_gives_each_example_the_same_course() -> None:
    raced: list[str] = []

    @given(st.integers())
    @settings(max_examples=5, deadline=None, database=None)
    def example(_: int) -> None:
        raced.append(trio.run(race))

    example()
    assert len(raced) > 1 == len(set(raced))


# -- speed -------------------------------------------------------------------------------------------------------------


async def thousand_seconds(messages: int, latency: float, jitter: float) -> tuple[float, int]:
    """The time it took five members to send each other that many messages, and how many were received."""
    received = 0
    async with FakeCluster(nodes=5, latency=latency, jitter=jitter) as cluster, trio.open_nursery() as nursery:

        async def send(group: triocoro.Group) -> None:
            for number in range(messages // 5):
                await group.send(b"%d" % number)
                await trio.sleep(1005 * 5 / messages)

        async def member(nodeid: int) -> None:
            nonlocal received
            async with triocoro.open_group("g", endpoint=cluster[nodeid].endpoint) as group:
                # All are there before the first one sends.
                while len(group.view.members) < 5:
                    await group.receive()
                nursery.start_soon(send, group)
                own = 0
                while own < messages:
                    own += isinstance(await group.receive(), Message)
                received += own

        for nodeid in cluster.nodes:
            nursery.start_soon(member, nodeid)
    return trio.current_time(), received


@FAKE
@pytest.mark.parametrize(
    "messages, latency, jitter",
    [
        (2_000, 0.0, 0.0),
        (2_000, 0.01, 0.01),
        pytest.param(10_000, 0.0, 0.0, marks=pytest.mark.long),
        pytest.param(10_000, 0.01, 0.0, marks=pytest.mark.long),
    ],
)
def test_a_thousand_seconds_are_soon_over(messages: int, latency: float, jitter: float, bound: Bound) -> None:
    began = time.process_time()
    took, received = seeded_run(partial(thousand_seconds, messages, latency, jitter), seed=1)
    cpu = time.process_time() - began
    name = f"{received} messages come within {took:.0f} s, latency {latency} s, jitter {jitter} s: seconds of CPU"
    bound(name, cpu, LIMIT)
    assert received == 5 * messages
    assert took > 1000


@pytest.mark.corosync_fake_only(reason="the names of real clusters have a process id")
def test_clusters_have_the_same_names_in_each_run() -> None:
    async def program() -> list[str]:
        return [FakeCluster(nodes=1).name, FakeCluster(nodes=1).name]

    assert seeded_run(program, seed=1) == seeded_run(program, seed=1) == ["fake-1", "fake-2"]


# -- runs in which nothing can happen any more -------------------------------------------------------------------------


async def wait_for_each_other() -> None:
    await trio.sleep(100)
    event = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(event.wait)
        await event.wait()


def test_a_deadlock_is_an_error_that_says_where_each_task_waits() -> None:
    with pytest.raises(StuckError, match=r"after 100 s of virtual time every task waits(.|\n)*await event\.wait\(\)"):
        seeded_run(wait_for_each_other, seed=1)


@pytest.mark.corosync_fake_only(reason="real daemons need real time")
def test_what_is_no_deadlock() -> None:
    """A thread that is at work, a message under way, a socket that another thread may write to."""

    async def main() -> None:
        await trio.to_thread.run_sync(time.sleep, 0.1)
        async with (
            FakeCluster(nodes=1, latency=1000) as cluster,
            triocoro.open_group("g", endpoint=cluster[1]) as group,
        ):
            await group.send_and_wait(b"hello")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            thread = threading.Timer(0.1, theirs.send, [b"x"])
            thread.start()
            await trio.lowlevel.wait_readable(ours)
            thread.join()

    seeded_run(main, seed=1)


def test_only_a_clock_that_jumps_shows_a_deadlock() -> None:
    async def main() -> str:
        with trio.move_on_after(0.1), fail_when_stuck():
            await trio.sleep_forever()
        return "over"

    assert trio.run(main) == "over"
