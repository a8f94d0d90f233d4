"""Connections and clusters in the wrong run: one after another, two at once, and none of Trio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
import trio
from support.public_calls import verbs_of
from support.refusals import ignore, still_works
from support.threads import reached, run_in_threads

import triocoro
from triocoro import Group, Message, lowlevel
from triocoro.lowlevel import Dispatch
from triocoro.testing import Cluster, ClusterOptions, FakeCluster, NetnsCluster, Node, seeded_run

pytestmark = pytest.mark.deadline(60)


# -- one run after another ---------------------------------------------------------------------------------------------


def test_a_handle_is_used_in_one_run_after_another(corosync: Node) -> None:
    messages: list[Message] = []

    async def deliver(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        messages.append(message)

    async def initialize() -> lowlevel.CpgHandle:
        return await lowlevel.cpg_initialize(deliver=deliver, endpoint=corosync.endpoint)

    async def send() -> None:
        await handle.mcast_joined(b"x")
        while len(messages) < 1:
            await handle.dispatch(Dispatch.ONE)

    async def finalize() -> None:
        with trio.fail_after(5):
            await handle.finalize()
        with pytest.raises(trio.ClosedResourceError):
            await handle.local_get()

    handle = trio.run(initialize)
    trio.run(handle.join, "g")
    trio.run(send)
    assert [message.payload for message in messages] == [b"x"]
    trio.run(finalize)


def test_a_handle_whose_last_run_has_left_a_request_to_a_frozen_daemon(corosync: Node) -> None:
    async def ask() -> lowlevel.CpgHandle:
        handle = await lowlevel.cpg_initialize(endpoint=corosync.endpoint)
        await corosync.freeze()
        with trio.move_on_after(0.01):
            await handle.local_get()
        return handle

    async def go_on() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.local_get)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await corosync.thaw()
        await handle.finalize()

    handle = trio.run(ask)
    trio.run(go_on)


def test_a_group_that_was_kept_is_closed(corosync: Node) -> None:
    async def keep() -> Group:
        async with triocoro.open_group("g", endpoint=corosync.endpoint) as group:
            return group

    group = trio.run(keep)

    async def use() -> None:
        for call in (lambda: group.send(b"x"), group.receive, lambda: group.send_and_wait(b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await call()
        await group.aclose()

    trio.run(use)


def test_a_cluster_entered_in_one_run_is_used_in_the_next(corosync_cluster: Cluster) -> None:
    async def member() -> None:
        async with triocoro.open_group("g", endpoint=corosync_cluster[1].endpoint) as group:
            await still_works(group)

    for _ in range(2):
        trio.run(corosync_cluster.heal)
        trio.run(corosync_cluster[3].start)
        trio.run(member)
        trio.run(corosync_cluster.settled)


# -- two at once -------------------------------------------------------------------------------------------------------


def test_a_connection_of_another_run_says_so(corosync: Node) -> None:
    opened, tried = threading.Event(), threading.Event()
    groups: list[Group] = []
    handles: list[lowlevel.CpgHandle] = []
    cmaps: list[triocoro.Cmap] = []

    async def own() -> None:
        handles.append(await lowlevel.cpg_initialize(confchg=ignore, endpoint=corosync.endpoint))
        async with (
            triocoro.open_group("g", endpoint=corosync.endpoint) as group,
            triocoro.open_cmap(endpoint=corosync.endpoint) as cmap,
        ):
            groups.append(group)
            cmaps.append(cmap)
            opened.set()
            await reached(tried)
            await still_works(group)
            assert await group.receive() == group.view
        await handles[0].join("h")
        await handles[0].finalize()

    async def borrow() -> None:
        await reached(opened)
        (group,), (handle,), (cmap,) = groups, handles, cmaps
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: group.send(b"x"),
            lambda: group.send(bytes(2**21)),
            lambda: group.send_batch([b"x"]),
            lambda: group.send_and_wait(b"x"),
            group.receive,
            group.receive_batch,
            group.aclose,
            lambda: cmap.get("totem.version"),
            lambda: cmap.track("key").__aenter__(),
            handle.local_get,
            lambda: handle.join("h"),
            lambda: handle.mcast_joined(b"x"),
            handle.finalize,
            *(lambda kind=kind: handle.dispatch(kind) for kind in Dispatch),
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match=f"to {corosync.endpoint.label} belongs to another Trio run"):
                await call()
        tried.set()

    run_in_threads(own, borrow)


# -- none of Trio ------------------------------------------------------------------------------------------------------


def test_under_asyncio_each_entry_says_that_it_needs_trio(corosync_cluster: Cluster, corosync_mode: str) -> None:
    cluster = corosync_cluster
    endpoint = cluster[1].endpoint
    another = (NetnsCluster if corosync_mode == "real" else FakeCluster)(options=ClusterOptions(nodes=1))
    entries: dict[str, Callable[[], Awaitable[object]]] = {
        "open_group": lambda: triocoro.open_group("g", endpoint=endpoint).__aenter__(),
        "open_cpg": lambda: triocoro.open_cpg(endpoint=endpoint).__aenter__(),
        "open_votequorum": lambda: triocoro.open_votequorum(endpoint=endpoint).__aenter__(),
        "open_quorum": lambda: triocoro.open_quorum(endpoint=endpoint).__aenter__(),
        "open_cmap": lambda: triocoro.open_cmap(endpoint=endpoint).__aenter__(),
        "open_cfg": lambda: triocoro.open_cfg(endpoint=endpoint).__aenter__(),
        "cpg_initialize": lambda: lowlevel.cpg_initialize(endpoint=endpoint),
        "votequorum_initialize": lambda: lowlevel.votequorum_initialize(endpoint=endpoint),
        "quorum_initialize": lambda: lowlevel.quorum_initialize(endpoint=endpoint),
        "cmap_initialize": lambda: lowlevel.cmap_initialize(endpoint=endpoint),
        "cfg_initialize": lambda: lowlevel.cfg_initialize(endpoint=endpoint),
        "sessions": lambda: anext(triocoro.sessions("g", endpoint=endpoint)),
        "cluster": another.__aenter__,
        "add_node": cluster.add_node,
        "remove_node": lambda: cluster.remove_node(3),
        **verbs_of(cluster),
    }

    async def try_all() -> dict[str, str]:
        said: dict[str, str] = {}
        for name, entry in entries.items():
            with pytest.raises(RuntimeError) as caught:
                await entry()
            said[name] = str(caught.value)
        return said

    said = asyncio.run(try_all())
    (sentence,) = set(said.values())
    for words in ("triocoro needs Trio", "trio.run", "start_guest_run", "anyio"):
        assert words in sentence
    assert cluster.reachable(1) == {1, 2, 3}


def test_a_seeded_run_inside_asyncio_is_a_run_of_trio() -> None:
    async def program() -> float:
        await trio.sleep(1)
        return trio.current_time()

    async def host() -> float:
        return seeded_run(program, seed=1)  # it blocks the other loop meanwhile

    assert asyncio.run(host()) == 1
