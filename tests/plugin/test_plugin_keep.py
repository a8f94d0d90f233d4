"""--corosync-keep: clusters stay when a test has failed, and when the session is over; what is printed is true."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from triocoro.testing._netns.requirements import find_program

pytestmark = pytest.mark.corosync_real_only(reason="a fake cannot be kept")

RunKeeping = Callable[..., pytest.RunResult]

SOURCE = """
import pytest
import triocoro

async def set_key(value):
    async with triocoro.open_cmap() as cmap:
        await cmap.set("myapp.failed", value)

async def test_passes(corosync):
    await set_key("passed")

async def test_fails(corosync):
    await set_key("failed")
    assert False

async def test_passes_with_another(corosync):
    async with triocoro.open_cmap() as cmap:
        assert await cmap.items("myapp.") == []
"""


def cluster_names(text: str) -> list[str]:
    return re.findall(r"^the cluster (\S+):$", text, re.MULTILINE)


def commands(text: str, what: str) -> list[list[str]]:
    """The printed commands for a purpose, run by a shell as people would: not everywhere is kill(1) a program."""
    return [["sh", "-c", command] for command in re.findall(rf"^ *{what}: (.+)$", text, re.MULTILINE)]


def gone(pid: int) -> bool:
    """Whether a process has ended, or waits for init to notice."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return True


def end_all(text: str) -> None:
    """End the kept clusters with the command that was printed for it, and see that this takes everything along."""
    nodes = {int(pid) for pid in re.findall(r"nsenter --target (\d+)", text)}
    for command in commands(text, "end all of it"):
        # It may be there twice: in the report, and at the end.
        subprocess.run(command, check=False, capture_output=True)
    deadline = time.monotonic() + 10
    while not all(gone(pid) for pid in nodes) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(gone(pid) for pid in nodes)


@pytest.fixture
def run_keeping(pytester: pytest.Pytester) -> Iterator[RunKeeping]:
    """Run pytest on a test file, with --corosync-keep; what it keeps is ended after the test."""
    printed: list[str] = []

    def run(source: str, *args: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        result = pytester.runpytest_subprocess("--corosync=real", "--corosync-keep", "-o", "trio_mode=true", *args)
        printed.append(result.stdout.str())
        return result

    yield run
    for text in printed:
        end_all(text)


def summary(result: pytest.RunResult) -> str:
    return result.stdout.str().partition("= corosync clusters that are left =")[2]


@pytest.mark.parametrize("workers", [(), ("-n1",)])
def test_failed_tests(run_keeping: RunKeeping, workers: tuple[str, ...]) -> None:
    result = run_keeping(SOURCE, *workers)
    result.assert_outcomes(passed=2, failed=1)
    report = result.stdout.str().partition("- corosync is left as it is -")[2].partition("= corosync clusters")[0]
    (failed,) = cluster_names(report)
    # That of the failed test, and the one that the last test had.
    names = cluster_names(summary(result))
    assert len(names) == 2
    assert failed in names
    (enter,) = commands(report, "look into node 1")
    tool = find_program("corosync-cmapctl")
    assert tool is not None
    *shell, line = enter
    ask = [*shell, f"{line.partition(' -- ')[0]} -- {tool} -g myapp.failed"]
    assert subprocess.run(ask, check=True, capture_output=True, text=True).stdout == "myapp.failed (str) = failed\n"
    (log,) = commands(report, "read its log")
    assert "Corosync Cluster Engine" in subprocess.run(log, check=True, capture_output=True, text=True).stdout


def test_as_they_were(run_keeping: RunKeeping) -> None:
    """Nothing is mended for it."""
    result = run_keeping(
        """
        async def test_it(corosync_cluster):
            await corosync_cluster[3].kill()
            await corosync_cluster.isolate(2)
            await corosync_cluster.settled()
            assert False
        """
    )
    result.assert_outcomes(failed=1)
    # The daemon's own exit status: no quorum.
    for command, status in zip(commands(summary(result), r"look into node \d"), (2, 2, 1), strict=True):
        assert subprocess.run(command, check=False, capture_output=True).returncode == status


def test_a_failure_after_the_test(run_keeping: RunKeeping) -> None:
    """The cluster has been given back by then, and is taken out of the pool again."""
    result = run_keeping(
        """
        import pytest

        @pytest.fixture
        def broken():
            yield
            assert False

        def test_it(broken, corosync): pass

        def test_another(corosync): pass
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*- corosync is left as it is -*"])
    assert len(set(cluster_names(summary(result)))) == 2


def test_control_c(run_keeping: RunKeeping) -> None:
    result = run_keeping(
        f"""
        import os, time

        def test_it(corosync):
            os.kill(os.getpid(), {int(signal.SIGINT)})
            time.sleep(60)
        """
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    (enter,) = commands(summary(result), "look into node 1")
    assert "Quorate:          Yes" in subprocess.run(enter, check=True, capture_output=True, text=True).stdout


# A worker has no time to say anything in the end.
@pytest.mark.parametrize(
    "end", [f"os.kill(os.getpid(), {int(signal.SIGKILL)})", f"os.kill(os.getppid(), {int(signal.SIGINT)})"]
)
def test_workers_that_do_not_end_well(run_keeping: RunKeeping, end: str) -> None:
    """By a crash; by Control-C, which comes to the controller."""
    result = run_keeping(
        f"""
        import os, threading

        def test_it(corosync):
            {end}
            threading.Event().wait(60)
        """,
        "-n1",
        "--max-worker-restart=0",
    )
    assert result.ret in {pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED}
    (enter,) = commands(summary(result), "look into node 1")
    assert "Quorate:          Yes" in subprocess.run(enter, check=True, capture_output=True, text=True).stdout


def test_kill(run_keeping: RunKeeping, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no longer printed is in a file."""
    monkeypatch.setenv("TMPDIR", str(pytester.path))
    result = run_keeping(
        f"""
        import os

        def test_it(corosync):
            os.kill(os.getpid(), {int(signal.SIGKILL)})
        """
    )
    assert result.ret == -signal.SIGKILL
    (file,) = pytester.path.glob("triocoro-kept-*/*")
    text = file.read_text(encoding="utf-8")
    try:
        (enter,) = commands(text, "look into node 1")
        assert "Quorate:          Yes" in subprocess.run(enter, check=True, capture_output=True, text=True).stdout
    finally:
        end_all(text)


def test_without_the_option(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(SOURCE + "\n\ndef test_pid(corosync): print('daemon:', corosync.pid)")
    result = pytester.runpytest_subprocess("--corosync=real", "-o", "trio_mode=true", "-s")
    result.assert_outcomes(passed=3, failed=1)
    assert cluster_names(result.stdout.str()) == []
    (pid,) = re.findall(r"daemon: (\d+)", result.stdout.str())
    assert not Path(f"/proc/{pid}").exists()
