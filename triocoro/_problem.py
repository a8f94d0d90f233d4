"""What keeps a program from using Corosync, or a test from running real daemons: the reason, and what to do about it.

The C side and the test clusters look for problems. Error messages and `triocoro doctor` show them.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import attrs

from ._errors import CorosyncError

ErrorT = TypeVar("ErrorT", bound=CorosyncError)

ProblemKind: TypeAlias = Literal[
    # In the order in which they get in the way of a connection.
    "no-extension",
    "no-library",
    "no-shared-memory",
    "other-shared-memory",
    "shared-memory-full",
    "no-daemon",
    "wrong-network-namespace",
    "leftover-files",
    "starting",
    "frozen",
    "no-votequorum",
    "no-permission",
    # Of real test clusters.
    "no-program",
    "no-folder",
    "user-namespaces-forbidden",
    "namespace-limit",
    "no-capability",
    "no-devices",
    # Anything else.
    "other",
]


@attrs.frozen
class Problem:
    """Something that is missing or wrong. Its string is the text of an error message."""

    kind: ProblemKind
    """Tells problems apart for programs."""
    reason: str
    """What is wrong."""
    remedy: str = ""
    """What to do about it."""
    command: str = ""
    """A shell command that does so, if there is one."""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.reason, self.remedy, self.command)))


_problems: Final[WeakKeyDictionary[CorosyncError, Problem]] = WeakKeyDictionary()
"""Not an attribute of the errors, which would be pickled."""


def reporting(error: ErrorT, problem: Problem) -> ErrorT:
    """Note which problem an error reports; returns the error."""
    _problems[error] = problem
    return error


def problem_of(error: CorosyncError) -> Problem | None:
    """The problem that an error reports; `None` if it reports something else."""
    return _problems.get(error)
