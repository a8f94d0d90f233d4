"""`calling_line`: which line of the program has called us."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Final

_PASSED: Final = frozenset({"contextlib", "triocoro"})
"""The packages that pass a call on."""
_OTHERS: Final = frozenset({"pytest_corosync", "trio"})
"""Those that call us without being told to: a schedule of faults runs in a task, and the plugin cleans up."""


def calling_line() -> str | None:
    """The innermost line of the program that leads here, such as "test_it.py:48"; `None` if there is none."""
    # There is no other quick way.
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        name: str = frame.f_globals.get("__name__", "")
        package = name.partition(".")[0]
        if package in _OTHERS:
            return None
        if package not in _PASSED:
            return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return None
