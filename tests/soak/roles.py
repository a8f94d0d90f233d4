"""What a client does: one coroutine for each role, which ends only with its connection or a cancellation."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from typing import TypeVar

import attrs
import trio

import triocoro
from triocoro import lowlevel
from triocoro.testing import RecordingEndpoint

T = TypeVar("T")

PACE = 30.0
"""How many things a role does in a second, on average."""
SIZES = (64, 64, 64, 64, 500, 500, 4_000, 30_000, 200_000)
"""The sizes of messages in bytes; the large ones of `LARGE` come in between."""
LARGE = 2_000_000
"""More than a message of one piece can have, so that the library sends it in fragments."""
_LARGE_SHARE = 0.01
_CANCELLED_SHARE = 0.15
"""How many of all calls are cancelled by a deadline of some milliseconds."""
_KEYS = 20
_VALUES = (
    (1, triocoro.CmapType.UINT32),
    (2.5, triocoro.CmapType.DOUBLE),
    ("text", triocoro.CmapType.STRING),
    (b"bytes", triocoro.CmapType.BINARY),
)


@attrs.define
class Counters:
    """What a client has done since the last report."""

    sent: int = 0
    received: int = 0
    bytes_received: int = 0
    lost: int = 0
    connections: int = 0
    cancelled: int = 0
    trips: list[float] = attrs.field(factory=list[float])
    """The seconds that each `send_and_wait` has taken."""

    def clear(self) -> None:
        """Begin anew."""
        for field in attrs.fields(Counters):
            setattr(self, field.name, type(getattr(self, field.name))())


@attrs.define(eq=False)
class Life:
    """What all roles of a client need."""

    node: int
    nodes: tuple[int, ...]
    chance: random.Random
    counters: Counters
    endpoints: Callable[[str], RecordingEndpoint]
    """Returns an endpoint that records for the role of that name."""
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def payload(self) -> bytes:
        """The next payload; no two are alike."""
        size = LARGE if self.chance.random() < _LARGE_SHARE else self.chance.choice(SIZES)
        return f"{self.node} {next(self.numbers)} ".encode().ljust(size, b".")

    async def pause(self) -> None:
        """Wait until it is time for the next thing to do."""
        await trio.sleep(self.chance.expovariate(PACE))

    async def now_and_then_cancelled(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make the call, or cancel it before its end."""
        seconds = self.chance.expovariate(300) if self.chance.random() < _CANCELLED_SHARE else float("inf")
        with trio.move_on_after(seconds) as scope:
            await call()
        self.counters.cancelled += scope.cancelled_caught


# -- groups ------------------------------------------------------------------------------------------------------------


async def talker(life: Life, endpoint: RecordingEndpoint) -> None:
    """Stay in a group, receive all the time, and send in every way."""
    async with triocoro.open_group("talkers", totem_changes=life.chance.random() < 0.5, endpoint=endpoint) as group:
        life.counters.connections += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_receive, life, group)
            while True:
                await _send(life, group)
                await life.pause()


async def _receive(life: Life, group: triocoro.Group) -> None:
    while True:
        # A cancelled call takes no event.
        with trio.move_on_after(life.chance.expovariate(5)):
            while True:
                for event in await group.receive_batch() if life.chance.random() < 0.5 else [await group.receive()]:
                    if isinstance(event, triocoro.Message):
                        life.counters.received += 1
                        life.counters.bytes_received += len(event.payload)
                    elif isinstance(event, triocoro.MessageLost):
                        _note_lost(life, event.payload)


def _note_lost(life: Life, *payloads: bytes) -> None:
    life.counters.lost += len(payloads)


async def _send(life: Life, group: triocoro.Group) -> None:
    way = life.chance.choice(("send", "send", "batch", "wait", "wait", "nowait"))
    payload = life.payload()

    async def call() -> None:
        if way == "send":
            await group.send(payload)
        elif way == "batch":
            await group.send_batch([life.payload() for _ in range(life.chance.randint(1, 20))])
        elif way == "wait":
            began = time.perf_counter()
            await group.send_and_wait(payload)
            life.counters.trips.append(time.perf_counter() - began)
        else:
            group.send_nowait(payload)

    try:
        await life.now_and_then_cancelled(call)
        life.counters.sent += 1
    except triocoro.MessageLostError as error:
        _note_lost(life, *error.payloads)
    except (trio.WouldBlock, triocoro.InterruptedSendError):
        pass


async def guest(life: Life, endpoint: RecordingEndpoint) -> None:
    """Join a group for a moment, say a few things, and leave; now and then in the middle of something."""
    hurried = life.chance.random() < 0.2
    with trio.move_on_after(life.chance.expovariate(30) if hurried else float("inf")):
        async with triocoro.open_group("guests", endpoint=endpoint) as group:
            life.counters.connections += 1
            for _ in range(life.chance.randint(0, 20)):
                await _send(life, group)
                with trio.move_on_after(life.chance.expovariate(50)):
                    await _receive(life, group)
    await life.pause()


async def sender(life: Life, endpoint: RecordingEndpoint) -> None:
    """Send without receiving."""
    async with triocoro.open_group("senders", receive=False, endpoint=endpoint) as group:
        life.counters.connections += 1
        for _ in range(life.chance.randint(1, 300)):
            await _send(life, group)
            await life.pause()


async def low_level(life: Life, endpoint: RecordingEndpoint) -> None:
    """Be a member by the low-level API, for a moment."""

    async def handle_event(_: object) -> None:
        await trio.lowlevel.checkpoint()

    handle = await _until_accepted(
        lambda: lowlevel.cpg_initialize(
            deliver=handle_event, confchg=handle_event, totem_confchg=handle_event, endpoint=endpoint
        )
    )
    life.counters.connections += 1
    try:
        await _until_accepted(lambda: handle.join("low"))
        for _ in range(life.chance.randint(1, 100)):
            with trio.move_on_after(life.chance.expovariate(PACE)):
                await handle.dispatch(lowlevel.Dispatch.BLOCKING)
            if life.chance.random() < 0.8:
                await _until_accepted(lambda: handle.mcast_joined(life.payload()[:30_000]))
            else:
                await _send_zero_copy(life, handle)
        await _until_accepted(lambda: handle.leave("low"))
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await handle.finalize()


async def _send_zero_copy(life: Life, handle: lowlevel.CpgHandle) -> None:
    payload = life.payload()[:4_000]
    async with handle.zcb_alloc(len(payload)) as buffer:
        buffer[:] = payload
        await _until_accepted(lambda: handle.zcb_mcast_joined(buffer))


async def _until_accepted(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except triocoro.TryAgainError:
            await trio.sleep(0.01)


# -- the other services ------------------------------------------------------------------------------------------------


async def _watch(life: Life, changes: AsyncIterable[object], *questions: Callable[[], Awaitable[object]]) -> None:
    for _ in range(life.chance.randint(1, 300)):
        with trio.move_on_after(life.chance.expovariate(PACE)):
            async for _event in changes:
                pass
        await life.now_and_then_cancelled(life.chance.choice(questions))


async def votes(life: Life, endpoint: RecordingEndpoint) -> None:
    """Track votequorum, and ask for information."""
    async with triocoro.open_votequorum(endpoint=endpoint) as votequorum, votequorum.track() as changes:
        life.counters.connections += 1
        await _watch(life, changes, votequorum.info, votequorum.wait_quorate)


async def quorum(life: Life, endpoint: RecordingEndpoint) -> None:
    """Track quorum, and ask for it."""
    async with triocoro.open_quorum(endpoint=endpoint) as quorum, quorum.track() as changes:
        life.counters.connections += 1
        await _watch(life, changes, quorum.is_quorate, quorum.wait_quorate)


async def keys(life: Life, endpoint: RecordingEndpoint) -> None:
    """Track keys, and change them."""
    async with triocoro.open_cmap(endpoint=endpoint) as cmap, cmap.track("soak.", prefix=True) as changes:
        life.counters.connections += 1

        async def change() -> None:
            key = f"soak.{life.chance.randrange(_KEYS)}"
            try:
                await life.chance.choice((cmap.get, cmap.delete, cmap.increment, cmap.decrement))(key)
            except (triocoro.KeyNotFoundError, triocoro.InvalidParamError):  # there is none, or it is no number
                await cmap.set(key, *life.chance.choice(_VALUES))

        await _watch(life, changes, change, change, change, lambda: cmap.items("soak."), lambda: cmap.items("totem."))


async def configuration(life: Life, endpoint: RecordingEndpoint) -> None:
    """Ask for the state of nodes and links."""
    async with triocoro.open_cfg(endpoint=endpoint) as cfg, cfg.track_shutdown() as requests:
        life.counters.connections += 1
        await _watch(
            life,
            requests,
            cfg.local_nodeid,
            cfg.ring_status,
            lambda: cfg.node_status(life.chance.choice(life.nodes)),
            lambda: cfg.node_addresses(life.chance.choice(life.nodes)),
            cfg.reopen_log_files,
        )


async def groups(life: Life, endpoint: RecordingEndpoint) -> None:
    """Ask for groups and their members."""
    async with triocoro.open_cpg(endpoint=endpoint) as cpg:
        life.counters.connections += 1
        for _ in range(life.chance.randint(1, 30)):
            await life.now_and_then_cancelled(cpg.groups)
            await life.now_and_then_cancelled(lambda: cpg.members("talkers"))
            await trio.sleep(life.chance.expovariate(5))


ROLES = (talker, guest, sender, low_level, votes, quorum, keys, configuration, groups)
_GOES_WRONG = (triocoro.ConnectionLostError, triocoro.CorosyncUnavailableError)


async def again(life: Life, role: Callable[[Life, RecordingEndpoint], Awaitable[None]]) -> None:
    """Play a role until cancelled, whatever happens to its connection."""
    endpoint = life.endpoints(role.__name__)
    while True:  # noqa: ASYNC913 - each role is a checkpoint
        try:
            await role(life, endpoint)
        except _GOES_WRONG:
            await trio.sleep(0.05)
        except triocoro.ExistError:  # the daemon has not noticed yet that our last connection is gone
            await trio.sleep(0.05)
        except triocoro.MessageLostError as error:
            _note_lost(life, *error.payloads)
