"""Wrong versions of views and of the memberships below them: each is caught by the test that it names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest
from mutants import hook
from mutants.processes import run
from support.fixtures.long import long

pytestmark = pytest.mark.corosync_fake_only(reason="the mutants are tried on the fake")

_ROOT = Path(__file__).parents[2]
_ALWAYS = {"free_quorum", "loss_by_quorum_forgets", "held_back_is_unbounded"}
"""The mutants in processes of their own that are tried always; the others by `make long`."""


@attrs.frozen
class Mutant:
    """A module with one thing wrong."""

    wrong: str
    """What is wrong."""
    old: str
    """A text that occurs exactly once in the module."""
    new: str
    """The replacement."""
    caught_by: str
    """The test that fails, or the story of test_joining.py."""
    module: str = "_views"
    """Of the package triocoro."""


JOINING = {
    # Messages and their view
    "messages_before_their_view": Mutant(
        "messages of a ring pass while its quorum is not known",
        "if self._state is _State.SETTLED and _MESSAGES_ONLY.issuperset(map(type, events)):",
        "if _MESSAGES_ONLY.issuperset(map(type, events)):",
        "the join",
    ),
    "undecided_reads_on": Mutant(
        "what follows a ring is read before its quorum is known",
        "            if self._state is _State.UNDECIDED or not self._unread:\n",
        "            if not self._unread:\n",
        "a node goes and returns",
    ),
    "messages_of_moving_members": Mutant(
        "messages pass between a change of nodes and the ring that made it",
        "            elif self._state is _State.SETTLED:\n",
        "            elif self._state is not _State.UNDECIDED:\n",
        "a ring is skipped",
    ),
    "messages_before_the_view": Mutant(
        "messages of a ring that was skipped come before the next view",
        "        out.append(View(ring.ring_id, self._members, frozenset(ring.members), ring.quorate, together))\n",
        "        out.extend(self._kept)\n        self._count(self._kept, -1)\n        self._kept.clear()\n"
        "        out.append(View(ring.ring_id, self._members, frozenset(ring.members), ring.quorate, together))\n",
        "a ring is skipped",
    ),
    "messages_of_skipped_rings_are_lost": Mutant(
        "messages of a ring that was skipped are dropped",
        "        out.extend(self._kept)\n",
        "",
        "two rings are skipped, and members change in one",
    ),
    "messages_of_skipped_rings_stay_counted": Mutant(
        "messages count as held back after their view",
        "        self._count(self._kept, -1)\n",
        "",
        "test_nothing_passes_before_the_quorum_of_its_ring",
    ),
    "held_changes_stay_counted": Mutant(
        "changes of members count as held back for ever",
        "            if isinstance(event, ConfigChange):\n                self._count((event,), -1)\n",
        "            if isinstance(event, ConfigChange):\n",
        "test_nothing_passes_before_the_quorum_of_its_ring",
    ),
    # Which news of quorum are those of the ring
    "ring_ids_are_not_compared": Mutant(
        "the latest news of quorum count for each ring: ring ids are not compared",
        "decision = self._decisions.get(ring_id)",
        "decision = next(reversed(self._decisions.values()), None)",
        "a ring is skipped",
    ),
    "nodes_are_not_compared": Mutant(
        "news of quorum count for a totem change with the nodes of the ring before",
        "if decision is not None and {*decision.members} == nodes:",
        "if decision is not None:",
        "a join in a transition: the ring with the old nodes comes first",
    ),
    "nodes_have_an_order": Mutant(
        "news of quorum count only if the nodes come in the same order",
        "{*decision.members} == nodes",
        "decision.members == self._undecided.members",
        "nodes in another order",
    ),
    "rings_are_not_skipped": Mutant(
        "a ring whose quorum is never told is waited for",
        "elif decision is not None or any(_order(key) > _order(ring_id) for key in self._decisions):",
        "elif decision is not None:",
        "a ring is skipped",
    ),
    "wrong_nodes_are_waited_for": Mutant(
        "a totem change with the nodes of the ring before holds up the one that follows",
        "elif decision is not None or any(_order(key) > _order(ring_id) for key in self._decisions):",
        "elif any(_order(key) > _order(ring_id) for key in self._decisions):",
        "a join in a transition: the ring with the old nodes comes first",
    ),
    "earlier_rings_skip": Mutant(
        "news of quorum of an earlier ring skip this one",
        "any(_order(key) > _order(ring_id) for key in self._decisions)",
        "bool(self._decisions)",
        "quorum of an earlier ring",
    ),
    "rings_in_order_of_nodes": Mutant(
        "of two rings, that of the greater node is the later one",
        "    return ring_id.seq, ring_id.nodeid\n",
        "    return ring_id.nodeid, ring_id.seq\n",
        "a later ring may have a lower node",
    ),
    "first_news_of_a_ring_count": Mutant(
        "a view has the first news of its ring, not the latest",
        "        self._decisions[event.ring_id] = event\n",
        "        self._decisions.setdefault(event.ring_id, event)\n",
        "test_quorum_that_changes_within_a_ring",
    ),
    "news_are_kept": Mutant(
        "news of quorum of earlier rings are kept for ever",
        "if _order(key) >= _order(ring_id)}",
        "if True}",
        "test_earlier_rings_are_forgotten",
    ),
    "news_are_used_up": Mutant(
        "news of quorum are forgotten once their ring is settled",
        "if _order(key) >= _order(ring_id)}",
        "if _order(key) > _order(ring_id)}",
        "a ring comes twice",
    ),
    # When a view begins
    "no_view_within_a_ring": Mutant(
        "a join or a leave within a ring makes no view",
        "        self._due = True\n        if any(change.reason",
        "        if any(change.reason",
        "a join and a leave within the ring",
    ),
    "processes_are_nodes": Mutant(
        "a join or a leave within a ring waits for another ring",
        "if any(change.reason in _OF_NODES for change in (*event.left, *event.joined)):",
        "if True:",
        "a join and a leave within the ring",
    ),
    "nodes_are_processes": Mutant(
        "members that a change of the ring took along make a view of the ring before",
        "_OF_NODES: Final = {Reason.NODEDOWN, Reason.NODEUP}",
        "_OF_NODES: Final = {Reason.NODEUP}",
        "a thaw: one ring, the same members",
    ),
    "nodes_that_come_are_processes": Mutant(
        "members that a change of the ring brought make a view of the ring before",
        "_OF_NODES: Final = {Reason.NODEDOWN, Reason.NODEUP}",
        "_OF_NODES: Final = {Reason.NODEDOWN}",
        "a node goes and returns",
    ),
    "same_members_no_view": Mutant(
        "a ring with the same members has no view",
        "self._due = self._due or self._ring is None or self._ring.ring_id != ring_id",
        "self._due = self._due or self._ring is None",
        "the same nodes form a new ring",
    ),
    "each_totem_change_is_a_view": Mutant(
        "a ring that is told twice has two views",
        "self._due = self._due or self._ring is None or self._ring.ring_id != ring_id",
        "self._due = True",
        "a ring comes twice",
    ),
    "no_view_after_other_nodes": Mutant(
        "a ring that came with other nodes, and again with its own, has no view of its own",
        "            self._due = True\n            self._state = _State.MOVING\n",
        "            self._state = _State.MOVING\n",
        "a ring comes with other nodes, and again with its own",
    ),
    "view_before_the_join": Mutant(
        "the first view comes before our own join",
        "if not self._due or ring is None or not (self._members or self._seen):",
        "if not self._due or ring is None:",
        "the ring before the join",
    ),
    "no_view_without_members": Mutant(
        "the last leave makes no view",
        "if not self._due or ring is None or not (self._members or self._seen):",
        "if not self._due or ring is None or not self._members:",
        "our own leave",
    ),
    # Together
    "together_is_all": Mutant(
        "together are all members",
        "together = frozenset(self._together)",
        "together = frozenset(self._members)",
        "the join",
    ),
    "together_by_comparison": Mutant(
        "together are the members of the view before that are in this one: a thaw is not seen",
        "        together = frozenset(self._together)\n",
        "        together = frozenset(vars(self).get('before', set()) & {*self._members})\n"
        "        self.before = {*self._members}\n",
        "a thaw: one ring, the same members",
    ),
    "together_with_those_who_left": Mutant(
        "members that have left are together",
        "        self._together.difference_update(change.address for change in event.left)\n",
        "",
        "a join and a leave within the ring",
    ),
    "together_with_those_who_joined": Mutant(
        "members that join are together",
        "        self._together.difference_update(change.address for change in event.left)\n",
        "        self._together.difference_update(change.address for change in event.left)\n"
        "        self._together.update(change.address for change in event.joined if self._seen)\n",
        "a node goes and returns",
    ),
    "together_of_the_first_view": Mutant(
        "together are those of the first view",
        "        self._together = {*self._members}\n",
        "        self._together = self._together if self._seen else {*self._members}\n",
        "a member that has joined comes along from then on",
    ),
    # Primary
    "primary_change_missed": Mutant(
        "there is no PrimaryChange",
        "if self._seen and event.quorate is not ring.quorate:",
        "if False:",
        "test_quorum_that_changes_within_a_ring",
    ),
    "primary_change_twice": Mutant(
        "news that repeat what is known make a PrimaryChange",
        "if self._seen and event.quorate is not ring.quorate:",
        "if self._seen:",
        "test_quorum_that_changes_within_a_ring",
    ),
    "primary_change_before_the_view": Mutant(
        "a PrimaryChange comes before the first view",
        "if self._seen and event.quorate is not ring.quorate:",
        "if event.quorate is not ring.quorate:",
        "test_quorum_that_changes_before_the_first_view_is_in_it",
    ),
    "primary_change_of_another_ring": Mutant(
        "news of quorum of another ring make a PrimaryChange",
        "if ring is not None and event.ring_id == ring.ring_id:",
        "if ring is not None:",
        "a node goes and returns",
    ),
    "primary_of_the_beginning": Mutant(
        "a view within a ring has the quorum of the beginning of that ring",
        "            self._ring = event\n",
        "            self._ring = self._ring\n",
        "test_a_view_within_a_ring_has_the_latest_quorum",
    ),
    "primary_by_default": Mutant(
        "each view is primary",
        "frozenset(ring.members), ring.quorate, together)",
        "frozenset(ring.members), True, together)",
        "no quorum",
    ),
    "nodes_of_the_members": Mutant(
        "the nodes of a view are those of its members",
        "frozenset(ring.members), ring.quorate",
        "frozenset(it.nodeid for it in self._members), ring.quorate",
        "a restart within the token timeout",
    ),
}
"""`Joining` with one thing wrong. They are tried in this process, always."""

_VIEWS = "tests/sdk/test_views.py::"
_MEMBERSHIP = "_membership"
_GATHERING = "_gathering"

OTHERS = {
    "free_quorum": Mutant(
        "without a quorum provider, views never come, and nothing says why",
        "if raw.type is QuorumType.FREE:",
        "if False:",
        _VIEWS + "test_without_a_quorum_provider_there_are_no_views",
    ),
    "loss_by_quorum_forgets": Mutant(
        "if the connection to quorum is the one that is lost, its error does not count what is unconfirmed",
        "        connection.lifetime.count_unconfirmed = membership.count_unconfirmed\n",
        "",
        _VIEWS + "test_the_loss_of_either_connection_ends_the_block",
    ),
    "held_back_is_unbounded": Mutant(
        "what waits for its view does not count for the bound",
        "        out = joining.on_group(events)\n        membership.stream.hold(joining.held, joining.held_bytes)\n",
        "        out = joining.on_group(events)\n",
        _VIEWS + "test_events_that_wait_for_their_view_are_bounded",
    ),
    "held_back_for_ever": Mutant(
        "what waited for its view counts twice for the bound after it",
        "        out = joining.on_quorum(events)\n        membership.stream.hold(joining.held, joining.held_bytes)\n",
        "        out = joining.on_quorum(events)\n",
        _VIEWS + "test_what_has_waited_for_its_view_counts_once",
    ),
    "quorum_is_told_once": Mutant(
        "quorum is asked for once, and not tracked",
        "partial(raw.trackstart, Track.CHANGES)",
        "partial(raw.trackstart, Track.CURRENT)",
        _VIEWS + "test_a_minority_and_its_return",
    ),
    "no_view_by_quorum": Mutant(
        "news of quorum that are read last begin no view",
        "        membership.put(out)\n",
        "",
        _VIEWS + "test_messages_that_come_before_the_news_of_quorum_wait",
    ),
    "view_that_was_not_received": Mutant(
        "`Views.view` is the latest one that was read, not the latest one received",
        "        self._notable += sum([not isinstance(event, Message) for event in events])\n",
        "        self._notable += sum([not isinstance(event, Message) for event in events])\n"
        "        self._note_component(events)\n"
        "        self.stream.put(events, list(map(payload_bytes, events)))\n\n"
        "    def _note_component(self, events: Sequence[EventT]) -> None:\n"
        "        for event in events:\n"
        "            if isinstance(event, View):\n"
        "                self.component = event\n\n"
        "    def _unused(self, events: Sequence[EventT]) -> None:\n",
        _VIEWS + "test_joins_leaves_and_rings",
        _MEMBERSHIP,
    ),
    "own_by_node": Mutant(
        "messages of other processes of our node are taken for our own",
        "if message.sender is self.address or message.sender == self.address:",
        "if message.sender.nodeid == self.address.nodeid:",
        "tests/sdk/test_losses.py::test_an_equal_message_of_another_process_of_the_node_is_not_ours",
        _MEMBERSHIP,
    ),
    "fast_path_ignores_losses": Mutant(
        "in a batch of messages, a loss of an own one goes unnoticed",
        "        if not self.outstanding.on_expected_deliveries(payloads):\n            return False\n",
        "        self.outstanding.on_expected_deliveries(payloads)\n",
        "tests/sdk/test_losses.py::test_a_loss_in_a_batch_of_deliveries",
        _MEMBERSHIP,
    ),
    "leave_forgets_losses": Mutant(
        "what was not delivered by our leave is not lost",
        "            self._report(self.outstanding.lose_all(), out)\n",
        "",
        "tests/sdk/test_group.py::test_the_end_of_the_block_tells_of_losses_that_nothing_followed",
        _MEMBERSHIP,
    ),
    "losses_are_told_twice": Mutant(
        "a loss that was received comes out of the block as well",
        "                self._untold = [report for report in self._untold if report is not event]\n",
        "                pass\n",
        "tests/sdk/test_losses.py::test_a_receiver_hears_of_a_loss_that_nothing_follows",
        _MEMBERSHIP,
    ),
    "losses_of_callers_come_out": Mutant(
        "a loss that `send_and_wait` raises comes out of the block as well",
        "if own.caller is None:",
        "if True:",
        "tests/sdk/test_losses.py::test_a_loss_that_a_caller_was_told_of_is_not_told_again",
        _MEMBERSHIP,
    ),
    "totem_changes_always": Mutant(
        "a group gets totem changes that it did not ask for",
        "            elif self._totem_changes:\n",
        "            else:\n",
        "tests/sdk/test_group.py::test_view_follows_what_was_received",
        _MEMBERSHIP,
    ),
    "join_is_not_awaited": Mutant(
        "the block starts before the join is agreed on",
        "            await self._joined.wait()\n",
        "            pass\n",
        "tests/sdk/test_group.py::test_the_first_event_is_our_join",
        _MEMBERSHIP,
    ),
    "leave_is_not_awaited": Mutant(
        "the block ends before the leave is agreed on",
        "            await self._left.wait()\n",
        "            pass\n",
        "tests/sdk/test_group.py::test_the_end_of_the_block_tells_of_losses_that_nothing_followed",
        _MEMBERSHIP,
    ),
    "group_view_not_received": Mutant(
        "`Group.view` is the latest one that was read, not the latest one received",
        "        if not self._joined.is_set() or not self.receive:\n",
        "        if True:\n",
        "tests/sdk/test_group.py::test_view_follows_what_was_received",
        _MEMBERSHIP,
    ),
    "join_while_leaving_is_refused": Mutant(
        "a join is refused while the membership before it ends in the background",
        "if departing or self._is_earlier_one_departing():",
        "if False:",
        "tests/sdk/test_group.py::test_a_group_that_is_still_being_closed_is_waited_for",
        _MEMBERSHIP,
    ),
    "join_twice_waits": Mutant(
        "a second join of one process waits for the end of the first, instead of an error",
        "elif other.key == self._key and other.lifetime.ended:",
        "elif other.key == self._key:",
        "tests/sdk/test_misuse.py::test_second_membership_of_one_process",
        _MEMBERSHIP,
    ),
    "join_elsewhere_departs": Mutant(
        "a join waits for the end of a membership of another group",
        "elif other.key == self._key and other.lifetime.ended:",
        "elif other.lifetime.ended:",
        "tests/sdk/test_group.py::test_a_membership_that_ends_in_one_cluster_delays_no_refusal_in_another",
        _MEMBERSHIP,
    ),
    "large_payloads_at_once": Mutant(
        "a large payload is copied at once",
        "step = max(PIECE // view.itemsize, 1)",
        "step = max(len(view), 1)",
        "tests/sdk/test_large.py::test_buffers_are_gathered_piece_by_piece",
        _GATHERING,
    ),
    "strides_are_ignored": Mutant(
        "a buffer with gaps is refused",
        "yield piece if piece.c_contiguous else piece.tobytes()",
        "yield piece",
        "tests/sdk/test_large.py::test_buffers_are_gathered_piece_by_piece",
        _GATHERING,
    ),
    "large_batches_at_once": Mutant(
        "the payloads of a large batch are copied at once",
        "        if copied > PIECE:\n",
        "        if False:\n",
        "tests/sdk/test_large.py::test_messages_of_a_batch_are_copied_a_few_at_a_time",
        _GATHERING,
    ),
    "epochs_do_not_count": Mutant(
        "each session has the same epoch",
        "_Course(previous.epoch + 1 if previous else 1)",
        "_Course(1)",
        _VIEWS + "test_views_in_sessions",
        "_sessions",
    ),
}
"""What is around `Joining`, with one thing wrong. Each is tried in a process of its own."""


def module_of(path: Path, name: str, source: str) -> ModuleType:
    """A module made of a source, which is not imported by others."""
    spec = importlib.util.spec_from_loader(name, None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    return module


def fails(mutant: Mutant | None, test: str) -> bool:
    """Whether a test or a story of test_joining.py fails."""
    path = Path(__file__).with_name("test_joining.py")
    tests: Any = module_of(path, "test_joining", path.read_text(encoding="utf-8"))
    if mutant is not None:
        path = _ROOT / "triocoro" / "_views.py"
        source = hook.mutated(path.read_text(encoding="utf-8"), mutant.old, mutant.new)
        tests.Joining = module_of(path, "triocoro._views_mutant", source).__dict__["Joining"]
    try:
        if test in tests.STORIES:
            tests.test_each_order_of_news_makes_the_same_views(tests.STORIES[test])
        else:
            getattr(tests, test)()
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("name", JOINING)
def test_a_story_finds_it(name: str) -> None:
    assert fails(JOINING[name], JOINING[name].caught_by)


def test_without_a_mutant_no_story_fails() -> None:
    assert not [test for test in {it.caught_by for it in JOINING.values()} if fails(None, test)]


@pytest.mark.parametrize("name", [each for name in OTHERS for each in ([name] if name in _ALWAYS else long(name))])
def test_a_test_finds_it(name: str) -> None:
    mutant = OTHERS[name]
    result = run((f"triocoro.{mutant.module}", mutant.old, mutant.new), mutant.caught_by)
    # Exit codes 2 to 5 would mean that the test did not run.
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"FAILED {mutant.caught_by}" in result.stdout


@pytest.mark.parametrize("only", long("test"))
def test_the_tests_pass_without_a_mutant(only: str) -> None:
    result = run(None, *sorted({it.caught_by for it in OTHERS.values()}))
    assert result.returncode == 0, f"{only}: {result.stdout} {result.stderr}"


@pytest.mark.parametrize("mutant", [*JOINING.values(), *OTHERS.values()], ids=[*JOINING, *OTHERS])
def test_each_mutant_finds_its_text_in_its_module(mutant: Mutant) -> None:
    path = _ROOT / "triocoro" / f"{mutant.module}.py"
    compile(hook.mutated(path.read_text(encoding="utf-8"), mutant.old, mutant.new), path.name, "exec")
