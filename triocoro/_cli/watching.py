"""Follows what happens in a cluster, as one node sees it, across restarts of its daemon. `watch` shows it.

Corosync reports changes of the quorum, of its nodes and of keys in its maps. It reports neither those of links nor, to
programs that are not members, those of groups, so these are asked for again and again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Final, TypeAlias

import attrs
import trio

from .._cmap import open_cmap
from .._enums import CmapMap, CmapTrack
from .._errors import CorosyncUnavailableError
from .._quorum import Quorum
from .._sessions import sessions
from .._types import Address, CmapChange, CmapValue, LinkStatus, QuorumChange, QuorumEvent
from .groups import Groups
from .names import escape
from .output import JsonValue, json_bytes
from .snapshot import Snapshot, Sources, open_sources

SILENCE: Final = 3.0
"""Seconds: a daemon that takes longer to answer is reported as silent."""


@attrs.frozen
class Happening:
    """Something that happened, or that the present state has when a connection begins."""

    kind: str
    """The kind, as docs/command.md has them: "daemon", "nodes", "quorum", "group", "link" or "cmap"."""
    about: Mapping[str, JsonValue]
    """What happened, for JSON."""
    text: str
    """What happened, for people."""
    bad: bool = False
    """Whether it is something to worry about."""
    time: datetime = attrs.field(factory=lambda: datetime.now(timezone.utc))
    """When it was noticed."""

    def as_json(self) -> JsonValue:
        """Return it for JSON."""
        return {"event": self.kind, "time": self.time.isoformat(timespec="milliseconds"), **self.about}

    def as_text(self) -> str:
        """Return it as one line, with the local time."""
        return f"{self.time.astimezone():%H:%M:%S.%f}"[:-3] + f"  {self.kind:<6}  {self.text}"


Report: TypeAlias = Callable[[Happening], Awaitable[None]]
"""Takes what happened."""
Show: TypeAlias = Callable[[Snapshot], None]
"""Takes the present state, again and again."""


async def follow(report: Report, show: Show, *, prefixes: Sequence[str], interval: float) -> None:
    """Report what happens until cancelled. Each connection begins with the present state.

    Args:
        report: is awaited for each thing that happens.
        show: is called with each snapshot.
        prefixes: the beginnings of the keys in the maps whose changes are reported.
        interval: seconds between two snapshots.

    Raises:
        CorosyncError: Corosync cannot be used, and waiting for the daemon would not change that.
    """
    if (unavailable := await look_for_daemon()) is not None:
        await report(unavailable)
    async for session in sessions(open_sources):
        async with session as sources:
            await report(_daemon("connected", "is connected"))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_follow_quorum, sources.quorum, report)
                for prefix in prefixes:
                    nursery.start_soon(_follow_keys, sources, prefix, report)
                await _take_snapshots(sources, report, show, interval)
        await report(loss())


async def look_for_daemon() -> Happening | None:
    """Return why the daemon cannot be used yet; `None` if it can.

    Raises:
        CorosyncError: waiting for it would not change that.
    """
    try:
        async with open_cmap():
            return None
    except CorosyncUnavailableError as exc:
        return _daemon("unavailable", f"cannot be used yet: {' '.join(str(exc).split())}")


def loss() -> Happening:
    """Return that a connection was lost, just now."""
    return _daemon("lost", "is gone, or has cut us off; connecting again")


async def _follow_quorum(quorum: Quorum, report: Report) -> None:
    async with quorum.track() as changes:
        async for change in changes:
            await report(quorum_happening(change))


async def _follow_keys(sources: Sources, prefix: str, report: Report) -> None:
    if map_of(prefix) is CmapMap.ICMAP:
        async with sources.cmap.track(prefix, prefix=True) as changes:
            async for change in changes:
                await report(cmap_happening(change))
    else:
        async with open_cmap(CmapMap.STATS) as statistics, statistics.track(prefix, prefix=True) as changes:
            async for change in changes:
                await report(cmap_happening(change))


async def _take_snapshots(sources: Sources, report: Report, show: Show, interval: float) -> None:
    before: Snapshot | None = None
    silent = False
    while True:
        snapshot: Snapshot | None = None
        with trio.move_on_after(SILENCE):
            snapshot = await sources.take_snapshot()
        if silent != (snapshot is None):
            silent = snapshot is None
            text = f"has not answered for {SILENCE:g} s: it may be stopped, or the machine overloaded"
            await report(_daemon("silent", text) if silent else _daemon("answering", "answers again"))
        if snapshot is not None:
            for happening in differences(before, snapshot):
                await report(happening)
            show(snapshot)
            before = snapshot
        await trio.sleep(interval)


def map_of(prefix: str) -> CmapMap:
    """Return the map that has the keys with a prefix."""
    return CmapMap.STATS if prefix.startswith("stats.") else CmapMap.ICMAP


# -- what happened -------------------------------------------------------------------------------------------------


def _daemon(state: str, text: str) -> Happening:
    return Happening("daemon", {"state": state, "text": text}, text, bad=state not in ("connected", "answering"))


def quorum_happening(change: QuorumEvent) -> Happening:
    """Return an event of the quorum service."""
    members = " ".join(map(str, change.members))
    ring: dict[str, JsonValue] = {"ring_id": attrs.asdict(change.ring_id), "members": change.members}
    if isinstance(change, QuorumChange):
        text = f"{'quorate' if change.quorate else 'NOT QUORATE'} with nodes {members}"
        return Happening("quorum", {"quorate": change.quorate, **ring}, text, bad=not change.quorate)
    joined = f", {' '.join(map(str, change.joined))} joined" if change.joined else ""
    left = f", {' '.join(map(str, change.left))} left" if change.left else ""
    return Happening(
        "nodes",
        {**ring, "joined": change.joined, "left": change.left},
        f"nodes {members} are together{joined}{left}",
        bad=bool(change.left),
    )


def cmap_happening(change: CmapChange) -> Happening:
    """Return a change of a key."""
    event = CmapTrack(change.event).name or ""
    if change.event is CmapTrack.DELETE:
        text = f"{change.key} deleted"
    else:
        text = f"{change.key} = {change.new!r}" + (f", was {change.old!r}" if change.old is not None else "")
    about: dict[str, JsonValue] = {
        "change": event.lower(),
        "key": change.key,
        "new": _value(change.new),
        "old": _value(change.old),
    }
    return Happening("cmap", about, text)


def _value(value: CmapValue | None) -> JsonValue:
    return json_bytes(value) if isinstance(value, bytes) else value


def differences(before: Snapshot | None, after: Snapshot) -> Iterator[Happening]:
    """Return what happened to groups and links between two snapshots, or what there is, if there was none before."""
    yield from _group_differences(before.groups if before else {}, after.groups)
    known = _links(before) if before else {}
    for (nodeid, number), link in _links(after).items():
        old = known.get((nodeid, number))
        if old is None or (old.enabled, old.connected) != (link.enabled, link.connected):
            state = "connected" if link.connected else "DOWN" if link.enabled else "disabled"
            yield Happening(
                "link",
                {"nodeid": nodeid, **attrs.asdict(link)},
                f"link {number} to node {nodeid} ({link.destination}) is {state}",
                bad=not link.connected,
            )


def _group_differences(before: Groups, after: Groups) -> Iterator[Happening]:
    for name in sorted({*before, *after}):
        old, new = before.get(name, ()), after.get(name, ())
        joined = [member for member in new if member not in old]
        left = [member for member in old if member not in new]
        if joined or left:
            moves = [f"{member} joined" for member in joined] + [f"{member} left" for member in left]
            yield Happening(
                "group",
                {
                    "name": json_bytes(name),
                    "members": _addresses(new),
                    "joined": _addresses(joined),
                    "left": _addresses(left),
                },
                f"{escape(name)}: {', '.join(moves)}; {len(new)} members",
            )


def _addresses(members: Sequence[Address]) -> JsonValue:
    return [attrs.asdict(member) for member in members]


def _links(snapshot: Snapshot) -> dict[tuple[int, int], LinkStatus]:
    return {(node.nodeid, link.number): link for node in snapshot.nodes for link in node.links}
