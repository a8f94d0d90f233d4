"""What is left of a real cluster when it has ended, however it ends: nothing, unless it was to be kept."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
import trio
from support.fixtures.figures import Bound
from support.fixtures.inner_runs import FEW_PLUGINS
from support.fixtures.long import long
from support.traces import (
    Machine,
    Marked,
    holders_of,
    links_in,
    names_in,
    namespaces_of,
    nothing_left,
    processes_in,
    supervisor_of,
    wait_until,
)

import triocoro
from triocoro.testing import NetnsCluster
from triocoro.testing._netns import requirements

pytestmark = pytest.mark.corosync_real_only(reason="a fake has nothing outside of its process")

GONE_BOUND = 2.0
"""Seconds in which all is gone after the death of the process that had it."""

PATIENCE = 30.0
"""Seconds in which a process that we start comes to its point."""


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Marked]:
    """The processes that this test starts, and their children; those that are left at its end are killed."""
    marked = Marked(uuid.uuid4().hex)
    monkeypatch.setenv("TRIOCORO_TEST_NETNS", marked.mark)
    yield marked
    marked.kill()


def output_of(arguments: list[str]) -> str:
    # A file, as for the end of a pipe one would wait until the last child has ended.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        subprocess.run(arguments, check=True, stdout=output, timeout=PATIENCE)
        output.seek(0)
        return output.read()


# --- the end of the block ---------------------------------------------------------------------------------------------


async def test_nothing_is_left(marked: Marked) -> None:
    own_user = 0 if os.geteuid() == 0 else 1  # an ordinary user's clusters have a user namespace as well
    with nothing_left():
        async with NetnsCluster(nodes=2) as cluster:
            pids = [namespaces_of(node.pid)[1] for node in cluster.nodes.values()]
            assert len(set(pids)) == 1
            assert len(processes_in(pids[0])) == 5  # the supervisor, and two for each node
            assert len(marked.namespaces()) == own_user + 1 + 2 * 3
            await cluster[1].freeze()  # ends all the same
        # That the pid namespace has ended was waited for.
        assert not processes_in(pids[0])
        assert not marked.namespaces()
    assert not cluster[1].running
    assert cluster[1].pid is None
    assert "Corosync Cluster Engine" in cluster[1].log
    assert cluster.reachable(1) == frozenset()
    with pytest.raises(triocoro.CorosyncUnavailableError, match="its cluster does not run"):
        async with triocoro.open_votequorum(endpoint=cluster[1].endpoint):
            pass
    with pytest.raises(RuntimeError, match="does not run"):
        await cluster[1].start()


async def test_a_cancelled_start_leaves_nothing(marked: Marked) -> None:
    with nothing_left():
        with trio.move_on_after(0.2) as scope:
            async with NetnsCluster():
                pytest.fail("too fast for this test")
        assert scope.cancelled_caught
        assert not marked.processes()


_FORKER = """\
import os
import signal
import time

from triocoro.testing import NetnsCluster

with NetnsCluster(nodes=1):
    # A child has copies of all our fds, that of the supervisor's control socket among them.
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    start = time.monotonic()
print(time.monotonic() - start)
os.kill(child, 0)
"""


def test_a_forked_child_does_not_hold_up_the_end(marked: Marked, bound: Bound) -> None:
    seconds = float(output_of([sys.executable, "-c", _FORKER]))
    bound("the end of a cluster, with a forked child: seconds", seconds, GONE_BOUND)
    assert len(marked.processes()) == 1  # the child


# --- the end of the process -------------------------------------------------------------------------------------------

_SUITE = """\
import os
import signal

import trio

# Whatever runs us may have had interrupts ignored, as shells do for what they run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
open(os.environ["TRIOCORO_TEST_POINTS"], "a").close()


def wait_for_the_end(child=""):
    with open(os.environ["TRIOCORO_TEST_POINTS"], "a") as points:
        print(child, file=points)
    while True:
        signal.pause()


def test_running(corosync_cluster):
    wait_for_the_end()


def test_running_too(corosync_cluster):
    wait_for_the_end()


def test_broken(corosync_cluster):
    async def break_it():
        await corosync_cluster[2].freeze()
        await corosync_cluster.isolate(3)

    trio.run(break_it)
    wait_for_the_end()


def test_forked(corosync_cluster):
    # A child has copies of all our fds, that of the supervisor's control socket among them.
    child = os.fork()
    if child == 0:
        while True:
            signal.pause()
    wait_for_the_end(child)


def test_two(make_corosync_cluster):
    make_corosync_cluster(nodes=3)
    make_corosync_cluster(nodes=2)
    wait_for_the_end()
"""

_OF_THREE = 1 + 2 * 3
_OF_TWO = 1 + 2 * 2


@attrs.frozen
class Run:
    """A pytest process of its own, with real clusters in its tests."""

    process: subprocess.Popen[bytes]
    marked: Marked
    points: Path
    temporary: Path
    before: Machine

    def inside(self) -> frozenset[int]:
        """The processes in pid namespaces other than ours."""
        own = processes_in(namespaces_of(os.getpid())[1])
        return self.marked.processes() - own

    def wait_for(self, condition: Callable[[], bool]) -> None:
        assert wait_until(lambda: self.process.poll() is not None or condition(), PATIENCE)
        assert self.process.returncode is None, "it has ended before"

    def tests_that_wait(self) -> int:
        """The tests that have come to their point; -1 before there are tests: the plugin looks at the kernel first."""
        if not self.points.exists():
            return -1
        return len(self.points.read_text(encoding="ascii").splitlines())

    def ends_without_trace(self, number: signal.Signals) -> float:
        """Send the signal, and wait until nothing is left; in how many seconds that was."""
        assert self.tests_that_wait() >= 0
        spared = frozenset(map(int, self.points.read_text(encoding="ascii").split()))
        namespaces = self.marked.namespaces()
        holders = holders_of(namespaces)
        start = time.monotonic()
        self.process.send_signal(number)
        if number == signal.SIGINT:
            self.process.wait(PATIENCE)  # it has to say what was interrupted

        def traces() -> list[object]:
            self.process.poll()
            left = self.marked.processes() - spared, holders & holders_of(namespaces), names_in(self.temporary)
            return [trace for trace in left if trace]

        gone = wait_until(lambda: not traces() and Machine() == self.before, PATIENCE)
        seconds = time.monotonic() - start
        assert gone, (*traces(), attrs.asdict(Machine()), attrs.asdict(self.before))
        return seconds


@pytest.fixture
def run_pytest(marked: Marked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    """Start tests of `_SUITE` in a process of their own."""
    (tmp_path / "test_suite.py").write_text(_SUITE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    temporary, points = tmp_path / "temporary", tmp_path / "points"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("TRIOCORO_TEST_POINTS", str(points))
    # Those of a worker of xdist are not for a run of its own.
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)

    def start(*arguments: str) -> Run:
        before = Machine()
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "--corosync=real", f"--basetemp={tmp_path}/base", *arguments],
            cwd=tmp_path,
            env={**os.environ, **FEW_PLUGINS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        return Run(process, marked, points, temporary, before)

    with ExitStack() as stack:
        yield start
        marked.kill()


@pytest.mark.parametrize("name", ["running", *long("broken", "forked")])
def test_pytest_killed_in_mid_test(name: str, run_pytest: Callable[..., Run], bound: Bound) -> None:
    run = run_pytest(f"test_suite.py::test_{name}")
    run.wait_for(lambda: run.tests_that_wait() == 1)
    assert len(run.inside()) == _OF_THREE
    namespaces = run.marked.namespaces()
    assert len(namespaces) >= 1 + 2 * (1 + 3)  # of processes; of networks and mounts, the hub's and the nodes'
    assert {namespace for _, namespace in holders_of(namespaces)} == namespaces
    seconds = run.ends_without_trace(signal.SIGKILL)
    bound(f"from SIGKILL of pytest to nothing, {name}: seconds", seconds, GONE_BOUND)


@pytest.mark.parametrize("processes", [*long(1, 4), _OF_THREE], ids=["supervisor", "holders", "daemons"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_pytest_ended_while_a_cluster_starts(
    processes: int,
    number: signal.Signals,
    run_pytest: Callable[..., Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Daemons that are never ready, so that the start is not over before we have seen it. The version is asked for, too.
    idle, corosync = tmp_path / "corosync", requirements.find_program("corosync")
    idle.write_text(f'#!/bin/sh\n[ "$1" != -f ] || exec sleep 1000\nexec {corosync} "$@"\n', encoding="utf-8")
    idle.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run = run_pytest("test_suite.py::test_running")
    run.wait_for(lambda: run.tests_that_wait() == 0 and len(run.inside()) >= processes)
    run.ends_without_trace(number)
    assert run.tests_that_wait() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, *long(signal.SIGTERM, signal.SIGINT)])
def test_pytest_ended_with_two_clusters(number: signal.Signals, run_pytest: Callable[..., Run]) -> None:
    run = run_pytest("test_suite.py::test_two")
    run.wait_for(lambda: run.tests_that_wait() == 1)
    assert len(run.inside()) == _OF_THREE + _OF_TWO
    run.ends_without_trace(number)
    assert run.process.wait() == (pytest.ExitCode.INTERRUPTED if number == signal.SIGINT else -number)


def test_pytest_killed_with_workers(run_pytest: Callable[..., Run], bound: Bound) -> None:
    run = run_pytest("-n", "2", "-k", "test_running")
    run.wait_for(lambda: run.tests_that_wait() == 2)
    assert len(run.inside()) == 2 * _OF_THREE
    seconds = run.ends_without_trace(signal.SIGKILL)
    bound("from SIGKILL of pytest with two workers to nothing: seconds", seconds, GONE_BOUND)


# --- what is to be kept -----------------------------------------------------------------------------------------------


def command(cluster: NetnsCluster, purpose: str) -> list[str]:
    """The first command with that purpose in the directions for people, who give it to a shell."""
    found = re.search(rf"^  {purpose}: (.*)$", cluster.how_to_enter, re.MULTILINE)
    assert found is not None, cluster.how_to_enter
    return ["sh", "-c", found[1]]


@pytest.mark.parametrize("inside", [False, True], ids=["outside of a run", "inside"])
def test_a_kept_cluster_outlives_its_block(*, inside: bool, marked: Marked) -> None:
    cluster = NetnsCluster(nodes=2)

    async def hold() -> None:
        async with cluster:
            cluster.keep()

    with nothing_left():
        if inside:
            trio.run(hold)
        else:
            with cluster:
                cluster.keep()
        assert cluster[1].pid is None
        assert "Corosync Cluster Engine" in cluster[1].log
        with pytest.raises(triocoro.CorosyncUnavailableError, match="its cluster does not run"):
            trio.run(triocoro.open_cpg(endpoint=cluster[1].endpoint).__aenter__)

        assert cluster.how_to_enter.splitlines()[0] == f"the cluster {cluster.name}:"
        for nodeid in cluster.nodes:
            said = output_of(command(cluster, f"look into node {nodeid}"))
            assert re.search(rf"^Node ID: +{nodeid}$", said, re.MULTILINE)
            assert re.search(r"^Quorate: +Yes$", said, re.MULTILINE)
        assert "Corosync Cluster Engine" in output_of(command(cluster, "read its log"))

        output_of(command(cluster, "end all of it"))
        assert wait_until(lambda: not marked.processes(), PATIENCE)


def test_a_cluster_that_is_no_longer_kept_leaves_nothing(marked: Marked) -> None:
    with nothing_left(), NetnsCluster(nodes=1) as cluster:
        cluster.keep()
        cluster.keep()
        cluster.keep(kept=False)
    assert not marked.processes()


def test_only_a_running_cluster_can_be_kept() -> None:
    cluster = NetnsCluster(nodes=1)
    assert cluster.how_to_enter == ""
    with pytest.raises(RuntimeError, match="does not run"):
        cluster.keep()
    with cluster:
        pass
    with pytest.raises(RuntimeError, match="does not run"):
        cluster.keep()


_KEEPER = """\
import signal
from triocoro.testing import NetnsCluster

with NetnsCluster(nodes=2) as cluster:
    cluster.keep()
    print(cluster.how_to_enter, flush=True)
    signal.pause()
"""


def test_a_kept_cluster_outlives_its_process(marked: Marked) -> None:
    before = Machine()
    with subprocess.Popen([sys.executable, "-c", _KEEPER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(6)]
        process.kill()
        # Nothing of it holds our pipe.
        assert process.stdout.read() == ""
    enter, read, *_, end = (["sh", "-c", line.partition(":")[2]] for line in lines[1:])
    try:
        # The supervisor knows of the death, as it would have ended otherwise, before it answers anybody who enters.
        assert len(marked.processes()) == 1 + _OF_TWO  # and who waits for the supervisor
        # The log is there even when the daemon is not.
        assert "Quorate:          Yes" in output_of(enter)
        assert "Corosync Cluster Engine" in output_of(read)
    finally:
        output_of(end)
    assert wait_until(lambda: not marked.processes() and Machine() == before, PATIENCE)


_ASKER = """\
import os
import select
import signal
import socket

from support.traces import supervisor_of
from triocoro.testing import NetnsCluster


def die(control, *_):
    if not {frozen}:
        select.select([control], [], [])
    os.kill(os.getpid(), signal.SIGKILL)


with NetnsCluster(nodes=2) as cluster:
    cluster.keep()
    print(cluster.how_to_enter, flush=True)
    if {frozen}:
        os.kill(supervisor_of(cluster[1].namespace_pid), signal.SIGSTOP)
    socket.recv_fds = die
    cluster.keep()
"""


@pytest.mark.parametrize("frozen", [True, False], ids=["not answered", "answer not read"])
def test_a_kept_cluster_outlives_its_process_in_mid_request(*, frozen: bool, marked: Marked) -> None:
    asker = [sys.executable, "-c", _ASKER.format(frozen=frozen)]
    with subprocess.Popen(asker, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent) as process:
        assert process.stdout is not None
        enter, *_ = (["sh", "-c", line.partition(":")[2]] for line in process.stdout.read().splitlines()[1:])
    assert process.returncode == -signal.SIGKILL
    words = enter[-1].split()
    supervisor = supervisor_of(int(words[words.index("--target") + 1]))
    os.kill(supervisor, signal.SIGCONT)
    # Once it has understood, it holds our socket no longer.
    assert wait_until(lambda: not any(to.startswith("socket:") for to in links_in(f"/proc/{supervisor}/fd")), PATIENCE)
    assert "Quorate:          Yes" in output_of(enter)
    assert len(marked.processes()) == 1 + _OF_TWO
