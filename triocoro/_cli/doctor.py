"""The command `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import attrs
import click

from .job import Job, Status
from .output import JsonValue, Output, json_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .diagnosis import Finding

_MARKS: Final = {"ok": ("ok", "green"), "warning": ("warn", "yellow"), "failure": ("FAIL", "red"), "skipped": ("-", "")}
"""What stands for each status, and its colour."""
_MARK_WIDTH: Final = 6
_CHECK_WIDTH: Final = 15


@click.command(
    "doctor",
    short_help="Find out whether Corosync can be used here, and if not, why.",
    epilog="""\b
Examples:
  triocoro doctor
  sudo -u app triocoro doctor               (as the user who runs the application)
  triocoro doctor --json | jq -r '.result.findings[] | select(.problem).command'
""",
)
@json_option(version=1)
@click.pass_obj
def command(output: Output) -> Job:
    """Check what a connection to the Corosync daemon needs, as this user and in these namespaces.

    That is the extension module, Corosync's libraries, /dev/shm, the daemon and its permission; and for tests, whether
    real clusters can run here. Each failure and warning comes with its remedy. A daemon that does not answer is given
    up after 3 seconds.

    The exit status is 0 if an application can use Corosync here, and 1 if it cannot. A warning leaves it at 0.
    """
    return partial(_examine, output)


async def _examine(output: Output) -> Status:
    from .diagnosis import examine, usable

    findings = await examine()
    fine = usable(findings)
    of_checks: list[JsonValue] = [attrs.asdict(finding) for finding in findings]
    output.result({"usable": fine, "findings": of_checks}, lambda: as_text(findings, usable=fine))
    return Status.YES if fine else Status.NO


def as_text(findings: Sequence[Finding], *, usable: bool) -> RenderableType:
    """Return one line for each check; below a failure or a warning, what to do."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for finding in findings:
        mark, colour = _MARKS[finding.status]
        line = Table.grid()
        line.add_column(width=_MARK_WIDTH)
        line.add_column(width=_CHECK_WIDTH)
        line.add_column(overflow="fold")
        line.add_row(Text(mark, colour), finding.check.replace("-", " "), finding.found)
        parts.append(line)
        if finding.remedy:
            remedy = f"{finding.remedy}:" if finding.command else finding.remedy
            parts.append(Padding(remedy, (0, 0, 0, _MARK_WIDTH), expand=False))
        if finding.command:
            # Not wrapped, so that it can be pasted.
            parts.append(Text(f"{' ' * (_MARK_WIDTH + 2)}{finding.command}", "bold", no_wrap=True, overflow="ignore"))
    verdict = "An application can use Corosync here." if usable else "No application can use Corosync here."
    return Group(*parts, verdict)
