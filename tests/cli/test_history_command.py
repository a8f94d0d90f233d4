"""`triocoro history`."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import trio
from support.commands import Result, invoke

import triocoro
from triocoro import Message
from triocoro.testing import Cluster, Delivery, History, timeline, timeline_page


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


async def recorded(cluster: Cluster) -> History:
    """What one member saw."""
    history = History()
    node = next(iter(cluster.nodes.values()))
    async with triocoro.open_group("g", endpoint=history.endpoint(node, client="one")) as group:
        await group.send_and_wait(b"hello")
        await group.receive()
    history.fault("kill", node=node.nodeid)
    return history


@pytest.mark.corosync(nodes=1)
async def test_a_good_history(corosync_cluster: Cluster, file: Path) -> None:
    history = await recorded(corosync_cluster)
    history.save(file)
    assert await invoke("history", "check", str(file), "--option=nodes=1") == Result(
        0, f"{len(history)} entries, 0 violations\n", ""
    )
    done = await invoke("history", "show", str(file))
    assert done.stdout == f"{timeline(history)}\n"
    assert "group g: 1 (node 1 joined)" in done.stdout
    assert "is killed" in done.stdout
    assert len((await invoke("history", "show", "--limit=10", str(file))).stdout.splitlines()) <= 10
    done = await invoke("history", "show", "--entries", str(file))
    lines = done.stdout.splitlines()
    assert len(lines) == len(history)
    assert lines[0].startswith("     0.000  node 1 one.")
    assert lines[-1].split(maxsplit=1)[1] == "cluster            kill(node=1)"
    assert any("Message(sender=" in line for line in lines)
    shown = (await invoke("history", "show", str(file), "--json")).envelopes
    assert {(envelope["schema"], envelope["version"]) for envelope in shown} == {("triocoro.history-show", 1)}
    assert len(shown) == len(history)


async def test_a_page(file: Path, tmp_path: Path) -> None:
    history = History(clock=lambda: 0.0)
    history.note("hello")
    history.save(file)
    page = tmp_path / "page.html"
    done = await invoke("history", "show", f"--html={page}", str(file))
    assert done == Result(0, f"written to {page}\n", "")
    assert page.read_text(encoding="utf-8") == timeline_page(history, title="history.jsonl")
    done = await invoke("history", "show", f"--html={page}", str(file), "--json")
    assert done.result == {"html": str(page)}
    done = await invoke("history", "show", f"--html={tmp_path}/missing/page.html", str(file))
    assert done == Result(
        2, "", f"triocoro: {tmp_path}/missing/page.html cannot be written: No such file or directory\n"
    )


@pytest.mark.corosync(nodes=1)
async def test_a_bad_history(corosync_cluster: Cluster, file: Path) -> None:
    history = await recorded(corosync_cluster)
    History(
        attrs.evolve(entry, event=Message(entry.event.sender, b"forged"))
        if isinstance(entry, Delivery) and isinstance(entry.event, Message)
        else entry
        for entry in history
    ).save(file)
    done = await invoke("history", "check", str(file))
    assert done.status == 1
    assert done.stdout.startswith("integrity: ")
    assert done.stdout.splitlines()[-1].startswith(f"{len(history)} entries, ")
    (violation, *_) = (await invoke("history", "check", str(file), "--json")).result["violations"]
    assert violation["rule"] == "integrity"
    assert violation["evidence"]


async def test_operations_that_are_not_linearizable(file: Path) -> None:
    history = History()
    for value in (1, 2):
        with history.operation("put", "x", value, client="one"):
            pass
    history.save(file)
    assert await invoke("history", "check", str(file), "--model=map") == Result(0, "4 entries, 0 violations\n", "")
    with history.operation("get", "x", client="two") as operation:
        operation.result = 1
    history.save(file)
    assert (await invoke("history", "check", str(file))).status == 0
    done = await invoke("history", "check", str(file), "--model=map")
    assert done.status == 1
    assert "two  get('x') -> 1 " in done.stdout
    (violation,) = (await invoke("history", "check", str(file), "--model=map", "--json")).result["violations"]
    assert violation["rule"] == "linearizability"
    assert [entry["class"] for entry in violation["evidence"]] == ["Invocation", "Outcome"] * 2
    done = await invoke("history", "check", str(file), "--model=queue")
    assert (done.status, done.stdout) == (2, "")
    assert "Queue has no operation 'put'" in done.stderr


@pytest.fixture
def no_history(file: Path) -> Path:
    file.write_text("{}\n")
    return file


async def test_what_is_no_history(no_history: Path) -> None:
    for command in ("show", "check"):
        done = await invoke("history", command, str(no_history))
        assert (done.status, done.stdout) == (2, "")
        assert done.stderr.startswith(f"triocoro: {no_history} is no history: ")


async def test_wrong_options(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    History(clock=trio.current_time).save(file)
    for option in ("nodes=none", "no_such=1", "nodes"):
        assert (await invoke("history", "check", str(file), f"--option={option}")).status == 2
        assert "--option" in capsys.readouterr().err
