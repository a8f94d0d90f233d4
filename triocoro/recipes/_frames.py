"""The frames that members of a safe group send each other, and their format: docs/recipes/frames.md."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, TypeAlias, final

import attrs

from ._ballots import Ballot, Claim
from ._config import Config, decode_votes, encode_votes
from ._log import Entry, Kind

VERSION: Final = 1
"""Members that speak another version are refused."""

SAFE_GROUP: Final = b"tcsg"
REPLICA: Final = b"tcrp"
LOCK: Final = b"tclk"
OPERATOR: Final = b"tcop"
_MARKS: Final = {SAFE_GROUP: "safe group", REPLICA: "replica", LOCK: "lock or leadership", OPERATOR: "operator"}
_HEADER = struct.Struct(">4sBBQIIQ")  # mark, version, kind, ballot
_BALLOT = struct.Struct(">QIIQ")
_COUNT = struct.Struct(">I")
_PAIR = struct.Struct(">QQ")
_OFFER = struct.Struct(">QQQ??")
_CLAIM = struct.Struct(">?QI")
_DIGEST = struct.Struct(">8s")
_ACK = struct.Struct(">Q8s")
_DATA = struct.Struct(">QQB8s")
_ENTRY = struct.Struct(">QQQBI")
_ASK_SNAPSHOT = struct.Struct(">QQQ")
_PART = struct.Struct(">QQQ?")
_FOUND = struct.Struct(">?")


class FrameError(ValueError):
    """A message is no frame of ours."""


class OtherProtocolError(FrameError):
    """A frame is of another version than ours, or of another recipe."""


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def read(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Read what a layout says."""
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def count(self) -> int:
        (count,) = self.read(_COUNT)
        return int(count)

    def take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        if len(data) != count:
            raise FrameError("a frame ends early")
        self._at += count
        return data

    def rest(self) -> bytes:
        return self._data[self._at :]

    def votes(self) -> Mapping[int, int]:
        votes, self._at = decode_votes(self._data, self._at)
        return votes

    def config(self) -> Config:
        config, self._at = Config.decode(self._data, self._at)
        return config


@final
@attrs.frozen
class Offer:
    """What a member says of itself at the beginning of a ballot."""

    KIND: ClassVar = 1
    ballot: Ballot
    incarnation: int
    votes: Mapping[int, int]
    """The electorate that it was started with."""
    base: int
    """How many entries it has cut off: it can send those after it."""
    committed: int
    founding: bool
    """Whether the sender founds the ballot with it."""
    claim: Claim | None

    def body(self) -> bytes:
        """The frame without its header."""
        claim = self.claim
        head = _OFFER.pack(self.incarnation, self.base, self.committed, self.founding, claim is not None)
        return head + encode_votes(self.votes) + (_encode_claim(claim) if claim is not None else b"")

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> Offer:
        """From the body."""
        incarnation, base, committed, founding, has_claim = reader.read(_OFFER)
        votes = reader.votes()
        claim = _decode_claim(reader) if has_claim else None
        return cls(ballot, incarnation, votes, base, committed, founding, claim)


@final
@attrs.frozen
class Ack:
    """The sender has the log with this digest up to this index."""

    KIND: ClassVar = 2
    ballot: Ballot
    length: int
    digest: bytes

    def body(self) -> bytes:
        """The frame without its header."""
        return _ACK.pack(self.length, self.digest)

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> Ack:
        """From the body."""
        return cls(ballot, *reader.read(_ACK))


@final
@attrs.frozen
class Data:
    """An entry to append. Its sender may have acknowledged it in advance, for one place."""

    KIND: ClassVar = 3
    ballot: Ballot
    previous: int
    """The number of the sender's entry before it."""
    number: int
    kind: Kind
    after: bytes
    """The digest of the log after which it is acknowledged; `NO_DIGEST` if it is not."""
    payload: bytes

    def body(self) -> bytes:
        """The frame without its header."""
        return _DATA.pack(self.previous, self.number, self.kind, self.after) + self.payload

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> Data:
        """From the body."""
        previous, number, kind, after = reader.read(_DATA)
        return cls(ballot, previous, number, Kind(kind), after, reader.rest())


@final
@attrs.frozen
class AskEntries:
    """A question for the entries after an index."""

    KIND: ClassVar = 4
    ballot: Ballot
    holder: int
    after: int

    def body(self) -> bytes:
        """The frame without its header."""
        return _PAIR.pack(self.holder, self.after)

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> AskEntries:
        """From the body."""
        return cls(ballot, *reader.read(_PAIR))


@final
@attrs.frozen
class Entries:
    """Entries that a member has asked for."""

    KIND: ClassVar = 5
    ballot: Ballot
    asker: int
    entries: Sequence[Entry]

    def body(self) -> bytes:
        """The frame without its header."""
        first = self.entries[0].index if self.entries else 0
        entries = [
            _ENTRY.pack(it.incarnation, it.number, it.epoch, it.kind, len(it.payload)) + it.payload
            for it in self.entries
        ]
        return _PAIR.pack(self.asker, first) + _COUNT.pack(len(entries)) + b"".join(entries)

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> Entries:
        """From the body."""
        asker, first = reader.read(_PAIR)
        entries: list[Entry] = []
        for index in range(first, first + reader.count()):
            incarnation, number, epoch, kind, size = reader.read(_ENTRY)
            entries.append(Entry(index, incarnation, number, epoch, Kind(kind), reader.take(size)))
        return cls(ballot, asker, entries)


@final
@attrs.frozen
class AskSnapshot:
    """A question for the parts of a snapshot from one on; for a new one if the stream is 0."""

    KIND: ClassVar = 6
    ballot: Ballot
    holder: int
    stream: int
    part: int

    def body(self) -> bytes:
        """The frame without its header."""
        return _ASK_SNAPSHOT.pack(self.holder, self.stream, self.part)

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> AskSnapshot:
        """From the body."""
        return cls(ballot, *reader.read(_ASK_SNAPSHOT))


@final
@attrs.frozen
class Part:
    """A part of a snapshot; part 0 says where in the log it was taken."""

    KIND: ClassVar = 7
    ballot: Ballot
    asker: int
    stream: int
    part: int
    last: bool
    payload: bytes

    def body(self) -> bytes:
        """The frame without its header."""
        return _PART.pack(self.asker, self.stream, self.part, self.last) + self.payload

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> Part:
        """From the body."""
        asker, stream, part, last = reader.read(_PART)
        return cls(ballot, asker, stream, part, last, reader.rest())


@final
@attrs.frozen
class Found:
    """An operator founds a ballot."""

    KIND: ClassVar = 8
    ballot: Ballot
    forced: bool
    """Whether a majority of the nodes suffices, whatever their members hold."""

    def body(self) -> bytes:
        """The frame without its header."""
        return _FOUND.pack(self.forced)

    @classmethod
    def of(cls, ballot: Ballot, reader: _Reader) -> Found:
        """From the body."""
        return cls(ballot, *reader.read(_FOUND))


Frame: TypeAlias = "Offer | Ack | Data | AskEntries | Entries | AskSnapshot | Part | Found"
_KINDS: Final = {it.KIND: it for it in (Offer, Ack, Data, AskEntries, Entries, AskSnapshot, Part, Found)}


def encode(frame: Frame, mark: bytes = SAFE_GROUP) -> bytes:
    """The bytes of a frame of a recipe."""
    return _HEADER.pack(mark, VERSION, frame.KIND, *frame.ballot) + frame.body()


def decode(data: bytes, mark: bytes | None = None) -> Frame:
    """The frame in a message.

    Args:
        data: the message.
        mark: of the recipe, or `None` for any. Frames of operators are for all.

    Raises:
        FrameError: it is no frame of ours.
        OtherProtocolError: it is of another version, or of another recipe.
    """
    if len(data) < _HEADER.size or data[:4] not in _MARKS:
        raise FrameError("not a frame of a safe group, replica or lock")
    found, version, kind, *numbers = _HEADER.unpack_from(data)
    if version != VERSION:
        raise OtherProtocolError(f"it speaks version {version}, and this program {VERSION}")
    if mark is not None and found not in (mark, OPERATOR):
        raise OtherProtocolError(f"it is a {_MARKS[found]}, and this member a {_MARKS[mark]}; they need other names")
    ballot = Ballot._make(numbers)
    try:
        return _KINDS[kind].of(ballot, _Reader(data, _HEADER.size))
    except (struct.error, KeyError, ValueError) as error:
        raise FrameError(f"a damaged frame: {error!r}") from error


def _encode_claim(claim: Claim) -> bytes:
    head = _BALLOT.pack(*claim.ballot) + _CLAIM.pack(claim.sure, claim.first, len(claim.digests))
    configs = b"".join(config.encode() for config in claim.configs)
    return head + b"".join(claim.digests) + _COUNT.pack(len(claim.configs)) + configs


def _decode_claim(reader: _Reader) -> Claim:
    ballot = Ballot(*reader.read(_BALLOT))
    sure, first, count = reader.read(_CLAIM)
    digests = [reader.take(_DIGEST.size) for _ in range(count)]
    return Claim(ballot, sure, first, digests, [reader.config() for _ in range(reader.count())])


@final
@attrs.frozen
class SnapshotHead:
    """Part 0 of a snapshot: the place in the log at which it was taken."""

    index: int
    digest: bytes
    numbers: Mapping[int, int]
    """The number of the last committed entry of each incarnation."""

    def encode(self) -> bytes:
        """As bytes."""
        numbers = b"".join(_PAIR.pack(*item) for item in self.numbers.items())
        return _ACK.pack(self.index, self.digest) + _COUNT.pack(len(self.numbers)) + numbers

    @classmethod
    def decode(cls, data: bytes) -> SnapshotHead:
        """From bytes."""
        reader = _Reader(data)
        index, digest = reader.read(_ACK)
        numbers: dict[int, int] = {}
        for _ in range(reader.count()):
            incarnation, number = reader.read(_PAIR)
            numbers[incarnation] = number
        return cls(index, digest, numbers)
