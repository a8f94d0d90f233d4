"""Wrong versions of recipes: each is caught by the test that it names, or by random schedules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from support.fixtures.long import long

from recipes.changed import FOLDER, Change, Changed, changed

ALWAYS = {
    "commits_without_being_sure",
    "half_is_a_majority",
    "incarnations_by_node",
    "tail_dropped",
    "joiner_founds_nothing",
    "parts_of_another_stream",
}
"""The mutants that are tried always; the others by `make long`."""
SEEDS = 1000
"""How many random schedules must find a mutant that no directed test finds."""


@attrs.frozen
class Mutant:
    """An agreement with one thing wrong."""

    wrong: str
    """What is wrong, for docs/recipes/proof.md."""
    changes: tuple[Change, ...]
    caught_by: str = ""
    """The directed test or the schedule that fails; none: a random schedule does."""


def mutant(wrong: str, module: str, old: str, new: str, *caught_by: str) -> Mutant:
    return Mutant(wrong, (Change(module, old, new),), *caught_by)


MUTANTS = {
    # Acknowledgements
    "acks_count_when_sent": Mutant(
        "an acknowledgement counts for its sender before it has come back",
        (
            Change(
                "agreement",
                "        self._send(Ack(self.ballot, length, self.holding.digest(length)))\n",
                "        self._send(Ack(self.ballot, length, self.holding.digest(length)))\n"
                "        self.acks[self.incarnation] = length\n        self.holding.confirm(length)\n",
            ),
        ),
        "test_an_acknowledgement_in_advance_makes_no_member_sure",
    ),
    "commits_without_being_sure": mutant(
        "an entry is committed although no acknowledgement of it has come that was sent after reading it",
        "holding",
        "while self._sure is not None and self._sure > self.committed:\n"
        "            reached = min(self._reached(acks), self._sure)\n",
        "while True:\n            reached = min(self._reached(acks), self.length)\n",
        "test_an_acknowledgement_in_advance_makes_no_member_sure",
    ),
    "in_advance_anywhere": mutant(
        "an acknowledgement in advance counts although another entry came before",
        "agreement",
        "        acknowledged = frame.after == holding.digest(holding.length)\n",
        "        acknowledged = frame.after != NO_DIGEST\n",
        "test_an_entry_that_gets_another_place_was_not_acknowledged_in_advance",
    ),
    "in_advance_binds_not": mutant(
        "an acknowledgement in advance does not bind: what was sent and not read is dropped",
        "agreement",
        "        self.holding.keep_in_advance()\n        self._on(Event.APART)\n",
        "        self._on(Event.APART)\n",
        "test_an_entry_that_its_sender_has_not_read_may_be_committed",
    ),
    "in_advance_binds_always": mutant(
        "an acknowledgement in advance binds although the ring has ended without the entry",
        "holding",
        "        self._in_advance = None  # what we have sent and not read is nowhere, or would have been kept\n"
        "        self._truncate(self._acked)\n",
        "        self._truncate(self._acked)\n        self.keep_in_advance()\n",
        "test_an_entry_that_is_not_in_its_ring_was_acknowledged_to_nobody",
    ),
    "all_in_advance": mutant(
        "members acknowledge in advance although the last entry is not theirs",
        "agreement",
        "or self.holding.in_a_row(self.incarnation) < self._in_a_row:",
        "or False:",
        "test_only_the_sender_of_the_last_entry_acknowledges_in_advance",
    ),
    "in_advance_alone": mutant(
        "a member that is the majority acknowledges in advance",
        "agreement",
        "self._known = self._find_obstacle(), not alone\n",
        "self._known = self._find_obstacle(), True\n",
        "test_a_member_alone_in_the_electorate_commits",
    ),
    "in_advance_while_a_seat_is_away": mutant(
        "members acknowledge in advance although a seat is away that may have the entry",
        "agreement",
        "{self.who.get(address) for address in self.members} - {self.incarnation}",
        "{seat for it in self.holding.configs for seat in it.seats.values()} - {self.incarnation}",
        "test_nothing_is_acknowledged_in_advance_while_a_seat_is_away",
    ),
    "in_advance_binds_only_those_that_follow": mutant(
        "an acknowledgement in advance does not bind if another ballot comes that not all members follow",
        "agreement",
        "                    self.holding.keep_in_advance()\n                self._begin(ballot)\n",
        "                    pass\n                self._begin(ballot)\n",
        "test_a_ballot_that_not_all_follow_may_end_before_an_entry",
    ),
    "committed_by_others": mutant(
        "what others have acknowledged, and not we, is dropped",
        "holding",
        "        self._acked = max(self._acked, self._sure or 0)\n",
        "",
        "test_what_others_have_acknowledged_is_kept",
    ),
    "acks_of_any_digest": mutant(
        "an acknowledgement of another log counts",
        "agreement",
        "if choice is None or not holding.matches(frame.length, frame.digest):",
        "if choice is None or not holding.base <= frame.length <= holding.length:",
        "test_an_acknowledgement_of_another_log_does_not_count",
    ),
    "offers_of_other_ballots": mutant(
        "offers of another ballot of the ring count",
        "agreement",
        "            if frame.ballot == self.ballot:\n                self._on_frame",
        "            if frame.ballot == self.ballot or isinstance(frame, Offer):\n                self._on_frame",
        "a joiner takes offers for its ballot that are void to all others",
    ),
    "unsent_acks_bind_not": mutant(
        "an acknowledgement that was sent does not bind: the entries are dropped",
        "holding",
        "        self._acked = max(self._acked, length)\n",
        "        pass\n",
        "test_an_acknowledgement_that_did_not_come_back_may_have_been_counted",
    ),
    # Majorities
    "half_is_a_majority": mutant(
        "half of the votes are a majority for a choice (quorum off by one)",
        "config",
        "seats.items() if has(it)) > sum(",
        "seats.items() if has(it)) >= sum(",
        "test_half_of_the_nodes_choose_nothing",
    ),
    "half_commits": mutant(
        "half of the votes commit (quorum off by one)",
        "config",
        "if total > needed:",
        "if total >= needed:",
        "test_half_of_the_nodes_commit_nothing",
    ),
    "one_seat_chooses": mutant(
        "the offer of one seat is enough for a choice",
        "ballots",
        "        if all(config.majority(agrees) for config in claim.configs):",
        "        if all(any(map(agrees, config.seats.values())) for config in claim.configs):",
        "test_a_member_alone_commits_nothing_that_others_do_not_know",
    ),
    "one_majority_chooses": mutant(
        "a choice needs a majority of the old electorate only",
        "ballots",
        "if all(config.majority(agrees) for config in claim.configs):",
        "if all(config.majority(agrees) for config in claim.configs[:1]):",
        "test_a_choice_needs_both_electorates",
    ),
    "one_majority_adopts": mutant(
        "a ballot is established by a majority of the old electorate only",
        "holding",
        "choice.length) for config in choice.configs)",
        "choice.length) for config in choice.configs[:1])",
        "test_a_ballot_is_established_by_both_electorates",
    ),
    "one_majority_commits": mutant(
        "after another electorate, entries are committed by a majority of the old one only",
        "holding",
        "            if reached >= config.index:\n",
        "            if False:\n",
        "test_another_electorate_is_committed_by_the_old_and_by_the_new_one",
    ),
    "configs_without_predecessor": mutant(
        "a configuration is appended although it does not build on the present one",
        "holding",
        "if config.index == self.configs[-1].index and config.majority_of_nodes(config.seats):",
        "if config.majority_of_nodes(config.seats):",
        "test_of_two_electorates_that_build_on_one_the_first_counts",
    ),
    "configs_without_seats": Mutant(
        "another electorate counts although its own seats have no majority",
        (
            Change(
                "holding",
                "if config.index == self.configs[-1].index and config.majority_of_nodes(config.seats):",
                "if config.index == self.configs[-1].index:",
            ),
            Change("agreement", "if config.majority_of_nodes(seats) else None", "if True else None"),
        ),
        "test_an_electorate_whose_members_are_away_is_refused",
    ),
    # Memory
    "incarnations_by_node": mutant(
        "no amnesia rule: a new process votes in place of the one before it",
        "agreement",
        "        self.offers[offer.incarnation] = offer\n",
        "        self.offers[offer.incarnation] = offer\n"
        "        for claim in [it.claim for it in self.offers.values() if it.claim is not None]:\n"
        "            for config in claim.configs:\n"
        "                seat = config.seats.get(sender.nodeid, 0)\n"
        "                if seat and offer.claim is None:\n"
        "                    old = attrs.evolve(claim, ballot=Ballot(0, 0, 0, 0))\n"
        "                    self.offers.setdefault(seat, attrs.evolve(offer, claim=old))\n",
        "test_a_seat_whose_memory_is_lost_does_not_vote_until_the_log_says_so",
    ),
    "numbers_go_back": mutant(
        "ballots of rings whose numbers have gone back are begun",
        "agreement",
        "        if promised is not None and promised >= first and not joins_again:\n",
        "        if False:\n",
        "test_a_member_waits_until_the_numbers_of_rings_have_caught_up",
    ),
    "a_number_comes_again": mutant(
        "a ring whose number comes again is taken for the one in which a member has promised",
        "agreement",
        "promised >= first and not joins_again:",
        "promised >= first and promised.ring != first.ring:",
        "test_a_ring_whose_number_comes_again_is_not_that_of_the_promise",
    ),
    "an_operator_takes_the_longest": mutant(
        "an operator takes the longest log, although a gap has made it longer",
        "ballots",
        "    if sure is not None:\n",
        "    if False:\n",
        "test_an_operator_does_not_discard_what_a_member_has_committed_for_what_a_gap_has_made_longer",
    ),
    "begins_anew": mutant(
        "a log begins anew although a member has one",
        "ballots",
        "    if not all(nothing_committed(claim, trimmed) for claim in others):\n        return None\n",
        "",
        "test_a_majority_that_has_lost_its_memory_stalls",
    ),
    "begins_without_all_members": mutant(
        "a log begins before all members of the view have offered",
        "agreement",
        "            if not all(address in self.who for address in self.members if address != operator):\n"
        "                return\n",
        "",
        "test_a_log_without_entries_does_not_win_over_another_one_with_entries",
    ),
    "begins_on_some_nodes": mutant(
        "a log begins with members on a part of the nodes",
        "ballots",
        "if votes is None or seats.keys() != votes.keys():",
        "if votes is None or not Config(0, votes, seats).majority_of_nodes(seats):",
        "test_the_first_members_begin_a_log_only_together",
    ),
    "an_entry_is_its_number": mutant(
        "an entry that was dropped and is proposed again is taken for the old one (the first version)",
        "log",
        "_ID.pack(incarnation, number, epoch)",
        "_ID.pack(incarnation, number, 0)",
        "test_an_entry_that_is_proposed_again_is_another_one",
    ),
    "gone_members_get_seats": mutant(
        "a log gives a seat to a member that has offered and is gone",
        "agreement",
        "choose_nothing(self.ballot, claims, here,",
        "choose_nothing(self.ballot, claims, self.who,",
        "test_a_member_that_is_gone_before_the_choice_gets_no_seat",
    ),
    "waits_for_gone_seats": mutant(
        "a log waits for the acknowledgement of a seat whose member is gone",
        "agreement",
        "            self._look_for_seats()\n",
        "",
        "test_a_log_begins_although_a_member_with_a_seat_is_gone",
    ),
    "absent_seats_have_nothing": mutant(
        "a log is given up although seats that are absent may have entries (nothing_committed)",
        "ballots",
        "        return incarnation not in offers or (other is not None and other.length > 0)",
        "        return other is not None and other.length > 0",
        "test_a_log_without_entries_is_not_given_up_while_its_holders_are_away",
    ),
    # Choice
    "longest_wins": Mutant(
        "the longest log wins over that of the later ballot",
        (
            Change(
                "ballots",
                "            return other.ballot < self.ballot\n",
                "            return other.length <= self.length\n",
            ),
            Change(
                "ballots",
                "    return claim.ballot, claim.length, claim.digests[-1], -len(claim.configs)",
                "    return claim.length, claim.ballot, claim.digests[-1], -len(claim.configs)",
            ),
        ),
        "test_an_end_that_only_one_member_has_is_dropped_and_proposed_again",
    ),
    "includes_later_ballots": mutant(
        "a log includes those of later ballots",
        "ballots",
        "            return other.ballot < self.ballot\n",
        "            return True\n",
    ),
    "tail_dropped": mutant(
        "a claim has no tail: what was acknowledged and has not come back is dropped",
        "holding",
        "        self._truncate(self._acked)\n        first",
        "        self._acked = self._start if self._sure is None else self._sure\n"
        "        self._truncate(self._acked)\n        first",
        "test_an_acknowledgement_that_did_not_come_back_may_have_been_counted",
    ),
    "trims_too_much": mutant(
        "the end of a log is trimmed although absent seats may have acknowledged it",
        "ballots",
        "            return incarnation not in offers\n        if other.ballot",
        "            return False\n        if other.ballot",
        "test_an_acknowledgement_that_did_not_come_back_may_have_been_counted",
    ),
    "trims_what_later_ballots_have": mutant(
        "the end of a log is trimmed although a seat of the same ballot may have it (`>` for `>=`)",
        "ballots",
        "            return other.ballot >= claim.ballot\n",
        "            return other.ballot > claim.ballot\n",
        "test_an_entry_that_another_seat_is_sure_of_is_not_given_up",
    ),
    # Ballots
    "no_establishing": mutant(
        "entries are taken before a majority has the log (no establishing)",
        "agreement",
        "if self.state is State.ADOPTED and holding.adopted(self.acks, choice):",
        "if self.state is State.ADOPTED:",
        "test_a_log_without_entries_is_established_by_all_seats",
    ),
    "majority_establishes_nothing": mutant(
        "a majority of the seats establishes a log without entries",
        "holding",
        "        if choice.length == 0:\n"
        "            return all(it in acks for config in choice.configs for it in config.seats.values())\n",
        "",
        "test_a_log_without_entries_is_established_by_all_seats",
    ),
    "joiner_founds_nothing": mutant(
        "a member that joins founds no ballot",
        "agreement",
        "        elif joining:\n",
        "        elif False:\n",
        "test_a_process_joins_while_the_others_choose",
    ),
    "founding_not_needed": mutant(
        "a ballot is joined without having seen its founding",
        "agreement",
        "        if ballot.founder in self._founders:\n",
        "        if True:\n",
        "a member takes part in a ballot whose founding it has not seen",
    ),
    "held_frames_are_dropped": mutant(
        "frames that came while entries were fetched are dropped",
        "agreement",
        "        for sender, frame in held:\n            self._on_frame(sender, frame)\n",
        "        pass\n",
        "test_a_hole_in_the_data",
    ),
    # Data
    "previous_not_checked": mutant(
        "an entry is appended although the one before it was lost, or again",
        "agreement",
        "        if frame.previous != holding.numbers.get(incarnation, 0):\n",
        "        if False:\n",
        "test_an_entry_after_a_lost_one_waits_for_it",
    ),
    "numbers_stay": mutant(
        "the numbers of entries that were dropped still count as in the log",
        "holding",
        "        self.numbers = dict(self.committed_numbers)\n        for entry in self._log.after(self.committed):\n"
        "            self.numbers[entry.incarnation] = entry.number\n",
        "",
        "test_an_end_that_only_one_member_has_is_dropped_and_proposed_again",
    ),
    "lost_data": mutant(
        "lost data is not sent again",
        "agreement",
        "            self._sent = min(self._sent, frame.previous)\n            self._send_pending()\n",
        "            pass\n",
        "test_a_lost_message_is_sent_again",
    ),
    "lost_ack": mutant(
        "a lost acknowledgement is not sent again",
        "agreement",
        "        elif isinstance(frame, Ack):\n            self._acknowledge()\n        elif isinstance(frame, (Part",
        "        elif isinstance(frame, Ack):\n            pass\n        elif isinstance(frame, (Part",
        "test_a_lost_acknowledgement_is_sent_again",
    ),
    "lost_offer_without_ack": mutant(
        "a lost offer is sent again without the acknowledgement that came after it",
        "agreement",
        "            # What was sent after it counts for nothing.\n            self._acknowledge()\n",
        "            # What was sent after it counts for nothing.\n",
        "test_an_acknowledgement_before_a_lost_offer_is_sent_again",
    ),
    "lost_offer_without_data": mutant(
        "a lost offer is sent again without the entries that came after it",
        "agreement",
        "            self._sent = self._last_number()\n            self._send_pending()\n\n    def next_frame",
        "            pass\n\n    def next_frame",
        "test_an_entry_before_a_lost_offer_is_sent_again",
    ),
    # Snapshots
    "parts_of_another_stream": mutant(
        "a part of another stream is taken",
        "streams",
        "if stream != self.stream or part != self.part:",
        "if part != self.part:",
        "test_parts_of_two_holders_are_not_put_together",
    ),
    "parts_out_of_order": mutant(
        "a part is taken although the one before it was lost",
        "streams",
        "if stream != self.stream or part != self.part:",
        "if stream != self.stream:",
    ),
    "slow_holders_are_passed_over": mutant(
        "a holder that sends entries slowly is passed over",
        "agreement",
        "            if len(self._fetched) == self._received:\n                self._ask_entries()\n",
        "            self._ask_entries()\n",
        "test_a_holder_that_sends_entries_slowly_is_waited_for",
    ),
    "streams_by_number": mutant(
        "holders number their streams 1, 2, ... (the first version)",
        "agreement",
        "Outgoing(self.unique(), to,",
        "Outgoing(len(self._serving._outgoing) + 1, to,",
        "test_parts_of_two_holders_are_not_put_together",
    ),
    "lost_parts": mutant(
        "a lost part is not sent again",
        "agreement",
        "elif isinstance(frame, (Part, AskSnapshot)) or",
        "elif isinstance(frame, Part):\n            pass\n        elif isinstance(frame, AskSnapshot) or",
        "test_a_lost_part_of_a_snapshot_is_sent_again",
    ),
    "snapshot_alone": mutant(
        "a snapshot is used without the entries after it",
        "agreement",
        "        self.holding.staged = incoming\n",
        "        self.holding.staged = incoming\n"
        "        if incoming.head is not None:\n"
        "            self.holding.complete([], Choice(incoming.head.index, incoming.head.digest, ()))\n"
        "            self.holding._adopted = self.ballot\n"
        "            self.holding._start = self.holding._acked = incoming.head.index\n"
        "            self.holding._sure = incoming.head.index\n",
        "test_a_member_that_lacks_entries_that_were_cut_off_takes_a_snapshot",
    ),
    # Locks
    "lock_token_restarts": mutant(
        "a token does not grow if all memory is lost",
        "lock",
        "max(self.token.index + 1, clock)",
        "self.token.index + 1",
        "test_tokens_grow_although_all_memory_was_lost_in_one_ring",
    ),
    "lock_token_by_the_clock": mutant(
        "tokens are the wall clock",
        "lock",
        "max(self.token.index + 1, clock)",
        "clock",
        "test_tokens_grow_although_a_wall_clock_is_behind",
    ),
    "lock_token_not_in_snapshots": mutant(
        "a snapshot has no token, so it restarts",
        "lock",
        "        self.token = Token(*_TOKEN.unpack_from(data))\n",
        "",
        "test_a_snapshot_has_the_token_and_the_lease",
    ),
    "lock_lease_from_after": mutant(
        "a lease begins when its renewal is committed, not before it is sent",
        "lock",
        "        since = _clocks()\n        await self._commit(_message(_RENEW, client))\n"
        "        lease.since = since if",
        "        await self._commit(_message(_RENEW, client))\n        lease.since = _clocks() if",
        "test_a_lease_begins_before_its_renewal_is_sent",
    ),
    "lock_lease_of_others": mutant(
        "a renewal counts although the lock was lost meanwhile",
        "lock",
        "lease.since = since if self._holds(client, token) else None",
        "lease.since = since",
        "test_a_lease_of_a_lock_that_was_lost_meanwhile_does_not_count",
    ),
    "lock_no_delay": mutant(
        "the lock is taken from its holder at once (lock_delay left out)",
        "lock",
        "with trio.move_on_at(queue.seen + holder.lock_delay):",
        "with trio.move_on_at(queue.seen):",
        "test_the_lock_is_taken_from_its_holder_one_lock_delay_after_its_last_renewal",
    ),
    "lock_expiry_of_a_renewed_lease": mutant(
        "an expiry takes the lock although its lease was renewed",
        "lock",
        "if client == before and renewed == self.renewed:",
        "if client == before:",
        "test_an_expiry_that_crosses_a_renewal_does_nothing",
    ),
    "lock_expiry_sent_for_a_renewed_lease": mutant(
        "an expiry is sent although the lease was renewed",
        "lock",
        "            if not self._is_over(holder, renewed):\n",
        "            if holder == queue.holder:\n",
        "test_the_lock_is_taken_from_its_holder_one_lock_delay_after_its_last_renewal",
    ),
    "lock_released_by_others": mutant(
        "a release by another client takes the lock from its holder",
        "lock",
        "            if client in self.clients:\n                self.clients.remove(client)\n"
        "        elif kind == _RENEW",
        "            if self.clients:\n                self.clients.pop(0)\n        elif kind == _RENEW",
        "test_one_who_stops_waiting_does_not_release_the_lock_of_the_holder",
    ),
    "lock_renewed_by_others": mutant(
        "a client that waits renews the lease of the holder",
        "lock",
        "            if client == before:\n                self._note",
        "            if True:\n                self._note",
        "test_only_the_holder_renews_its_lease",
    ),
    "lock_twice_in_the_queue": mutant(
        "a request that is committed twice is in the queue twice",
        "lock",
        "            if client not in self.clients:\n                self.clients.append",
        "            if True:\n                self.clients.append",
        "test_a_request_that_is_committed_twice_counts_once",
    ),
    # Ids of commands, and snapshots
    "replica_no_ids": mutant(
        "a command with an id is applied each time that it is committed",
        "replica",
        "outcome = self._outcomes.get(key)",
        "outcome = None",
        "test_a_command_that_is_committed_twice_is_applied_once",
    ),
    "replica_failures_again": mutant(
        "a command with an id that has failed is applied again",
        "replica",
        "        if outcome is None:\n            outcome = self._outcomes[key]",
        "        if outcome is None or outcome.failed:\n            outcome = self._outcomes[key]",
        "test_a_command_that_has_failed_is_not_applied_again",
    ),
    "replica_ids_not_in_snapshots": mutant(
        "a snapshot has no ids of commands",
        "replica",
        "for key, outcome in self._outcomes.items()",
        "for key, outcome in ()",
        "test_a_snapshot_between_the_two_has_the_ids",
    ),
    "replica_snapshot_later": mutant(
        "a snapshot of a replica has commands that were applied while it was sent",
        "replica",
        "checked_chunks(self.machine.snapshot())",
        "(chunk for late in [self.machine] for chunk in late.snapshot())",
        "test_a_snapshot_is_that_of_its_moment",
    ),
    "replica_latest_ids_forgotten": mutant(
        "the latest ids are forgotten first",
        "replica",
        "popitem(last=False)",
        "popitem(last=True)",
        "test_the_oldest_ids_are_forgotten_first",
    ),
    "replica_ensures_with_other_ids": mutant(
        "`ensure` sends a command again with another id",
        "replica",
        "return await self.execute(command, id=key)",
        "return await self.execute(command, id=self._member.unique())",
        "test_ensure_sends_a_command_again_with_the_id_that_it_had",
    ),
}


def arguments(test: Any) -> Iterator[tuple[Any, ...]]:
    """The arguments with which pytest calls a directed test."""
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    yield from ((value,) for value in marks[0].args[1]) if marks else [()]


def fails(using: Changed, name: str) -> bool:
    """Whether a directed test or schedule fails."""
    if name in using.directed.FOUND:
        return using.schedules.run(using.directed.FOUND[name]).fault is not None
    test = next(it for it in (getattr(module, name, None) for module in using.tests) if it is not None)
    try:
        for values in arguments(test):
            test(*values)
    except Exception:  # noqa: BLE001 - a wrong agreement may raise anything
        return True
    return False


@pytest.mark.parametrize("name", [it for name in MUTANTS for it in ([name] if name in ALWAYS else long(name))])
def test_it_is_caught(name: str) -> None:
    it = MUTANTS[name]
    with changed(it.changes) as using:
        if it.caught_by:
            assert fails(using, it.caught_by)
        else:
            assert any(using.schedules.run(using.schedules.generate(seed)).fault for seed in range(SEEDS))


def test_without_a_change_nothing_fails() -> None:
    with changed([]) as using:
        assert not [name for name in {it.caught_by for it in MUTANTS.values()} if name and fails(using, name)]


@pytest.mark.parametrize("it", MUTANTS.values(), ids=MUTANTS)
def test_each_mutant_finds_its_text_in_its_module(it: Mutant) -> None:
    for change in it.changes:
        name = f"_{change.module}.py"
        compile(change.applied((FOLDER / name).read_text(encoding="utf-8")), name, "exec")


def test_the_page_lists_the_mutants() -> None:
    page = (FOLDER.parents[1] / "docs/recipes/proof.md").read_text(encoding="utf-8")
    assert f"has {len(MUTANTS)} wrong versions" in page
    for it in MUTANTS.values():
        caught_by = f"`{it.caught_by}`" if it.caught_by.startswith("test_") else f"schedule: {it.caught_by}"
        assert f"| {it.wrong} | {caught_by if it.caught_by else 'random schedules'} |" in page
