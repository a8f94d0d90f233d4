"""Pages for --corosync-timeline: what happened in the clusters of each test, for the browser."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, cast

import pytest

from . import _options
from ._fixtures import LOANS
from ._report import failure_in_words

if TYPE_CHECKING:
    from triocoro.testing import Cluster, History

_PROPERTY: Final = "corosync_timeline"
"""The user property of a report with the path of a page: it comes through xdist, and into JUnit's XML."""

_RECORDED: Final = pytest.StashKey[list[tuple["Cluster", "History"]]]()
"""The clusters of a test and their histories, which its clean-up takes from them."""

_LONGEST: Final = 100
_VIOLATIONS: Final = 50
_LINES: Final = 60
"""How much of a traceback a page has, counted from its end."""


def write(item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> None:
    """Write the pages of a test: once it has run, and again if its clean-up fails.

    A test with seeds runs often; only a failure has pages then.

    Args:
        item: the test.
        report: the report of one of its phases.
        error: what ended that phase.
    """
    folder = _options.timeline(item.config)
    known = hasattr(report, "wasxfail")
    if folder is None or LOANS not in item.stash or (report.skipped and not known):
        return
    recorded = list(_recorded(item)) or item.stash.get(_RECORDED, list["tuple[Cluster, History]"]())
    item.stash[_RECORDED] = [] if report.when == "teardown" else recorded
    if not (report.failed or (report.when == "call" and item.get_closest_marker("corosync_seeds") is None)):
        return
    for number, (cluster, history) in enumerate(recorded, start=1):
        path = _path(folder, item.nodeid, number)
        title = f"corosync timeline{'' if number == 1 else f' {number}'}"
        page = _page(item, report, error, cluster, history)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(page, encoding="utf-8")
        except OSError as exc:
            report.sections.append((title, f"--corosync-timeline: it cannot be written: {exc}"))
            continue
        report.user_properties.append((_PROPERTY, str(path)))
        if report.failed:
            report.sections.append((title, str(path)))


def summarise(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the pages of failed tests, and say how many others there are."""
    folder = _options.timeline(config)
    if folder is None:
        return
    failed = list(_pages(terminalreporter, "failed", "error"))
    others = set(_pages(terminalreporter, "passed", "xfailed", "xpassed")) - set(failed)
    if not (failed or others):
        return
    terminalreporter.section("corosync timelines")
    for path in dict.fromkeys(failed):
        terminalreporter.line(path)
    if others:
        terminalreporter.line(f"{len(others)} of tests that did not fail in {folder}")


def _recorded(item: pytest.Item) -> Iterator[tuple[Cluster, History]]:
    """The clusters of a test that were recorded, one for each history."""
    seen: set[int] = set()
    for loan in item.stash[LOANS]:
        history = loan.cluster.history
        if history is not None and id(history) not in seen:
            seen.add(id(history))
            yield loan.cluster, history


def _page(
    item: pytest.Item, report: pytest.TestReport, error: BaseException | None, cluster: Cluster, history: History
) -> str:
    from triocoro.testing import check, timeline_page

    violations = check(history, options=cluster.options) if report.failed and not history.dropped else []
    return timeline_page(
        history,
        title=item.nodeid,
        options=cluster.options,
        outcome=_outcome(report),
        failure="" if report.passed or error is None else _failure(item, report, error),
        violations=violations[:_VIOLATIONS],
    )


def _outcome(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return report.outcome if report.when == "call" else f"{report.outcome} in {report.when}"


def _failure(item: pytest.Item, report: pytest.TestReport, error: BaseException) -> str:
    """Why a test failed: in one line, then as pytest tells it."""
    lines = report.longreprtext.splitlines()
    return "\n".join([failure_in_words(item, error), "", *lines[-_LINES:]])


def _path(folder: Path, nodeid: str, number: int) -> Path:
    """The file of a test's page, in folders like those of the tests. It is the same in each run."""
    file, _, name = nodeid.partition("::")
    parts = [part for part in PurePosixPath(file).parts if part not in {"/", ".."}]
    readable = name.replace("::", ".").replace("[", "-").removesuffix("]")
    safe = re.sub(r"[^A-Za-z0-9_.-]", "_", readable)[:_LONGEST].strip(".") or "test"
    if safe != readable or len(parts) != len(PurePosixPath(file).parts):
        # Other tests could have the same name now.
        safe += f"-{hashlib.sha256(nodeid.encode(errors='backslashreplace')).hexdigest()[:8]}"
    return folder.joinpath(*parts, f"{safe}{'' if number == 1 else f'-{number}'}.html")


def _pages(terminalreporter: pytest.TerminalReporter, *outcomes: str) -> Iterator[str]:
    for outcome in outcomes:
        for report in cast("list[pytest.TestReport]", terminalreporter.getreports(outcome)):
            for name, path in report.user_properties:
                if name == _PROPERTY:
                    yield str(path)
