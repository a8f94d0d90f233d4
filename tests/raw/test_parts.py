"""A member ends in the midst of a fragmented message of another one: the library would keep its parts for ever."""

from __future__ import annotations

import ctypes
from contextlib import suppress

import pytest
import trio
from support.raw_handles import joined

import triocoro
from triocoro import InterruptedSendError
from triocoro.testing import Cluster

pytestmark = [pytest.mark.corosync(nodes=2), pytest.mark.corosync_real_only(reason="a fake's messages have no parts")]

SIZE = 4_000_000
ROUNDS = 8


class _Allocations(ctypes.Structure):
    """The result of mallinfo2(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def allocated() -> int:
    """Bytes that are allocated in this process."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Allocations
    found = mallinfo2()
    return int(found.uordblks + found.hblkhd)


async def send_for_ever(cluster: Cluster) -> None:
    async with triocoro.open_group("g", endpoint=cluster[1].endpoint, receive=False) as sender:
        payload = bytes(SIZE)
        while True:  # noqa: ASYNC913 - sending is a checkpoint
            with suppress(InterruptedSendError):  # each join interrupts it, and each leave that cannot wait
                await sender.send(payload)


async def end_raw(cluster: Cluster, *, leave: bool) -> None:
    raw = await joined(cluster[2].endpoint)
    while not raw.assembling:
        await trio.lowlevel.wait_readable(raw.fileno())
        raw.dispatch(1, 1)
    trio.lowlevel.notify_closing(raw.fileno())
    raw.close(leave=leave)
    await raw.wait_closed()


async def end_block(cluster: Cluster) -> None:
    """Two whole messages, so that the end is somewhere in the midst of the third one."""
    async with triocoro.open_group("g", endpoint=cluster[2].endpoint) as group:
        for _ in range(3):
            await group.receive()


@pytest.mark.parametrize("end", ["close", "leave and close", "block"])
async def test_the_parts_of_a_message_are_freed(corosync_cluster: Cluster, end: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_for_ever, corosync_cluster)
        before = 0
        for number in range(ROUNDS + 2):
            if end == "block":
                await end_block(corosync_cluster)
            else:
                await end_raw(corosync_cluster, leave=end != "close")
            if number == 1:
                before = allocated()
        assert allocated() - before < 4 * SIZE
        nursery.cancel_scope.cancel()
