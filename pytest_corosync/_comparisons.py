"""What pytest shows of `assert check(history) == []`, or of `check_linearizable`: each violation whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from triocoro.testing import Violation

COMPARED: Final = pytest.StashKey[list["Violation"]]()
"""The violations of the session's latest comparison."""


def explain(config: pytest.Config, operator: str, left: object, right: object) -> list[str] | None:
    """Keep a list of violations that is compared with the empty list, and return its lines; None for anything else."""
    testing: Any = sys.modules.get("triocoro.testing")
    if testing is None or operator != "==" or not (isinstance(left, list) and isinstance(right, list)):
        return None
    violations = cast("list[object]", left or right)
    if (left and right) or not all(isinstance(violation, testing.Violation) for violation in violations):
        return None
    config.stash[COMPARED] = cast("list[Violation]", violations)
    lines = [line for violation in violations for line in str(violation).splitlines()]
    return lines if len(violations) == 1 else [f"{len(violations)} violations", *lines]
