# ruff: noqa: SLF001
"""Runs a test more than once. pytest has no public way to do so; plugins such as pytest-rerunfailures use the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import pytest
from _pytest import runner


def run(
    item: pytest.Function,
    nextitem: pytest.Item | None,
    *,
    last: bool,
    goes_on: Callable[[pytest.TestReport], bool],
) -> list[pytest.TestReport]:
    """Run a test once: its fixtures of function scope are set up, it is called, and they are torn down.

    Args:
        item: the test.
        nextitem: the test after it, for which fixtures of wider scope may last.
        last: whether this is the test's last run. Otherwise these fixtures last for the next run.
        goes_on: whether there is a next run after such a report.

    Returns:
        the reports of its phases, which no hook has been told of.
    """
    test: Any = item
    session: Any = item.session
    report: Callable[..., pytest.TestReport] = cast("Any", runner).call_and_report
    try:
        reports: list[pytest.TestReport] = [report(item, "setup", log=False)]
        if reports[0].passed and not item.config.getoption("setuponly", default=False):
            reports.append(report(item, "call", log=False))
        last = last or not all(map(goes_on, reports))
        if session.shouldfail or session.shouldstop:
            last, nextitem = True, None
        # `nextitem` stands for what is needed afterwards. Without the test itself, that is its class and its module.
        reports.append(report(item, "teardown", log=False, nextitem=nextitem if last else item.parent))
    finally:
        test._request = False
        test.funcargs = None
    if not last and not goes_on(reports[-1]):

        def tear_down() -> None:
            session._setupstate.teardown_exact(nextitem)

        call: pytest.CallInfo[None] = cast("Any", pytest.CallInfo).from_call(tear_down, "teardown")
        if call.excinfo is not None:
            reports.append(item.ihook.pytest_runtest_makereport(item=item, call=call))
    return reports


def renew(item: pytest.Function, function: Callable[..., object]) -> None:
    """Make a test that has run as it was before. `function` is what it was; plugins have wrapped it since."""
    test: Any = item
    test._initrequest()
    with suppress(AttributeError):
        test._report_sections.clear()
    if item.cls is None:
        item.obj = function
    else:
        test._instance = test.parent.newinstance()
        item.obj = getattr(test._instance, item.originalname)
