"""Histories: what is recorded on real and fake clusters, and how histories are saved, merged and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
import trio
import trio.testing
from support.raw_handles import caught_up, close, join

import triocoro
import triocoro.lowlevel
from triocoro import ConfigChange, Message, QuorumChange, TotemChange, VotequorumNodelist
from triocoro._raw import RawCpg
from triocoro._services import CPG
from triocoro.lowlevel import Dispatch
from triocoro.testing import Call, Cancellation, Cluster, Delivery, Fault, History, Loss, Return, check


def events(history: Iterable[Any], kind: type[Any]) -> list[Any]:
    return [entry.event for entry in history if isinstance(entry, Delivery) and isinstance(entry.event, kind)]


async def record(cluster: Cluster) -> History:
    """Record two members through a partition and a kill, and requests to votequorum, quorum and cmap."""
    history = History()
    one = history.endpoint(cluster[1], client="one")
    three = history.endpoint(cluster[3], client="three")
    with one.as_default():
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
                        # Shielded: the lost connection cancels this block before `kill` has seen a real daemon end.
                        await cluster[3].kill()
                    history.fault("kill", nodeid=3)
                    await trio.sleep_forever()
            await cluster.heal()
    return history


async def test_calls_deliveries_losses_and_faults_are_recorded(corosync_cluster: Cluster) -> None:
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


def test_two_clients_cannot_have_the_same_name(corosync_cluster: Cluster) -> None:
    history = History()
    history.endpoint(corosync_cluster[1], client="a")
    with pytest.raises(ValueError, match="has a client 'a' already"):
        history.endpoint(corosync_cluster[2], client="a")


async def test_names_of_clients_in_recorded_entries_are_taken(corosync_cluster: Cluster) -> None:
    parts = [History(), History()]
    for part in parts:
        async with triocoro.open_votequorum(endpoint=part.endpoint(corosync_cluster[1], client="a")):
            pass
    for history in (History(parts[0]), History.merge([parts[0], History()])):
        with pytest.raises(ValueError, match="has a client 'a' already"):
            history.endpoint(corosync_cluster[1], client="a")
        history.endpoint(corosync_cluster[1], client="b")
    with pytest.raises(ValueError, match="two histories have a client 'a' each"):
        History.merge(parts)
    # One client's entries may be split over several histories.
    middle = len(parts[0]) // 2
    halves = [History(list(parts[0])[:middle]), History(list(parts[0])[middle:])]
    assert History.merge(halves) == parts[0]


@pytest.mark.parametrize("line", ["", "x", "1", "{}", '{"class":"Nobody"}', '{"class":"Call"}'])
def test_text_that_is_not_a_history_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="this is no line of a history"):
        History.from_json_lines(f"{line}\n")


async def test_the_ring_that_a_group_begins_in_is_recorded(corosync_cluster: Cluster) -> None:
    """Whether or not the application asks for it."""
    for totem_changes in (False, True):
        history = History()
        endpoint = history.endpoint(corosync_cluster[1], client="one")
        async with triocoro.open_group("g", totem_changes=totem_changes, endpoint=endpoint) as group:
            await group.send_and_wait(b"x")
            received = [type(await group.receive()) for _ in range(3 if totem_changes else 2)]
        assert received == [ConfigChange, *([TotemChange] if totem_changes else []), Message]
        assert len(events(history, TotemChange)) == 1


def told(events: Iterable[object]) -> list[object]:
    """The part of events that is the same in any group: totem changes, and the types of other events."""
    return [event if isinstance(event, TotemChange) else type(event) for event in events]


async def test_a_recorded_client_gets_the_same_events_as_another_one(corosync_cluster: Cluster) -> None:
    endpoints = (corosync_cluster[1].endpoint, History().endpoint(corosync_cluster[1], client="one"))

    async def members(rings: str = "", *, take_events: bool = False) -> tuple[list[RawCpg], list[list[object]]]:
        """Two new members, one not recorded and one recorded, in groups of their own; and the events of each."""
        handles = [await endpoint.connect(CPG) for endpoint in endpoints]
        if rings:
            await change(rings)
        seen = [told(handle.dispatch(100, 10_000)[1]) if take_events else [] for handle in handles]
        for handle, group, events in zip(handles, (b"plain", b"recorded"), seen, strict=True):
            await join(handle, group)
            events.extend(told((await caught_up(handle))[0]))
        return handles, seen

    async def change(verb: str) -> None:
        await (corosync_cluster.isolate(3) if verb == "isolate" else corosync_cluster.heal())
        await corosync_cluster.settled()

    handles, (without, recorded) = await members()
    assert without == recorded == [ConfigChange]
    await change("isolate")
    without, recorded = [told((await caught_up(handle))[0]) for handle in handles]
    assert without == recorded != []
    await close(*handles)

    handles, (without, recorded) = await members("heal", take_events=True)
    assert without == recorded != [ConfigChange]
    await close(*handles)

    handles, (without, recorded) = await members("isolate")
    assert without == recorded != [ConfigChange]
    await change("heal")
    without, recorded = [told((await caught_up(handle))[0]) for handle in handles]
    assert without == recorded != []
    await close(*handles)


async def test_numbers_that_json_cannot_express(corosync_cluster: Cluster) -> None:
    history = History()
    async with triocoro.open_cmap(endpoint=history.endpoint(corosync_cluster[1], client="a")) as cmap:
        for value in (math.inf, -math.inf, 1.5):
            await cmap.set("myapp.key", value)
            assert await cmap.get("myapp.key") == value

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    for line in history.to_json_lines().splitlines():
        json.loads(line, parse_constant=refuse)
    assert History.from_json_lines(history.to_json_lines()) == history
    nan = History([Fault(time=0, verb="x", arguments={"number": math.nan})])
    text = nan.to_json_lines()
    json.loads(text, parse_constant=refuse)
    (fault,) = History.from_json_lines(text)
    assert isinstance(fault, Fault)
    assert math.isnan(fault.arguments["number"])


def test_values_of_faults_are_made_immutable() -> None:
    history = History(clock=lambda: 0.0)
    history.fault("x", votes={1: 2}, nodes={3, 1}, sides=[[1], [2, 3]])
    (fault,) = history
    assert isinstance(fault, Fault)
    assert fault.arguments == {"votes": {"1": 2}, "nodes": (1, 3), "sides": ((1,), (2, 3))}
    assert History.from_json_lines(history.to_json_lines()) == history
    history.append(Fault(time=0.0, verb="x", arguments={"sides": [[1], [2, 3]]}))
    with pytest.raises(TypeError, match=r"a history cannot keep \[\[1\], \[2, 3\]\]"):
        history.to_json_lines()


async def test_a_zero_copy_message_is_recorded_with_its_payload(corosync_cluster: Cluster) -> None:
    history = History()
    got: list[bytes] = []

    async def deliver(message: Message) -> None:
        got.append(message.payload)

    async def ignore(_: ConfigChange) -> None:
        pass

    with history.endpoint(corosync_cluster[1], client="a").as_default():
        handle = await triocoro.lowlevel.cpg_initialize(deliver=deliver, confchg=ignore)
        await handle.join("g")
        await handle.dispatch(Dispatch.ONE)
        async with handle.zcb_alloc(5) as buffer:
            buffer[:] = b"hello"
            await handle.zcb_mcast_joined(buffer)
            await handle.dispatch(Dispatch.ONE)
        await handle.finalize()
    assert got == [b"hello"]
    sent = [entry for entry in history if isinstance(entry, Call) and entry.function == "zcb_mcast_joined"]
    assert [call.arguments for call in sent] == [{"payload": b"hello"}]
    assert check(history) == []
    assert History.from_json_lines(history.to_json_lines()) == history


@pytest.mark.corosync_fake_only(reason="the reply of a real daemon cannot be timed")
async def test_a_reply_that_arrives_after_the_handle_was_closed(corosync_cluster: Cluster) -> None:
    history = History()
    replies: list[triocoro.VotequorumInfo] = []

    async def ask(votequorum: triocoro.Votequorum) -> None:
        replies.append(await votequorum.info())

    async with trio.open_nursery() as nursery:
        endpoint = history.endpoint(corosync_cluster[1], client="a")
        async with triocoro.open_votequorum(endpoint=endpoint) as votequorum:
            await corosync_cluster[1].freeze()
            nursery.start_soon(ask, votequorum)  # noqa: ASYNC111 - the task outlives the connection on purpose
            await trio.testing.wait_all_tasks_blocked()
            await corosync_cluster[1].thaw()
    assert [entry.result for entry in history if isinstance(entry, Return)][1:] == replies != []


async def test_reprs_shorten_large_messages(corosync_cluster: Cluster) -> None:
    history = History()
    large = bytes(100_000)
    async with triocoro.open_group("g", endpoint=history.endpoint(corosync_cluster[1], client="a")) as group:
        for payload in (b"small", large, bytes(2_000_000)):
            await group.send_and_wait(payload)
    lines = [repr(entry) for entry in history]
    assert max(map(len, lines)) < 500
    assert any("arguments={'payloads': (b'small',)}" in line for line in lines)
    assert any("<2000000 bytes: b" in line for line in lines)
    # Other values have their usual repr.
    call = Call(time=0, client="a", node=1, handle=1, number=1, function="f", arguments={"x": (1, b"y"), "z": {}})
    assert repr(call).endswith("arguments={'x': (1, b'y'), 'z': {}})")


async def test_a_cancelled_call_is_recorded(corosync_cluster: Cluster) -> None:
    history = History()
    async with triocoro.open_votequorum(endpoint=history.endpoint(corosync_cluster[1], client="a")) as votequorum:
        await corosync_cluster[1].freeze()
        with trio.move_on_after(0.1) as scope:
            await votequorum.info()
        assert scope.cancelled_caught
        await corosync_cluster[1].thaw()
    cancelled = [entry for entry in history if isinstance(entry, Cancellation)]
    calls = [entry for entry in history if isinstance(entry, Call) and entry.function == "info"]
    assert [entry.number for entry in cancelled] == [call.number for call in calls]


def test_merging_keeps_the_order_within_each_history() -> None:
    # The entries of one history stay in order, even where their times say otherwise.
    one = [Fault(time=time, verb=str(number)) for number, time in enumerate((1.0, 5.0, 4.0, 9.0))]
    two = [Fault(time=time, verb=str(number)) for number, time in enumerate((2.0, 3.0, 4.5), start=10)]
    merged = History.merge([History(one), History(two)])
    verbs = [entry.verb for entry in merged if isinstance(entry, Fault)]
    assert verbs == ["0", "10", "11", "12", "1", "2", "3"]
    ticks = iter((7.0,))
    history = History(clock=lambda: next(ticks))
    history.fault("kill", node=1)
    assert history[0].time == 7.0
