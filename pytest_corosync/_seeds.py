"""Tests that run under many seeds, one after the other, until one fails: the marker `corosync_seeds`.

Each run of such a test is its whole protocol: the fixtures of function scope are set up, the test is called, and they
are torn down. To pytest it is one test all the same, with the reports of the last run. A `trio(run=...)` marker makes
pytest-trio use a clock that jumps.
"""

from __future__ import annotations

import gc
import os
import random
import shlex
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from . import _options, _rerun

if TYPE_CHECKING:
    from triocoro.testing import ClusterSource

_STRICT: Final = "[XPASS(strict)]"
"""How pytest's report of a test begins that was expected to fail, and is an error if it does not."""


@dataclass(frozen=True)
class Seeding:
    """The seed that a test runs under."""

    seed: int
    latency: float
    """Of the test's fake clusters, in seconds, as is `jitter`."""
    jitter: float
    command: str
    """The command line that repeats this run."""


SEEDING: Final = pytest.StashKey[Seeding]()
"""In the stash of a test that is marked with `corosync_seeds`, while it runs: the present run."""


@dataclass(frozen=True)
class _Plan:
    """All runs of a test."""

    seeds: Sequence[int]
    latency: float
    jitter: float


def check(item: pytest.Item) -> None:
    """Fail a test whose marker is wrong, and one that the marker cannot run anew."""
    fixtures = getattr(item, "fixturenames", ())
    if not hasattr(getattr(item, "obj", None), "hypothesis"):
        _plan(item)
    elif item.get_closest_marker("corosync_seeds") is not None or "_corosync_lend" in fixtures:
        pytest.fail(
            "all examples of a test with @given share its fixtures, and so one cluster, and its clock. Use"
            " triocoro.testing.explore, which gives each example a cluster of its own, and draws seeds and schedules of"
            " faults, or make a FakeCluster inside the test",
            pytrace=False,
        )


def run_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test under its seeds; returns whether it has any."""
    try:
        plan = _plan(item)
    except pytest.fail.Exception:
        return False  # `check` reports it
    if plan is None or not isinstance(item, pytest.Function) or hasattr(item.obj, "hypothesis"):
        return False
    hooks, place = item.ihook, {"nodeid": item.nodeid, "location": item.location}
    hooks.pytest_runtest_logstart(**place)
    with _spared_collections():
        reports = _reports(item, nextitem, plan)
    for report in reports:
        hooks.pytest_runtest_logreport(report=report)
    hooks.pytest_runtest_logfinish(**place)
    return True


@contextmanager
def _spared_collections() -> Generator[None, None, None]:
    """Let garbage collections within a `with` block leave alone what is there before it.

    Each run leaves objects in cycles. Without this, every few seeds a collection goes through all of pytest's objects.
    """
    if gc.get_freeze_count():  # the program's own
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _reports(item: pytest.Function, nextitem: pytest.Item | None, plan: _Plan) -> list[pytest.TestReport]:
    """Run a test under one seed after the other. The durations of the reports are those of all runs together."""
    from triocoro.testing import seeded

    if item.get_closest_marker("trio") is not None:
        # Before the marker of pytest-trio's trio_mode, which has another `run`: the first one counts.
        item.add_marker(pytest.mark.trio(run=_runner(item)), append=False)
    function, properties = item.obj, len(item.user_properties)
    durations = {"setup": 0.0, "call": 0.0, "teardown": 0.0}
    reports: list[pytest.TestReport] = []
    start = 0.0
    for seed in plan.seeds:
        if reports:
            _rerun.renew(item, function)
            del item.user_properties[properties:]
        item.stash[SEEDING] = Seeding(seed, plan.latency, plan.jitter, _command(item, seed))
        with seeded(seed):
            reports = _rerun.run(item, nextitem, last=seed == plan.seeds[-1], goes_on=_goes_on)
        start = start or reports[0].start
        for report in reports:
            durations[report.when] += report.duration
        if not all(_goes_on(report) for report in reports):
            break
    for report in reports:
        report.duration = durations[report.when]
    reports[0].start = start
    return reports


def _goes_on(report: pytest.TestReport) -> bool:
    """Whether the next seed follows this report. A test that is expected to fail has not passed before its last one."""
    return report.passed or str(report.longrepr).startswith(_STRICT)


def _runner(item: pytest.Item) -> Callable[..., object]:
    """What pytest-trio is to use instead of `trio.run`."""

    def run(async_fn: Callable[..., Any], *, clock: Any = None, **options: Any) -> object:  # noqa: ANN401 - as trio.run
        import trio
        import trio.testing

        from triocoro.testing import fail_when_stuck

        async def program() -> None:
            with fail_when_stuck():
                await async_fn()

        if clock is None and _options.mode(item.config) == "fake":
            clock = trio.testing.MockClock(autojump_threshold=0)
        random.seed(item.stash[SEEDING].seed)  # pytest-randomly has seeded it anew
        return trio.run(program, clock=clock, **options)

    return run


def source(item: pytest.Item) -> ClusterSource | None:
    """The source of the fake clusters of a test's run; `None` for other tests, and for real clusters."""
    from triocoro.testing import FakeClusterSource

    seeding = item.stash.get(SEEDING, None)
    if seeding is None or _options.mode(item.config) != "fake":
        return None
    return FakeClusterSource(latency=seeding.latency, jitter=seeding.jitter, seed=seeding.seed)


def section(item: pytest.Item) -> tuple[str, str] | None:
    """The section of a failure's report that says how to repeat it."""
    seeding = item.stash.get(SEEDING, None)
    if seeding is None:
        return None
    real = _options.mode(item.config) == "real"
    hope = "; real clusters take real time, so it may not fail again" if real else ""
    return "corosync seed", f"seed {seeding.seed}; to repeat this run{hope}:\n  {seeding.command}"


def _plan(item: pytest.Item) -> _Plan | None:
    """The runs of a test; `None` if it has no marker. An invalid one fails the test."""
    marker = item.get_closest_marker("corosync_seeds")
    if marker is None:
        return None
    times = {name: marker.kwargs.get(name, _options.seconds(item.config, name)) for name in ("latency", "jitter")}
    if len(marker.args) != 1 or marker.kwargs.keys() - times.keys():
        pytest.fail(
            "@pytest.mark.corosync_seeds takes the number of seeds and, by keyword, latency and jitter", pytrace=False
        )
    (number,) = marker.args
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        pytest.fail(f"@pytest.mark.corosync_seeds takes the number of seeds, 1 or more, not {number!r}", pytrace=False)
    for name, value in times.items():
        if not _options.is_time(value):
            pytest.fail(f"@pytest.mark.corosync_seeds: {name} takes seconds, 0 or more, not {value!r}", pytrace=False)
    seed, seeds = _options.seed(item.config), _options.seeds(item.config)
    if seed is not None:
        chosen: Sequence[int] = (seed,)
    elif seeds is not None:
        chosen = range(seeds)
    else:
        chosen = range(min(number, _options.REAL_RUNS) if _options.mode(item.config) == "real" else number)
    return _Plan(chosen, **times)


def _command(item: pytest.Item, seed: int) -> str:
    path = os.path.relpath(item.path, item.config.invocation_params.dir)
    _, _, name = item.nodeid.partition("::")
    return shlex.join(["pytest", f"{path}::{name}", f"--corosync-seed={seed}", *_options.given(item.config)])
