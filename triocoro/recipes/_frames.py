"""The frames that members of a safe group send each other, and their format: docs/recipes/frames.md."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias, final

import attrs

from ._ballots import Ballot, Claim, Config
from ._log import Entry, Kind

VERSION = 1
_MAGIC = b"tcsg"

_HEADER = struct.Struct(">4sBBQIIQ")  # magic, version, kind, ballot
_BALLOT = struct.Struct(">QIIQ")
_COUNT = struct.Struct(">I")
_INDEX = struct.Struct(">Q")
_VOTES = struct.Struct(">II")
_SEAT = struct.Struct(">IQ")
_OFFER = struct.Struct(">QQQ??")
_CLAIM = struct.Struct(">BQI")
_DIGEST = 8
_ACK = struct.Struct(">Q8s")
_DATA = struct.Struct(">QQB")
_ASK_ENTRIES = struct.Struct(">QQ")
_ENTRY = struct.Struct(">QQQBI")
_ASK_SNAPSHOT = struct.Struct(">QQQ")
_PART = struct.Struct(">QQQB")


class FrameError(ValueError):
    """A message is no frame of ours."""


class OtherVersionError(FrameError):
    """A frame is of another version than ours."""


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


@final
@attrs.frozen
class Ack:
    """The sender has the log with this digest up to this index."""

    KIND: ClassVar = 2
    ballot: Ballot
    length: int
    digest: bytes


@final
@attrs.frozen
class Data:
    """An entry to append."""

    KIND: ClassVar = 3
    ballot: Ballot
    previous: int
    """The number of the sender's entry before it."""
    number: int
    kind: Kind
    payload: bytes


@final
@attrs.frozen
class AskEntries:
    """A question for the entries after an index."""

    KIND: ClassVar = 4
    ballot: Ballot
    holder: int
    after: int


@final
@attrs.frozen
class Entries:
    """Entries that a member has asked for."""

    KIND: ClassVar = 5
    ballot: Ballot
    asker: int
    entries: Sequence[Entry]


@final
@attrs.frozen
class AskSnapshot:
    """A question for the parts of a snapshot from one on; for a new one if the stream is 0."""

    KIND: ClassVar = 6
    ballot: Ballot
    holder: int
    stream: int
    part: int


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


@final
@attrs.frozen
class Bootstrap:
    """An operator says: go on with what there is in this ballot."""

    KIND: ClassVar = 8
    ballot: Ballot


Frame: TypeAlias = "Offer | Ack | Data | AskEntries | Entries | AskSnapshot | Part | Bootstrap"


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
        head = _ACK.pack(self.index, self.digest)
        numbers = b"".join(_ASK_ENTRIES.pack(*item) for item in self.numbers.items())
        return head + _COUNT.pack(len(self.numbers)) + numbers

    @classmethod
    def decode(cls, data: bytes) -> SnapshotHead:
        """From bytes."""
        reader = _Reader(data)
        index, digest = reader.read(_ACK)
        numbers = dict(reader.read(_ASK_ENTRIES) for _ in range(reader.count()))
        return cls(index, digest, numbers)


# -- encoding ------------------------------------------------------------------------------------------------------


def encode(frame: Frame) -> bytes:
    """The bytes of a frame."""
    header = _HEADER.pack(_MAGIC, VERSION, frame.KIND, *frame.ballot)
    if isinstance(frame, Data):
        return header + _DATA.pack(frame.previous, frame.number, frame.kind) + frame.payload
    if isinstance(frame, Ack):
        return header + _ACK.pack(frame.length, frame.digest)
    if isinstance(frame, Offer):
        has_claim = frame.claim is not None
        body = _OFFER.pack(frame.incarnation, frame.base, frame.committed, frame.founding, has_claim) + _encode_votes(
            frame.votes
        )
        return header + body + (_encode_claim(frame.claim) if frame.claim is not None else b"")
    if isinstance(frame, AskEntries):
        return header + _ASK_ENTRIES.pack(frame.holder, frame.after)
    if isinstance(frame, Entries):
        first = frame.entries[0].index if frame.entries else 0
        return header + _ASK_ENTRIES.pack(frame.asker, first) + b"".join(map(_encode_entry, frame.entries))
    if isinstance(frame, AskSnapshot):
        return header + _ASK_SNAPSHOT.pack(frame.holder, frame.stream, frame.part)
    if isinstance(frame, Part):
        return header + _PART.pack(frame.asker, frame.stream, frame.part, frame.last) + frame.payload
    return header


def _encode_entry(entry: Entry) -> bytes:
    return _ENTRY.pack(entry.incarnation, entry.number, entry.epoch, entry.kind, len(entry.payload)) + entry.payload


def _encode_votes(votes: Mapping[int, int]) -> bytes:
    return _COUNT.pack(len(votes)) + b"".join(_VOTES.pack(*item) for item in sorted(votes.items()))


def encode_config(config: Config) -> bytes:
    """The bytes of a configuration, which is also the payload of its entry."""
    seats = _COUNT.pack(len(config.seats)) + b"".join(_SEAT.pack(*item) for item in sorted(config.seats.items()))
    return _INDEX.pack(config.index) + _encode_votes(config.votes) + seats


def _encode_claim(claim: Claim) -> bytes:
    head = _BALLOT.pack(*claim.ballot) + _CLAIM.pack(claim.sure, claim.first, len(claim.digests))
    configs = _COUNT.pack(len(claim.configs)) + b"".join(map(encode_config, claim.configs))
    return head + b"".join(claim.digests) + configs


# -- decoding ------------------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def read(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Read what a layout says."""
        values = layout.unpack_from(self._data, self._at)
        self._at += layout.size
        return values

    def take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        if len(data) != count:
            raise FrameError("a frame ends early")
        self._at += count
        return data

    def rest(self) -> bytes:
        return self._data[self._at :]

    def left(self) -> bool:
        return self._at < len(self._data)

    def count(self) -> int:
        (count,) = _COUNT.unpack_from(self._data, self._at)
        self._at += _COUNT.size
        return int(count)

    def votes(self) -> dict[int, int]:
        return dict(self.read(_VOTES) for _ in range(self.count()))

    def config(self) -> Config:
        (index,) = self.read(_INDEX)
        return Config(index, self.votes(), dict(self.read(_SEAT) for _ in range(self.count())))


def decode_config(payload: bytes) -> Config:
    """The configuration in the payload of an entry."""
    return _Reader(payload).config()


def decode(data: bytes) -> Frame:
    """The frame in a message.

    Raises:
        FrameError: it is no frame of ours.
        OtherVersionError: it is of another version.
    """
    try:
        magic, version, kind, *ballot = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise FrameError("not a frame of a safe group")
        if version != VERSION:
            raise OtherVersionError(f"it speaks version {version}, and this program {VERSION}")
        return _DECODERS[kind](Ballot(*ballot), data)
    except (struct.error, KeyError, ValueError) as error:
        if isinstance(error, FrameError):
            raise
        raise FrameError(f"a damaged frame: {error}") from error


def _decode_offer(ballot: Ballot, data: bytes) -> Offer:
    incarnation, base, committed, founding, has_claim = _OFFER.unpack_from(data, _HEADER.size)
    reader = _Reader(data, _HEADER.size + _OFFER.size)
    votes = reader.votes()
    claim: Claim | None = None
    if has_claim:
        adopted = Ballot(*reader.read(_BALLOT))
        sure, first, count = reader.read(_CLAIM)
        digests = [reader.take(_DIGEST) for _ in range(count)]
        claim = Claim(adopted, bool(sure), first, digests, [reader.config() for _ in range(reader.count())])
    return Offer(ballot, incarnation, votes, base, committed, founding, claim)


def _decode_ack(ballot: Ballot, data: bytes) -> Ack:
    return Ack(ballot, *_ACK.unpack_from(data, _HEADER.size))


def _decode_data(ballot: Ballot, data: bytes) -> Data:
    previous, number, kind = _DATA.unpack_from(data, _HEADER.size)
    return Data(ballot, previous, number, Kind(kind), data[_HEADER.size + _DATA.size :])


def _decode_ask_entries(ballot: Ballot, data: bytes) -> AskEntries:
    return AskEntries(ballot, *_ASK_ENTRIES.unpack_from(data, _HEADER.size))


def _decode_entries(ballot: Ballot, data: bytes) -> Entries:
    asker, index = _ASK_ENTRIES.unpack_from(data, _HEADER.size)
    reader = _Reader(data, _HEADER.size + _ASK_ENTRIES.size)
    entries: list[Entry] = []
    while reader.left():
        incarnation, number, epoch, kind, size = reader.read(_ENTRY)
        entries.append(Entry(index + len(entries), incarnation, number, epoch, Kind(kind), reader.take(size)))
    return Entries(ballot, asker, entries)


def _decode_ask_snapshot(ballot: Ballot, data: bytes) -> AskSnapshot:
    return AskSnapshot(ballot, *_ASK_SNAPSHOT.unpack_from(data, _HEADER.size))


def _decode_part(ballot: Ballot, data: bytes) -> Part:
    asker, stream, part, last = _PART.unpack_from(data, _HEADER.size)
    return Part(ballot, asker, stream, part, bool(last), data[_HEADER.size + _PART.size :])


def _decode_bootstrap(ballot: Ballot, _data: bytes) -> Bootstrap:
    return Bootstrap(ballot)


_DECODERS: Mapping[int, Callable[[Ballot, bytes], Frame]] = {
    Offer.KIND: _decode_offer,
    Ack.KIND: _decode_ack,
    Data.KIND: _decode_data,
    AskEntries.KIND: _decode_ask_entries,
    Entries.KIND: _decode_entries,
    AskSnapshot.KIND: _decode_ask_snapshot,
    Part.KIND: _decode_part,
    Bootstrap.KIND: _decode_bootstrap,
}
