"""The agreement of the members of a safe group on one log; no I/O.

A member is always in one of these states:

=========  ======================================================  =================================================
state      it                                                      what ends it
=========  ======================================================  =================================================
away       has no connection, or no view yet                       a view: offering
offering   has offered its log in this ballot                      offers of a majority: adopted if it has the log
                                                                   that they choose, else fetching
fetching   asks a holder for the entries that it lacks, and keeps  all entries are there: adopted; they have been
           what comes meanwhile                                    cut off: restoring; no holder is left: offering
restoring  asks a holder for a snapshot                            it is whole: offering, in the next ballot
adopted    has acknowledged the log                                acknowledgements of a majority: primary
primary    appends what comes, and acknowledges it                 only what ends all states
=========  ======================================================  =================================================

In each state, another ring, or an offer of a later ballot, begins a ballot: offering; and the loss of the connection
leads to away. Members that join found a ballot, so that all have seen the whole of it.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Protocol, final

import attrs

from triocoro import Address, RingId

from ._ballots import Ballot, Claim, Config, choose, nothing_committed
from ._frames import (
    Ack,
    AskEntries,
    AskSnapshot,
    Bootstrap,
    Data,
    Entries,
    Frame,
    Offer,
    Part,
    SnapshotHead,
    decode,
    decode_config,
    encode,
    encode_config,
)
from ._log import Entry, Kind, Log, chain
from ._streams import Incoming, Outgoing

_ENTRIES_SIZE = 64 * 1024
_RETAIN = 1000


class State(enum.Enum):
    """What a member does."""

    AWAY = "away"
    OFFERING = "offering"
    FETCHING = "fetching"
    RESTORING = "restoring"
    ADOPTED = "adopted"
    PRIMARY = "primary"


class Machine(Protocol):
    """What the committed entries are for."""

    def apply(self, entry: Entry, /) -> None:
        """Take a committed payload; those of a log come in order, and each once."""

    def snapshot(self) -> Iterable[bytes]:
        """The state in chunks, as it is now; what is applied while they are taken must not change them."""
        ...

    def restore(self, chunks: Sequence[bytes], /) -> None:
        """Take the state of another member for our own."""


@final
@attrs.frozen
class Proposal:
    """An entry of ours that is not committed yet."""

    number: int
    kind: Kind
    payload: bytes


@final
@attrs.frozen
class _Choice:
    """The log with which the members of a ballot go on."""

    length: int
    digest: bytes
    configs: Sequence[Config]


@final
class Agreement:
    """One member.

    Args:
        incarnation: a random number that no other member has.
        votes: the electorate with which to begin, if nobody has a log: the votes of each node.
        machine: takes what is committed.
        retain: how many committed entries to keep for members that come back.
    """

    def __init__(self, incarnation: int, votes: Mapping[int, int], machine: Machine, *, retain: int = _RETAIN) -> None:
        self.incarnation = incarnation
        self.state = State.AWAY
        self.outbox: deque[bytes] = deque()
        """Frames to multicast, in this order."""
        self.pending: deque[Proposal] = deque()
        """What we have proposed and is not committed, in order."""
        self.committed = 0
        """The index of the last committed entry."""
        self.offers: dict[int, Offer] = {}
        """What members have offered in this ballot, by incarnation."""
        self.members: Sequence[Address] = ()
        self._votes = votes
        self._machine = machine
        self._retain = retain

        # This connection
        self._address: Address | None = None
        self._ring: tuple[int, int] | None = None
        self._early: list[tuple[Address, Frame]] = []  # of rings that we have no view of yet
        self._founders: set[int] = set()  # of ballots in this ring whose founding we have seen
        self._uniques = 0

        # This ballot
        self.ballot: Ballot | None = None
        self._promised: Ballot | None = None  # the latest one that we have offered in, over all connections
        self._who: dict[Address, int] = {}
        self._choice: _Choice | None = None
        self._acks: dict[int, int] = {}
        self._held: list[tuple[Address, Frame]] = []
        self._sent = 0  # the number of our last entry that was sent, or is in the log
        self._fetched: list[Entry] = []
        self._asked: list[int] = []  # the holders that we have asked for entries
        self._adopters: set[int] = set()  # those that have acknowledged while we were fetching
        self._last_ack = b""

        # The log, and what of it counts
        self._log: Log | None = None
        self._adopted: Ballot | None = None
        self._start = 0  # its length when it was adopted
        self._sure: int | None = None  # up to where our acknowledgement came back; none: not even that of adopting it
        self._acked = 0
        self._connected_since = True  # the connection has lasted since it was adopted
        self._configs: list[Config] = []  # the latest one known to be committed, and the one after it
        self._numbers: dict[int, int] = {}  # the last number of each incarnation in the log
        self._committed_numbers: dict[int, int] = {}
        self._number = 0
        self._sent_ever = 0

        # Snapshots
        self._incoming: Incoming | None = None
        self._staged: Incoming | None = None  # a whole one, to be used with the entries after it
        self._foreign = False  # whether our log is not that of the others, even where it was committed
        self._received = 0  # parts of it, when time passed
        self._outgoing: dict[int, Outgoing] = {}
        self._asks: dict[int, tuple[Address, AskSnapshot]] = {}

    # -- what the driver tells -----------------------------------------------------------------------------------------

    def connected(self, address: Address) -> None:
        """We have joined the group; the first view follows."""
        self._address = address
        self._leave()

    def disconnected(self) -> None:
        """The connection is lost. The log stays."""
        self._address = None
        self._connected_since = False
        self._leave()

    def view(self, ring_id: RingId, members: Sequence[Address]) -> None:
        """There is a view."""
        self.members = members
        gone = [asker for asker, outgoing in self._outgoing.items() if outgoing.to not in members]
        for asker in gone:
            del self._outgoing[asker]
        ring = (ring_id.seq, ring_id.nodeid)
        if ring == self._ring:
            self._look_for_holders()
            self._take_seat()
            return
        joining, self._ring = self._ring is None, ring
        first = Ballot.first(ring_id)
        self._founders.clear()
        if self._promised is not None and self._promised >= first and self._promised.ring != ring:
            # The numbers of rings went back: wait until they have caught up.
            self.state = State.AWAY
            self.ballot = None
        elif joining:
            # Others may be in any ballot, and we have not seen how it began.
            self._found(self._promised if self._promised is not None and self._promised > first else first)
        else:
            self._founders.add(first.founder)
            self._begin(first)
        early, self._early = self._early, []
        for sender, frame in early:
            self._deliver(sender, frame)

    def deliver(self, sender: Address, data: bytes) -> None:
        """A message was delivered.

        Raises:
            FrameError: it is no frame of ours, or not of our version.
        """
        self._deliver(sender, decode(data))

    def lost(self, data: bytes) -> None:
        """A frame of ours was lost, and is in no member's stream."""
        frame = decode(data)
        if isinstance(frame, (Part, AskSnapshot)):
            self._send(frame)
        elif frame.ballot != self.ballot:
            return
        elif isinstance(frame, Data):
            self._sent = min(self._sent, frame.previous)
            self._send_pending()
        elif isinstance(frame, Ack):
            self._acknowledge()
        else:
            self._send(frame)
            # What was sent after it counts for nothing.
            self._acknowledge()
            self._sent = self._numbers.get(self.incarnation, 0)
            self._send_pending()

    def propose(self, payload: bytes) -> int:
        """Propose an entry. It is sent as soon as we are primary, and in each later ballot until it is committed.

        Returns:
            its number. Entries are committed in the order of their numbers.
        """
        return self._propose(Kind.PAYLOAD, payload)

    def withdraw(self) -> int:
        """Forget what we have proposed and is not committed. Of that, what was sent may be committed later.

        Returns:
            the greatest number of an entry that was sent.
        """
        self.pending = deque(it for it in self.pending if it.kind is not Kind.PAYLOAD)
        return self._sent_ever

    @property
    def number_committed(self) -> int:
        """The greatest number of our committed entries."""
        return self._committed_numbers.get(self.incarnation, 0)

    def obstacle(self) -> str | None:
        """Why nothing can be committed, in words; `None` if we are primary, or may be so soon."""
        if self._ring is None or self._address is None:
            return "not connected to Corosync"
        if self.ballot is None:
            return "the numbers of Corosync's rings went back: wait until they have caught up"
        offers = self.offers.values()
        configs = self._known_configs()
        if self.state is State.OFFERING and all(address in self._who for address in self.members):
            if not any(offer.claim is not None for offer in offers):
                missing = {*self._votes} - {address.nodeid for address in self.members}
                return (
                    f"no member has a log, and one begins only with members on all nodes; missing: {_listed(missing)}"
                )
            return f"members that have voted for these nodes are missing: {self._missing(configs, self._who.values())}"
        here = {address.nodeid for address in self.members}
        if not all(
            2 * sum(config.votes.get(node, 0) for node in here) > sum(config.votes.values()) for config in configs
        ):
            missing = {node for config in configs for node in config.votes} - here
            return f"not a majority: there are no members on the nodes {_listed(missing)}"
        if self.state is State.PRIMARY:
            present = {self._who[address] for address in self.members if address in self._who}
            if not all(config.majority(present.__contains__) for config in configs):
                return f"members that vote for these nodes are missing: {self._missing(configs, present)}"
        return None

    def _known_configs(self) -> list[Config]:
        if self._configs:
            return self._configs
        claims = [offer.claim for offer in self.offers.values() if offer.claim is not None]
        latest = max(claims, key=lambda claim: claim.ballot, default=None)
        return [*latest.configs] if latest is not None else [Config(0, self._votes, {})]

    def _missing(self, configs: Iterable[Config], present: Collection[int]) -> str:
        return _listed({node for config in configs for node in config.votes if config.seats.get(node) not in present})

    def tick(self) -> None:
        """Time has passed. Whoever was asked for something and has not answered is not waited for."""
        if self.state is State.FETCHING:
            self._ask_entries()
        elif self.state is State.RESTORING:
            if self._incoming is None or self._incoming.part == self._received:
                self._incoming_from_another()
            self._received = self._incoming.part if self._incoming is not None else 0

    # -- ballots -------------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        self.state = State.AWAY
        self.ballot = self._ring = None
        self.members = ()
        self.outbox.clear()
        for each in (self._early, self._held, self._fetched, self.offers, self._who, self._acks, self._asked):
            each.clear()
        for other in (self._adopters, self._outgoing, self._asks):
            other.clear()

    def _found(self, after: Ballot) -> None:
        """Found a ballot after this one."""
        founder = self._unique()
        self._founders.add(founder)
        self._begin(after.next(founder), founding=True)

    def _unique(self) -> int:
        """A number that no other member has, and this one never again."""
        self._uniques += 1
        digest = blake2b(b"%d %d" % (self.incarnation, self._uniques), digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def _begin(self, ballot: Ballot, *, founding: bool = False) -> None:
        """Begin a ballot: promise to acknowledge nothing in earlier ones, and say what we have.

        All that take part in it must count the same offers. So a member begins one only if it has seen its founding,
        which is the beginning of the ring, or an offer that says so.
        """
        self.ballot = self._promised = ballot
        self.state = State.OFFERING
        self._choice = None
        self.outbox.clear()
        for each in (self.offers, self._who, self._acks, self._held, self._fetched, self._asked, self._adopters):
            each.clear()
        base = self._log.base if self._log is not None else 0
        claim = self._claim()
        self._send(Offer(ballot, self.incarnation, self._votes, base, self.committed, founding, claim))

    def _claim(self) -> Claim | None:
        if self._log is None or self._adopted is None:
            return None
        if self._connected_since and self._sure is not None:
            # What has not come back was sent too late for all, and nobody has counted it (docs/recipes/agreement.md).
            self._acked = self._sure
        self._truncate(self._acked)
        first = self._start if self._sure is None else self._sure
        digests = self._log.digests(first)
        return Claim(self._adopted, self._sure is not None, first, digests, tuple(self._configs))

    def _deliver(self, sender: Address, frame: Frame) -> None:
        if isinstance(frame, Part):
            self._on_part(frame)
        elif isinstance(frame, AskSnapshot):
            self._on_ask_snapshot(sender, frame)
        elif self._ring is None or frame.ballot.ring > self._ring:
            self._early.append((sender, frame))
        elif frame.ballot.ring == self._ring and self.ballot is not None:
            if isinstance(frame, Offer):
                self._follow(frame)
                if frame.ballot == self.ballot:
                    self._on_offer(sender, frame)
            elif frame.ballot == self.ballot:
                self._on_frame(sender, frame)

    def _follow(self, offer: Offer) -> None:
        """Go to a later ballot."""
        if self.ballot is None or offer.ballot == self.ballot:
            return
        if offer.founding:
            self._founders.add(offer.ballot.founder)
        if offer.ballot.founder not in self._founders:
            return
        if offer.ballot > self.ballot:
            self._begin(offer.ballot)
        elif offer.founding:
            self._begin(self.ballot.next(offer.ballot.founder))

    def _on_offer(self, sender: Address, offer: Offer) -> None:
        self._who[sender] = offer.incarnation
        self.offers[offer.incarnation] = offer
        if self._choice is None:
            self._choose()
        elif self.state is State.FETCHING and not self._asked:
            self._ask_entries()
        self._take_seat()

    def _choose(self) -> None:
        claims = {incarnation: offer.claim for incarnation, offer in self.offers.items()}
        claim = choose(claims)
        if claim is not None:
            self._choice = _Choice(claim.length, claim.digests[-1], claim.configs)
        elif all(it is None or nothing_committed(it, claims) for it in claims.values()):
            self._choose_nothing()
        choice = self._choice
        if choice is None:
            return
        if self._log is not None and self._log.matches(choice.length, choice.digest):
            self._adopt()
        else:
            self.state = State.FETCHING
            self._ask_entries()

    def _choose_nothing(self) -> None:
        """Begin a log, if all nodes are there."""
        votes = next(iter(self.offers.values())).votes
        if any(offer.votes != votes for offer in self.offers.values()):
            return
        seats: dict[int, int] = {}
        for address in sorted(self._who):
            if address.nodeid in votes:
                seats.setdefault(address.nodeid, self._who[address])
        if seats.keys() != votes.keys():
            return
        digest = blake2b(repr((self.ballot, sorted(seats.items()))).encode(), digest_size=8).digest()
        self._log = Log(0, digest)
        self._choice = _Choice(0, digest, (Config(0, votes, seats),))

    def _adopt(self) -> None:
        """Take the log that was chosen for ours, and say so."""
        if self._log is None or self._choice is None:
            raise AssertionError("nothing to adopt")
        self._adopted = self.ballot
        self._start = self._acked = self._choice.length
        self._sure = None
        self._connected_since = True
        self._configs = [*self._choice.configs]
        if len(self._configs) > 1 and self._configs[1].index <= self.committed:
            del self._configs[0]
        self._truncate(self._start)
        self.state = State.ADOPTED
        self._incoming = self._staged = None
        self._foreign = False
        self._acknowledge()
        self._serve()
        held, self._held = self._held, []
        for sender, frame in held:
            self._on_frame(sender, frame)

    def _truncate(self, length: int) -> None:
        if self._log is None:
            return
        self._log.truncate(length)
        self._configs = [config for config in self._configs if config.index <= length]
        self._numbers = dict(self._committed_numbers)
        for entry in self._log.after(self.committed):
            self._numbers[entry.incarnation] = entry.number

    # -- the log -------------------------------------------------------------------------------------------------------

    def _on_frame(self, sender: Address, frame: Frame) -> None:
        incarnation = self._who.get(sender)
        if isinstance(frame, AskEntries):
            self._on_ask_entries(incarnation, frame)
        elif isinstance(frame, Entries):
            self._on_entries(frame)
        elif isinstance(frame, Bootstrap) or incarnation is None:
            return
        elif self.state is State.FETCHING or self.state is State.RESTORING:
            if isinstance(frame, Ack):
                self._adopters.add(incarnation)
            if self.state is State.FETCHING:
                self._held.append((sender, frame))
        elif isinstance(frame, Ack):
            self._on_ack(incarnation, frame)
        elif isinstance(frame, Data) and self.state is State.PRIMARY:
            self._on_data(incarnation, frame)

    def _on_data(self, incarnation: int, frame: Data) -> None:
        if self._log is None or frame.previous != self._numbers.get(incarnation, 0):
            return
        entry = Entry(self._log.length + 1, incarnation, frame.number, frame.ballot.seq, frame.kind, frame.payload)
        self._append(entry)
        self._acked = self._log.length
        self._acknowledge()

    def _append(self, entry: Entry) -> None:
        if self._log is None:
            raise AssertionError("no log")
        self._log.append(entry)
        self._numbers[entry.incarnation] = entry.number
        if entry.kind is Kind.CONFIG:
            config = decode_config(entry.payload)
            if config.index == self._configs[-1].index:  # else another one came before it
                self._configs.append(attrs.evolve(config, index=entry.index))

    def _acknowledge(self) -> None:
        if self._log is None or self.ballot is None or self.state not in {State.ADOPTED, State.PRIMARY}:
            return
        if self.outbox and self.outbox[-1] is self._last_ack:
            self.outbox.pop()  # one for all that has come
        self._last_ack = encode(Ack(self.ballot, self._log.length, self._log.digest(self._log.length)))
        self.outbox.append(self._last_ack)

    def _on_ack(self, incarnation: int, frame: Ack) -> None:
        if self._log is None or self._choice is None or not self._log.matches(frame.length, frame.digest):
            return
        self._acks[incarnation] = max(frame.length, self._acks.get(incarnation, 0))
        self._outgoing.pop(incarnation, None)
        if incarnation == self.incarnation:
            self._sure = frame.length
        if self.state is State.ADOPTED and all(config.majority(self._has_adopted) for config in self._choice.configs):
            self.state = State.PRIMARY
            self._sent = self._numbers.get(self.incarnation, 0)
            self._send_pending()
            self._take_seat()
        if self.state is State.PRIMARY:
            while self._commit():
                pass

    def _has_adopted(self, incarnation: int) -> bool:
        return self._acks.get(incarnation, -1) >= self._start

    def _commit(self) -> bool:
        """Commit what a majority has acknowledged, and we are sure of; whether there may be more."""
        if self._sure is None or self._log is None:
            return False
        reached = self._configs[0].reached(self._acks)
        for config in self._configs[1:]:
            if reached >= config.index:
                reached = max(config.index - 1, min(reached, config.reached(self._acks)))
        reached = min(reached, self._sure)
        if reached <= self.committed:
            return False
        before = self.committed
        while self.committed < reached:
            self._apply(self._log[self.committed + 1])
        if any(self._log[index].kind is Kind.CONFIG for index in range(before + 1, reached + 1)):
            self._take_seat()
        kept = min([self.committed - self._retain, *(stream.index for stream in self._outgoing.values())])
        if kept > self._log.base + self._retain:
            self._log.cut(kept)
        return True

    def _apply(self, entry: Entry) -> None:
        self.committed = entry.index
        self._committed_numbers[entry.incarnation] = entry.number
        if entry.kind is Kind.PAYLOAD:
            self._machine.apply(entry)
        elif len(self._configs) > 1 and self._configs[1].index == entry.index:
            del self._configs[0]
        self._drop_pending()

    def _drop_pending(self) -> None:
        done = self._committed_numbers.get(self.incarnation, 0)
        while self.pending and self.pending[0].number <= done:
            self.pending.popleft()

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        self.outbox.append(encode(frame))

    def _propose(self, kind: Kind, payload: bytes) -> int:
        self._number += 1
        self.pending.append(Proposal(self._number, kind, payload))
        self._send_pending()
        return self._number

    def _send_pending(self) -> None:
        if self.state is not State.PRIMARY or self.ballot is None:
            return
        for it in self.pending:
            if it.number > self._sent:
                self._send(Data(self.ballot, self._sent, it.number, it.kind, it.payload))
                self._sent = it.number
                self._sent_ever = max(self._sent_ever, it.number)

    # -- seats ---------------------------------------------------------------------------------------------------------

    def _take_seat(self) -> None:
        """Propose to vote for our node, if the member that did so is gone."""
        if self.state is not State.PRIMARY or self._address is None or len(self._configs) > 1:
            return
        config = self._configs[0]
        node = self._address.nodeid
        if node not in config.votes or any(it.kind is Kind.CONFIG for it in self.pending):
            return
        here = [address for address in self.members if address.nodeid == node]
        if any(address not in self._who for address in here):
            return  # it may be the one
        if config.seats.get(node) in {self._who[address] for address in here} or min(here) != self._address:
            return
        seats = {**config.seats, node: self.incarnation}
        self._propose(Kind.CONFIG, encode_config(attrs.evolve(config, seats=seats)))

    # -- entries that we lack ------------------------------------------------------------------------------------------

    def _holders(self) -> list[int]:
        """The members that have the chosen log, and are here."""
        choice = self._choice
        if choice is None:
            return []
        here = [self._who[address] for address in sorted(self.members) if address in self._who]

        def holds(incarnation: int) -> bool:
            claim = self.offers[incarnation].claim
            if incarnation in self._adopters:
                return True
            if claim is None or incarnation == self.incarnation:
                return False
            return claim.first <= choice.length <= claim.length and claim.digest(choice.length) == choice.digest

        return [incarnation for incarnation in here if holds(incarnation)]

    def _look_for_holders(self) -> None:
        """Begin again if those that had the chosen log are gone."""
        if self.state not in {State.FETCHING, State.RESTORING} or self.ballot is None:
            return
        holders = self._holders()
        if not holders:
            self._found(self.ballot)
        elif self.state is State.FETCHING and self._asked and self._asked[-1] not in holders:
            self._ask_entries()
        elif self._incoming is not None and self._incoming.holder not in holders:
            self._incoming_from_another()

    def _ask_entries(self) -> None:
        """Ask a holder that was not asked yet; if all have been, begin again."""
        if self.ballot is None:
            return
        holders = self._holders()
        fresh = [holder for holder in holders if holder not in self._asked]
        if not fresh:
            self._found(self.ballot)
            return
        basis = self._basis()
        able = [it for it in fresh if basis is not None and self.offers[it].base <= basis[0]]
        if basis is None or not able:
            self.state = State.RESTORING
            self._held.clear()
            self._asked.clear()
            if self._incoming is not None and self._incoming.holder in holders:
                self._ask_part()
            else:
                self._incoming_from_another()
            return
        self._asked.append(able[0])
        self._fetched.clear()
        self._send(AskEntries(self.ballot, able[0], basis[0]))

    def _on_ask_entries(self, asker: int | None, frame: AskEntries) -> None:
        if frame.holder != self.incarnation or asker is None or self._log is None or self._choice is None:
            return
        if not self._log.matches(self._choice.length, self._choice.digest) or frame.after < self._log.base:
            return
        entries: list[Entry] = []
        size = 0
        for entry in self._log.after(frame.after)[: self._choice.length - frame.after]:
            if entries and size + len(entry.payload) > _ENTRIES_SIZE:
                break
            entries.append(entry)
            size += len(entry.payload)
        self._send(Entries(frame.ballot, asker, entries))

    def _on_entries(self, frame: Entries) -> None:
        choice, basis, staged = self._choice, self._basis(), self._staged
        if frame.asker != self.incarnation or self.state is not State.FETCHING or choice is None or basis is None:
            return
        index, digest = basis
        have = index + len(self._fetched)
        if frame.entries and frame.entries[0].index != have + 1:
            return
        self._fetched += frame.entries
        have += len(frame.entries)
        if have < choice.length:
            if frame.entries:
                self._send(AskEntries(frame.ballot, self._asked[-1], have))
            return
        for entry in self._fetched:
            digest = chain(digest, entry.incarnation, entry.number)
        if digest != choice.digest:
            # Ours is another log, which was begun and given up.
            self._staged, self._foreign = None, True
            self._asked.clear()
            self._ask_entries()
            return
        if staged is not None:
            self._restore(staged)
        self._truncate(self.committed)
        if self._log is not None:
            for entry in self._fetched:
                self._log.append(entry)
        self._fetched.clear()
        self._adopt()

    def _basis(self) -> tuple[int, bytes] | None:
        """The index and the digest up to which we have what was committed."""
        if self._staged is not None and self._staged.head is not None:
            return self._staged.head.index, self._staged.head.digest
        if self._log is None or self._foreign:
            return None
        return self.committed, self._log.digest(self.committed)

    def _restore(self, staged: Incoming) -> None:
        """Replace our state and our log by a snapshot."""
        head = staged.head
        if head is None:
            raise AssertionError("a snapshot without a head")
        self._log = Log(head.index, head.digest)
        self.committed = head.index
        self._committed_numbers = dict(head.numbers)
        self._machine.restore(staged.chunks)
        self._drop_pending()

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def _incoming_from_another(self) -> None:
        holders = self._holders()
        before = self._incoming.holder if self._incoming is not None else 0
        later = [holder for holder in holders if holder > before]
        holder = min(later or holders, default=None)
        if holder is None:
            return
        self._incoming = Incoming(holder)
        self._ask_part()

    def _ask_part(self) -> None:
        incoming = self._incoming
        if incoming is not None and self.ballot is not None:
            self._send(AskSnapshot(self.ballot, incoming.holder, incoming.stream, incoming.part))

    def _on_ask_snapshot(self, sender: Address, frame: AskSnapshot) -> None:
        asker = self._who.get(sender)
        if frame.holder == self.incarnation and asker is not None:
            self._asks[asker] = sender, frame
            self._serve()

    def _serve(self) -> None:
        """Send what was asked for, if we have the log of this ballot."""
        if self.ballot is None or self._log is None or self.state not in {State.ADOPTED, State.PRIMARY}:
            return
        asks, self._asks = self._asks, {}
        for asker, (sender, ask) in asks.items():
            outgoing = self._outgoing.get(asker)
            if not ask.stream:
                head = SnapshotHead(self.committed, self._log.digest(self.committed), dict(self._committed_numbers))
                outgoing = self._outgoing[asker] = Outgoing(self._unique(), sender, head, self._machine.snapshot())
            elif outgoing is None or outgoing.stream != ask.stream:
                continue  # it has asked for another one since, or will
            for number, data, last in outgoing.ask(ask.part):
                self._send(Part(self.ballot, asker, outgoing.stream, number, last, data))

    def _on_part(self, frame: Part) -> None:
        incoming = self._incoming
        if frame.asker != self.incarnation or incoming is None:
            return
        if not incoming.take(frame.stream, frame.part, frame.payload):
            return
        if not frame.last:
            self._ask_part()
            return
        self._incoming = None
        if self.ballot is not None:
            self._staged = incoming
            self._found(self.ballot)  # to get the entries after it, and none of those that come meanwhile is missed


def _listed(nodes: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(nodes)))
