"""What Corosync's own programs, and one of ours in C, see of us and of the cluster."""

from __future__ import annotations

import os
import random
import re
import subprocess
import zlib
from pathlib import Path

import pytest
import trio
from support.external_programs import Child, ask, running

import triocoro
from triocoro import (
    Address,
    ConfigChange,
    ExpectedVotesChange,
    Group,
    MemberChange,
    Message,
    NodeState,
    Reason,
    Votequorum,
    VotequorumChange,
    VotequorumFlag,
)
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.corosync_real_only(reason="Corosync's programs see no fake")

_ATOMIC = 1_047_552


@pytest.fixture(scope="session")
def peer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our C program, compiled."""
    path = tmp_path_factory.mktemp("peer") / "peer"
    source = Path(__file__).with_name("peer.c")
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(path), str(source), "-lcpg"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return str(path)


# -- groups ------------------------------------------------------------------------------------------------------------


def _cpgtool_groups(text: str) -> dict[str, set[Address]]:
    """The groups in what `corosync-cpgtool -d :` prints."""
    title, *lines = text.splitlines()
    assert title == "GRP_NAME:PID:NODEID"
    groups: dict[str, set[Address]] = {}
    for line in lines:
        if line:
            name, pid, nodeid = line.rsplit(":", 2)
            groups.setdefault(name, set()).add(Address(int(nodeid), int(pid)))
    return groups


@pytest.mark.corosync(nodes=2)
@pytest.mark.deadline(20)
async def test_cpgtool_lists_our_groups(corosync_cluster: Cluster) -> None:
    one, two = corosync_cluster[1], corosync_cluster[2]

    async def listed() -> dict[str, set[Address]]:
        return _cpgtool_groups(await ask(two, "corosync-cpgtool", "-d", ":"))

    assert await listed() == {}
    async with triocoro.open_group("chat") as chat, triocoro.open_group(b"news\0"):
        pid = os.getpid()
        assert chat.address == Address(1, pid)
        # Node 1 has told us of the joins; node 2 may hear of them a moment later.
        while await listed() != {"chat": {Address(1, pid)}, r"news\x00": {Address(1, pid)}}:  # noqa: ASYNC110 - above
            await trio.sleep(0.01)
        async with triocoro.open_group("chat", endpoint=two.endpoint), triocoro.open_cpg() as cpg:
            assert (await listed())["chat"] == {Address(1, pid), Address(2, pid)}
            for node in (one, two):
                # What the tool says in its usual form, for people.
                text = await ask(node, "corosync-cpgtool", "-e")
                assert re.search(rf"^chat\n\s+{pid}\s+1 \(.*\)\n\s+{pid}\s+2 \(.*\)$", text, re.MULTILINE)
            ours = {(member.group, member.address) for member in await cpg.groups()}
            theirs = {
                (name.replace(r"\x00", "\0").encode(), address)
                for name, addresses in (await listed()).items()
                for address in addresses
            }
            assert ours == theirs
        assert (await listed())["chat"] == {Address(1, pid)}
    assert await listed() == {}


# -- votequorum --------------------------------------------------------------------------------------------------------

_FLAGS = {
    "2Node": VotequorumFlag.TWONODE,
    "Quorate": VotequorumFlag.QUORATE,
    "WaitForAll": VotequorumFlag.WAIT_FOR_ALL,
}


async def _agrees_with_quorumtool(node: Node, votequorum: Votequorum) -> None:
    """Compare each field of what we say of a node, and of what we say of the others, with what the tool says there."""
    # 2 is what it exits with where there is no quorum.
    text = await ask(node, "corosync-quorumtool", "-s", statuses=(0, 2))
    info = await votequorum.info()
    told = {
        name: value.strip() for name, value in re.findall(r"^([A-Z][^:\n]*):(.*)$", text, re.MULTILINE) if value.strip()
    }
    flags = VotequorumFlag(0)
    for word in told.get("Flags", "").split():
        flags |= _FLAGS[word]
    assert info == triocoro.VotequorumInfo(
        nodeid=int(told["Node ID"]),
        state=NodeState.MEMBER,
        votes=_members(text)[info.nodeid],
        expected_votes=int(told["Expected votes"]),
        highest_expected=int(told["Highest expected"]),
        total_votes=int(told["Total votes"]),
        quorum=int(told["Quorum"].split()[0]),
        flags=flags,
        qdevice_votes=0,
        qdevice_name="",
    )
    assert info.nodeid == node.nodeid
    assert info.quorate is (told["Quorate"] == "Yes")
    assert ("Activity blocked" in told["Quorum"]) is not info.quorate
    members = _members(text)
    assert len(members) == int(told["Nodes"])
    assert {nodeid: (await votequorum.info(nodeid)).votes for nodeid in members} == members
    assert {(await votequorum.info(nodeid)).state for nodeid in members} == {NodeState.MEMBER}


def _members(text: str) -> dict[int, int]:
    """The nodes that are there, and their votes."""
    table = text.partition("Membership information\n")[2]
    return {int(nodeid): int(votes) for nodeid, votes in re.findall(r"^\s+(\d+)\s+(\d+)\s", table, re.MULTILINE)}


@pytest.mark.corosync(nodes=3)
@pytest.mark.deadline(30)
async def test_quorumtool_agrees(corosync_cluster: Cluster) -> None:
    async def expected_is(number: int) -> None:
        """Wait until it is counted anew on both: the reply comes before."""
        for changes in (changes_1, changes_2):
            async for change in changes:
                if change == ExpectedVotesChange(number):
                    break

    one, two = corosync_cluster[1], corosync_cluster[2]
    async with (
        triocoro.open_votequorum() as votequorum,
        triocoro.open_votequorum(endpoint=two.endpoint) as other,
        votequorum.track() as changes_1,
        other.track() as changes_2,
    ):
        await _agrees_with_quorumtool(one, votequorum)
        await _agrees_with_quorumtool(two, other)
        assert (await votequorum.info()).total_votes == 3

        await votequorum.set_expected(5)
        await expected_is(5)
        await _agrees_with_quorumtool(one, votequorum)
        await _agrees_with_quorumtool(two, other)
        assert (await other.info()).expected_votes == 5

        await votequorum.set_votes(2, 4)
        await expected_is(6)
        await _agrees_with_quorumtool(one, votequorum)
        await _agrees_with_quorumtool(two, other)
        assert (await other.info()).votes == 4

        # The tool changes something, and we are told.
        await ask(two, "corosync-quorumtool", "-e", "7")
        await expected_is(7)
        await _agrees_with_quorumtool(one, votequorum)

    async with triocoro.open_votequorum() as votequorum, votequorum.track() as changes:
        await two.kill()
        # Not sooner: the daemon answers in the middle of a transition too, with votes counted and quorum not.
        async for change in changes:
            if isinstance(change, VotequorumChange) and not change.quorate:
                break
        assert not (await votequorum.info()).quorate
        await _agrees_with_quorumtool(one, votequorum)


@pytest.mark.corosync(nodes=2, two_node=True)
@pytest.mark.deadline(20)
async def test_quorumtool_agrees_on_two_nodes(corosync_cluster: Cluster) -> None:
    async with triocoro.open_votequorum() as votequorum:
        await _agrees_with_quorumtool(corosync_cluster[1], votequorum)
        info = await votequorum.info()
        assert info.flags == VotequorumFlag.TWONODE | VotequorumFlag.QUORATE | VotequorumFlag.WAIT_FOR_ALL
        assert info.quorum == 1


# -- messages, with a program in C -------------------------------------------------------------------------------------


def _payloads() -> list[bytes]:
    draw = random.Random(20).randbytes
    return [
        b"",
        b"x",
        b"\0",
        bytes(range(256)),
        b"\0" * 1000 + b"end\0",
        draw(65_537),
        draw(_ATOMIC - 1),
        draw(_ATOMIC),
        # The library cuts these up.
        draw(_ATOMIC + 1),
        draw(3 * 2**20),
        b"",
    ]


async def _exchange(group: Group, child: Child, payloads: list[bytes]) -> None:
    """Send; the program says what it got, and sends it back, so both directions are compared."""
    for payload in payloads:
        await group.send(payload)
        got = await child.line()
        assert got == f"got {group.address.pid} {len(payload)} {zlib.crc32(payload):08x}"
        assert await group.receive() == Message(group.address, payload)
        echo = await group.receive()
        assert isinstance(echo, Message)
        assert echo.sender == Address(echo.sender.nodeid, child.pid)
        assert echo.payload == payload


@pytest.mark.corosync(nodes=2)
@pytest.mark.parametrize("nodeid", [1, 2], ids=["same node", "other node"])
async def test_messages_to_and_from_c(corosync_cluster: Cluster, peer: str, nodeid: int) -> None:
    async with running(corosync_cluster[nodeid], peer, "chat") as child:
        assert await child.line() == f"joined {child.pid}"
        assert await child.line() == "members 1"
        async with triocoro.open_group("chat") as group:
            theirs = Address(nodeid, child.pid)
            assert await child.line() == "members 2"
            join = await group.receive()
            assert join == group.view
            assert join == ConfigChange(
                members=tuple(sorted((theirs, group.address))),
                joined=(MemberChange(group.address, Reason.JOIN),),
                left=(),
            )
            payloads = _payloads()
            await _exchange(group, child, payloads)

            # Many at once: all of them in order, whatever lies in between.
            numbers = [str(number).encode() for number in range(1000)]
            await group.send_batch(numbers)
            for number in numbers:
                assert (await child.line()).startswith(f"got {group.address.pid} {len(number)} ")
            own: list[bytes] = []
            echoes: list[bytes] = []
            while len(echoes) < len(numbers):
                for event in await group.receive_batch():
                    assert isinstance(event, Message)
                    (own if event.sender == group.address else echoes).append(event.payload)
            assert own == echoes == numbers

            assert await child.end() == 0
            left = await group.receive()
            assert left == ConfigChange((group.address,), (), (MemberChange(theirs, Reason.LEAVE),))
            assert group.statistics().confirmed == len(payloads) + len(numbers)


@pytest.mark.deadline(20)
async def test_c_sees_us_come_and_go(corosync: Node, peer: str) -> None:
    async with running(corosync, peer, "chat") as child:
        assert await child.line() == f"joined {child.pid}"
        assert await child.line() == "members 1"
        for _again in range(3):
            async with triocoro.open_group("chat"):
                assert await child.line() == "members 2"
            assert await child.line() == "members 1"
        async with triocoro.open_group("chat") as group:
            assert await child.line() == "members 2"
            await group.aclose()
            assert await child.line() == "members 1"
        assert await child.end() == 0
        assert await child.line() == "members 0"
        assert await child.line() == "left"


@pytest.mark.deadline(20)
async def test_death_of_a_c_member(corosync: Node, peer: str) -> None:
    async with triocoro.open_group("chat") as group, running(corosync, peer, "chat") as child:
        await child.line()
        theirs = Address(1, child.pid)
        assert await group.receive() == group.view
        joined = await group.receive()
        assert isinstance(joined, ConfigChange)
        assert joined.joined == (MemberChange(theirs, Reason.JOIN),)
        child.kill()
        died = await group.receive()
        assert isinstance(died, ConfigChange)
        assert died.left == (MemberChange(theirs, Reason.PROCDOWN),)
