"""Directed schedules for the ids of commands, without a group: a command that is committed twice is applied once."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from triocoro import Address
from triocoro.recipes import _replica
from triocoro.recipes._errors import CommandFailedError, UncertainError


class Counter:
    """A machine that counts what it has applied; `fail` raises."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply(self, command: bytes) -> bytes:
        self.applied.append(command)
        if command == b"fail":
            raise KeyError(command)
        return b"%d" % len(self.applied)

    def snapshot(self) -> list[bytes]:
        return [b"%b," % command for command in self.applied]

    def restore(self, chunks: Any) -> None:
        self.applied = b"".join(chunks).split(b",")[:-1]


class Log:
    """A member of its own: what is submitted is committed at once. Its sender does not hear of the first `untold`."""

    def __init__(self, untold: int = 0) -> None:
        self.machine = Counter()
        self.application = _replica._Application(self.machine)
        self.untold = untold
        self._count = 0
        self._ids = 0

    def commit(self, payload: bytes) -> Any:
        self._count += 1
        return self.application.apply(Address(1, 1), payload, 4, self._count)

    def with_id(self, key: bytes, command: bytes) -> Any:
        """Commit a command with an id; its result."""
        return self.commit(b"i" + bytes([len(key)]) + key + command).get()

    async def submit(self, payload: bytes) -> Any:
        await trio.lowlevel.checkpoint()
        outcome = self.commit(payload)
        if self.untold:
            self.untold -= 1
            raise UncertainError("the connection was lost")
        return outcome

    async def wait_primary(self) -> None:
        await trio.lowlevel.checkpoint()

    def unique(self) -> bytes:
        self._ids += 1
        return b"%d" % self._ids


def test_a_command_that_is_committed_twice_is_applied_once() -> None:
    """Its sender may send it again while the first attempt is undecided, and then both are committed."""
    log = Log()
    assert log.with_id(b"one", b"x") == b"1"
    assert log.with_id(b"two", b"y") == b"2"
    assert log.with_id(b"one", b"x") == b"1"
    assert log.machine.applied == [b"x", b"y"]


def test_a_command_that_has_failed_is_not_applied_again() -> None:
    log = Log()
    for _ in range(2):
        with pytest.raises(CommandFailedError, match="KeyError"):
            log.with_id(b"one", b"fail")
    assert log.machine.applied == [b"fail"]


def test_a_snapshot_between_the_two_has_the_ids() -> None:
    log, other = Log(), Log()
    log.with_id(b"one", b"x")
    with pytest.raises(CommandFailedError):
        log.with_id(b"two", b"fail")
    other.application.restore(log.application.snapshot(), 2, discards=False)
    assert other.with_id(b"one", b"x") == b"1"
    with pytest.raises(CommandFailedError, match="KeyError"):
        other.with_id(b"two", b"fail")
    assert other.machine.applied == [b"x", b"fail"]


def test_a_snapshot_is_that_of_its_moment() -> None:
    """What is applied while its chunks are taken is not in it."""
    log, other = Log(), Log()
    log.with_id(b"one", b"x")
    chunks = log.application.snapshot()
    log.with_id(b"two", b"y")
    other.application.restore(chunks, 1, discards=False)
    assert other.with_id(b"two", b"y") == b"2"
    assert other.machine.applied == [b"x", b"y"]


def test_the_oldest_ids_are_forgotten_first() -> None:
    log = Log()
    for number in range(_replica.REMEMBERED + 1):
        log.with_id(b"%d" % number, b"x")
    assert log.with_id(b"%d" % _replica.REMEMBERED, b"x") == b"%d" % (_replica.REMEMBERED + 1)
    assert log.with_id(b"1", b"x") == b"2"
    assert log.with_id(b"0", b"x") == b"%d" % (_replica.REMEMBERED + 2)


def test_ensure_sends_a_command_again_with_the_id_that_it_had() -> None:
    log = Log(untold=3)
    replica = _replica.Replica(log, log.machine)  # type: ignore[arg-type]
    assert trio.run(replica.ensure, b"x") == b"1"
    assert log.machine.applied == [b"x"]
