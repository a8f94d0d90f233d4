"""The command `groups`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import attrs
import click

from .._cpg import Cpg, open_cpg
from .._types import Address
from .job import Job, Status, answering, timeout_option
from .names import escape
from .output import JsonValue, Output, json_bytes, json_option, table_of

if TYPE_CHECKING:
    from rich.console import RenderableType

Groups = Mapping[bytes, Sequence[Address]]
"""The members of each group, by its name."""


@click.command(
    "groups",
    short_help="List the process groups and their members.",
    epilog="""\b
Examples:
  triocoro groups
  triocoro groups --json | jq '.result.groups[].name.text'
""",
)
@timeout_option
@json_option(version=1)
@click.pass_obj
def command(output: Output, timeout: float) -> Job:
    r"""List the process groups of the cluster, with their members by node.

    Names are shown as they are. What cannot be printed, such as the NUL that C programs often send along, is written as
    \x00, and so can be given to other commands.
    """
    return partial(_list, output, timeout)


async def _list(output: Output, timeout: float) -> Status:  # noqa: ASYNC109 - an option of the user's
    with answering(timeout):
        async with open_cpg() as cpg:
            groups = await members_by_group(cpg)
    output.result({"groups": groups_as_json(groups)}, lambda: groups_as_table(groups))
    return Status.YES


async def members_by_group(cpg: Cpg) -> Groups:
    """Ask for all groups, in the order of their names."""
    groups: dict[bytes, list[Address]] = {}
    for member in await cpg.groups():
        if member.address is not None:
            groups.setdefault(member.group, []).append(member.address)
    return {name: sorted(groups[name]) for name in sorted(groups)}


def groups_as_json(groups: Groups) -> JsonValue:
    """Return groups for JSON."""
    return [
        {"name": json_bytes(name), "members": [attrs.asdict(member) for member in members]}
        for name, members in groups.items()
    ]


def groups_as_table(groups: Groups) -> RenderableType:
    """Return groups for people: a line for each, with the pids by node."""
    if not groups:
        return "no process groups"
    from rich.text import Text

    table = table_of("Group", "Members", "Node: pids")
    for name, members in groups.items():
        pids: dict[int, list[str]] = {}
        for member in members:
            pids.setdefault(member.nodeid, []).append(str(member.pid))
        places = ", ".join(f"{nodeid}: {' '.join(found)}" for nodeid, found in pids.items())
        table.add_row(Text(escape(name)), str(len(members)), places)
    return table
