"""Directed schedules for locks: the queue that all members have, and the lease, without a group."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import trio
from trio.testing import MockClock

from triocoro import Address
from triocoro.recipes import _lock
from triocoro.recipes._lock import Token

DELAY = 2.0


def client(number: int) -> Any:
    return _lock._Client(number, 1, Address(number, 1), DELAY)


class Group:
    """Applies messages to a queue in order, and stands for its member; a message takes `takes` seconds to commit."""

    def __init__(self, clock: int = 1000, takes: float = 0.0) -> None:
        self.queue = _lock._Queue()
        self.clock = clock
        self.takes = takes
        self.index = 0
        self.primary = True
        self.submitted: list[tuple[float, bytes]] = []

    def apply(self, kind: bytes, number: int, more: bytes = b"") -> None:
        """Commit a message of a client; `clock` is what the wall clock of its sender shows."""
        self.index += 1
        payload = kind + struct.pack(">Q", self.clock) + client(number).encode() + more
        self.queue.apply(Address(number, 1), payload, 8, self.index)

    def expire(self, number: int, renewed: int) -> None:
        self.apply(_lock._EXPIRE, number, struct.pack(">Q", renewed))

    async def wait(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - there is no event
            await trio.sleep(0.01)

    async def wait_primary(self) -> None:
        await trio.lowlevel.checkpoint()

    async def submit(self, payload: bytes) -> None:
        self.submitted.append((trio.current_time(), payload[:1]))
        await trio.sleep(self.takes)

    @property
    def holder(self) -> int:
        """The number of the client that has the lock."""
        return self.queue.clients[0].incarnation if self.queue.clients else 0


def play(story: Callable[[], Any]) -> None:
    """Run a story by a clock of its own."""

    async def run() -> None:
        await story()

    trio.run(run, clock=MockClock(autojump_threshold=0))


def test_one_who_stops_waiting_does_not_release_the_lock_of_the_holder() -> None:
    async def story() -> None:
        group = Group()
        for number in (1, 2, 3):
            group.apply(_lock._REQUEST, number)
        group.apply(_lock._RELEASE, 2)
        assert group.holder == 1
        group.apply(_lock._RELEASE, 1)
        assert group.holder == 3

    play(story)


def test_an_expiry_that_crosses_a_renewal_does_nothing() -> None:
    """The holder counts on its renewal as soon as that is committed."""

    async def story() -> None:
        group = Group()
        group.apply(_lock._REQUEST, 1)
        group.apply(_lock._REQUEST, 2)
        granted = group.queue.renewed
        group.apply(_lock._RENEW, 1)
        group.expire(1, granted)
        assert group.holder == 1
        group.expire(1, group.queue.renewed)
        assert group.holder == 2

    play(story)


def test_only_the_holder_renews_its_lease() -> None:
    async def story() -> None:
        group = Group()
        group.apply(_lock._REQUEST, 1)
        group.apply(_lock._REQUEST, 2)
        granted = group.queue.renewed
        group.apply(_lock._RENEW, 2)
        group.expire(1, granted)
        assert group.holder == 2

    play(story)


def test_a_request_that_is_committed_twice_counts_once() -> None:
    async def story() -> None:
        group = Group()
        for number in (1, 1, 2):
            group.apply(_lock._REQUEST, number)
        group.apply(_lock._RELEASE, 1)
        assert group.holder == 2

    play(story)


def test_tokens_grow_although_a_wall_clock_is_behind() -> None:
    async def story() -> None:
        group = Group(clock=1000)
        group.apply(_lock._REQUEST, 1)
        before = group.queue.token
        group.clock = 10
        group.apply(_lock._REQUEST, 2)
        group.apply(_lock._RELEASE, 1)
        assert group.queue.token > before

    play(story)


def test_tokens_grow_although_all_memory_was_lost_in_one_ring() -> None:
    async def story() -> None:
        first, second = Group(clock=1000), Group(clock=2000)
        for number in (1, 2):
            first.apply(_lock._REQUEST, number)
        first.apply(_lock._RELEASE, 1)
        second.apply(_lock._REQUEST, 3)
        assert second.queue.token > first.queue.token

    play(story)


def test_a_snapshot_has_the_token_and_the_lease() -> None:
    async def story() -> None:
        group, other = Group(), Group()
        group.apply(_lock._REQUEST, 1)
        group.apply(_lock._REQUEST, 2)
        group.apply(_lock._RENEW, 1)
        other.queue.restore(group.queue.snapshot(), 3, discards=False)
        other.index = 3
        assert isinstance(other.queue.token, Token)
        assert (other.queue.token, other.queue.renewed) == (group.queue.token, group.queue.renewed)
        other.expire(1, 3)
        assert other.holder == 2
        assert other.queue.token > group.queue.token

    play(story)


def test_a_lease_begins_before_its_renewal_is_sent() -> None:
    """A renewal that takes long says nothing of the time that it took."""

    async def story() -> None:
        group = Group(takes=1.5)
        group.apply(_lock._REQUEST, 1)
        lease = _lock._Lease(DELAY)
        candidate = _lock._Candidate(group, group.queue, DELAY)  # type: ignore[arg-type]
        await candidate._extend(client(1), group.queue.token, lease)
        assert 0 < lease.remaining() <= 0.5

    play(story)


def test_a_lease_of_a_lock_that_was_lost_meanwhile_does_not_count() -> None:
    async def story() -> None:
        group = Group(takes=0.5)
        group.apply(_lock._REQUEST, 1)
        token, lease = group.queue.token, _lock._Lease(DELAY)
        group.expire(1, group.queue.renewed)
        await _lock._Candidate(group, group.queue, DELAY)._extend(client(1), token, lease)  # type: ignore[arg-type]
        assert lease.remaining() == 0

    play(story)


def test_the_lock_is_taken_from_its_holder_one_lock_delay_after_its_last_renewal() -> None:
    async def story() -> None:
        group = Group(takes=0.5)
        group.apply(_lock._REQUEST, 1)
        begun = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_lock._Candidate(group, group.queue, DELAY).watch)  # type: ignore[arg-type]
            await trio.sleep(1.0)
            group.apply(_lock._RENEW, 1)
            await trio.sleep(1.9)
            assert group.submitted == []
            await trio.sleep(0.2)
            nursery.cancel_scope.cancel()
        moment, kind = group.submitted[0]
        assert kind == _lock._EXPIRE
        assert moment - begun >= 1.0 + DELAY

    play(story)
