"""Tests that hang: --corosync-timeout and pytest-timeout end them, show where, and leave the next one unharmed."""

from __future__ import annotations

import inspect
from importlib.util import find_spec

import pytest
import trio
import trio.testing
from support.fixtures.inner_runs import Run

from triocoro.testing import describe_tasks

HANGS = """
import threading
import time

import pytest
import trio
import triocoro


@pytest.mark.trio
async def test_waits(corosync):
    async with triocoro.open_group("chat") as group:
        await group.receive()
        await group.receive()


@pytest.mark.trio
async def test_all_tasks_wait_in_virtual_time(corosync, autojump_clock):
    await trio.Event().wait()


@pytest.mark.trio
async def test_blocks_in_a_task(corosync):
    async with triocoro.open_group("chat"):
        threading.Event().wait()


def test_blocks_outside_of_trio(corosync):
    time.sleep(60)


def test_runs_trio_itself(corosync):
    async def main():
        async with triocoro.open_group("chat"):
            await trio.sleep_forever()

    trio.run(main)


@pytest.mark.trio
async def test_is_shielded(corosync):
    try:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    finally:
        await trio.lowlevel.checkpoint()


@pytest.fixture
async def cleaned_up():
    yield
    await trio.lowlevel.checkpoint()
    print("the fixture has cleaned up")


@pytest.mark.trio
async def test_has_a_fixture(corosync, cleaned_up):
    await trio.sleep_forever()
"""

NEXT = """

@pytest.mark.trio
async def test_next(corosync):
    async with triocoro.open_group("chat") as group:
        await group.send_and_wait(b"unharmed")
"""

PLACES = {
    "test_waits": [
        "<test 'test_waits'> waits",
        "*.py:* in test_waits: await group.receive()",
        "*(2 tasks of triocoro)",
    ],
    "test_all_tasks_wait_in_virtual_time": ["*.py:* in test_all_tasks_wait_in_virtual_time: await trio.Event().wait()"],
    "test_blocks_in_a_task": ["<test 'test_blocks_in_a_task'> runs", "*.py:* in *: threading.Event().wait()"],
    "test_blocks_outside_of_trio": ["the thread runs", "*.py:* in test_blocks_outside_of_trio: time.sleep(60)"],
    "test_runs_trio_itself": ["*.main waits", "*.py:* in main: await trio.sleep_forever()"],
    "test_has_a_fixture": ["*in test_has_a_fixture: await trio.sleep_forever()"],
}


def only(name: str) -> list[str]:
    return ["-k", f"{name} or test_next", "-W", "error"]


@pytest.fixture(autouse=True)
def _not_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the steps of an end come sooner."""
    from pytest_corosync import _hangs

    monkeypatch.setattr(_hangs, "_BLOCKED", 0.2)
    monkeypatch.setattr(_hangs, "_CLEAN_UP", 0.5)


@pytest.mark.corosync_fake_only(reason="real nodes are in tests/plugin/test_failing_reports.py")
@pytest.mark.parametrize("name", PLACES)
def test_a_hang_is_ended_and_shown(run: Run, name: str) -> None:
    result = run(HANGS + NEXT, "--corosync-timeout=0.3", *only(name))
    result.assert_outcomes(passed=1, failed=1, deselected=6)
    result.stdout.fnmatch_lines(
        [
            f"*_ {name} _*",
            "the test has not ended within 0.3 s (--corosync-timeout)",
            "*- corosync -*",
            "! *FAILS: the test has not ended within 0.3 s (--corosync-timeout)",
            "where the tasks were:",
            *PLACES[name],
        ]
    )
    result.stdout.no_fnmatch_line("*During handling of*")
    assert ("the fixture has cleaned up" in result.outlines) == (name == "test_has_a_fixture")


@pytest.mark.corosync_fake_only(reason="it is about Trio")
def test_a_run_that_cannot_be_cancelled_is_given_up(pytester: pytest.Pytester) -> None:
    """Nothing of it is left for the next test, or for the end of the process, to complain about."""
    check = """

def test_control_c():
    import signal
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""
    pytester.makepyfile(HANGS + NEXT + check)
    pytester.makeconftest("from pytest_corosync import _hangs; _hangs._BLOCKED, _hangs._CLEAN_UP = 0.2, 0.5")
    arguments = ["--corosync-timeout=1", "-W", "error", "-k", "test_is_shielded or test_next or test_control_c"]
    result = pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=2, failed=1, deselected=6)
    result.stdout.fnmatch_lines(["*.py:* in test_is_shielded: await trio.sleep_forever()"])
    assert result.stderr.str() == ""


@pytest.mark.corosync_fake_only(reason="it is about the runner")
def test_anyio_runs_it(run: Run) -> None:
    source = """
        import anyio
        import pytest
        import triocoro

        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        async def test_hangs(corosync):
            async with triocoro.open_group("chat"):
                await anyio.sleep_forever()

        @pytest.mark.anyio
        async def test_next(corosync):
            async with triocoro.open_group("chat") as group:
                await group.send_and_wait(b"unharmed")
        """
    result = run(source, "--corosync-timeout=0.3", "-p", "anyio")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["where the tasks were:", "*.py:* in test_hangs: await anyio.sleep_forever()"])


def test_a_test_in_time_is_left_alone(run: Run) -> None:
    result = run("import triocoro\nimport pytest" + NEXT, "--corosync-timeout=60")
    result.assert_outcomes(passed=1)


def test_no_limit(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\ncorosync_timeout = 0.001")
    assert run(HANGS, "-k", "outside", mode="fake").parseoutcomes() == {"failed": 1, "deselected": 6}
    slow = "import time\ndef test_it(corosync): time.sleep(0.05)"
    run(slow, "--corosync-timeout=0", mode="fake").assert_outcomes(passed=1)


@pytest.mark.parametrize("value", ["-1", "soon", "nan", "inf"])
def test_a_wrong_time_is_an_error(run: Run, value: str) -> None:
    result = run("def test_it(): pass", f"--corosync-timeout={value}", mode="fake")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --corosync-timeout={value}: it must be a number of seconds, 0 or more"])


with_pytest_timeout = pytest.mark.skipif(find_spec("pytest_timeout") is None, reason="pytest-timeout is not installed")


@with_pytest_timeout
@pytest.mark.corosync_fake_only(reason="what ends the test is the same with real nodes")
@pytest.mark.parametrize("name", ["test_waits", "test_all_tasks_wait_in_virtual_time", "test_blocks_in_a_task"])
def test_pytest_timeout_ends_a_test_in_the_same_way(run: Run, name: str) -> None:
    result = run(HANGS + NEXT, "--timeout=0.5", "-o", "timeout_func_only=true", *only(name))
    result.assert_outcomes(passed=1, failed=1, deselected=6)
    result.stdout.fnmatch_lines(
        ["Timeout (>0.5s) from pytest-timeout.", "*- corosync -*", "where the tasks were:", *PLACES[name]]
    )


@with_pytest_timeout
@pytest.mark.corosync_fake_only(reason="it is about Trio")
@pytest.mark.parametrize("phase", ["setup", "teardown"])
def test_pytest_timeout_ends_fixtures_in_the_same_way(run: Run, phase: str) -> None:
    source = f"""
import pytest
import trio
import triocoro


async def hang():
    async with triocoro.open_group("chat"):
        await trio.sleep_forever()


@pytest.fixture
def hangs(corosync):
    {"trio.run(hang)" if phase == "setup" else ""}
    yield
    {"trio.run(hang)" if phase == "teardown" else ""}


def test_it(hangs):
    pass
"""
    result = run(source + NEXT, "--timeout=2", "-W", "error")
    result.assert_outcomes(passed=1 + (phase == "teardown"), errors=1)
    result.stdout.fnmatch_lines(
        [
            f"*ERROR at {phase} of test_it*",
            "Timeout (>2.0s) from pytest-timeout.",
            "*in hang: await trio.sleep_forever()",
        ]
    )


@with_pytest_timeout
@pytest.mark.corosync_fake_only(reason="what ends the process is the same with real nodes")
def test_the_thread_of_pytest_timeout_ends_the_process(pytester: pytest.Pytester) -> None:
    """It does so with what happened in the cluster, and with its own stacks of the threads."""
    pytester.makepyfile(HANGS)
    result = pytester.runpytest_subprocess("--timeout=3", "--timeout-method=thread", "-k", "test_waits")
    assert result.ret == 1
    result.stderr.fnmatch_lines(["*- corosync -*", "where the tasks were:", *PLACES["test_waits"]])
    result.stdout.fnmatch_lines(["*Stack of MainThread*"])


@with_pytest_timeout
@pytest.mark.corosync_fake_only(reason="it is about pytest-timeout")
def test_pytest_timeout_has_other_tests_to_itself(run: Run) -> None:
    source = "import time\ndef test_it(): time.sleep(60)"
    result = run(source, "--timeout=0.3")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*Timeout (>0.3s) from pytest-timeout."])
    result.stdout.no_fnmatch_line("*where the tasks were*")


async def test_tasks_are_described() -> None:
    async def waits() -> None:
        async with trio.open_nursery() as inner:  # noqa: ASYNC112 - it is what is shown
            inner.start_soon(trio.sleep_forever)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits)
        await trio.testing.wait_all_tasks_blocked()
        text = describe_tasks()
        nursery.cancel_scope.cancel()
    assert "test_tasks_are_described'> runs\n" in text
    assert "in test_tasks_are_described: text = describe_tasks()\n" in text
    assert "waits waits\n" in text
    assert "in waits: async with trio.open_nursery() as inner:" in text
    assert "for the tasks of its nursery\n" in text
    assert "trio.sleep_forever waits\n" in text


def test_where_no_task_is() -> None:
    with pytest.raises(RuntimeError):
        describe_tasks()
    with pytest.raises(TypeError, match="root must be"):
        describe_tasks("root")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="running must be"):
        describe_tasks(running="frame")  # type: ignore[arg-type]
    assert describe_tasks(running=inspect.currentframe()).startswith("the thread runs\n  ")
