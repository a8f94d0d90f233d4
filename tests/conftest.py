"""What all tests share: `figure`, which reports a measurement, and the check that nothing is left behind."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias, cast

import attrs
import pytest
import trio

pytest_plugins = ["pytester"]

Figure: TypeAlias = Callable[[str, str], None]
"""What the fixture `figure` gives: call it with a name and a value."""

Run: TypeAlias = Callable[..., pytest.RunResult]
"""What the fixture `run` gives."""

# Every process that a test starts inherits this, whoever adopts it when its parent dies, so it tells ours from others'.
_TOKEN = uuid.uuid4().hex
os.environ["TRIOCORO_TEST_RUN"] = _TOKEN

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
def run(pytester: pytest.Pytester, corosync_mode: str) -> Run:
    """Run pytest on the text of a test file, in the mode of this session unless told otherwise."""

    def run_source(source: str, *args: str, mode: str | None = corosync_mode) -> pytest.RunResult:
        pytester.makepyfile(source)
        chosen = [] if mode is None else [f"--corosync={mode}"]
        return pytester.runpytest(*chosen, *args)

    return run_source


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
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
