"""A headless Chromium, driven through the pipe that its option --remote-debugging-pipe opens."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import trio

_COMMANDS, _EVENTS = 3, 4
"""The fds on which Chromium reads and writes."""


@final
class Page:
    """A page in the browser."""

    def __init__(self, commands: trio.abc.SendStream, events: trio.abc.ReceiveStream) -> None:
        self._commands = commands
        self._events = events
        self._received = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None

    async def call(self, method: str, **parameters: object) -> Any:
        """Call a method of the DevTools protocol. Its events are dropped."""
        number = next(self._numbers)
        session = {} if self._session is None else {"sessionId": self._session}
        request = {"id": number, "method": method, "params": parameters, **session}
        await self._commands.send_all(json.dumps(request).encode() + b"\0")
        while True:  # noqa: ASYNC913 - a reply needs no wait if it has come with an earlier one
            while b"\0" not in self._received:
                self._received += await self._events.receive_some()
            text, _, self._received = self._received.partition(b"\0")
            reply = json.loads(text)
            if reply.get("id") == number:
                assert "error" not in reply, reply
                return reply["result"]

    async def open(self, url: str) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """The value of a script; of a promise, what comes of it."""
        reply = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    async def text(self) -> str:
        """The text that a user sees."""
        return str(await self.run("document.body?.innerText ?? ''"))

    async def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def mouse(self, kind: str, x: float, y: float, **more: object) -> None:
        """Move or press the mouse at a place in the window."""
        await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    async def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the window another size, and a dark or a light theme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def until_text(self, *words: str) -> None:
        with trio.fail_after(30):  # noqa: ASYNC912 - it may be there already
            while True:
                text = await self.text()
                if all(word in text for word in words):
                    return
                await trio.sleep(0.02)  # the page announces nothing

    async def screenshot(self, path: Path) -> None:
        reply = await self.call("Page.captureScreenshot", format=path.suffix[1:])
        await trio.Path(path).write_bytes(base64.b64decode(reply["data"]))


@asynccontextmanager
async def open_page(program: str, url: str, folder: Path) -> AsyncGenerator[Page, None]:
    """Start a browser with a profile of its own in `folder`, and open a page."""
    ours_to_write, theirs_to_read = _pipe()
    theirs_to_write, ours_to_read = _pipe()
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=900,700",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder}",
    ]
    # The shell puts the ends of the pipes where Chromium expects them. (dash cannot: its fds have one digit.)
    script = f'exec "$@" {_COMMANDS}<&{theirs_to_read} {_EVENTS}>&{theirs_to_write}'
    command = ["bash", "-c", script, "bash", program, "--remote-debugging-pipe", *options]
    process = await trio.lowlevel.open_process(
        command, pass_fds=[theirs_to_read, theirs_to_write], stderr=subprocess.DEVNULL
    )
    os.close(theirs_to_read)
    os.close(theirs_to_write)
    try:
        async with trio.lowlevel.FdStream(ours_to_write) as commands, trio.lowlevel.FdStream(ours_to_read) as events:
            page = Page(commands, events)
            await page.open(url)
            yield page
            await page.call("Target.getTargets")
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


def _pipe() -> tuple[int, int]:
    """The writing end and the reading end of a pipe."""
    reader, writer = os.pipe()
    return writer, reader
