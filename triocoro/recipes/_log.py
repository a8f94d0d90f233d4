"""The log: entries in order, each place with a digest of everything up to it; no I/O."""

from __future__ import annotations

import enum
import struct
from hashlib import blake2b
from typing import Final, final

import attrs

NO_DIGEST: Final = bytes(8)
"""No log has it."""

_ID = struct.Struct(">QQQ")


class Kind(enum.IntEnum):
    """What an entry is for."""

    PAYLOAD = 0
    CONFIG = 1


@final
@attrs.frozen
class Entry:
    """An entry of the log."""

    index: int
    incarnation: int
    """Of its sender. With `number` it identifies the entry."""
    number: int
    epoch: int
    """The sequence number of the ring in which it was sent."""
    kind: Kind
    payload: bytes


def chain(digest: bytes, incarnation: int, number: int, epoch: int) -> bytes:
    """The digest of a log with one more entry.

    An entry that was dropped and is proposed again has another epoch, and is another one.
    """
    return blake2b(digest + _ID.pack(incarnation, number, epoch), digest_size=8).digest()


@final
class Log:
    """Entries from `base` + 1 on. Those up to `base` have been cut off.

    Args:
        base: how many entries have been cut off.
        digest: of the log up to there.
    """

    def __init__(self, base: int, digest: bytes) -> None:
        self.base = base
        self._digests = [digest]
        self._entries: list[Entry] = []

    @property
    def length(self) -> int:
        """The index of the last entry."""
        return self.base + len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index - self.base - 1]

    def after(self, index: int) -> list[Entry]:
        """The entries after an index."""
        return self._entries[index - self.base :]

    def digest(self, length: int) -> bytes:
        """The digest of the log up to an index, from `base` on."""
        return self._digests[length - self.base]

    def digests(self, first: int) -> list[bytes]:
        """The digests of the log up to `first` and each later index."""
        return self._digests[first - self.base :]

    def matches(self, length: int, digest: bytes) -> bool:
        """Whether the log up to an index is that with the digest."""
        return self.base <= length <= self.length and self.digest(length) == digest

    def append(self, entry: Entry) -> None:
        """Add an entry, whose index must be the next one."""
        self._entries.append(entry)
        self._digests.append(chain(self._digests[-1], entry.incarnation, entry.number, entry.epoch))

    def truncate(self, length: int) -> None:
        """Forget the entries after an index."""
        del self._entries[length - self.base :]
        del self._digests[length - self.base + 1 :]

    def cut(self, base: int) -> None:
        """Forget the entries up to an index."""
        count = base - self.base
        if count > 0:
            del self._entries[:count]
            del self._digests[:count]
            self.base = base
