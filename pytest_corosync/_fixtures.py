"""The fixtures. All of them are synchronous, so that they work with any test runner."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import pytest

from . import _options, _recording, _seeds
from ._options import Mode

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

    from triocoro.testing import Cluster, ClusterLoan, ClusterOptions, ClusterSettings, ClusterSource, History, Node


class ClusterFactory(Protocol):
    """The type of the fixture `make_corosync_cluster`."""

    def __call__(self, nodes: int | None = None, **settings: Unpack[ClusterSettings]) -> Cluster:
        """Return a cluster for the rest of the test; blocks until the cluster is up.

        Args:
            nodes: how many nodes; the default comes from the command line or the ini file, else it is 3.
            settings: further fields of `triocoro.testing.ClusterOptions`. They override the command line and the ini
                file. The markers of the test do not apply.
        """
        ...


LEND: Final = "_corosync_lend"
"""The fixture that all tests with clusters have."""

LOANS: Final = pytest.StashKey[list["ClusterLoan"]]()
"""The clusters of a test, running or not."""

SOURCE: Final = pytest.StashKey["ClusterSource"]()
"""The source of the session's clusters."""

KEPT: Final = pytest.StashKey[Path | None]()
"""The directory with a file about each cluster that is left running; `None` without --corosync-keep."""


@pytest.fixture(scope="session")
def corosync_mode(pytestconfig: pytest.Config) -> Mode:
    """The kind of clusters of this session: "real" or "fake"."""
    return _options.mode(pytestconfig)


@pytest.fixture(scope="session")
def _corosync_source(pytestconfig: pytest.Config, corosync_mode: Mode) -> Iterator[ClusterSource]:
    """The source of the session's clusters. At the end of the session it ends those that are idle."""
    from triocoro.testing import FakeClusterSource, NetnsClusterPool

    kept = pytestconfig.stash[KEPT]
    source: ClusterSource = NetnsClusterPool(kept) if corosync_mode == "real" else FakeClusterSource()
    pytestconfig.stash[SOURCE] = source
    yield source
    source.close()


@pytest.fixture
def _corosync_lend(
    request: pytest.FixtureRequest, _corosync_source: ClusterSource
) -> Iterator[Callable[[ClusterOptions], Cluster]]:
    """A function that returns a cluster for the rest of the test."""
    loans: list[ClusterLoan] = []
    item = _item(request)
    item.stash[LOANS] = loans
    source = _seeds.source(item) or _corosync_source
    with ExitStack() as stack:

        def lend(options: ClusterOptions) -> Cluster:
            loan = source.borrow(options, item.nodeid)
            stack.callback(source.give_back, loan.cluster)
            loans.append(loan)
            _recording.record(item, loan.cluster, first=len(loans) == 1)
            return loan.cluster

        stack.callback(_recording.forget, item)
        yield lend


@pytest.fixture
def corosync_history(request: pytest.FixtureRequest) -> Iterator[History]:
    """What the clients of the test's first cluster do and see, and what is done to it: a `triocoro.testing.History`.

    Each further cluster has a history of its own, `cluster.history`.
    """
    item = _item(request)
    yield _recording.history(item)
    _recording.forget(item)


@pytest.fixture
def make_corosync_cluster(
    pytestconfig: pytest.Config, _corosync_lend: Callable[[ClusterOptions], Cluster]
) -> ClusterFactory:
    """A factory: `make_corosync_cluster(nodes=3, ...)` returns a cluster that no other test uses meanwhile.

    Its clusters last until the end of the test. To connect to one, pass a node's `endpoint` to `open_*`.
    """

    def make(nodes: int | None = None, **settings: Unpack[ClusterSettings]) -> Cluster:
        from triocoro import CorosyncUnavailableError
        from triocoro.testing import ClusterOptions

        options: dict[str, Any] = {**settings}
        if nodes is not None:
            options["nodes"] = nodes
        options = _options.completed(options, _options.defaults(pytestconfig))
        # The traceback of a failure should end at the caller.
        __tracebackhide__ = True
        try:
            return _corosync_lend(ClusterOptions(**options))
        except CorosyncUnavailableError as error:
            raise error.with_traceback(None) from None

    return make


@pytest.fixture
def corosync_cluster(
    request: pytest.FixtureRequest, _corosync_lend: Callable[[ClusterOptions], Cluster]
) -> Iterator[Cluster]:
    """A cluster whose first node is the default endpoint.

    It has three nodes, unless `@pytest.mark.corosync(nodes=..., ...)`, the command line or the ini file say otherwise.
    """
    with _lent(_corosync_lend, _options.marked(_item(request), single=False)) as cluster:
        yield cluster


@pytest.fixture
def corosync(request: pytest.FixtureRequest, _corosync_lend: Callable[[ClusterOptions], Cluster]) -> Iterator[Node]:
    """The first node of a cluster, and the default endpoint. It is the only one, unless a marker says otherwise.

    A test that also requests `corosync_cluster` gets the first node of that cluster.
    """
    if "corosync_cluster" in request.fixturenames:
        yield _first(request.getfixturevalue("corosync_cluster"))
        return
    with _lent(_corosync_lend, _options.marked(_item(request), single=True)) as cluster:
        yield _first(cluster)


def _first(cluster: Cluster) -> Node:
    return next(iter(cluster.nodes.values()))


def _item(request: pytest.FixtureRequest) -> pytest.Item:
    return cast("pytest.Item", request.node)


@contextmanager
def _lent(lend: Callable[[ClusterOptions], Cluster], options: ClusterOptions) -> Generator[Cluster, None, None]:
    """A cluster whose first node is the default endpoint."""
    from triocoro import CorosyncUnavailableError
    from triocoro.testing import process_default_endpoint

    try:
        cluster = lend(options)
    except CorosyncUnavailableError as error:
        pytest.fail(str(error), pytrace=False)
    # Not `default_endpoint`: a test runner may run the test in another context than its fixtures.
    with process_default_endpoint(_first(cluster).endpoint):
        yield cluster
