"""CPG handles of lowlevel in tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

Record = list[Any]


def into(record: Record) -> Callable[[object], Awaitable[None]]:
    """A callback that notes what it was called with."""

    async def note(event: object) -> None:
        record.append(event)

    return note
