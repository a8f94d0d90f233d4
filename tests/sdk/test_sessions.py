"""`sessions` connects again after each loss, and lets out every error but the losses of its own connections."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing
from support.groups import raises_group
from support.proxy import FaultyEndpoint

import triocoro
from triocoro import (
    AccessError,
    ConfigChange,
    ConnectionLostError,
    CorosyncError,
    CorosyncUnavailableError,
    Endpoint,
    ExistError,
    LibraryError,
    NotSupportedError,
    Quorum,
    ServiceSpec,
    Session,
)
from triocoro.testing import Cluster, Node
from triocoro.testing._history.recording import EndpointWrapper

pytestmark = pytest.mark.deadline(30)

RawT = TypeVar("RawT")


class RefusingEndpoint(EndpointWrapper):
    """An endpoint whose connects fail with the given errors, one after another, before they succeed."""

    def __init__(self, endpoint: Endpoint, *errors: CorosyncError) -> None:
        super().__init__(endpoint)
        self.errors = list(errors)

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return await self._endpoint.connect(service)


async def until_lost(node: Node) -> None:
    """Kill the daemon, and wait to be cancelled."""
    await node.kill()
    await trio.sleep_forever()


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise KeyError("mine")


def lose(quorum: Quorum) -> None:
    """Let a connection notice a loss that the others do not notice."""
    quorum._connection.lifetime.lose(LibraryError("it was cut off"))


# -- going on ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_the_loop_goes_on_with_a_new_membership(corosync: Node, end: str) -> None:
    epochs: list[int] = []
    async for session in triocoro.sessions("g"):
        async with session as group:
            epochs.append(session.epoch)
            joined = await group.receive()
            assert isinstance(joined, ConfigChange)
            assert [change.address for change in joined.joined] == [group.address]
            message = await group.send_and_wait(b"%d" % session.epoch)
            assert await group.receive() == message
            assert session.lost is None
            if session.epoch == 3:
                break
            with trio.CancelScope(shield=True):
                await getattr(corosync, end)()
            await trio.sleep_forever()
        assert isinstance(session.lost, ConnectionLostError)
        await corosync.start()
    assert epochs == [1, 2, 3]


@pytest.mark.parametrize(
    "opener, arguments",
    [
        (triocoro.open_cpg, ()),
        (triocoro.open_votequorum, ()),
        (triocoro.open_quorum, ()),
        (triocoro.open_cmap, (triocoro.CmapMap.STATS,)),
        (triocoro.open_cfg, ()),
    ],
)
async def test_it_works_for_every_service(
    corosync: Node, opener: Callable[..., AbstractAsyncContextManager[object]], arguments: tuple[object, ...]
) -> None:
    async for session in triocoro.sessions(opener, *arguments, endpoint=corosync.endpoint):
        async with session as service:
            assert type(service).__module__ == "triocoro"
            if session.epoch == 2:
                return
            await until_lost(corosync)
        assert type(session.lost) is ConnectionLostError
        await corosync.start()


async def test_entering_waits_for_the_daemon_and_says_so(corosync: Node, caplog: pytest.LogCaptureFixture) -> None:
    await corosync.stop()
    entered = trio.Event()

    async def join() -> None:
        async for session in triocoro.sessions("g"):
            async with session:
                entered.set()
                return

    with caplog.at_level(logging.WARNING, "triocoro"):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(join)
            while not caplog.records:
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.001)
            assert not entered.is_set()
            await corosync.start()
    assert entered.is_set()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no Corosync daemon answers" in caplog.text


async def test_waiting_can_be_cancelled(corosync: Node) -> None:
    await corosync.stop()
    sessions: list[Session[object]] = []
    with trio.move_on_after(0.1) as scope:
        async for session in triocoro.sessions(triocoro.open_cpg):
            sessions.append(session)
            async with session:
                raise AssertionError("no daemon runs")
    assert scope.cancelled_caught
    with pytest.raises(RuntimeError, match="can be entered once"):
        await sessions[0].__aenter__()


@pytest.mark.usefixtures("corosync")
async def test_a_block_that_ends_leaves_and_the_next_one_joins_at_once() -> None:
    ended: list[Session[triocoro.Group]] = []
    async for session in triocoro.sessions("g", receive=False):
        async with session as group:
            assert group.view.members == (group.address,)
        ended.append(session)
        if session.epoch == 20:
            break
    assert [session.lost for session in ended] == [None] * 20


async def test_unconfirmed_messages_are_counted(corosync: Node) -> None:
    async for session in triocoro.sessions("g"):
        async with session as group:
            await group.send_and_wait(b"confirmed")
            await corosync.freeze()
            for _ in range(3):
                await group.send(b"not confirmed")
            await until_lost(corosync)
        assert session.lost is not None
        assert session.lost.unconfirmed == 3
        return


async def test_so_are_messages_that_were_dropped_before_without_anyone_having_been_told(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload == b"dropped"
    async for session in triocoro.sessions("g", endpoint=endpoint):
        async with session as group:
            await group.send(b"dropped")
            await group.send_and_wait(b"confirmed")
            await until_lost(corosync)
        assert session.lost is not None
        assert session.lost.unconfirmed == 1
        return


async def test_a_session_of_several_connections(corosync: Node) -> None:
    @asynccontextmanager
    async def open_both(name: str) -> AsyncGenerator[tuple[triocoro.Group, Quorum], None]:
        async with triocoro.open_group(name) as group, triocoro.open_quorum() as quorum, trio.open_nursery():
            yield group, quorum

    async for session in triocoro.sessions(open_both, "g"):
        async with session as (group, quorum):
            assert await quorum.is_quorate()
            if session.epoch == 3:
                return
            await corosync.freeze()
            await group.send(b"not confirmed")
            if session.epoch == 1:
                await until_lost(corosync)
            with trio.CancelScope(shield=True):
                lose(quorum)
                await corosync.thaw()
            await trio.sleep_forever()
        assert session.lost is not None
        assert session.lost.unconfirmed == (1 if session.epoch == 1 else 0)
        await corosync.start()


async def test_the_example_in_the_documentation(corosync: Node) -> None:
    page = Path(__file__).parents[2] / "docs" / "reconnecting.md"
    example: dict[str, Any] = {}
    exec(page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0], example)  # noqa: S102 - ours
    tally = example["Tally"]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tally.run)
        tally.add(b"a")
        tally.add(b"b")
        await tally.until(lambda: tally.counts == {b"a": 1, b"b": 1})
        await corosync.kill()
        await corosync.start()
        tally.add(b"c")
        await tally.until(lambda: tally.counts == {b"a": 1, b"b": 1, b"c": 1})
        assert tally.epochs == [1, 2]
        nursery.cancel_scope.cancel()


# -- what comes out ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("corosync")
async def test_an_exception_of_the_users_comes_out() -> None:
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async for session in triocoro.sessions("g"):
            async with session:
                raise error
    assert caught.value is error


async def test_an_exception_of_the_users_comes_out_after_a_loss(corosync: Node) -> None:
    with pytest.raises(KeyError, match="mine"):
        async for session in triocoro.sessions("g"):
            async with session:
                try:
                    await until_lost(corosync)
                finally:
                    raise KeyError("mine")


async def test_only_the_others_of_a_group_of_exceptions_come_out(corosync: Node) -> None:
    async def send_for_ever(
        group: triocoro.Group, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.CancelScope(shield=True):
            task_status.started()
            while True:
                await group.send_and_wait(b"x")

    sessions: list[Session[triocoro.Group]] = []
    with raises_group(KeyError):
        async for session in triocoro.sessions("g", receive=False):
            sessions.append(session)
            async with session as group, trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                await nursery.start(send_for_ever, group)
                await until_lost(corosync)
    assert isinstance(sessions[0].lost, ConnectionLostError)


async def test_a_group_of_nothing_but_own_losses_is_absorbed(corosync: Node) -> None:
    async def drain(group: triocoro.Group) -> None:
        with trio.CancelScope(shield=True):
            async for _ in group:
                pass

    async for session in triocoro.sessions("g"):
        async with session as group, trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(drain, group)
            inner.start_soon(drain, group)
            await until_lost(corosync)
        assert type(session.lost) is ConnectionLostError
        break


async def test_a_cancellation_from_outside_comes_out(corosync: Node) -> None:
    with trio.CancelScope() as scope:
        async for session in triocoro.sessions("g"):
            async with session:
                with trio.CancelScope(shield=True):
                    scope.cancel()
                    await corosync.kill()
                await trio.sleep_forever()
    assert scope.cancelled_caught


@pytest.mark.corosync(nodes=2)
async def test_the_loss_of_another_daemon_comes_out(corosync_cluster: Cluster) -> None:
    one, two = corosync_cluster[1], corosync_cluster[2]
    with pytest.raises(ConnectionLostError, match=two.endpoint.label):
        async for session in triocoro.sessions("g", endpoint=one.endpoint):
            async with session, triocoro.open_quorum(endpoint=two.endpoint):
                await until_lost(two)


@pytest.mark.corosync(nodes=2)
async def test_the_loss_of_another_daemon_comes_out_of_a_group(corosync_cluster: Cluster) -> None:
    one, two = corosync_cluster[1], corosync_cluster[2]
    with raises_group(ConnectionLostError):
        async for session in triocoro.sessions(triocoro.open_quorum, endpoint=one.endpoint):
            async with (
                session as ours,
                triocoro.open_quorum(endpoint=two.endpoint) as theirs,
                trio.open_nursery() as nursery,
            ):

                async def ask(quorum: Quorum) -> None:
                    with trio.CancelScope(shield=True):
                        while True:
                            await quorum.is_quorate()

                nursery.start_soon(ask, ours)
                nursery.start_soon(ask, theirs)
                with trio.CancelScope(shield=True):
                    await one.kill()
                    await two.kill()


@pytest.mark.usefixtures("corosync")
async def test_the_loss_of_a_connection_that_was_opened_within_the_session_is_the_sessions() -> None:
    """It may notice the daemon's death before the session does."""
    async for session in triocoro.sessions("g"):
        async with session, triocoro.open_quorum() as quorum:
            lose(quorum)
            await trio.sleep_forever()
        assert session.lost is not None
        assert "it was cut off" in str(session.lost)
        break


@pytest.mark.usefixtures("corosync")
async def test_the_loss_of_a_connection_that_was_opened_earlier_comes_out() -> None:
    """Another session would not bring it back."""
    async with trio.open_nursery() as nursery:

        async def hold(task_status: trio.TaskStatus[Quorum]) -> None:
            with pytest.raises(ConnectionLostError):
                async with triocoro.open_quorum() as quorum:
                    task_status.started(quorum)
                    await trio.sleep_forever()

        quorum: Quorum = await nursery.start(hold)
        with pytest.raises(ConnectionLostError):
            async for session in triocoro.sessions("g"):
                async with session:
                    lose(quorum)
                    await quorum.is_quorate()


@pytest.mark.parametrize(
    "error",
    [
        AccessError("not allowed"),
        NotSupportedError("too old"),
        CorosyncUnavailableError("no library"),
        triocoro.NoMemoryError("no memory"),
        ExistError("twice"),
    ],
)
async def test_an_error_that_another_attempt_would_not_help_comes_out(corosync: Node, error: CorosyncError) -> None:
    endpoint = RefusingEndpoint(corosync.endpoint, error)
    with pytest.raises(type(error)) as caught:
        async for session in triocoro.sessions("g", endpoint=endpoint):
            async with session:
                raise AssertionError
    assert str(caught.value).endswith(str(error))
    assert not endpoint.errors  # it was tried once


async def test_bad_input_and_an_own_second_membership_come_out(corosync: Node) -> None:
    sessions: Any = triocoro.sessions
    for arguments, keywords, kind in (
        ([""], {}, ValueError),
        (["g"], {"max_buffered_bytes": 0}, ValueError),
        (["g"], {"nonsense": 1}, TypeError),
        ([7], {}, TypeError),
        ([int, "7"], {}, TypeError),
        ([triocoro.open_cmap, "nonsense"], {}, ValueError),
    ):
        with pytest.raises(kind):
            async for session in sessions(*arguments, **keywords):
                async with session:
                    raise AssertionError
    async with triocoro.open_group("g"):
        with pytest.raises(ExistError):
            async for session in triocoro.sessions("g", endpoint=corosync.endpoint):
                async with session:
                    raise AssertionError


async def test_losses_of_messages_come_out(corosync: Node) -> None:
    endpoint = FaultyEndpoint(corosync.endpoint)
    endpoint.faults.drop = lambda payload: payload == b"lost"
    with pytest.raises(triocoro.MessageLostError):
        async for session in triocoro.sessions("g", endpoint=endpoint):
            async with session as group:
                await group.send(b"lost")
    with pytest.raises(triocoro.SlowConsumerError):
        async for session in triocoro.sessions("g", max_buffered_bytes=1):
            async with session as group:
                await group.send_and_wait(b"x")


# -- misuse ------------------------------------------------------------------------------------------------------------


async def test_a_session_is_entered_once_and_left_before_the_next_one() -> None:
    sessions = triocoro.sessions(nullcontext)
    session = await anext(sessions)
    assert repr(session) == "<triocoro.Session 1, new>"
    with pytest.raises(RuntimeError, match="session 1 was not entered: write `async with session as"):
        await anext(sessions)
    with pytest.raises(RuntimeError, match="session 1 is not open"):
        await session.__aexit__(None, None, None)
    async with session:
        assert repr(session) == "<triocoro.Session 1, open>"
        with pytest.raises(RuntimeError, match="can be entered once"):
            await session.__aenter__()
        with pytest.raises(RuntimeError, match="session 1 has not ended"):
            await anext(sessions)
    with pytest.raises(RuntimeError, match="can be entered once"):
        await session.__aenter__()
    with pytest.raises(RuntimeError, match="session 1 is not open"):
        await session.__aexit__(None, None, None)
    assert (await anext(sessions)).epoch == 2


async def test_an_iterator_is_for_one_task() -> None:
    sessions = triocoro.sessions(nullcontext)
    with raises_group(trio.BusyResourceError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, sessions)
            nursery.start_soon(anext, sessions)


@asynccontextmanager
async def nullcontext() -> AsyncGenerator[None, None]:
    """It needs no daemon."""
    await trio.lowlevel.checkpoint()
    yield


# -- pauses ------------------------------------------------------------------------------------------------------------


async def test_pauses_between_attempts_grow_up_to_a_second(autojump_clock: trio.testing.MockClock) -> None:  # noqa: ARG001
    attempts: list[float] = []

    @asynccontextmanager
    async def unreachable() -> AsyncGenerator[None, None]:
        await trio.lowlevel.checkpoint()
        attempts.append(trio.current_time())
        raise CorosyncUnavailableError("no daemon") from LibraryError("no daemon")
        yield

    with trio.move_on_after(20):
        async for session in triocoro.sessions(unreachable):
            async with session:
                raise AssertionError
    pauses = [later - earlier for earlier, later in pairwise(attempts)]
    longest = [0.02, 0.04, 0.08, 0.16, 0.32, 0.64] + [1.0] * (len(pauses) - 6)
    assert len(pauses) > 20
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    assert len(set(pauses)) == len(pauses)  # random: clients that lost one daemon do not come back all at once


@pytest.mark.parametrize("where", ["while it connects", "soon after"])
async def test_a_daemon_that_takes_connections_and_dies_does_not_make_the_loop_spin(
    where: str,
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    opened = 0

    @asynccontextmanager
    async def open_dying() -> AsyncGenerator[None, None]:
        nonlocal opened
        opened += 1
        if where == "soon after":
            yield
            await trio.sleep(0.01)
        await trio.lowlevel.checkpoint()
        raise triocoro.TryAgainError("not ready") if where == "while it connects" else ConnectionLostError("it died")

    with trio.move_on_after(20):
        async for session in triocoro.sessions(open_dying):
            async with session:
                pass
    assert 20 < opened < 50


async def test_after_a_session_that_lasted_the_next_one_does_not_wait(
    autojump_clock: trio.testing.MockClock,  # noqa: ARG001
) -> None:
    @asynccontextmanager
    async def open_dying() -> AsyncGenerator[None, None]:
        yield
        await trio.lowlevel.checkpoint()
        raise ConnectionLostError("it died")

    began = trio.current_time()
    async for session in triocoro.sessions(open_dying):
        async with session:
            await trio.sleep(1.5)
        if session.epoch == 10:
            break
    assert trio.current_time() - began == pytest.approx(15)
