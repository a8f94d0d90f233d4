"""The plugin: options, fixtures, markers, report sections. Thin over `triocoro.testing`.

pytest loads it wherever triocoro is installed, so whatever a run without our fixtures does not need is imported late.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import pytest

if TYPE_CHECKING:
    from typing_extensions import Unpack  # which is younger than Python 3.10

    from triocoro.testing import Cluster, ClusterSettings, Node

Mode: TypeAlias = Literal["real", "fake"]
"""What the clusters of a session are."""

_MODES: tuple[Mode, ...] = ("real", "fake")

_MODE = pytest.StashKey[Mode]()
_CLUSTERS = pytest.StashKey[list["Cluster"]]()
"""The clusters of a test, running or not: their logs stay readable."""

_MARKERS = {
    "corosync(*, nodes, ...)": (
        "the options of the cluster that `corosync` and `corosync_cluster` give this test"
        " (the fields of triocoro.testing.ClusterOptions)"
    ),
    "corosync_real_only": "skip this test unless --corosync=real",
    "corosync_fake_only": "skip this test unless --corosync=fake",
}


class ClusterFactory(Protocol):
    """What the fixture `make_corosync_cluster` gives."""

    def __call__(self, nodes: int = 3, **settings: Unpack[ClusterSettings]) -> Cluster:
        """Start a cluster, which is stopped at the end of the test. It blocks until the cluster is up."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the ini value that choose the mode."""
    text = "what the clusters of the tests are: real daemons in network namespaces, or an in-memory fake"
    parser.getgroup("corosync").addoption("--corosync", choices=_MODES, default=None, help=f"{text} (default: fake)")
    parser.addini("corosync", f"{text}; the command line's --corosync wins", default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and settle the mode."""
    for marker, text in _MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {text}")
    config.stash[_MODE] = _chosen_mode(config)


def _chosen_mode(config: pytest.Config) -> Mode:
    """The command line's, else the ini file's, else the fake."""
    mode: object = config.getoption("corosync")
    if mode is None:
        mode = config.getini("corosync")
    if mode is None:
        mode = "fake"
    for known in _MODES:
        if mode == known:
            return known
    msg = f"corosync = {mode!r} in {config.inipath}: it must be one of {', '.join(_MODES)}"
    raise pytest.UsageError(msg)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a real session that cannot be had: a fallback would pretend to have tested what it has not."""
    config = session.config
    # An xdist worker leaves this to its controller; a collection needs no daemon.
    if config.stash[_MODE] != "real" or hasattr(config, "workerinput") or config.getoption("collectonly"):
        return
    from triocoro.testing._netns import requirements

    if missing := requirements.missing():
        msg = "\n".join(["--corosync=real is not possible here:", *(f"  - {item}" for item in missing)])
        raise pytest.UsageError(msg)


def pytest_report_header(config: pytest.Config) -> str:
    """Say what the session runs against."""
    if config.stash[_MODE] == "fake":
        return "corosync: fake"
    return f"corosync: real, {_corosync_version()}"


def _corosync_version() -> str:
    from triocoro.testing._netns import requirements

    program = requirements.find_program("corosync")
    if program is None:
        return "not installed"
    output = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"version '([^']*)'", output)
    return f"{program} {found[1] if found else '(unknown version)'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the mode excludes."""
    mode = config.stash[_MODE]
    other: Mode = "fake" if mode == "real" else "real"
    skip = pytest.mark.skip(reason=f"only with --corosync={other}")
    for item in items:
        if item.get_closest_marker(f"corosync_{other}_only") is not None:
            item.add_marker(skip)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Complain about what cannot be, before a cluster is started for it."""
    # Whether or not the test takes a fixture that would read the marker.
    _marker_options(item)
    fixtures = getattr(item, "fixturenames", ())
    if item.config.stash[_MODE] == "real" and "autojump_clock" in fixtures and "make_corosync_cluster" in fixtures:
        pytest.fail(
            "autojump_clock does not go with --corosync=real: it jumps whenever all tasks wait, as they do for real"
            " daemons, whose time is not ours. Mark the test corosync_fake_only, or let it do without that clock",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the daemons' logs to the report of a failure."""
    report = yield
    if report.failed:
        clusters = item.stash.get(_CLUSTERS, None) or []
        for number, cluster in enumerate(clusters, start=1):
            title = "corosync" if number == 1 else f"corosync cluster {number}"
            report.sections += [(f"{title} node {node.nodeid} log", node.log) for node in cluster.nodes.values()]
    return report


def _marker_options(item: pytest.Item) -> dict[str, Any]:
    """The options in the test's `corosync` markers; that of the function wins over the class's, the module's."""
    markers = list(item.iter_markers("corosync"))
    options: dict[str, Any] = {}
    for marker in reversed(markers):
        if marker.args:
            pytest.fail(f"@pytest.mark.corosync takes keyword arguments only, not {marker.args!r}", pytrace=False)
        options.update(marker.kwargs)
    if markers:
        _check_options(options)
    return options


def _check_options(options: dict[str, Any]) -> None:
    import attrs

    from triocoro.testing import ClusterOptions

    known = [field.name for field in attrs.fields(ClusterOptions)]
    if unknown := [name for name in options if name not in known]:
        pytest.fail(
            f"@pytest.mark.corosync does not take {', '.join(unknown)}; it takes {', '.join(known)}", pytrace=False
        )
    try:
        ClusterOptions(**options)
    except (TypeError, ValueError) as exc:
        pytest.fail(f"@pytest.mark.corosync: {exc.args[0] if exc.args else exc}", pytrace=False)


@pytest.fixture(scope="session")
def corosync_mode(pytestconfig: pytest.Config) -> Mode:
    """What the clusters of this session are: "real" or "fake"."""
    return pytestconfig.stash[_MODE]


@pytest.fixture
def make_corosync_cluster(request: pytest.FixtureRequest, corosync_mode: Mode) -> Iterator[ClusterFactory]:
    """A factory of clusters: `make_corosync_cluster(nodes=3, ...)` starts one.

    All of them are stopped at the end of the test, the latest first. Give a node's `endpoint` to `open_*`.
    """
    item = cast("pytest.Item", request.node)
    clusters = item.stash.setdefault(_CLUSTERS, [])
    with ExitStack() as stack:

        def make(nodes: int = 3, **settings: Unpack[ClusterSettings]) -> Cluster:
            from triocoro.testing import FakeCluster, NetnsCluster

            new = NetnsCluster if corosync_mode == "real" else FakeCluster
            cluster = new(nodes=nodes, **settings)
            clusters.append(cluster)
            return stack.enter_context(cluster)

        yield make


@pytest.fixture
def corosync_cluster(request: pytest.FixtureRequest, make_corosync_cluster: ClusterFactory) -> Iterator[Cluster]:
    """A cluster of three nodes, or as `@pytest.mark.corosync(nodes=..., ...)` says. Node 1 is the default endpoint."""
    with _first_as_default(make_corosync_cluster(**_marker_options(request.node))) as cluster:
        yield cluster


@pytest.fixture
def corosync(request: pytest.FixtureRequest, make_corosync_cluster: ClusterFactory) -> Iterator[Node]:
    """One node, the default endpoint: of a cluster of its own, or node 1 of `corosync_cluster` in a test with both."""
    if "corosync_cluster" in request.fixturenames:
        yield request.getfixturevalue("corosync_cluster")[1]
        return
    options: dict[str, Any] = {"nodes": 1, **_marker_options(request.node)}
    with _first_as_default(make_corosync_cluster(**options)) as cluster:
        yield cluster[1]


@contextmanager
def _first_as_default(cluster: Cluster) -> Generator[Cluster]:
    # The process's default, and not the context's: a test runner may run the test in another context than its fixtures.
    from triocoro._endpoint import push_process_default, remove_process_default

    endpoint = cluster[1].endpoint
    push_process_default(endpoint)
    try:
        yield cluster
    finally:
        remove_process_default(endpoint)
