"""Ballots, the electorate, and which log to choose from offers; no I/O.

A ballot is a ring and an attempt within it. Its members choose one log, so two ballots may have the same log, but no
ballot has two. What was committed in one ballot is in the log of each later one: see docs/recipes/agreement.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import NamedTuple, final

import attrs

from triocoro import Address, RingId

from ._config import Config
from ._log import Entry, Kind, chain


class Ballot(NamedTuple):
    """A ring and an attempt within it; later ballots are greater."""

    seq: int
    nodeid: int
    attempt: int
    founder: int
    """A number that only this founding has; 0 if the ring has founded it."""

    @classmethod
    def first(cls, ring: RingId) -> Ballot:
        """The first ballot of a ring."""
        return cls(ring.seq, ring.nodeid, 0, 0)

    @property
    def ring(self) -> tuple[int, int]:
        """What orders rings: sequence number and representative."""
        return self[:2]

    def next(self, founder: int) -> Ballot:
        """The next attempt in this ring."""
        return self._replace(attempt=self.attempt + 1, founder=founder)


@final
@attrs.frozen
class Choice:
    """The log with which the members of a ballot go on."""

    length: int
    digest: bytes
    configs: Sequence[Config]
    entry: Entry | None = None
    """One that the ballot itself appends."""


@final
@attrs.frozen
class Claim:
    """What a member says of its log.

    Totem skips gaps when a ring ends, so the end of a log may be wrong: entries that no other member has in these
    places. A member is sure of what an acknowledgement says that was delivered in the same ballot, as its sender had
    read that before. Beyond that it tells the digest of each place up to the last one that it has acknowledged itself.
    Acknowledgements of these may have been counted.
    """

    ballot: Ballot
    """The latest ballot whose log it has adopted."""
    sure: bool
    """Whether it is sure of the log up to `first`. If not, it is not sure of anything that it did in this ballot."""
    first: int
    digests: Sequence[bytes]
    """Of the log up to `first`, and up to each place after it."""
    configs: Sequence[Config]
    """The latest configuration that it knows to be committed, and one that its log has after it."""

    @property
    def length(self) -> int:
        """The length of the log."""
        return self.first + len(self.digests) - 1

    def digest(self, length: int) -> bytes:
        """The digest of the log up to a place from `first` on."""
        return self.digests[length - self.first]

    def has(self, choice: Choice) -> bool:
        """Whether this log has the one that was chosen, but for the entry that the ballot itself appends."""
        length = choice.length if choice.entry is None else choice.length - 1
        if not self.first <= length <= self.length:
            return False
        digest = self.digest(length)
        if choice.entry is not None:
            digest = chain(digest, choice.entry.incarnation, choice.entry.number, choice.entry.epoch)
        return digest == choice.digest

    def includes(self, other: Claim) -> bool:
        """Whether this log has all entries that may have been committed with acknowledgements of the other member."""
        if other.ballot != self.ballot:
            return other.ballot < self.ballot
        if self.sure:
            if other.length <= self.first:
                return True
            if other.first <= self.first and other.digest(self.first) != self.digest(self.first):
                return True  # the other one has gaps; what was counted is before them
        if not self.first <= other.length <= self.length:
            return False
        return other.digest(other.length) == self.digest(other.length)


def choose(offers: Mapping[int, Claim | None]) -> Choice | None:
    """The log with which to go on.

    Args:
        offers: the claim of each incarnation; `None` for one that has no log.

    Returns:
        the greatest claim that includes those of a majority, in each of its configurations; `None` if there is none.
    """
    claims = {incarnation: _trimmed(claim, offers) for incarnation, claim in offers.items() if claim is not None}
    for claim in sorted(claims.values(), key=_rank, reverse=True):

        def agrees(incarnation: int, claim: Claim = claim) -> bool:
            other = claims.get(incarnation)
            return other is not None and claim.includes(other)

        if all(config.majority(agrees) for config in claim.configs):
            return Choice(claim.length, claim.digests[-1], claim.configs)
    return None


def choose_nothing(
    ballot: Ballot,
    offers: Mapping[int, Claim | None],
    who: Mapping[Address, int],
    votes: Mapping[int, int] | None,
    chosen: Choice | None,
) -> Choice | None:
    """A new log, if there has been none with entries, and members on all nodes offer; else the one that is there.

    Args:
        ballot: the present one.
        offers: as for `choose`.
        who: the incarnations that offer.
        votes: the electorate; `None` if they do not agree on it.
        chosen: what `choose` has found: a log without entries, or none.
    """
    claims = {it: _trimmed(claim, offers) for it, claim in offers.items() if claim is not None}
    # What was chosen has all that was committed with its seats, but not what was with others.
    others = [it for it in claims.values() if chosen is None or it.configs[0].seats != chosen.configs[0].seats]
    trimmed = {it: claims.get(it) for it in offers}
    if not all(nothing_committed(claim, trimmed) for claim in others):
        return None
    seats = _seats(who, votes or {})
    if votes is None or seats.keys() != votes.keys():
        return chosen
    return _empty(ballot, votes, seats)


def choose_by_force(
    ballot: Ballot, offers: Mapping[int, Claim | None], who: Mapping[Address, int], votes: Mapping[int, int] | None
) -> Choice | None:
    """The most advanced log, or one without entries, if members on a majority of the nodes offer; they get the seats.

    The arguments are as for `choose_nothing`.
    """
    claim = _most_advanced([claim for claim in offers.values() if claim is not None])
    if claim is not None:
        votes = claim.configs[-1].votes
    if votes is None:
        return None
    seats = _seats(who, votes)
    index = claim.length + 1 if claim is not None else 0
    config = Config(index, votes, seats)
    if not config.majority_of_nodes(seats):
        return None
    if claim is None:
        return _empty(ballot, votes, seats)
    # Its sender is the founding of the ballot, so the log differs from that of members that are not here.
    entry = Entry(index, ballot.founder, 1, ballot.seq, Kind.CONFIG, config.encode())
    return Choice(index, chain(claim.digests[-1], entry.incarnation, entry.number, entry.epoch), (config,), entry)


def _most_advanced(claims: Sequence[Claim]) -> Claim | None:
    """The longest log of the latest ballot with all of which a member is sure: a gap may have made others longer."""
    ballot = max((claim.ballot for claim in claims), default=None)
    claims = [claim for claim in claims if claim.ballot == ballot]
    sure = max((claim for claim in claims if claim.sure), key=lambda claim: claim.first, default=None)
    if sure is not None:
        place, digest = sure.first, sure.digests[0]
        claims = [it for it in claims if it.first <= place <= it.length and it.digest(place) == digest]
    return max(claims, key=_rank, default=None)


def _seats(who: Mapping[Address, int], votes: Mapping[int, int]) -> Mapping[int, int]:
    """For each node of the electorate, the member with the lowest pid."""
    seats: dict[int, int] = {}
    for address in sorted(who):
        if address.nodeid in votes:
            seats.setdefault(address.nodeid, who[address])
    return seats


def _empty(ballot: Ballot, votes: Mapping[int, int], seats: Mapping[int, int]) -> Choice:
    digest = blake2b(repr((ballot, sorted(seats.items()))).encode(), digest_size=8).digest()
    return Choice(0, digest, (Config(0, votes, seats),))


def _trimmed(claim: Claim, offers: Mapping[int, Claim | None]) -> Claim:
    """The claim without the end of which the offers show that it cannot have been committed."""
    length = claim.length
    while length > claim.first and not _may_be_committed(claim, length, offers):
        length -= 1
    configs = [config for config in claim.configs if config.index <= length]
    return attrs.evolve(claim, digests=claim.digests[: length - claim.first + 1], configs=configs)


def _may_be_committed(claim: Claim, length: int, offers: Mapping[int, Claim | None]) -> bool:
    """Whether a majority may have acknowledged the log up to a place in the ballot of the claim."""

    def may_have(incarnation: int) -> bool:
        other = offers.get(incarnation)
        if other is None:
            return incarnation not in offers
        if other.ballot != claim.ballot or length < other.first:
            return other.ballot >= claim.ballot
        return length <= other.length and other.digest(length) == claim.digest(length)

    config = [config for config in claim.configs if config.index <= length][-1]
    return config.majority(may_have)


def nothing_committed(claim: Claim, offers: Mapping[int, Claim | None]) -> bool:
    """Whether no entry of the log can have been committed, because too many of its seats say that they have none."""
    if claim.length > 0:
        return False

    def may_have_entries(incarnation: int) -> bool:
        other = offers.get(incarnation)
        return incarnation not in offers or (other is not None and other.length > 0)

    return not claim.configs[0].majority(may_have_entries)


def _rank(claim: Claim) -> tuple[Ballot, int, bytes, int]:
    return claim.ballot, claim.length, claim.digests[-1], -len(claim.configs)
