"""`timeline`: what happened, in few lines for all nodes."""

from __future__ import annotations

import re

import pytest
import trio
from support.chaos import chaos

import triocoro
from triocoro import ConfigChange, Message, MessageLost, Reason, TotemChange
from triocoro._types import Address, MemberChange, RingId
from triocoro.testing import Call, Cluster, ClusterOptions, Delivery, Entry, Fault, History, Loss, Return, timeline

OPTIONS = ClusterOptions(nodes=3)


def ring(time: float, node: int, *members: int, seq: int) -> Delivery:
    change = TotemChange(RingId(members[0], seq), members)
    return Delivery(time=time, client=f"node {node}", node=node, handle=1, event=change)


def view(time: float, node: int, *members: int) -> Delivery:
    change = ConfigChange(
        tuple(Address(member, 1) for member in members), (MemberChange(Address(members[-1], 1), Reason.JOIN),), ()
    )
    return Delivery(time=time, client=f"node {node}", node=node, handle=1, event=change)


def joined(node: int) -> list[Entry]:
    """The beginning of a member."""
    client = f"node {node}"
    return [
        Call(time=0, client=client, node=node, handle=1, number=1, function="connect_cpg"),
        Return(time=0, client=client, node=node, handle=1, number=1, result=Address(node, 1)),
        Call(time=0, client=client, node=node, handle=1, number=2, function="join", arguments={"group": b"g"}),
        Return(time=0, client=client, node=node, handle=1, number=2),
    ]


def sending(time: float, node: int, number: int, payload: bytes) -> Call:
    arguments = {"payloads": (payload,)}
    return Call(
        time=time, client=f"node {node}", node=node, handle=1, number=number, function="multicast", arguments=arguments
    )


def received(time: float, node: int, sender: int, payload: bytes) -> Delivery:
    event = Message(Address(sender, 1), payload)
    return Delivery(time=time, client=f"node {node}", node=node, handle=1, event=event)


def test_the_same_news_of_several_nodes_are_one_line() -> None:
    entries = [
        *joined(1),
        *joined(2),
        view(0.001, 1, 1),
        ring(0.001, 1, 1, 2, 3, seq=4),
        view(0.002, 1, 1, 2),
        view(0.003, 2, 1, 2),
        ring(0.020, 2, 1, 2, 3, seq=4),
        Fault(time=0.5, verb="partition", arguments={"sides": ((1,), (2, 3))}),
        ring(0.5, 1, 1, seq=8),
        ring(0.6, 2, 2, 3, seq=8),
    ]
    assert timeline(History(entries), options=OPTIONS).splitlines() == [
        "     0.001  nodes 1, 2  ring of nodes 1-3, quorate; group g: 1, 2",
        "!    0.500  cluster     the network is cut: 1 | 2, 3",
        "     0.500  node 1      alone in its ring, NOT quorate",
        "     0.600  node 2      ring of nodes 2, 3, quorate",
        "at the end:",
        "  network     CUT: 1 | 2, 3",
        "  node 1      up, alone in its ring, NOT quorate; group g: 1, 2",
        "  node 2      up, ring of nodes 2, 3, quorate; group g: 1, 2",
        "  node 3      up",
    ]


def test_a_message_has_its_receivers_and_those_that_missed_it() -> None:
    entries = [
        *joined(1),
        *joined(2),
        view(0, 1, 1, 2),
        view(0, 2, 1, 2),
        sending(1, 1, 3, b"a"),
        received(1, 1, 1, b"a"),
        received(1, 2, 1, b"a"),
        sending(2, 1, 4, b"b"),
        sending(2, 1, 5, b"a"),
        received(2, 1, 1, b"b"),
        received(2, 1, 1, b"a"),
        received(2, 2, 1, b"a"),
        sending(3, 2, 3, b"c"),
        Delivery(time=3, client="node 2", node=2, handle=0, event=MessageLost(b"c")),
        Loss(time=3, client="node 2", node=2, handle=1),
    ]
    text = timeline(History(entries))
    assert "  sends b'a' to group g: received by 1, 2" in text
    assert "  sends b'b' to group g: received by 1, not by 2" in text
    assert "  sends b'c' to group g: LOST" in text
    assert "  a message was lost: b'c'" in text
    assert "  the connection to the daemon is lost" in text
    assert text.count("to group g: received by 1, 2") == 2


def test_what_matters_survives_in_a_long_history() -> None:
    messages = [
        entry
        for number in range(10_000)
        for entry in (
            sending(number, 1, number + 3, b"%d" % number),
            received(number, 1, 1, b"%d" % number),
            received(number, 2, 1, b"%d" % number),
        )
    ]
    entries = [*joined(1), *joined(2), view(0, 1, 1, 2), view(0, 2, 1, 2), *messages]
    at = len(entries) // 2
    entries[at:at] = [
        Fault(time=5000, verb="freeze", arguments={"node": 2}),
        ring(5000, 1, 1, seq=100),
        Fault(time=5000, verb="thaw", arguments={"node": 2}),
    ]
    lines = timeline(History(entries), options=OPTIONS).splitlines()
    assert len(lines) <= 40
    assert any(line.endswith("  is frozen") for line in lines)
    assert any("alone in its ring, NOT quorate" in line for line in lines)
    assert "sends b'9999' to group g: received by 1, 2" in next(line for line in reversed(lines) if "sends" in line)
    shown = sum("sends" in line for line in lines)
    left_out = sum(int(number) for line in lines for number in re.findall(r"(\d+) messages?\b", line))
    assert shown + left_out == 10_000


@pytest.mark.parametrize("limit", [10, 17, 40, 400])
@pytest.mark.corosync_fake_only(
    reason="it takes ten seconds on a real one, and tests/histories/test_recorded.py does it"
)
async def test_chaos_takes_no_more_lines_than_it_may(corosync_cluster: Cluster, limit: int) -> None:
    history = await chaos(corosync_cluster)
    lines = timeline(history, limit=limit, options=corosync_cluster.options).splitlines()
    assert len(lines) <= limit
    if limit >= 40:
        faults = [line for line in lines if re.match(r"! .*(cut|killed|healed|started|stopped|frozen|thawed)", line)]
        assert len(faults) == 11


def test_entries_that_were_dropped_are_counted() -> None:
    history = History([Fault(time=number, verb="heal") for number in range(8)], limit=1)
    assert "the history has dropped its first 7 entries" in timeline(history)


async def test_a_call_that_was_given_up(corosync_cluster: Cluster) -> None:
    history = History()
    endpoint = history.endpoint(corosync_cluster[1], client="one")
    async with triocoro.open_cmap(endpoint=endpoint) as cmap:
        await corosync_cluster[1].freeze()
        with trio.move_on_after(0.1):
            await cmap.get("myapp.key")
        waiting = History(list(history)[:-1])
        await corosync_cluster[1].thaw()
    assert re.search(r"node 1 one +get\('myapp.key'\) is given up after 0\.\d+ s without an answer", timeline(history))
    assert "  one waits in get('myapp.key')" in timeline(waiting)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="limit must be 10 to"):
        timeline(History(), limit=9)
    with pytest.raises(TypeError, match="a History is needed, not list"):
        timeline([])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="options must be"):
        timeline(History(), options={})  # type: ignore[arg-type]
