"""The command `export`: what a cluster does, for Prometheus."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, cast

import attrs
import click
import trio

from .._cmap import open_cmap
from .._enums import CmapMap
from .._errors import CorosyncError
from .._types import CmapValue
from .groups import Groups
from .job import Job, Status, answering, timeout_option
from .names import escape
from .output import JsonValue, Output, json_option
from .snapshot import Snapshot, take_snapshot

_LINK: Final = re.compile(r"stats\.knet\.node(\d+)\.link(\d+)\.(\w+)")

_OF_LINKS: Final = {
    "enabled": ("link_enabled", "gauge", "Whether the link to the node is configured and in use.", 1.0),
    "connected": ("link_connected", "gauge", "Whether the link to the node is up.", 1.0),
    "latency_ave": ("link_latency_seconds", "gauge", "The average time of a ping over the link.", 1e-6),
    "down_count": ("link_downs_total", "counter", "How often the link has gone down.", 1.0),
    "rx_total_bytes": ("link_received_bytes_total", "counter", "What came over the link.", 1.0),
    "tx_total_bytes": ("link_sent_bytes_total", "counter", "What went over the link.", 1.0),
    "tx_total_errors": ("link_send_errors_total", "counter", "How often sending over the link has failed.", 1.0),
}
"""Statistics of knet links: the metric, its type and help, and what one unit of the statistic is."""

_OF_TOTEM: Final = {
    "operational_entered": ("totem_rings_total", "How often a ring was formed, from the daemon's start on."),
    "operational_token_lost": ("totem_token_losses_total", "How often the token was lost."),
    "consensus_timeouts": ("totem_consensus_timeouts_total", "How often nodes did not agree on a ring in time."),
    "mcast_tx": ("totem_messages_sent_total", "Messages of totem that this node has sent."),
    "mcast_rx": ("totem_messages_received_total", "Messages of totem that this node has received."),
    "mcast_retx": ("totem_messages_resent_total", "Messages of totem that this node has sent again."),
    "rx_msg_dropped": ("totem_messages_dropped_total", "Packets that this node has dropped as invalid."),
}
"""Statistics of totem, each a counter: the metric, and its help."""


@attrs.frozen
class Metric:
    """A metric, in the terms of Prometheus."""

    name: str
    """Its name, without the prefix that all have."""
    kind: str
    """Its type: "gauge" or "counter"."""
    help: str
    """A sentence about it."""
    samples: Sequence[tuple[Mapping[str, str], float]]
    """Its values, each with its labels."""


@click.command(
    "export",
    short_help="Print metrics for Prometheus.",
    epilog="""\b
Examples:
  triocoro export
  triocoro export --textfile /var/lib/prometheus/node-exporter/corosync.prom    (from a timer)
""",
)
@click.option(
    "--textfile",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="PATH",
    help="Write to this file, for node_exporter's textfile collector. It is replaced at once, never half-written.",
)
@timeout_option
@json_option(version=1)
@click.pass_obj
def command(output: Output, textfile: Path | None, timeout: float) -> Job:
    """Print quorum, votes, nodes, links, groups and totem's counters in Prometheus's text format.

    If the daemon cannot be used, the one metric is `corosync_up 0`, and the exit status is 3.
    """
    return partial(_export, output, textfile, timeout)


async def _export(output: Output, textfile: Path | None, timeout: float) -> Status:  # noqa: ASYNC109 - an option of the user's
    status = Status.YES
    try:
        with answering(timeout):
            metrics = await gather()
    except CorosyncError as exc:
        output.error(exc)
        if output.json and textfile is None:
            return Status.UNAVAILABLE
        metrics = [_up(0)]
        status = Status.UNAVAILABLE
    text = as_text(metrics)
    if textfile is None:
        output.result(_as_json(metrics), lambda: text[:-1])
    else:
        try:
            await trio.to_thread.run_sync(_replace, textfile, text)
        except OSError as exc:
            raise click.ClickException(f"{textfile} cannot be written: {exc.strerror}") from exc
    return status


async def gather() -> list[Metric]:
    """Ask the daemon for everything that is exported."""
    snapshot = await take_snapshot()
    async with open_cmap(CmapMap.STATS) as statistics:
        links = dict(await statistics.items("stats.knet."))
        totem = dict(await statistics.items("stats.srp."))
    return [
        _up(1),
        *_of_quorum(snapshot),
        *_of_nodes(snapshot),
        *_of_links(links),
        *_of_groups(snapshot.groups),
        *_of_totem(totem),
    ]


def _up(up: int) -> Metric:
    return Metric("up", "gauge", "Whether the Corosync daemon of this machine answers.", [({}, up)])


def _of_quorum(snapshot: Snapshot) -> Iterable[Metric]:
    def gauge(name: str, text: str, value: int) -> Metric:
        return Metric(name, "gauge", text, [({}, float(value))])

    yield gauge("quorate", "Whether the partition of this node is quorate.", snapshot.quorate)
    votes = snapshot.votes
    if votes is not None:
        yield gauge("votes", "The votes that are present.", votes.total_votes)
        yield gauge("expected_votes", "The votes that are expected.", votes.expected_votes)
        yield gauge("quorum_votes", "The votes that are needed.", votes.quorum)
        yield gauge("qdevice_votes", "The votes of the quorum device.", votes.qdevice_votes)


def _of_nodes(snapshot: Snapshot) -> Iterable[Metric]:
    member = [({"node": str(node.nodeid)}, float(node.nodeid in snapshot.members)) for node in snapshot.nodes]
    yield Metric("node_member", "gauge", "Whether a node of the node list is in the partition of this node.", member)
    votes = [({"node": str(node.nodeid)}, float(node.votes)) for node in snapshot.nodes if node.votes is not None]
    if votes:
        yield Metric("node_votes", "gauge", "The votes of a node, once it has been seen.", votes)


def _of_links(statistics: Mapping[str, CmapValue]) -> Iterable[Metric]:
    for name, (metric, kind, text, unit) in _OF_LINKS.items():
        samples = [
            ({"node": found[1], "link": found[2]}, cast("int", value) * unit)
            for key, value in statistics.items()
            if (found := _LINK.fullmatch(key)) and found[3] == name
        ]
        if samples:
            yield Metric(metric, kind, text, samples)


def _of_groups(groups: Groups) -> Iterable[Metric]:
    yield Metric("groups", "gauge", "The number of process groups.", [({}, len(groups))])
    members = [({"group": escape(name)}, float(len(members))) for name, members in groups.items()]
    if members:
        yield Metric("group_members", "gauge", "The members of a process group, on all nodes.", members)


def _of_totem(statistics: Mapping[str, CmapValue]) -> Iterable[Metric]:
    for name, (metric, text) in _OF_TOTEM.items():
        value = statistics.get(f"stats.srp.{name}")
        if isinstance(value, int):
            yield Metric(metric, "counter", text, [({}, value)])


def as_text(metrics: Iterable[Metric]) -> str:
    """Return metrics in Prometheus's text format, version 0.0.4."""
    lines: list[str] = []
    for metric in metrics:
        name = f"corosync_{metric.name}"
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        for labels, value in metric.samples:
            shown_labels = ",".join(f'{label}="{_escaped(of_label)}"' for label, of_label in labels.items())
            lines.append(f"{name}{f'{{{shown_labels}}}' if labels else ''} {value:.15g}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _as_json(metrics: Iterable[Metric]) -> JsonValue:
    return {
        f"corosync_{metric.name}": [{"labels": labels, "value": value} for labels, value in metric.samples]
        for metric in metrics
    }


def _replace(path: Path, text: str) -> None:
    """Write a file that other programs read: they see the old one or the new one."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as new:
        try:
            new.write(text)
            new.flush()
            os.fchmod(new.fileno(), 0o644)
            Path(new.name).replace(path)
        except BaseException:
            Path(new.name).unlink()
            raise
