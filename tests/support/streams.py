"""Waiting for an event of a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

EventT = TypeVar("EventT")


async def until(changes: trio.abc.ReceiveChannel[EventT], test: Callable[[EventT], bool]) -> list[EventT]:
    """The events up to the one that passes the test."""
    events: list[EventT] = []
    async for event in changes:
        events.append(event)
        if test(event):
            break
    return events
