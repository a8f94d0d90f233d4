"""Histories: what is recorded of real and fake clusters alike, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import trio

import triocoro
from triocoro import ConfigChange, Message, QuorumChange, TotemChange, VotequorumNodelist
from triocoro.testing import Call, Cluster, Event, Fault, History, Loss, Return, check

_BOUND = 60
"""Seconds for what takes a few at most."""


def events(history: Iterable[Any], kind: type[Any]) -> list[Any]:
    return [entry.event for entry in history if isinstance(entry, Event) and isinstance(entry.event, kind)]


async def record(cluster: Cluster) -> History:
    """Two members through a partition and a death, and who asks about quorum and the map."""
    history = History()
    one = history.endpoint(cluster[1], client="one")
    three = history.endpoint(cluster[3], client="three")
    with trio.fail_after(_BOUND), one.as_default():
        async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
            await changes.receive()
            await votequorum.info()
        async with triocoro.open_quorum() as quorum, quorum.track() as decisions:
            await decisions.receive()
            await quorum.is_quorate()
        async with triocoro.open_cmap() as cmap:
            await cmap.set("myapp.key", "value")
        async with triocoro.open_group("g") as group:
            with pytest.raises(triocoro.ConnectionLostError):
                async with triocoro.open_group("g", endpoint=three) as other:
                    while len(group.view.members) < 2:
                        await group.receive()
                    await group.send_and_wait(b"\x00\xff text")
                    await cluster.isolate(3)
                    history.fault("isolate", nodeid=3)
                    for side in (group, other):
                        while len(side.view.members) == 2:
                            await side.receive()
                    with trio.CancelScope(shield=True):
                        # The connection is lost before a real daemon's end is known.
                        await cluster[3].kill()
                    history.fault("kill", nodeid=3)
                    await trio.sleep_forever()
            await cluster.heal()
    return history


async def test_what_is_recorded(corosync_cluster: Cluster) -> None:
    history = await record(corosync_cluster)
    assert check(history, options=corosync_cluster.options) == []
    functions = {entry.function for entry in history if isinstance(entry, Call)}
    assert functions >= {
        "connect_cpg",
        "join",
        "leave",
        "multicast",
        "trackstart",
        "info",
        "is_quorate",
        "set",
        "close",
    }
    assert [entry.verb for entry in history if isinstance(entry, Fault)] == ["isolate", "kill"]
    assert [entry.client for entry in history if isinstance(entry, Loss)] == ["three"]
    assert {message.payload for message in events(history, Message)} == {b"\x00\xff text"}
    for kind in (ConfigChange, TotemChange, VotequorumNodelist, QuorumChange):
        assert events(history, kind)
    numbers = [(entry.client, entry.number) for entry in history if isinstance(entry, Return)]
    assert len(numbers) == len(set(numbers))
    copy = History.from_json_lines(history.to_json_lines())
    assert copy == history
    assert copy.normalised() == history.normalised() != history
    split = [History(e for e in history if isinstance(e, Fault) is fault) for fault in (True, False)]
    assert sorted(map(repr, History.merge(split))) == sorted(map(repr, history))


def test_a_client_has_a_name_of_its_own(corosync_cluster: Cluster) -> None:
    history = History()
    history.endpoint(corosync_cluster[1], client="a")
    with pytest.raises(ValueError, match="has a client 'a' already"):
        history.endpoint(corosync_cluster[2], client="a")


@pytest.mark.parametrize("line", ["", "x", "1", "{}", '{"class":"Nobody"}', '{"class":"Call"}'])
def test_no_history(line: str) -> None:
    with pytest.raises(ValueError, match="this is no line of a history"):
        History.from_json_lines(f"{line}\n")
