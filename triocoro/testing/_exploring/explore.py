"""The search for a schedule of faults that makes a program fail, by Hypothesis."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from ... import _validate
from ..._runs import in_run
from .._cluster.options import ClusterOptions
from .._cluster.schedule import FaultSchedule
from .._fake.cluster import FakeCluster
from .._seeded import seeded_run
from .drawing import Knobs, ScheduleSettings, schedule_of

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy
    from typing_extensions import Unpack  # in typing from Python 3.11 on

_MOST_SEEDS: Final = 2**32 - 1


def fault_schedules(**settings: Unpack[ScheduleSettings]) -> SearchStrategy[FaultSchedule]:
    """A Hypothesis strategy for schedules of faults, for `explore`.

    It shrinks to few steps, early times and simple faults.

    Args:
        settings: see `ScheduleSettings`.

    Raises:
        ValueError: a setting is wrong, or a minority has no nodes.
        TypeError: a setting is wrong.
        ImportError: Hypothesis is not installed.
    """
    _require_hypothesis()
    from hypothesis import strategies as st

    knobs = Knobs(**settings)
    step = st.tuples(
        st.integers(0, knobs.milliseconds), st.sampled_from(knobs.kinds), st.integers(0, knobs.choices - 1)
    )

    @st.composite
    def schedules(draw: st.DrawFn) -> FaultSchedule:
        return schedule_of(knobs, draw(st.lists(step, max_size=knobs.steps)))

    return schedules()


def explore(
    program: Callable[[FakeCluster], Awaitable[object]],
    *,
    options: ClusterOptions | None = None,
    latency: float = 0,
    jitter: float = 0,
    schedules: SearchStrategy[FaultSchedule] | FaultSchedule | None = None,
    seeds: SearchStrategy[int] | int | None = None,
    max_examples: int = 100,
) -> None:
    """Search for a seed and a schedule of faults that make a program fail, and simplify them.

    Each example is a `seeded_run` of the program with a new `FakeCluster`, whose first node is the default endpoint,
    and beside a nemesis that plays the schedule. Time is virtual, and each example takes the same course whenever it is
    run. The failure has a note with the `schedules` and `seeds` that repeat the simplest example that was found.

    Nothing is logged meanwhile, but for one more run of that example at the end.

    It is synchronous: call it in a plain function, also in one that pytest-trio would not run.

    Args:
        program: an async function of the cluster that raises an error if something is wrong.
        options: the configuration of each cluster; by default `ClusterOptions()`.
        latency: the latency of each cluster, as of `FakeCluster`.
        jitter: its jitter, likewise. The example's seed determines it.
        schedules: a strategy, by default `fault_schedules(options=options)`; or the only schedule.
        seeds: a strategy, by default for any seed; or the only one.
        max_examples: the maximum number of examples before one fails. With one schedule and one seed there is only one.

    Raises:
        ImportError: Hypothesis is not installed.
        RuntimeError: it was called in a Trio run.
        Exception: what the program has raised in the simplest example that fails.
    """
    _require_hypothesis()
    from hypothesis import HealthCheck, Phase, given, settings, strategies as st

    if in_run():
        raise RuntimeError("explore runs Trio itself, once for each example: call it outside of a Trio run")
    _validate.positive(max_examples, "max_examples")
    chosen = ClusterOptions() if options is None else options
    if schedules is None:
        schedules = fault_schedules(options=chosen)
    if seeds is None:
        seeds = st.integers(0, _MOST_SEEDS)

    failed: list[tuple[FaultSchedule, int]] = []

    def example(schedules: FaultSchedule, seeds: int) -> None:
        async def run() -> None:
            async with FakeCluster(options=chosen, latency=latency, jitter=jitter, seed=seeds) as cluster:
                with next(iter(cluster.nodes.values())).as_default():
                    async with cluster.nemesis(schedules):
                        await program(cluster)

        try:
            seeded_run(run, seed=seeds)
        except BaseException:
            failed[:] = [(schedules, seeds)]
            raise

    example.__name__ = "explore"  # Hypothesis prints the arguments of an example that fails as a call of the function
    search = given(
        schedules=st.just(schedules) if isinstance(schedules, FaultSchedule) else schedules,
        seeds=st.just(seeds) if isinstance(seeds, int) else seeds,
    )(example)
    search = settings(
        max_examples=max_examples,
        deadline=None,  # what takes time on a busy machine is no failure
        database=None,  # it would mix the examples of all programs, as all have the function above
        report_multiple_bugs=False,
        print_blob=False,
        phases=set(Phase) - {Phase.explain},  # which traces every line
        suppress_health_check=[HealthCheck.too_slow],
    )(search)
    try:
        with _without_logs():
            search()
    except BaseException:
        if failed:
            with suppress(BaseException):
                example(*failed[0])  # once more, the simplest one, for its logs
        raise


@contextmanager
def _without_logs() -> Generator[None, None, None]:
    """No logs within the block: those of hundreds of examples would bury the ones that matter."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.CRITICAL))
    try:
        yield
    finally:
        logging.disable(before)


def _require_hypothesis() -> None:
    if importlib.util.find_spec("hypothesis") is None:
        raise ImportError("the search for schedules of faults needs Hypothesis: pip install 'triocoro[hypothesis]'")
