"""What a member holds: the log, what of it is committed, and the electorate; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, final

import attrs

from triocoro import reached

from ._ballots import Ballot, Choice, Claim
from ._config import Config
from ._frames import SnapshotHead
from ._log import Entry, Kind, Log, chain
from ._streams import Incoming


class Machine(Protocol):
    """What the committed entries are for."""

    def apply(self, entry: Entry, /) -> None:
        """Take a committed payload; those of a log come in order, and each once."""

    def snapshot(self) -> Iterable[bytes]:
        """The state in chunks, as it is now; what is applied while they are taken must not change them."""
        ...

    def restore(self, chunks: Sequence[bytes], /, *, discards: bool) -> None:
        """Take the state of another member for our own; `discards`: some of what was applied is not in it."""


@final
class Holding:
    """What a member holds in memory, over all its connections.

    Args:
        machine: takes what is committed.
        retain: how many committed entries to keep for members that come back.
    """

    def __init__(self, machine: Machine, retain: int) -> None:
        self.committed: int = 0
        """The index of the last committed entry."""
        self.configs: list[Config] = []
        """The latest configuration known to be committed, and the one after it in the log."""
        self.numbers: dict[int, int] = {}
        """The number of the last entry of each incarnation in the log."""
        self.committed_numbers: dict[int, int] = {}
        """The same for the committed part of the log."""
        self.staged: Incoming | None = None
        """A whole snapshot, which counts only together with the entries after it."""
        self._machine = machine
        self._retain = retain
        self._log: Log | None = None
        self._adopted: Ballot | None = None
        self._start = 0  # the length of the log when it was adopted
        self._acked = 0  # up to where we have acknowledged it
        self._last: tuple[int, int] = 0, 0  # who has sent the last entries of this ballot, and how many
        self._in_advance: Entry | None = None  # the next entry, which we have sent, acknowledged and not read
        self._sure: int | None = None  # up to where acknowledgements have come; none: not even that of adopting it
        self._foreign = False  # whether the committed part is not that of the others: they have given it up

    # -- the log -------------------------------------------------------------------------------------------------------

    @property
    def has_log(self) -> bool:
        """Whether there is a log, be it empty."""
        return self._log is not None

    @property
    def base(self) -> int:
        """How many entries have been cut off."""
        return self._log.base if self._log is not None else 0

    @property
    def length(self) -> int:
        """The index of the last entry."""
        return self._log.length if self._log is not None else 0

    def digest(self, length: int) -> bytes:
        """The digest of the log up to an index."""
        return self._log.digest(length) if self._log is not None else b""

    def matches(self, length: int, digest: bytes) -> bool:
        """Whether the log up to an index is that with the digest."""
        return self._log is not None and self._log.matches(length, digest)

    def has(self, choice: Choice) -> bool:
        """Whether we have the log that was chosen, but for the entry that the ballot itself appends."""
        if self.matches(choice.length, choice.digest):
            return True
        entry, log = choice.entry, self._log
        if entry is None or log is None or not log.base < entry.index <= log.length + 1:
            return False
        return chain(log.digest(entry.index - 1), entry.incarnation, entry.number, entry.epoch) == choice.digest

    def between(self, after: int, last: int) -> list[Entry]:
        """The entries after one index up to another one."""
        if self._log is None or last <= after:
            return []
        return self._log.after(after)[: last - after]

    def begin(self, digest: bytes) -> None:
        """Begin a log."""
        self._log = Log(0, digest)

    def append(self, entry: Entry) -> None:
        """Append an entry that has been delivered."""
        if self._log is None:
            raise AssertionError("no log")
        self._log.append(entry)
        if entry == self._in_advance:
            self._acked = entry.index
        self._in_advance = None
        last, count = self._last
        self._last = entry.incarnation, count + 1 if entry.incarnation == last else 1
        self.numbers[entry.incarnation] = entry.number
        if entry.kind is Kind.CONFIG:
            config, _ = Config.decode(entry.payload)
            # Else another one came before it, or its seats could never commit it.
            if config.index == self.configs[-1].index and config.majority_of_nodes(config.seats):
                self.configs.append(attrs.evolve(config, index=entry.index))

    def _truncate(self, length: int) -> None:
        if self._log is None:
            return
        self._log.truncate(length)
        self._last = 0, 0
        self.configs = [config for config in self.configs if config.index <= length]
        self.numbers = dict(self.committed_numbers)
        for entry in self._log.after(self.committed):
            self.numbers[entry.incarnation] = entry.number

    # -- ballots -------------------------------------------------------------------------------------------------------

    def claim(self) -> Claim | None:
        """What we have, at the beginning of a ballot. Entries that we have not acknowledged are dropped."""
        if self._log is None or self._adopted is None:
            return None
        self._acked = max(self._acked, self._sure or 0)
        if self._log.length > self._acked:
            reached("entries are dropped that were not acknowledged")
        if self._sure is None or self._sure < self._acked:
            reached("a claim has a tail that its member is not sure of")
        self._in_advance = None  # what we have sent and not read is nowhere, or would have been kept
        self._truncate(self._acked)
        first = self._start if self._sure is None else self._sure
        return Claim(self._adopted, self._sure is not None, first, self._log.digests(first), tuple(self.configs))

    def adopt(self, ballot: Ballot, choice: Choice) -> None:
        """Take the log that was chosen, which we have, for that of a ballot."""
        if self._log is None:
            raise AssertionError("no log")
        if choice.entry is not None and not self.matches(choice.length, choice.digest):
            self._log.truncate(choice.length - 1)
            self._log.append(choice.entry)
        self._adopted = ballot
        self._start = self._acked = choice.length
        self._sure = None
        self._foreign = False
        self.staged = None
        self.configs = [*choice.configs]
        if len(self.configs) > 1 and self.configs[1].index <= self.committed:
            del self.configs[0]
        if self._log.length > choice.length:
            reached("the end of a log is trimmed")
        self._truncate(choice.length)

    def adopted(self, acks: Mapping[int, int], choice: Choice) -> bool:
        """Whether a majority has acknowledged the log that was chosen; all seats, if it has no entries.

        So a seat without a log has lost it, unless the log has no entries.
        """
        if choice.length == 0:
            return all(it in acks for config in choice.configs for it in config.seats.values())
        return all(config.majority(lambda it: acks.get(it, -1) >= choice.length) for config in choice.configs)

    def acknowledge(self, length: int) -> None:
        """We acknowledge the log up to an index."""
        self._acked = max(self._acked, length)

    def in_a_row(self, incarnation: int) -> int:
        """How many entries of this ballot a member has sent since any other one has."""
        last, count = self._last
        return count if incarnation == last else 0

    def acknowledge_in_advance(self, entry: Entry) -> None:
        """We acknowledge the next entry, which we send, and so all before it."""
        self._in_advance = entry

    def keep_in_advance(self) -> None:
        """Append what we have acknowledged in advance. We cannot read it any more, and others may have."""
        if self._in_advance is not None:
            reached("a member keeps an entry that it has sent and not read")
            self.append(self._in_advance)

    def confirm(self, length: int) -> None:
        """An acknowledgement of our log was delivered: what its sender had read before is what all have."""
        self._sure = max(self._sure or 0, length)

    # -- what is committed ---------------------------------------------------------------------------------------------

    def commit(self, acks: Mapping[int, int]) -> list[Entry]:
        """Commit what a majority has acknowledged, and we are sure of; the entries."""
        entries: list[Entry] = []
        while self._sure is not None and self._sure > self.committed:
            reached = min(self._reached(acks), self._sure)
            if reached <= self.committed:
                break
            more = self.between(self.committed, reached)
            entries += more
            for entry in more:
                self._apply(entry)
        return entries

    def _reached(self, acks: Mapping[int, int]) -> int:
        reached = self.configs[0].reached(acks)
        for config in self.configs[1:]:
            if reached >= config.index:
                reached = max(config.index - 1, min(reached, config.reached(acks)))
        return reached

    def _apply(self, entry: Entry) -> None:
        self.committed = entry.index
        self.committed_numbers[entry.incarnation] = entry.number
        if entry.kind is Kind.PAYLOAD:
            self._machine.apply(entry)
        elif len(self.configs) > 1 and self.configs[1].index == entry.index:
            del self.configs[0]

    def cut(self, needed: Iterable[int]) -> None:
        """Forget committed entries that are old, and that no snapshot under way needs to be followed by."""
        kept = min([self.committed - self._retain, *needed])
        if self._log is not None and kept >= self._log.base + self._retain:
            self._log.cut(kept)

    # -- from other members --------------------------------------------------------------------------------------------

    def head(self) -> SnapshotHead:
        """Where in the log a snapshot is taken now."""
        return SnapshotHead(self.committed, self.digest(self.committed), dict(self.committed_numbers))

    def snapshot(self) -> Iterable[bytes]:
        """The state of the machine."""
        return self._machine.snapshot()

    def basis(self) -> int | None:
        """The index after which we lack entries; `None` if we need a snapshot first."""
        if self.staged is not None and self.staged.head is not None:
            return self.staged.head.index
        return None if self._log is None or self._foreign else self.committed

    def complete(self, entries: Sequence[Entry], choice: Choice) -> bool:
        """Make the log that was chosen of the basis and these entries.

        Returns:
            whether that is the log that was chosen. If not, ours is another one, and we need a snapshot.
        """
        head = self.staged.head if self.staged is not None else None
        digest = head.digest if head is not None else self.digest(self.committed)
        for entry in entries:
            digest = chain(digest, entry.incarnation, entry.number, entry.epoch)
        if digest != choice.digest:
            self.staged, self._foreign = None, self._foreign or head is None
            return False
        if head is not None and self.staged is not None:
            # If ours were a part of that log, it would know no entry that the other one lacks.
            numbers = self.committed_numbers.items()
            discards = self._foreign or any(number > head.numbers.get(it, 0) for it, number in numbers)
            self._log = Log(head.index, head.digest)
            self.committed = head.index
            self.committed_numbers = dict(head.numbers)
            self._machine.restore(self.staged.chunks, discards=discards)
        self._truncate(self.committed)
        for entry in entries:
            if self._log is not None:
                self._log.append(entry)
        return True
