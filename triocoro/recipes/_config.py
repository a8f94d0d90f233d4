"""The electorate: whose acknowledgements count, and for how much; no I/O."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from typing import final

import attrs

_INDEX = struct.Struct(">Q")
_COUNT = struct.Struct(">I")
_VOTES = struct.Struct(">II")
_SEAT = struct.Struct(">IQ")


@final
@attrs.frozen
class Config:
    """The electorate: the votes of each node, and the member that votes for it, its seat."""

    index: int
    """Of its entry; 0 for the first one."""
    votes: Mapping[int, int]
    seats: Mapping[int, int]
    """The incarnation that votes for a node; nodes without one are left out."""

    def majority(self, has: Callable[[int], object]) -> bool:
        """Whether the seats for whose incarnation `has` holds have more than half of all votes."""
        return 2 * sum(self.votes[node] for node, it in self.seats.items() if has(it)) > sum(self.votes.values())

    def majority_of_nodes(self, nodes: Collection[int]) -> bool:
        """Whether these nodes have more than half of all votes."""
        return 2 * sum(votes for node, votes in self.votes.items() if node in nodes) > sum(self.votes.values())

    def reached(self, lengths: Mapping[int, int]) -> int:
        """The greatest length that seats with a majority have reached; -1 if there is none."""
        needed = sum(self.votes.values())
        total = 0
        by_length = sorted(((lengths.get(it, -1), self.votes[node]) for node, it in self.seats.items()), reverse=True)
        for length, votes in by_length:
            total += 2 * votes
            if total > needed:
                return length
        return -1

    def encode(self) -> bytes:
        """As bytes."""
        seats = _COUNT.pack(len(self.seats)) + b"".join(_SEAT.pack(*item) for item in sorted(self.seats.items()))
        return _INDEX.pack(self.index) + encode_votes(self.votes) + seats

    @classmethod
    def decode(cls, data: bytes, at: int = 0) -> tuple[Config, int]:
        """From bytes; where in them it ends, too."""
        (index,) = _INDEX.unpack_from(data, at)
        votes, at = decode_votes(data, at + _INDEX.size)
        (count,) = _COUNT.unpack_from(data, at)
        at += _COUNT.size
        end = at + count * _SEAT.size
        return cls(index, votes, dict(_SEAT.iter_unpack(data[at:end]))), end


def encode_votes(votes: Mapping[int, int]) -> bytes:
    """The votes of nodes as bytes."""
    return _COUNT.pack(len(votes)) + b"".join(_VOTES.pack(*item) for item in sorted(votes.items()))


def decode_votes(data: bytes, at: int) -> tuple[Mapping[int, int], int]:
    """The votes of nodes from bytes; where in them they end, too."""
    (count,) = _COUNT.unpack_from(data, at)
    at += _COUNT.size
    end = at + count * _VOTES.size
    return dict(_VOTES.iter_unpack(data[at:end])), end
