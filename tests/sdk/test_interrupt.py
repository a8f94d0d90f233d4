"""Control-C, whatever a program waits for and however the daemon stands still; and the end of the interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
from support.load import Stopwatch
from support.public_calls import OPENERS
from support.refusals import ignore
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import lowlevel
from triocoro.lowlevel import Dispatch
from triocoro.testing import Node

GRACE = 0.2
SLACK = 0.5

Freeze = Callable[[], Awaitable[None]]
State = Callable[[Freeze], Awaitable[None]]


async def receive_for_ever(group: triocoro.Group) -> None:
    while True:
        await group.receive()


async def send_for_ever(group: triocoro.Group) -> None:
    while True:
        await group.send(b"x" * 100)


# What a program waits for in the block of each service.
WAITS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "group: receive": receive_for_ever,
    "group: send": send_for_ever,
    "group: send, fragmented": lambda group: group.send(bytes(3_000_000)),
    "group: send_and_wait": lambda group: group.send_and_wait(b"x"),
    "cpg: groups": lambda cpg: cpg.groups(),
    "votequorum: info": lambda votequorum: votequorum.info(),
    "votequorum: wait_quorate": lambda votequorum: votequorum.wait_quorate(),
    "quorum: is_quorate": lambda quorum: quorum.is_quorate(),
    "cmap: items": lambda cmap: cmap.items(),
    "cfg: ring_status": lambda cfg: cfg.ring_status(),
}


async def connecting(opener: Callable[[], Any], freeze: Freeze) -> None:
    await freeze()
    async with opener():
        pytest.fail("connected while the daemon was frozen")


async def in_block(opener: Callable[[], Any], wait: Callable[[Any], Awaitable[object]], freeze: Freeze) -> None:
    async with opener() as service:
        await freeze()
        await wait(service)
        await trio.sleep_forever()


async def tracking(opener: Callable[[], Any], track: Callable[[Any], Any], freeze: Freeze) -> None:
    async with opener() as service, track(service) as stream:
        await freeze()
        while True:
            await stream.receive()


async def ending(opener: Callable[[], Any], freeze: Freeze) -> None:
    async with opener():
        await freeze()


async def ending_tracking(opener: Callable[[], Any], track: Callable[[Any], Any], freeze: Freeze) -> None:
    async with opener() as service, track(service):
        await freeze()


async def dispatching(freeze: Freeze) -> None:
    handle = await lowlevel.cpg_initialize(confchg=ignore)
    try:
        await freeze()
        await handle.dispatch(Dispatch.BLOCKING)
    finally:
        await handle.finalize()


async def finalizing(freeze: Freeze) -> None:
    handle = await lowlevel.cpg_initialize()
    await freeze()
    await handle.finalize()


async def sharing_a_buffer(freeze: Freeze) -> None:
    handle = await lowlevel.cpg_initialize()
    try:
        async with handle.zcb_alloc(100):
            await freeze()
    finally:
        await handle.finalize()


STATES: dict[str, State] = {
    **{f"{name}: connecting": partial(connecting, opener) for name, opener in OPENERS.items()},
    **{name: partial(in_block, OPENERS[name.partition(":")[0]], wait) for name, wait in WAITS.items()},
    **{f"{name}: ending": partial(ending, opener) for name, opener in OPENERS.items()},
    "votequorum: tracking": partial(tracking, triocoro.open_votequorum, lambda votequorum: votequorum.track()),
    "quorum: tracking": partial(tracking, triocoro.open_quorum, lambda quorum: quorum.track()),
    "cmap: tracking": partial(tracking, triocoro.open_cmap, lambda cmap: cmap.track("a.key")),
    "cfg: tracking": partial(tracking, triocoro.open_cfg, lambda cfg: cfg.track_shutdown()),
    "cmap: ending, tracking": partial(ending_tracking, triocoro.open_cmap, lambda cmap: cmap.track("a.key")),
    "cfg: ending, tracking": partial(ending_tracking, triocoro.open_cfg, lambda cfg: cfg.track_shutdown()),
    "lowlevel: dispatching": dispatching,
    "lowlevel: finalizing": finalizing,
    "lowlevel: freeing a buffer": sharing_a_buffer,
}


def test_control_c_ends_everything_within_the_grace(
    corosync: Node, monkeypatch: pytest.MonkeyPatch, figure: Any
) -> None:
    """One interrupt ends the run, wherever it arrives. (The grace is shorter than usual, to save time.)"""
    monkeypatch.setattr("triocoro._requests.GRACE", GRACE)
    slowest: tuple[float, str] = 0.0, ""
    for name, state in STATES.items():
        try:
            watch = interrupted(corosync, state)
        finally:
            trio.run(corosync.thaw)
        slowest = max(slowest, (watch.seconds, name))
        assert watch.seconds < GRACE + SLACK, name
    figure("Control-C with a frozen daemon: slowest", f"{slowest[0]:.2f} s, {slowest[1]}")

    async def groups() -> object:
        async with triocoro.open_cpg() as cpg:
            while found := await cpg.groups():
                del found
                await trio.sleep(0.01)
        return ()

    assert trio.run(groups) == ()


def interrupted(node: Node, state: State) -> Stopwatch:
    """Interrupt a run once all its tasks wait in that state; a stopwatch that was started then."""
    watches: list[Stopwatch] = []

    async def main() -> None:
        frozen = trio.Event()

        async def freeze() -> None:
            await node.freeze()
            frozen.set()

        async def interrupt() -> None:
            await frozen.wait()
            await wait_all_tasks_blocked()
            watches.append(Stopwatch())
            signal.raise_signal(signal.SIGINT)

        trio.lowlevel.spawn_system_task(interrupt)
        with trio.fail_after(20):
            await state(freeze)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    return watches[0]


_EXITING = """
import sys, time, trio, triocoro
from triocoro.testing import NetnsCluster

async def hang(call):
    await call()

async def main(node):
    async with (
        triocoro.open_group("g") as group,
        triocoro.open_cmap() as cmap,
        cmap.track("a.key"),
        triocoro.open_votequorum() as votequorum,
        trio.open_nursery() as nursery,
    ):
        await node.freeze()
        for call in (lambda: group.send(bytes(3_000_000)), cmap.items, votequorum.info, triocoro.open_cfg().__aenter__):
            nursery.start_soon(hang, call)
        await trio.sleep(0.2)
        nursery.cancel_scope.cancel()

with NetnsCluster(nodes=1) as cluster:
    cluster.keep()
    print(cluster.how_to_enter.split()[-1], flush=True)
    with cluster[1].as_default():
        trio.run(main, cluster[1])
print("ends", flush=True)
"""


@pytest.mark.corosync_real_only(reason="a fake has no worker threads")
def test_the_interpreter_ends_although_threads_wait_for_a_frozen_daemon(figure: Any) -> None:
    program = subprocess.Popen([sys.executable, "-c", _EXITING], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    supervisor = int(program.stdout.readline())
    try:
        assert program.stdout.readline() == "ends\n"
        began = time.monotonic()
        assert program.wait(20) == 0
        took = time.monotonic() - began
    finally:
        os.kill(supervisor, signal.SIGKILL)
        program.kill()
        program.stdout.close()
    figure("interpreter exit with a frozen daemon", f"{took:.2f} s")
    assert took < 2
