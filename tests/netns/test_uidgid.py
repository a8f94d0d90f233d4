"""Users that Corosync admits: docs/howto/permissions.md."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import triocoro
from triocoro.testing import NetnsCluster, Node
from triocoro.testing._netns.cluster import _CONF

pytestmark = [
    pytest.mark.corosync_real_only(reason="the fake does not look at users"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

USER = "54321"
"""The id of an ordinary user; it need not have a name."""


def in_node(node: Node, *command: str) -> int:
    """The exit status of a command in the namespaces of a node."""
    enter = ("nsenter", f"--target={node.pid}", "--net", "--mount", "--")
    return subprocess.run([*enter, *command], capture_output=True, check=False, timeout=30).returncode


def may_connect(node: Node, user: str, group: str) -> bool:
    """Whether an ordinary user may; the group is its primary one."""
    identity = (f"--reuid={user}", f"--regid={group}", f"--groups={USER}")
    return in_node(node, "setpriv", *identity, "corosync-cpgtool") == 0


@pytest.mark.usefixtures("corosync_mode")
async def test_a_file_admits_a_user_from_the_next_reload_on() -> None:
    folder = Path(_CONF).parent / "uidgid.d"
    async with NetnsCluster(nodes=1) as cluster, triocoro.open_cfg(endpoint=cluster[1]) as cfg:
        assert not may_connect(cluster[1], USER, USER)
        write = f"mkdir -p {folder} && echo 'uidgid {{\n uid: {USER}\n}}' > {folder}/myapp"
        assert in_node(cluster[1], "sh", "-c", write) == 0
        assert not may_connect(cluster[1], USER, USER)
        await cfg.reload_config()
        assert may_connect(cluster[1], USER, USER)
        assert in_node(cluster[1], "rm", f"{folder}/myapp") == 0
        await cfg.reload_config()
        assert not may_connect(cluster[1], USER, USER)


@pytest.mark.usefixtures("corosync_mode")
async def test_only_the_primary_group_counts() -> None:
    async with NetnsCluster(nodes=1, extra={"uidgid": [f"gid: {USER}"]}) as cluster:
        assert may_connect(cluster[1], "54322", USER)
        assert not may_connect(cluster[1], "54322", "54322")
