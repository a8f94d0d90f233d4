"""What a history says happened: states of nodes, views, messages, and events in words."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from support.timeline_pages import record_a_lost_message

from triocoro.testing import Cluster, Fault, History
from triocoro.testing._timeline.story import Condition, Kind, Story
from triocoro.testing._timeline.telling import tell


def texts(story: Story, kind: Kind) -> list[str]:
    return [event.text for event in story.events if event.kind is kind]


async def test_what_happened(corosync_cluster: Cluster) -> None:
    history = await record_a_lost_message(corosync_cluster)
    story = tell(history, corosync_cluster.options)
    assert story.nodes == (1, 2, 3)
    assert story.clients == {"node 1": 1, "node 2": 2, "node 3": 3}
    assert texts(story, Kind.FAULT) == ["is cut off from all others", "is frozen"]
    sent = {sending.payload: sending for sending in story.sendings}
    assert {receipt.node for receipt in sent[b"to all"].receipts} == {1, 2, 3}
    assert {receipt.node for receipt in sent[b"to nobody"].receipts} == {1}
    assert sent[b"to nobody"].missed == (2, 3)
    assert "sends b'to nobody' to group chat: received by 1, not by 2, 3" in texts(story, Kind.MESSAGE)
    assert {"ring of nodes 1-3, quorate", "alone in its ring, NOT quorate"} <= set(texts(story, Kind.RING))
    assert ("group chat: 2, 3", "node 1 lost") in [(event.text, event.detail) for event in story.events]
    assert story.end.states[1].condition is Condition.FROZEN
    assert (story.end.states[1].members, story.end.states[1].quorate) == ((1,), False)
    assert (story.end.states[2].members, story.end.states[2].quorate) == ((2, 3), True)
    assert not story.end.network.linked(1, 2)
    assert story.end.network.linked(2, 3)
    # Without the options, quorum is not known where no client asked.
    assert "ring of nodes 1-3" in texts(tell(history), Kind.RING)


def test_an_empty_history() -> None:
    story = tell(History())
    assert (story.duration, story.nodes, story.events) == (0.0, (), ())


@pytest.mark.parametrize(
    "fault,words",
    [
        (Fault(time=0, verb="partition", arguments={"sides": ((1,), (2, 3))}), "the network is cut: 1 | 2, 3"),
        (Fault(time=0, verb="cut", arguments={"source": 1, "target": 2}), "what node 1 sends to node 2 is dropped"),
        (
            Fault(time=0, verb="cut", arguments={"source": 1, "target": 2, "link": 1}),
            "what node 1 sends to node 2 on link 1 is dropped",
        ),
        (
            Fault(time=0, verb="lose", arguments={"percent": 5, "nodes": (1, 2)}),
            "5 % of the packets to nodes 1, 2 are lost",
        ),
        (Fault(time=0, verb="heal"), "the network is healed"),
        (Fault(time=0, verb="kill", arguments={"nodeid": 1}), "is killed"),
        (Fault(time=0, verb="add_node", arguments={"node": 4, "votes": 2}), "is added, votes=2"),
        (Fault(time=0, verb="pull_the_plug", arguments={"of": "the rack"}), "pull_the_plug(of='the rack')"),
    ],
)
def test_faults_in_words(fault: Fault, words: str) -> None:
    (text,) = texts(tell(History([fault])), Kind.FAULT)
    assert text == words


async def test_operations_and_notes(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001 - it is installed
    history = History()

    async def get() -> None:
        with history.operation("get", b"key", client="two"):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        with history.operation("put", "key", 1, client="one", node=1) as operation:
            await trio.sleep(1)
            operation.result = {"version": 2}
        with pytest.raises(ValueError), history.operation("put", "key", 2, client="one", refused=ValueError):  # noqa: PT011
            raise ValueError
        history.note("a takeover", node=2)
        open_ones = texts(tell(history), Kind.OPERATION)
        nursery.cancel_scope.cancel()
    story = tell(history)
    assert texts(story, Kind.OPERATION) == [
        "put('key', 1) returns {'version': 2} (after 1.000 s)",
        "put('key', 2) is refused: ValueError",
        "get(b'key') fails, and may have happened: Cancelled (after 1.000 s)",
    ]
    assert open_ones[0] == "get(b'key') begins, and has not ended"
    assert texts(story, Kind.NOTE) == ["a takeover"]
    assert story.nodes == (1, 2)
    assert story.clients == {"one": 1, "two": None}


def test_states_that_last_no_time_keep_their_place() -> None:
    history = History(clock=lambda: 1.0)
    for verb in ("freeze", "thaw", "kill"):
        history.fault(verb, node=1)
    spans = [(span.first, span.end, span.state.condition) for span in tell(history).node_spans]
    assert spans == [(0, 1, Condition.FROZEN), (1, 2, Condition.UP), (2, 3, Condition.DOWN)]


def test_to_start_a_daemon_that_runs_does_nothing() -> None:
    history = History(clock=lambda: 1.0)
    for verb in ("freeze", "start", "kill", "start"):
        history.fault(verb, node=1)
    assert [span.state.condition for span in tell(history).node_spans] == [
        Condition.FROZEN,
        Condition.DOWN,
        Condition.UP,
    ]
