"""What `explore` says of the simplest example that fails."""

from __future__ import annotations

import re

from triocoro.testing import FaultSchedule, FaultStep


def note_of(error: BaseException, printed: str) -> str:
    """What Hypothesis has added to the exception, or printed before Python 3.11."""
    return "\n".join(getattr(error, "__notes__", ())) or printed


def simplest(error: BaseException, printed: str) -> tuple[FaultSchedule, int]:
    """The schedule and the seed."""
    found = re.search(r"schedules=(FaultSchedule\(.*?\)),\n +seeds=(\d+)", note_of(error, printed), re.DOTALL)
    assert found is not None
    schedule = eval(found[1], {"FaultSchedule": FaultSchedule, "FaultStep": FaultStep})  # noqa: S307
    assert isinstance(schedule, FaultSchedule)
    return schedule, int(found[2])
