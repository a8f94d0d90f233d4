"""Runs commands of `triocoro`: within the Trio run of a test, or as a process inside a node of a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from support.external_programs import inside
from triocoro._cli.commands import parse, perform
from triocoro._cli.job import Status
from triocoro._cli.output import Output
from triocoro.testing import Node

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "triocoro")

_LIMIT: Final = 30.0
"""Seconds that a result may take."""


@attrs.frozen
class Result:
    """How a command ended, and what it has printed."""

    status: int
    stdout: str
    stderr: str

    @property
    def envelopes(self) -> list[dict[str, Any]]:
        """The lines of JSON on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def result(self) -> Any:
        """What the one envelope on stdout has as its result."""
        (envelope,) = self.envelopes
        return envelope["result"]


async def invoke(*arguments: str) -> Result:
    """Run a command within this Trio run. It connects to the default endpoint, as any application under test."""
    stdout: list[bytes] = []
    stderr: list[bytes] = []
    output = Output(stdout.append, stderr.append)
    job = parse(arguments, output=output)
    status = job if isinstance(job, Status) else await perform(job, output)
    return Result(status, b"".join(stdout).decode(), b"".join(stderr).decode())


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process, on this machine."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


async def run_inside(node: Node, *arguments: str, by: Sequence[str] = ()) -> Result:
    """Run a command as a process inside a node of a real cluster; `by` is what to put before it, such as unshare."""
    done = await trio.run_process(
        [*inside(node), *by, *COMMAND, *arguments], cwd=ROOT, capture_stdout=True, capture_stderr=True, check=False
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


class Following:
    """A command that runs on, and the JSON that it prints meanwhile."""

    def __init__(self, envelopes: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
        self._envelopes = envelopes

    async def until(self, **fields: object) -> dict[str, Any]:
        """Wait for the next result that has these fields among others, and return it."""
        (found,) = await self.until_each(fields)
        return found

    async def until_each(self, *wanted: dict[str, object]) -> list[dict[str, Any]]:
        """Wait until there is a result for each of these sets of fields, in whatever order, and return the results."""
        found: dict[int, dict[str, Any]] = {}
        with trio.fail_after(_LIMIT):
            async for envelope in self._envelopes:
                result: dict[str, Any] = envelope["result"]
                for number, fields in enumerate(wanted):
                    if number not in found and fields.items() <= result.items():
                        found[number] = result
                        break
                if len(found) == len(wanted):
                    return [found[number] for number in range(len(wanted))]
        raise AssertionError(f"it has ended, and of {wanted} there was only {found}")


@asynccontextmanager
async def following(*arguments: str) -> AsyncGenerator[Following, None]:
    """Run a command with --json beside the block, which sees its results, and cancel it at the end."""
    send, receive = trio.open_memory_channel[dict[str, Any]](inf)
    token = trio.lowlevel.current_trio_token()

    def write(data: bytes) -> None:
        # Called in a worker thread.
        trio.from_thread.run_sync(send.send_nowait, json.loads(data), trio_token=token)

    output = Output(write, write)
    job = parse([*arguments, "--json"], output=output)
    assert not isinstance(job, Status)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(perform, job, output)
        yield Following(receive)
        nursery.cancel_scope.cancel()
