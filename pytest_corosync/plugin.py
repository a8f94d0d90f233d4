"""The plugin's hooks: options, markers, header, report sections, summary. The work is done by `triocoro.testing`.

pytest loads the plugin in every project where triocoro is installed. It must load fast there, so triocoro is imported
only in functions that need it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

from . import _comparisons, _fixtures, _hangs, _header, _options, _places, _report, _seeds, _timelines
from ._fixtures import KEPT, LEND, LOANS, SOURCE, ClusterFactory
from ._options import Mode

if sys.version_info < (3, 11):
    # Built in from Python 3.11 on; before that, pytest itself requires this package.
    from exceptiongroup import BaseExceptionGroup

__all__ = ["ClusterFactory", "Mode"]

_KEPT_KEY: Final = "corosync_kept"
"""The key in an xdist worker's input of the directory for kept clusters."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's options and ini values."""
    _options.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options; register the markers and the fixtures."""
    _options.resolve(config)
    config.pluginmanager.register(_fixtures, "corosync-fixtures")
    config.stash[KEPT] = _directory_for_kept(config) if _options.keep(config) else None


def _directory_for_kept(config: pytest.Config) -> Path:
    """The directory with a file about each cluster that is left running; all processes of the run share it."""
    worker: dict[str, str] | None = getattr(config, "workerinput", None)
    if worker is not None:
        return Path(worker[_KEPT_KEY])
    directory = tempfile.mkdtemp(prefix="triocoro-kept-")
    process = os.getpid()

    def remove() -> None:
        if os.getpid() == process:  # not a child that a test has forked, and that ends like a session
            shutil.rmtree(directory)

    config.add_cleanup(remove)
    return Path(directory)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - a class of xdist, which may not be installed
    """Tell an xdist worker the directory for kept clusters: a worker that is killed reports nothing."""
    if node.config.stash[KEPT] is not None:
        node.workerinput[_KEPT_KEY] = str(node.config.stash[KEPT])


def pytest_sessionstart(session: pytest.Session) -> None:
    """Fail early if real clusters cannot run here.

    With a fallback to the fake, the session would report tests against real daemons that never ran.
    """
    config = session.config
    if _options.mode(config) != "real":
        return
    from triocoro.testing import end_with_parent, missing_requirements

    if hasattr(config, "workerinput"):
        # An xdist worker. When its controller is killed, it would go on for many seconds, and so would its clusters.
        # The requirements are checked by the controller.
        end_with_parent()
        return
    if config.getoption("collectonly"):  # which needs no daemon
        return

    if missing := missing_requirements():
        msg = "\n".join(["--corosync=real is not possible here:", *(f"  - {item}" for item in missing)])
        raise pytest.UsageError(msg)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Report which Corosync the session uses."""
    return _header.lines(_options.mode(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip the tests that are marked for the other mode."""
    other: Mode = "fake" if _options.mode(config) == "real" else "real"
    for item in items:
        marker = item.get_closest_marker(f"corosync_{other}_only")
        if marker is not None:
            reason = f": {marker.kwargs['reason']}" if "reason" in marker.kwargs else ""
            item.add_marker(pytest.mark.skip(reason=f"only with --corosync={other}{reason}"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test that is marked for seeds under one after the other."""
    return _seeds.run_protocol(item, nextitem) or None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Report wrong markers, and a clock that does not go with real clusters, before a cluster is started."""
    _places.watch(item.config)
    if item.get_closest_marker("corosync") is not None:
        # Also if the test has no fixture that would read the marker.
        _options.marked(item)
    _seeds.check(item)
    fixtures = getattr(item, "fixturenames", ())
    if _options.mode(item.config) == "real" and "autojump_clock" in fixtures and LEND in fixtures:
        pytest.fail(
            "autojump_clock does not go with --corosync=real: it skips ahead whenever all tasks wait, but real daemons"
            " need real time. Mark the test corosync_fake_only, or remove the fixture",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_runtest_setup")
def pytest_runtest_setup_in_time(item: pytest.Item) -> Generator[None, None, None]:
    """Let pytest-timeout end fixtures of a test with clusters."""
    with _hangs.ending(item):
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Let pytest-timeout end the clean-up of a test with clusters."""
    with _hangs.ending(item):
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Bound the time of the test, and let Control-C end the session.

    pytest-trio raises KeyboardInterrupt in a group, which pytest would report as a failed test.
    """
    __tracebackhide__ = True
    if LOANS not in item.stash:
        yield
        return
    try:
        with _hangs.watched(item):
            yield
    except KeyboardInterrupt as error:
        _report.note_interruption(item, error)
        raise
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        _report.note_interruption(item, group)
        raise KeyboardInterrupt from group


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:  # noqa: ANN401 - of pytest-timeout
    """Let pytest-timeout end tests with clusters in a way that leaves the next test unharmed."""
    if LEND not in getattr(item, "fixturenames", ()):
        return None
    return _hangs.set_timer_of_pytest_timeout(item, settings, sys.modules[__name__], lambda: _report.write_now(item))


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> None:
    """Stop the timer of `pytest_timeout_set_timer`."""
    _hangs.cancel_timers(item)


def pytest_enter_pdb() -> None:
    """Let a debugger take its time."""
    _hangs.leave_alone()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Say what an async test lacks that no plugin runs; pytest alone fails or, before 8.4, skips it without saying."""
    __tracebackhide__ = True
    try:
        return (yield)
    except (pytest.fail.Exception, pytest.skip.Exception, Warning) as exc:
        if LOANS not in pyfuncitem.stash or not str(exc).startswith("async def function"):
            raise
        installed = pyfuncitem.config.pluginmanager.hasplugin("trio")
        first = "" if installed else " install pytest-trio (pip install 'triocoro[trio]'),"
        pytest.fail(
            f"this test is an async function, and no plugin of pytest has run it. To run it with Trio,{first}"
            " put `trio_mode = true` into the ini file of pytest (in pyproject.toml: under [tool.pytest.ini_options]),"
            " or mark the test with @pytest.mark.trio",
            pytrace=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a failure what happened in its clusters; with --corosync-keep, leave them running."""
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    if report.failed and LOANS not in item.stash and (section := _seeds.section(item)) is not None:
        report.sections.append(section)
    if report.failed and LOANS in item.stash:
        report.sections += _report.sections(item, error)
        loans = item.stash[LOANS]
        for number, loan in enumerate(loans, start=1):
            how_to_enter = item.config.stash[SOURCE].leave_running(loan.cluster)
            if how_to_enter is not None:
                report.sections.append((f"{_report.title_of(number)} is left as it is", how_to_enter))
    _timelines.write(item, report, error)
    if report.when == "teardown" and LOANS in item.stash:
        for loan in item.stash[LOANS]:
            loan.cluster.record(None)  # it may be lent again
        del item.stash[LOANS]  # pytest keeps the item until the end of the session
    return report


def pytest_assertrepr_compare(config: pytest.Config, op: str, left: object, right: object) -> list[str] | None:
    """Show violations as they print themselves."""
    return _comparisons.explain(config, op, left, right)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take stock of the places that the tests have reached."""
    _places.finish(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401 - a class of xdist, which may not be installed
    """Take over what an xdist worker has found."""
    _places.finish_worker(node.config, getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Report the test that Control-C has ended, and name what is left: pages of tests, and clusters that run."""
    _report.write_interruptions(terminalreporter, config)
    _places.summarise(terminalreporter, config)
    _timelines.summarise(terminalreporter, config)
    directory = config.stash[KEPT]
    kept = [] if directory is None else sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    if kept:
        terminalreporter.section("corosync clusters that are left")
        for path in kept:
            terminalreporter.line(path.read_text(encoding="utf-8"))
