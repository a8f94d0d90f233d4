"""`triocoro send` and `triocoro listen`."""

from __future__ import annotations

import signal
import subprocess
from functools import partial

import pytest
import trio
from support.commands import COMMAND, ROOT, Result, following, invoke
from support.external_programs import inside

import triocoro
from triocoro import Message
from triocoro.testing import Cluster, Node


async def payloads(group: triocoro.Group, count: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < count:
        event = await group.receive()
        if isinstance(event, Message):
            found.append(event.payload)
    return found


async def reach(group: triocoro.Group, members: int) -> None:
    """Wait until the group has so many members."""
    while len(group.view.members) != members:
        await group.receive()


async def test_messages_are_sent(corosync_cluster: Cluster) -> None:
    other = list(corosync_cluster.nodes.values())[1]
    async with triocoro.open_group(b"chat\0", endpoint=other) as group:
        done = await invoke("send", r"chat\x00", "hello", r"back\\slash\xff", "grüße", "--nul")
        assert done == Result(0, "sent 3 messages to 1 other members; 0 were dropped by the daemon\n", "")
        assert await payloads(group, 3) == [b"hello\0", b"back\\slash\xff\0", "grüße\0".encode()]
        done = await invoke("send", r"chat\x00", "x", "--json")
        assert done.result == {"sent": 1, "lost": 0, "other_members": 1}


@pytest.mark.usefixtures("corosync")
async def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ([r"\q", "x"], "backslash"),
        (["chat", r"\q"], "backslash"),
        (["x" * 129, "x"], "1 to 127 bytes"),
    ):
        assert (await invoke("send", *arguments)).status == 2
        assert words in capsys.readouterr().err


async def test_listening_to_what_happens(corosync_cluster: Cluster) -> None:
    other = list(corosync_cluster.nodes.values())[1]
    heard: list[Result] = []

    async def listen() -> None:
        heard.append(await invoke("listen", "chat", "--messages=2", "--totem", "--json"))

    async with triocoro.open_group("chat", endpoint=other) as group:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await reach(group, 2)
            await group.send(b"one")
            await group.send(b"two\xff")
        (done,) = heard
        assert done.status == 0
        events = [envelope["result"] for envelope in done.envelopes]
        assert [event["event"] for event in events] == ["members", "ring", "message", "message"]
        ours = {"nodeid": next(iter(corosync_cluster.nodes)), "pid": events[0]["joined"][0]["pid"]}
        theirs = {"nodeid": group.address.nodeid, "pid": group.address.pid}
        assert events[0]["members"] == [ours, theirs]
        assert events[0]["joined"] == [{**ours, "reason": "join"}]
        assert [event["payload"] for event in events[2:]] == [
            {"text": "one", "base64": "b25l"},
            {"text": None, "base64": "dHdv/w=="},
        ]


async def test_listening_goes_on_when_the_daemon_is_back(corosync_cluster: Cluster) -> None:
    node, other = list(corosync_cluster.nodes.values())[:2]
    with node.as_default():
        async with following("listen", "chat") as events, triocoro.open_group("chat", endpoint=other) as group:
            await events.until(event="members")
            await reach(group, 2)
            await node.kill()
            assert "is gone, or has cut us off; connecting again" in (await events.until(state="lost"))["text"]
            await reach(group, 1)
            await node.start()
            await reach(group, 2)
            await group.send_and_wait(b"back\n")
            assert (await events.until(event="message"))["payload"]["text"] == "back\n"


async def test_a_daemon_that_does_not_run_yet(corosync: Node) -> None:
    await corosync.stop()
    async with following("listen", "chat") as events:
        assert "no Corosync daemon" in (await events.until(event="daemon", state="unavailable"))["text"]
        await corosync.start()
        assert len((await events.until(event="members"))["members"]) == 1
    await corosync.stop()
    done = await invoke("send", "chat", "x")
    assert (done.status, done.stdout) == (3, "")


async def test_a_frozen_daemon(corosync: Node) -> None:
    await corosync.freeze()
    done = await invoke("send", "chat", "x", "--timeout=0.3")
    assert (done.status, done.stdout) == (3, "")
    assert "has not answered within 0.3 s" in done.stderr
    await corosync.thaw()


@pytest.mark.corosync_real_only(reason="a process of its own needs a real node")
async def test_lines_of_stdin(corosync_cluster: Cluster) -> None:
    node = next(iter(corosync_cluster.nodes.values()))
    async with triocoro.open_group("chat", endpoint=node) as group:
        await trio.run_process([*inside(node), *COMMAND, "send", "chat"], stdin=b"one\n\ntwo\\x00\nlast", cwd=ROOT)
        assert await payloads(group, 4) == [b"one", b"", b"two\\x00", b"last"]


@pytest.mark.corosync_real_only(reason="a process of its own needs a real node")
async def test_an_interrupt_ends_it_quietly(corosync_cluster: Cluster) -> None:
    node = next(iter(corosync_cluster.nodes.values()))
    pipe = subprocess.PIPE
    run = partial(trio.run_process, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, check=False, cwd=ROOT)
    for arguments in (["listen", "chat"], ["send", "chat"]):
        async with triocoro.open_group("chat", endpoint=node) as group, trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run, [*inside(node), *COMMAND, *arguments])
            await reach(group, 2)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert process.stdout is not None
            output = b"".join([block async for block in process.stdout])
            assert b"Traceback" not in output
