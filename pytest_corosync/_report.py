"""The report of a failed test: what happened in its clusters, and where its tasks waited if it hung."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from . import _hangs, _options, _seeds
from ._comparisons import COMPARED
from ._fixtures import LOANS

if sys.version_info < (3, 11):
    # Built in from Python 3.11 on; before that, pytest itself requires this package.
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from triocoro.testing import ClusterLoan, Violation

INTERRUPTED: Final = pytest.StashKey[list[tuple[str, str]]]()
"""The sections for a test that Control-C has ended: pytest makes no report of it."""

_WIDTH: Final = 160
"""Characters of an exception that the timeline shows."""


def sections(item: pytest.Item, error: BaseException | None) -> list[tuple[str, str]]:
    """The sections of the report of a failed test, each with a title and a text.

    Args:
        item: the test.
        error: why it failed.
    """
    failure = None if error is None else failure_in_words(item, error)
    violations = [] if error is None else _violations(item, error)
    loans = item.stash[LOANS]
    found: list[tuple[str, str]] = []
    for number, loan in enumerate(loans, start=1):
        title = title_of(number)
        parts = [_head(item) if number == 1 else "", loan.explain(failure=failure, violations=violations)]
        if number == 1 and (tasks := _hangs.tasks(item)):
            parts += ["where the tasks were:", tasks]
        if number == len(loans) and not _options.logs(item.config):
            parts.append("(--corosync-logs adds the whole log of each node)")
        found.append((title, "\n".join(filter(None, parts))))
        if _options.logs(item.config):
            found += [
                (f"{title} node {node.nodeid} log", _log(loan, node.nodeid)) for node in loan.cluster.nodes.values()
            ]
    return found


def title_of(number: int) -> str:
    """The title of the section for a test's cluster, counted from 1."""
    return "corosync" if number == 1 else f"corosync cluster {number}"


def failure_in_words(item: pytest.Item, error: BaseException) -> str:
    """Where and why a test failed, in one line."""
    place = _place(item, error)
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in _leaves(error)):
        return f"is INTERRUPTED{place}"
    return f"FAILS{place}: {_in_words(error)}"


def _violations(item: pytest.Item, error: BaseException) -> list[Violation]:
    """The violations that an assertion has failed for."""
    said = "\n".join(map(str, _leaves(error)))
    found: list[Violation] | None = item.config.stash.get(COMPARED, None)
    return [violation for violation in found or () if violation.text in said]


def _head(item: pytest.Item) -> str:
    seed = _seeds.section(item)
    return "" if seed is None else seed[1]


def _log(loan: ClusterLoan, nodeid: int) -> str:
    return loan.log(loan.cluster[nodeid]) or "(nothing since the test began)"


def _in_words(error: BaseException) -> str:
    """An exception in one line; of a group, all that is in it."""
    leaves = _leaves(error)
    if leaves != [error]:
        return _short(" and ".join(_in_words(leaf) for leaf in leaves))
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    if isinstance(error, pytest.fail.Exception):
        return _short(text)
    return _short(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _leaves(error: BaseException) -> list[BaseException]:
    """All that is in a group of exceptions, at any depth; an exception itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for part in group.exceptions for leaf in _leaves(part)]


def _short(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]}..."


def _place(item: pytest.Item, error: BaseException) -> str:
    """Where in the file of the test an exception came from."""
    leaves = _leaves(error)
    line = None
    traceback = leaves[0].__traceback__ if len(leaves) == 1 else None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(item.path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return "" if line is None else f" in line {line}"


def write_now(item: pytest.Item) -> None:
    """Print the sections: the process is about to end. Called in a thread."""
    if LOANS in item.stash:
        capture: Any = item.config.pluginmanager.getplugin("capturemanager")
        if capture is not None:
            capture.suspend_global_capture(item)
        for title, text in sections(item, None):
            print(f"\n{f' {title} ':-^80}\n{text}", file=sys.__stderr__, flush=True)
        if capture is not None:
            capture.resume_global_capture()


def note_interruption(item: pytest.Item, error: BaseException) -> None:
    """Keep what happened in the clusters of a test that Control-C has ended, for the summary."""
    item.config.stash.setdefault(INTERRUPTED, list[tuple[str, str]]()).extend(
        (f"{title}: {item.nodeid} was interrupted", text) for title, text in sections(item, error)
    )


def write_interruptions(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what `note_interruption` has kept."""
    for title, text in config.stash.get(INTERRUPTED, list[tuple[str, str]]()):
        terminalreporter.section(title)
        terminalreporter.line(text)
