"""Tests that run under many seeds, in a pytest run by a test: the marker `corosync_seeds` and its options."""

from __future__ import annotations

import re

import pytest
from support.fixtures.inner_runs import Run

pytestmark = pytest.mark.corosync_fake_only(reason="real clusters have runs of their own, below")

HEAD = """
    import random
    import pytest, trio
    import triocoro

    seen = []

    def say(*words):
        print("<", *words, ">")
"""
TRIO = ("-o", "trio_mode=true")


def shown(result: pytest.RunResult, name: str) -> list[str]:
    """What the inner run has said about that."""
    return re.findall(rf"< {name} (.*?) >", result.stdout.str())


def test_everything_of_function_scope_is_new_for_each_seed(run: Run) -> None:
    """A class's instance, fixtures async or not, the cluster, and virtual time; wider fixtures last."""
    result = run(
        HEAD
        + """
    @pytest.fixture(scope="module")
    def wide():
        say("wide", "up")
        yield
        say("wide", "down")

    @pytest.fixture
    async def member(corosync_cluster):
        async with triocoro.open_group("x") as group:
            yield group

    @pytest.mark.corosync_seeds(20)
    class TestIt:
        @pytest.mark.parametrize("number", [1, 2])
        async def test_it(self, number, wide, member, corosync_cluster, tmp_path):
            assert not hasattr(self, "mark") and not list(tmp_path.iterdir())
            self.mark = (tmp_path / "mark").touch()
            assert trio.current_time() < 1
            assert (await member.send_and_wait(b"hello")).sender == member.address
            assert len(corosync_cluster.name) == len("fake-1")
            await trio.sleep(1000)
            seen.append((number, random.random()))

    def test_last():
        assert len(seen) == 40 and len(set(value for _, value in seen)) == 20
    """,
        "-s",
        "-v",
        *TRIO,
    )
    result.assert_outcomes(passed=3)
    assert len(re.findall(r"PASSED", result.stdout.str())) == 3
    assert shown(result, "wide") == ["up", "down"]


FAILING = (
    HEAD
    + """
    @pytest.fixture(scope="module")
    def wide():
        say("wide", "up")
        yield
        say("wide", "down")

    @pytest.mark.corosync_seeds(100)
    @pytest.mark.parametrize("letter", ["a", "b"])
    async def test_it(corosync_cluster, letter, wide):
        say("run", letter)
        await trio.sleep(0.01)
        assert random.random() < 0.9

    def test_other():
        pass
"""
)


def test_the_first_seed_that_fails(run: Run) -> None:
    result = run(FAILING, *TRIO)
    result.assert_outcomes(failed=2, passed=1)
    command = next(line.strip() for line in result.outlines if "--corosync-seed=" in line)
    seed = int(re.findall(r"--corosync-seed=(\d+)", command)[0])
    assert seed > 0
    assert command.startswith("pytest 'test_the_first_seed_that_fails.py::test_it[")
    assert len(shown(result, "run")) == 2, "what the runs before it have printed is not shown"

    run(FAILING, *TRIO, "-k", "test_it", f"--corosync-seed={seed}").assert_outcomes(failed=2, deselected=1)
    result = run(FAILING, *TRIO, "-s", f"--corosync-seeds={seed}")
    result.assert_outcomes(passed=3)
    assert shown(result, "run") == ["a"] * seed + ["b"] * seed
    assert shown(result, "wide") == ["up", "down"]


def test_with_xdist(run: Run) -> None:
    result = run(FAILING, *TRIO, "-n1", "-x")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r".*--corosync-seed=\d+ "])


def test_durations_are_those_of_all_runs(run: Run) -> None:
    result = run(
        HEAD
        + """
    import time

    @pytest.mark.corosync_seeds(5)
    def test_it():
        time.sleep(0.1)
    """,
        "--durations=1",
    )
    (line,) = (line for line in result.outlines if "call " in line)
    assert float(line.partition("s ")[0]) >= 0.5


@pytest.mark.parametrize("own", [False, True])
def test_garbage_collections_spare_what_is_older_than_the_seeds(run: Run, *, own: bool) -> None:
    """What the program has frozen itself stays as it is."""
    result = run(
        HEAD
        + f"""
    import gc

    if {own}:
        gc.freeze()

    @pytest.mark.corosync_seeds(2)
    def test_it():
        say("during", bool(gc.get_freeze_count()))

    def test_other():
        say("after", bool(gc.get_freeze_count()))
        gc.unfreeze()
    """,
        "-s",
    )
    result.assert_outcomes(passed=2)
    assert shown(result, "during") == ["True", "True"]
    assert shown(result, "after") == [str(own)]


def test_latency_and_jitter(run: Run) -> None:
    """The marker takes precedence over the command line, and that over the ini file. The seed determines the jitter."""
    source = (
        HEAD
        + """
    async def measure(name):
        async with triocoro.open_group("x") as group:
            began = trio.current_time()
            await group.send_and_wait(b"hello")
            say(name, round(trio.current_time() - began, 9))

    @pytest.mark.corosync_seeds(20)
    async def test_options(corosync):
        await measure("options")

    @pytest.mark.corosync_seeds(20, latency=2, jitter=0)
    async def test_marker(corosync):
        await measure("marker")

    @pytest.mark.corosync_seeds(20, jitter=1)
    async def test_jitter(corosync):
        await measure("jitter")

    @pytest.mark.corosync_seeds(20)
    async def test_failure(corosync):
        assert False
    """
    )
    result = run(source, "-s", *TRIO, "-o", "corosync_latency=3", "--corosync-jitter=0")
    assert set(shown(result, "options")) == {"3.0"}
    assert set(shown(result, "marker")) == {"2.0"}
    jittery = shown(result, "jitter")
    assert len(set(jittery)) > 10
    assert all(3 <= float(value) <= 4 for value in jittery)

    result = run(source, "-s", *TRIO, "-o", "corosync_latency=3", "--corosync-latency=0.5", "--corosync-nodes=2")
    assert set(shown(result, "options")) == {"0.5"}
    assert [float(value) + 2.5 for value in shown(result, "jitter")] == pytest.approx([*map(float, jittery)])
    options = "--corosync=fake --corosync-nodes=2 --corosync-latency=0.5"
    result.stdout.fnmatch_lines([f"*::test_failure --corosync-seed=0 {options}"])


def test_outcomes_other_than_pass_and_fail(run: Run) -> None:
    """A test that is expected to fail does so as soon as one seed fails."""
    result = run(
        HEAD
        + """
    @pytest.mark.xfail(strict=True)
    @pytest.mark.corosync_seeds(100)
    async def test_expected():
        assert random.random() < 0.9

    @pytest.mark.xfail(strict=True)
    @pytest.mark.corosync_seeds(3)
    async def test_unexpected():
        seen.append(1)

    def test_all_seeds():
        assert len(seen) == 3

    @pytest.mark.corosync_seeds(100)
    def test_skip():
        seen.append(1)
        pytest.skip("no")

    def test_one():
        assert len(seen) == 4
    """,
        *TRIO,
    )
    result.assert_outcomes(xfailed=1, failed=1, skipped=1, passed=2)
    result.stdout.fnmatch_lines(["*XPASS(strict)*"])


def test_fixtures_that_fail(run: Run) -> None:
    """What is wider is torn down nevertheless, before the next test needs another."""
    result = run(
        HEAD
        + """
    @pytest.fixture(scope="class")
    def wide():
        say("wide", "up")
        yield
        say("wide", "down")
        assert False

    @pytest.fixture
    def narrow():
        yield
        assert random.random() < 0.9

    @pytest.mark.corosync_seeds(100)
    class TestIt:
        async def test_it(self, wide, narrow):
            pass

    class TestOther:
        def test_it(self):
            pass
    """,
        "-s",
        *TRIO,
    )
    result.assert_outcomes(passed=2, errors=2)
    assert shown(result, "wide") == ["up", "down"]


def test_a_deadlock_is_a_failure(run: Run) -> None:
    result = run(
        HEAD
        + """
    @pytest.mark.corosync_seeds(100)
    async def test_it(corosync):
        await trio.sleep(1)
        if random.random() > 0.9:
            await trio.Event().wait()
    """,
        *TRIO,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*StuckError: after 1 s of virtual time every task waits*"])
    result.stdout.re_match_lines([r".*--corosync-seed=[1-9]\d* "])


def test_without_pytest_trio(run: Run) -> None:
    """The seed counts for any test; the clock is that of its own runner."""
    result = run(
        HEAD
        + """
    from triocoro.testing import seeded_run

    @pytest.mark.corosync_seeds(10)
    def test_it(corosync):
        async def main():
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(turn, number)
        turns = []
        async def turn(number):
            turns.append(number)
        trio.run(main)
        seen.append(tuple(turns))

    def test_orders():
        assert len(set(seen)) > 5

    @pytest.mark.anyio
    @pytest.mark.corosync_seeds(3)
    async def test_anyio(corosync, anyio_backend):
        seen.append(anyio_backend)

    @pytest.fixture
    def anyio_backend():
        return "trio"

    def test_runs():
        assert seen.count("trio") == 3
    """,
        "-p",
        "no:trio",
        "-p",
        "anyio",
    )
    result.assert_outcomes(passed=4)


@pytest.mark.parametrize(
    "arguments,message",
    [
        ("", "takes the number of seeds and, by keyword, latency and jitter"),
        ("(1, 2)", "takes the number of seeds and, by keyword, latency and jitter"),
        ("(1, delay=2)", "takes the number of seeds and, by keyword, latency and jitter"),
        ("(0)", "takes the number of seeds, 1 or more, not 0"),
        ("('7')", "takes the number of seeds, 1 or more, not '7'"),
        ("(7, latency=-1)", "latency takes seconds, 0 or more, not -1"),
    ],
)
def test_a_wrong_marker_is_an_error(run: Run, arguments: str, message: str) -> None:
    result = run(f"import pytest\n@pytest.mark.corosync_seeds{arguments}\ndef test_it(): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*@pytest.mark.corosync_seeds*{message}"])


@pytest.mark.parametrize(
    "option,message",
    [
        ("--corosync-seed=x", "ERROR: --corosync-seed=x: it must be a whole number"),
        ("--corosync-seed=-1", "ERROR: --corosync-seed=-1: it must be 0 or more"),
        ("--corosync-seeds=0", "ERROR: --corosync-seeds=0: it must be 1 or more"),
        ("--corosync-latency=nan", "ERROR: --corosync-latency=nan: it must be a number of seconds, 0 or more"),
        ("--corosync-jitter=x", "ERROR: --corosync-jitter=x: it must be a number of seconds, 0 or more"),
    ],
)
def test_a_wrong_option_is_an_error(run: Run, option: str, message: str) -> None:
    result = run("def test_it(): pass", option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


@pytest.mark.parametrize("fixture", ["corosync", "corosync_cluster", "make_corosync_cluster", None])
def test_given_shares_what_a_seed_must_not(run: Run, fixture: str | None) -> None:
    """Examples would share the cluster and the clock."""
    marker = "" if fixture else "@pytest.mark.corosync_seeds(10)"
    result = run(
        f"""
    import pytest
    from hypothesis import HealthCheck, given, settings, strategies as st

    {marker}
    @settings(suppress_health_check=list(HealthCheck))
    @given(number=st.integers())
    async def test_it({fixture or "tmp_path"}, number): pass
    """,
        *TRIO,
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Use triocoro.testing.explore, which gives each example a cluster of its own*"])
