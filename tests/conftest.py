"""What all tests share: `figure` and `bound`, which report measurements; the count of what runs on real Corosync, on
the fake and on both; and the check that nothing is left behind.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import attrs
import pytest
import trio

pytest_plugins = ["pytester"]

# A shell that runs us in the background has us ignore interrupts, which tests send to processes that inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Figure: TypeAlias = Callable[[str, str], None]
"""What the fixture `figure` gives: call it with a name and a value."""

Bound: TypeAlias = Callable[[str, float, float], None]
"""What the fixture `bound` gives: call it with a name, a number, and what that may be at most."""

Run: TypeAlias = Callable[..., pytest.RunResult]
"""What the fixture `run` gives."""

# Every process that a test starts inherits this, whoever adopts it when its parent dies, so it tells ours from others'.
_TOKEN = uuid.uuid4().hex
os.environ["TRIOCORO_TEST_RUN"] = _TOKEN

_BOUNDS_ONLY = os.environ.get("BOUNDS") == "only"
"""Run only the tests that measure bounds of the product, and fail if one is exceeded; `make bounds` sets it."""

_GRACE = 10.0
"""Seconds that what ends by itself, such as a killed process, may take to do so."""


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Report a measurement: `figure("connect", "3.1 ms")` is printed at the end of the run."""
    item = cast("pytest.Item", request.node)

    def report(name: str, value: str) -> None:
        # A property of the test, since those find their way from xdist's workers to the terminal.
        item.user_properties.append(("figure", f"{name}: {value}"))

    return report


@pytest.fixture
def bound(figure: Figure) -> Bound:
    """Report a measurement of the product, and what it may be on a quiet machine.

    It fails the test under `make bounds` only: elsewhere, others may be at work.
    """

    def report(name: str, value: float, at_most: float) -> None:
        exceeded = value > at_most
        figure(name, f"{value:.4g} (at most {at_most:g}){', EXCEEDED' if exceeded else ''}")
        assert not (exceeded and _BOUNDS_ONLY), f"{name}: {value:.4g} is more than {at_most:g}"

    return report


@pytest.fixture
def run(pytester: pytest.Pytester, corosync_mode: str) -> Run:
    """Run pytest on the text of a test file, in the mode of this session unless told otherwise."""

    def run_source(source: str, *args: str, mode: str | None = corosync_mode) -> pytest.RunResult:
        pytester.makepyfile(source)
        chosen = [] if mode is None else [f"--corosync={mode}"]
        return pytester.runpytest(*chosen, *args)

    return run_source


_KINDS = ("on both", "on real Corosync only", "on the fake only", "without a cluster")
"""What tests run on, whatever the mode of the session."""


def _kind(item: pytest.Item) -> str:
    if item.get_closest_marker("corosync_real_only") is not None:
        return "on real Corosync only"
    if item.get_closest_marker("corosync_fake_only") is not None:
        return "on the fake only"
    # All fixtures with clusters depend on that one.
    return "on both" if "corosync_mode" in getattr(item, "fixturenames", ()) else "without a cluster"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Note of each test what it runs on; as with figures, xdist's workers tell the terminal."""
    if _BOUNDS_ONLY:
        items[:] = [item for item in items if "bound" in getattr(item, "fixturenames", ())]
    for item in items:
        item.user_properties.append(("kind", _kind(item)))


@pytest.fixture(autouse=True)
def has_no_cluster_of_its_own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a test that is said to run without a cluster do so."""
    if _kind(cast("pytest.Item", request.node)) == "without a cluster":
        from triocoro.testing import Cluster

        def refuse(cluster: Cluster, *_: object) -> None:
            pytest.fail(
                f"a {type(cluster).__name__} in a test that runs in both modes: take the fixtures or corosync_mode, or"
                " mark the test corosync_real_only(reason=...) or corosync_fake_only(reason=...)",
                pytrace=False,
            )

        monkeypatch.setattr(Cluster, "__init__", refuse)


def _conformance(reports: Iterable[object]) -> str:
    """How many tests there were of each kind."""
    kinds = Counter(
        value
        for report in reports
        # Each test has one such report, even if it is skipped.
        if isinstance(report, pytest.TestReport) and report.when == "setup"
        for name, value in report.user_properties
        if name == "kind"
    )
    first, *rest = (f"{kinds[kind]} {kind}" for kind in _KINDS)
    return ", ".join([first.replace(" ", " tests ", 1), *rest])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures, and what they were measured on."""
    reports = cast("dict[str, list[object]]", terminalreporter.stats).values()
    terminalreporter.write_line(f"conformance: {_conformance(itertools.chain(*reports))}")
    figures = [
        value
        for outcome in ("passed", "failed")
        for report in cast("list[pytest.TestReport]", terminalreporter.getreports(outcome))
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
        for line in figures:
            terminalreporter.write_line(str(line))


@attrs.frozen
class _Traces:
    """What a test run could leave behind, each with a text that says what it is."""

    processes: dict[int, str]
    mounts: frozenset[str]
    interfaces: frozenset[str]
    shared_memory: frozenset[str]
    fds: dict[int, str]
    threads: frozenset[str]

    @classmethod
    def now(cls) -> _Traces:
        return cls(
            processes=_our_processes(),
            # Namespaces live in processes, or where one is bound to a file: those are mounts of type nsfs.
            mounts=frozenset(_lines("/proc/self/mountinfo")),
            interfaces=_names("/sys/class/net"),
            shared_memory=_names("/dev/shm", "qb-"),
            fds=_open_fds(),
            threads=_busy_threads(),
        )

    def left_since(self, before: _Traces) -> list[str]:
        return [
            *(f"process {pid}: {text}" for pid, text in self.processes.items() if pid not in before.processes),
            *(f"mount: {line}" for line in sorted(self.mounts - before.mounts)),
            *(f"network interface: {name}" for name in sorted(self.interfaces - before.interfaces)),
            *(f"shared memory: {name}" for name in sorted(self.shared_memory - before.shared_memory)),
            *(f"fd {fd}: {text}" for fd, text in self.fds.items() if before.fds.get(fd) != text),
            *(f"thread: {name}" for name in sorted(self.threads - before.threads)),
        ]


def _names(folder: str, prefix: str = "") -> frozenset[str]:
    return frozenset(path.name for path in Path(folder).iterdir() if path.name.startswith(prefix))


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()


def _our_processes() -> dict[int, str]:
    """The processes that carry our token in the environment that they were started with."""
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if _TOKEN.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def _open_fds() -> dict[int, str]:
    """All but the standard ones, which pytest captures, or an interrupt has it capture no more."""
    found: dict[int, str] = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found[int(link.name)] = str(link.readlink())
        except OSError:  # the one that listed them
            continue
    return {fd: text for fd, text in found.items() if fd > 2}


def _busy_threads() -> frozenset[str]:
    """All threads but those that Trio keeps for its next call, which end after ten idle seconds."""
    cache: Any = trio._core._thread_cache.THREAD_CACHE
    idle = {worker._thread for worker in cache._idle_workers}
    return frozenset(f"{t.name} ({t.ident})" for t in threading.enumerate() if t not in idle)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fail the run (as an error of its last test) if it leaves anything behind."""
    before = _Traces.now()
    yield
    deadline = time.monotonic() + _GRACE
    while (left := _Traces.now().left_since(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if left:
        pytest.fail("\n".join(["the run left behind:", *left]), pytrace=False)
