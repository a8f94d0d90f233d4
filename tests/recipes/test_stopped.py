"""Programs that stand still, as under SIGSTOP or a debugger, while the daemon of their node goes on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from support import recipe_application
from support.applications import poll
from support.external_programs import Child, running
from support.fixtures.long import long
from support.recipe_application import Journal, told

import triocoro
from triocoro import Address, open_cfg
from triocoro.recipes import Held, Replica, Token, open_leadership, open_lock, open_replica, open_safe_group
from triocoro.testing import Cluster, Node

pytestmark = [
    pytest.mark.corosync_real_only(
        reason="all clients of a fake run in one program, which cannot stop a part of itself"
    ),
    pytest.mark.deadline(60),
]

DELAY = 2.0
"""The lock_delay."""
LARGE = bytes(256 * 1024)
"""A command that takes a quarter of the ring buffer between a daemon and a client."""


@attrs.frozen
class Stopping:
    """A program on a node that we can stop."""

    child: Child
    address: Address

    async def stopped(self) -> None:
        """Wait until it stands still."""
        stat = Path(f"/proc/{self.address.pid}/stat")
        await poll(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")

    async def stop(self) -> None:
        """Have it stop, and wait for that."""
        await self.child.send_line("stop")
        await self.stopped()

    def go_on(self) -> None:
        """Let it run."""
        os.kill(self.address.pid, signal.SIGCONT)

    async def ask(self, line: str) -> str:
        """Say a line to it, and return its next one."""
        await self.child.send_line(line)
        return await self.child.line()

    async def told(self, number: int) -> list[str]:
        """Return the next lines that it says."""
        return [await self.child.line() for _ in range(number)]

    async def works(self, token: Token) -> None:
        """Let it work under a token."""
        assert await self.ask("work") == f"works {told(token)}"
        assert await self.child.line() == "may go on"

    async def holds(self) -> Token:
        """Wait until it holds its lock, and return the token."""
        word, *token = (await self.child.line()).split()
        assert word == "holds"
        return Token(*map(int, token))


@asynccontextmanager
async def an_application(node: Node, *arguments: str) -> AsyncGenerator[Stopping, None]:
    """A program of its own on a node; it has joined."""
    async with running(node, sys.executable, recipe_application.__file__, *arguments) as child:
        yield Stopping(child, Address(node.nodeid, int(await child.line())))


# -- locks and leadership ----------------------------------------------------------------------------------------------


@attrs.define
class Resource:
    """What the lock protects."""

    greatest: Token = attrs.field(factory=lambda: Token(0, 0))

    def takes(self, token: Token) -> bool:
        """Whether work under a token is done; if it is, that under smaller ones never again."""
        if token < self.greatest:
            return False
        self.greatest = token
        return True


@attrs.frozen
class Rival:
    """What holds the lock, or leads, in this program."""

    hold: Callable[[], AbstractAsyncContextManager[Held]]
    holder: Callable[[], Address | None]
    """The one that holds it, as far as this program knows."""


@asynccontextmanager
async def a_rival(kind: str, node: Node) -> AsyncGenerator[Rival, None]:
    """Take part in a lock or a leadership."""
    if kind == "lock":
        async with open_lock("lock", lock_delay=DELAY, endpoint=node) as lock:
            yield Rival(lock.hold, lambda: lock.holder)
    else:
        async with open_leadership("lock", lock_delay=DELAY, endpoint=node) as leadership:
            yield Rival(leadership.lead, lambda: leadership.leader)


@pytest.mark.parametrize("kind", ["lock", *long("leadership")])
async def test_a_holder_that_stood_still_has_lost_the_lock(corosync_cluster: Cluster, kind: str) -> None:
    """It stops between its check and its work, which then comes late: only the token protects from that."""
    resource = Resource()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(an_application(corosync_cluster[1], kind, "lock", str(DELAY)))
        second, _ = [await stack.enter_async_context(a_rival(kind, corosync_cluster[nodeid])) for nodeid in (2, 3)]
        old = await first.holds()
        await first.works(old)
        assert resource.takes(old)
        await first.stop()
        async with second.hold() as held:
            # Its process is still a member, as its daemon goes on: the others have waited for the end of its lease.
            async with triocoro.open_cpg(endpoint=corosync_cluster[3].endpoint) as cpg:
                assert first.address in await cpg.members("lock")
            held.check()
            assert held.token > old
            assert resource.takes(held.token)

            first.go_on()
            assert await first.told(3) == [f"works {told(old)}", "must not go on", "lost"]
            assert not resource.takes(old)
            held.check()
        # It waits for its turn again, and has a token of its own then.
        new = await first.holds()
        assert new > held.token
        await first.works(new)
        assert resource.takes(new)


@pytest.mark.parametrize("kind", [*long("lock", "leadership")])
async def test_a_holder_that_stood_still_is_granted_the_lock_anew(corosync_cluster: Cluster, kind: str) -> None:
    """No other one wanted it meanwhile; the token is greater all the same."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(an_application(corosync_cluster[1], kind, "lock", str(DELAY)))
        rivals = [await stack.enter_async_context(a_rival(kind, corosync_cluster[nodeid])) for nodeid in (2, 3)]
        old = await first.holds()
        await first.stop()
        for rival in rivals:
            await poll(lambda rival=rival: rival.holder() is None)  # type: ignore[misc]
        first.go_on()
        assert await first.told(3) == [f"works {told(old)}", "must not go on", "lost"]
        assert await first.holds() > old


# -- replicas ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Group:
    """Members in this program on nodes 1 and 2, and a program of its own on node 3, which votes there."""

    members: list[Replica[Journal]]
    stopping: Stopping

    def behind(self, observer: int = 0) -> int | None:
        """How far the program on node 3 is behind, as another member sees it."""
        (found,) = [
            member.behind
            for member in self.members[observer].status().members
            if member.address == self.stopping.address
        ]
        return found

    async def execute(self, number: int) -> None:
        """Have so many large commands committed, by one member after the other."""
        for count in range(number):
            await self.members[count % len(self.members)].execute(LARGE)

    def journal(self) -> str:
        """What all members in this program have, once the last one has what the others have."""
        (journal,) = {str(member.machine) for member in self.members}
        return journal

    async def agree(self, count: int) -> None:
        """Wait until all members in this program have applied so many commands."""
        for member in self.members:
            await member.wait(lambda journal: journal.count == count)


@asynccontextmanager
async def a_group(cluster: Cluster) -> AsyncGenerator[Group, None]:
    """A group with one command, which all have acknowledged."""
    async with AsyncExitStack() as stack:
        stopping = await stack.enter_async_context(an_application(cluster[3], "replica", "store"))
        members = [
            await stack.enter_async_context(open_replica("store", Journal(), endpoint=cluster[nodeid]))
            for nodeid in (1, 2)
        ]
        await members[0].ensure(b"first")
        group = Group(members, stopping)
        await poll(lambda: group.behind() == 0)
        yield group


async def test_a_majority_goes_on_without_a_member_that_stands_still(corosync_cluster: Cluster) -> None:
    """Another client of its daemon is not held up either. When it goes on, it gets what its daemon has kept for it."""
    number = 60
    async with (
        a_group(corosync_cluster) as group,
        open_replica("store", Journal(), endpoint=corosync_cluster[3]) as beside,
    ):
        await beside.wait_primary()
        group.members.append(beside)
        await poll(lambda: group.behind() == 0)
        await group.stopping.stop()
        with trio.fail_after(20):
            await group.execute(number)
        await group.agree(1 + number)
        assert [group.behind(observer) for observer in range(3)] == [number] * 3
        status = group.members[0].status()
        assert (status.primary, status.vacant, len(status.members)) == (True, (), 4)

        group.stopping.go_on()
        assert await group.stopping.ask(f"reach {1 + number}") == f"{group.journal()} 0"  # without a snapshot
        await poll(lambda: group.behind() == 0)
        await group.execute(3)


@pytest.mark.parametrize("after", ["goes on", *long("is killed")])
async def test_a_member_stands_still_while_rings_form(corosync_cluster: Cluster, after: str) -> None:
    """The others agree without it. If it is killed, a new program takes its seat, with a snapshot."""
    async with a_group(corosync_cluster) as group:
        await group.stopping.stop()
        await group.execute(8)
        await corosync_cluster[2].restart()
        await group.members[1].ensure(LARGE)
        await group.execute(4)
        await group.agree(14)
        # It has not said in this ring who it is, so it may be a program without the vote.
        assert (group.behind(), group.members[0].status().vacant) == (None, (3,))
        if after == "goes on":
            group.stopping.go_on()
            assert await group.stopping.ask("reach 14") == f"{group.journal()} 0"
            await poll(lambda: group.behind() == 0)
        else:
            group.stopping.child.kill()
            async with an_application(corosync_cluster[3], "replica", "store") as successor:
                assert await successor.ask("reach 14") == f"{group.journal()} 1"
                await group.members[0].wait(lambda _: seated(group.members[0], successor.address))
                await group.execute(2)
                await successor.ask("reach 16")


async def test_an_operator_evicts_a_member_that_stands_still(corosync_cluster: Cluster) -> None:
    """From another node: the daemon that buffers for it is ended. The program keeps its state, and comes back."""
    async with a_group(corosync_cluster) as group, open_cfg(endpoint=corosync_cluster[1]) as cfg:
        observer = group.members[0]
        await group.stopping.stop()
        await group.execute(8)
        assert group.behind() == 8
        await cfg.kill_node(3, "its member of the group store stands still")
        await poll(lambda: all(member.address.nodeid != 3 for member in observer.status().members))
        await group.members[1].ensure(LARGE)
        await group.execute(4)
        await group.agree(14)
        assert (observer.status().primary, observer.status().vacant) == (True, (3,))

        await corosync_cluster[3].restart()
        group.stopping.go_on()
        assert await group.stopping.ask("reach 14") == f"{group.journal()} 0"
        await poll(lambda: group.behind() == 0)
        assert seated(observer, group.stopping.address)


def seated(member: Replica[Journal], address: Address) -> bool:
    """Whether a member has its node's vote."""
    return any(found.address == address and found.votes for found in member.status().members)


@pytest.mark.long
async def test_a_member_of_a_safe_group_that_stood_still_receives_all(corosync_cluster: Cluster) -> None:
    number = 60
    sent = Journal()
    async with an_application(corosync_cluster[3], "safe_group", "log") as stopping, AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(open_safe_group("log", endpoint=corosync_cluster[nodeid]))
            for nodeid in (1, 2)
        ]
        await groups[0].wait_primary()
        await groups[0].send(b"first")
        sent.apply(b"first")
        assert await stopping.ask("reach 1") == str(sent)
        await stopping.stop()
        with trio.fail_after(20):  # noqa: ASYNC912 - the loop sends
            for count in range(number):
                payload = LARGE + str(count).encode()
                commit = await groups[0].send(payload)
                assert commit.index == 2 + count
                sent.apply(payload)
        stopping.go_on()
        assert await stopping.ask(f"reach {1 + number}") == str(sent)
