"""Clients that go on whatever happens to their connection, and watch quorum or votes; `chaos` uses them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeAlias

import trio

import triocoro
from triocoro.testing import RecordingEndpoint

Pace: TypeAlias = "Callable[[], float]"
"""Says for how many seconds to do nothing but listen before the next question."""

_GOES_WRONG = (
    triocoro.ConnectionLostError,
    triocoro.CorosyncUnavailableError,
    triocoro.ExistError,
    triocoro.MessageLostError,  # of a fake that is broken on purpose: who reads the history will complain
)


async def again(client: Callable[[], Awaitable[None]]) -> None:  # noqa: ASYNC910 - until cancelled
    """Be that client, whatever happens to its connection."""
    while True:
        try:
            await client()
        except _GOES_WRONG:
            await trio.sleep(0.01)


async def votes(endpoint: RecordingEndpoint, pace: Pace) -> None:
    """Watch the votes."""
    async with triocoro.open_votequorum(endpoint=endpoint) as votequorum, votequorum.track() as changes:
        await _watch(changes, votequorum.info, pace)


async def quorum(endpoint: RecordingEndpoint, pace: Pace) -> None:
    """Watch whether there is quorum."""
    async with triocoro.open_quorum(endpoint=endpoint) as quorum, quorum.track() as changes:
        await _watch(changes, quorum.is_quorate, pace)


async def _watch(changes: AsyncIterable[object], ask: Callable[[], Awaitable[object]], pace: Pace) -> None:
    while True:
        with trio.move_on_after(pace()):
            async for _ in changes:
                pass
        await ask()
