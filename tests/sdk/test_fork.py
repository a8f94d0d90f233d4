"""Connections in a forked child process."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import cast

import pytest
import trio
from support.forking import in_child, run_in_child
from support.refusals import ignore, still_works

import triocoro
from triocoro import (
    CmapTrack,
    Message,
    _workers,
    lowlevel,
)
from triocoro.lowlevel import Dispatch, IterationType, Track
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(20)


async def test_use_in_a_forked_child(corosync: Node) -> None:
    handle = await lowlevel.cpg_initialize(confchg=ignore)
    quorum_handle = await lowlevel.votequorum_initialize()
    cmap_handle = await lowlevel.cmap_initialize()
    async with (
        triocoro.open_group("g") as group,
        triocoro.open_cpg() as cpg,
        triocoro.open_votequorum() as votequorum,
        votequorum.track() as changes,
        triocoro.open_quorum() as quorum,
        triocoro.open_cmap() as cmap,
        cmap.track("forked.key") as cmap_changes,
        triocoro.open_cfg() as cfg,
        AsyncExitStack() as stack,
    ):
        end_of_buffer = handle.zcb_alloc(10)
        buffer = await stack.enter_async_context(end_of_buffer)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "send": lambda: group.send(b"x"),
            "send, in fragments": lambda: group.send(bytes(2**21)),
            "send_batch": lambda: group.send_batch([b"x"]),
            "send_and_wait": lambda: group.send_and_wait(b"x"),
            "receive": group.receive,
            "receive_batch": group.receive_batch,
            "aclose": group.aclose,
            "local_nodeid": cpg.local_nodeid,
            "members": lambda: cpg.members("g"),
            "groups": cpg.groups,
            "info": votequorum.info,
            "set_expected": lambda: votequorum.set_expected(1),
            "set_votes": lambda: votequorum.set_votes(1, 1),
            "wait_quorate": votequorum.wait_quorate,
            "stream.receive": changes.receive,
            "stream.aclose": changes.aclose,
            "join": lambda: handle.join("h"),
            "mcast_joined": lambda: handle.mcast_joined(b"x"),
            "membership_get": lambda: handle.membership_get("g"),
            "local_get": handle.local_get,
            "iteration": lambda: handle.iteration(IterationType.ALL),
            "finalize": handle.finalize,
            "getinfo": lambda: quorum_handle.getinfo(0),
            "setexpected": lambda: quorum_handle.setexpected(1),
            "setvotes": lambda: quorum_handle.setvotes(1, 1),
            "trackstart": lambda: quorum_handle.trackstart(Track.CHANGES),
            "trackstop": quorum_handle.trackstop,
            "votequorum finalize": quorum_handle.finalize,
            "is_quorate": quorum.is_quorate,
            "quorum.track": lambda: quorum.track().__aenter__(),
            "get": lambda: cmap.get("totem.token"),
            "set": lambda: cmap.set("forked.key", 1),
            "items": cmap.items,
            "cmap.track": lambda: cmap.track("forked.key").__aenter__(),
            "cmap stream.receive": cmap_changes.receive,
            "node_status": lambda: cfg.node_status(1),
            "try_shutdown": cfg.try_shutdown,
            "track_shutdown": lambda: cfg.track_shutdown().__aenter__(),
            "zcb_alloc": lambda: handle.zcb_alloc(10).__aenter__(),
            "zcb_mcast_joined": lambda: handle.zcb_mcast_joined(buffer),
            "end of zcb_alloc": lambda: end_of_buffer.__aexit__(None, None, None),
            "track_add": lambda: cmap_handle.track_add("forked.key", CmapTrack.ADD, ignore),
            "cmap finalize": cmap_handle.finalize,
            **{f"dispatch {kind.name}": partial(handle.dispatch, kind) for kind in Dispatch},
        }
        reads: dict[str, Callable[[], object]] = {
            "send_nowait": lambda: group.send_nowait(b"x"),
            "max_atomic_message_size": lambda: cpg.max_atomic_message_size,
            "fd": lambda: handle.fd,
            "flow_control_state_get": handle.flow_control_state_get,
            "max_atomic_msgsize_get": handle.max_atomic_msgsize_get,
        }

        async def try_all() -> dict[str, str]:
            found: dict[str, str] = {}
            for name, read in reads.items():
                try:
                    found[name] = f"returned {read()!r}"
                except Exception as exc:  # noqa: BLE001 - the parent judges
                    found[name] = f"{type(exc).__name__}: {exc}"
            for name, call in calls.items():
                try:
                    with trio.fail_after(1):
                        found[name] = f"returned {await call()!r}"
                except Exception as exc:  # noqa: BLE001 - the parent judges
                    found[name] = f"{type(exc).__name__}: {exc}"
            return found

        found = run_in_child(try_all)
        assert isinstance(found, dict)
        expected = (
            f"RuntimeError: this connection to {corosync.endpoint.label} was opened by process {os.getpid()} and cannot"
            " be used in its forked child"
        )
        wrong = {name: text for name, text in cast("dict[str, str]", found).items() if not text.startswith(expected)}
        assert wrong == {}
        assert len(cast("dict[str, str]", found)) == len(calls) + len(reads)

        # All that the parent has goes on, whatever the child did to its copies.
        assert await group.receive() == group.view
        await still_works(group)
        assert await group.receive() == Message(group.address, b"still here")
        assert await cpg.members("g") == (group.address,)
        assert (await votequorum.info()).nodeid == 1
        assert len(await changes.receive_batch()) == 2
        assert await quorum.is_quorate()
        await cmap.set("forked.key", 2)
        assert (await cmap_changes.receive()).new == 2
        assert await cfg.local_nodeid() == 1
        buffer[:] = b"0123456789"
        await handle.join("h")
        await handle.dispatch(Dispatch.ONE)
        await handle.mcast_joined(b"x")
        await quorum_handle.trackstart(Track.CHANGES)
        await handle.zcb_mcast_joined(buffer)
        await stack.aclose()
        await handle.finalize()
        await quorum_handle.finalize()
        await cmap_handle.finalize()


@pytest.mark.corosync_real_only(reason="what a forked child has of a fake is a copy of its own")
async def test_a_forked_child_can_open_its_own(corosync: Node) -> None:
    del corosync

    async def join() -> tuple[int, int, int]:
        async with triocoro.open_group("g") as group:
            return len(group.view.members), group.address.pid, os.getpid()

    async with triocoro.open_group("g") as group:
        members, address_pid, pid = cast("tuple[int, int, int]", await trio.to_thread.run_sync(run_in_child, join))
        assert members == 2
        assert address_pid == pid != os.getpid()
        await still_works(group)


def test_a_child_does_not_end_what_waits_for_a_thread_in_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a moment at the limit of threads: the child would finalize its parent's handles."""
    monkeypatch.setattr("triocoro._workers._start", _no_thread)

    async def main() -> None:
        _workers.in_background(int)
        assert len(_workers._waiting) == 1
        assert await trio.to_thread.run_sync(in_child, lambda: len(_workers._waiting)) == 0
        _workers._waiting.clear()

    trio.run(main)


def _no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")
