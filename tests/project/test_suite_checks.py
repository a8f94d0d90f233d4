"""The checks on our own test suite that tests/support/fixtures makes: interrupts, leaks, deadlines and crashes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.fixtures.inner_runs import load_plugin


def test_a_run_in_the_background_can_be_interrupted(pytester: pytest.Pytester) -> None:
    load_plugin(pytester, "interrupts")
    pytester.makepyfile(
        """
        import signal, subprocess

        def test_it():
            with subprocess.Popen(["sleep", "60"]) as process:
                process.send_signal(signal.SIGINT)
            assert process.returncode == -signal.SIGINT
        """
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = pytester.runpytest_subprocess()
    finally:
        signal.signal(signal.SIGINT, before)
    result.assert_outcomes(passed=1)


def test_leaks_are_found(pytester: pytest.Pytester, tmp_path: Path) -> None:
    """One of each kind that an ordinary user can leave behind."""
    load_plugin(pytester, "leaks", GRACE=0.5)
    shared = Path(f"/dev/shm/qb-triocoro-{os.getpid()}")
    pytester.makepyfile(
        f"""
        import os, socket, subprocess, threading, time
        import trio

        left = []

        def test_it():
            left.append(os.open({str(tmp_path)!r}, os.O_RDONLY))
            left.append(socket.socket(socket.AF_UNIX))
            left.append(subprocess.Popen(["setsid", "sleep", "8"]))
            left.append(threading.Thread(target=time.sleep, args=(8,), name="loiterer", daemon=True))
            left[-1].start()
            open({str(shared)!r}, "w").close()

        def test_idle_thread_is_no_leak():
            trio.run(trio.to_thread.run_sync, int)
        """
    )
    try:
        result = pytester.runpytest_subprocess()
    finally:
        shared.unlink()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(
        [
            "the run left behind:",
            "process *: sleep 8 ",
            f"shared memory: {shared.name}",
            f"fd *: {tmp_path}, there since test_leaks_are_found.py::test_it",
            "fd *: socket:*, <socket.socket fd=* family=*1, *>, there since test_leaks_are_found.py::test_it",
            "thread: loiterer (*)",
        ]
    )
    assert "Trio thread" not in result.stdout.str()


_HANGS = """
    import pytest, trio

    cleaned_up = []

    async def hang():
        try:
            await trio.sleep_forever()
        finally:
            cleaned_up.append(True)

    async def test_by_default():
        await hang()

    @pytest.mark.deadline(0.2)
    async def test_marked():
        await hang()

    @pytest.mark.deadline(0.2)
    async def test_with_a_virtual_clock(autojump_clock):
        await trio.sleep(3600)  # which is no time
        await hang()

    @pytest.mark.deadline(0.2)
    async def test_whose_virtual_clock_never_stops(autojump_clock):
        try:
            while True:
                await trio.sleep(1)
        finally:
            cleaned_up.append(True)

    @pytest.mark.deadline(0.2)
    async def test_whose_cleanup_fails():
        try:
            await hang()
        finally:
            raise ValueError("of the cleanup")

    async def test_that_ends(autojump_clock):
        await trio.sleep(3600)
"""


def test_a_test_that_hangs_is_cancelled_at_its_deadline(pytester: pytest.Pytester) -> None:
    load_plugin(pytester, "deadline", SECONDS=0.1)
    pytester.makeini("[pytest]\ntrio_mode = true")
    pytester.makepyfile(_HANGS + "    def test_cleanup():\n        assert len(cleaned_up) == 5\n")
    result = pytester.runpytest_subprocess("--strict-markers")
    result.assert_outcomes(passed=2, failed=5)
    lines: list[str] = []
    for name, seconds in (
        ("marked", 0.2),
        ("with_a_virtual_clock", 0.2),
        ("whose_virtual_clock_never_stops", 0.2),
        ("whose_cleanup_fails", 0.2),
        ("by_default", 0.1),  # last, as its deadline is the shortest
    ):
        lines += [f"_* test_{name} _*", "*await *", "*trio.Cancelled*"]  # where it was waiting
        lines += ["*ValueError: of the cleanup"] if name == "whose_cleanup_fails" else []
        lines += [f"*TooSlowError: the test has not ended by its deadline, {seconds} s (* sets another one)"]
    result.stdout.fnmatch_lines(lines)


def test_a_deadline_of_each_example(pytester: pytest.Pytester) -> None:
    load_plugin(pytester, "deadline")
    pytester.makepyfile(
        """
        import pytest, trio
        from hypothesis import Phase, given, settings, strategies

        @pytest.mark.trio
        @pytest.mark.deadline(1.5)
        @pytest.mark.parametrize("hangs", [False, True])
        @given(number=strategies.integers(0, 1000))
        @settings(deadline=None, max_examples=10, phases=[Phase.generate], database=None)
        async def test_it(hangs, number):
            await (trio.sleep_forever() if hangs else trio.sleep(0.2))
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*TooSlowError: the test has not ended by its deadline, 1.5 s *"])


def test_the_longest_tests_run_first(pytester: pytest.Pytester) -> None:
    load_plugin(pytester, "deadline")
    pytester.makepyfile(
        """
        import pytest

        def test_default(): pass

        @pytest.mark.deadline(20)
        def test_short(): pass

        @pytest.mark.deadline(120)
        def test_long(): pass

        @pytest.mark.deadline(240)
        def test_longest(): pass
        """
    )
    result = pytester.runpytest("-v")
    result.stdout.fnmatch_lines([f"*::test_{name} PASSED *" for name in ("longest", "long", "default", "short")])


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["here", "xdist"])
def test_a_crash_is_reported_by_the_next_run(pytester: pytest.Pytester, workers: list[str]) -> None:
    load_plugin(pytester, "crashes")
    source = """
        import os, signal

        def test_before(): pass

        def test_crash():
            if {crashes}:
                os.kill(os.getpid(), signal.SIGSEGV)

        def test_after(): pass
    """
    message = "the previous run crashed in test_it.py::test_crash"
    pytester.makepyfile(test_it=source.format(crashes=True))
    crashed = pytester.runpytest_subprocess(*workers)
    assert crashed.ret == (1 if workers else -signal.SIGSEGV)
    assert message not in crashed.stdout.str()
    pytester.makepyfile(test_it=source.format(crashes=False))
    for is_reported in (True, False):
        result = pytester.runpytest()
        result.assert_outcomes(passed=3)
        assert result.stdout.str().count(message) == (2 if is_reported else 0)


def test_another_run_that_goes_on_has_not_crashed(pytester: pytest.Pytester) -> None:
    load_plugin(pytester, "crashes")
    pytester.makepyfile(
        """
        import subprocess, sys

        def test_outer():
            command = [sys.executable, "-m", "pytest", "-k", "test_inner"]
            assert "the previous run" not in subprocess.check_output(command, text=True)

        def test_inner(): pass
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=2)
    assert not list(pytester.path.glob(".pytest_cache/d/running-tests/*"))


def test_without_a_cache_there_is_no_crash_report(pytester: pytest.Pytester) -> None:
    load_plugin(pytester, "crashes")
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest("-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert not (pytester.path / ".pytest_cache").exists()


def test_an_unwritable_cache_fails_no_test(pytester: pytest.Pytester) -> None:
    load_plugin(pytester, "crashes")
    pytester.makepyfile("def test_it(): pass")
    (pytester.path / ".pytest_cache" / "d").mkdir(parents=True)
    (pytester.path / ".pytest_cache" / "d" / "running-tests").write_text("a file in place of the folder")
    pytester.runpytest().assert_outcomes(passed=1)
