"""Replicated state, as its users see it: on real nodes and on the fake."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any

import pytest
import trio
import trio.lowlevel
from support.applications import applications, begin, no_longer_primary
from support.machines import Map, command
from support.proxy import FaultyEndpoint

from triocoro.recipes import CommandFailedError, NotPrimaryError, Replica, UncertainError, open_replica
from triocoro.recipes._frames import AskSnapshot
from triocoro.testing import Cluster, Node

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = pytest.mark.deadline(15)


async def replicas(stack: AsyncExitStack, cluster: Cluster, *nodeids: int, **arguments: Any) -> list[Replica[Map]]:
    """A member on each node, or on each of these, in the primary component."""
    nodes = [cluster[nodeid] for nodeid in nodeids or cluster.nodes]
    found = [
        await stack.enter_async_context(open_replica("store", Map(), endpoint=node, **arguments)) for node in nodes
    ]
    for replica in found:
        await replica.wait_primary()
    return found


def opener(node: Node, machine: Map | None = None) -> Callable[[], AbstractAsyncContextManager[Replica[Map]]]:
    return partial(open_replica, "store", Map() if machine is None else machine, endpoint=node)


async def get(replica: Replica[Map], key: str) -> Any:
    return await replica.read(lambda machine: machine.values.get(key))


async def put(replica: Replica[Map], key: str, value: object) -> None:
    """Put it, through whatever happens."""
    while True:
        await replica.wait_primary()
        try:
            await replica.execute(command("put", key, value))
        except (NotPrimaryError, UncertainError):
            continue
        return


# -- all is well -------------------------------------------------------------------------------------------------------


async def test_a_command_is_applied_by_all_and_its_result_comes_back(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await replicas(stack, corosync_cluster)
        assert await first.execute(command("put", "x", 1)) == b"null"
        assert await second.execute(command("cas", "x", 1, 2)) == b"true"
        assert await third.execute(command("cas", "x", 1, 3)) == b"false"
        assert [await get(replica, "x") for replica in (first, second, third)] == [2, 2, 2]
        assert first.machine.applied == second.machine.applied == third.machine.applied
        assert all(replica.primary for replica in (first, second, third))


async def test_reads_see_what_was_acknowledged_before_and_local_ones_may_not(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        for number in range(30):
            await first.execute(command("put", "x", number))
            assert await get(second, "x") == number
            assert second.machine.values["x"] == number


async def test_a_thousand_at_once_are_applied_in_their_order(corosync_cluster: Cluster) -> None:
    results: dict[int, bytes] = {}

    async def execute(replica: Replica[Map], number: int, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        results[number] = await replica.execute(command("cas", "x", number - 1 if number else None, number))

    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:
            for number in range(1000):
                await nursery.start(execute, first, number)
        assert await get(second, "x") == 999
    assert set(results.values()) == {b"true"}


async def test_wait_for_a_condition_of_the_machine(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _wait() -> None:
                await second.wait(lambda machine: machine.values.get("x") == 3)
                assert second.machine.values["x"] == 3

            for number in range(4):
                await first.execute(command("put", "x", number))
                if number < 3:
                    await trio.testing.wait_all_tasks_blocked()


async def test_a_command_that_raises_gives_the_same_error_and_state_everywhere(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        for count, replica in enumerate((first, second), 1):
            with pytest.raises(CommandFailedError, match="KeyError: 'no'"):
                await replica.execute(command("fail", "no"))
            assert [await get(it, "failed") for it in (first, second)] == [count, count]
        await first.execute(command("put", "x", 1))
        assert await get(second, "x") == 1


async def test_a_query_that_raises_raises_from_read(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await replicas(stack, corosync_cluster)
        with pytest.raises(KeyError, match="nothing"):
            await first.read(lambda machine: machine.values["nothing"])
        assert await get(first, "nothing") is None


# -- ids of commands ---------------------------------------------------------------------------------------------------


async def test_a_command_with_an_id_is_applied_once(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        assert await first.execute(command("cas", "x", None, 1), id=b"one") == b"true"
        assert await first.execute(command("cas", "x", None, 1), id=b"one") == b"true"  # the result of the first time
        assert await second.execute(command("cas", "x", None, 1), id=b"one") == b"true"
        assert await second.execute(command("cas", "x", None, 1), id=b"two") == b"false"
        for _ in range(2):
            with pytest.raises(CommandFailedError):
                await first.execute(command("fail", "no"), id=b"three")
        assert await get(second, "failed") == 1


async def test_ids_are_remembered_by_members_that_join(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = [await begin(nursery, opener(node)) for node in corosync_cluster.nodes.values()]
        await members[0].recipe.wait_primary()
        await members[0].recipe.execute(command("cas", "x", None, 1), id=b"one")
        await members[1].end()
        await put(members[0].recipe, "y", 1)
        late = (await begin(nursery, opener(corosync_cluster[2]))).recipe
        await late.wait_primary()
        assert late.machine.restores == 1
        assert await late.execute(command("cas", "x", None, 1), id=b"one") == b"true"
        assert [len(it.recipe.machine.applied) for it in members[::2]] == [2, 2]
        assert late.machine.applied == []


async def test_a_retry_after_an_uncertain_end_is_applied_once(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        await first.execute(command("put", "x", 0))
        for node in (2, 3):
            await corosync_cluster[node].freeze()
        with pytest.raises(UncertainError):
            await first.execute(command("cas", "x", 0, 1), id=b"one")
        for node in (2, 3):
            await corosync_cluster[node].thaw()
        while True:
            await first.wait_primary()
            try:
                result = await first.execute(command("cas", "x", 0, 1), id=b"one")
                break
            except (NotPrimaryError, UncertainError):
                pass
        assert result == b"true"
        assert await get(second, "x") == 1
        assert second.machine.applied.count(command("cas", "x", 0, 1)) == 1


# -- members that come and go ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 3_000_000])
async def test_a_joiner_gets_the_state_while_commands_go_on(corosync_cluster: Cluster, padding: int) -> None:
    done = trio.Event()
    written = 0

    async def write(replica: Replica[Map]) -> None:
        nonlocal written
        while not done.is_set():
            await put(replica, "x", written)
            await put(replica, f"{written}", written)
            written += 1
            await trio.lowlevel.checkpoint()

    async with applications() as nursery:
        members = [await begin(nursery, opener(node, Map(padding))) for node in corosync_cluster.nodes.values()]
        await members[0].recipe.wait_primary()
        await put(members[0].recipe, "before", 1)
        await members[1].end()
        async with trio.open_nursery() as writers:
            writers.start_soon(write, members[0].recipe)
            late = (await begin(nursery, opener(corosync_cluster[2]))).recipe
            await late.wait_primary()
            await get(late, "x")
            done.set()
        assert late.machine.restores == 1
        assert await late.read(lambda machine: machine.values) == members[0].recipe.machine.values
        assert (await get(late, "before"), await get(late, "x")) == (1, written - 1)


async def test_the_holder_that_sends_the_state_dies_in_the_midst(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = {
            nodeid: await begin(nursery, opener(node, Map(3_000_000)))
            for nodeid, node in corosync_cluster.nodes.items()
        }
        await members[1].recipe.wait_primary()
        await put(members[1].recipe, "x", 1)
        await members[2].end()
        await put(members[1].recipe, "y", 1)
        endpoint = FaultyEndpoint(corosync_cluster[2].endpoint)
        parts = 0
        some = trio.Event()

        def see(payload: bytes) -> bool:
            nonlocal parts
            parts += payload[5] == AskSnapshot.KIND
            if parts == 3:
                some.set()
            return False

        endpoint.faults.drop = see
        late = (await begin(nursery, partial(open_replica, "store", Map(), endpoint=endpoint))).recipe
        await some.wait()
        assert late.machine.restores == 0
        await corosync_cluster[1].kill()
        await corosync_cluster[1].start()
        await late.wait_primary()
        assert [await get(late, key) for key in ("x", "y")] == [1, 1]
        assert late.machine.restores == 1


async def test_a_member_that_comes_back_from_a_minority_has_what_the_others_have(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await replicas(stack, corosync_cluster)
        await put(first, "x", "before")
        await corosync_cluster.isolate(1)
        await put(second, "x", "while")
        await no_longer_primary(first)
        with pytest.raises(NotPrimaryError, match="no majority"):
            await first.execute(command("put", "x", "never"))
        with pytest.raises(NotPrimaryError, match="no majority"):
            await get(first, "x")
        assert first.machine.values == {"x": "before"}  # a local read may be stale, and says nothing
        await corosync_cluster.heal()
        await first.wait_primary()
        assert await get(first, "x") == "while"
        assert first.machine.restores == 0  # the entries were enough
        assert first.machine.values == third.machine.values


@pytest.mark.long
@pytest.mark.deadline(60)
async def test_a_member_that_was_away_for_long_gets_a_snapshot(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        await put(first, "x", "before")
        await corosync_cluster.isolate(1)
        for number in range(2100):  # more than twice what is kept
            await put(second, f"{number % 7}", number)
        await corosync_cluster.heal()
        await first.wait_primary()
        assert await first.read(lambda machine: machine.values) == second.machine.values
        assert first.machine.restores == 1


async def test_all_applications_restart_one_after_the_other_and_keep_the_state(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = {nodeid: await begin(nursery, opener(node)) for nodeid, node in corosync_cluster.nodes.items()}
        await put(members[1].recipe, "x", 1)
        for nodeid, other in ((1, 2), (2, 3), (3, 1)):
            await members[nodeid].end()
            await put(members[other].recipe, f"{nodeid}", "down")
            members[nodeid] = await begin(nursery, opener(corosync_cluster[nodeid]))
            await members[nodeid].recipe.wait_primary()
        for member in members.values():
            values = await member.recipe.read(lambda machine: dict(machine.values))
            assert values == {"x": 1, "1": "down", "2": "down", "3": "down"}


async def test_all_daemons_restart_and_the_state_stays(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        found = await replicas(stack, corosync_cluster)
        await put(found[0], "x", 1)
        for node in corosync_cluster.nodes.values():
            await node.kill()
        for replica in found:
            await no_longer_primary(replica)
        for node in corosync_cluster.nodes.values():
            await node.start()
        for replica in found:
            await replica.wait_primary()
            assert await get(replica, "x") == 1
            assert replica.machine.restores == 0


async def test_no_member_applies_what_a_minority_has_alone(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, third = await replicas(stack, corosync_cluster)
        await put(first, "x", 0)
        for node in (2, 3):
            await corosync_cluster[node].freeze()
        with pytest.raises(UncertainError):
            await first.execute(command("put", "x", 1))
        assert first.machine.values["x"] == 0
        for node in (2, 3):
            await corosync_cluster[node].thaw()
        await put(second, "y", 1)
        for replica in (first, third):
            await replica.wait(lambda machine: "y" in machine.values)
        assert first.machine.applied == second.machine.applied == third.machine.applied


async def test_a_cancelled_command_is_applied_once_or_not_at_all(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        for number in range(20):
            with trio.CancelScope() as scope:  # noqa: ASYNC912 - others cancel it
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(first.execute, command("put", f"{number}", number))
                    for _ in range(number % 7):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
        await put(first, "last", 1)
        await second.wait(lambda machine: "last" in machine.values)
        assert len(set(second.machine.applied)) == len(second.machine.applied)
        assert first.machine.applied == second.machine.applied


# -- the machine -------------------------------------------------------------------------------------------------------


class Chunks(Map):
    """Whose snapshot comes in chunks of all kinds, and lazily."""

    def snapshot(self) -> Iterable[bytes]:
        data = json.dumps([self.count, self.values]).encode()
        return (data[at : at + 3] for at in range(0, len(data), 3))


async def test_a_lazy_snapshot_is_that_of_its_moment(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = [await begin(nursery, opener(node, Chunks())) for node in corosync_cluster.nodes.values()]
        await members[0].recipe.wait_primary()
        async with trio.open_nursery() as writers:
            for number in range(500):
                writers.start_soon(members[0].recipe.execute, command("put", f"key {number}", number))
        await members[2].end()
        await put(members[0].recipe, "x", 1)
        late = (await begin(nursery, opener(corosync_cluster[3], Chunks()))).recipe
        await late.wait_primary()
        assert await late.read(lambda machine: machine.values) == members[0].recipe.machine.values


class Wordy:
    """Counts commands, with results that fill parts of a snapshot."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, _command: bytes) -> bytes:
        self.count += 1
        return bytes(100_000)

    def snapshot(self) -> Iterable[bytes]:
        return (str(self.count).encode(),)

    def restore(self, chunks: Iterable[bytes]) -> None:
        self.count = int(b"".join(chunks))


async def test_a_snapshot_with_many_results_is_that_of_its_moment(corosync_cluster: Cluster) -> None:
    """The results are sent before the state, while commands are applied."""
    nodes = [1, 2]
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(
                open_replica("words", Wordy(), nodes=nodes, endpoint=corosync_cluster[nodeid])
            )
            for nodeid in nodes
        ]
        await first.wait_primary()
        for _ in range(30):
            await first.ensure(b"")
        late = await stack.enter_async_context(
            open_replica("words", Wordy(), nodes=nodes, endpoint=corosync_cluster[3])
        )
        async with trio.open_nursery() as nursery:

            async def write() -> None:
                while True:
                    await first.execute(b"")

            for _ in range(4):
                nursery.start_soon(write)
            await late.wait_primary()
            nursery.cancel_scope.cancel()
        counts = [await replica.read(lambda machine: machine.count) for replica in (first, second, late)]
        assert counts[0] > 30
        assert len(set(counts)) == 1


class Broken(Map):
    """Whose snapshot cannot be taken back."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        b"".join(chunks)
        raise RuntimeError("broken")


async def test_an_error_of_restore_comes_out_of_the_block(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        members = [await begin(nursery, opener(node)) for node in corosync_cluster.nodes.values()]
        await put(members[0].recipe, "x", 1)
        await members[2].end()
        await put(members[0].recipe, "x", 2)
        with pytest.raises(RuntimeError, match="broken"):
            async with open_replica("store", Broken(), endpoint=corosync_cluster[3]) as late:
                await late.wait_primary()
        await put(members[0].recipe, "x", 3)  # the others go on


class Unable(Map):
    """Whose snapshot cannot be made."""

    def snapshot(self) -> Iterable[bytes]:
        raise RuntimeError("unable")


async def test_an_error_of_snapshot_comes_out_of_the_block_of_the_one_whose_it_is(corosync_cluster: Cluster) -> None:
    async with applications() as nursery:
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: ASYNC401 - of any depth
            async with trio.open_nursery() as holders:
                members = [await begin(holders, opener(node, Unable())) for node in corosync_cluster.nodes.values()]
                await put(members[0].recipe, "x", 1)
                await members[2].end()
                await put(members[0].recipe, "x", 2)
                await begin(nursery, opener(corosync_cluster[3]))
                await trio.sleep_forever()
        assert caught.value.split(RuntimeError)[1] is None


class Wholesale(Map):
    """Whose snapshot is no chunks."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole = whole

    def snapshot(self) -> Iterable[bytes]:
        return self.whole  # type: ignore[no-any-return]


@pytest.mark.corosync_fake_only(reason="it is the same code for all clusters")
@pytest.mark.parametrize(
    "whole, message",
    [
        (b"state", r"must return chunks, such as \[data\], not bytes"),
        (None, "must return chunks"),
        (["text"], "as a chunk of snapshot"),
    ],
)
async def test_a_snapshot_that_is_no_chunks_of_bytes_is_an_error_that_says_so(
    corosync_cluster: Cluster, whole: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        async with open_replica("store", Wholesale(whole), nodes=[1], endpoint=corosync_cluster[1]) as holder:
            await holder.wait_primary()
            async with open_replica("store", Map(), nodes=[1], endpoint=corosync_cluster[2]) as joiner:
                await joiner.wait_primary()


class UnspeakableError(Exception):
    """Which has no text."""

    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.corosync_fake_only(reason="it is the same code for all clusters")
@pytest.mark.parametrize(
    "error", [UnspeakableError(), ValueError("a lone surrogate, \udcff"), ValueError("x" * 10_000_000)]
)
async def test_an_error_of_a_command_that_cannot_be_told_harms_no_member(
    corosync_cluster: Cluster, error: Exception
) -> None:
    class Failing(Map):
        def apply(self, command: bytes) -> bytes:
            super().apply(command)
            raise error

    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(open_replica("store", Failing(), endpoint=node))
            for node in corosync_cluster.nodes.values()
        ]
        await found[0].wait_primary()
        for replica in found:
            with pytest.raises(CommandFailedError, match=type(error).__name__) as caught:
                await replica.execute(command("put", "x", 1))
            assert len(str(caught.value)) < 5000


@pytest.mark.corosync_fake_only(reason="it is the same code for all clusters")
@pytest.mark.parametrize("result", [None, "text", 5, object()])
async def test_a_result_that_is_not_bytes_is_an_error_of_the_command(corosync_cluster: Cluster, result: Any) -> None:
    class Odd(Map):
        def apply(self, command: bytes) -> bytes:
            super().apply(command)
            return result  # type: ignore[no-any-return]

    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(open_replica("store", Odd(), endpoint=node))
            for node in corosync_cluster.nodes.values()
        ]
        await found[0].wait_primary()
        with pytest.raises(CommandFailedError, match="TypeError"):
            await found[0].execute(command("get", "x"))


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("payload", ["text", None, 5, [1], object()])
async def test_a_command_of_a_wrong_type_is_refused_before_anything_is_sent(
    corosync_cluster: Cluster, payload: Any
) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await replicas(stack, corosync_cluster)
        with pytest.raises(TypeError):
            await first.execute(payload)
        await first.execute(command("put", "x", 1))
        assert first.machine.applied == [command("put", "x", 1)]


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("key", ["text", 5, b"", b"x" * 256, [b"x"], bytearray()])
async def test_an_id_that_cannot_be_is_refused_before_anything_is_sent(corosync_cluster: Cluster, key: Any) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await replicas(stack, corosync_cluster)
        with pytest.raises((TypeError, ValueError)):
            await first.execute(command("put", "x", 1), id=key)
        assert await get(first, "x") is None


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
async def test_a_query_that_cannot_be_called_is_refused(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, *_ = await replicas(stack, corosync_cluster)
        with pytest.raises(TypeError):
            await first.read("x")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await first.wait("x")  # type: ignore[arg-type]


@pytest.mark.corosync_fake_only(reason="arguments are checked before anything is sent")
@pytest.mark.parametrize("machine", [None, object(), dict, Map])
async def test_a_machine_that_is_none_is_refused(corosync: Node, machine: Any) -> None:
    with pytest.raises(TypeError):
        async with open_replica("store", machine, endpoint=corosync):
            pass


async def test_the_largest_command(corosync_cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        first, second, _ = await replicas(stack, corosync_cluster)
        await first.execute(command("put", "x", "y" * 500_000))
        assert await get(second, "x") == "y" * 500_000
        with pytest.raises(ValueError, match="the largest"):
            await first.execute(bytes(600_000))
