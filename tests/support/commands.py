"""Runs commands of `triocoro`: within the Trio run of a test, or as a process inside a node of a real cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from support.external_programs import inside
from triocoro._cli.commands import parse, perform
from triocoro._cli.job import Status
from triocoro._cli.output import Output
from triocoro.testing import Node

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "triocoro")


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
