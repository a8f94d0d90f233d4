"""Connecting in many threads at once, which the libraries themselves do not survive."""

from __future__ import annotations

from functools import partial

import pytest
import trio

import triocoro
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(30)


async def test_many_connects_at_once(corosync: Node) -> None:
    """Without creation.c, the real libraries answer some of these with CS_ERR_BAD_HANDLE."""
    done: list[int] = []

    async def connect(number: int) -> None:
        for _ in range(10):
            async with triocoro.open_votequorum() as votequorum, triocoro.open_cpg() as cpg:
                assert (await votequorum.info()).nodeid == await cpg.local_nodeid() == corosync.nodeid
                assert await cpg.groups() == ()
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(partial(connect, number))
    assert len(done) == 12


@pytest.mark.usefixtures("corosync")
async def test_many_lists_at_once() -> None:
    async def ask() -> None:
        async with triocoro.open_cpg() as cpg:
            for _ in range(50):
                assert len(await cpg.groups()) == 1

    async with triocoro.open_group("g"), trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(ask)
