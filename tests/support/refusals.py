"""Calls that must be refused, on a group that goes on working."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import triocoro
from triocoro import (
    Group,
    Message,
)


async def refused(error: type[BaseException], words: str, call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(error, match=re.escape(words)):
        await call()


async def still_works(group: Group) -> None:
    message = await group.send_and_wait(b"still here")
    assert message == Message(group.address, b"still here")


async def opened(name: Any, **options: Any) -> None:
    async with triocoro.open_group(name, **options):
        pytest.fail("the group was opened")


async def ignore(_: object) -> None:
    pass
