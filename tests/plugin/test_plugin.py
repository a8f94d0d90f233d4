"""The pytest plugin, in a pytest run by a test."""

from __future__ import annotations

import ctypes
import getpass
import os
import re
import subprocess
from pathlib import Path

import pytest
from support.fixtures.inner_runs import Run

import triocoro
import triocoro.testing
from pytest_corosync import _header
from triocoro.testing._netns import requirements


def test_default_is_fake(run: Run) -> None:
    result = run("def test_it(corosync_mode): assert corosync_mode == 'fake'", mode=None)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["corosync: fake"])


def test_ini(pytester: pytest.Pytester, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triocoro.testing, "missing_requirements", list[str])
    pytester.makeini("[pytest]\ncorosync = real")
    run("def test_it(corosync_mode): assert corosync_mode == 'real'", mode=None).assert_outcomes(passed=1)


def test_command_line_wins_over_ini(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeini("[pytest]\ncorosync = real")
    run("def test_it(corosync_mode): assert corosync_mode == 'fake'", mode="fake").assert_outcomes(passed=1)


@pytest.mark.parametrize("value", ["maybe", ""])
def test_wrong_ini_is_an_error(pytester: pytest.Pytester, run: Run, value: str) -> None:
    pytester.makeini(f"[pytest]\ncorosync = {value}")
    result = run("def test_it(): pass", mode=None)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: corosync = '{value}' in *tox.ini: it must be one of real, fake"])


def test_wrong_command_line_is_an_error(run: Run) -> None:
    result = run("def test_it(): pass", mode="maybe")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --corosync: invalid choice: 'maybe'*"])


def test_real_without_the_means_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        triocoro.testing, "missing_requirements", lambda: ["no moon: wait for the night", "no tide: ask the moon"]
    )
    result = run("def test_it(): pass", mode="real")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --corosync=real is not possible here:",
            "  - no moon: wait for the night",
            "  - no tide: ask the moon",
        ]
    )
    result.stdout.no_fnmatch_line("*passed*")


def test_real_without_the_means_can_be_collected(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triocoro.testing, "missing_requirements", lambda: ["no moon: wait for the night"])
    assert run("def test_it(): pass", "--collect-only", mode="real").ret == pytest.ExitCode.OK


@pytest.mark.parametrize("mode", ["real", "fake"])
@pytest.mark.parametrize("fixture", ["corosync", "corosync_cluster", "make_corosync_cluster"])
def test_a_clock_that_jumps_is_for_the_fake(run: Run, monkeypatch: pytest.MonkeyPatch, mode: str, fixture: str) -> None:
    monkeypatch.setattr(triocoro.testing, "missing_requirements", list[str])
    result = run(f"def test_it(autojump_clock, {fixture}): pass", mode=mode)
    if mode == "fake":
        result.assert_outcomes(passed=1)
    else:
        # Before a daemon is started.
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*autojump_clock does not go with --corosync=real*corosync_fake_only*"])


def test_any_clock_that_jumps_is_for_the_fake(run: Run, corosync_mode: str) -> None:
    """Whatever its name, and by whatever it came into force."""
    result = run(
        """
        import pytest, trio, triocoro
        from trio.testing import MockClock

        @pytest.fixture
        def clock():
            return MockClock(autojump_threshold=1)

        async def connect():
            async with triocoro.open_cpg() as cpg:
                assert await cpg.local_nodeid() == 1

        async def test_fixture(corosync, clock):
            await connect()

        def test_run(corosync, clock):
            trio.run(connect, clock=clock)

        def test_clock_that_does_not(corosync, clock):
            trio.run(connect, clock=MockClock(rate=2))
        """,
        "-o",
        "trio_mode=true",
    )
    if corosync_mode == "fake":
        result.assert_outcomes(passed=3)
    else:
        result.assert_outcomes(passed=1, failed=2)
        result.stdout.fnmatch_lines(
            ["E *RuntimeError: node 1 of *: a clock with an autojump_threshold does not go with real daemons: it *"]
        )


def test_missing_programs_are_listed(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the packages that have them; nothing is tried, and nothing is skipped."""
    for program in ("ip", "unshare"):
        path = requirements.find_program(program)
        if path is not None:
            (tmp_path / program).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(requirements, "_SBIN", (str(tmp_path / "sbin"),))
    result = run("def test_it(corosync): pass", mode="real")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = result.stderr.str().splitlines()
    start = lines.index("ERROR: --corosync=real is not possible here:")
    missing = [
        re.sub(r"(the program) (\S+) .*(: install the package) (\S+)", r"\1 \2\3 \4", x) for x in lines[start + 1 :]
    ]
    assert missing[:2] == [
        "  - the program corosync: install the package corosync",
        "  - the program nft: install the package nftables",
    ]
    result.stdout.no_fnmatch_line("*passed*")


def path_of(library: ctypes.CDLL) -> bytes:
    """Where the loader has found a library, as glibc's dlinfo(3) says; the path is the second member of link_map(3)."""
    link_map = ctypes.c_void_p()
    assert ctypes.CDLL(None).dlinfo(ctypes.c_void_p(library._handle), 2, ctypes.byref(link_map)) == 0
    path: bytes = ctypes.cast(link_map, ctypes.POINTER(ctypes.c_char_p))[1]
    return path


@pytest.mark.corosync_real_only(reason="the fake has no version, libraries and privileges")
def test_header(run: Run) -> None:
    """What the system says of itself is in it."""
    program = str(requirements.find_program("corosync"))
    version = subprocess.run([program, "-v"], check=True, capture_output=True, text=True).stdout
    (number,) = re.findall(r"version '(.*)'", version)
    from triocoro._corosync import _libraries

    libraries = [ctypes.CDLL(library.soname) for library in _libraries.LIBRARIES]
    files = [Path(os.fsdecode(path_of(library))).resolve() for library in libraries]
    (folder,) = {file.parent for file in files}
    user = "root" if os.geteuid() == 0 else f"user {getpass.getuser()} ({os.geteuid()}) in a user namespace"
    result = run("def test_it(): pass")
    assert f"corosync: real, {program} {number}, as {user}" in result.outlines
    assert f"corosync libraries: {', '.join(file.name for file in files)} in {folder}" in result.outlines


@pytest.mark.parametrize("uid,name", [(33, "www-data (33)"), (4_000_000, "4000000")])
def test_header_of_an_ordinary_user(monkeypatch: pytest.MonkeyPatch, uid: int, name: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(triocoro.testing, "describe_daemon", lambda: "corosync 3")
    assert _header.lines("real")[0] == f"corosync: real, corosync 3, as user {name} in a user namespace"


def test_header_where_something_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """To collect the tests, nothing is needed."""
    _libraries = pytest.importorskip("triocoro._corosync._libraries", reason="the extension module was not built")

    def find_none(_: str) -> None: ...

    monkeypatch.setattr(requirements, "find_program", find_none)
    monkeypatch.setattr(_libraries, "LIBRARIES", (_libraries.Library(0, "libcpg.so.99", "libcpg99"),))
    result = run("def test_it(): pass", "--collect-only", mode="real")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["corosync: real, not installed, as *", "corosync libraries: no libcpg.so.99"])


def test_header_where_corosync_cannot_be_executed(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "corosync"
    program.write_text("built for another machine", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    result = run("def test_it(): pass", "--collect-only", mode="real")
    assert result.ret == pytest.ExitCode.OK
    assert f"corosync: real, {program} (cannot be executed: Exec format error), as " in result.stdout.str()


def test_header_where_corosync_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "corosync"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(requirements, "_DESCRIBE_LIMIT", 0.1)
    assert f"{program} (does not tell its version within 0.1 seconds), as " in _header.lines("real")[0]


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_only_markers(run: Run, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(triocoro.testing, "missing_requirements", list[str])
    source = """
        import pytest

        @pytest.mark.corosync_real_only
        def test_real(): pass

        @pytest.mark.corosync_fake_only
        def test_fake(): pass

        @pytest.mark.corosync_real_only(reason="of a kernel")
        def test_reason_for_real(): pass

        @pytest.mark.corosync_fake_only(reason="of a clock")
        def test_reason_for_fake(): pass
    """
    result = run(source, "-v", "-rs", mode=mode)
    result.assert_outcomes(passed=2, skipped=2)
    other, reason = ("fake", "of a clock") if mode == "real" else ("real", "of a kernel")
    result.stdout.fnmatch_lines([f"*::test_{mode} PASSED*", f"*::test_reason_for_{mode} PASSED*"])
    skips = [f"SKIPPED*only with --corosync={other}{text}" for text in ("", f": {reason}")]
    result.stdout.fnmatch_lines_random(skips)


def test_markers_are_registered(run: Run) -> None:
    result = run("def test_it(): pass", "--markers")
    result.stdout.fnmatch_lines(
        [
            "@pytest.mark.corosync(*, nodes, ...): *",
            "@pytest.mark.corosync_real_only(*, reason): *",
            "@pytest.mark.corosync_fake_only(*, reason): *",
        ]
    )


@pytest.mark.parametrize(
    "arguments,message",
    [
        (
            "knots=3",
            "@pytest.mark.corosync does not take knots; it takes nodeids, nodes, *, token, *, log_level, extra",
        ),
        ("3", "@pytest.mark.corosync takes keyword arguments only, not (3,)"),
        ("nodes=0", "@pytest.mark.corosync: 'nodes' must be >= 1: 0"),
        ("nodes='3'", "@pytest.mark.corosync: 'nodes' must be <class 'int'> *"),
        (
            "two_node=True, auto_tie_breaker=True",
            "@pytest.mark.corosync: two_node and auto_tie_breaker exclude each other",
        ),
    ],
)
def test_wrong_marker_arguments_are_errors(run: Run, arguments: str, message: str) -> None:
    result = run(f"import pytest\n@pytest.mark.corosync({arguments})\ndef test_it(): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message.replace("[", "[[]")])


def test_fixtures(run: Run) -> None:
    """The default endpoint is node 1's, inside a Trio run that knows nothing of the fixtures' context."""
    result = run(
        """
        import contextvars
        import pytest
        import triocoro
        import trio

        async def local_nodeid():
            async with triocoro.open_cpg() as cpg:
                return await cpg.local_nodeid()

        def run(function):
            return contextvars.Context().run(trio.run, function)

        def test_one(corosync):
            assert corosync.nodeid == 1
            assert run(local_nodeid) == 1

        def test_three(corosync_cluster):
            assert list(corosync_cluster.nodes) == [1, 2, 3]
            assert run(local_nodeid) == 1

        @pytest.mark.corosync(nodes=2, two_node=True)
        class TestMarked:
            def test_cluster(self, corosync_cluster):
                assert corosync_cluster.options.nodes == 2
                assert corosync_cluster.options.two_node

            def test_node_of_it(self, corosync, corosync_cluster):
                assert corosync is corosync_cluster[1]

            @pytest.mark.corosync(nodes=1)
            def test_nearest_marker_wins(self, corosync_cluster):
                assert corosync_cluster.options.nodes == 1

            def test_one_of_two(self, corosync):
                async def total_votes():
                    async with triocoro.open_votequorum() as votequorum:
                        return (await votequorum.info()).total_votes
                assert run(total_votes) == 2

        def test_nothing_is_left_of_the_default():
            from triocoro._endpoint import _process_default
            assert not _process_default
        """
    )
    result.assert_outcomes(passed=7)


def test_factory(run: Run) -> None:
    """Its clusters are apart from one another, also where they could be ones that were used before."""
    result = run(
        """
        import pytest
        import triocoro
        import trio

        @pytest.mark.parametrize("time", [1, 2])
        def test_several(make_corosync_cluster, time):
            one, other = [make_corosync_cluster(nodes=1) for _ in range(2)]
            assert one is not other

            async def members():
                async with triocoro.open_group("here", endpoint=one[1].endpoint):
                    async with triocoro.open_cpg(endpoint=other[1].endpoint) as cpg:
                        return await cpg.members("here")

            assert trio.run(members) == ()
        """
    )
    result.assert_outcomes(passed=2)


def test_factory_inside_a_trio_run(run: Run) -> None:
    result = run(
        """
        import triocoro

        async def test_it(make_corosync_cluster):
            cluster = make_corosync_cluster(nodes=1)
            async with triocoro.open_cpg(endpoint=cluster[1].endpoint) as cpg:
                assert await cpg.local_nodeid() == 1
        """,
        "-o",
        "trio_mode=true",
    )
    result.assert_outcomes(passed=1)


def test_the_report_of_a_failing_test(run: Run) -> None:
    """Each cluster has a section; the whole logs are there if they are asked for."""
    source = """
        def test_it(corosync_cluster, make_corosync_cluster):
            make_corosync_cluster(nodes=1)
            assert False
        """
    result = run(source)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- corosync -*",
            "nothing had happened before: *",
            "*- corosync cluster 2 -*",
            "nothing had happened before: *",
            "(--corosync-logs adds the whole log of each node)",
        ]
    )
    result.stdout.no_fnmatch_line("*Corosync Cluster Engine*")
    result = run(source, "--corosync-logs")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*- corosync -*",
            "*- corosync node 1 log -*",
            "*Corosync Cluster Engine*",
            "*- corosync node 3 log -*",
            "*- corosync cluster 2 -*",
            "*- corosync cluster 2 node 1 log -*",
        ]
    )
    result.stdout.no_fnmatch_line("*--corosync-logs adds*")


def test_no_report_of_a_passing_test(run: Run) -> None:
    result = run("def test_it(corosync): pass", "-rA", "--corosync-logs")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*corosync node 1 log*")
    result.stdout.no_fnmatch_line("*- corosync -*")


def test_clusters_do_not_stay_in_memory(run: Run) -> None:
    """Which they would as long as their test does."""
    result = run(
        """
        import gc, weakref

        clusters = []

        def test_it(make_corosync_cluster):
            clusters.append(weakref.ref(make_corosync_cluster(nodes=1)))
            # So that no later test uses it.
            clusters[0]().__exit__(None, None, None)

        def test_next(make_corosync_cluster):
            make_corosync_cluster(nodes=1)
            gc.collect()
            assert clusters[0]() is None
        """
    )
    result.assert_outcomes(passed=2)


@pytest.mark.corosync_real_only(reason="a fake always starts")
@pytest.mark.parametrize("fixture", ["corosync", "corosync_cluster", "make_corosync_cluster"])
def test_a_start_that_fails_is_explained_in_short(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fixture: str
) -> None:
    """With what the daemon said, and not with the insides of the plugin."""
    program = tmp_path / "corosync"
    program.write_text("#!/bin/sh\necho no moon >&2\nexit 8\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    call = "make_corosync_cluster(nodes=1)" if fixture.startswith("make") else "pass"
    result = run(f"def test_it({fixture}):\n    {call}")
    assert result.parseoutcomes() in ({"failed": 1}, {"errors": 1})
    report = result.stdout.str().partition("_ test_it _")[2] + result.stdout.str().partition("of test_it _")[2]
    report = report.partition("= short test summary")[0]
    assert "corosync ended during the start, with exit status 8" in report
    assert "no moon" in report
    for insides in ("_fixtures.py", "pool.py", "background.py", "supervisor"):
        assert insides not in report
    assert len(report.splitlines()) < 30


def example(page: str, containing: str) -> str:
    text = (Path(__file__).parent.parent.parent / page).read_text(encoding="utf-8")
    (found,) = (block for block in re.findall(r"```\w+\n(.*?)```", text, re.DOTALL) if containing in block)
    return str(found)


@pytest.mark.parametrize("page,passed", [("README.md", 2), ("docs/pytest.md", 3)])
def test_examples_of_tests(pytester: pytest.Pytester, run: Run, page: str, passed: int) -> None:
    """For readers who copy them."""
    if page != "README.md":  # whose tests have marks, and need no configuration
        pytester.makepyprojecttoml(example(page, "[tool.pytest.ini_options]"))
    run(example(page, "import pytest")).assert_outcomes(passed=passed)
