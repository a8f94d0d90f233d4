"""`triocoro groups`."""

from __future__ import annotations

import pytest
from support.commands import Result, invoke, run_inside

import triocoro
from triocoro.testing import Cluster

GARBLED = b"C\0\xff\\"


async def test_groups_with_their_members(corosync_cluster: Cluster) -> None:
    one, two = list(corosync_cluster.nodes.values())[:2]
    async with (
        triocoro.open_group("grüße", endpoint=one) as ours,
        triocoro.open_group("grüße", endpoint=two) as theirs,
        triocoro.open_group(GARBLED, endpoint=two) as other,
    ):
        while len(ours.view.members) < 2:
            await ours.receive()
        done = await invoke("groups")
        assert [line.split() for line in done.stdout.splitlines()] == [
            ["Group", "Members", "Node:", "pids"],
            [r"C\x00\xff\\", "1", f"{two.nodeid}:", f"{other.address.pid}"],
            ["grüße", "2", f"{one.nodeid}:", f"{ours.address.pid},", f"{two.nodeid}:", f"{theirs.address.pid}"],
        ]
        done = await invoke("groups", "--json")
        assert done.result["groups"] == [
            {
                "name": {"text": None, "base64": "QwD/XA=="},
                "members": [{"nodeid": two.nodeid, "pid": other.address.pid}],
            },
            {
                "name": {"text": "grüße", "base64": "Z3LDvMOfZQ=="},
                "members": [{"nodeid": each.nodeid, "pid": each.pid} for each in (ours.address, theirs.address)],
            },
        ]


@pytest.mark.usefixtures("corosync")
async def test_no_groups() -> None:
    assert await invoke("groups") == Result(0, "no process groups\n", "")
    assert (await invoke("groups", "--json")).result == {"groups": []}


async def test_a_daemon_that_does_not_run(corosync_cluster: Cluster) -> None:
    node = next(iter(corosync_cluster.nodes.values()))
    await node.stop()
    with node.as_default():
        done = await invoke("groups", "--json")
    assert done.status == 3
    (envelope,) = done.envelopes
    assert envelope["error"]["kind"] == "CorosyncUnavailableError"
    assert done.stderr == f"triocoro: {envelope['error']['message']}\n"
    assert "start it" in done.stderr


@pytest.mark.corosync_real_only(reason="a process of its own needs a real node")
async def test_as_a_process(corosync_cluster: Cluster) -> None:
    node = next(iter(corosync_cluster.nodes.values()))
    async with triocoro.open_group("chat", endpoint=node):
        done = await run_inside(node, "groups", "--json")
        assert [group["name"]["text"] for group in done.result["groups"]] == ["chat"]
