"""Raw handles in tests that run in both modes: what a handle is told, waited for."""

from __future__ import annotations

import select
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio
import trio.testing

from triocoro import ExistError, TryAgainError
from triocoro._enums import Reason
from triocoro._raw import MulticastStatus, RawCpg, RawHandle
from triocoro._services import CPG, Endpoint
from triocoro._types import Address, ConfigChange, CpgEvent, MemberChange, Message, TotemChange

EventT = TypeVar("EventT")

EVERYTHING = 2**30
BOUND = 30
"""Seconds for each wait below, which takes a few at most; the deadline of a test may allow more for all of it."""


CAUGHT_UP = b"caught up"
"""The payload of `caught_up`."""


async def joined(endpoint: Endpoint, group: bytes = b"g") -> RawCpg:
    """A member that has taken the news of its join."""
    handle = await endpoint.connect(CPG)
    await join(handle, group)
    address = Address(await handle.local_nodeid(), endpoint.pid)
    own = MemberChange(address, Reason.JOIN)
    await take_until(handle, lambda event: isinstance(event, ConfigChange) and own in event.joined)
    return handle


async def join(handle: RawCpg, group: bytes) -> None:
    """Join a group, however often one has to try again: in a transition, or when this pid has left it just now."""
    with trio.fail_after(BOUND):  # noqa: ASYNC912 - it tries at least once
        while True:
            try:
                return await handle.join(group)
            except (ExistError, TryAgainError):
                await trio.sleep(0.01)


async def take_until(handle: RawHandle[EventT], last: Callable[[EventT], bool]) -> list[EventT]:
    """The events up to the one that is the last, and no more."""
    events: list[EventT] = []
    with trio.fail_after(BOUND):  # noqa: ASYNC912 - it runs at least once
        while not events or not last(events[-1]):
            await trio.lowlevel.wait_readable(handle.fileno())
            events += handle.dispatch(1, EVERYTHING)[1]
    return events


async def take(handle: RawHandle[EventT], count: int) -> list[EventT]:
    """The next `count` events, and no more."""
    events: list[EventT] = []
    with trio.fail_after(BOUND):  # noqa: ASYNC912 - it runs at least once
        while len(events) < count:
            await trio.lowlevel.wait_readable(handle.fileno())
            events += handle.dispatch(count - len(events), EVERYTHING)[1]
    return events


async def ring_of(handle: RawCpg, *nodeids: int) -> list[CpgEvent]:
    """The events up to the news of the ring of these nodes."""
    return await take_until(handle, lambda event: isinstance(event, TotemChange) and event.members == nodeids)


async def view_of(handle: RawCpg, *members: Address) -> list[CpgEvent]:
    """The events up to the change to these members."""
    return await take_until(handle, lambda event: isinstance(event, ConfigChange) and event.members == members)


async def multicast(handle: RawCpg, *messages: bytes) -> None:
    """Send all, however often one has to try again."""
    sent = 0
    with trio.fail_after(BOUND):  # noqa: ASYNC912 - there are messages
        while sent < len(messages):
            count, status = handle.multicast(messages[sent:])
            sent += count
            if status is MulticastStatus.FULL:
                await trio.lowlevel.wait_writable(handle.fileno())
            elif status is MulticastStatus.TRY_AGAIN:
                await trio.sleep(0.001)


async def caught_up(handle: RawCpg, *others: RawCpg) -> list[list[CpgEvent]]:
    """What each member has been told up to now: all of them have come to one more message, of the first one."""
    await multicast(handle, CAUGHT_UP)

    def is_mark(event: CpgEvent) -> bool:
        return isinstance(event, Message) and event.payload == CAUGHT_UP

    return [(await take_until(each, is_mark))[:-1] for each in (handle, *others)]


async def given_up(call: Callable[[], Awaitable[object]]) -> None:
    """Call, and lose patience once there is nothing but to wait."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def payloads(events: Sequence[CpgEvent]) -> list[bytes]:
    return [event.payload for event in events if isinstance(event, Message)]


def changes(reason: Reason, *addresses: Address) -> tuple[MemberChange, ...]:
    return tuple(MemberChange(address, reason) for address in addresses)


def closed(handle: RawHandle[object]) -> bool:
    # mypy believes that a property which was False once stays so.
    return handle.closed


def poll(handle: RawHandle[object]) -> int:
    """What the fd says."""
    poller = select.poll()
    poller.register(handle.fileno(), select.POLLIN | select.POLLOUT)
    return sum(events for _, events in poller.poll(0))


async def close(*handles: RawHandle[object]) -> None:
    for handle in handles:
        handle.close(leave=True)
        handle.close()  # once more does nothing
    with trio.fail_after(BOUND):  # noqa: ASYNC912 - there are handles
        for handle in handles:
            await handle.wait_closed()
            assert handle.closed
