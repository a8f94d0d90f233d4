"""Programs that run inside a node of a real cluster, and know nothing of triocoro."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from triocoro.testing import Node
from triocoro.testing._netns.node import NetnsNode
from triocoro.testing._netns.requirements import find_program


def inside(node: Node) -> list[str]:
    """What to put before a command so that it runs in the namespaces of a real node."""
    assert isinstance(node, NetnsNode)
    return node.inside()


def program(name: str) -> str:
    """The path of one of Corosync's programs."""
    path = find_program(name)
    assert path is not None, f"{name} is not installed"
    return path


async def ask(node: Node, name: str, *arguments: str, statuses: tuple[int, ...] = (0,)) -> str:
    """What one of Corosync's programs prints, run on a node."""
    result = await trio.run_process(
        [*inside(node), program(name), *arguments], capture_stdout=True, capture_stderr=True, check=False
    )
    assert result.returncode in statuses, (result.returncode, result.stdout, result.stderr)
    return str(result.stdout.decode())


class Child:
    """A program that talks in lines, and ends when its stdin does."""

    def __init__(self, process: trio.Process) -> None:
        self.pid = process.pid
        self._process = process
        self._buffer = b""

    async def line(self) -> str:
        """The next line that it prints; `EOFError` if it has ended."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self._process.stdout.receive_some()
            if not data:
                raise EOFError("it has ended")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line.decode()

    async def send_line(self, line: str) -> None:
        """Write a line to its stdin."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(f"{line}\n".encode())

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    async def end(self) -> int:
        """End its stdin and wait; what it had to say is still there for `line`. Returns its exit status."""
        assert self._process.stdin is not None
        await self._process.stdin.aclose()
        return await self._process.wait()


@asynccontextmanager
async def running(node: Node, *command: str) -> AsyncGenerator[Child, None]:
    """Run a program on a node for the length of the block; killed at its end, if it still runs."""
    process = await trio.lowlevel.open_process([*inside(node), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Child(process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await stream.aclose()
