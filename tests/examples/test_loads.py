"""examples/loads.py on clusters that break."""

from __future__ import annotations

import os
from functools import partial

import pytest
import trio
from loads import ask_all, load, run
from support.screens import Screen

from triocoro import Address
from triocoro.recipes import Request, open_calls
from triocoro.testing import Cluster

pytestmark = pytest.mark.deadline(30)


def nodes(table: str) -> list[int]:
    """The nodes of a table that have answered with a number."""
    return [int(line.split()[1]) for line in table.splitlines() if line.split()[2].replace(".", "", 1).isdigit()]


async def test_each_node_shows_all_that_are_there(corosync_cluster: Cluster) -> None:
    screens = {nodeid: Screen() for nodeid in corosync_cluster.nodes}

    def show(nodeid: int, *there: int) -> bool:
        lines = screens[nodeid].lines
        return bool(lines) and nodes(lines[-1]) == list(there)

    async with trio.open_nursery() as nursery:
        for nodeid, node in corosync_cluster.nodes.items():
            with node.as_default():
                nursery.start_soon(partial(run, screens[nodeid].show, 0.01))
        await screens[1].until(lambda: show(1, 1, 2, 3))
        await corosync_cluster.partition({1, 2}, {3})
        await screens[2].until(lambda: show(2, 1, 2))
        await screens[3].until(lambda: show(3, 3))
        await corosync_cluster[2].kill()
        await screens[1].until(lambda: show(1, 1))
        await corosync_cluster.heal()
        await corosync_cluster[2].start()
        for nodeid, screen in screens.items():
            await screen.until(partial(show, nodeid, 1, 2, 3))
        nursery.cancel_scope.cancel()


async def test_nodes_that_fail_or_do_not_answer(corosync_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Request) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(os, "getloadavg", lambda: 1 / 0)
    async with (
        open_calls("loads", load, endpoint=corosync_cluster[1]) as one,
        open_calls("loads", never, endpoint=corosync_cluster[2]) as two,
    ):
        while len(one.view.members) < 2:  # noqa: ASYNC110 - these calls keep no events
            await trio.sleep(0.001)
        failed = "node 1  failed: ZeroDivisionError: division by zero"
        assert await ask_all(one) == [failed, "node 2  no answer"]
        assert two.view.members == one.view.members


async def test_an_unknown_request_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown request b'lod'"):
        await load(Request(Address(1, 1), b"lod"))
