"""The command `status`: the state of the cluster on one screen."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
import click

from .._enums import NodeState, VotequorumFlag
from .._types import LinkStatus, RingId, VotequorumInfo
from .groups import groups_as_json, groups_as_table
from .job import Job, Status, answering, timeout_option
from .output import JsonValue, Output, json_option, table_of
from .snapshot import NodeSnapshot, Snapshot, take_snapshot

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text


@click.command(
    "status",
    short_help="Show quorum, nodes, links and groups on one screen.",
    epilog="""\b
Examples:
  triocoro status
  triocoro status --check && start-the-service
  triocoro status --json | jq .result.quorum.quorate
""",
)
@click.option("--check", is_flag=True, help="Exit with status 1 if the partition is not quorate.")
@timeout_option
@json_option(version=1)
@click.pass_obj
def command(output: Output, check: bool, timeout: float) -> Job:  # noqa: FBT001 - click calls it
    """Show the cluster as this node sees it: the quorum and why, the nodes by their links, the groups by their members.

    The exit status is 0, with --check only if the partition is quorate, and else 1.
    """
    return partial(_status, output, check=check, timeout=timeout)


async def _status(output: Output, *, check: bool, timeout: float) -> Status:  # noqa: ASYNC109 - an option of the user's
    with answering(timeout):
        snapshot = await take_snapshot()
    output.result(as_json(snapshot), lambda: screen(snapshot))
    return Status.NO if check and not snapshot.quorate else Status.YES


# -- why -----------------------------------------------------------------------------------------------------------


def reason(snapshot: Snapshot) -> str:
    """Return why the partition is quorate or not, as far as the votes tell."""
    votes = snapshot.votes
    if votes is None:
        return "no quorum provider is configured, so every partition is"
    counted = f"{votes.total_votes} of {votes.highest_expected} expected votes are here, and {votes.quorum} needed"
    if snapshot.quorate or votes.total_votes < votes.quorum:
        return counted
    if VotequorumFlag.WAIT_FOR_ALL in votes.flags:
        return f"{counted}, but wait_for_all waits until all nodes have been here at the same time"
    return f"{counted}, but votequorum has not decided so yet"


def flag_names(flags: VotequorumFlag) -> list[str]:
    """Return the names of votequorum's flags in lower case, without that for being quorate."""
    return [flag.name.lower() for flag in VotequorumFlag if flag in flags & ~VotequorumFlag.QUORATE and flag.name]


def ring_name(ring_id: RingId) -> str:
    """Return a ring id as Corosync's log and tools write it: the sequence number is hexadecimal."""
    return f"{ring_id.nodeid}.{ring_id.seq:x}"


# -- for programs --------------------------------------------------------------------------------------------------


def as_json(snapshot: Snapshot) -> JsonValue:
    """Return a snapshot for JSON, as docs/command.md describes it."""
    votes = snapshot.votes
    return {
        "cluster_name": snapshot.cluster_name,
        "transport": snapshot.transport,
        "nodeid": snapshot.nodeid,
        "quorum": {
            "quorate": snapshot.quorate,
            "reason": reason(snapshot),
            "provider": snapshot.provider,
            "ring_id": attrs.asdict(snapshot.ring_id),
            "members": snapshot.members,
            "votes": votes_as_json(votes),
        },
        "nodes": [
            {
                "nodeid": node.nodeid,
                "name": node.name,
                "local": node.nodeid == snapshot.nodeid,
                "state": node.state.name.lower() if node.state else None,
                "votes": node.votes,
                "flags": flag_names(node.flags),
                "reachable": node.reachable,
                "links": [attrs.asdict(link) for link in node.links],
            }
            for node in snapshot.nodes
        ],
        "groups": groups_as_json(snapshot.groups),
    }


def votes_as_json(votes: VotequorumInfo | None) -> JsonValue:
    """Return what votequorum knows for JSON."""
    if votes is None:
        return None
    return {
        "total": votes.total_votes,
        "needed": votes.quorum,
        "expected": votes.expected_votes,
        "highest_expected": votes.highest_expected,
        "flags": flag_names(votes.flags),
        "qdevice": {"name": votes.qdevice_name, "votes": votes.qdevice_votes}
        if VotequorumFlag.QDEVICE_REGISTERED in votes.flags
        else None,
    }


# -- for people ----------------------------------------------------------------------------------------------------


def screen(snapshot: Snapshot) -> RenderableType:
    """Return the whole state for people."""
    from rich.console import Group

    return Group(headline(snapshot), "", nodes_table(snapshot), "", groups_as_table(snapshot.groups))


def headline(snapshot: Snapshot) -> Text:
    """Return the quorum and why, in a few lines."""
    from rich.text import Text

    name = f" ({snapshot.local_name})" if snapshot.local_name else ""
    text = Text()
    text.append(snapshot.cluster_name or "(a cluster without a name)", "bold")
    text.append(f", seen from node {snapshot.nodeid}{name}, ring {ring_name(snapshot.ring_id)}\n")
    text.append("quorate" if snapshot.quorate else "NOT QUORATE", "bold green" if snapshot.quorate else "bold red")
    text.append(f": {reason(snapshot)}")
    votes = snapshot.votes
    flags = [flag for flag in flag_names(votes.flags if votes else VotequorumFlag(0)) if not flag.startswith("qdevice")]
    if flags:
        text.append(f"\noptions: {' '.join(flags)}")
    if votes and VotequorumFlag.QDEVICE_REGISTERED in votes.flags:
        alive = "alive" if VotequorumFlag.QDEVICE_ALIVE in votes.flags else "silent"
        cast = "votes for us" if VotequorumFlag.QDEVICE_CAST_VOTE in votes.flags else "does not vote for us"
        text.append(f"\nqdevice: {votes.qdevice_name}, {alive}, {cast} ({votes.qdevice_votes} votes)")
    return text


def nodes_table(snapshot: Snapshot) -> Table:
    """Return a line for each node and link."""
    table = table_of("Node", "Name", "Votes", "State", "Links")
    for node in snapshot.nodes:
        state, style = _state(node)
        table.add_row(
            str(node.nodeid),
            node.name,
            "" if node.votes is None else str(node.votes),
            _styled(state, style),
            _links(node, snapshot),
        )
    return table


def _styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(text, style)


def _state(node: NodeSnapshot) -> tuple[str, str]:
    if node.state is None:
        return ("", "") if node.votes is None and node.reachable else ("never seen", "yellow")
    return node.state.name.lower(), "green" if node.state is NodeState.MEMBER else "red"


def _links(node: NodeSnapshot, snapshot: Snapshot) -> Text:
    from rich.text import Text

    if node.nodeid == snapshot.nodeid:
        return Text("this node", "dim")
    if not node.links:
        return Text("reachable" if node.reachable else "unreachable", "green" if node.reachable else "red")
    return Text("\n").join(_link(link) for link in node.links)


def _link(link: LinkStatus) -> Text:
    from rich.text import Text

    state = "disabled" if not link.enabled else "connected" if link.connected else "DOWN"
    style = "green" if link.connected else "red"
    return Text.assemble(f"{link.number} {link.destination} ", (state, style))
