"""Large messages: no task waits while they are copied."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from support.fixtures.figures import Bound

import triocoro
from triocoro import Message, _gathering, lowlevel
from triocoro._gathering import gather, gather_each
from triocoro._types import Buffer
from triocoro._validate import MOST_COPIED
from triocoro.testing import Node

MIB = 2**20


@asynccontextmanager
async def counting_turns() -> AsyncGenerator[Callable[[], int], None]:
    """Counts how often another task runs meanwhile."""
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_turns)
        yield lambda: turns
        nursery.cancel_scope.cancel()


GATHERED: dict[str, tuple[list[Buffer], bytes]] = {
    "bytearray": ([bytearray(b"x" * (5 * MIB + 1))], b"x" * (5 * MIB + 1)),
    "several": (
        [b"a" * (3 * MIB), bytearray(b"b"), b"", memoryview(b"c" * (2 * MIB))],
        b"a" * 3 * MIB + b"b" + b"c" * 2 * MIB,
    ),
    "every second byte": ([memoryview(b"ab" * (3 * MIB))[::2]], b"a" * 3 * MIB),
    "integers": ([memoryview(bytearray(b"abcd" * MIB)).cast("I")], b"abcd" * MIB),
    "a matrix": ([memoryview(bytes(4 * MIB)).cast("B", (2 * MIB, 2))], bytes(4 * MIB)),
    "nothing": ([], b""),
}


@pytest.mark.parametrize("buffers, payload", GATHERED.values(), ids=GATHERED)
async def test_buffers_are_gathered_piece_by_piece(buffers: list[Buffer], payload: bytes) -> None:
    async with counting_turns() as turns:
        assert await gather(buffers) == payload
        assert turns() >= len(payload) // _gathering.PIECE - 1  # Trio shuffles the two tasks


async def test_messages_of_a_batch_are_copied_a_few_at_a_time() -> None:
    messages = [bytearray(300_000)] * 20
    async with counting_turns() as turns:
        assert await gather_each(messages) == [bytes(300_000)] * 20
        assert turns() >= 4


@pytest.mark.usefixtures("corosync")
async def test_a_large_bytearray_is_sent() -> None:
    payload = bytearray(b"x" * (MOST_COPIED + 1))
    async with triocoro.open_group("g") as group:
        message = Message(group.address, bytes(payload))
        await group.send(payload)
        await group.send_batch([payload])
        assert await group.send_and_wait(payload) == message
        assert [await group.receive() for _ in range(4)] == [group.view, message, message, message]


@pytest.mark.usefixtures("corosync")
async def test_a_large_bytearray_is_not_copied_where_it_cannot_be_sent() -> None:
    payload = bytearray(MOST_COPIED + 1)
    async with triocoro.open_group("g") as group:
        with pytest.raises(trio.WouldBlock):
            group.send_nowait(payload)
    with pytest.raises(trio.ClosedResourceError):
        group.send_nowait(payload)


@pytest.mark.usefixtures("corosync")
async def test_a_send_that_is_cancelled_while_it_copies_sends_nothing() -> None:
    async with triocoro.open_group("g") as group:
        with trio.CancelScope() as scope:
            scope.cancel()
            await group.send(bytearray(MOST_COPIED + 1))
        assert scope.cancelled_caught
        assert group.statistics().sent == 0


# -- receiving ---------------------------------------------------------------------------------------------------------


@pytest.mark.deadline(30)
async def test_a_huge_message_is_delivered_as_it_was_sent(corosync: Node) -> None:
    payload = os.urandom(10 * MIB + 13)
    async with triocoro.open_group("g", endpoint=corosync.endpoint) as group:
        await group.receive()
        for _ in range(2):
            await group.send(payload)
        await group.send(b"next")
        message = Message(group.address, payload)
        assert [await group.receive() for _ in range(3)] == [message, message, Message(group.address, b"next")]
        await group.send_and_wait(payload)
        assert group.statistics().lost == group.statistics().outstanding == 0


@pytest.mark.usefixtures("corosync")
async def test_a_huge_message_in_the_c_api() -> None:
    payload = os.urandom(9 * MIB)
    received: list[bytes] = []

    async def deliver(message: Message) -> None:
        received.append(message.payload)

    async def ignore(_: triocoro.ConfigChange) -> None:
        await trio.lowlevel.checkpoint()

    handle = await lowlevel.cpg_initialize(deliver=deliver, confchg=ignore)
    await handle.join("g")
    await handle.dispatch(lowlevel.Dispatch.ONE)  # our join, which would interrupt the message
    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.mcast_joined, payload)
        while not received:
            await handle.dispatch(lowlevel.Dispatch.ONE)
    assert received == [payload]
    await handle.finalize()


@pytest.mark.corosync_real_only(reason="the fake passes a message on without a copy")
@pytest.mark.usefixtures("corosync")
async def test_a_huge_message_is_copied_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    from triocoro._corosync import _arena

    copies: list[int] = []

    class Pages(_arena.Pages):
        def copy_some(self) -> bool:
            copies.append(turns())
            return super().copy_some()

    monkeypatch.setattr(_arena, "Pages", Pages)
    payload = bytes(20 * MIB)
    async with triocoro.open_group("g") as group, counting_turns() as turns:
        assert (await group.send_and_wait(payload)).payload == payload
        assert len(copies) == len(payload) // _arena.PIECE
        # Trio shuffles the two tasks, so one may have two turns in a row.
        assert all(copies[index] < copies[index + 2] for index in range(len(copies) - 2))


@pytest.mark.skipif(os.environ.get("BOUNDS") != "only", reason="it takes long; for `make bounds`")
@pytest.mark.parametrize("kind", [bytes, bytearray])
async def test_a_ticker_beside_a_huge_message(
    corosync: Node, corosync_mode: str, kind: type[bytes | bytearray], bound: Bound
) -> None:
    payload = kind(200_000_000)
    lateness: list[float] = []

    async def tick() -> None:
        while True:
            due = trio.current_time() + 0.005
            await trio.sleep_until(due)
            lateness.append(trio.current_time() - due)

    async with (
        triocoro.open_group("g", endpoint=corosync.endpoint, max_buffered_bytes=2**30) as group,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(tick)
        await group.send_and_wait(payload)
        nursery.cancel_scope.cancel()
    bound(f"200 MB as {kind.__name__}, {corosync_mode}: ms that a ticker is late", max(lateness) * 1000, 50)
