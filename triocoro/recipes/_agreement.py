"""The agreement of the members of a safe group on one log; no I/O. docs/recipes/agreement.md has the argument.

`TRANSITIONS` in `_states.py` has the states of a member. In each of them it waits for frames and views, and `_on`
leads to the next. A member that joins founds a ballot, so that all that take part in it count the same offers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final, final

import attrs

from triocoro import Address, RingId, reached

from ._ballots import Ballot, Choice, choose, choose_by_force, choose_nothing
from ._config import Config
from ._frames import (
    SAFE_GROUP,
    Ack,
    AskEntries,
    AskSnapshot,
    Data,
    Entries,
    Found,
    Frame,
    Offer,
    Part,
    decode,
    encode,
)
from ._holding import Holding, Machine
from ._log import NO_DIGEST, Entry, Kind
from ._states import TRANSITIONS, Event, State
from ._streams import Incoming, Outgoing, Serving

CHUNK: Final = 64 * 1024
"""The bytes of entries, or of a snapshot, that are sent at once."""
IN_A_ROW: Final = 8
"""How many entries a member must have sent, and no other one between them, to acknowledge its next one in advance."""
RETAIN: Final = 1000
"""How many committed entries are kept, at least, for members that come back."""


_HAS_LOG: Final = {State.ADOPTED, State.PRIMARY}
_LACKS_LOG: Final = {State.FETCHING, State.RESTORING}


@final
@attrs.frozen
class Proposal:
    """An entry of ours that is not committed yet."""

    number: int
    kind: Kind
    payload: bytes


@final
class Agreement:
    """One member.

    Args:
        incarnation: a number that no other member ever has.
        votes: the electorate with which to begin, if no member has a log: the votes of each node.
        machine: takes what is committed.
        retain: how many committed entries to keep for members that come back.
        chunk: the bytes of entries, or of a snapshot, that are sent at once.
        in_a_row: how many entries a member must have sent in a row to acknowledge its next one in advance.
        mark: of the recipe, which all members have.
    """

    def __init__(
        self,
        incarnation: int,
        votes: Mapping[int, int],
        machine: Machine,
        *,
        retain: int = RETAIN,
        chunk: int = CHUNK,
        in_a_row: int = IN_A_ROW,
        mark: bytes = SAFE_GROUP,
    ) -> None:
        self.incarnation = incarnation
        self.votes = votes
        self.state: State = State.AWAY
        self.holding: Holding = Holding(machine, retain)
        self.outbox: deque[Frame] = deque()
        """What `next_frame` gives."""
        self.pending: deque[Proposal] = deque()
        """What we have proposed and is not committed, in order."""
        self._number = 0
        self._chunk = chunk
        self._in_a_row = in_a_row
        self._mark = mark
        self._uniques = 0
        self._known: tuple[str | None, bool] | None = None  # what most frames do not change: see `_find_known`

        # This connection, and its ring
        self.address: Address | None = None
        self.members: Sequence[Address] = ()
        """Of the view."""
        self._ring: tuple[int, int] | None = None
        self._early: list[tuple[Address, Frame]] = []  # of rings that we have no view of yet
        self._founders: dict[int, Address | None] = {}  # of ballots whose founding we have seen; operators' addresses

        # This ballot
        self.ballot: Ballot | None = None
        self.offers: dict[int, Offer] = {}
        """What members have offered in this ballot, by incarnation."""
        self.who: dict[Address, int] = {}
        """The incarnations of those members."""
        self.acks: dict[int, int] = {}
        """Up to where they have acknowledged the log that was chosen."""
        self._promised: Ballot | None = None  # the latest one that we have offered in, over all connections
        self._choice: Choice | None = None
        self._sent = 0  # the number of our last entry that was sent in this ballot, or is in the log
        self._sent_ever = 0

        # What we lack, and what others lack
        self._held: list[tuple[Address, Frame]] = []  # what came while we were fetching
        self._overtaken = False  # whether we have not kept all of it
        self._adopters: set[int] = set()  # who has acknowledged meanwhile
        self._asked: list[int] = []  # the holders that we have asked for entries
        self._fetched: list[Entry] = []
        self._incoming: Incoming | None = None
        self._received = 0  # how many entries, or parts of it, there were when time passed
        self._serving = Serving()

    # -- what the driver tells -----------------------------------------------------------------------------------------

    def connected(self, address: Address) -> None:
        """We have joined the group; the first view follows."""
        self._leave()
        self.address = address

    def disconnected(self) -> None:
        """The connection is lost. What we hold stays."""
        self._leave()

    def view(self, ring_id: RingId, members: Sequence[Address]) -> None:
        """There is a view."""
        self._known = None
        self.members = members
        self._serving.keep(members)
        ring = (ring_id.seq, ring_id.nodeid)
        if ring == self._ring:
            self._look_for_holders()
            self._look_for_seats()
            self._choose()
            self._take_seat()
            return
        if len(self.holding.configs) > 1:
            reached("a ring ends while another electorate is pending")
        joining, self._ring = self._ring is None, ring
        self._begin_in_ring(Ballot.first(ring_id), joining=joining)
        early, self._early = self._early, []
        for sender, frame in early:
            self._take(sender, frame)

    def deliver(self, sender: Address, data: bytes) -> None:
        """A message was delivered.

        Raises:
            FrameError: it is no frame of ours, or one of another recipe or version.
        """
        self._take(sender, decode(data, self._mark))

    def lost(self, data: bytes) -> None:
        """A frame of ours was lost, and is in no member's stream."""
        reached("a frame of an agreement is lost")
        frame = decode(data)
        if isinstance(frame, Data) and frame.ballot == self.ballot:
            self._sent = min(self._sent, frame.previous)
            self._send_pending()
        elif isinstance(frame, Ack):
            self._acknowledge()
        elif isinstance(frame, (Part, AskSnapshot)) or frame.ballot == self.ballot:
            self._send(frame)
        if isinstance(frame, Offer) and frame.ballot == self.ballot:
            # What was sent after it counts for nothing.
            self._acknowledge()
            self._sent = self._last_number()
            self._send_pending()

    def next_frame(self) -> bytes:
        """Take the next frame to multicast out of the outbox, which must not be empty."""
        frame = self.outbox.popleft()
        holding = self.holding
        if isinstance(frame, Ack):
            holding.acknowledge(frame.length)
        elif isinstance(frame, Data) and frame.after == holding.digest(holding.length):
            holding.acknowledge_in_advance(self._entry(self.incarnation, frame))
        return encode(frame, self._mark)

    def propose(self, payload: bytes) -> int:
        """Propose an entry. It is sent as soon as we are primary, and in each later ballot until it is committed.

        Returns:
            its number. Entries are committed in the order of their numbers.
        """
        return self._propose(Kind.PAYLOAD, payload)

    def propose_votes(self, votes: Mapping[int, int]) -> int | None:
        """Propose another electorate: votes by node. Members on nodes that it adds are seated at once.

        Returns:
            the number of the entry; `None` if members on a majority of the new electorate are not there.
        """
        config = self.holding.configs[-1]
        here = {address: self.who[address] for address in sorted(self.members) if self.who.get(address) in self.acks}
        seats = {node: it for node, it in config.seats.items() if node in votes and it in here.values()}
        for address, incarnation in here.items():
            if address.nodeid in votes:
                seats.setdefault(address.nodeid, incarnation)
        config = attrs.evolve(config, votes=votes, seats=seats)
        return self._propose(Kind.CONFIG, config.encode()) if config.majority_of_nodes(seats) else None

    def withdraw(self) -> int:
        """Forget what we have proposed and is not committed. Of that, what was sent may be committed later.

        Returns:
            the greatest number of an entry that was sent.
        """
        self.pending.clear()
        return self._sent_ever

    def speak(self) -> None:
        """Send a frame without need, so that others learn which protocol we speak."""
        self._acknowledge()

    def tick(self) -> None:
        """Time has passed. A member that was asked for something, and has sent nothing since, is not waited for."""
        self._known = None
        self._serving.tick()
        if self.state is State.FETCHING:
            if len(self._fetched) == self._received:
                self._ask_entries()
            self._received = len(self._fetched)
        elif self.state is State.RESTORING:
            received = self._incoming.part if self._incoming is not None else 0
            if received == self._received:
                self._ask_snapshot()
            self._received = received

    # -- ballots -------------------------------------------------------------------------------------------------------

    def _on(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    def _leave(self) -> None:
        self._known = None
        self.holding.keep_in_advance()
        self._on(Event.APART)
        self.address = self.ballot = self._ring = self._incoming = None
        self.members = ()
        self._early.clear()
        self._serving.clear()
        self._forget_ballot()

    def _forget_ballot(self) -> None:
        self._choice = None
        self._overtaken = False
        self.outbox.clear()
        for each in (self._held, self._asked, self._fetched):
            each.clear()
        for other in (self.offers, self.who, self.acks, self._adopters):
            other.clear()

    def _begin_in_ring(self, first: Ballot, *, joining: bool) -> None:
        """Begin the first ballot of our own in a ring."""
        self._founders.clear()
        promised = self._promised
        joins_again = joining and promised is not None and promised.ring == first.ring
        if promised is not None and promised >= first and not joins_again:
            reached("the numbers of rings go back")
            # Wait until they have caught up; even this very ring may have been there before.
            self._on(Event.APART)
            self.ballot = None
        elif joining:
            # Others may be in any ballot, and we have not seen how it began.
            self._found(max(promised, first) if promised is not None else first)
        else:
            self._founders[first.founder] = None
            self._begin(first)

    def _found(self, after: Ballot) -> None:
        """Found a ballot after this one."""
        founder = self.unique()
        self._founders[founder] = None
        self._begin(after.next(founder), founding=True)

    def unique(self) -> int:
        """A number that no other member has, and this one never again."""
        self._uniques += 1
        digest = blake2b(b"%d %d" % (self.incarnation, self._uniques), digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def _begin(self, ballot: Ballot, *, founding: bool = False) -> None:
        """Begin a ballot: promise to acknowledge nothing in earlier ones, and say what we have.

        All that take part in it must count the same offers. So a member begins one only if it has seen its founding,
        which is the beginning of the ring, or a frame that says so.
        """
        self._forget_ballot()
        self.ballot = self._promised = ballot
        self._on(Event.BALLOT)
        holding = self.holding
        claim = holding.claim()
        self._send(Offer(ballot, self.incarnation, self.votes, holding.base, holding.committed, founding, claim))

    def _follow(self, ballot: Ballot, *, founding: bool, operator: Address | None = None) -> None:
        """Go to the ballot of an offer, or to one that comes after ours."""
        if self.ballot is None or ballot == self.ballot:
            return
        if founding:
            self._founders[ballot.founder] = operator
        if ballot.founder in self._founders:
            if ballot > self.ballot:
                if not founding:
                    # Members that have joined since the founding do not follow, and may read what we have sent.
                    self.holding.keep_in_advance()
                self._begin(ballot)
            elif founding:
                reached("two ballots are founded at once")
                self._begin(self.ballot.next(ballot.founder))

    def _choose(self) -> None:
        """Choose a log, once the offers allow it."""
        if self.state is not State.OFFERING or self.ballot is None or not self.offers:
            return
        claims = {incarnation: offer.claim for incarnation, offer in self.offers.items()}
        operator = self._founders.get(self.ballot.founder)
        choice = choose(claims) if operator is None else None
        if choice is None or choice.length == 0:
            if not all(address in self.who for address in self.members if address != operator):
                return
            votes = self._votes_of_all()
            # A member that has offered and is gone gets no seat: a log begins with all of them.
            here = {address: incarnation for address, incarnation in self.who.items() if address in self.members}
            if operator is None:
                choice = choose_nothing(self.ballot, claims, here, votes, choice)
            else:
                choice = choose_by_force(self.ballot, claims, here, votes)
        self._choice = choice
        if choice is None:
            return
        if choice.length == self.holding.committed == 0 and not self.holding.matches(0, choice.digest):
            self.holding.begin(choice.digest)
        if self.holding.has(choice):
            self._adopt()
        else:
            self._on(Event.LACKS_LOG)
            self._ask_entries()

    def _votes_of_all(self) -> Mapping[int, int] | None:
        """The electorate with which all members were started; `None` if they differ."""
        votes, *others = [offer.votes for offer in self.offers.values()]
        return votes if all(other == votes for other in others) else None

    def _adopt(self) -> None:
        """Take the log that was chosen for ours, and say so."""
        if self.ballot is None or self._choice is None:
            raise AssertionError("nothing to adopt")
        self.holding.adopt(self.ballot, self._choice)
        self._on(Event.HAS_LOG)
        self._incoming = None
        self._acknowledge()
        self._serve()
        held, self._held = self._held, []
        for sender, frame in held:
            self._on_frame(sender, frame)

    # -- frames --------------------------------------------------------------------------------------------------------

    def _take(self, sender: Address, frame: Frame) -> None:
        if self.state is State.PRIMARY and isinstance(frame, (Ack, Data)) and frame.ballot == self.ballot:
            self._on_frame(sender, frame)
            return
        self._known = None
        if isinstance(frame, Part):
            self._on_part(frame)
        elif isinstance(frame, AskSnapshot):
            self._on_ask_snapshot(sender, frame)
        elif self._ring is None or frame.ballot.ring > self._ring:
            self._early.append((sender, frame))
        elif frame.ballot.ring == self._ring:
            if isinstance(frame, Found):
                self._follow(frame.ballot, founding=True, operator=sender if frame.forced else None)
            elif isinstance(frame, Offer):
                self._follow(frame.ballot, founding=frame.founding)
            if frame.ballot == self.ballot:
                self._on_frame(sender, frame)

    def _on_frame(self, sender: Address, frame: Frame) -> None:
        """Take a frame of this ballot."""
        if isinstance(frame, Offer):
            self._on_offer(sender, frame)
            return
        if isinstance(frame, Entries):
            self._on_entries(frame)
            return
        incarnation = self.who.get(sender)
        if incarnation is None:
            return
        if isinstance(frame, AskEntries):
            self._on_ask_entries(incarnation, frame)
        elif self.state in _LACKS_LOG:
            self._hold(sender, incarnation, frame)
        elif isinstance(frame, Ack) and self.state in _HAS_LOG:
            self._on_ack(incarnation, frame)
        elif isinstance(frame, Data) and self.state is State.PRIMARY:
            self._on_data(incarnation, frame)

    def _hold(self, sender: Address, incarnation: int, frame: Frame) -> None:
        """Keep a frame until we have the log that it is about."""
        if isinstance(frame, Ack):
            self._adopters.add(incarnation)
        elif self.state is State.RESTORING:
            # The others go on without us: what comes until we have the snapshot may be much.
            if not self._overtaken:
                reached("the others go on while a member fetches a snapshot")
            self._overtaken = True
            self._held.clear()
        if not self._overtaken:
            self._held.append((sender, frame))

    def _on_offer(self, sender: Address, offer: Offer) -> None:
        self.who[sender] = offer.incarnation
        self.offers[offer.incarnation] = offer
        self._choose()
        self._take_seat()

    def _on_data(self, incarnation: int, frame: Data) -> None:
        holding = self.holding
        if frame.previous != holding.numbers.get(incarnation, 0):
            return  # one before it was lost
        acknowledged = frame.after == holding.digest(holding.length)
        holding.append(self._entry(incarnation, frame))
        if frame.kind is Kind.CONFIG:
            self._known = None
        if acknowledged:
            self.acks[incarnation] = holding.length
            if incarnation == self.incarnation:
                return
        self._acknowledge()

    def _entry(self, incarnation: int, frame: Data) -> Entry:
        """The entry that a frame appends."""
        index = self.holding.length + 1
        return Entry(index, incarnation, frame.number, frame.ballot.seq, frame.kind, frame.payload)

    def _on_ack(self, incarnation: int, frame: Ack) -> None:
        holding, choice = self.holding, self._choice
        if choice is None or not holding.matches(frame.length, frame.digest):
            return
        self.acks[incarnation] = max(frame.length, self.acks.get(incarnation, 0))
        self._serving.drop(incarnation)
        holding.confirm(frame.length)
        if self.state is State.ADOPTED and holding.adopted(self.acks, choice):
            self._on(Event.ESTABLISHED)
            self._sent = self._last_number()
            self._send_pending()
            self._take_seat()
        if self.state is State.PRIMARY:
            committed = holding.commit(self.acks)
            if committed:
                self._drop_pending()
                holding.cut(self._serving.needed())
                if any(entry.kind is Kind.CONFIG for entry in committed):
                    self._known = None
                    self._take_seat()

    # -- sending -------------------------------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        self.outbox.append(frame)

    def _acknowledge(self) -> None:
        """Acknowledge the log, with one frame for all that has come since the last one was sent."""
        if self.ballot is None or self.state not in _HAS_LOG:
            return
        if self.outbox and isinstance(self.outbox[-1], Ack):
            self.outbox.pop()
        length = self.holding.length
        self._send(Ack(self.ballot, length, self.holding.digest(length)))

    def _last_number(self) -> int:
        return self.holding.numbers.get(self.incarnation, 0)

    def _propose(self, kind: Kind, payload: bytes) -> int:
        self._number += 1
        self.pending.append(Proposal(self._number, kind, payload))
        self._send_pending()
        return self._number

    def _send_pending(self) -> None:
        if self.state is not State.PRIMARY or self.ballot is None:
            return
        holding = self.holding
        for it in self.pending:
            if it.number > self._sent:
                after = holding.digest(holding.length) if self._may_acknowledge_in_advance(it) else NO_DIGEST
                self._send(Data(self.ballot, self._sent, it.number, it.kind, after, it.payload))
                self._sent = it.number
                self._sent_ever = max(self._sent_ever, it.number)

    def _may_acknowledge_in_advance(self, proposal: Proposal) -> bool:
        under_way = self._sent != self._last_number()
        if under_way or proposal.kind is Kind.CONFIG or self.holding.in_a_row(self.incarnation) < self._in_a_row:
            return False
        _, others_decide = self._find_known()
        return others_decide

    def _drop_pending(self) -> None:
        done = self.holding.committed_numbers.get(self.incarnation, 0)
        while self.pending and self.pending[0].number <= done:
            self.pending.popleft()

    @property
    def is_taking_seat(self) -> bool:
        """Whether we have proposed to vote for our node, or another electorate, and that is not committed yet."""
        return any(it.kind is Kind.CONFIG for it in self.pending)

    def _take_seat(self) -> None:
        """Propose to vote for our node, if the member that did so is gone. A log begins with an entry of this kind."""
        if self.state is not State.PRIMARY or self.address is None or len(self.holding.configs) > 1:
            return
        config = self.holding.configs[0]
        node = self.address.nodeid
        if node not in config.votes or self.is_taking_seat:
            return
        here = [address for address in self.members if address.nodeid == node]
        if self.holding.length == 0:
            if node == min(config.votes) and config.seats[node] == self.incarnation:
                self._propose(Kind.CONFIG, config.encode())
            return
        if any(address not in self.who for address in here):
            return  # it may be the one
        if config.seats.get(node) not in {self.who[address] for address in here} and min(here) == self.address:
            reached("a seat passes on to another process of its node")
            seats = {**config.seats, node: self.incarnation}
            self._propose(Kind.CONFIG, attrs.evolve(config, seats=seats).encode())

    # -- entries that we lack ------------------------------------------------------------------------------------------

    def _holders(self) -> list[int]:
        """The members that have the chosen log, and are here."""
        here = (self.who[address] for address in sorted(self.members) if address in self.who)
        return [it for it in here if it in self._adopters or (it != self.incarnation and self._offers_choice(it))]

    def _offers_choice(self, incarnation: int) -> bool:
        choice, claim = self._choice, self.offers[incarnation].claim
        if choice is None or claim is None:
            return False
        return claim.has(choice)

    def _look_for_holders(self) -> None:
        """Begin again if those that had the chosen log are gone."""
        if self.state not in _LACKS_LOG or self.ballot is None:
            return
        holders = self._holders()
        if not holders:
            reached("all that have the chosen log are gone")
            self._found(self.ballot)
        elif self.state is State.FETCHING and self._asked and self._asked[-1] not in holders:
            reached("a member that was asked for entries is gone")
            self._ask_entries()
        elif self._incoming is not None and self._incoming.holder not in holders:
            reached("a snapshot begins again from another member")
            self._ask_snapshot()

    def _look_for_seats(self) -> None:
        """Begin again if a member that has a seat is gone before the log has an entry: without it, none begins."""
        if (
            self.state not in _HAS_LOG
            or self.holding.length
            or self.ballot is None
            or self.address != min(self.members)
        ):
            return
        here = {self.who.get(address) for address in self.members}
        if any(seat not in here for config in self.holding.configs for seat in config.seats.values()):
            reached("a member with a seat is gone before the log begins")
            self._found(self.ballot)

    def _ask_entries(self) -> None:
        """Ask a holder that was not asked yet. If all have been, begin again; if none has them any more, restore."""
        if self.ballot is None:
            return
        holders = self._holders()
        fresh = [holder for holder in holders if holder not in self._asked]
        if not fresh:
            self._found(self.ballot)
            return
        basis = self.holding.basis()
        able = next((it for it in fresh if basis is not None and self.offers[it].base <= basis), None)
        if basis is not None and able is not None:
            self._asked.append(able)
            self._fetched.clear()
            self._received = 0
            self._send(AskEntries(self.ballot, able, basis))
            return
        self._on(Event.CUT_OFF)
        if self._incoming is not None and self._incoming.holder in holders:
            self._ask_part()
        else:
            self._ask_snapshot()

    def _on_ask_entries(self, asker: int, frame: AskEntries) -> None:
        choice, holding = self._choice, self.holding
        if frame.holder != self.incarnation or choice is None or self.state not in _HAS_LOG:
            return
        if frame.after < holding.base:
            reached("entries are cut off between the question and the answer")
            return
        entries: list[Entry] = []
        size = 0
        for entry in holding.between(frame.after, choice.length):
            size += len(entry.payload)
            if entries and size > self._chunk:
                break
            entries.append(entry)
        self._send(Entries(frame.ballot, asker, entries))

    def _on_entries(self, frame: Entries) -> None:
        choice, basis = self._choice, self.holding.basis()
        if frame.asker != self.incarnation or self.state is not State.FETCHING or choice is None or basis is None:
            return
        have = basis + len(self._fetched)
        if frame.entries and frame.entries[0].index != have + 1:
            return
        self._fetched += frame.entries
        have += len(frame.entries)
        if have < choice.length:
            if frame.entries:
                self._send(AskEntries(frame.ballot, self._asked[-1], have))
        elif self.holding.complete(self._fetched, choice):
            self._drop_pending()
            self._adopt()
        else:
            reached("a member has committed entries that are not in the chosen log")
            self._asked.clear()
            self._ask_entries()

    # -- snapshots -----------------------------------------------------------------------------------------------------

    def _ask_snapshot(self) -> None:
        """Ask the next holder for a snapshot."""
        holders = self._holders()
        before = self._incoming.holder if self._incoming is not None else 0
        holder = min([it for it in holders if it > before] or holders, default=None)
        if holder is not None:
            self._incoming = Incoming(holder)
            self._ask_part()

    def _ask_part(self) -> None:
        incoming = self._incoming
        if incoming is not None and self.ballot is not None:
            self._send(AskSnapshot(self.ballot, incoming.holder, incoming.stream, incoming.part))

    def _on_ask_snapshot(self, sender: Address, frame: AskSnapshot) -> None:
        asker = self.who.get(sender)
        if frame.holder == self.incarnation and asker is not None:
            self._serving.ask(asker, sender, frame)
            self._serve()

    def _serve(self) -> None:
        """Send the snapshots that were asked for, if we have the log of this ballot."""
        if self.ballot is not None and self.state in _HAS_LOG:
            for part in self._serving.answer(self.ballot, self._take_snapshot):
                self._send(part)

    def _take_snapshot(self, to: Address) -> Outgoing:
        return Outgoing(self.unique(), to, self.holding.head(), self.holding.snapshot(), self._chunk)

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
        if self.ballot is None:
            return
        self.holding.staged = incoming
        choice = self._choice
        beyond = incoming.head is None or choice is None or incoming.head.index > choice.length
        if self.state is State.RESTORING and not (self._overtaken or beyond):
            self._on(Event.RESTORED)
            self._asked.clear()
            self._ask_entries()
        else:
            self._found(self.ballot)  # so that we miss nothing of what comes while we get the entries after it

    # -- why nothing can be committed ----------------------------------------------------------------------------------

    def obstacle(self) -> str | None:
        """Why nothing can be committed, in words; `None` if we are primary, or may be so soon."""
        return self._find_known()[0]

    def _find_known(self) -> tuple[str | None, bool]:
        """The obstacle, and whether the others that are here can rule out that what we alone know is committed."""
        if self._known is None:
            here = {self.who.get(address) for address in self.members} - {self.incarnation}
            alone = any(config.majority(lambda it: it not in here) for config in self.holding.configs)
            self._known = self._find_obstacle(), not alone
        return self._known

    def _find_obstacle(self) -> str | None:
        if self.address is None or self._ring is None:
            return "not connected to Corosync"
        if self.ballot is None:
            return "the numbers of Corosync's rings went back; wait until they have caught up"
        configs = self.known_configs()
        here = {address.nodeid for address in self.members}
        if not all(config.majority_of_nodes(here) for config in configs):
            absent = {node for config in configs for node in config.votes} - here
            return f"no majority: there are no members on {_listed(absent)}"
        if self.state is State.OFFERING and all(address in self.who for address in self.members):
            return self._missing_offers(configs)
        if self.state is State.PRIMARY:
            present = {self.who[address] for address in self.members if address in self.who}
            if not all(config.majority(present.__contains__) for config in configs):
                return f"no majority: missing are the members that vote for {_missing(configs, present)}"
        return None

    def _missing_offers(self, configs: Iterable[Config]) -> str:
        holders = {incarnation for incarnation, offer in self.offers.items() if offer.claim is not None}
        if holders:
            return f"no majority: missing are the members with the state that vote for {_missing(configs, holders)}"
        if self._votes_of_all() is None:
            return "members do not agree on the electorate: " + "; ".join(
                f"node {address.nodeid} says {dict(self.offers[it].votes)}" for address, it in sorted(self.who.items())
            )
        absent = self.votes.keys() - {address.nodeid for address in self.members}
        return f"no member has the state; to begin, members on all nodes are needed: missing on {_listed(absent)}"

    def known_configs(self) -> Sequence[Config]:
        """The latest electorate known to be committed and the one after it, or the one to begin with."""
        if self.holding.configs:
            return self.holding.configs
        claims = [offer.claim for offer in self.offers.values() if offer.claim is not None]
        latest = max(claims, key=lambda claim: claim.ballot, default=None)
        return latest.configs if latest is not None else [Config(0, self.votes, {})]


def _missing(configs: Iterable[Config], present: set[int]) -> str:
    return _listed({node for config in configs for node in config.votes if config.seats.get(node) not in present})


def _listed(nodes: Collection[int]) -> str:
    *others, last = map(str, sorted(nodes)) if nodes else ("none",)
    return f"nodes {', '.join(others)} and {last}" if others else f"node {last}"
