"""The fixtures, all of them synchronous: any test runner can use them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import pytest

from . import _options
from ._options import Mode

if TYPE_CHECKING:
    from typing_extensions import Unpack  # which is younger than Python 3.10

    from triocoro.testing import Cluster, ClusterOptions, ClusterSettings, Node
    from triocoro.testing._pool.pool import FakeSource, Loan, Pool


class ClusterFactory(Protocol):
    """What the fixture `make_corosync_cluster` gives."""

    def __call__(self, nodes: int | None = None, **settings: Unpack[ClusterSettings]) -> Cluster:
        """Have a cluster for the rest of the test. It blocks until the cluster is up.

        Args:
            nodes: how many nodes; without it, as the command line or the ini file says, else 3.
            settings: the further fields of `triocoro.testing.ClusterOptions`. They win over all other places; the
                markers of the test do not count here.
        """
        ...


LOANS: Final = pytest.StashKey[list["Loan"]]()
"""The clusters of a test, running or not."""

SOURCE: Final = pytest.StashKey["FakeSource | Pool"]()
"""Where the clusters of the session come from."""

KEPT: Final = pytest.StashKey[Path | None]()
"""The directory with a file about each cluster that is left; `None` where none are to be left."""


@pytest.fixture(scope="session")
def corosync_mode(pytestconfig: pytest.Config) -> Mode:
    """What the clusters of this session are: "real" or "fake"."""
    return _options.mode(pytestconfig)


@pytest.fixture(scope="session")
def _corosync_source(pytestconfig: pytest.Config, corosync_mode: Mode) -> Iterator[FakeSource | Pool]:
    """Where clusters come from; at its end, those end that wait for further tests."""
    from triocoro.testing._pool.pool import FakeSource, Pool

    kept = pytestconfig.stash[KEPT]
    source = pytestconfig.stash[SOURCE] = Pool(kept) if corosync_mode == "real" else FakeSource()
    yield source
    source.end()


@pytest.fixture
def _corosync_lend(
    request: pytest.FixtureRequest, _corosync_source: FakeSource | Pool
) -> Iterator[Callable[[ClusterOptions], Cluster]]:
    """A function that gives a cluster for the rest of the test."""
    loans: list[Loan] = []
    item = _item(request)
    item.stash[LOANS] = loans
    with ExitStack() as stack:

        def lend(options: ClusterOptions) -> Cluster:
            loan = _corosync_source.take(options, item.nodeid)
            stack.callback(_corosync_source.give_back, loan.cluster)
            loans.append(loan)
            return loan.cluster

        yield lend


@pytest.fixture
def make_corosync_cluster(
    pytestconfig: pytest.Config, _corosync_lend: Callable[[ClusterOptions], Cluster]
) -> ClusterFactory:
    """A factory of clusters: `make_corosync_cluster(nodes=3, ...)` gives one that nobody else has.

    They are this test's until its end. Give a node's `endpoint` to `open_*`.
    """

    def make(nodes: int | None = None, **settings: Unpack[ClusterSettings]) -> Cluster:
        from triocoro import CorosyncUnavailableError
        from triocoro.testing import ClusterOptions

        options: dict[str, Any] = {**_options.defaults(pytestconfig), **settings}
        if nodes is not None:
            options["nodes"] = nodes
        # The reader of a failure need not see where in here it came from.
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
    """A cluster of three nodes, or as `@pytest.mark.corosync(nodes=..., ...)`, the command line or the ini file says.

    Node 1 is the default endpoint.
    """
    with _lent(_corosync_lend, _options.marked(_item(request), single=False)) as cluster:
        yield cluster


@pytest.fixture
def corosync(request: pytest.FixtureRequest, _corosync_lend: Callable[[ClusterOptions], Cluster]) -> Iterator[Node]:
    """One node, the default endpoint: of a cluster of its own, or node 1 of `corosync_cluster` in a test with both.

    A cluster of its own has this node only, unless `@pytest.mark.corosync(nodes=..., ...)` says otherwise.
    """
    if "corosync_cluster" in request.fixturenames:
        yield request.getfixturevalue("corosync_cluster")[1]
        return
    with _lent(_corosync_lend, _options.marked(_item(request), single=True)) as cluster:
        yield cluster[1]


def _item(request: pytest.FixtureRequest) -> pytest.Item:
    return cast("pytest.Item", request.node)


@contextmanager
def _lent(lend: Callable[[ClusterOptions], Cluster], options: ClusterOptions) -> Generator[Cluster, None, None]:
    """A cluster, whose first node is the default endpoint."""
    # The process's default, and not the context's: a test runner may run the test in another context than its fixtures.
    from triocoro import CorosyncUnavailableError
    from triocoro._endpoint import push_process_default, remove_process_default

    try:
        cluster = lend(options)
    except CorosyncUnavailableError as error:
        pytest.fail(str(error), pytrace=False)
    endpoint = cluster[1].endpoint
    push_process_default(endpoint)
    try:
        yield cluster
    finally:
        remove_process_default(endpoint)
