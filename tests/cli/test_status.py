"""`triocoro status`: what it gathers, the screen, the JSON and the exit status."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any, cast

import attrs
import pytest
import trio
from support.commands import invoke, run, run_inside
from support.snapshots import SNAPSHOT, VOTES

import triocoro
from triocoro import Address, NodeState, VotequorumFlag
from triocoro._cli.output import Output
from triocoro._cli.snapshot import Snapshot, take_snapshot
from triocoro._cli.status import as_json, reason, screen
from triocoro.testing import Cluster, Node


def shown(snapshot: Snapshot, *, width: int = 80) -> str:
    output = Output(print, print, width=width)
    return output.render(screen(snapshot)).decode()


def test_the_screen() -> None:
    assert shown(SNAPSHOT) == (
        "shop, seen from node 1 (anna), ring 1.2c\n"
        "quorate: 2 of 3 expected votes are here, and 2 needed\n"
        "\n"
        "Node  Name  Votes  State       Links\n"
        "1     anna  1      member      this node\n"
        "2     bert  1      member      0 192.0.2.2 connected\n"
        "                               1 2001:db8::2 DOWN\n"
        "3                  never seen  0 192.0.2.3 disabled\n"
        "\n"
        "Group     Members  Node: pids\n"
        "chat\\x00  2        1: 4711, 2: 12\n"
        "grüße     1        2: 12\n"
    )


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_screen_is_wider_than_the_terminal(width: int) -> None:
    """And nothing is cut off: what does not fit goes on in the next line."""
    many = {b"z" * 127: [Address(nodeid, 4_000_000) for nodeid in range(1, 60)]}
    text = shown(attrs.evolve(SNAPSHOT, groups=many), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("4000000") == 59
    assert text.count("z") == 127


@pytest.mark.parametrize(
    "snapshot,why",
    [
        (SNAPSHOT, "2 of 3 expected votes are here, and 2 needed"),
        (
            attrs.evolve(SNAPSHOT, quorate=False, votes=attrs.evolve(VOTES, total_votes=1, flags=VotequorumFlag(0))),
            "1 of 3 expected votes are here, and 2 needed",
        ),
        (
            attrs.evolve(SNAPSHOT, quorate=False, votes=attrs.evolve(VOTES, flags=VotequorumFlag.WAIT_FOR_ALL)),
            (
                "2 of 3 expected votes are here, and 2 needed, but wait_for_all waits until all nodes have been here at"
                " the same time"
            ),
        ),
        (
            attrs.evolve(SNAPSHOT, quorate=False, votes=attrs.evolve(VOTES, flags=VotequorumFlag(0))),
            "2 of 3 expected votes are here, and 2 needed, but votequorum has not decided so yet",
        ),
        (
            attrs.evolve(SNAPSHOT, votes=None, provider=""),
            "no quorum provider is configured, so every partition is",
        ),
    ],
)
def test_why(snapshot: Snapshot, why: str) -> None:
    assert reason(snapshot) == why
    first = "quorate" if snapshot.quorate else "NOT QUORATE"
    assert f"\n{first}: {why}\n" in shown(snapshot, width=200)
    assert cast("Any", as_json(snapshot))["quorum"]["reason"] == why


def test_options_and_the_qdevice() -> None:
    flags = (
        VotequorumFlag.QUORATE
        | VotequorumFlag.TWONODE
        | VotequorumFlag.WAIT_FOR_ALL
        | VotequorumFlag.QDEVICE_REGISTERED
        | VotequorumFlag.QDEVICE_ALIVE
    )
    votes = attrs.evolve(VOTES, flags=flags, qdevice_name="net", qdevice_votes=2)
    text = shown(attrs.evolve(SNAPSHOT, votes=votes))
    assert "\noptions: twonode wait_for_all\n" in text
    assert "\nqdevice: net, alive, does not vote for us (2 votes)\n" in text
    voting = attrs.evolve(votes, flags=flags & ~VotequorumFlag.QDEVICE_ALIVE | VotequorumFlag.QDEVICE_CAST_VOTE)
    assert "\nqdevice: net, silent, votes for us (2 votes)\n" in shown(attrs.evolve(SNAPSHOT, votes=voting))


async def test_what_a_node_sees(corosync_cluster: Cluster) -> None:
    first, *others = corosync_cluster.nodes
    async with AsyncExitStack() as stack:
        addresses: list[Address] = []
        for node in corosync_cluster.nodes.values():
            group = await stack.enter_async_context(triocoro.open_group("chat", receive=False, endpoint=node))
            addresses.append(group.address)
        with corosync_cluster[first].as_default():
            snapshot = await take_snapshot()
            done = await invoke("status", "--check", "--json")
    assert (snapshot.nodeid, snapshot.local_name, snapshot.transport) == (first, f"node{first}", "knet")
    assert snapshot.quorate
    assert snapshot.members == tuple(sorted(corosync_cluster.nodes))
    assert snapshot.votes is not None
    assert snapshot.votes.total_votes == len(corosync_cluster.nodes)
    assert [(node.nodeid, node.state, node.votes, node.reachable) for node in snapshot.nodes] == [
        (nodeid, NodeState.MEMBER, 1, True) for nodeid in sorted(corosync_cluster.nodes)
    ]
    assert [len(node.links) for node in snapshot.nodes] == [0, *(1 for _ in others)]
    assert all(link.connected for node in snapshot.nodes for link in node.links)
    assert snapshot.groups == {b"chat": sorted(addresses)}

    assert (done.status, done.stderr) == (0, "")
    (envelope,) = done.envelopes
    assert (envelope["schema"], envelope["version"]) == ("triocoro.status", 1)
    result = envelope["result"]
    assert result["nodeid"] == first
    assert result["quorum"]["quorate"] is True
    assert result["quorum"]["members"] == sorted(corosync_cluster.nodes)
    assert [node["local"] for node in result["nodes"]] == [True, *(False for _ in others)]
    assert result["groups"] == [
        {
            "name": {"text": "chat", "base64": "Y2hhdA=="},
            "members": [{"nodeid": address.nodeid, "pid": address.pid} for address in sorted(addresses)],
        }
    ]


async def test_a_node_alone(corosync_cluster: Cluster) -> None:
    """Not being quorate is no error; `--check` makes it an exit status."""
    first, *others = corosync_cluster.nodes
    await corosync_cluster.isolate(first)
    await corosync_cluster.settled()
    with corosync_cluster[first].as_default():
        done = await invoke("status")
        checked = await invoke("status", "--check")
    assert (done.status, checked.status) == (0, 1)
    assert f"\nNOT QUORATE: 1 of {1 + len(others)} expected votes are here, and 2 needed\n" in done.stdout
    for nodeid in others:
        assert re.search(rf"^{nodeid} +node{nodeid} +1 +dead +0 ", done.stdout, re.MULTILINE)


async def test_a_node_that_has_seen_no_other(corosync_cluster: Cluster) -> None:
    """Votequorum knows nothing of the others, nor does a daemon without a quorum provider."""
    first, second, *_ = corosync_cluster.nodes
    for node in corosync_cluster.nodes.values():
        await node.stop()
    await corosync_cluster[first].start()
    with corosync_cluster[first].as_default():
        done = await invoke("status", "--json")
        exported = await invoke("export")
    assert [(node["state"], node["votes"]) for node in done.result["nodes"]] == [
        ("member", 1),
        *((None, None) for _ in done.result["nodes"][1:]),
    ]
    assert f'\ncorosync_node_member{{node="{second}"}} 0\n' in exported.stdout
    assert f'\ncorosync_node_votes{{node="{first}"}} 1\n' in exported.stdout
    assert f'corosync_node_votes{{node="{second}"}}' not in exported.stdout


@pytest.mark.parametrize("command", ["status", "groups", "export"])
async def test_a_frozen_daemon(command: str, corosync: Node) -> None:
    await corosync.freeze()
    started = trio.current_time()
    done = await invoke(command, "--timeout=0.5", "--json")
    assert trio.current_time() - started < 3
    assert done.status == 3
    (envelope,) = done.envelopes
    assert envelope["error"]["kind"] == "CorosyncTimeoutError"
    assert done.stderr == f"triocoro: {envelope['error']['message']}\n"
    assert "has not answered within 0.5 s" in done.stderr
    await corosync.thaw()


async def test_no_daemon(corosync: Node) -> None:
    await corosync.stop()
    done = await invoke("status")
    assert (done.status, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("triocoro: cannot connect to node 1")


@pytest.mark.corosync_real_only(reason="a process of its own needs a real node")
async def test_as_a_process(corosync_cluster: Cluster) -> None:
    done = await run_inside(next(iter(corosync_cluster.nodes.values())), "status")
    assert (done.status, done.stderr) == (0, "")
    assert "\nquorate: 3 of 3 expected votes are here, and 2 needed\n" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.corosync_fake_only(reason="it is about this machine")
def test_as_a_process_without_a_daemon() -> None:
    done = run("status")
    assert (done.returncode, done.stdout) == (3, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("triocoro: cannot connect to the system's Corosync: ")
