"""Pages of histories, and histories for them."""

from __future__ import annotations

import json
import re
from typing import Any

import trio

import triocoro
from triocoro.testing import Cluster, History


def data_of(page: str) -> dict[str, Any]:
    """What a page draws."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page)
    data: dict[str, Any] = json.loads(text)
    return data


def lanes_of(page: dict[str, Any]) -> list[str]:
    """The labels of its lanes, from the top."""
    return [lane["label"] for lane in page["lanes"]]


async def record_a_lost_message(cluster: Cluster) -> History:
    """Three members; the first one is cut off, and sends before it knows. Then its daemon is frozen."""
    history = History()

    async def member(nodeid: int) -> None:
        endpoint = history.endpoint(cluster[nodeid], client=f"node {nodeid}")
        async with triocoro.open_group("chat", endpoint=endpoint) as group:
            async for _ in group:
                pass

    async with trio.open_nursery() as nursery:
        for nodeid in (2, 3):
            nursery.start_soon(member, nodeid)
        async with triocoro.open_group("chat", endpoint=history.endpoint(cluster[1], client="node 1")) as group:
            while len(group.view.members) < 3:
                await group.receive()
            await group.send_and_wait(b"to all")
            await cluster.isolate(1)
            history.fault("isolate", node=1)
            await group.send_and_wait(b"to nobody")
            while len(group.view.members) > 1:
                await group.receive()
            await cluster.settled()
            await cluster[1].freeze()
            history.fault("freeze", node=1)
            nursery.cancel_scope.cancel()
    await cluster[1].thaw()
    return history
