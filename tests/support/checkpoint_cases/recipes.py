"""The recipes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

import trio

from triocoro.recipes import (
    Replica,
    Request,
    SafeGroup,
    bootstrap,
    open_calls,
    open_leadership,
    open_lock,
    open_replica,
    open_safe_group,
    shortest_lock_delay,
)
from triocoro.testing import Cluster

from . import Case, checked, entered_and_left, registrar

CASES: dict[str, Case] = {}
"""The cases, by the name of the function that each calls; a case may depend on those before it."""

case = registrar(CASES)


async def _echo(request: Request) -> bytes:
    await trio.lowlevel.checkpoint()
    return request.payload


@case("recipes.open_calls")
async def _(_: Cluster) -> None:
    await entered_and_left(open_calls("g"))
    await entered_and_left(open_calls("g", _echo))


@case("recipes.Calls.call")
async def _(_: Cluster) -> None:
    async with open_calls("g", _echo) as calls:
        for payload in (b"x", bytes(1_047_553)):
            call = calls.call(payload)
            await checked(call.__aenter__())
            await call.__aexit__(None, None, None)


@case("recipes.Calls.send")
async def _(_: Cluster) -> None:
    async with open_calls("g") as calls:
        await checked(calls.send(b"x"))
        await checked(calls.send(bytes(1_047_553)))


@case("recipes.Calls.receive")
async def _(_: Cluster) -> None:
    async with open_calls("g", receive=True) as calls:
        await checked(calls.receive())
        await calls.send(b"x")
        await checked(calls.receive())


@case("recipes.Calls.__anext__")
async def _(_: Cluster) -> None:
    async with open_calls("g", receive=True) as calls:
        await checked(anext(calls))


@case("recipes.Replies.receive")
async def _(_: Cluster) -> None:
    async with open_calls("g", _echo) as calls, calls.call(b"x") as replies:
        await checked(replies.receive())


@case("recipes.Replies.aclose")
async def _(_: Cluster) -> None:
    async with open_calls("g", _echo) as calls, calls.call(b"x") as replies:
        await checked(replies.aclose())
        await checked(replies.aclose())


class _Nothing:
    """A machine without a state."""

    def apply(self, command: bytes) -> bytes:
        return command

    def snapshot(self) -> Iterable[bytes]:
        return ()

    def restore(self, chunks: Iterable[bytes]) -> None:
        assert b"".join(chunks) == b""


@asynccontextmanager
async def _group() -> AsyncGenerator[SafeGroup]:
    async with open_safe_group("g", nodes=[1]) as group:
        await group.wait_primary()
        yield group


@asynccontextmanager
async def _replica() -> AsyncGenerator[Replica[_Nothing]]:
    async with open_replica("g", _Nothing(), nodes=[1]) as replica:
        await replica.wait_primary()
        yield replica


@case("recipes.open_safe_group")
async def _(_: Cluster) -> None:
    await entered_and_left(open_safe_group("g"))
    await entered_and_left(open_safe_group("g", nodes=[1]))


@case("recipes.SafeGroup.wait_primary")
async def _(_: Cluster) -> None:
    async with open_safe_group("g", nodes=[1]) as group:
        await checked(group.wait_primary())
        await checked(group.wait_primary())


@case("recipes.SafeGroup.send")
async def _(_: Cluster) -> None:
    async with _group() as group:
        await checked(group.send(b"x"))


@case("recipes.SafeGroup.receive")
async def _(_: Cluster) -> None:
    async with _group() as group:
        await group.send(b"x")
        await checked(group.receive())


@case("recipes.SafeGroup.__anext__")
async def _(_: Cluster) -> None:
    async with _group() as group:
        await group.send(b"x")
        await checked(anext(group))


@case("recipes.SafeGroup.change_nodes")
async def _(_: Cluster) -> None:
    async with _group() as group:
        await checked(group.change_nodes([1]))
        await checked(group.change_nodes({1: 2}))


@case("recipes.open_replica")
async def _(_: Cluster) -> None:
    await entered_and_left(open_replica("g", _Nothing()))


@case("recipes.Replica.wait_primary")
async def _(_: Cluster) -> None:
    async with open_replica("g", _Nothing(), nodes=[1]) as replica:
        await checked(replica.wait_primary())
        await checked(replica.wait_primary())


@case("recipes.Replica.wait")
async def _(_: Cluster) -> None:
    async with _replica() as replica:
        await checked(replica.wait(lambda _: True))


@case("recipes.Replica.execute")
async def _(_: Cluster) -> None:
    async with _replica() as replica:
        await checked(replica.execute(b"x"))
        await checked(replica.execute(b"x", id=b"1"))


@case("recipes.Replica.ensure")
async def _(_: Cluster) -> None:
    async with _replica() as replica:
        await checked(replica.ensure(b"x"))


@case("recipes.Replica.read")
async def _(_: Cluster) -> None:
    async with _replica() as replica:
        await checked(replica.read(lambda machine: machine))


@case("recipes.Replica.change_nodes")
async def _(_: Cluster) -> None:
    async with _replica() as replica:
        await checked(replica.change_nodes([1]))
        await checked(replica.change_nodes({1: 2}))


@case("recipes.bootstrap")
async def _(cluster: Cluster) -> None:
    # The votes of a node that is not there are needed to begin.
    async with open_safe_group("g", nodes={1: 2, 99: 1}) as group:
        if len(cluster.nodes) > 1:
            await checked(bootstrap("g", endpoint=cluster[2].endpoint))
            await group.wait_primary()


@case("recipes.shortest_lock_delay")
async def _(_: Cluster) -> None:
    await checked(shortest_lock_delay())


@case("recipes.open_lock")
async def _(_: Cluster) -> None:
    await entered_and_left(open_lock("g"))


@case("recipes.Lock.hold")
async def _(_: Cluster) -> None:
    async with open_lock("g", nodes=[1]) as lock:
        await entered_and_left(lock.hold())


@case("recipes.Lock.wait_primary")
async def _(_: Cluster) -> None:
    async with open_lock("g", nodes=[1]) as lock:
        await checked(lock.wait_primary())
        await checked(lock.wait_primary())


@case("recipes.Lock.change_nodes")
async def _(_: Cluster) -> None:
    async with open_lock("g", nodes=[1]) as lock:
        await lock.wait_primary()
        await checked(lock.change_nodes([1]))
        await checked(lock.change_nodes({1: 2}))


@case("recipes.open_leadership")
async def _(_: Cluster) -> None:
    await entered_and_left(open_leadership("g"))


@case("recipes.Leadership.lead")
async def _(_: Cluster) -> None:
    async with open_leadership("g", nodes=[1]) as leadership:
        await entered_and_left(leadership.lead())


@case("recipes.Leadership.wait_primary")
async def _(_: Cluster) -> None:
    async with open_leadership("g", nodes=[1]) as leadership:
        await checked(leadership.wait_primary())
        await checked(leadership.wait_primary())


@case("recipes.Leadership.change_nodes")
async def _(_: Cluster) -> None:
    async with open_leadership("g", nodes=[1]) as leadership:
        await leadership.wait_primary()
        await checked(leadership.change_nodes([1]))
        await checked(leadership.change_nodes({1: 2}))
