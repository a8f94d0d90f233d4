"""CPG through lowlevel: each kind of dispatch, and callbacks that raise, leave, finalize or are cancelled."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from support import proxy
from support.cpg_handle import Record, into
from support.proxy import FaultyEndpoint

import triocoro
from triocoro import (
    Address,
    ConfigChange,
    Message,
    Reason,
    lowlevel,
)
from triocoro.lowlevel import CpgHandle, CpgModelFlag, Dispatch, IterationType
from triocoro.testing import Cluster, Node

# A recorded handle asks for one more event, and hides it: on real nodes that can be seen at this level.
pytestmark = pytest.mark.deadline(20)


@asynccontextmanager
async def joined(record: Record, group: str = "g", **options: Any) -> AsyncGenerator[CpgHandle, None]:
    """A handle in a group, with the configuration change of its join dispatched, and every event noted."""
    note = into(record)
    callbacks: dict[str, Any] = {"deliver": note, "confchg": note, "totem_confchg": note}
    handle = await lowlevel.cpg_initialize(**callbacks | options)
    try:
        await handle.join(group)
        while not any(isinstance(event, ConfigChange) for event in record):
            await handle.dispatch(Dispatch.ONE)
        record.clear()
        yield handle
    finally:
        await handle.finalize()


async def fill(handle: CpgHandle, count: int) -> None:
    """Have `count` messages wait to be dispatched."""
    for number in range(count):
        await handle.mcast_joined(b"%d" % number)
    # The daemon handles requests in order, so by the answer it has taken them; the ring brings them back.
    while handle._connection.waiting() < count:
        await handle.local_get()


def payloads(record: Record) -> list[bytes]:
    return [event.payload for event in record if isinstance(event, Message)]


@pytest.mark.usefixtures("corosync")
async def test_one_waits_for_one_callback() -> None:
    record: Record = []
    async with joined(record) as handle:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.dispatch, Dispatch.ONE)
            await trio.testing.wait_all_tasks_blocked()
            assert record == []
            await handle.mcast_joined(b"0")
        assert payloads(record) == [b"0"]
        record.clear()
        await fill(handle, 3)
        await handle.dispatch(Dispatch.ONE)
        assert payloads(record) == [b"0"]


@pytest.mark.usefixtures("corosync")
async def test_all_takes_what_waits_and_does_not_wait() -> None:
    record: Record = []
    async with joined(record) as handle:
        await handle.dispatch(Dispatch.ALL)
        assert record == []
        await fill(handle, 20)
        await handle.dispatch(Dispatch.ALL)
        assert payloads(record) == [b"%d" % i for i in range(20)]


@pytest.mark.usefixtures("corosync")
async def test_all_returns_under_a_flood() -> None:
    """Each callback sends another message: there is always one that waits."""
    seen: list[bytes] = []
    handle: CpgHandle

    async def deliver(message: Message) -> None:
        seen.append(message.payload)
        await handle.mcast_joined(b"again")
        while not handle._connection.waiting():
            await handle.local_get()

    handle = await lowlevel.cpg_initialize(deliver=deliver)
    try:
        await handle.join("g")
        await fill(handle, 11)  # the join's configuration change among them
        await handle.dispatch(Dispatch.ALL)
        assert 10 <= len(seen) <= 11
        # It has left what the callbacks sent, which is all coming back.
        while handle._connection.waiting() < 10:
            await handle.local_get()
    finally:
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_blocking_goes_on_until_finalized() -> None:
    record: Record = []
    done = trio.Event()

    async def dispatch(handle: CpgHandle) -> None:
        await handle.dispatch(Dispatch.BLOCKING)
        done.set()

    async with joined(record) as handle, trio.open_nursery() as nursery:
        nursery.start_soon(dispatch, handle)
        for number in range(5):
            await handle.mcast_joined(b"%d" % number)
        while len(record) < 5:
            await trio.testing.wait_all_tasks_blocked(0.001)
        assert not done.is_set()
        await handle.finalize()
        await done.wait()
    assert payloads(record) == [b"%d" % i for i in range(5)]


@pytest.mark.usefixtures("corosync")
async def test_one_nonblocking_takes_one_or_says_try_again() -> None:
    record: Record = []
    async with joined(record) as handle:
        with pytest.raises(triocoro.TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        await fill(handle, 2)
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        assert payloads(record) == [b"0"]
        await handle.dispatch(Dispatch.ONE_NONBLOCKING)
        assert payloads(record) == [b"0", b"1"]
        with pytest.raises(triocoro.TryAgainError):
            await handle.dispatch(Dispatch.ONE_NONBLOCKING)


@pytest.mark.usefixtures("corosync")
async def test_an_unknown_type_is_refused() -> None:
    record: Record = []
    async with joined(record) as handle:
        with pytest.raises(ValueError, match="5"):
            await handle.dispatch(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.usefixtures("corosync")
async def test_events_without_a_callback_are_passed_over() -> None:
    record: Record = []
    handle = await lowlevel.cpg_initialize(deliver=into(record))
    try:
        await handle.join("g")
        await handle.mcast_joined(b"x")
        # The configuration change of our join comes first, and has no callback.
        await handle.dispatch(Dispatch.ONE)
        assert payloads(record) == [b"x"]
    finally:
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
async def test_an_exception_of_a_callback_comes_out_and_its_event_is_consumed(kind: Dispatch) -> None:
    record: Record = []

    async def deliver(message: Message) -> None:
        record.append(message)
        if message.payload == b"1":
            raise KeyError("mine")

    async with joined(record, deliver=deliver) as handle:
        await fill(handle, 3)
        if kind in (Dispatch.ONE, Dispatch.ONE_NONBLOCKING):
            await handle.dispatch(kind)
        with pytest.raises(KeyError, match="mine"):
            await handle.dispatch(kind)
        assert payloads(record) == [b"0", b"1"]
        await handle.dispatch(Dispatch.ALL)
        assert payloads(record) == [b"0", b"1", b"2"]


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
async def test_a_cancelled_callback_has_had_its_event(kind: Dispatch) -> None:
    record: Record = []
    scope = trio.CancelScope()

    async def deliver(message: Message) -> None:
        record.append(message)
        if message.payload == b"0":
            scope.cancel()
            await trio.sleep_forever()

    async with joined(record, deliver=deliver) as handle:
        await fill(handle, 2)
        with scope:
            await handle.dispatch(kind)
        assert scope.cancelled_caught
        await handle.dispatch(Dispatch.ALL)
        assert payloads(record) == [b"0", b"1"]


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
async def test_a_dispatch_cancelled_before_has_consumed_nothing(kind: Dispatch) -> None:
    record: Record = []
    async with joined(record) as handle:
        await fill(handle, 2)
        with trio.CancelScope() as scope:
            scope.cancel()
            await handle.dispatch(kind)
        assert scope.cancelled_caught
        assert record == []
        await handle.dispatch(Dispatch.ALL)
        assert payloads(record) == [b"0", b"1"]


@pytest.mark.usefixtures("corosync")
async def test_a_callback_may_use_its_handle_but_not_dispatch_it() -> None:
    record: Record = []
    handle: CpgHandle

    async def deliver(message: Message) -> None:
        record.append(message)
        if message.payload == b"start":
            await handle.mcast_joined(b"sent by a callback")
            assert await handle.membership_get("g") == (Address(await handle.local_get(), os.getpid()),)
            with pytest.raises(trio.BusyResourceError):
                await handle.dispatch(Dispatch.ALL)

    async with joined(record, deliver=deliver) as handle:
        await handle.mcast_joined(b"start")
        await handle.dispatch(Dispatch.ONE)
        await handle.dispatch(Dispatch.ONE)
    assert payloads(record) == [b"start", b"sent by a callback"]


@pytest.mark.usefixtures("corosync")
async def test_a_callback_that_leaves() -> None:
    record: Record = []
    handle: CpgHandle

    async def deliver(message: Message) -> None:
        record.append(message)
        await handle.leave("g")

    async with joined(record, deliver=deliver) as handle:
        await handle.mcast_joined(b"x")
        await handle.dispatch(Dispatch.ONE)
        await handle.dispatch(Dispatch.ONE)
        assert isinstance(record[-1], ConfigChange)
        assert [change.reason for change in record[-1].left] == [Reason.LEAVE]
        with pytest.raises(triocoro.ExistError):
            await handle.join("g")


@pytest.mark.usefixtures("corosync")
async def test_a_callback_can_be_interrupted_from_the_keyboard() -> None:
    record: Record = []

    async def deliver(_: Message) -> None:
        record.append(trio.lowlevel.currently_ki_protected())

    async with joined(record, deliver=deliver) as handle:
        await handle.mcast_joined(b"x")
        await handle.dispatch(Dispatch.ONE)
    assert record == [False]


async def test_a_leave_that_was_refused_for_now_can_be_tried_again(corosync: Node) -> None:
    record: Record = []
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.leaves.append(triocoro.TryAgainError("cpg_leave: CS_ERR_TRY_AGAIN"))
    async with joined(record, endpoint=endpoint) as handle:
        with pytest.raises(triocoro.TryAgainError):
            await handle.leave("g")
        await handle.leave("g")
        await handle.dispatch(Dispatch.ONE)
    assert [change.reason for change in record[-1].left] == [Reason.LEAVE]


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
async def test_a_callback_that_finalizes_ends_the_dispatch(kind: Dispatch) -> None:
    record: Record = []
    handle: CpgHandle

    async def deliver(message: Message) -> None:
        record.append(message)
        await handle.finalize()

    async with joined(record, deliver=deliver) as handle:
        await fill(handle, 3)
        await handle.dispatch(kind)
        assert payloads(record) == [b"0"]
        with pytest.raises(trio.ClosedResourceError):
            await handle.dispatch(kind)


@pytest.mark.usefixtures("corosync")
@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
async def test_an_exception_of_a_callback_that_has_finalized_its_handle_comes_out(kind: Dispatch) -> None:
    record: Record = []
    handle: CpgHandle
    mine = trio.ClosedResourceError("mine")

    async def deliver(_: Message) -> None:
        await handle.finalize()
        raise mine

    async with joined(record, deliver=deliver) as handle:
        await fill(handle, 1)
        with pytest.raises(trio.ClosedResourceError) as caught:
            await handle.dispatch(kind)
    assert caught.value is mine


@pytest.mark.usefixtures("corosync")
async def test_two_dispatchers_at_once_are_refused() -> None:
    record: Record = []
    async with joined(record) as handle, trio.open_nursery() as nursery:
        nursery.start_soon(handle.dispatch, Dispatch.BLOCKING)
        await trio.testing.wait_all_tasks_blocked()
        for kind in Dispatch:
            with pytest.raises(trio.BusyResourceError):
                await handle.dispatch(kind)
        nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("corosync")
async def test_finalize_wakes_whoever_waits() -> None:
    record: Record = []
    async with joined(record) as handle, trio.open_nursery() as nursery:

        async def one() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await handle.dispatch(Dispatch.ONE)

        nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_the_fd_tells_whether_events_wait() -> None:
    record: Record = []
    async with joined(record) as handle:
        with trio.move_on_after(0) as scope:
            await trio.lowlevel.wait_readable(handle.fd)
        assert scope.cancelled_caught
        await handle.mcast_joined(b"x")
        await trio.lowlevel.wait_readable(handle.fd)
        assert record == []
        await handle.dispatch(Dispatch.ALL)
        assert payloads(record) == [b"x"]


@pytest.mark.usefixtures("corosync")
async def test_large_messages_take_many_dispatches_and_make_one_callback() -> None:
    record: Record = []
    payload = os.urandom(3 * 2**20)
    async with joined(record) as handle:
        await handle.mcast_joined(payload)
        await handle.dispatch(Dispatch.ONE)
        assert payloads(record) == [payload]


@pytest.mark.usefixtures("corosync")
async def test_cpg_calls_one_to_one() -> None:
    record: Record = []
    async with joined(record, flags=CpgModelFlag.DELIVER_INITIAL_TOTEM_CONF, context="mine") as handle:
        await handle.dispatch(Dispatch.ONE)
        assert isinstance(record[0], triocoro.TotemChange)
        assert handle.context == "mine"
        handle.context = 7
        assert handle.context == 7
        nodeid = await handle.local_get()
        me = Address(nodeid, os.getpid())
        assert await handle.membership_get(b"g") == (me,)
        assert handle.max_atomic_msgsize_get() == 1_047_552
        assert handle.flow_control_state_get() is lowlevel.FlowControlState.DISABLED
        for kind, group, address in (
            (IterationType.ALL, None, me),
            (IterationType.ONE_GROUP, "g", me),
            (IterationType.NAME_ONLY, None, None),
        ):
            assert await handle.iteration(kind, group) == [triocoro.GroupMember(b"g", address)]
        assert await handle.iteration(IterationType.ONE_GROUP, "other") == []
        with pytest.raises(triocoro.ExistError):
            await handle.join("g")
        with pytest.raises(triocoro.NotExistError):
            await handle.leave("other")
        await handle.leave("g")
        with pytest.raises(triocoro.NotExistError):
            await handle.leave("g")


async def test_finalize_without_leave_is_procdown(corosync_cluster: Cluster) -> None:
    seen: Record = []
    record: Record = []
    async with joined(seen, endpoint=corosync_cluster[2].endpoint) as other:
        async with joined(record):
            await other.dispatch(Dispatch.ONE)
        await other.dispatch(Dispatch.ONE)
    assert [change.reason for change in seen[-1].left] == [Reason.PROCDOWN]


@pytest.mark.usefixtures("corosync")
async def test_a_cancelled_join_is_undone() -> None:
    handle = await lowlevel.cpg_initialize()
    try:
        with trio.CancelScope() as scope:
            scope.cancel()
            await handle.join("g")
        with pytest.raises(triocoro.ExistError):
            await handle.join("g")
        async with triocoro.open_group("g") as group:
            assert group.view.members == (group.address,)
    finally:
        await handle.finalize()


@pytest.mark.usefixtures("corosync")
async def test_several_tasks_may_send_at_once() -> None:
    record: Record = []
    sent = [b"%d" % i for i in range(20)]
    async with joined(record) as handle:
        async with trio.open_nursery() as nursery:
            for payload in sent:
                nursery.start_soon(handle.mcast_joined, payload)
        while len(record) < len(sent):
            await handle.dispatch(Dispatch.ONE)
        assert sorted(payloads(record)) == sorted(sent)


async def test_several_tasks_may_wait_for_a_daemon_that_reads_no_requests(corosync: Node) -> None:
    record: Record = []
    sent: list[bytes] = []
    async with joined(record) as handle:

        async def send(payload: bytes) -> None:
            while payload not in sent:
                try:
                    await handle.mcast_joined(payload)
                except triocoro.TryAgainError:
                    await trio.sleep(0.001)
                else:
                    sent.append(payload)

        await corosync.freeze()
        async with trio.open_nursery() as nursery:
            for i in range(150):
                nursery.start_soon(send, b"%d" % i)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert len(sent) < 150
            await corosync.thaw()
        while len(payloads(record)) < 150:
            await handle.dispatch(Dispatch.ONE)
        assert payloads(record) == sent


@pytest.mark.parametrize("kind", [Dispatch.ONE, Dispatch.ALL, Dispatch.BLOCKING, Dispatch.ONE_NONBLOCKING])
async def test_a_dead_daemon_is_a_lost_connection(corosync: Node, kind: Dispatch) -> None:
    record: Record = []
    async with joined(record) as handle:
        await corosync.kill()
        await trio.lowlevel.wait_readable(handle.fd)
        with pytest.raises(triocoro.ConnectionLostError):
            await handle.dispatch(kind)
        with pytest.raises(triocoro.ConnectionLostError):
            await handle.local_get()
        with pytest.raises(triocoro.ConnectionLostError):
            await handle.mcast_joined(b"x")


async def test_a_buffer_whose_daemon_dies_ends_quietly(corosync: Node) -> None:
    """What is freed is free already; the next call tells."""
    async with joined([]) as handle:
        with pytest.raises(ZeroDivisionError):
            async with handle.zcb_alloc(100):
                await corosync.kill()
                raise ZeroDivisionError
        with pytest.raises(triocoro.ConnectionLostError):
            await handle.local_get()


async def test_a_buffer_is_freed_even_if_the_daemon_is_busy(corosync: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[memoryview] = []

    async def zcb_free(self: Any, buffer: memoryview) -> None:
        attempts.append(buffer)
        if len(attempts) < 3:
            raise triocoro.TryAgainError("cpg_zcb_free: CS_ERR_TRY_AGAIN")
        await self._raw.zcb_free(buffer)

    monkeypatch.setattr(proxy._CpgProxy, "zcb_free", zcb_free, raising=False)
    async with joined([], endpoint=FaultyEndpoint(corosync.endpoint)) as handle:
        async with handle.zcb_alloc(100) as buffer:
            pass
        assert len(attempts) == 3
        with pytest.raises(ValueError, match="released"):
            buffer[0] = 1
