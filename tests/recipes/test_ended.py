"""What the calls of recipes do once the block that opened them has ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from support.machines import Map
from trio.testing import wait_all_tasks_blocked

from triocoro.recipes import open_leadership, open_lock, open_replica, open_safe_group
from triocoro.testing import Node

pytestmark = pytest.mark.deadline(15)

Opener = Callable[..., AbstractAsyncContextManager[Any]]
Call = Callable[[Any], Awaitable[object]]


async def enter(block: AbstractAsyncContextManager[Any]) -> None:
    async with block:
        pytest.fail("it began")


def open_map(name: str, **arguments: Any) -> AbstractAsyncContextManager[Any]:
    return open_replica(name, Map(), **arguments)


def never(_: Map) -> bool:
    return False


WAITING: dict[str, tuple[Opener, Call]] = {
    "SafeGroup.wait_primary": (open_safe_group, lambda it: it.wait_primary()),
    "SafeGroup.receive": (open_safe_group, lambda it: it.receive()),
    "Replica.wait": (open_map, lambda it: it.wait(never)),
    "Replica.ensure": (open_map, lambda it: it.ensure(b'["put", "x", 1]')),
    "Lock.hold": (open_lock, lambda it: enter(it.hold())),
    "Leadership.lead": (open_leadership, lambda it: enter(it.lead())),
}
"""What waits as long as there is no majority."""

OTHERS: dict[str, tuple[Opener, Call]] = {
    "SafeGroup.send": (open_safe_group, lambda it: it.send(b"x")),
    "SafeGroup.change_nodes": (open_safe_group, lambda it: it.change_nodes([1])),
    "Replica.execute": (open_map, lambda it: it.execute(b'["put", "x", 1]')),
    "Replica.read": (open_map, lambda it: it.read(never)),
}


@pytest.mark.parametrize("name", [*WAITING, *OTHERS])
async def test_a_call_after_the_end_says_so(corosync: Node, name: str) -> None:
    opener, call = {**WAITING, **OTHERS}[name]
    async with opener("g", endpoint=corosync) as it:
        pass
    with pytest.raises(trio.ClosedResourceError, match="has ended"):
        await call(it)


@pytest.mark.parametrize("name", WAITING)
async def test_a_task_that_waits_hears_of_the_end(corosync: Node, name: str) -> None:
    opener, call = WAITING[name]

    async def wait(it: Any) -> None:
        with pytest.raises(trio.ClosedResourceError, match="has ended"):
            await call(it)

    async with trio.open_nursery() as nursery, opener("g", nodes=[1, 2], endpoint=corosync) as it:
        nursery.start_soon(wait, it)  # noqa: ASYNC111 - it outlives the block
        await wait_all_tasks_blocked()


async def test_async_functions_are_refused(corosync: Node) -> None:
    async def function(_: Map) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    async with open_replica("g", Map(), endpoint=corosync) as replica:
        for call in (replica.wait, replica.read):
            with pytest.raises(TypeError, match="a function that is not async"):
                await call(function)  # type: ignore[arg-type]
