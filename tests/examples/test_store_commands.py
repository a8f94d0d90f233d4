"""The commands of examples/replicated_store.py; tests/downstream has the tests of the store itself."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from replicated_store import Store, obey
from support.screens import Screen

pytestmark = pytest.mark.deadline(30)


@pytest.mark.usefixtures("corosync")
async def test_commands() -> None:
    async def commands() -> AsyncIterator[str]:
        for line in ("set colour light blue\n", "get colour\n", "get size\n", "show\n", "\n"):
            await trio.lowlevel.checkpoint()
            yield line

    screen = Screen()
    async with trio.open_nursery() as nursery:
        store = Store("settings")
        await nursery.start(store.run)
        await obey(store, commands(), screen.show)
        nursery.cancel_scope.cancel()
    assert screen.lines == [
        "light blue",
        "None",
        "{'colour': 'light blue'} on nodes [1], writable",
        "commands: set KEY VALUE, get KEY, show",
    ]
