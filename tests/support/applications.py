"""Applications of recipes: programs on nodes, which end and begin again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from triocoro import recipes
from triocoro.recipes import Delivery, SafeGroup

RecipeT = TypeVar("RecipeT")


class Application(Generic[RecipeT]):
    """A program that takes part in a recipe, until it ends.

    Args:
        recipe: what the block that opened the recipe was given.
        scope: of that block.
    """

    def __init__(self, recipe: RecipeT, scope: trio.CancelScope) -> None:
        self.recipe = recipe
        self._scope = scope
        self._ended = trio.Event()

    @classmethod
    async def begin(
        cls, nursery: trio.Nursery, opener: Callable[[], AbstractAsyncContextManager[RecipeT]]
    ) -> Application[RecipeT]:
        """Begin one, in a task of its own."""

        async def run(task_status: trio.TaskStatus[Application[RecipeT]]) -> None:
            with trio.CancelScope() as scope:
                async with opener() as recipe:
                    application = cls(recipe, scope)
                    task_status.started(application)
                    try:
                        await trio.sleep_forever()
                    finally:
                        application._ended.set()

        application: Application[RecipeT] = await nursery.start(run)
        return application

    async def end(self) -> None:
        """End it: it leaves the group."""
        self._scope.cancel()
        await self._ended.wait()
        await wait_all_tasks_blocked()


@asynccontextmanager
async def applications() -> AsyncGenerator[trio.Nursery, None]:
    """Run applications, and end those that are left."""
    async with trio.open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel()


async def poll(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110 - as said
        await trio.sleep(0.001)


async def payloads(group: SafeGroup, number: int) -> list[bytes]:
    """The next messages."""
    found: list[bytes] = []
    while len(found) < number:
        event = await group.receive()
        assert isinstance(event, Delivery), event
        found.append(event.payload)
    return found


async def send_until_committed(group: SafeGroup, payload: bytes) -> recipes.Commit:
    """Send a message, perhaps more than once, through the loss of the connection and the majority."""
    while True:
        await group.wait_primary()
        try:
            return await group.send(payload)
        except (recipes.NotPrimaryError, recipes.UncertainError):
            pass
