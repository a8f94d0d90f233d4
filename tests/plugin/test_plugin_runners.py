"""The plugin beside others: each way to run async tests, several processes, and Control-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.fixtures.inner_runs import Run

BODY = """
    async with triocoro.open_group("chat") as group:
        message = await group.send_and_wait(b"hello")
        assert message.sender.nodeid == 1
    async with triocoro.open_votequorum() as votequorum:
        assert (await votequorum.info()).total_votes == NODES
"""
IMPORTS = "import anyio\nimport pytest\nimport trio\nimport triocoro\n\n"


BOUND = 120
"""Seconds for what takes two, and twenty on a machine that has ten times as much to do as it can."""


def body(nodes: int) -> str:
    return BODY.replace("NODES", str(nodes))


def test_pytest_trio_with_trio_mode(run: Run) -> None:
    result = run(
        f"{IMPORTS}async def test_one(corosync):{body(1)}\nasync def test_three(corosync_cluster):{body(3)}",
        "-o",
        "trio_mode=true",
    )
    result.assert_outcomes(passed=2)


def test_pytest_trio_without_trio_mode(run: Run) -> None:
    result = run(
        f"{IMPORTS}@pytest.mark.trio\nasync def test_one(corosync):{body(1)}\n"
        f"@pytest.mark.trio\nasync def test_three(corosync_cluster):{body(3)}"
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("plugin", [True, False])
def test_an_async_test_that_nothing_runs(run: Run, *, plugin: bool) -> None:
    """Trio mode was forgotten, or pytest-trio is not installed. It says so, and fails with every pytest."""
    without = [] if plugin else ["-p", "no:trio"]
    result = run(f"{IMPORTS}async def test_one(corosync):{body(1)}", *without)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no plugin of pytest has run it*`trio_mode = true`*pytest.mark.trio*"])
    assert ("install pytest-trio" in result.stdout.str()) is not plugin


def test_an_async_test_without_our_fixtures_is_pytests_own_matter(run: Run) -> None:
    result = run("async def test_one(): pass")
    result.stdout.no_fnmatch_line("*no plugin of pytest has run it*")


def test_async_fixtures_of_pytest_trio(run: Run) -> None:
    """They may take ours, and have the default endpoint."""
    result = run(
        f"""{IMPORTS}
@pytest.fixture
async def group(corosync):
    async with triocoro.open_group("chat") as group:
        yield group

async def test_it(group, corosync_cluster, nursery):
    assert (await group.send_and_wait(b"hello")).payload == b"hello"
    assert group.address.nodeid == 1
""",
        "-o",
        "trio_mode=true",
    )
    result.assert_outcomes(passed=1)


def test_anyio_with_the_trio_backend(run: Run) -> None:
    result = run(
        f"""{IMPORTS}
@pytest.fixture
def anyio_backend():
    return "trio"

@pytest.mark.anyio
async def test_one(corosync):{body(1)}

@pytest.fixture
async def group(corosync_cluster):
    async with triocoro.open_group("chat") as group:
        yield group

@pytest.mark.anyio
async def test_three(group):
    assert (await group.send_and_wait(b"hello")).payload == b"hello"
""",
        "-p",
        "anyio",
    )
    result.assert_outcomes(passed=2)


def test_plain_trio(run: Run) -> None:
    result = run(
        f"{IMPORTS}async def main(nodes):{BODY.replace('NODES', 'nodes')}\n"
        "def test_one(corosync): trio.run(main, 1)\n"
        "def test_three(corosync_cluster): trio.run(main, 3)"
    )
    result.assert_outcomes(passed=2)


def test_without_pytest_trio(pytester: pytest.Pytester, corosync_mode: str) -> None:
    """The extra "pytest" does not install it."""
    pytester.makeconftest("import sys\nsys.modules['pytest_trio'] = None")
    pytester.makepyfile(
        f"{IMPORTS}async def main():{body(1)}\ndef test_one(corosync): trio.run(main)\n"
        "def test_cluster(make_corosync_cluster): make_corosync_cluster(nodes=1)"
    )
    result = pytester.runpytest_subprocess(f"--corosync={corosync_mode}", "-p", "no:trio")
    result.assert_outcomes(passed=2)


def test_xdist(pytester: pytest.Pytester, corosync_mode: str) -> None:
    """Each worker has clusters of its own."""
    pytester.makepyfile(
        f"""{IMPORTS}
async def same(number, nodes):{BODY.replace("NODES", "nodes").replace("chat", "busy")}

@pytest.mark.parametrize("number", range(6))
def test_it(corosync_cluster, number):
    trio.run(same, number, 3)

def test_fails(corosync):
    assert False
"""
    )
    result = pytester.runpytest_subprocess(f"--corosync={corosync_mode}", "-n2", "--corosync-logs")
    result.assert_outcomes(passed=6, failed=1)
    # They have come from the worker.
    result.stdout.fnmatch_lines(
        [
            f"corosync: {corosync_mode}*",
            "*- corosync -*",
            "nothing had happened before: *",
            "*- corosync node 1 log -*",
            "*Corosync Cluster Engine*",
        ]
    )


@contextmanager
def ending(process: subprocess.Popen[bytes]) -> Generator[None, None, None]:
    """Bound the time of a process, that of a failing test too."""
    timer = threading.Timer(BOUND, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        process.kill()


@pytest.mark.parametrize("kind", ["plain", "trio"])
def test_control_c(pytester: pytest.Pytester, corosync_mode: str, kind: str) -> None:
    """In the middle of a test: the clusters end, that of the test and one that waits for its next test."""
    pytester.makepyfile(
        f"""{IMPORTS}
import time

daemons = []

def test_before(corosync):
    daemons.append(corosync.pid)

{"async " if kind == "trio" else ""}def test_it(corosync_cluster):
    daemons.extend(node.pid for node in corosync_cluster.nodes.values())
    print("\\ndaemons:", *daemons, flush=True)
    {"await trio" if kind == "trio" else "time"}.sleep({2 * BOUND})
"""
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", f"--corosync={corosync_mode}", "-s", "-o", "trio_mode=true"],
        cwd=pytester.path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    # It ends in any case, and with it the reading.
    with process, ending(process):
        assert process.stdout is not None
        before: list[bytes] = []
        for line in process.stdout:
            before.append(line)
            if line.startswith(b"daemons:"):
                break
        else:
            pytest.fail(b"".join(before).decode())
        pids = [int(word) for word in before[-1].split()[1:] if word != b"None"]
        assert len(pids) == (4 if corosync_mode == "real" else 0)
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        process.send_signal(signal.SIGINT)
        output = process.stdout.read().decode()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "KeyboardInterrupt" in output
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
