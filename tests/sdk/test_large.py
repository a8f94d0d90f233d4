"""Large messages: no task waits while they are copied."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

import triocoro
from triocoro import Message, _gathering
from triocoro._gathering import gather, gather_each
from triocoro._types import Buffer
from triocoro._validate import MOST_COPIED

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
