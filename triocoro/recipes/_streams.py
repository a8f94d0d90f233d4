"""Snapshots on their way to members that ask for them; no I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import final

from triocoro import Address

from ._ballots import Ballot
from ._frames import AskSnapshot, Part, SnapshotHead

WINDOW = 8
"""How many parts are sent before the first of them must have been received."""
PATIENCE = 10
"""How often time passes until a snapshot is dropped that its member does not ask for any more."""


def parts(head: SnapshotHead, chunks: Iterable[bytes], size: int) -> Iterator[tuple[bytes, bool]]:
    """The parts of a snapshot, each with whether it is the last."""
    yield head.encode(), False
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) > size:
            yield bytes(waiting[:size]), False
            del waiting[:size]
    yield bytes(waiting), True


@final
class Outgoing:
    """A snapshot that a member has asked for.

    Args:
        stream: a number that no other stream to that member has.
        to: the member.
        head: where in the log it was taken.
        chunks: of the snapshot.
        size: the bytes of a part.
    """

    def __init__(self, stream: int, to: Address, head: SnapshotHead, chunks: Iterable[bytes], size: int) -> None:
        self.stream = stream
        self.to = to
        self.index = head.index
        """The log must be kept from here on."""
        self._parts = parts(head, chunks, size)
        self.idle: int = 0
        """How often time has passed since a part was asked for."""
        self._sent: dict[int, tuple[bytes, bool]] = {}  # by number; those that may have to be sent again
        self._next = 0
        self._asked = -1

    @property
    def is_new(self) -> bool:
        """Whether the member may not know of it yet: it has asked for the first part only, and there are more."""
        return self._asked <= 0 and not any(last for _, last in self._sent.values())

    def ask(self, part: int) -> Iterator[tuple[int, bytes, bool]]:
        """The parts to send when the member asks for this one: number, bytes, whether it is the last.

        If it asks for the same part again, it has not received what was sent.
        """
        again = part == self._asked
        self._asked = part
        self.idle = 0
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
class Serving:
    """The snapshots that members have asked us for."""

    def __init__(self) -> None:
        self._outgoing: dict[int, Outgoing] = {}
        self._asked: dict[int, tuple[Address, AskSnapshot]] = {}

    def clear(self) -> None:
        """Forget all."""
        self._outgoing.clear()
        self._asked.clear()

    def ask(self, asker: int, sender: Address, frame: AskSnapshot) -> None:
        """A member asks."""
        self._asked[asker] = sender, frame

    def drop(self, asker: int) -> None:
        """A member needs no more."""
        self._outgoing.pop(asker, None)

    def tick(self) -> None:
        """Time has passed: forget members that ask for nothing any more, so that the log can be cut."""
        for asker, outgoing in [*self._outgoing.items()]:
            outgoing.idle += 1
            if outgoing.idle > PATIENCE:
                del self._outgoing[asker]

    def keep(self, members: Collection[Address]) -> None:
        """Forget members that have left."""
        for asker in [asker for asker, outgoing in self._outgoing.items() if outgoing.to not in members]:
            del self._outgoing[asker]

    def needed(self) -> Iterator[int]:
        """The indexes after which the log is needed."""
        return (outgoing.index for outgoing in self._outgoing.values())

    def answer(self, ballot: Ballot, begin: Callable[[Address], Outgoing]) -> Iterator[Part]:
        """Answer what was asked.

        Args:
            ballot: the present one.
            begin: takes a snapshot for a member.
        """
        asked, self._asked = self._asked, {}
        for asker, (sender, ask) in asked.items():
            outgoing = self._outgoing.get(asker)
            if not ask.stream and (outgoing is None or not outgoing.is_new):
                # A question that was waiting while one was taken is answered with that one.
                outgoing = self._outgoing[asker] = begin(sender)
            elif outgoing is None or ask.stream not in (0, outgoing.stream):
                continue  # it has asked for another one since, or will
            for number, data, last in outgoing.ask(ask.part):
                yield Part(ballot, asker, outgoing.stream, number, last, data)


@final
class Incoming:
    """A snapshot that we have asked for.

    Args:
        holder: the incarnation that sends it.
    """

    def __init__(self, holder: int) -> None:
        self.holder = holder
        self.stream: int = 0
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
