"""The plugin's hooks: options, markers, header, report sections, summary. Thin over `triocoro.testing`.

pytest loads it wherever triocoro is installed, so whatever a run without our fixtures does not need is imported late.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from . import _fixtures, _header, _options
from ._fixtures import KEPT, LOANS, SOURCE, ClusterFactory
from ._options import Mode

if sys.version_info < (3, 11):
    # pytest depends on it there.
    from exceptiongroup import BaseExceptionGroup

__all__ = ["ClusterFactory", "Mode"]

_PLACE: Final = "corosync_kept"
"""What a worker of xdist finds the place of the kept clusters by."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our options and ini values."""
    _options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Decide what holds for the session; register the markers and the fixtures."""
    _options.settle(config)
    config.pluginmanager.register(_fixtures, "corosync-fixtures")
    config.stash[KEPT] = _place_for_kept(config) if _options.keep(config) else None


def _place_for_kept(config: pytest.Config) -> Path:
    """The directory with a file about each cluster that is left: all processes of the run share it."""
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is not None:
        return Path(worker[_PLACE])
    place = tempfile.mkdtemp(prefix="triocoro-kept-")
    config.add_cleanup(lambda: shutil.rmtree(place))
    return Path(place)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - of xdist, which need not be there
    """Tell a worker of xdist, which may end without another word, where to leave word of its clusters."""
    if node.config.stash[KEPT] is not None:
        node.workerinput[_PLACE] = str(node.config.stash[KEPT])


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a real session that cannot be had: a fallback would pretend to have tested what it has not."""
    config = session.config
    if _options.mode(config) != "real":
        return
    from triocoro.testing._netns import requirements, supervisor_process

    if hasattr(config, "workerinput"):
        # xdist lets it go on for many seconds, with its clusters, when its controller has been killed. The rest is the
        # controller's business.
        supervisor_process.end_with_parent()
        return
    if config.getoption("collectonly"):  # which needs no daemon
        return

    if missing := requirements.missing():
        msg = "\n".join(["--corosync=real is not possible here:", *(f"  - {item}" for item in missing)])
        raise pytest.UsageError(msg)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what the session runs against."""
    return _header.lines(_options.mode(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the mode excludes."""
    other: Mode = "fake" if _options.mode(config) == "real" else "real"
    for item in items:
        marker = item.get_closest_marker(f"corosync_{other}_only")
        if marker is not None:
            reason = f": {marker.kwargs['reason']}" if "reason" in marker.kwargs else ""
            item.add_marker(pytest.mark.skip(reason=f"only with --corosync={other}{reason}"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Complain about what cannot be, before a cluster is started for it."""
    if item.get_closest_marker("corosync") is not None:
        # Whether or not the test takes a fixture that would read the marker.
        _options.marked(item)
    fixtures = getattr(item, "fixturenames", ())
    if _options.mode(item.config) == "real" and "autojump_clock" in fixtures and "_corosync_lend" in fixtures:
        pytest.fail(
            "autojump_clock does not go with --corosync=real: it jumps whenever all tasks wait, as they do for real"
            " daemons, whose time is not ours. Mark the test corosync_fake_only, or let it do without that clock",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Have Control-C end the session, as it does elsewhere: pytest-trio puts it into a group, which pytest reports."""
    try:
        yield
    except BaseExceptionGroup as group:
        if LOANS in item.stash and group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from group
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the daemons' logs to the report of a failure, and leave the clusters as they are, if that is wanted."""
    report = yield
    if report.failed and LOANS in item.stash:
        loans = item.stash[LOANS]
        for number, loan in enumerate(loans, start=1):
            title = "corosync" if number == 1 else f"corosync cluster {number}"
            report.sections += [
                (f"{title} node {node.nodeid} log", loan.log(node) or "(nothing since the test began)")
                for node in loan.cluster.nodes.values()
            ]
            how_to_enter = item.config.stash[SOURCE].withdraw(loan.cluster)
            if how_to_enter is not None:
                report.sections.append((f"{title} is left as it is", how_to_enter))
    if report.when == "teardown" and LOANS in item.stash:
        del item.stash[LOANS]  # the item stays until the end of the session
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which clusters are left, and how to enter and end them."""
    place = config.stash[KEPT]
    kept = [] if place is None else sorted(place.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    if kept:
        terminalreporter.section("corosync clusters that are left")
        for path in kept:
            terminalreporter.line(path.read_text(encoding="utf-8"))
