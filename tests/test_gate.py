"""Connecting in many threads at once, which the libraries themselves do not survive."""

from __future__ import annotations

import os
import threading
from functools import partial

import pytest
import trio

import triocoro
from triocoro._corosync._gate import Gate
from triocoro.testing import Node


def test_calls_go_through_one_after_another() -> None:
    gate = Gate()
    inside = 0
    most = 0

    def call() -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        os.sched_yield()  # lets another thread in, if it can come in
        inside -= 1

    threads = [threading.Thread(target=lambda: [gate.alone(call) for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_call_that_hangs_does_not_hold_up_the_others() -> None:
    gate = Gate()
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        release.wait()

    thread = threading.Thread(target=gate.alone, args=(hang,))
    thread.start()
    try:
        assert entered.wait(5)
        assert gate.alone(lambda: "through") == "through"
    finally:
        release.set()
        thread.join()
    assert gate.alone(lambda: "after") == "after"


async def test_many_connects_at_once(corosync: Node) -> None:
    """Without the gate, the real libraries answer some of these with CS_ERR_BAD_HANDLE."""
    done: list[int] = []

    async def connect(number: int) -> None:
        for _ in range(10):
            async with triocoro.open_votequorum() as votequorum, triocoro.open_cpg() as cpg:
                assert (await votequorum.info()).nodeid == await cpg.local_nodeid() == corosync.nodeid
                assert await cpg.groups() == ()
        done.append(number)

    with trio.fail_after(30):
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

    with trio.fail_after(30):
        async with triocoro.open_group("g"), trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(ask)
