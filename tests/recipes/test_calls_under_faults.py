"""Calls under faults by chance: each ends, and its replies are what the members have done."""

from __future__ import annotations

from collections import Counter
from functools import partial

import attrs
import pytest
import trio

import triocoro
from triocoro.recipes import Answer, Calls, Failure, Reply, Request, Unknown, open_calls
from triocoro.testing import Cluster, Node, random_schedule

pytestmark = pytest.mark.deadline(120)


@attrs.define
class Log:
    """What the members have done, and what the callers were told. Requests are unique."""

    executed: Counter[tuple[bytes, bytes]] = attrs.field(factory=Counter[tuple[bytes, bytes]])
    """How often each life of a member has executed each request."""
    open: set[bytes] = attrs.field(factory=set[bytes])
    """The requests of calls that have not come to their end."""
    ended: dict[bytes, list[Reply]] = attrs.field(factory=dict[bytes, list[Reply]])
    """The replies to the others."""
    calls: dict[int, Calls] = attrs.field(factory=dict[int, Calls])
    """The latest life of each node."""
    over: bool = False
    """Whether members begin no more calls."""


async def live(node: Node, log: Log) -> None:
    """Be a member again and again, which calls all the time, and answers with the name of its life."""
    name = b""

    async def handle(request: Request) -> bytes:
        log.executed[name, request.payload] += 1
        await trio.sleep(0.01 * (sum(request.payload) % 3))
        if request.payload.endswith(b"7"):
            raise ValueError(name.decode())
        return name

    async for session in triocoro.sessions(open_calls, "g", handle, max_running=2, max_waiting=2, endpoint=node):
        name = f"{node.nodeid}.{session.epoch}".encode()
        async with session as calls, trio.open_nursery() as nursery:
            log.calls[node.nodeid] = calls
            number = 0
            while not log.over:
                number += 1
                nursery.start_soon(partial(call, calls, b"%b/%d" % (name, number), log))
                await trio.sleep(0.03)
            await trio.sleep_forever()


async def call(calls: Calls, payload: bytes, log: Log) -> None:
    log.open.add(payload)
    try:
        async with calls.call(payload) as replies:
            awaited = replies.awaited
            received = [reply async for reply in replies]
        members = [reply.member for reply in received]
        assert len(members) == len(set(members))
        assert awaited <= set(members)
        log.ended[payload] = received
    finally:
        log.open.remove(payload)


def check(log: Log) -> None:
    """Compare what was told with what was done."""
    assert set(log.executed.values()) <= {1}
    lives: dict[tuple[int, bytes], list[bytes]] = {}
    for name, payload in log.executed:
        lives.setdefault((int(name.partition(b".")[0]), payload), []).append(name)
    for payload, replies in log.ended.items():
        for reply in replies:
            names = lives.get((reply.member.nodeid, payload), [])
            if isinstance(reply, Answer):
                assert names == [reply.payload]
            elif isinstance(reply, Failure) and reply.text.startswith("ValueError"):
                assert [f"ValueError: {name.decode()}" for name in names] == [reply.text]
            elif isinstance(reply, Failure):
                assert reply.text.startswith("WouldBlock: busy")
                assert names == []


@pytest.mark.corosync_seeds(10, latency=0.004, jitter=0.004)
async def test_each_call_ends_and_its_replies_are_true(corosync_cluster: Cluster) -> None:
    log = Log()
    schedule = random_schedule(options=corosync_cluster.options, steps=12, seconds=3)
    async with trio.open_nursery() as nursery:
        for node in corosync_cluster.nodes.values():
            nursery.start_soon(live, node, log)
        async with corosync_cluster.nemesis(schedule) as over:
            await over.wait()
        await corosync_cluster.settled()
        await trio.sleep(2)  # sessions try again within a second
        log.over = True
        with trio.fail_after(10):  # noqa: ASYNC912 - there is at least one call
            while log.open:  # noqa: ASYNC110 - calls end in other tasks
                await trio.sleep(0.01)
            for calls in log.calls.values():
                async with calls.call(b"at last") as replies:
                    assert [Unknown(reply.member) async for reply in replies if isinstance(reply, Unknown)] == []
                    assert {member.nodeid for member in calls.view.members} == {1, 2, 3}
                log.executed = Counter({key: n for key, n in log.executed.items() if key[1] != b"at last"})
        nursery.cancel_scope.cancel()
    check(log)
    kinds = Counter(type(reply) for replies in log.ended.values() for reply in replies)
    assert kinds[Answer] > 100
