"""Snapshots on their way to members that ask for them; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import final

from triocoro import Address

from ._frames import SnapshotHead

PART_SIZE = 64 * 1024
"""The bytes of a part of a snapshot."""
WINDOW = 8
"""How many parts are sent before the first of them must have been received."""


def parts(head: SnapshotHead, chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bool]]:
    """The parts of a snapshot, each with whether it is the last."""
    yield head.encode(), False
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) > PART_SIZE:
            yield bytes(waiting[:PART_SIZE]), False
            del waiting[:PART_SIZE]
    yield bytes(waiting), True


@final
class Outgoing:
    """A snapshot that a member has asked for.

    Args:
        stream: a number that no other stream to that member has.
        to: the member.
        head: where in the log it was taken.
        chunks: of the snapshot.
    """

    def __init__(self, stream: int, to: Address, head: SnapshotHead, chunks: Iterable[bytes]) -> None:
        self.stream = stream
        self.to = to
        self.index = head.index
        """The log must be kept from here on."""
        self._parts = parts(head, chunks)
        self._sent: dict[int, tuple[bytes, bool]] = {}  # by number; those that may have to be sent again
        self._next = 0
        self._asked = -1

    def ask(self, part: int) -> Iterator[tuple[int, bytes, bool]]:
        """The parts to send when the member asks for this one: number, bytes, whether it is the last.

        If it asks for the same part again, it has not received what was sent.
        """
        again = part == self._asked
        self._asked = part
        for number in [number for number in self._sent if number < part]:
            del self._sent[number]
        if again:
            for number, (data, last) in self._sent.items():
                yield number, data, last
        while self._next < part + WINDOW:
            following = next(self._parts, None)
            if following is None:
                return
            self._sent[self._next] = following
            self._next += 1
            yield self._next - 1, *following


@final
class Incoming:
    """A snapshot that we have asked for.

    Args:
        holder: the incarnation that sends it.
    """

    def __init__(self, holder: int) -> None:
        self.holder = holder
        self.stream = 0
        self.head: SnapshotHead | None = None
        self.chunks: list[bytes] = []

    @property
    def part(self) -> int:
        """The number of the part that comes next."""
        return len(self.chunks) + (self.head is not None)

    def take(self, stream: int, part: int, data: bytes) -> bool:
        """Take a part; whether it was the next one."""
        if part == 0 and stream != self.stream:
            self.stream, self.head, self.chunks = stream, SnapshotHead.decode(data), []
            return True
        if stream != self.stream or part != self.part:
            return False
        self.chunks.append(data)
        return True
