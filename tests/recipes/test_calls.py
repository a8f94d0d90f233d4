"""Calls to the members of a view, on real nodes and on the fake."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from support.news import LateEndpoint
from support.proxy import FaultyEndpoint
from support.streams import until
from trio.testing import wait_all_tasks_blocked

import triocoro
from triocoro import (
    ConnectionLostError,
    Endpoint,
    InterruptedSendError,
    Message,
    QuorumChange,
    SlowConsumerError,
    TotemChange,
    View,
    _settling,
)
from triocoro._raw import MulticastStatus
from triocoro.recipes import Answer, Calls, Failure, Reply, Request, Unknown, open_calls
from triocoro.recipes._calls_frames import MAGIC, VERSION, Frame, Kind
from triocoro.recipes._calls_tasks import Handler
from triocoro.testing import Cluster, Node

pytestmark = pytest.mark.deadline(30)


async def echo(request: Request) -> bytes:
    await trio.lowlevel.checkpoint()
    return b"echo " + request.payload


class Slow:
    """A handler that waits until it is let go."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.arrived = trio.Event()
        self.go = trio.Event()

    async def __call__(self, request: Request) -> bytes:
        self.requests.append(request.payload)
        self.arrived.set()
        await self.go.wait()
        return b"slow " + request.payload


async def until_members(calls: Calls, count: int) -> None:
    """Wait for a view with so many members."""
    while len(calls.view.members) != count:  # noqa: ASYNC110 - these calls keep no events
        await trio.sleep(0.001)
    await trio.lowlevel.checkpoint()


@asynccontextmanager
async def members(
    *endpoints: Endpoint | Node, handlers: Handler | list[Handler | None] | None = echo
) -> AsyncGenerator[list[Calls], None]:
    """Members on these nodes, which all see all of them."""
    each: list[Handler | None] = [handlers] * len(endpoints) if handlers is None or callable(handlers) else handlers
    async with AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(open_calls("g", handler, endpoint=endpoint))
            for endpoint, handler in zip(endpoints, each, strict=True)
        ]
        for calls in found:
            await until_members(calls, len(found))
        yield found


async def all_replies(calls: Calls, payload: bytes = b"x") -> list[Reply]:
    async with calls.call(payload) as replies:
        return sorted([reply async for reply in replies], key=lambda reply: reply.member)


def answers(everyone: list[Calls], payload: bytes) -> list[Reply]:
    return [Answer(calls.address, payload) for calls in sorted(everyone, key=lambda calls: calls.address)]


# -- replies -----------------------------------------------------------------------------------------------------------


async def test_all_members_answer(corosync_cluster: Cluster) -> None:
    async with members(*corosync_cluster.nodes.values()) as everyone:
        for calls in everyone:
            assert await all_replies(calls) == answers(everyone, b"echo x")
            assert set(calls.view.members) == {member.address for member in everyone}
        assert everyone[0].name == b"g"
        assert repr(everyone[0]) == f"<triocoro.recipes.Calls b'g' as node 1, pid {everyone[0].address.pid}>"


async def test_handlers_know_the_caller(corosync_cluster: Cluster) -> None:
    async def name_the_caller(request: Request) -> bytes:
        await trio.lowlevel.checkpoint()
        return str(request.caller).encode()

    async with members(corosync_cluster[1], corosync_cluster[2], handlers=name_the_caller) as everyone:
        assert await all_replies(everyone[1]) == answers(everyone, str(everyone[1].address).encode())


async def test_replies_come_one_by_one(corosync_cluster: Cluster) -> None:
    slow = Slow()
    async with members(corosync_cluster[1], corosync_cluster[2], handlers=[echo, slow]) as (one, two):
        async with one.call(bytearray(b"x")) as replies:
            assert await replies.receive() == Answer(one.address, b"echo x")
            assert replies.awaited == {two.address}
            slow.go.set()
            assert await replies.receive() == Answer(two.address, b"slow x")
            assert replies.awaited == set()
            with pytest.raises(trio.EndOfChannel):
                await replies.receive()
        with pytest.raises(trio.ClosedResourceError):
            await replies.receive()


async def test_large_requests_and_answers(corosync_cluster: Cluster) -> None:
    async def double(request: Request) -> memoryview:
        await trio.lowlevel.checkpoint()
        return memoryview(request.payload * 2)

    async with members(corosync_cluster[1], corosync_cluster[2], handlers=double) as everyone:
        assert await all_replies(everyone[0], bytes(1_100_000)) == answers(everyone, bytes(2_200_000))


async def test_a_handler_that_raises_is_a_failure(corosync_cluster: Cluster) -> None:
    async def fails(request: Request) -> bytes:
        await trio.lowlevel.checkpoint()
        if request.payload == b"wrong type":
            return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
        raise KeyError("no such \udc80 key") if request.payload == b"text" else OSError("x" * 5000)

    async with members(corosync_cluster[1], corosync_cluster[2], handlers=[echo, fails]) as (one, two):
        mine = Answer(one.address, b"echo text")
        assert await all_replies(one, b"text") == [mine, Failure(two.address, r"KeyError: 'no such \udc80 key'")]
        (_, wrong) = await all_replies(one, b"wrong type")
        assert wrong == Failure(two.address, "TypeError: the handler must return bytes, not str")
        (_, long) = await all_replies(one, b"long")
        assert isinstance(long, Failure)
        assert (long.text[:10], len(long.text)) == ("OSError: x", 4096)


async def test_members_without_a_handler_are_not_awaited(corosync_cluster: Cluster) -> None:
    async with members(corosync_cluster[1], corosync_cluster[2], handlers=[None, echo]) as (one, two):
        assert await all_replies(one) == answers([two], b"echo x")
        assert await all_replies(two) == answers([two], b"echo x")
    async with members(corosync_cluster[1], corosync_cluster[2], handlers=None) as (one, _):
        assert await all_replies(one) == []


async def test_two_calls_at_once(corosync_cluster: Cluster) -> None:
    """From one member and from two, each gets its own replies."""
    slow = Slow()
    async with members(corosync_cluster[1], corosync_cluster[2], handlers=[slow, slow]) as everyone:
        one, two = everyone
        results: dict[bytes, list[Reply]] = {}

        async def note(calls: Calls, payload: bytes) -> None:
            results[payload] = await all_replies(calls, payload)

        async with trio.open_nursery() as nursery:
            for calls, payload in ((one, b"a"), (one, b"b"), (two, b"c"), (two, b"d")):
                nursery.start_soon(note, calls, payload)
            while len(slow.requests) < 8:  # noqa: ASYNC110 - each of both has four
                await trio.sleep(0.001)
            slow.go.set()
        assert results == {payload: answers(everyone, b"slow " + payload) for payload in (b"a", b"b", b"c", b"d")}


async def test_a_handler_may_call(corosync_cluster: Cluster) -> None:
    found: list[Calls] = []

    async def ask_all(request: Request) -> bytes:
        if request.payload == b"leaf":
            return await echo(request)
        return b",".join(reply.payload for reply in await all_replies(found[0], b"leaf") if isinstance(reply, Answer))

    async with members(corosync_cluster[1], corosync_cluster[2], handlers=ask_all) as everyone:
        found += everyone
        assert await all_replies(everyone[1]) == answers(everyone, b"echo leaf,echo leaf")


# -- members that leave or join ----------------------------------------------------------------------------------------


async def test_a_member_that_leaves_is_unknown(corosync_cluster: Cluster) -> None:
    slow = Slow()
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(open_calls("g", echo, endpoint=corosync_cluster[1]))
        async with open_calls("g", slow, endpoint=corosync_cluster[2]) as two:
            await until_members(one, 2)
            replies = await stack.enter_async_context(one.call(b"x"))
            await slow.arrived.wait()
        assert {reply async for reply in replies} == {Answer(one.address, b"echo x"), Unknown(two.address)}


async def test_a_partition_in_the_midst(corosync_cluster: Cluster) -> None:
    """Both sides end their calls, and after the merge calls reach all again."""
    slow = Slow()
    async with members(*corosync_cluster.nodes.values(), handlers=[echo, slow, slow]) as everyone:
        one, two, three = everyone
        async with one.call(b"from one") as of_one, two.call(b"from two") as of_two:
            while len(slow.requests) < 4:  # noqa: ASYNC110 - the handlers tell nothing else
                await trio.sleep(0.001)
            assert await of_one.receive() == Answer(one.address, b"echo from one")
            assert await of_two.receive() == Answer(one.address, b"echo from two")
            await corosync_cluster.partition({1}, {2, 3})
            assert [reply async for reply in of_one] == [Unknown(two.address), Unknown(three.address)]
            await until_members(two, 2)
            await corosync_cluster.heal()
            slow.go.set()
            assert {reply async for reply in of_two} == set(answers([two, three], b"slow from two"))
        for calls in everyone:
            await until_members(calls, 3)
        (first, *_) = await all_replies(one, b"again")
        assert first == Answer(one.address, b"echo again")


async def test_a_member_whose_daemon_dies_is_unknown(corosync_cluster: Cluster) -> None:
    slow = Slow()
    received: list[Reply] = []
    async with open_calls("g", echo, endpoint=corosync_cluster[1]) as one:
        with pytest.raises(ConnectionLostError):
            async with open_calls("g", slow, endpoint=corosync_cluster[2]):
                await until_members(one, 2)
                async with one.call(b"x") as replies:
                    await slow.arrived.wait()
                    with trio.CancelScope(shield=True):
                        await corosync_cluster[2].kill()
                        received += [reply async for reply in replies]
        # The own answer may have waited for the new ring.
        assert {(type(reply), reply.member.nodeid) for reply in received} == {(Answer, 1), (Unknown, 2)}


async def test_a_member_that_joins_after_the_request_does_not_get_it(corosync_cluster: Cluster) -> None:
    slow, late = Slow(), Slow()
    async with (
        open_calls("g", slow, endpoint=corosync_cluster[1]) as one,
        one.call(b"early") as replies,
        open_calls("g", late, endpoint=corosync_cluster[2]) as two,
    ):
        await until_members(one, 2)
        assert replies.awaited == {one.address}
        slow.go.set()
        assert [reply async for reply in replies] == [Answer(one.address, b"slow early")]
        late.go.set()
        assert await all_replies(one, b"later") == answers([one, two], b"slow later")
        assert late.requests == [b"later"]


async def test_a_member_of_a_ring_that_was_skipped_does_not_have_the_request(
    corosync_cluster: Cluster,
) -> None:
    """The view in which the request is delivered has a member that was on the other side when it was sent."""
    endpoint = LateEndpoint(corosync_cluster[1].endpoint)
    slow = Slow()
    async with (
        members(endpoint, corosync_cluster[2], corosync_cluster[3], handlers=[echo, slow, echo]) as everyone,
        triocoro.open_group("watching", totem_changes=True, endpoint=corosync_cluster[1]) as watcher,
        trio.open_nursery() as nursery,
    ):
        received: list[Reply] = []

        async def call() -> None:
            received.extend(await all_replies(everyone[0]))

        endpoint.news["quorum"].drop = lambda event: isinstance(event, QuorumChange) and 3 not in event.members
        await corosync_cluster.partition({1, 2}, {3})
        await until(watcher, lambda event: isinstance(event, TotemChange) and event.members == (1, 2))
        nursery.start_soon(call)
        await slow.arrived.wait()  # in the ring that node 1 skips
        await corosync_cluster.heal()
        slow.go.set()
        while not received:  # noqa: ASYNC110 - the other task notes them
            await trio.sleep(0.001)
        one, two, three = everyone
        assert received == [
            Answer(one.address, b"echo x"),
            Answer(two.address, b"slow x"),
            Unknown(three.address),
        ]


async def test_a_member_that_missed_the_request_is_unknown_once_the_ring_changes(corosync_cluster: Cluster) -> None:
    """It can happen if rings form too quickly for CPG to tell."""
    endpoint = LateEndpoint(corosync_cluster[2].endpoint)
    endpoint.news["cpg"].drop = lambda event: isinstance(event, Message) and event.payload.endswith(b"missed")
    slow = Slow()
    async with (
        members(corosync_cluster[1], endpoint, handlers=[slow, echo]) as (one, two),
        one.call(b"missed") as replies,
    ):
        await corosync_cluster[3].kill()
        assert await replies.receive() == Unknown(two.address)
        assert replies.awaited == {one.address}  # which was asked, too, and has it
        slow.go.set()
        assert [reply async for reply in replies] == [Answer(one.address, b"slow missed")]


async def test_after_a_thaw_what_was_answered_meanwhile_is_unknown(corosync_cluster: Cluster) -> None:
    """Our daemon stood still, and the others went on without it."""
    slow = Slow()
    async with (
        members(corosync_cluster[1], corosync_cluster[2], handlers=[None, slow]) as (one, two),
        triocoro.open_group("watching", totem_changes=True, endpoint=corosync_cluster[2]) as watcher,
        one.call(b"x") as replies,
    ):
        await slow.arrived.wait()
        await corosync_cluster[1].freeze()
        await until(watcher, lambda event: isinstance(event, TotemChange) and event.members == (2, 3))
        slow.go.set()
        await until_members(two, 1)
        assert await all_replies(two) == [Answer(two.address, b"slow x")]
        await corosync_cluster[1].thaw()
        assert [reply async for reply in replies] == [Unknown(two.address)]


# -- losses ------------------------------------------------------------------------------------------------------------


class Refusing(deque[MulticastStatus]):
    """Refuses every multicast while it is on."""

    on = True

    def __bool__(self) -> bool:
        return self.on

    def popleft(self) -> MulticastStatus:
        return MulticastStatus.TRY_AGAIN


async def test_the_ring_may_change_before_the_request_is_sent(corosync_cluster: Cluster) -> None:
    faulty = FaultyEndpoint(corosync_cluster[1].endpoint)
    deaf = LateEndpoint(corosync_cluster[2].endpoint)
    deaf.news["cpg"].drop = lambda event: isinstance(event, Message) and event.payload.endswith(b"missed")
    async with members(faulty, deaf) as (one, two), trio.open_nursery() as nursery:
        received: list[Reply] = []

        async def call() -> None:
            received.extend(await all_replies(one, b"missed"))

        refusing = faulty.faults.refuse = Refusing()
        nursery.start_soon(call)
        await wait_all_tasks_blocked()
        before = one.view.ring_id
        await corosync_cluster[3].kill()
        while one.view.ring_id == before:  # noqa: ASYNC110 - these calls keep no events
            await trio.sleep(0.001)
        refusing.on = False
        while not received:  # noqa: ASYNC110 - the other task notes them
            await trio.sleep(0.001)
        assert received == [Answer(one.address, b"echo missed"), Unknown(two.address)]


@pytest.fixture
def _a_short_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_settling, "STALL", 0.05)


def drop_first(kind: Kind) -> Callable[[bytes], bool]:
    """Drop the first frame of that kind."""
    dropped: list[bytes] = []

    def drop(payload: bytes) -> bool:
        frame = Frame.decode(payload)
        if dropped or frame is None or frame.kind != kind:
            return False
        dropped.append(payload)
        return True

    return drop


@pytest.mark.usefixtures("_a_short_stall")
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.ANSWER, Kind.NO_HANDLER])
async def test_frames_that_are_lost_are_sent_again(corosync_cluster: Cluster, kind: Kind) -> None:
    one, two = (FaultyEndpoint(corosync_cluster[nodeid].endpoint) for nodeid in (1, 2))
    served: list[bytes] = []

    async def once(request: Request) -> bytes:
        served.append(request.payload)
        return await echo(request)

    async with members(
        one, two, corosync_cluster[3], handlers=[once, None if kind is Kind.NO_HANDLER else once, None]
    ) as everyone:
        (one if kind is Kind.REQUEST else two).faults.drop = drop_first(kind)
        expected = answers(everyone[: 1 if kind is Kind.NO_HANDLER else 2], b"echo x")
        assert await all_replies(everyone[0]) == expected
        assert len(served) == len(expected)


@pytest.mark.usefixtures("_a_short_stall")
async def test_a_lost_request_of_a_call_that_has_ended_is_not_sent_again(corosync_cluster: Cluster) -> None:
    faulty = FaultyEndpoint(corosync_cluster[1].endpoint)
    slow = Slow()
    async with members(faulty, corosync_cluster[2], handlers=[None, slow]) as (one, _):
        faulty.faults.drop = drop_first(Kind.REQUEST)
        with trio.move_on_after(0.01):
            await all_replies(one, b"cancelled")
        slow.go.set()
        await all_replies(one, b"next")
        assert slow.requests == [b"next"]


@pytest.mark.usefixtures("_a_short_stall")
async def test_what_is_lost_at_the_end_raises_nothing(corosync: Node) -> None:
    faulty = FaultyEndpoint(corosync.endpoint)
    async with open_calls("g", echo, endpoint=faulty) as calls:
        faulty.faults.drop = lambda _: True
        with trio.move_on_after(0.01):
            await all_replies(calls)
    with pytest.raises(triocoro.MessageLostError):
        async with open_calls("g", echo, endpoint=faulty) as calls:
            await calls.send(b"the program's own")


async def test_interrupted_frames_are_sent_again(corosync_cluster: Cluster) -> None:
    faulty = FaultyEndpoint(corosync_cluster[1].endpoint)
    async with members(faulty, corosync_cluster[2]) as everyone:
        faulty.faults.fragmented.append(InterruptedSendError("a membership change"))
        assert await all_replies(everyone[0], bytes(1_100_000)) == answers(everyone, b"echo " + bytes(1_100_000))


# -- serving -----------------------------------------------------------------------------------------------------------


async def test_handlers_at_once_are_bounded_and_so_are_requests_that_wait(corosync: Node) -> None:
    running = most = 0
    go = trio.Event()

    async def handle(request: Request) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go.wait()
        running -= 1
        return request.payload

    received: list[Reply] = []

    async def call(calls: Calls, number: int) -> None:
        received.extend(await all_replies(calls, str(number).encode()))

    async with (
        open_calls("g", handle, max_running=2, max_waiting=3, endpoint=corosync) as calls,
        trio.open_nursery() as nursery,
    ):
        for number in range(7):
            nursery.start_soon(call, calls, number)
        while len(received) < 2:  # noqa: ASYNC110 - the other tasks note them
            await trio.sleep(0.001)
        text = "WouldBlock: busy, as max_waiting requests wait already; the request was not executed"
        assert received == [Failure(calls.address, text)] * 2
        go.set()
        while len(received) < 7:  # noqa: ASYNC110 - as above
            await trio.sleep(0.001)
        assert {type(reply) for reply in received[2:]} == {Answer}
        assert most == 2


async def test_a_flood_of_calls(corosync_cluster: Cluster) -> None:
    """Tens of thousands of bytes each way, from all sides, more than the outbox and the windows take at once."""
    async with members(*corosync_cluster.nodes.values(), handlers=[echo, echo, None]) as everyone:
        counts: list[int] = []

        async def call(calls: Calls, number: int) -> None:
            counts.append(len(await all_replies(calls, bytes(number))))

        async with trio.open_nursery() as nursery:
            for calls in everyone:
                for number in range(200):
                    nursery.start_soon(call, calls, number)
        assert counts == [2] * 600


async def test_the_end_of_the_block_cancels_handlers(corosync_cluster: Cluster) -> None:
    ended = trio.Event()
    arrived = trio.Event()

    async def handle(_: Request) -> bytes:
        arrived.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with open_calls("g", endpoint=corosync_cluster[1]) as one, AsyncExitStack() as stack:
        async with open_calls("g", handle, endpoint=corosync_cluster[2]) as two:
            await until_members(one, 2)
            replies = await stack.enter_async_context(one.call(b"x"))
            await arrived.wait()
        assert ended.is_set()
        assert [reply async for reply in replies] == [Unknown(two.address)]


# -- cancelling, ending ------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_leaves_no_trace(corosync_cluster: Cluster) -> None:
    """Its late replies are not those of the next call, and its block need not be waited for."""
    slow = Slow()
    async with members(corosync_cluster[1], corosync_cluster[2], handlers=[echo, slow]) as everyone:
        one, two = everyone
        with trio.CancelScope() as scope:
            async with one.call(b"first") as replies:
                async for reply in replies:
                    assert reply == Answer(one.address, b"echo first")
                    await slow.arrived.wait()
                    scope.cancel()
        assert scope.cancelled_caught
        async with one.call(b"second") as replies:
            slow.go.set()
            assert {reply async for reply in replies} == {
                Answer(one.address, b"echo second"),
                Answer(two.address, b"slow second"),
            }
        assert slow.requests == [b"first", b"second"]


async def test_closed_replies(corosync: Node) -> None:
    slow = Slow()
    async with open_calls("g", slow, endpoint=corosync) as calls, calls.call(b"x") as replies:
        await replies.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await replies.receive()
        slow.go.set()


async def test_tasks_outside_of_the_block_hear_of_its_end(corosync: Node) -> None:
    """One that waits for a reply, one for an event, and one that only begins to call."""
    slow = Slow()
    ends: list[str] = []

    async def expect_closed(name: str, wait: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wait()
        ends.append(name)

    async with trio.open_nursery() as nursery:
        async with open_calls("g", slow, receive=True, endpoint=corosync) as calls:
            assert isinstance(await calls.receive(), View)
            nursery.start_soon(expect_closed, "call", lambda: all_replies(calls))  # noqa: ASYNC111 - the point
            nursery.start_soon(expect_closed, "receive", calls.receive)  # noqa: ASYNC111 - the point
            await slow.arrived.wait()
        nursery.start_soon(expect_closed, "late", lambda: all_replies(calls))
    assert sorted(ends) == ["call", "late", "receive"]


async def test_an_exception_of_the_block_comes_out_as_itself(corosync: Node) -> None:
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with open_calls("g", echo, endpoint=corosync):
            raise error
    assert caught.value is error
    assert caught.value.__context__ is None
    with trio.CancelScope() as scope:
        async with open_calls("g", echo, endpoint=corosync):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(LookupError) as caught:
        async with open_calls("g", echo, endpoint=corosync) as calls, calls.call(b"x"):
            raise error
    assert caught.value is error


async def test_a_handler_that_ends_the_program(corosync: Node) -> None:
    """`SystemExit` and its like are not the caller's."""

    async def leave(_: Request) -> bytes:
        await trio.lowlevel.checkpoint()
        raise SystemExit(3)

    # pytest-trio would take a stray `Cancelled` for a test that has passed.
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - as said
        async with open_calls("g", leave, endpoint=corosync) as calls:
            await all_replies(calls)
    assert isinstance(caught.value, SystemExit)


# -- reconnecting ------------------------------------------------------------------------------------------------------


async def test_the_block_ends_when_the_daemon_dies(corosync: Node) -> None:
    slow = Slow()
    with pytest.raises(ConnectionLostError):
        async with open_calls("g", slow, endpoint=corosync) as calls, calls.call(b"x") as replies:
            await slow.arrived.wait()
            with trio.CancelScope(shield=True):
                await corosync.kill()
            async for reply in replies:
                raise AssertionError(reply)


async def test_sessions_of_calls(corosync_cluster: Cluster) -> None:
    """A call of an earlier session is not taken for one of the next, though the address and number are the same."""
    slow = Slow()
    async with open_calls("g", slow, endpoint=corosync_cluster[2]) as two:
        async for session in triocoro.sessions(open_calls, "g", echo, endpoint=corosync_cluster[1]):
            async with session as one:
                await until_members(one, 2)
                payload = f"of session {session.epoch}".encode()
                async with one.call(payload) as replies:
                    assert await replies.receive() == Answer(one.address, b"echo " + payload)
                    while len(slow.requests) < session.epoch:  # noqa: ASYNC110 - the handler tells nothing else
                        await trio.sleep(0.001)
                    if session.epoch == 1:
                        with trio.CancelScope(shield=True):
                            await corosync_cluster[1].kill()
                        await trio.sleep_forever()
                    slow.go.set()
                    assert [reply async for reply in replies] == [Answer(two.address, b"slow " + payload)]
                break
            assert session.lost is not None
            await corosync_cluster[1].start()
    assert slow.requests == [b"of session 1", b"of session 2"]


# -- other programs, other versions ------------------------------------------------------------------------------------


async def test_the_programs_own_events(corosync_cluster: Cluster) -> None:
    async with (
        open_calls("g", echo, receive=True, endpoint=corosync_cluster[1]) as one,
        triocoro.open_group("g", endpoint=corosync_cluster[2]) as group,
    ):
        first = await one.receive()
        assert isinstance(first, View)
        assert first.members == (one.address,)
        assert isinstance(await anext(one), View)
        truncated = Frame(Kind.REQUEST, bytes(16), 1).encode()[:-1]
        for payload in (b"", b"tricall", truncated, b"anything"):
            await group.send(payload)
            assert await one.receive() == Message(group.address, payload)
        await one.send(b"own")
        assert await one.receive() == Message(one.address, b"own")
        with pytest.raises(ValueError, match="must not begin"):
            await one.send(MAGIC + b"x")


async def test_without_receive_there_are_no_events(corosync: Node) -> None:
    async with open_calls("g", echo, endpoint=corosync) as calls:
        with pytest.raises(RuntimeError, match="without receive=True"):
            await calls.receive()


async def test_events_that_are_not_received_are_bounded(corosync: Node) -> None:
    async with open_calls("g", echo, receive=True, max_buffered_bytes=10_000, endpoint=corosync) as calls:
        for _ in range(50):
            await calls.send(bytes(1000))
            await until(calls_events(calls), lambda event: isinstance(event, Message))
    with pytest.raises(SlowConsumerError, match="max_buffered_bytes=10000"):
        async with open_calls("g", echo, receive=True, max_buffered_bytes=10_000, endpoint=corosync) as calls:
            for _ in range(50):
                await calls.send(bytes(1000))
            await trio.sleep_forever()


def calls_events(calls: Calls) -> trio.abc.ReceiveChannel[triocoro.ViewEvent]:
    return calls  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


async def test_another_version_is_refused(corosync_cluster: Cluster) -> None:
    """Our request to it, and its request to us; each gets to know both versions."""
    async with (
        open_calls("g", echo, endpoint=corosync_cluster[1]) as one,
        triocoro.open_group("g", endpoint=corosync_cluster[2]) as newer,
    ):
        await until_members(one, 2)
        async with one.call(b"x") as replies:
            request = await next_frame(newer, one)
            assert (request.kind, request.version, request.body) == (Kind.REQUEST, VERSION, b"x")
            refusal = Frame(Kind.OTHER_VERSION, request.incarnation, request.number, version=2)
            await newer.send(refusal.encode())
            received = {type(reply): reply async for reply in replies}
        assert received[Answer] == Answer(one.address, b"echo x")
        failure = received[Failure]
        assert isinstance(failure, Failure)
        assert failure.text.startswith(f"VersionError: {newer.address} speaks version 2 of triocoro's calls, and we")

        for kind in (Kind.PROBE, Kind.ANSWER, Kind.REQUEST):  # of these, only a request is answered
            await newer.send(Frame(kind, b"i" * 16, kind, b"?" * 8, version=2).encode())
        while (answer := await next_frame(newer, one)).incarnation != b"i" * 16:
            pass
        assert answer == Frame(Kind.OTHER_VERSION, b"i" * 16, Kind.REQUEST)


async def next_frame(group: triocoro.Group, calls: Calls) -> Frame:
    """The next frame of that member."""
    while True:
        event = await group.receive()
        if isinstance(event, Message) and event.sender == calls.address:
            frame = Frame.decode(event.payload)
            assert frame is not None
            return frame


async def test_replies_of_strangers_do_not_count(corosync_cluster: Cluster) -> None:
    """Neither of members that are not awaited, nor to another caller or another call; nor do two of one member."""
    slow = Slow()
    async with (
        open_calls("g", slow, endpoint=corosync_cluster[1]) as one,
        triocoro.open_group("g", endpoint=corosync_cluster[2]) as awaited,
    ):
        await until_members(one, 2)
        async with (
            one.call(b"x") as replies,
            triocoro.open_group("g", endpoint=corosync_cluster[3]) as stranger,
        ):
            request = await next_frame(awaited, one)
            await stranger.send(Frame(Kind.ANSWER, request.incarnation, request.number, b"forged").encode())
            await awaited.send(Frame(Kind.ANSWER, b"i" * 16, request.number, b"to another caller").encode())
            await awaited.send(Frame(Kind.ANSWER, request.incarnation, request.number + 1, b"to another").encode())
            await awaited.send(Frame(99, request.incarnation, request.number + 1, b"of no kind").encode())
            await awaited.send(Frame(Kind.ANSWER, request.incarnation, request.number, b"right").encode())
            await awaited.send(Frame(Kind.ANSWER, request.incarnation, request.number, b"twice").encode())
            await awaited.send(Frame(Kind.PROBE, b"i" * 16, 0, b"\0" * 8).encode())
            while (await next_frame(awaited, one)).kind != Kind.NOT_HERE:
                pass
            slow.go.set()
            assert {reply async for reply in replies} == {
                Answer(awaited.address, b"right"),
                Answer(one.address, b"slow x"),
            }


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, error, text",
    [
        ({"handler": b"x"}, TypeError, "must be an async function, not bytes"),
        ({"max_running": 0}, ValueError, "max_running must be at least 1, not 0"),
        ({"max_waiting": -1}, ValueError, "max_waiting must be at least 0, not -1"),
        ({"max_waiting": True}, TypeError, "expected an integer as max_waiting, not True"),
        ({"max_running": 1.5}, TypeError, "expected an integer as max_running, not 1.5"),
        ({"max_buffered_bytes": 0}, ValueError, "max_buffered_bytes"),
    ],
)
async def test_bad_arguments(corosync: Node, arguments: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        async with open_calls("g", endpoint=corosync, **arguments):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
            pass


async def test_a_payload_must_be_bytes(corosync: Node) -> None:
    async with open_calls("g", endpoint=corosync) as calls:
        with pytest.raises(TypeError, match="must be bytes-like, not str"):
            await all_replies(calls, "text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
