"""Locks and leadership, as their users see them: on real nodes and on the fake."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from support.applications import applications, begin, poll
from support.fixtures.long import long

from triocoro.recipes import (
    Held,
    Leadership,
    LeaseLostError,
    Lock,
    Token,
    open_leadership,
    open_lock,
    shortest_lock_delay,
)
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)

DELAY = 2.0
"""The lock_delay: as short as the token timeout of the tests allows."""


def opener(node: Node, name: str = "lock") -> Callable[[], AbstractAsyncContextManager[Lock]]:
    return partial(open_lock, name, lock_delay=DELAY, endpoint=node)


async def locks(stack: AsyncExitStack, cluster: Cluster) -> list[Lock]:
    """One on each node."""
    return [await stack.enter_async_context(opener(node)()) for node in cluster.nodes.values()]


@attrs.frozen
class Stay:
    """A time in which a client was in its block."""

    name: str
    token: Token
    since: float
    until: float


@attrs.define
class Room:
    """What only the holder may enter; it notes who was in it, and that no two were at once."""

    stays: list[Stay] = attrs.field(factory=list[Stay])
    inside: str | None = None

    async def stay(self, lock: Lock, name: str, seconds: float = 0.0) -> Stay:
        async with lock.hold() as held:
            held.check()
            assert self.inside is None, f"{name} met {self.inside}"
            self.inside, since = name, trio.current_time()
            try:
                await trio.sleep(seconds)
                held.check()
            finally:
                self.inside = None
            self.stays.append(Stay(name, held.token, since, trio.current_time()))
        return self.stays[-1]

    async def block(self, lock: Lock, name: str, task_status: trio.TaskStatus[Held]) -> None:
        """Stay until the lock is lost, and note when that was."""
        since = 0.0
        with pytest.raises(LeaseLostError, match="may have been lost while the block ran"):
            async with lock.hold() as held:
                since = trio.current_time()
                task_status.started(held)
                try:
                    await trio.sleep_forever()
                finally:
                    with pytest.raises(LeaseLostError):
                        held.check()
                    self.stays.append(Stay(name, held.token, since, trio.current_time()))


# -- one holder --------------------------------------------------------------------------------------------------------


async def test_one_holder_at_a_time_and_tokens_only_grow(corosync_cluster: Cluster) -> None:
    room = Room()

    async def use(lock: Lock, name: str) -> None:
        for _ in range(10):
            await room.stay(lock, name)

    async with AsyncExitStack() as stack:
        found = await locks(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for lock, name in zip(found, "abc", strict=True):
                nursery.start_soon(use, lock, name)
                nursery.start_soon(use, lock, name.upper())  # two tasks of one member are two clients
    assert len(room.stays) == 60
    tokens = [stay.token for stay in room.stays]
    assert tokens == sorted(set(tokens))


async def test_first_come_first_served(corosync_cluster: Cluster) -> None:
    room = Room()
    async with AsyncExitStack() as stack:
        found = await locks(stack, corosync_cluster)
        async with trio.open_nursery() as nursery, found[0].hold():
            for number, lock in enumerate([found[1], found[2], found[0], found[1]]):
                nursery.start_soon(room.stay, lock, f"{number}")
                await poll(lambda number=number: waiting(found[0]) == number + 1)  # type: ignore[misc]
    assert [stay.name for stay in room.stays] == ["0", "1", "2", "3"]


def waiting(lock: Lock) -> int:
    """How many clients wait: what no user can see."""
    return max(0, len(lock._candidate.queue.clients) - 1)


async def test_a_release_hands_the_lock_over_at_once(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await locks(stack, corosync_cluster)
        for _ in range(5):
            with trio.fail_after(DELAY / 2):
                async with first.hold():
                    pass
                async with second.hold():
                    pass


async def test_an_error_of_the_block_comes_out_and_releases_the_lock(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await locks(stack, corosync_cluster)
        with pytest.raises(KeyError, match="mine"):
            async with first.hold():
                raise KeyError("mine")
        with trio.fail_after(DELAY / 2):
            async with second.hold():
                pass


async def test_a_cancelled_block_releases_the_lock(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await locks(stack, corosync_cluster)
        with trio.CancelScope() as scope:
            async with first.hold():
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        with trio.fail_after(DELAY / 2):
            async with second.hold():
                pass


async def test_one_who_stops_waiting_is_no_longer_in_the_queue(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await locks(stack, corosync_cluster)
        async with first.hold():
            for steps in range(10):
                with trio.CancelScope() as scope:  # noqa: ASYNC912 - others cancel it
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(second.hold().__aenter__)
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()
        with trio.fail_after(DELAY / 2):
            async with third.hold():
                pass


async def test_a_lease_is_renewed_while_the_block_runs(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await locks(stack, corosync_cluster)
        async with trio.open_nursery() as nursery, first.hold() as held:
            assert 0 < held.remaining() <= DELAY
            nursery.start_soon(Room().stay, second, "second")
            for _ in range(6):
                await trio.sleep(DELAY / 4)
                held.check()
                assert held.remaining() > DELAY / 2
        with pytest.raises(LeaseLostError):
            held.check()
        assert held.remaining() == 0


async def test_a_token_is_greater_than_those_before_a_restart_of_all_daemons(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        found = await locks(stack, corosync_cluster)
        async with found[0].hold() as held:
            before = held.token
        for node in corosync_cluster.nodes.values():
            await node.kill()
        for node in corosync_cluster.nodes.values():
            await node.start()
        async with found[1].hold() as held:
            assert held.token > before


@pytest.mark.long
async def test_a_token_is_greater_than_those_before_a_restart_of_all_applications(corosync_cluster: Cluster) -> None:
    tokens: list[Token] = []
    for _ in range(3):
        async with AsyncExitStack() as stack:
            found = await locks(stack, corosync_cluster)
            async with found[0].hold() as held:
                tokens.append(held.token)
        for node in corosync_cluster.nodes.values():
            await node.restart()  # a new ring: its number is what tokens begin with
        await corosync_cluster.settled()
    assert tokens == sorted(set(tokens))


# -- the holder is lost ------------------------------------------------------------------------------------------------


async def test_only_the_lease_of_the_present_holder_is_waited_for(corosync_cluster: Cluster) -> None:
    patient = partial(open_lock, "lock", lock_delay=1000, endpoint=corosync_cluster[1])
    async with applications() as nursery:
        first = await begin(nursery, patient)
        second, third = [await begin(nursery, opener(corosync_cluster[nodeid])) for nodeid in (2, 3)]
        async with first.recipe.hold():
            await poll(lambda: third.recipe.holder is not None)  # and watches it
        async with trio.open_nursery() as inner:
            await inner.start(hold_until_lost, second.recipe)
            await second.end()
            async with third.recipe.hold():
                pass


async def lose_holder(cluster: Cluster, verb: str) -> tuple[Stay, Stay]:
    """What the holder on node 1 and its successor saw when this happened to node 1."""
    room = Room()
    async with AsyncExitStack() as stack:
        first, second, _ = await locks(stack, cluster)
        async with trio.open_nursery() as nursery:
            held: Held = await nursery.start(room.block, first, "first")
            await trio.sleep(DELAY / 3)
            if verb == "isolate":
                await cluster.isolate(1)
            else:
                await getattr(cluster[1], verb)()
            begun = trio.current_time()
            await room.stay(second, "second")
            assert trio.current_time() - begun < 2 * DELAY
            with pytest.raises(LeaseLostError, match="is not ours any more"):
                held.check()
        if verb == "freeze":
            await cluster[1].thaw()
        elif verb == "isolate":
            await cluster.heal()
        else:
            await cluster[1].start()
        third = await room.stay(first, "first again")
    old, new = room.stays[:2]
    assert (old.name, new.name) == ("first", "second")
    assert old.token < new.token < third.token
    return old, new


@pytest.mark.parametrize("verb", ["kill", "isolate", *long("freeze", "stop")])
async def test_the_successor_of_a_lost_holder_comes_after_its_lease(corosync_cluster: Cluster, verb: str) -> None:
    old, new = await lose_holder(corosync_cluster, verb)
    assert old.until <= new.since
    assert new.since - old.since >= DELAY


async def hold_until_lost(lock: Lock, task_status: trio.TaskStatus[None]) -> None:
    with pytest.raises(LeaseLostError):
        async with lock.hold():
            task_status.started()
            await trio.sleep_forever()


async def test_an_application_that_dies_keeps_the_lock_until_its_lease_is_over(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = [await begin(nursery, opener(node)) for node in corosync_cluster.nodes.values()]
        async with trio.open_nursery() as inner:
            await inner.start(hold_until_lost, members[0].recipe)
            since = trio.current_time()
            await members[0].end()  # its daemon reports that it left; only the lease counts
            async with members[1].recipe.hold():
                assert trio.current_time() - since >= DELAY * 0.9


async def test_no_one_gets_the_lock_without_a_majority(corosync_cluster: Cluster) -> None:
    room = Room()
    async with AsyncExitStack() as stack:
        first, second, third = await locks(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            await nursery.start(room.block, first, "first")
            await corosync_cluster.partition({1}, {2}, {3})
            begun = trio.current_time()
            nursery.start_soon(room.stay, second, "second")
            nursery.start_soon(room.stay, third, "third")
            await poll(lambda: len(room.stays) == 1)
            assert trio.current_time() - begun <= DELAY
            await trio.sleep(DELAY)
            assert len(room.stays) == 1
            await corosync_cluster.heal()
    assert room.stays[0].name == "first"
    assert {stay.name for stay in room.stays[1:]} == {"second", "third"}
    tokens = [stay.token for stay in room.stays]
    assert tokens == sorted(set(tokens))


@pytest.mark.long
async def test_the_death_of_another_node_does_not_depose_the_holder(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await locks(stack, corosync_cluster)
        async with first.hold() as held:
            for verb in ("freeze", "kill"):
                await getattr(corosync_cluster[3], verb)()
                for _ in range(15):
                    await trio.sleep(0.1)
                    held.check()
                await corosync_cluster[3].thaw()
                await corosync_cluster[3].start()
                await corosync_cluster.settled()
                held.check()


async def test_a_short_cut_from_the_daemon_does_not_depose_the_holder(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await locks(stack, corosync_cluster)
        async with first.hold() as held:
            token = held.token
            for verb in ("freeze", "thaw"):
                await getattr(corosync_cluster[1], verb)()
                await trio.sleep(0.1)
            await trio.sleep(DELAY / 2)
            held.check()
            assert held.token == token


# -- leadership --------------------------------------------------------------------------------------------------------


async def test_one_leads_and_the_next_one_follows_when_it_steps_down(corosync_cluster: Cluster) -> None:
    led: list[tuple[int, Token]] = []

    async def run(node: Node) -> None:
        async with open_leadership("office", lock_delay=DELAY, endpoint=node) as leadership:
            for _ in range(3):
                async with leadership.lead() as leader:
                    leader.check()
                    led.append((node.nodeid, leader.token))
            await poll(lambda: len(led) == 9)

    async with trio.open_nursery() as nursery:
        for node in corosync_cluster.nodes.values():
            nursery.start_soon(run, node)
    assert sorted(nodeid for nodeid, _ in led) == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [token for _, token in led] == sorted({token for _, token in led})


@pytest.mark.parametrize("end", ["check", *long("cancelled")])
async def test_a_leader_that_is_cut_off_is_told_and_may_lead_again(corosync_cluster: Cluster, end: str) -> None:
    terms: list[Token] = []

    async def lead(leadership: Leadership, seconds: float) -> None:
        async with leadership.lead() as leader:
            terms.append(leader.token)
            with trio.move_on_after(seconds):
                while end == "check":
                    leader.check()
                    await trio.sleep(0.01)
                await trio.sleep_forever()

    async with AsyncExitStack() as stack:
        first, second, _ = [
            await stack.enter_async_context(open_leadership("office", lock_delay=DELAY, endpoint=node))
            for node in corosync_cluster.nodes.values()
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lead, first, 60)
            await poll(lambda: len(terms) == 1)
            await corosync_cluster.isolate(1)
            await lead(second, 0)
        assert len(terms) == 2
        await corosync_cluster.heal()
        await lead(first, 0)
    assert terms == sorted(set(terms))


async def test_an_error_of_the_leader_comes_out(corosync: Node) -> None:
    async with open_leadership("office", endpoint=corosync) as leadership:
        with pytest.raises(KeyError, match="mine"):
            async with leadership.lead():
                raise KeyError("mine")
        with pytest.raises(LeaseLostError, match="of another lock"):
            async with leadership.lead():
                raise LeaseLostError("of another lock")


# -- arguments ---------------------------------------------------------------------------------------------------------


async def test_a_lock_delay_that_is_too_short_is_refused(corosync: Node) -> None:
    shortest = await shortest_lock_delay(corosync)
    assert 1.5 < shortest < DELAY  # token 0.5, consensus 0.6, sync 0.2 s, and a renewal
    for opened in (open_lock, open_leadership):
        with pytest.raises(ValueError, match=f"at least {shortest:.3f} s"):
            async with opened("lock", lock_delay=shortest - 0.001, endpoint=corosync):
                pass
        async with opened("lock", lock_delay=shortest, endpoint=corosync):
            pass


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("delay", ["2", float("nan"), float("inf"), -1, 0, b"", [2.0], True, 1e400])
async def test_a_lock_delay_that_cannot_be_is_refused(corosync: Node, delay: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        async with open_lock("lock", lock_delay=delay, endpoint=corosync):
            pass


def test_tokens_compare_by_epoch_and_then_by_index() -> None:
    tokens = [Token(1, 5), Token(2, 1), Token(2, 3)]
    assert sorted([tokens[2], tokens[0], tokens[1]]) == tokens


async def test_a_program_that_ends_after_its_block_has_released_the_lock(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        second, _ = [await stack.enter_async_context(opener(corosync_cluster[nodeid])()) for nodeid in (2, 3)]
        async with opener(corosync_cluster[1])() as lock, lock.hold():
            pass
        with trio.fail_after(DELAY / 2):
            async with second.hold():
                pass
