"""examples/chat.py on a cluster."""

from __future__ import annotations

import os
from math import inf

import pytest
import trio
from chat import Chat
from support.screens import Screen

from triocoro.testing import Cluster

pytestmark = [pytest.mark.deadline(60), pytest.mark.corosync(nodes=2)]


async def test_a_chat_on_two_nodes_one_of_which_dies(corosync_cluster: Cluster) -> None:
    screens = {1: Screen(), 2: Screen()}
    keyboards: dict[int, trio.MemorySendChannel[str]] = {}
    async with trio.open_nursery() as nursery:
        for nodeid, name in ((1, "Ada"), (2, "Bob")):
            keyboards[nodeid], lines = trio.open_memory_channel[str](inf)
            with corosync_cluster[nodeid].as_default():
                nursery.start_soon(Chat(name, lines, screens[nodeid].show).run)
        for screen in screens.values():
            await screen.shows(f"* here: 1:{os.getpid()}, 2:{os.getpid()}")
        keyboards[1].send_nowait("Hello!")
        keyboards[2].send_nowait("Hello, Ada!")
        for screen in screens.values():
            await screen.shows("Ada: Hello!", "Bob: Hello, Ada!")
        spoken = [[line for line in screen.lines if not line.startswith("*")] for screen in screens.values()]
        assert spoken[0] == spoken[1]

        await corosync_cluster[2].kill()
        await screens[2].shows("* the connection is lost")
        await screens[1].shows(f"* 2:{os.getpid()} has left (nodedown)")
        keyboards[2].send_nowait("Am I alone?")
        await corosync_cluster[2].start()
        # It is sent as soon as it can be. That may be before the nodes have found each other.
        await screens[2].shows("Bob: Am I alone?")
        await corosync_cluster.settled()
        keyboards[2].send_nowait("Am I back?")
        await screens[1].shows("Bob: Am I back?")

        for keyboard in keyboards.values():
            await keyboard.aclose()
    assert screens[2].lines[-1] != "* the connection is lost"
