"""The debug log: its events, what they say, that it is silent until asked for, and where it costs nothing."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from support.proxy import FaultyEndpoint

import triocoro
from triocoro import ConnectionLostError, Message, SlowConsumerError, TryAgainError, _log, _settling
from triocoro._raw import MulticastStatus
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(20)

PAGE = Path(__file__).parent.parent.parent / "docs" / "logging.md"

Take = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def take(caplog: pytest.LogCaptureFixture) -> Take:
    """The attributes of the records of an event so far."""
    caplog.set_level(logging.DEBUG, "triocoro")

    def records(event: str) -> list[dict[str, Any]]:
        found = [vars(record) for record in caplog.records if getattr(record, "event", None) == event]
        for record in found:
            assert "%" not in record["message"]
            check_documented(record)
        return found

    return records


def check_documented(record: dict[str, Any]) -> None:
    """The page has a row for the event, with its logger, its level, and each of its attributes."""
    usual = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    logger, level, fields = documented()[record["event"], record["name"]]
    assert (record["name"], record["levelname"]) == (logger, level)
    assert record.keys() - usual <= {"event", *fields}


def documented() -> dict[tuple[str, str], tuple[str, str, set[str]]]:
    rows: dict[tuple[str, str], tuple[str, str, set[str]]] = {}
    common: dict[str, set[str]] = {}
    logger = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `(triocoro\.\w+)`$", line):
            logger = heading[1]
        elif line.startswith("Each record has "):
            common[logger] = set(re.findall(r"`(\w+)`", line))
        elif row := re.match(r"\| `(\w+)` \| (\w+) \| [^|]+ \|([^|]*)\|$", line):
            rows[row[1], logger] = logger, row[2], set(re.findall(r"`(\w+)`", row[3])) | common[logger]
    return rows


def test_every_event_is_documented_and_no_other() -> None:
    source = Path(triocoro.__file__).parent
    names = {"CONNECTION": "triocoro.connection", "GROUP": "triocoro.group", "SESSIONS": "triocoro.sessions"}
    noted: set[tuple[str, str]] = set()
    for path in source.glob("_*.py"):
        text = path.read_text(encoding="utf-8")
        noted |= {(event, names[logger]) for logger, event in re.findall(r'note\(\s*_log\.([A-Z]+),\s*"(\w+)"', text)}
        noted |= {(event, names["SESSIONS"]) for event in re.findall(r'self\._note\(\s*"(\w+)"', text)}
    assert noted == set(documented())


async def test_a_connection_and_a_group(corosync: Node, take: Take) -> None:
    async with triocoro.open_group("news") as group:
        await group.send_and_wait(b"x")
    (connected,) = take("connected")
    label = corosync.endpoint.label
    assert connected["name"] == "triocoro.connection"
    assert connected["message"] == f"connected to cpg of {label}"
    assert (connected["service"], connected["daemon"]) == ("cpg", label)
    (joined,) = take("joined")
    assert (joined["name"], joined["group"], joined["members"]) == ("triocoro.group", "news", 1)
    assert str(group.address) in joined["message"]
    (left,) = take("left")
    (closed,) = take("closed")
    assert {record["connection"] for record in (connected, joined, left, closed)} == {connected["connection"]}
    assert take("lost") == []
    assert connected["funcName"] == "__init__"
    assert connected["filename"] == "_lifetime.py"


async def test_a_lost_connection_says_why(corosync: Node, take: Take) -> None:
    with pytest.raises(ConnectionLostError) as caught:
        async with triocoro.open_votequorum():
            await corosync.kill()
            await trio.sleep_forever()
    (lost,) = take("lost")
    assert lost["message"] == str(caught.value)
    assert (lost["service"], lost["unconfirmed"]) == ("votequorum", 0)
    assert "votequorum_dispatch" in lost["error"]


@pytest.mark.corosync(nodes=2)
async def test_a_slow_consumer(corosync_cluster: Cluster, take: Take) -> None:
    with pytest.raises(SlowConsumerError):
        async with (
            triocoro.open_group("news", receive=False, endpoint=corosync_cluster[2]) as sender,
            triocoro.open_group("news", max_buffered_bytes=1000) as group,
        ):
            await sender.send_batch([bytes(500)] * 20)
            await sender.send_and_wait(b"the last one")
            async for _ in group:
                pass
    (cut,) = take("slow_consumer")
    assert "max_buffered_bytes=1000" in cut["message"]


async def test_attempts_and_flow_control(corosync: Node, take: Take) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.connects.extend([TryAgainError("busy", function="f"), TryAgainError("busy", function="f")])
    async with triocoro.open_group("news", endpoint=endpoint) as group:
        first, second = take("retrying")
        assert (first["service"], first["daemon"]) == ("cpg", corosync.endpoint.label)
        assert (first["attempt"], second["attempt"], first["error"]) == (1, 2, "busy")
        assert 0 < first["pause"] < second["pause"]

        endpoint.faults.refuse.extend([MulticastStatus.TRY_AGAIN] * 3)
        await group.send(b"x")
        (held_up,) = take("flow_control")
        assert (held_up["group"], held_up["reason"]) == ("news", "daemon")
        (resumed,) = take("flow_control_over")
        assert resumed["seconds"] > 0


async def test_what_the_daemon_drops(corosync: Node, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_settling, "STALL", 0.05)
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload.startswith(b"lost")
    async with triocoro.open_group(b"\xff", endpoint=endpoint) as group:
        await group.send_batch([b"lost 1", b"lost 2"])
        while not isinstance(await group.receive(), triocoro.MessageLost):
            pass
        await group.receive()
    (stalled,) = take("stalled")
    assert stalled["outstanding"] == 2
    (dropped,) = take("dropped")
    assert (dropped["group"], dropped["count"], dropped["bytes"]) == (r"\xff", 2, 12)


async def test_sessions(corosync: Node, take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = trio.Event()

    def notice(record: logging.LogRecord) -> bool:
        if getattr(record, "event", None) == "retrying":
            tried.set()
        return True

    monkeypatch.setattr(_log.SESSIONS, "filters", [notice])

    async def live() -> None:
        async for session in triocoro.sessions(triocoro.open_cpg):
            async with session:
                if session.epoch == 2:
                    return
                await corosync.kill()
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await tried.wait()
        await corosync.start()
    (lost,) = (record for record in take("lost") if record["name"] == "triocoro.sessions")
    assert (lost["epoch"], lost["unconfirmed"]) == (1, 0)
    (waiting,) = take("waiting")
    assert (waiting["epoch"], waiting["levelname"]) == (2, "WARNING")
    assert "no Corosync daemon answers" in waiting["error"]
    retrying = [record for record in take("retrying") if record["name"] == "triocoro.sessions"]
    assert [record["attempt"] for record in retrying] == list(range(1, len(retrying) + 1))
    (found,) = (record for record in take("connected") if record["name"] == "triocoro.sessions")
    assert (found["epoch"], found["levelname"]) == (2, "INFO")


async def test_nothing_is_noted_for_a_message(corosync: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async with triocoro.open_group("news", endpoint=corosync) as group:

        def refuse(*_: object, **__: object) -> None:
            pytest.fail("something was noted")

        monkeypatch.setattr(_log, "note", refuse)
        for _ in range(10):
            await group.send(b"x")
            group.send_nowait(b"x")
            await group.send_and_wait(b"x")
            await group.send_batch([b"x"] * 3)
        received = 0
        while received < 60:
            received += sum(isinstance(event, Message) for event in await group.receive_batch())
        monkeypatch.undo()


PROGRAM = """
import logging, sys, trio, triocoro
from triocoro.testing import FakeCluster

async def main():
    with FakeCluster(nodes=1) as cluster:
        await cluster[1].stop()
        with trio.move_on_after(0.1):
            async for session in triocoro.sessions("g", endpoint=cluster[1]):
                async with session:
                    pass

if "configured" in sys.argv:
    logging.basicConfig()
trio.run(main)
"""


@pytest.mark.corosync_fake_only(reason="the program brings its own cluster")
@pytest.mark.parametrize("configured", [True, False])
def test_silent_until_logging_is_configured(*, configured: bool) -> None:
    arguments = ["configured"] * configured
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout == ""
    assert result.stderr.startswith("WARNING:triocoro.sessions:session 1 waits for the daemon: ") is configured
    assert bool(result.stderr) is configured


def test_an_event_costs_little_while_the_log_is_off() -> None:
    """Nothing is formatted: `isEnabledFor` is asked, and no record is made."""

    class Unformatted:
        def __str__(self) -> str:
            raise AssertionError

    _log.note(logging.getLogger("triocoro.test"), "event", {}, "%s", Unformatted())
