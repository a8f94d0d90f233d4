"""The same seed, the same course: Trio's schedule, and what clients of the fake see."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from conftest import Run
from hypothesis import given, settings, strategies as st

from triocoro.testing import seeded, seeded_run

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
def test_what_was_before_is_restored(monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
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
