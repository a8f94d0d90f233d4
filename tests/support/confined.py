"""Python in a child process that connects to a node of a real cluster, and whose limits are its own."""

from __future__ import annotations

import sys

import trio

from triocoro.testing import Node
from triocoro.testing._netns.node import NetnsNode

_PRELUDE = """
import os, resource, sys, threading
import trio, triocoro
from triocoro._corosync import CorosyncEndpoint

_pidfd = os.pidfd_open(int(sys.argv[1]))
endpoint = CorosyncEndpoint("node 1", lambda: _pidfd)
"""


async def in_child(node: Node, script: str) -> str:
    """Run a script in which `endpoint` leads to the node; returns what it prints."""
    assert isinstance(node, NetnsNode)
    command = [sys.executable, "-c", _PRELUDE + script, str(node.namespace_pid)]
    result = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    assert result.returncode == 0, (result.returncode, result.stdout.decode(), result.stderr.decode())
    return str(result.stdout.decode().strip())
