"""The plugin's options: where they may come from, which of them wins, what is said of wrong ones, and the help."""

from __future__ import annotations

import pytest
from support.fixtures.inner_runs import Run

# The fake reads the same options as real clusters do, and is here at once.
SOURCE = """
import pytest
import trio
import triocoro

def shown(cluster):
    options = cluster.options
    return options.nodes, options.token, options.log_level
"""
INI = "[pytest]\ncorosync_nodes = 2\ncorosync_token = 700\ncorosync_log_level = debug"
ARGUMENTS = "--corosync-nodes=4", "--corosync-token=900", "--corosync-log-level=trace"


def run_all(run: Run, tests: str, *args: str) -> None:
    """Run tests, all of which must pass."""
    outcomes = run(SOURCE + tests, *args, mode="fake").parseoutcomes()
    assert outcomes.keys() == {"passed"}


def test_defaults(run: Run) -> None:
    run_all(
        run,
        """
def test_cluster(corosync_cluster): assert shown(corosync_cluster) == (3, 500, "info")
def test_factory(make_corosync_cluster): assert shown(make_corosync_cluster()) == (3, 500, "info")
""",
    )


@pytest.mark.parametrize("args,values", [((), (2, 700, "debug")), (ARGUMENTS, (4, 900, "trace"))])
def test_ini_and_command_line(
    pytester: pytest.Pytester, run: Run, args: tuple[str, ...], values: tuple[object, ...]
) -> None:
    """The command line wins."""
    pytester.makeini(INI)
    run_all(
        run,
        f"""
def test_cluster(corosync_cluster): assert shown(corosync_cluster) == {values}
def test_factory(make_corosync_cluster): assert shown(make_corosync_cluster()) == {values}

def test_one_node_stays_one(corosync):
    async def main():
        async with triocoro.open_votequorum() as votequorum, triocoro.open_cmap() as cmap:
            assert (await votequorum.info()).expected_votes == 1
            assert await cmap.get("totem.token") == {values[1]}

    trio.run(main)
""",
        *args,
    )


def test_markers_win_over_the_command_line(run: Run) -> None:
    run_all(
        run,
        """
@pytest.mark.corosync(nodes=2, token=800)
def test_cluster(corosync_cluster): assert shown(corosync_cluster) == (2, 800, "trace")

@pytest.mark.corosync(nodes=2, token=800)
def test_factory(make_corosync_cluster):
    # Which may be asked for several clusters, none of them that of the marker.
    assert shown(make_corosync_cluster()) == (4, 900, "trace")
""",
        *ARGUMENTS,
    )


def test_arguments_of_the_factory_override_all_options(run: Run) -> None:
    run_all(
        run,
        """
@pytest.mark.corosync(nodes=5, token=600)
def test_it(make_corosync_cluster):
    cluster = make_corosync_cluster(nodes=2, token=800, log_level="info")
    assert shown(cluster) == (2, 800, "info")
    assert shown(make_corosync_cluster(1)) == (1, 900, "trace")
""",
        *ARGUMENTS,
    )


@pytest.mark.parametrize(
    "setting,complaint",
    [
        ("nodes=many", "it must be a whole number"),
        ("nodes=0", "'nodes' must be >= 1: 0"),
        ("nodes=254", "'nodes' must be <= 253: 254"),
        ("token=50", "'token' must be >= 126: 50"),
        ("log_level=loud", "'log_level' must be in ('info', 'debug', 'trace') (got 'loud')"),
    ],
)
@pytest.mark.parametrize("where", ["command line", "ini"])
def test_wrong_values_say_where_they_come_from(
    pytester: pytest.Pytester, run: Run, where: str, setting: str, complaint: str
) -> None:
    name, value = setting.split("=")
    option = f"--corosync-{name.replace('_', '-')}={value}"
    if where == "ini":
        pytester.makeini(f"[pytest]\ncorosync_{name} = {value}")
    result = run("def test_it(): pass", *([option] if where == "command line" else []))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    source = option if where == "command line" else f"corosync_{name} = '{value}' in {pytester.path / 'tox.ini'}"
    assert f"ERROR: {source}: {complaint}" in result.stderr.str()


@pytest.mark.parametrize("ini", ["", "[pytest]\ncorosync_nodes = 2"])
def test_wrong_values_that_override_the_ini_file(pytester: pytest.Pytester, run: Run, ini: str) -> None:
    pytester.makeini(ini)
    result = run("def test_it(): pass", "-o", "corosync_nodes=0", mode="fake")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: -o corosync_nodes=0: 'nodes' must be >= 1: 0" in result.stderr.str()


def test_a_marker_that_does_not_go_with_the_command_line(run: Run) -> None:
    result = run(
        "import pytest\n@pytest.mark.corosync(votes={3: 2})\ndef test_it(corosync_cluster): pass",
        "--corosync-nodes=2",
        mode="fake",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["@pytest.mark.corosync: votes must be of nodes 1 to 2: {3: 2} (beside --corosync-nodes=2)"]
    )


def test_a_marker_for_more_nodes_than_there_are(run: Run) -> None:
    """What is asked of `corosync` is one node."""
    source = "import pytest\n@pytest.mark.corosync(votes={2: 2})\ndef test_it(corosync): pass"
    result = run(source, mode="fake")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["@pytest.mark.corosync: votes must be of nodes 1 to 1: {2: 2}"])


def test_keeping_needs_real_clusters(run: Run) -> None:
    result = run("def test_it(): pass", "--corosync-keep", mode="fake")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --corosync-keep needs --corosync=real: *"])


def test_help(run: Run) -> None:
    result = run("def test_it(): pass", "--help")
    assert result.ret == pytest.ExitCode.OK
    text = " ".join(result.stdout.str().split())
    for phrase in [
        "Corosync clusters: --corosync={real,fake} what the clusters of the tests are: real daemons",
        "in-memory fake (default: fake)",
        "--corosync-nodes=N how many nodes `corosync_cluster` and `make_corosync_cluster()` have (default: 3)",
        "--corosync-token=MS totem's token timeout in milliseconds",
        "--corosync-log-level=LEVEL how much the daemons log: info, debug or trace",
        "--corosync-keep leave the cluster of a failed test as it was at the failure",
        "best with -x or --maxfail",
        "corosync (string): what the clusters of the tests are",
        "corosync_nodes (string): how many nodes",
        "corosync_token (string): totem's token timeout",
        "corosync_log_level (string): how much the daemons log",
        "--corosync-nodes, a test's marker and its arguments to make_corosync_cluster take precedence",
    ]:
        assert phrase in text


def test_pyproject(pytester: pytest.Pytester, run: Run) -> None:
    """All values are strings there."""
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\ncorosync = "fake"\ncorosync_nodes = "2"')
    source = SOURCE + "def test_it(corosync_cluster): assert shown(corosync_cluster)[0] == 2"
    assert run(source, mode=None).parseoutcomes() == {"passed": 1}
