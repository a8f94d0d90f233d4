"""What the page of a history consists of; test_page_in_browser.py looks at it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from support.histories import history as told
from support.timeline_pages import data_of, lanes_of, record_a_lost_message

import triocoro
from triocoro._settling import private_group
from triocoro.testing import (
    Call,
    Cluster,
    ClusterOptions,
    History,
    Note,
    check,
    check_linearizable,
    models,
    timeline,
    timeline_page,
)
from triocoro.testing._timeline.axis import axis


def operations() -> History:
    """Two operations of one client at a time, one that was refused, and one that may have happened."""
    history = History(clock=lambda: 0.0)
    with (
        history.operation("put", "key", 1, client="c1", node=1) as first,
        history.operation("get", "key", client="c1", node=1) as second,
    ):
        first.result, second.result = "ok", None
    with pytest.raises(KeyError), history.operation("put", "key", 2, client="c2", refused=KeyError):
        raise KeyError
    with pytest.raises(OSError), history.operation("put", "key", 3, client="c2"):  # noqa: PT011 - any will do
        raise OSError
    return history


def texts(rows: Iterable[list[Any]], kind: str) -> list[str]:
    return [row[5] for row in rows if row[4] == kind]


async def test_the_picture(corosync_cluster: Cluster) -> None:
    history = await record_a_lost_message(corosync_cluster)
    page = data_of(timeline_page(history, title="test_it", options=corosync_cluster.options))
    lanes, events = page["lanes"], page["events"]
    assert lanes_of(page) == ["test", *(name for node in (1, 2, 3) for name in (f"node {node}", "chat"))]
    assert page["facts"][:2] == ["3 nodes", "3 clients"]

    # Arrows go to each lane that received a message, and crosses to those that went on without it.
    sent = {row[5]: number for number, row in enumerate(events) if row[4] == "send"}
    receivers = {events[to][3] for number, to in page["arrows"] if number == sent["to all"]}
    assert [(lanes[lane]["node"], lanes[lane]["kind"]) for lane in sorted(receivers)] == [
        (1, "group"),
        (2, "group"),
        (3, "group"),
    ]
    missed = [lanes[lane]["node"] for number, lane in page["missed"] if number == sent["to nobody"]]
    assert missed == [2, 3]
    assert sent["to all"] not in {number for number, _ in page["missed"]}

    # Node 1 is alone, then frozen; colours stand for sets of nodes.
    bands = [band for band in page["bands"] if band["node"] == 1 and band["ring"]]
    assert [(band["nodes"], band["quorate"], band["condition"], band["hue"] == 0) for band in bands] == [
        ("nodes 1-3", True, "up", True),
        ("node 1", False, "up", False),
        ("node 1", False, "frozen", False),
    ]
    others = {(band["nodes"], band["quorate"]) for band in page["bands"] if band["node"] != 1 and band["ring"]}
    assert others == {("nodes 1-3", True), ("nodes 2, 3", True)}
    for node in (1, 2, 3):
        of_node = [band for band in page["bands"] if band["node"] == node]
        assert [band["to"] for band in of_node[:-1]] == [band["from"] for band in of_node[1:]]

    assert [row[2] for row in page["network"]] == ["node 1 is cut off from all others"]
    assert texts(events, "fault") == ["is cut off from all others", "is frozen"]
    story = [(row[2], row[3], row[4]) for row in page["story"]]
    (frozen,) = (text for who, text, style in story if (who, style) == ("node 1", "fault") and "frozen" in text)
    assert re.fullmatch(r"is frozen \(timeline_pages\.py:\d+\)", frozen)
    (line,) = (text for _, text, style in story if style == "bad" and "sends" in text)
    assert line.endswith("received by 1, not by 2, 3")


async def test_what_the_sdk_does_for_itself_is_not_drawn(corosync_cluster: Cluster) -> None:
    """A member whose messages stall joins a group of its own for a moment (triocoro/_settling.py)."""
    history = History()
    endpoint = history.endpoint(corosync_cluster[1], client="node 1")
    async with (
        triocoro.open_group("chat", endpoint=endpoint) as group,
        triocoro.open_group(private_group(group.address), endpoint=endpoint),
    ):
        pass
    with history.operation("read", client="one") as operation:
        operation.result = "never written"
    page = data_of(timeline_page(history, violations=check_linearizable(history.operations(), models.Register())))
    assert lanes_of(page) == ["test", "one", "node 1", "chat", "node 2", "node 3"]
    ((_, _, (evidence,), _),) = page["violations"]
    *_, kind, text, _ = page["events"][evidence]
    assert (kind, text) == ("operation", "read() → 'never written'")
    assert "'triocoro" not in timeline(history)
    assert "group chat" in timeline(history)
    assert not check(history, options=corosync_cluster.options)


@pytest.mark.corosync_fake_only(reason="no entry is peculiar to real clusters, as test_the_picture shows")
async def test_any_part_of_a_history_has_a_page(corosync_cluster: Cluster) -> None:
    """A history that has grown too long has lost its first entries."""
    entries = list(await record_a_lost_message(corosync_cluster))
    for first in range(len(entries)):
        page = data_of(timeline_page(History(entries[first:])))
        assert [row[1] for row in page["events"]] == sorted(row[1] for row in page["events"])
    assert data_of(timeline_page(History()))["events"] == []


def test_nothing_can_leave_its_place() -> None:
    history = History(clock=lambda: 0.0)
    hostile = "</script><script>alert(1)</script><!-- & \x00\x1b[31m\u2028 \ud800 $js"
    history.note(hostile)
    with history.operation(hostile, hostile, client=hostile):
        pass
    history.fault(hostile, why=hostile)
    for entry in told("a join a; a ring 4 1; a send x; a got a x"):
        if isinstance(entry, Call) and entry.function == "multicast":
            history.append(attrs.evolve(entry, arguments={"payloads": (b"</script>\xff\x00",)}))
        else:
            history.append(entry)
    page = timeline_page(history, title=hostile, failure=hostile, outcome=hostile)
    page.encode("utf-8", errors="strict")
    assert "<script>alert" not in page
    assert page.count("</script>") == 2
    data = data_of(page)
    assert data["title"] == data["failure"]["text"] == hostile
    assert texts(data["events"], "note") == [hostile]
    assert texts(data["events"], "send") == [r"</script>\\xff\x00"]


def test_nothing_comes_from_elsewhere() -> None:
    page = timeline_page(History())
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s]+)""", page) == ["data:,"]
    assert "default-src 'none'" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_axis_keeps_the_order_and_shortens_pauses() -> None:
    times = [0.0, 0.0, 0.0, 0.01, 1.0, 100.0]
    positions = axis([Note(time=time, text="") for time in times])
    steps = [after - before for before, after in itertools.pairwise(positions)]
    assert steps[:2] == [1, 1]  # at one instant
    assert steps[0] < steps[2] < steps[3] < steps[4] < 20
    assert axis([]) == [1]


def test_operations_are_bars() -> None:
    history = operations()
    with history.operation("put", "key", 4, client="c2"):
        page = data_of(timeline_page(history))
    assert lanes_of(page) == ["test", "c2", "node 1", "c1"]
    bars = {page["events"][number][5]: (status, row) for number, _, _, status, row in page["bars"]}
    assert bars == {
        "put('key', 1) → 'ok'": ("returned", 1),
        "get('key') → None": ("returned", 0),
        "put('key', 2) → KeyError": ("refused", 0),
        "put('key', 3) → OSError": ("unknown", 0),
        "put('key', 4)": ("open", 0),
    }
    assert [lane["rows"] for lane in page["lanes"]] == [1, 1, 1, 2]
    ends = [end for _, end, _, status, _ in page["bars"] if status == "open"]
    assert ends == [page["end"]]


def test_lanes_are_in_the_order_of_their_names() -> None:
    history = History(clock=lambda: 0.0)
    for client in ("c10", "c9", "c٣", "a", "c1b"):
        history.operation("get", client=client).__enter__()
    assert lanes_of(data_of(timeline_page(history))) == ["test", "a", "c1b", "c٣", "c9", "c10"]


def test_the_failure_is_before_the_end_of_the_connections() -> None:
    entries = list(told("a join a; a ring 4 1; a send x; a got a x; a send y; a got a y; a leave"))
    leave = next(index for index, entry in enumerate(entries) if isinstance(entry, Call) and entry.function == "leave")
    page = data_of(timeline_page(History(entries), failure="\nAssertionError: no\n  more of it\n"))
    assert page["failure"]["short"] == "AssertionError: no"
    assert page["failure"]["text"] == "AssertionError: no\n  more of it"
    assert page["story"][-1][3:] == ["AssertionError: no", "bad"]
    after = {row[0] for row in page["events"] if row[1] > page["failure"]["x"]}
    assert min(after) == leave


def test_violations_have_their_entries() -> None:
    history = told("a join a; a ring 4 1; a send x; a got a x; a got a x")
    violations = check(history)
    page = data_of(timeline_page(history, violations=violations))
    assert page["violations"]
    for (rule, text, numbers, _), violation in zip(page["violations"], violations, strict=True):
        assert (rule, text) == (violation.rule.value, violation.text)
        assert numbers
        assert set(numbers) <= set(page["bad"])


def test_operations_that_nothing_explains_are_marked() -> None:
    history = History(clock=lambda: 0.0)
    for client, name, arguments, result in (
        ("c1", "put", ("key", 1), None),
        ("c2", "get", ("key",), 1),
        ("c2", "get", ("key",), None),
    ):
        with history.operation(name, *arguments, client=client) as operation:
            operation.result = result
    (violation,) = check_linearizable(history.operations(), models.Map())
    page = data_of(timeline_page(history, violations=[violation]))
    ((rule, text, numbers, picture),) = page["violations"]
    assert (rule, text, picture) == ("linearizability", violation.text, violation.picture)
    assert "get('key') → None" in {page["events"][number][5] for number in numbers}
    assert page["bad"] == numbers


def test_messages_that_were_lost_for_good() -> None:
    """One that is on its way at the end is not lost."""
    both = "a join a; a ring 4 12; b join ab; b ring 4 12; a +b ab"
    page = data_of(timeline_page(told(both, "a send x; a got a x")))
    assert page["missed"] == []
    page = data_of(timeline_page(told(both, "a send x; a send y; a got a x; a got a y; b got a y")))
    assert len(page["missed"]) == 1


def test_a_repeated_payload_is_matched_with_the_sending_after_the_join() -> None:
    script = "a join a; a ring 4 12; a send x; a got a x; b join ab; b ring 4 12; a send x; a got a x; b got a x"
    page = data_of(timeline_page(told(script)))
    sends = [number for number, row in enumerate(page["events"]) if row[4] == "send"]
    (received,) = [number for number, row in enumerate(page["events"]) if row[4] == "receive" and row[3] == 4]
    assert [sends[1], received] in page["arrows"]


@pytest.mark.parametrize("history", [None, [], "history"])
def test_what_is_no_history(history: Any) -> None:
    with pytest.raises(TypeError, match="History"):
        timeline_page(history)


def test_quorum_follows_from_the_options() -> None:
    history = told("a join a; a ring 4 1")
    for options, quorate in ((None, None), (ClusterOptions(nodes=3), False), (ClusterOptions(nodes=1), True)):
        bands = data_of(timeline_page(history, options=options))["bands"]
        assert [band["quorate"] for band in bands if band["ring"]] == [quorate]
