"""Directed schedules for the agreement: each is a story in which a rule of the protocol is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest

from recipes.bus import FRAME, IN_A_ROW, PRIMARY, RETAIN, Bus, Operator, Process, status
from recipes.schedules import Schedule, run
from triocoro import Address, RingId
from triocoro.recipes._agreement import Agreement
from triocoro.recipes._ballots import Ballot, Claim, choose
from triocoro.recipes._config import Config
from triocoro.recipes._frames import Ack, Part, decode, encode
from triocoro.recipes._states import State
from triocoro.recipes._streams import PATIENCE


def group(nodes: int = 3, members: int = 1, votes: Mapping[int, int] | None = None, *, in_a_row: int = IN_A_ROW) -> Bus:
    """A bus whose members are primary."""
    bus = Bus(nodes, members, in_a_row=in_a_row)
    bus.votes.update(votes or {})
    for nodeid in bus.nodes:
        bus.start(nodeid)
    for name in bus.names:
        bus.launch(name)
    bus.move([*bus.nodes])
    settle(bus)
    return bus


def settle(bus: Bus) -> None:
    """Let all messages flow; then the members must agree."""
    bus.drain()
    assert bus.agreed(), [status(it) for it in bus.processes.values() if it is not None]


def process(bus: Bus, name: str) -> Process:
    """A process that must be alive."""
    it = bus.processes[name]
    assert it is not None
    return it


def agreement(bus: Bus, name: str) -> Agreement:
    return process(bus, name).agreement


def applied(bus: Bus, name: str) -> list[bytes]:
    """What a process has applied."""
    return [payload for *_, payload in bus.history.applied[: process(bus, name).machine.count]]


def seats(bus: Bus, name: str) -> dict[int, int]:
    """The seats of the electorate, as a member knows them."""
    return {**agreement(bus, name).holding.configs[-1].seats}


def nodes_in_the_way(bus: Bus, name: str) -> set[int]:
    """The nodes that a member names when asked why nothing can be committed."""
    return {int(number) for number in re.findall(r"\d+", str(agreement(bus, name).obstacle()))}


def flow(bus: Bus, nodes: Sequence[int], *, readers: Sequence[str] | None = None) -> None:
    """Let messages flow among some nodes only, and only some processes read."""
    for _ in range(50):
        for nodeid in nodes:
            bus.place(nodeid, 100)
        for nodeid in nodes:
            bus.deliver(nodeid, 100)
        for name in bus.names:
            if int(name[0]) in nodes and (readers is None or name in readers):
                bus.read(name, 100)


def test_what_a_majority_has_acknowledged_is_committed_by_all() -> None:
    bus = group()
    bus.propose("1a")
    bus.propose("2a")
    settle(bus)
    assert [applied(bus, name) for name in bus.names] == [[b"1a#1:1", b"2a#1:1"]] * 3


def test_the_first_members_begin_a_log_only_together() -> None:
    """Two of three nodes do not begin one, and the third one's arrival lets them."""
    bus = Bus(3)
    for nodeid in (1, 2):
        bus.start(nodeid)
        bus.launch(f"{nodeid}a")
    bus.move([1, 2])
    bus.propose("1a")
    bus.drain()
    assert agreement(bus, "1a").state is State.OFFERING
    assert nodes_in_the_way(bus, "1a") == {3}
    bus.start(3)
    bus.launch("3a")
    bus.move([1, 2, 3])
    settle(bus)
    assert applied(bus, "3a") == [b"1a#1:1"]


def test_a_member_that_is_gone_before_the_choice_gets_no_seat() -> None:
    """One of two processes on node 3 offers, and ends before the others have."""
    begin_without_one_that_had_offered([3])


def test_a_log_begins_although_a_member_with_a_seat_is_gone() -> None:
    """One of two processes on node 3 offers, and ends after the choice: a log needs all its seats to begin."""
    begin_without_one_that_had_offered([1, 2, 3])


def begin_without_one_that_had_offered(first: Sequence[int]) -> None:
    """Begin a log; the offers of these nodes come before the end of the member."""
    bus = Bus(3, 2)
    for nodeid in bus.nodes:
        bus.start(nodeid)
    names = ["1a", "2a", "3b"]
    for name in ("3a", *names):
        bus.launch(name)
    bus.move([3])
    bus.move([1, 2])
    bus.drain()
    bus.move([1, 2, 3])
    for name in ("3a", *names):
        bus.deliver(int(name[0]), 100)
        bus.read(name, 100)
    for nodeid in first:
        bus.place(nodeid, 100)
    bus.crash("3a")
    bus.place(3, 100)
    bus.drain()
    assert [agreement(bus, name).state for name in names] == [PRIMARY] * 3
    assert seats(bus, "1a")[3] == agreement(bus, "3b").incarnation
    bus.propose("1a")
    bus.drain()
    assert applied(bus, "3b") == [b"1a#1:1"]


def test_a_member_alone_commits_nothing_that_others_do_not_know() -> None:
    """A node that is cut off delivers its own messages to itself (docs/facts.md, 86)."""
    bus = group()
    bus.propose("1a")
    bus.move([2, 3])
    flow(bus, [1])
    assert agreement(bus, "1a").state is PRIMARY
    assert applied(bus, "1a") == []
    bus.propose("2a")
    flow(bus, [2, 3])
    assert applied(bus, "2a") == applied(bus, "3a") == [b"2a#1:1"]
    bus.move([1, 2, 3])
    settle(bus)
    assert applied(bus, "1a") == [b"2a#1:1", b"1a#1:1"]


def test_an_entry_that_is_proposed_again_is_another_one() -> None:
    """2 keeps an entry that the others drop, as they have not acknowledged it. Proposed again, it has a later epoch."""
    bus = group()
    bus.propose("3a")
    bus.place(3, 1)
    bus.deliver(2, 9)
    bus.read("2a", 9)
    bus.move([1, 3])
    for nodeid, name in ((1, "1a"), (3, "3a")):
        bus.deliver(nodeid, 9)
        bus.read(name, 99)
    flow(bus, [1, 3])
    assert [agreement(bus, name).holding.length for name in bus.names] == [2, 2, 2]
    bus.move([1, 2, 3])
    settle(bus)  # the bus checks that all apply it with the same epoch
    assert applied(bus, "2a") == [b"3a#1:1"]


def test_a_member_waits_until_the_numbers_of_rings_have_caught_up() -> None:
    """They go back if Corosync's `state_dir` was deleted."""
    it = agreement(group(), "1a")
    promised = it.ballot
    assert promised is not None
    address = Address(1, 99)
    it.disconnected()
    it.connected(address)
    it.view(RingId(nodeid=1, seq=promised.seq - 1), [address])
    assert it.state is State.AWAY
    assert it.obstacle() == "the numbers of Corosync's rings went back; wait until they have caught up"
    it.view(RingId(nodeid=1, seq=promised.seq + 1), [address])
    assert it.state is State.OFFERING


def test_a_ring_whose_number_comes_again_is_not_that_of_the_promise() -> None:
    """Without `state_dir`, three nodes form a ring that has the id of an earlier one."""
    bus = group(5)
    bus.propose("2a")
    bus.place(2)
    flow(bus, [2, 4])  # these two have acknowledged it
    for nodeid in (1, 3, 5):
        bus.kill(nodeid)
        bus.start(nodeid, forgets=1)
        bus.read(f"{nodeid}a", 99)
        bus.connect(f"{nodeid}a")
    flow(bus, [1, 3, 5])
    bus.move([1, 3, 5])
    bus.propose("1a")
    flow(bus, [1, 3, 5])
    assert agreement(bus, "1a").state is State.AWAY  # else it would commit in a ballot before the one of 2 and 4
    bus.move([1, 2, 4])
    flow(bus, [1, 2, 4])
    bus.quiet()
    assert applied(bus, "1a") == [b"2a#1:1", b"1a#1:1"]


def test_a_hole_in_the_offers() -> None:
    """3 misses 2's offer past a gap, and chooses from 1's and its own, while 1 and 2 choose from theirs."""
    bus = group()
    bus.move([3])
    bus.move([1, 2])
    flow(bus, [1, 2])
    bus.propose("1a")
    flow(bus, [1, 2])
    assert applied(bus, "2a") == [b"1a#1:1"]
    bus.move([1, 2, 3])
    for nodeid in (1, 2, 3):
        bus.deliver(nodeid, 1)
        bus.read(f"{nodeid}a")  # the view: offers are queued
    for nodeid in (1, 2, 3):
        bus.place(nodeid)
    bus.deliver(3, 1)  # 1's offer; then the ring ends
    bus.move([1, 2], prefix=3)
    bus.move([3])
    bus.read("3a", 2)
    assert agreement(bus, "3a").state is State.FETCHING  # from 1's offer and its own
    bus.read("1a", 2)
    bus.read("2a", 2)
    assert agreement(bus, "1a").state is agreement(bus, "2a").state is State.ADOPTED
    bus.propose("2a")
    flow(bus, [1, 2])
    flow(bus, [3])
    assert applied(bus, "1a") == [b"1a#1:1", b"2a#1:1"]
    assert agreement(bus, "3a").state is State.OFFERING
    bus.move([1, 2, 3])
    settle(bus)


def test_a_hole_in_the_data() -> None:
    """3 misses 1's entry, but delivers its own after it; with 1 it must keep what 1 and 2 have committed."""
    bus = group()
    bus.propose("1a")
    bus.propose("3a")
    bus.place(1)
    bus.place(3)
    flow(bus, [1, 2])
    assert applied(bus, "1a") == applied(bus, "2a") == [b"1a#1:1", b"3a#1:1"]
    bus.move([3])  # it has delivered nothing of this
    bus.read("3a", 9)
    bus.crash("2a")
    bus.move([1, 3])
    bus.drain()
    assert applied(bus, "1a") == applied(bus, "3a") == [b"1a#1:1", b"3a#1:1"]
    bus.propose("3a")
    bus.drain()
    assert applied(bus, "1a")[2:] == applied(bus, "3a")[2:] == [b"3a#1:2"]


def test_an_acknowledgement_that_did_not_come_back_may_have_been_counted() -> None:
    """2 loses its connection after others have counted its acknowledgement; its log's end must not be given up."""
    bus = group()
    bus.propose("1a")
    bus.place(1)
    for nodeid in (1, 2):
        bus.deliver(nodeid)
        bus.read(f"{nodeid}a")
        bus.place(nodeid)
    bus.deliver(1, 9)
    bus.deliver(2, 9)
    bus.read("1a", 9)
    assert applied(bus, "1a") == [b"1a#1:1"]
    bus.disconnect("2a", keep=0)  # 2 has acknowledged it, and does not know whether that was counted
    bus.disconnect("3a", keep=0)  # 3 has never heard of it
    bus.move([1])
    bus.move([2, 3])
    bus.propose("3a")
    for name in ("2a", "3a"):
        bus.read(name, 9)
        bus.connect(name)
    flow(bus, [2, 3])
    assert applied(bus, "2a") == applied(bus, "3a") == [b"1a#1:1", b"3a#1:1"]
    bus.move([1, 2, 3])
    settle(bus)


def test_an_end_that_only_one_member_has_is_dropped_and_proposed_again() -> None:
    """What 1 appended alone is in nobody else's log; the others go on, and it is committed after that."""
    bus = group()
    before = agreement(bus, "1a").holding.length
    bus.move([2, 3])
    for _ in range(3):
        bus.propose("1a")
    flow(bus, [1])
    assert agreement(bus, "1a").holding.length == before + 3
    bus.propose("2a")
    flow(bus, [2, 3])
    bus.move([1, 2, 3])
    settle(bus)
    assert applied(bus, "1a") == [b"2a#1:1", b"1a#1:1", b"1a#1:2", b"1a#1:3"]


@pytest.mark.parametrize("keep", [0, 1, 2, 5])
def test_all_daemons_restart_under_traffic(keep: int) -> None:
    bus = group()
    for _ in range(3):
        for name in bus.names:
            bus.propose(name)
        for nodeid in bus.nodes:
            bus.place(nodeid)
        bus.deliver(1, 2)
        bus.read("1a")
        bus.deliver(3)
        bus.read("3a")
    for nodeid in bus.nodes:
        bus.kill(nodeid, keep=keep + nodeid)
    for nodeid in bus.nodes:
        bus.start(nodeid)
    bus.move([*bus.nodes])
    for name in bus.names:
        bus.read(name, 99)
        bus.connect(name)
    settle(bus)
    assert sorted(applied(bus, "1a")) == sorted(b"%d%s:%d" % (n, b"a#1", i) for n in (1, 2, 3) for i in (1, 2, 3))


def test_a_rolling_restart_of_the_applications() -> None:
    """Each new process gets the seat of the one before it, so that in the end all memory is new, and nothing lost."""
    bus = group()
    for round_ in (1, 2):
        for name in bus.names:
            bus.propose(name)
            bus.drain()
            bus.crash(name)
            bus.drain()
            bus.launch(name)
            settle(bus)
            assert seats(bus, "1a") == {
                it.address.nodeid: it.agreement.incarnation for it in bus.processes.values() if it
            }
        assert len(bus.history.applied) == 3 * round_
    bus.move([1, 2])  # a majority of new ones
    bus.propose("1a")
    flow(bus, [1, 2])
    assert applied(bus, "2a")[-1] == b"1a#3:1"


def test_two_processes_of_a_node_and_the_seated_one_dies() -> None:
    bus = group(members=2)
    seated = seats(bus, "1a")
    bus.propose("1a")
    settle(bus)
    died = next(name for name in ("1a", "1b") if agreement(bus, name).incarnation == seated[1])
    other = "1b" if died == "1a" else "1a"
    bus.crash(died)
    bus.drain()
    assert seats(bus, "2a")[1] == agreement(bus, other).incarnation
    for name in ("3a", "3b"):
        bus.disconnect(name)
    bus.propose(other)
    flow(bus, [1, 2])
    assert applied(bus, "2b")[-1].startswith(other.encode())  # with node 1's new seat and node 2's


def test_a_second_process_does_not_take_the_seat_of_one_that_lives() -> None:
    bus = group(members=2)
    before = seats(bus, "1a")
    bus.move([1, 2])
    bus.drain()
    bus.move([1, 2, 3])
    settle(bus)
    assert seats(bus, "3b") == before


def test_all_holders_of_the_chosen_log_leave_before_the_others_have_fetched_it() -> None:
    bus = group()
    bus.move([1, 2])
    bus.propose("1a")
    flow(bus, [1, 2])
    bus.move([1, 2, 3])
    for name in ("1a", "2a"):
        flow(bus, [1, 2, 3], readers=[])
        bus.read(name, 1)
        bus.place(int(name[0]), 9)
    flow(bus, [1, 2, 3], readers=["3a"])
    bus.read("3a", 99)
    assert agreement(bus, "3a").state is State.FETCHING
    bus.disconnect("1a")
    bus.disconnect("2a")
    flow(bus, [1, 2, 3], readers=["3a"])
    assert agreement(bus, "3a").state is State.OFFERING
    for name in ("1a", "2a"):
        bus.read(name, 9)
        bus.connect(name)
    settle(bus)
    assert applied(bus, "3a") == [b"1a#1:1"]


def test_a_stopped_process_holds_up_nobody() -> None:
    bus = group()
    bus.stop("3a")
    for _ in range(10):
        bus.propose("1a")
    bus.drain()
    assert len(applied(bus, "1a")) == len(applied(bus, "2a")) == 10
    assert applied(bus, "3a") == []
    bus.move([1, 2, 3])  # another ring does not change that
    bus.propose("2a")
    bus.drain()
    assert applied(bus, "1a")[-1] == b"2a#1:1"
    bus.go_on("3a")
    settle(bus)


def test_a_process_joins_while_the_others_choose() -> None:
    bus = group(members=2)
    bus.propose("1a")
    settle(bus)
    bus.crash("3b")
    bus.move([1, 2, 3])
    for nodeid in bus.nodes:
        bus.deliver(nodeid)
        bus.read(f"{nodeid}a")
        bus.place(nodeid)
    bus.launch("3b")
    bus.place(3, 9)
    bus.deliver(1, 2)
    bus.read("1a", 2)
    bus.deliver(3, 9)
    bus.read("3b", 1)
    settle(bus)
    assert process(bus, "3b").name == "3b#2"
    assert applied(bus, "3b") == [b"1a#1:1"]


def test_a_member_reconnects_within_the_ring_while_the_others_choose() -> None:
    bus = group()
    bus.propose("2a")
    settle(bus)
    bus.move([1, 2, 3])
    for nodeid in bus.nodes:
        bus.deliver(nodeid)
        bus.read(f"{nodeid}a")
        bus.place(nodeid)
    bus.deliver(1, 2)
    bus.read("1a", 2)
    bus.disconnect("2a")
    bus.read("2a", 9)
    bus.connect("2a")
    bus.place(2, 9)
    bus.deliver(2, 9)
    bus.read("2a", 9)
    bus.propose("2a")
    settle(bus)
    assert applied(bus, "1a") == [b"2a#1:1", b"2a#1:2"]


def behind(entries: int = 12, *, nodes: int = 3) -> Bus:
    """A group whose third member lacks entries that the others have cut off."""
    bus = group(nodes)
    bus.move([nodeid for nodeid in bus.nodes if nodeid != 3])
    bus.drain()
    for _ in range(entries):
        bus.propose("1a")
        bus.drain()
    assert len(applied(bus, "1a")) == entries
    assert agreement(bus, "1a").holding.base > RETAIN
    return bus


def test_a_member_that_lacks_entries_that_were_cut_off_takes_a_snapshot() -> None:
    bus = behind()
    bus.move([1, 2, 3])
    settle(bus)
    assert process(bus, "3a").machine.restored == 1
    assert process(bus, "2a").machine.restored == 0


def test_a_member_that_lacks_few_entries_takes_no_snapshot() -> None:
    bus = group()
    bus.move([1, 2])
    bus.drain()
    bus.propose("1a")
    bus.drain()
    bus.move([1, 2, 3])
    settle(bus)
    assert process(bus, "3a").machine.restored == 0


def test_a_holder_that_sends_entries_slowly_is_waited_for() -> None:
    """Time passes whenever one of its parts has come."""
    bus = group()
    bus.move([1, 2])
    bus.drain()
    for _ in range(4):
        bus.propose("1a")
    bus.drain()
    for name in bus.names:
        agreement(bus, name)._chunk = 1
    bus.move([1, 2, 3])
    passed = 0
    while len(applied(bus, "3a")) < 4:
        for nodeid in bus.nodes:
            bus.place(nodeid)
        for nodeid in bus.nodes:
            bus.deliver(nodeid)
            bus.read(f"{nodeid}a")
        if len(agreement(bus, "3a")._fetched) > passed:
            passed += 1
            bus.tick("3a")
            assert len(agreement(bus, "3a")._asked) == 1
    assert passed > 2
    settle(bus)


def restoring() -> Bus:
    """3 has the first part of a snapshot of another one."""
    bus = behind()
    bus.move([1, 2, 3])
    while (incoming := agreement(bus, "3a")._incoming) is None or not incoming.part:
        for nodeid in bus.nodes:
            bus.place(nodeid)
            bus.deliver(nodeid)
            bus.read(f"{nodeid}a")
    return bus


def test_questions_that_wait_while_a_snapshot_is_made_are_answered_with_that_one() -> None:
    """Making it takes so long that the joiner asks all others again and again."""
    bus = behind()
    bus.move([1, 2, 3])
    while agreement(bus, "3a").state is not State.RESTORING:
        for nodeid in bus.nodes:
            bus.place(nodeid)
            bus.deliver(nodeid)
            bus.read(f"{nodeid}a")
    for _ in range(10):
        bus.tick("3a")
    settle(bus)
    assert process(bus, "3a").machine.restored == 1
    assert {process(bus, name).machine.made for name in ("1a", "2a")} == {1}


def test_a_joiner_that_is_stopped_does_not_keep_the_log_for_ever() -> None:
    bus = restoring()
    bus.stop("3a")
    for _ in range(PATIENCE + 1):
        bus.tick("1a")
        bus.tick("2a")
    for _ in range(10):
        bus.propose("1a")
    bus.drain()
    for name in ("1a", "2a"):
        assert agreement(bus, name).holding.length - agreement(bus, name).holding.base <= 2 * RETAIN
    bus.go_on("3a")
    bus.drain()
    bus.tick("3a")
    bus.tick("3a")
    settle(bus)


def test_the_sender_of_a_snapshot_restarts_in_its_midst() -> None:
    bus = restoring()
    incoming = agreement(bus, "3a")._incoming
    assert incoming is not None
    holder = next(name for name in ("1a", "2a") if agreement(bus, name).incarnation == incoming.holder)
    bus.crash(holder)
    bus.launch(holder)
    settle(bus)
    assert len(applied(bus, "3a")) == len(applied(bus, holder)) == 12


def test_a_seat_whose_memory_is_lost_does_not_vote_until_the_log_says_so() -> None:
    """2 and 3 have committed what 1 has not read; 3 forgets. 1 and the new 3 must not go on without it."""
    bus = group()
    bus.protect = False
    bus.stop("1a")
    bus.propose("2a")
    bus.drain()
    assert applied(bus, "3a") == [b"2a#1:1"]
    bus.disconnect("1a")
    bus.move([1, 3])
    bus.crash("3a")
    bus.launch("3a")
    bus.go_on("1a")
    bus.read("1a", 9)
    bus.connect("1a")
    bus.propose("1a")
    flow(bus, [1, 3])
    assert agreement(bus, "1a").state is State.OFFERING
    assert nodes_in_the_way(bus, "1a") == {2, 3}
    bus.move([1, 2, 3])
    settle(bus)
    assert applied(bus, "1a") == [b"2a#1:1", b"1a#1:1"]


def test_a_majority_that_has_lost_its_memory_stalls() -> None:
    bus = group()
    bus.protect = False
    bus.propose("1a")
    settle(bus)
    bus.crash("2a")
    bus.crash("3a")
    bus.launch("2a")
    bus.launch("3a")
    bus.propose("1a")
    bus.drain()
    assert [agreement(bus, name).state for name in bus.names] == [State.OFFERING] * 3
    assert nodes_in_the_way(bus, "2a") == {2, 3}
    assert applied(bus, "1a") == [b"1a#1:1"]


def test_an_operator_does_not_discard_what_a_member_has_committed_for_what_a_gap_has_made_longer() -> None:
    bus = group(5)
    bus.protect = False
    for _ in range(3):
        bus.propose("5a")
    bus.propose("2a")
    flow(bus, [1, 2, 3])  # 5 has not sent yet
    assert applied(bus, "1a") == [b"2a#1:1"]
    bus.place(5, 99)
    bus.move([5])
    bus.read("5a", 3)  # its own messages alone, which it acknowledges
    assert agreement(bus, "5a").holding.length > agreement(bus, "1a").holding.length
    bus.disconnect("1a")
    for name in ("2a", "3a", "4a"):
        bus.crash(name)
        bus.launch(name)
    bus.read("1a", 99)
    bus.read("5a", 99)
    bus.heal()
    bus.come_to_rest()
    assert agreement(bus, "1a").state is State.OFFERING
    bus.forget()
    operator = Operator(bus, 1)
    operator.found(1, forced=True)
    bus.drain()
    operator.leave()
    settle(bus)
    assert applied(bus, "1a")[0] == b"2a#1:1"


def test_a_lost_message_is_sent_again() -> None:
    """Each message of the beginning and of an entry is lost once."""
    for which in range(12):
        for late in (0, 1):
            bus = Bus(3)
            for nodeid in bus.nodes:
                bus.start(nodeid)
                bus.launch(f"{nodeid}a")
            bus.move([1, 2, 3])
            bus.propose("2a")
            for step in range(40):
                if step == which:
                    bus.lose(2, 0, late)
                for nodeid in bus.nodes:
                    bus.place(nodeid)
                    bus.deliver(nodeid, 2)
                    bus.read(f"{nodeid}a", 2)
            settle(bus)
            assert applied(bus, "1a") == [b"2a#1:1"]


def test_messages_of_an_old_ring_count_for_nothing_in_the_next_one() -> None:
    """What a daemon had not sent when the ring ended, it sends in the next one."""
    bus = group()
    bus.propose("1a")
    bus.place(1)
    for nodeid in (1, 2):
        bus.deliver(nodeid)
        bus.read(f"{nodeid}a")  # acknowledgements are queued
    bus.move([2, 3], prefix=0)
    bus.move([1])
    flow(bus, [1])
    assert applied(bus, "1a") == []
    bus.propose("3a")
    flow(bus, [2, 3])
    bus.move([1, 2, 3])
    settle(bus)
    assert sorted(applied(bus, "1a")) == [b"1a#1:1", b"3a#1:1"]


def test_late_news_of_quorum() -> None:
    """A member that has no view of a ring takes no part in it, and the others do not need it."""
    bus = group()
    bus.move([1, 2, 3], hold=1 << 4)
    bus.propose("1a")
    flow(bus, [1, 2, 3])
    assert applied(bus, "2a") == [b"1a#1:1"]
    assert applied(bus, "3a") == []
    bus.settle(3)
    settle(bus)


# -- acknowledgements in advance ---------------------------------------------------------------------------------------


def group_with_an_entry(votes: Mapping[int, int] | None = None) -> Bus:
    """A group whose last entry is one of 1, which may acknowledge its next one in advance."""
    bus = group(votes=votes)
    bus.propose("1a")
    settle(bus)
    return bus


def test_the_sender_of_the_last_entry_sends_no_acknowledgement_of_its_next_one() -> None:
    bus = group_with_an_entry()
    before = process(bus, "1a").sent
    bus.propose("1a")
    settle(bus)
    assert process(bus, "1a").sent == before + 1


def test_members_acknowledge_in_advance_once_they_have_sent_enough_in_a_row() -> None:
    bus = group(in_a_row=3)

    def sent(name: str) -> int:
        """How many frames a process sends for an entry."""
        before = process(bus, name).sent
        bus.propose(name)
        settle(bus)
        return process(bus, name).sent - before

    # The entry with which 1 has begun the log is the first of its row.
    assert [sent("1a") for _ in range(4)] == [2, 2, 1, 1]
    assert [sent("2a") for _ in range(5)] == [2, 2, 2, 1, 1]
    assert sent("1a") == 2


def test_a_member_alone_in_the_electorate_commits() -> None:
    bus = group(1)
    for _ in range(3):
        bus.propose("1a")
        settle(bus)
    assert applied(bus, "1a") == [b"1a#1:1", b"1a#1:2", b"1a#1:3"]


def test_an_entry_that_gets_another_place_was_not_acknowledged_in_advance() -> None:
    """2's entry comes before that of 1, which has not read it. So 3 has only its own acknowledgement of both."""
    bus = group_with_an_entry()
    bus.propose("2a")
    bus.propose("1a")
    bus.place(2)
    bus.place(1)
    flow(bus, [3])
    assert agreement(bus, "3a").acks[agreement(bus, "3a").incarnation] == agreement(bus, "3a").holding.length == 4
    assert applied(bus, "3a") == [b"1a#1:1"]
    settle(bus)
    assert applied(bus, "3a") == [b"1a#1:1", b"2a#1:1", b"1a#1:2"]


@pytest.mark.parametrize("votes", [1, 3])
def test_an_acknowledgement_in_advance_makes_no_member_sure(votes: int) -> None:
    """1 and 3 miss 2's entry, so that of 1 gets the place for which it was acknowledged. 2's log has both."""
    bus = group(votes={1: votes})
    if votes == 3:
        # With a majority of its own it would not; it does here, to see what the others make of it.
        agreement(bus, "1a")._may_acknowledge_in_advance = lambda _: True  # type: ignore[method-assign, assignment]
    bus.propose("1a")
    flow(bus, [1, 2])
    bus.deliver(3, 9)
    bus.read("3a", 9)
    bus.propose("2a")
    bus.propose("1a")
    for nodeid in (2, 1, 3):
        bus.place(nodeid)  # 3's acknowledgement of the first entry comes last
    bus.move([1, 3])
    for name in ("1a", "3a"):
        bus.read(name, 2)
        assert agreement(bus, name).holding.length == 3
        assert applied(bus, name) == [b"1a#1:1"]
    flow(bus, [2])
    bus.move([1, 2, 3])
    bus.deliver(2)
    bus.read("2a")
    bus.place(2)  # its offer comes first
    settle(bus)
    assert applied(bus, "1a") == [b"1a#1:1", b"2a#1:1", b"1a#1:2"]


def test_an_entry_that_its_sender_has_not_read_may_be_committed() -> None:
    """1's daemon dies when 2 has committed 1's entry. 1 goes on with 3, which has never heard of it."""
    bus = group_with_an_entry()
    bus.propose("1a")
    bus.place(1)
    flow(bus, [2])
    assert applied(bus, "2a") == [b"1a#1:1", b"1a#1:2"]
    bus.kill(1)
    bus.move([3])
    bus.start(1)
    bus.move([1, 3])
    bus.read("1a")
    bus.connect("1a")
    bus.propose("3a")
    flow(bus, [1, 3])
    assert applied(bus, "3a") == [b"1a#1:1", b"1a#1:2", b"3a#1:1"]
    bus.move([1, 2, 3])
    settle(bus)


def test_an_entry_that_is_not_in_its_ring_was_acknowledged_to_nobody() -> None:
    """1 moves on before its daemon has sent the entry. 3 has another one in that place, and 2 loses its memory."""
    bus = group_with_an_entry()
    bus.propose("1a")
    bus.propose("3a")
    bus.place(3)
    bus.move([1, 2])
    bus.crash("2a")
    bus.deliver(3)
    bus.read("3a")
    bus.quiet()  # nothing stands against 3's entry
    assert applied(bus, "2a") == [b"1a#1:1", b"3a#1:1", b"1a#1:2"]


def test_only_the_sender_of_the_last_entry_acknowledges_in_advance() -> None:
    """2 loses its connection, and does not know what became of its entry; 3 sends one; 1 loses its memory."""
    bus = group_with_an_entry()
    bus.propose("2a")
    bus.disconnect("2a", keep=0)
    bus.propose("3a")
    bus.place(3)
    bus.deliver(3)
    bus.read("3a")
    bus.crash("1a")
    bus.quiet()  # nothing stands against 3's entry
    assert applied(bus, "1a") == [b"1a#1:1", b"3a#1:1", b"2a#1:1"]


def test_nothing_is_acknowledged_in_advance_while_a_seat_is_away() -> None:
    """3 ended long ago. 1 loses its connection, and does not know what became of its entry; 2 sends one."""
    bus = group_with_an_entry()
    bus.crash("3a")
    bus.propose("1a")
    bus.drain()
    assert applied(bus, "2a") == [b"1a#1:1", b"1a#1:2"]
    bus.propose("1a")
    bus.disconnect("1a", drop=1)
    bus.read("1a", 9)
    bus.connect("1a")
    bus.propose("2a")
    bus.place(2)
    bus.place(1, 9)
    bus.deliver(1, 9)
    bus.read("1a", 9)
    bus.place(1)  # its offer
    bus.deliver(2, 9)
    bus.read("2a")  # 2's own entry, whose acknowledgement will not come back in this ballot
    bus.drain()
    assert applied(bus, "1a")[2:] == applied(bus, "2a")[2:] == [b"2a#1:1", b"1a#1:3"]


def joins_again(bus: Bus, name: str, founder: int) -> None:
    """Let a process connect again; the ballot that it founds when it reads the view gets this number."""
    bus.disconnect(name)
    bus.read(name, 99)
    bus.connect(name)
    nodeid = int(name[0])
    bus.place(nodeid, 99)
    bus.deliver(nodeid, 99)
    # The numbers of those that found them order the ballots.
    agreement(bus, name).unique = lambda: founder  # type: ignore[method-assign]


def test_a_ballot_that_not_all_follow_may_end_before_an_entry() -> None:
    """3 offers in a ballot that 2 follows. 1 and 4 have joined since its founding, do not, and read 2's entry."""
    bus = group(5)
    bus.propose("2a")
    settle(bus)
    joins_again(bus, "3a", founder=30)
    joins_again(bus, "1a", founder=20)
    bus.read("1a", 99)
    bus.place(1, 99)
    bus.deliver(3, 99)
    bus.read("3a", 99)  # what it founds is overtaken by 1's founding before it is sent
    others = [1, 2, 4, 5]
    flow(bus, others)
    for nodeid in (1, 4):
        joins_again(bus, f"{nodeid}a", founder=nodeid)
    bus.read("4a", 99)
    bus.place(4, 99)
    bus.deliver(1, 99)
    bus.read("1a", 99)  # what it founds is overtaken by 4's founding
    flow(bus, others)
    assert [agreement(bus, f"{nodeid}a").state for nodeid in others] == [PRIMARY] * 4
    bus.propose("2a")
    flow(bus, others)
    bus.propose("2a")
    bus.place(3)
    bus.place(2)
    flow(bus, [1, 4])
    assert applied(bus, "1a") == applied(bus, "4a") == [b"2a#1:1", b"2a#1:2", b"2a#1:3"]
    for name in ("1a", "4a"):
        bus.stop(name)
    bus.propose("3a")
    flow(bus, [2, 3, 5])
    for name in ("1a", "4a"):
        bus.go_on(name)
    settle(bus)


def test_what_others_have_acknowledged_is_kept() -> None:
    """A ring forms before 2 has sent its acknowledgement, but after it has read those of the others."""
    bus = group_with_an_entry()
    bus.propose("1a")
    bus.place(1)
    flow(bus, [3])
    bus.deliver(2, 9)
    bus.read("2a", 9, flush=0)
    assert applied(bus, "2a") == [b"1a#1:1", b"1a#1:2"]
    bus.move([2])
    bus.move([1, 2, 3])
    settle(bus)


# -- electorates -------------------------------------------------------------------------------------------------------


def vote(bus: Bus, name: str, votes: Mapping[int, int]) -> None:
    """Let a member propose another electorate."""
    bus.vote(name, sum(count << 2 * nodeid for nodeid, count in votes.items()))


@pytest.mark.parametrize("nodes", [2, 4])
def test_half_of_the_nodes_choose_nothing(nodes: int) -> None:
    bus = group(nodes)
    halves = [*range(1, nodes // 2 + 1)], [*range(nodes // 2 + 1, nodes + 1)]
    for half in halves:
        bus.move(half)
    for half in halves:
        bus.propose(f"{half[0]}a")
        flow(bus, half)
        assert agreement(bus, f"{half[0]}a").state is State.OFFERING
    bus.move([*bus.nodes])
    settle(bus)
    assert len(applied(bus, "1a")) == 2


def test_half_of_the_nodes_commit_nothing() -> None:
    bus = group(4)
    bus.propose("1a")
    flow(bus, [1, 2])  # in the ring of all four; 3 and 4 are slow
    assert applied(bus, "1a") == applied(bus, "2a") == []
    bus.move([3, 4], prefix=0)
    bus.move([1, 2, 3, 4])
    settle(bus)


def in_between() -> Bus:
    """Five nodes; four of them have the entry of another electorate, which needs the fifth, and an entry after it."""
    bus = group(5)
    vote(bus, "2a", {1: 3, 2: 1, 3: 1})
    bus.propose("2a")
    flow(bus, [2, 3, 4, 5])
    assert [len(agreement(bus, name).holding.configs) for name in ("2a", "5a")] == [2, 2]
    return bus


def test_another_electorate_is_committed_by_the_old_and_by_the_new_one() -> None:
    bus = in_between()
    assert applied(bus, "2a") == []
    settle(bus)
    assert applied(bus, "5a") == [b"2a#1:1"]
    assert agreement(bus, "5a").holding.configs[0].votes == {1: 3, 2: 1, 3: 1}


def test_a_choice_needs_both_electorates() -> None:
    bus = in_between()
    bus.move([2, 3, 4, 5])
    flow(bus, [2, 3, 4, 5])
    assert [agreement(bus, name).state for name in ("2a", "5a")] == [State.OFFERING] * 2
    assert nodes_in_the_way(bus, "2a") == {1}
    bus.move([*bus.nodes])
    settle(bus)
    assert applied(bus, "1a") == [b"2a#1:1"]


def test_a_ballot_is_established_by_both_electorates() -> None:
    bus = in_between()
    bus.move([*bus.nodes])
    for nodeid in bus.nodes:
        bus.deliver(nodeid)
        bus.read(f"{nodeid}a", 99)  # the view
        bus.place(nodeid, 99)
    bus.stop("1a")  # it has offered
    flow(bus, [2, 3, 4, 5])
    assert [agreement(bus, name).state for name in ("2a", "5a")] == [State.ADOPTED] * 2
    bus.go_on("1a")
    settle(bus)


def test_of_two_electorates_that_build_on_one_the_first_counts() -> None:
    bus = group()
    vote(bus, "1a", {1: 1, 2: 2, 3: 1})
    vote(bus, "2a", {1: 2, 2: 1, 3: 1})
    settle(bus)
    for name in bus.names:
        assert [{**config.votes} for config in agreement(bus, name).holding.configs] == [{1: 1, 2: 2, 3: 1}]


def test_an_electorate_whose_members_are_away_is_refused() -> None:
    """Else nothing could be committed any more, not even the seats that it lacks."""
    bus = group()
    vote(bus, "2a", {2: 3})
    settle(bus)
    bus.move([2])
    bus.drain()
    vote(bus, "2a", {1: 3, 2: 2, 3: 3})
    bus.move([1, 2, 3])
    bus.propose("1a")
    settle(bus)
    assert applied(bus, "2a") == [b"1a#1:1"]


# -- how a log begins --------------------------------------------------------------------------------------------------


def beginning(members: int = 1) -> Bus:
    """Three nodes with a member each; they have joined, and have not read that."""
    bus = Bus(3, members)
    for nodeid in bus.nodes:
        bus.start(nodeid)
        bus.launch(f"{nodeid}a")
    bus.move([1, 2, 3])
    return bus


def test_a_log_without_entries_is_not_given_up_while_its_holders_are_away() -> None:
    """3 has none, 1 and 2 have committed one and are away, and empty members are on their nodes."""
    bus = beginning(2)
    for _ in range(100):
        if any(agreement(bus, name).holding.committed for name in ("1a", "2a")):
            break
        for nodeid in (1, 2, 3):
            bus.place(nodeid)
            bus.deliver(nodeid)
            if nodeid < 3 or agreement(bus, "3a").state is not PRIMARY:
                bus.read(f"{nodeid}a")
    bus.propose("1a")
    flow(bus, [1, 2])
    assert applied(bus, "2a") == [b"1a#1:1"]
    bus.disconnect("3a")
    bus.move([3])
    bus.read("3a", 99)
    bus.connect("3a")
    bus.drain()
    assert agreement(bus, "3a").holding.length == 0
    for nodeid in (1, 2):
        bus.disconnect(f"{nodeid}a")
        bus.stop(f"{nodeid}a")
        bus.launch(f"{nodeid}b")
    bus.move([1, 2, 3])
    bus.drain()
    assert [agreement(bus, name).state for name in ("1b", "2b", "3a")] == [State.OFFERING] * 3
    assert nodes_in_the_way(bus, "1b") == {1, 2}
    for nodeid in (1, 2):
        bus.go_on(f"{nodeid}a")
        bus.read(f"{nodeid}a", 99)
        bus.connect(f"{nodeid}a")
    bus.drain()
    assert applied(bus, "3a") == applied(bus, "1b") == [b"1a#1:1"]


def test_a_log_without_entries_is_established_by_all_seats() -> None:
    """Else 1 and 2 commit entries of a log that 3 has never had. If both restart, all three have none, and begin anew.

    As it is, 3 has that log as soon as it can have entries: see `test_a_majority_that_has_lost_its_memory_stalls`.
    """
    bus = beginning()
    bus._forgets = lambda *_: False  # type: ignore[method-assign]  # nothing is committed: all may begin anew
    for _ in range(100):
        if agreement(bus, "1a").state is State.ADOPTED:
            break
        for nodeid in bus.nodes:
            bus.place(nodeid)
            bus.deliver(nodeid)
            if nodeid < 3 or agreement(bus, "3a").ballot != agreement(bus, "1a").ballot:
                bus.read(f"{nodeid}a")
    assert agreement(bus, "3a").state is State.OFFERING
    bus.stop("3a")
    bus.propose("1a")
    flow(bus, [1, 2, 3])
    bus.disconnect("3a")
    for name in ("1a", "2a"):
        bus.crash(name)
        bus.launch(name)
    bus.go_on("3a")
    bus.read("3a", 99)
    bus.connect("3a")
    bus.propose("3a")
    settle(bus)
    assert applied(bus, "1a") == [b"3a#1:1"]


# -- losses ------------------------------------------------------------------------------------------------------------


def test_an_entry_after_a_lost_one_waits_for_it() -> None:
    bus = group()
    bus.propose("1a")
    bus.propose("1a")
    bus.lose(1, 0, late=1)
    settle(bus)
    assert applied(bus, "2a") == [b"1a#1:1", b"1a#1:2"]


def test_what_was_sent_after_a_lost_offer_is_sent_again() -> None:
    """2's acknowledgement comes before its offer, and counts for nothing."""
    bus = group()
    bus.move([1, 2, 3])
    for nodeid in bus.nodes:
        bus.deliver(nodeid)
        bus.read(f"{nodeid}a")
    bus.lose(2, 0, late=1)
    settle(bus)


def losing_an_offer() -> Bus:
    """A group in a new ring, in which 2's offer is lost, as 2 hears once something that it sent later comes back."""
    bus = group()
    bus.move([1, 2, 3])
    for nodeid in bus.nodes:
        bus.deliver(nodeid)
        bus.read(f"{nodeid}a")  # the view: offers are queued
    bus.lose(2, 0, late=1)
    return bus


def test_an_acknowledgement_before_a_lost_offer_is_sent_again() -> None:
    """1 and 2 choose from the offers of 1 and 3, which stops. 2 has acknowledged before its offer is sent again."""
    bus = losing_an_offer()
    bus.stop("3a")
    bus.propose("1a")
    flow(bus, [1, 2, 3])
    assert applied(bus, "1a") == applied(bus, "2a") == [b"1a#1:1"]
    bus.go_on("3a")
    settle(bus)


def test_an_entry_before_a_lost_offer_is_sent_again() -> None:
    """1 and 3 establish the ballot. 2 is primary, too, and does not know yet that its offer was lost."""
    bus = losing_an_offer()
    flow(bus, [1, 3])
    bus.deliver(2, 99)
    bus.read("2a", 99)
    assert agreement(bus, "2a").state is PRIMARY
    bus.propose("2a")
    settle(bus)
    assert applied(bus, "1a") == [b"2a#1:1"]


def test_a_lost_acknowledgement_is_sent_again() -> None:
    bus = group()
    bus.stop("3a")  # so that 2's one is needed
    bus.propose("1a")
    bus.place(1)
    bus.deliver(2)
    bus.read("2a")
    bus.lose(2)
    flow(bus, [1, 2])
    assert applied(bus, "1a") == applied(bus, "2a") == [b"1a#1:1"]


def parts_of(bus: Bus, nodeid: int) -> list[int]:
    """The places of parts of a snapshot in what a node has not sent yet."""
    frames = [decode(it[2]) for it in bus.nodes[nodeid].queue if it[0] == FRAME]
    return [at for at, frame in enumerate(frames) if isinstance(frame, Part)]


def until_parts_are_sent(bus: Bus) -> None:
    """Let messages flow until 1 has sent parts of a snapshot."""
    for _ in range(100):
        for nodeid in bus.nodes:
            bus.place(nodeid)
            bus.deliver(nodeid)
            bus.read(f"{nodeid}a")
            if parts_of(bus, 1):
                return


@pytest.mark.parametrize("late", [0, 1])
def test_a_lost_part_of_a_snapshot_is_sent_again(late: int) -> None:
    bus = behind()
    bus.move([*bus.nodes])
    until_parts_are_sent(bus)
    bus.lose(1, parts_of(bus, 1)[-1], late)
    settle(bus)
    assert process(bus, "3a").machine.restored == 1


def test_parts_of_two_holders_are_not_put_together() -> None:
    """3 asks 1, which is slow, and then 2, whose snapshot is another one, as something was committed meanwhile."""
    bus = behind(nodes=5)
    bus.move([*bus.nodes])
    until_parts_are_sent(bus)
    bus.tick("3a")  # it asks 2
    bus.propose("4a")
    flow(bus, [2, 4, 5])
    assert len(applied(bus, "2a")) == 13
    bus.place(3, 9)
    bus.deliver(2, 9)
    bus.read("2a", 9)
    assert parts_of(bus, 2)
    bus.place(1, parts_of(bus, 1)[0] + 1)  # part 0 of 1's
    bus.place(2, parts_of(bus, 2)[0] + 1)  # part 0 of 2's
    bus.place(1)  # part 1 of 1's
    settle(bus)
    assert len(applied(bus, "3a")) == 13


# -- what only an agreement by itself shows ----------------------------------------------------------------------------


def test_an_acknowledgement_of_another_log_does_not_count() -> None:
    """Corosync delivers none within a ballot: see docs/recipes/proof.md."""
    bus = group()
    it = agreement(bus, "1a")
    bus.propose("1a")
    for name in ("2a", "3a"):
        bus.stop(name)
    flow(bus, [1])
    assert it.ballot is not None
    it.deliver(process(bus, "2a").address, encode(Ack(it.ballot, it.holding.length, b"another.")))
    assert applied(bus, "1a") == []
    for name in ("2a", "3a"):
        bus.go_on(name)
    settle(bus)


def claim(first: int, last: int, *configs: Config) -> Claim:
    """A claim that is sure of the log up to `first`, which is the same as that of all others up to `last`."""
    digests = [b"%8d" % index for index in range(first, last + 1)]
    return Claim(Ballot(8, 1, 0, 0), sure=True, first=first, digests=digests, configs=configs)


def test_an_entry_that_another_seat_is_sure_of_is_not_given_up() -> None:
    """1 and 2 have committed entry 4. 2's log has more, but also an electorate whose members are not here."""
    old = Config(0, {1: 1, 2: 1, 3: 1}, {1: 10, 2: 20, 3: 30})
    new = Config(5, {2: 1, 4: 1, 5: 1}, {2: 20, 4: 40, 5: 50})
    choice = choose({10: claim(3, 4, old), 20: claim(5, 5, old, new), 30: claim(3, 3, old)})
    assert choice is not None
    assert choice.length == 4


FOUND = {
    "a joiner takes offers for its ballot that are void to all others": Schedule(
        2, 1, protect=True, steps=[("start", 2), ("launch", "2a"), ("deliver", 2, 1), ("place", 2, 1)]
    ),
    "empty members begin another log before those that have one have offered": Schedule(
        2,
        2,
        protect=True,
        steps=[
            ("start", 1),
            ("start", 2),
            ("launch", "1a"),
            ("launch", "1b"),
            ("launch", "2a"),
            ("propose", "1b"),
            ("deliver", 2, 1),
            ("place", 2, 1),
            ("deliver", 2, 1),
            ("read", "2a", 1),
            ("propose", "2a"),
            ("disconnect", "2a", 1, 0),
            ("disconnect", "1a", 0, 0),
        ],
    ),
    "a log begins before all members have offered": Schedule(
        3,
        1,
        protect=True,
        steps=[
            ("start", 1),
            ("start", 2),
            ("start", 3),
            ("launch", "1a"),
            ("launch", "2a"),
            ("launch", "3a"),
            ("move", (1, 2, 3), 0, 0),
            ("deliver", 1, 1),
            ("deliver", 2, 1),
            ("place", 2, 1),
            ("place", 1, 1),
            ("deliver", 2, 1),
            ("deliver", 1, 2),
            ("read", "1a", 2),
            ("place", 1, 1),
            ("read", "2a", 2),
            ("deliver", 3, 9),
            ("place", 3, 1),
            ("deliver", 2, 3),
            ("deliver", 3, 1),
            ("read", "2a", 3),
            ("place", 2, 1),
            ("deliver", 2, 1),
            ("read", "2a", 1),
            ("deliver", 1, 9),
            ("deliver", 3, 1),
            ("read", "1a", 3),
            ("read", "3a", 9),
            ("crash", "3a", 0),
        ],
    ),
    "a member takes part in a ballot whose founding it has not seen": Schedule(
        4,
        2,
        protect=True,
        steps=[
            ("start", 1),
            ("start", 2),
            ("start", 3),
            ("start", 4),
            ("launch", "1a"),
            ("launch", "1b"),
            ("launch", "2a"),
            ("launch", "2b"),
            ("launch", "3a"),
            ("launch", "3b"),
            ("launch", "4a"),
            ("launch", "4b"),
            ("move", (1, 2, 3, 4), 0, 0),
            ("deliver", 1, 1),
            ("deliver", 3, 1),
            ("place", 1, 1),
            ("place", 3, 1),
            ("deliver", 4, 1),
            ("deliver", 1, 1),
            ("place", 4, 1),
            ("place", 1, 1),
            ("read", "1a", 2),
            ("place", 1, 1),
            ("place", 3, 1),
            ("deliver", 2, 1),
            ("deliver", 4, 9),
            ("deliver", 1, 9),
            ("read", "4a", 9),
            ("place", 4, 2),
            ("read", "1b", 9),
            ("place", 2, 2),
        ],
    ),
}


@pytest.mark.parametrize("schedule", FOUND.values(), ids=FOUND)
def test_what_random_schedules_have_found(schedule: Schedule) -> None:
    assert run(schedule).fault is None


def test_a_log_without_entries_does_not_win_over_another_one_with_entries() -> None:  # noqa: C901, PLR0912 - a long story
    """The b's have L, and miss that M was begun in its place with the a's. 3a has entries of M, and is there."""
    bus = Bus(3, 2)
    bus._forgets = lambda *_: False  # type: ignore[method-assign]  # L has no entries: all may begin anew
    old, new = ["1b", "2b", "3b"], ["1a", "2a", "3a"]
    for nodeid in bus.nodes:
        bus.start(nodeid)
    bus.move([1, 2, 3])
    for name in old:
        bus.launch(name)
    for _ in range(30):
        waiting = [name for name in old if agreement(bus, name).state is not State.ADOPTED]
        for name in waiting:
            bus.place(int(name[0]))
        for nodeid in bus.nodes:
            bus.deliver(nodeid)
        for name in waiting:
            bus.read(name)
    assert [agreement(bus, name).state for name in old] == [State.ADOPTED] * 3
    for name in new:
        bus.launch(name)
    for nodeid in bus.nodes:
        bus.place(nodeid, 99)
    for nodeid in bus.nodes:
        bus.deliver(nodeid, 99)
    for _ in range(60):
        for name in new + old:
            if name in new or len(agreement(bus, name).offers) < 5:
                bus.read(name)
                bus.place(int(name[0]), 99)
        for nodeid in bus.nodes:
            bus.deliver(nodeid, 99)
    for name in old:
        bus.disconnect(name)
        bus.stop(name)
    bus.propose("1a")
    flow(bus, [1, 2, 3])
    assert applied(bus, "3a") == [b"1a#1:1"]
    for name in ("1a", "2a"):
        bus.disconnect(name)
        bus.stop(name)
    for name in old:
        bus.go_on(name)
        bus.read(name, 99)
        bus.connect(name)
    flow(bus, [1, 2, 3])
    assert [agreement(bus, name).state for name in [*old, "3a"]] == [State.OFFERING] * 4
    for name in ("1a", "2a"):
        bus.go_on(name)
        bus.read(name, 99)
        bus.connect(name)
    settle(bus)
    assert applied(bus, "1b") == [b"1a#1:1"]
