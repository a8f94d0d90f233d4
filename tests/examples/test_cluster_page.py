"""examples/cluster_page.py: what it sends, and how that looks in a browser."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio
from support.browser import open_page

import triocoro
from triocoro.testing import Cluster

pytest.importorskip("hypercorn", reason="examples/cluster_page.py needs it")

from cluster_page import ClusterPage

pytestmark = pytest.mark.deadline(30)

State = dict[str, Any]

_SCREENSHOTS = os.environ.get("TRIOCORO_SCREENSHOTS")
"""The folder to leave the screenshots in; empty for none; `None`: there is no browser to be used."""


@asynccontextmanager
async def listening(page: ClusterPage) -> AsyncGenerator[trio.MemoryReceiveChannel[State], None]:
    """The states that a WebSocket is told of."""
    told, states = trio.open_memory_channel[State](inf)
    ended = trio.Event()
    first = True

    async def receive() -> Any:
        nonlocal first
        if not first:
            await ended.wait()
            return {"type": "websocket.disconnect", "code": 1000, "reason": ""}
        first = False
        await trio.lowlevel.checkpoint()
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        if event["type"] == "websocket.send":
            told.send_nowait(json.loads(event["text"]))

    scope: Any = {"type": "websocket", "path": "/changes"}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(page, scope, receive, send)
        yield states
        ended.set()


async def until(states: trio.MemoryReceiveChannel[State], condition: Callable[[State], object]) -> State:
    async for state in states:
        if condition(state):
            return state
    raise AssertionError


async def test_a_socket_is_told_of_changes(corosync_cluster: Cluster) -> None:
    async with trio.open_nursery() as nursery:
        page = ClusterPage(interval=0.05)
        nursery.start_soon(page.watch)
        async with listening(page) as states:
            state = await until(states, lambda state: state.get("votes") == 3)
            assert (state["node"], state["quorate"], state["expected"], state["quorum"]) == (1, True, 3, 2)
            assert [row[0] for row in state["nodes"]] == ["1", "2", "3"]
            assert {row[2] for row in state["nodes"]} == {"member"}
            assert state["nodes"][0][3] == "this node"

            async with triocoro.open_group("chat", endpoint=corosync_cluster[2]) as group:
                await until(states, lambda state: state.get("groups") == [["chat", str(group.address)]])
            await until(states, lambda state: state.get("groups") == [])

            await corosync_cluster.isolate(1)
            # The page asks one service after another, so a state in between has the old answers of some.
            alone = (["member", "away", "away"], False, 1)
            await until(
                states, lambda state: ([row[2] for row in state["nodes"]], state["quorate"], state["votes"]) == alone
            )
            await corosync_cluster[1].kill()
            await until(states, lambda state: state == {})
            await corosync_cluster.heal()
            await corosync_cluster[1].start()
            await until(states, lambda state: state.get("quorate"))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("path, status", [("/", 200), ("/other", 404)])
async def test_the_page(path: str, status: int) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError

    async def send(event: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(event)

    scope: Any = {"type": "http", "path": path}
    await ClusterPage()(scope, receive, send)
    assert sent[0]["status"] == status
    assert (b"new WebSocket" in sent[1]["body"]) is (status == 200)


@pytest.mark.skipif(_SCREENSHOTS is None, reason="it needs Chromium: make browser")
@pytest.mark.corosync_real_only(reason="once is enough; what is sent is tested on both above")
async def test_in_a_browser(corosync_cluster: Cluster, tmp_path: Path) -> None:
    program = shutil.which("chromium")
    assert program is not None, "chromium is not on PATH"
    pictures = Path(_SCREENSHOTS or tmp_path)
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(ClusterPage().serve, "127.0.0.1:0")
        async with (
            triocoro.open_group("chat", endpoint=corosync_cluster[2]) as group,
            open_page(program, address, tmp_path) as page,
        ):
            await page.until_text("node 1 sees it", "3 of 3 votes; 2 are needed", "chat", str(group.address))
            assert (await page.text()).count("member") == 3
            await page.screenshot(pictures / "quorate.png")
            await corosync_cluster.isolate(1)
            await page.until_text("not quorate", "1 of 3 votes", "away")
            await page.screenshot(pictures / "not-quorate.png")
            await corosync_cluster[1].kill()
            await page.until_text("no daemon")
            await corosync_cluster[1].start()
            await corosync_cluster.heal()
            await page.until_text("3 of 3 votes; 2 are needed")
        nursery.cancel_scope.cancel()
