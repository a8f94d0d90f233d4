"""What an application shows, line by line, and waiting for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import trio


@final
class Screen:
    """Collects lines; pass `show` to the application."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = trio.Event()

    def show(self, line: object) -> None:
        self.lines.append(str(line))
        self.note()

    def note(self) -> None:
        """Wake those who wait, as something has changed."""
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(20):  # noqa: ASYNC912 - it may hold already
            while not condition():
                await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def shows(self, *lines: str) -> None:
        try:
            await self.until(lambda: set(lines) <= set(self.lines))
        except trio.TooSlowError:
            raise AssertionError(f"not shown: {set(lines) - set(self.lines)}; shown: {self.lines}") from None
