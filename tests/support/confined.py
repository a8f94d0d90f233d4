"""Limits of a process: in this one for a moment, or in a child process that connects to a node of a real cluster."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from support.traces import names_in
from triocoro.testing import Node
from triocoro.testing._netns.node import NetnsNode

ANOTHER_UID = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""What to put before a command so that it runs as an ordinary user, but in a user namespace of its own."""

only_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user whom the daemon sees as one"
)

_PRELUDE = """
import os, resource, socket, sys, threading
import trio, triocoro, triocoro.lowlevel
from support.confined import descriptors_left
from triocoro._corosync import CorosyncEndpoint

_pidfd = os.pidfd_open(int(sys.argv[1]))
endpoint = CorosyncEndpoint("node 1", lambda: _pidfd)
"""


@contextmanager
def descriptors_left(count: int) -> Generator[None, None, None]:
    """Within the block, this process can open so many file descriptors and no more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(2)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, names_in("/proc/self/fd"))) + count + 2, limits[1]))
    try:
        try:
            while True:
                held.append(os.dup(2))
        except OSError:
            pass
        for _ in range(count):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in held:
            os.close(fd)


def as_user(uid: int) -> list[str]:
    """What to put before a command so that it runs as an ordinary user, who may read what root may: our own files."""
    reading = [f"--{kind}-caps=+dac_read_search" for kind in ("inh", "ambient")]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *reading, "--"]


def where_limited(setting: str, limit: int) -> list[str]:
    """What to put before a command so that it runs as an ordinary user in a user namespace with a limit of its own."""
    forbid = f'echo {limit} > /proc/sys/{setting.replace(".", "/")} && exec setpriv --inh-caps=-all "$@"'
    return [*ANOTHER_UID, "--keep-caps", "--", "sh", "-c", forbid, "sh"]


async def in_child(node: Node, script: str) -> str:
    """Run a script in which `endpoint` leads to the node; returns what it prints."""
    assert isinstance(node, NetnsNode)
    command = [sys.executable, "-c", _PRELUDE + script, str(node.namespace_pid)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = await trio.run_process(command, env=env, capture_stdout=True, capture_stderr=True, check=False)
    assert result.returncode == 0, (result.returncode, result.stdout.decode(), result.stderr.decode())
    return str(result.stdout.decode().strip())
