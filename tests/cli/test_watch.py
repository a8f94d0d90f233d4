"""`triocoro watch`: what it reports, and the live screen."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from datetime import datetime, timezone

import attrs
import pytest
import trio
from rich.console import Console
from support.commands import COMMAND, ROOT, following, invoke
from support.external_programs import inside
from support.snapshots import LINKS, SNAPSHOT

import triocoro
from triocoro import CmapChange, CmapTrack, NodelistChange, QuorumChange, RingId
from triocoro._cli import watching
from triocoro._cli.watch import View
from triocoro._cli.watching import Happening, cmap_happening, differences, quorum_happening
from triocoro.testing import Cluster, Node

AT = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=timezone.utc)


async def test_what_happens(corosync_cluster: Cluster) -> None:
    """The present state first, then what changes: quorum, nodes, groups and links, over a restart of the daemon."""
    first, second, *_ = corosync_cluster.nodes
    everyone = sorted(corosync_cluster.nodes)
    with corosync_cluster[first].as_default():
        async with following("watch", "--interval=0.1", "--cmap=runtime.force") as events:
            assert (await events.until())["state"] == "connected"
            # The quorum and the links are asked for side by side.
            nodes, quorum, link = await events.until_each(
                {"event": "nodes"}, {"event": "quorum", "quorate": True}, {"event": "link", "nodeid": second}
            )
            assert nodes["members"] == quorum["members"] == everyone
            assert link["connected"] is True

            async with triocoro.open_group("chat\0", endpoint=corosync_cluster[second]) as group:
                found = await events.until(event="group")
                ours = {"nodeid": second, "pid": group.address.pid}
                assert found["name"]["text"] == "chat\0"
                assert (found["members"], found["joined"], found["left"]) == ([ours], [ours], [])
            found = await events.until(event="group")
            assert (found["members"], found["joined"], found["left"]) == ([], [], [ours])

            async with triocoro.open_cmap() as cmap:
                await cmap.set("runtime.force_me", 7)
            found = await events.until(event="cmap", key="runtime.force_me")
            assert (found["change"], found["new"], found["old"]) == ("add", 7, None)

            for nodeid in everyone:
                if nodeid != first:
                    await corosync_cluster[nodeid].kill()
            await events.until(event="quorum", quorate=False, members=[first])

            await corosync_cluster[first].restart()
            await events.until(event="daemon", state="lost")
            await events.until(event="daemon", state="connected")
            await events.until(event="quorum", quorate=False, members=[first])


async def test_a_daemon_that_does_not_run_yet(corosync: Node) -> None:
    await corosync.stop()
    async with following("watch") as events:
        assert "no Corosync daemon" in (await events.until(event="daemon", state="unavailable"))["text"]
        await corosync.start()
        await events.until(event="daemon", state="connected")


async def test_a_silent_daemon(corosync: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SILENCE", 0.3)
    async with following("watch", "--interval=0.1") as events:
        await events.until(event="quorum")
        await corosync.freeze()
        await events.until(event="daemon", state="silent")
        await corosync.thaw()
        await events.until(event="daemon", state="answering")


@pytest.mark.parametrize(
    "prefix,complaint",
    [("a b", "cmap"), ("stats.ipcs.service0.1.2.procname", "only numbers can be"), ("x" * 300, "3 to 255 characters")],
)
async def test_a_prefix_that_cannot_be_tracked(prefix: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = await invoke("watch", f"--cmap={prefix}")
    assert (done.status, done.stdout) == (2, "")
    stderr = capsys.readouterr().err
    assert "--cmap" in stderr
    assert complaint in stderr


def test_texts() -> None:
    ring = RingId(1, 44)
    assert quorum_happening(QuorumChange(True, ring, (1, 2))).text == "quorate with nodes 1 2"  # noqa: FBT003
    lost = quorum_happening(QuorumChange(False, ring, (1,)))  # noqa: FBT003
    assert (lost.text, lost.bad) == ("NOT QUORATE with nodes 1", True)
    moved = quorum_happening(NodelistChange(ring, (1, 3), (3,), (2,)))
    assert (moved.text, moved.bad) == ("nodes 1 3 are together, 3 joined, 2 left", True)
    assert not quorum_happening(NodelistChange(ring, (1, 3), (), ())).bad
    assert cmap_happening(CmapChange(CmapTrack.MODIFY, "a.b", 1, "x")).text == "a.b = 1, was 'x'"
    assert cmap_happening(CmapChange(CmapTrack.ADD, "a.b", b"\xff", None)).about["new"] == {
        "text": None,
        "base64": "/w==",
    }
    assert cmap_happening(CmapChange(CmapTrack.DELETE, "a.b", None, 1)).text == "a.b deleted"
    line = Happening("cmap", {}, "a.b deleted", time=AT)
    assert re.fullmatch(r"\d\d:\d\d:05\.678  cmap    a\.b deleted", line.as_text())
    assert line.as_json() == {"event": "cmap", "time": "2026-01-02T03:04:05.678+00:00"}


def test_differences() -> None:
    assert [found.text for found in differences(None, SNAPSHOT)] == [
        "chat\\x00: 1:4711 joined, 2:12 joined; 2 members",
        "grüße: 2:12 joined; 1 members",
        "link 0 to node 2 (192.0.2.2) is connected",
        "link 1 to node 2 (2001:db8::2) is DOWN",
        "link 0 to node 3 (192.0.2.3) is disabled",
    ]
    assert list(differences(SNAPSHOT, SNAPSHOT)) == []
    up = attrs.evolve(SNAPSHOT.nodes[1], links=tuple(attrs.evolve(link, connected=True, mtu=1) for link in LINKS))
    after = attrs.evolve(SNAPSHOT, nodes=(SNAPSHOT.nodes[0], up), groups={b"chat\0": SNAPSHOT.groups[b"chat\0"][:1]})
    assert [(found.text, found.bad) for found in differences(SNAPSHOT, after)] == [
        ("chat\\x00: 2:12 left; 1 members", False),
        ("grüße: 2:12 left; 0 members", False),
        ("link 1 to node 2 (2001:db8::2) is connected", False),
    ]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("height", [5, 24, 40])
def test_the_live_screen_fits(width: int, height: int) -> None:
    """The state, and below it the latest events that fit."""
    view = View()
    for number in range(100):
        view.add(Happening("cmap", {}, f"number {number} {'x' * 200}", time=AT))
    view.snapshot = SNAPSHOT
    console = Console(file=io.StringIO(), width=width, height=height)
    lines = console.render_lines(view.frame(console))
    text = ["".join(segment.text for segment in line).rstrip() for line in lines]
    assert text[0].startswith("shop, seen from node 1")
    assert max(map(len, text)) <= width
    if height >= 24:
        assert len(text) == height
        assert "  cmap    number 99 xxx" in text[-1]


def test_the_live_screen_says_that_it_is_old() -> None:
    view = View()
    console = Console(file=io.StringIO(), width=80, height=24)

    def text() -> str:
        lines = console.render_lines(view.frame(console))
        return "\n".join("".join(segment.text for segment in line).rstrip() for line in lines)

    view.add(Happening("daemon", {}, "cannot be used yet: why", bad=True, time=AT))
    assert text().startswith("The daemon cannot be used yet: why\n\nEvents")
    view.add(Happening("daemon", {}, "is connected", time=AT))
    view.snapshot = SNAPSHOT
    assert text().startswith("shop, seen from node 1")
    view.add(Happening("daemon", {}, "is gone", bad=True, time=AT))
    assert re.match(r"The daemon is gone\nWhat follows is as it was before \d\d:\d\d:05\.\n\nshop", text())


@pytest.mark.corosync_real_only(reason="a process of its own needs a real node")
async def test_on_a_terminal(corosync_cluster: Cluster) -> None:
    """Live until ctrl-C, which restores the screen, and is quiet; a new size has it drawn anew at once."""
    node = next(iter(corosync_cluster.nodes.values()))
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:  # noqa: ASYNC231 - it is read on a worker thread
        process = await trio.lowlevel.open_process(
            [*inside(node), *COMMAND, "watch", "--interval=3600"],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(theirs)
        seen = b""
        with trio.fail_after(60):
            while b"quorate with nodes" not in seen:
                seen += await trio.to_thread.run_sync(screen.read, 65536)
            fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("4H", 40, 132, 0, 0))
            process.send_signal(signal.SIGWINCH)  # the terminal does this for those that it controls
            while b"quorate with nodes" not in seen.partition(b"\x1b[2J")[2]:
                seen += await trio.to_thread.run_sync(screen.read, 65536)
            process.send_signal(signal.SIGINT)
            while True:
                try:
                    data = await trio.to_thread.run_sync(screen.read, 65536)
                except OSError:  # Linux says EIO at the end of a terminal
                    break
                seen += data
            assert await process.wait() == 130
    assert b"\x1b[?1049h" in seen
    assert b"\x1b[?1049l" in seen.rpartition(b"quorate with nodes")[2]
    assert b"Traceback" not in seen


@pytest.mark.corosync_real_only(reason="a process of its own needs a real node")
async def test_a_reader_that_leaves(corosync_cluster: Cluster) -> None:
    node = next(iter(corosync_cluster.nodes.values()))
    command = [*inside(node), *COMMAND, "watch", "--json", "--interval=0.1", "--cmap=stats."]
    process = await trio.lowlevel.open_process(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(60):
        await process.stdout.receive_some()
        await process.stdout.aclose()
        # Something to report.
        async with triocoro.open_group("chat", receive=False, endpoint=node):
            assert await process.wait() == 141
        assert await process.stderr.receive_some() == b""
    await process.stderr.aclose()
