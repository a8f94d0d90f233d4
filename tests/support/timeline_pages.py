"""Pages of histories, and histories for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from random import Random
from typing import Any

import trio
from replicated_store import NoQuorumError, Store

import triocoro
from triocoro.recipes import SafeGroup, open_safe_group
from triocoro.recipes._frames import Ack, AskEntries, AskSnapshot, Data, Entries, Frame, Offer, Part, decode
from triocoro.recipes._log import Kind
from triocoro.recipes._member import Member
from triocoro.recipes._states import State
from triocoro.testing import Cluster, FakeCluster, History


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


async def record_a_lost_write(seed: int) -> History:
    """The store of examples/replicated_store.py acknowledges a write while its node is being cut off, and loses it."""
    history = History()

    async def set_(nodeid: int, key: str, value: str) -> None:
        with history.operation("set", key, value, client=f"user {nodeid}", node=nodeid, refused=NoQuorumError):
            await stores[nodeid].set(key, value)

    async with FakeCluster(nodes=3, latency=0.01, jitter=0.009, seed=seed) as cluster, trio.open_nursery() as nursery:
        cluster.record(history)
        stores: dict[int, Store] = {}
        for nodeid, node in cluster.nodes.items():
            with node.as_default():
                stores[nodeid] = Store("settings")
                await nursery.start(stores[nodeid].run)
        await set_(1, "colour", "blue")
        nursery.start_soon(set_, 3, "colour", "red")
        await trio.sleep(0.01)
        await cluster.partition({3}, {1, 2})
        await trio.sleep(0.1)
        await set_(2, "shape", "round")
        await cluster.heal()
        await trio.sleep(0.1)
        with history.operation("get", "colour", client="user 1", node=1) as operation:
            operation.result = stores[1].data["colour"]
        nursery.cancel_scope.cancel()
    return history


@property  # type: ignore[misc]
def primary_of_the_first_version(self: Member[Any]) -> bool:
    """`Member.primary` did not ask whether the log gives the vote of our node to a member that is there."""
    return self.agreement.state is State.PRIMARY and self.agreement.obstacle() is None


async def record_a_rolling_restart() -> History:
    """Members of a safe group restart one after the other: each once the one before it says that it is primary."""
    history = History()
    groups: dict[int, SafeGroup] = {}
    scopes: dict[int, trio.CancelScope] = {}

    async def program(cluster: Cluster, nodeid: int, life: str) -> None:
        with trio.CancelScope() as scopes[nodeid]:
            async with open_safe_group("log", endpoint=cluster[nodeid]) as group:
                with history.operation("wait_primary", client=f"{life} program {nodeid}", node=nodeid):
                    await group.wait_primary()
                groups[nodeid] = group
                await trio.sleep_forever()

    async with FakeCluster(nodes=3, latency=0.01, jitter=0.009, seed=1) as cluster, trio.open_nursery() as nursery:
        cluster.record(history)
        for nodeid in cluster.nodes:
            nursery.start_soon(program, cluster, nodeid, "first")
        await until(lambda: len(groups) == len(cluster.nodes))
        with history.operation("send", "a message", client="first program 1", node=1) as operation:
            operation.result = (await groups[1].send(b"a message")).index
        await trio.sleep(0.1)
        for nodeid in (1, 2):
            history.note(f"the program on node {nodeid} restarts")
            scopes[nodeid].cancel()
            await trio.sleep(0.05)
            del groups[nodeid]
            nursery.start_soon(program, cluster, nodeid, "second")
            with trio.move_on_after(0.5):
                await until(lambda nodeid=nodeid: nodeid in groups)  # type: ignore[misc]
        history.note(str(groups[3].status().obstacle))
        nursery.cancel_scope.cancel()
    return in_words(history)


def in_words(history: History) -> History:
    """The same with the frames of recipes in words."""

    def told(fields: dict[str, Any]) -> dict[str, Any]:
        if fields.get("class") == "bytes" and fields["value"].startswith("tcsg"):
            fields["value"] = words_of(decode(fields["value"].encode("latin-1")))
        return fields

    lines = history.to_json_lines().splitlines()
    return History.from_json_lines("".join(f"{json.dumps(json.loads(line, object_hook=told))}\n" for line in lines))


def words_of(frame: Frame) -> str:
    match frame:
        case Offer():
            return f"offers {'no log' if frame.claim is None else frame.claim.length}"
        case Ack():
            return f"has {frame.length}"
        case Data():
            return "proposes a seat" if frame.kind is Kind.CONFIG else "proposes data"
        case AskEntries() | AskSnapshot():
            return "asks"
        case Entries() | Part():
            return "answers"
        case _:
            return type(frame).__name__


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - there is no event
        await trio.sleep(0.001)


async def record_a_long_history(seed: int, entries: int) -> History:
    """Five members send while nodes are partitioned, isolated, killed and frozen, until there are so many entries."""
    random = Random(seed)
    history = History()
    async with FakeCluster(nodes=5, latency=0.002, jitter=0.001, seed=seed) as cluster, trio.open_nursery() as nursery:
        cluster.record(history)
        for nodeid in cluster.nodes:
            nursery.start_soon(_member, cluster, nodeid, random)
        while len(history) < entries:
            await trio.sleep(random.uniform(0.5, 1))
            await _fault(cluster, random)
        nursery.cancel_scope.cancel()
    return history


async def _member(cluster: Cluster, nodeid: int, random: Random) -> None:
    async def talk(group: triocoro.Group) -> None:
        number = 0
        while True:
            number += 1
            await group.send(f"message {number} of node {nodeid}".encode())
            await trio.sleep(random.uniform(0.01, 0.1))

    async for session in triocoro.sessions(triocoro.open_group, "chat", endpoint=cluster[nodeid].endpoint):
        async with session as group, trio.open_nursery() as nursery:
            nursery.start_soon(talk, group)
            async for _ in group:
                pass


async def _fault(cluster: Cluster, random: Random) -> None:
    node = cluster[random.randint(1, 5)]
    match random.choice(["partition", "isolate", "kill", "freeze"]):
        case "partition":
            await cluster.partition({node.nodeid}, set(cluster.nodes) - {node.nodeid})
        case "isolate":
            await cluster.isolate(node.nodeid)
        case "kill":
            await node.kill()
        case _:
            await node.freeze()
    await trio.sleep(0.6)
    await cluster.heal()
    await node.thaw()
    await node.start()
