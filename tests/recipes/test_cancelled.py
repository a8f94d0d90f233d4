"""Each call of a recipe, and each block, is cancelled at each of its checkpoints in turn: what docstrings say holds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from itertools import count
from typing import Any

import pytest
import trio
from support.applications import poll
from support.machines import Map, command

from triocoro.recipes import (
    Calls,
    Commit,
    Delivery,
    NotPrimaryError,
    Replica,
    Request,
    SafeGroup,
    Token,
    bootstrap,
    open_calls,
    open_leadership,
    open_lock,
    open_replica,
    open_safe_group,
)
from triocoro.testing import FakeCluster

pytestmark = [
    pytest.mark.corosync_seeds(2),
    pytest.mark.corosync_fake_only(reason="in virtual time, a call has the same checkpoints each time"),
]

NODES = [1, 2, 3]


class _Steps(trio.abc.Instrument):
    """Cancels a scope after so many steps of the present task."""

    def __init__(self, scope: trio.CancelScope, most: int) -> None:
        self._task = trio.lowlevel.current_task()
        self._scope = scope
        self._left = most

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left < 0:
                self._scope.cancel()


@contextmanager
def cancelled_at(step: int) -> Generator[trio.CancelScope, None, None]:
    """Cancel the block at its checkpoint with this number, from 0 on, if it comes there."""
    with trio.CancelScope() as scope:  # noqa: ASYNC912 - for the caller's block
        if step == 0:
            scope.cancel()
        instrument = _Steps(scope, step - 1)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield scope
        finally:
            trio.lowlevel.remove_instrument(instrument)


async def at_each(call: Callable[[int], Awaitable[None]], after: Callable[[int], Awaitable[None]]) -> int:
    """Call it, cancelled at its first checkpoint, then at its second one and so on, until it returns.

    Args:
        call: gets the number of the attempt.
        after: is called after each one that was cancelled.

    Returns:
        the number of the attempt that was not cancelled.
    """
    for step in count():  # noqa: ASYNC912 - `after` waits
        with cancelled_at(step) as scope:
            await call(step)
            return step
        assert scope.cancelled_caught
        await after(step)
    raise AssertionError


async def nothing(_: int) -> None:
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def disturbed(cluster: FakeCluster) -> AsyncGenerator[None, None]:
    """Node 1 is cut off when the block begins, and not much later."""
    await cluster.isolate(1)
    await cluster.settled()
    async with trio.open_nursery() as nursery:

        async def heal() -> None:
            await trio.sleep(0.05)
            await cluster.heal()

        nursery.start_soon(heal)
        yield


async def a_group(stack: AsyncExitStack, cluster: FakeCluster) -> list[SafeGroup]:
    groups = [await stack.enter_async_context(open_safe_group("log", endpoint=it)) for it in cluster.nodes.values()]
    for group in groups:
        await group.wait_primary()
    return groups


async def replicas(stack: AsyncExitStack, cluster: FakeCluster) -> list[Replica[Map]]:
    found = [
        await stack.enter_async_context(open_replica("store", Map(), endpoint=it)) for it in cluster.nodes.values()
    ]
    for replica in found:
        await replica.wait_primary()
    return found


async def received(group: SafeGroup, last: bytes) -> list[tuple[bytes, Commit]]:
    """What it receives, up to a message."""
    found: list[tuple[bytes, Commit]] = []
    while not found or found[-1][0] != last:
        event = await group.receive()
        assert isinstance(event, Delivery)
        found.append((event.payload, event.commit))
    return found


async def test_send_and_receive(corosync_cluster: FakeCluster) -> None:
    """A message is committed once or not at all, and none is lost to a receiver."""
    async with AsyncExitStack() as stack:
        first, second, third = await a_group(stack, corosync_cluster)

        async def send(number: int) -> None:
            await first.send(b"%d" % number)

        sent = await at_each(send, nothing)
        await second.send(b"more")
        await second.send(b"last")
        log = await received(second, b"last")
        payloads = [payload for payload, _ in log]
        assert len(payloads) == len(set(payloads))
        assert b"%d" % sent in payloads
        taken: list[tuple[bytes, Commit]] = []

        async def receive(_: int) -> None:
            event = await third.receive()
            assert isinstance(event, Delivery)
            taken.append((event.payload, event.commit))

        await at_each(receive, nothing)
        assert taken + await received(third, b"last") == log


@pytest.mark.parametrize("call", ["execute", "ensure", "read"])
@pytest.mark.parametrize("calm", [True, False])
async def test_calls_of_a_replica(corosync_cluster: FakeCluster, call: str, calm: bool) -> None:  # noqa: FBT001 - pytest gives it
    """A command is applied once or not at all, also if a ring forms while it is under way."""
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)

        async def once(number: int) -> None:
            if call == "ensure":
                await first.ensure(command("put", f"{number}", number))
            else:
                await first.wait_primary()
                if call == "execute":
                    await first.execute(command("put", f"{number}", number))
                else:
                    await first.read(lambda machine: machine.values)

        async def again(number: int) -> None:
            if calm:
                await once(number)
            else:
                async with disturbed(corosync_cluster):
                    await once(number)

        done = await at_each(again, nothing)
        await corosync_cluster.heal()
        await first.ensure(command("put", "last", 1))
        await second.wait(lambda machine: "last" in machine.values)
        assert len(set(second.machine.applied)) == len(second.machine.applied)
        assert first.machine.applied == second.machine.applied
        if call != "read":
            assert second.machine.values[f"{done}"] == done


@pytest.mark.parametrize("opener", [open_lock, open_leadership], ids=["lock", "leadership"])
async def test_hold_and_lead(corosync_cluster: FakeCluster, opener: Callable[..., object]) -> None:
    """The lock is released: another one gets it without a delay, with a greater token."""
    async with (
        open_lock("lock", lock_delay=10, endpoint=corosync_cluster[1]) as lock,
        open_lock("lock", lock_delay=10, endpoint=corosync_cluster[2]) as other,
        open_leadership("lock", lock_delay=10, endpoint=corosync_cluster[3]) as leadership,
    ):
        for each in (lock, other, leadership):
            await each.wait_primary()
        tokens = [Token(0, 0)]

        async def hold(_: int) -> None:
            async with lock.hold() if opener is open_lock else leadership.lead() as held:
                tokens.append(held.token)
                await trio.lowlevel.checkpoint()
                held.check()

        async def another(_: int) -> None:
            with trio.fail_after(5):
                async with other.hold() as held:
                    tokens.append(held.token)

        assert await at_each(hold, another) > 3
        assert tokens == sorted(set(tokens))


async def test_change_nodes(corosync_cluster: FakeCluster) -> None:
    """The electorate is the old one or the new one, and the group goes on."""
    async with AsyncExitStack() as stack:
        first, second, _ = await a_group(stack, corosync_cluster)
        changes = [{1: 1, 2: 1, 3: 1}]

        async def change(number: int) -> None:
            changes.append({1: 3 + number, 2: 1, 3: 1})
            await first.change_nodes(changes[-1])

        async def goes_on(_: int) -> None:
            await second.send(b"x")
            assert second.status().nodes in changes

        assert await at_each(change, goes_on) > 1
        await poll(lambda: second.status().nodes == changes[-1])


def open_map(name: str, **arguments: Any) -> AbstractAsyncContextManager[Replica[Map]]:
    return open_replica(name, Map(), **arguments)


def open_caller(name: str, *, nodes: object, endpoint: Any) -> AbstractAsyncContextManager[Calls]:  # noqa: ARG001 - the others have it
    return open_calls(name, endpoint=endpoint)


OPENERS: dict[str, Callable[..., AbstractAsyncContextManager[Any]]] = {
    "safe group": open_safe_group,
    "replica": open_map,
    "lock": open_lock,
    "leadership": open_leadership,
    "calls": open_caller,
}


@pytest.mark.parametrize("kind", OPENERS)
async def test_blocks(corosync_cluster: FakeCluster, kind: str) -> None:
    """Whose opening, body or end is cancelled: it is no member any more, and the others go on."""
    async with OPENERS[kind]("g", nodes=[1], endpoint=corosync_cluster[1]) as first:

        async def open_and_end(_: int) -> None:
            async with OPENERS[kind]("g", nodes=[1], endpoint=corosync_cluster[2].client()) as it:
                if kind != "calls":
                    await it.wait_primary()

        async def is_gone(_: int) -> None:
            if kind == "calls":
                await poll(lambda: {it.nodeid for it in first.view.members} == {1})
            else:
                await poll(lambda: {it.address.nodeid for it in first.status().members} == {1})
                await first.change_nodes([1])

        assert await at_each(open_and_end, is_gone) > 5


async def test_call(corosync_cluster: FakeCluster) -> None:
    """The next one is answered by all."""

    async def answer(request: Request) -> bytes:
        await trio.lowlevel.checkpoint()
        return request.payload

    async with AsyncExitStack() as stack:
        first, *_ = [
            await stack.enter_async_context(open_calls("g", answer, endpoint=it))
            for it in corosync_cluster.nodes.values()
        ]

        async def call(number: int) -> None:
            async with first.call(b"%d" % number) as replies:
                assert [reply.payload async for reply in replies] == [b"%d" % number] * 3  # type: ignore[union-attr]

        assert await at_each(call, nothing) > 3


async def test_bootstrap(corosync_cluster: FakeCluster) -> None:
    """The members have done it or not; if not, another one does it."""
    async with open_safe_group("log", nodes=NODES, endpoint=corosync_cluster[1]) as survivor:
        async with AsyncExitStack() as stack:
            for nodeid in (2, 3):
                await stack.enter_async_context(open_safe_group("log", nodes=NODES, endpoint=corosync_cluster[nodeid]))
            await survivor.wait_primary()
            await survivor.send(b"before")
        async with open_safe_group("log", nodes=NODES, endpoint=corosync_cluster[2]) as fresh:
            await poll(lambda: "missing are the members" in (fresh.status().obstacle or ""))
            done = False

            async def operate(_: int) -> None:
                nonlocal done
                if not done:
                    await bootstrap("log", endpoint=corosync_cluster[3].client())

            async def look(_: int) -> None:
                nonlocal done
                with trio.move_on_after(1):
                    await fresh.wait_primary()
                    done = True
                if not done:
                    with pytest.raises(NotPrimaryError):
                        await fresh.send(b"never")

            assert await at_each(operate, look) > 3
            await fresh.wait_primary()
            await survivor.send(b"after")
            assert [payload for payload, _ in await received(survivor, b"after")] == [b"before", b"after"]
