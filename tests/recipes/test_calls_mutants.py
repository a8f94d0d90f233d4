"""Mutation tests: each wrong version of calls is found by the test that it names."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from mutants import hook
from mutants.processes import run
from support.fixtures.long import long

pytestmark = pytest.mark.corosync_fake_only(reason="the mutants are tried on the fake")

_ROOT = Path(__file__).parents[2]
_EVERY = 4
"""One of so many mutants is looked at always, the others by `make long`."""


@attrs.frozen
class Mutant:
    """Calls with one thing wrong."""

    module: str
    """The name of the module in triocoro.recipes."""
    old: str
    """A text that occurs exactly once in the module."""
    new: str
    """The replacement."""
    caught_by: str
    """The test that fails."""


MUTANTS = {
    "who_leaves_is_awaited": Mutant(
        "_calls_tasks",
        "call.settle(member, Unknown(member))",
        "pass",
        "test_a_member_that_leaves_is_unknown",
    ),
    "no_probe_when_the_ring_changes": Mutant(
        "_calls_tasks",
        "if ring_changed and call.awaited:",
        "if False:",
        "test_a_member_that_missed_the_request_is_unknown_once_the_ring_changes",
    ),
    "no_probe_after_a_thaw": Mutant(
        "_calls_tasks",
        "if ring_changed and call.awaited:",
        "if ring_changed and call.awaited <= view.together:",
        "test_after_a_thaw_what_was_answered_meanwhile_is_unknown",
    ),
    "no_probe_at_the_delivery": Mutant(
        "_calls_tasks",
        "        if call.moved:\n",
        "        if False:\n",
        "test_a_member_of_a_ring_that_was_skipped_does_not_have_the_request",
    ),
    "the_ring_before_the_delivery_is_forgotten": Mutant(
        "_calls_tasks",
        "call.moved = call.moved or ring_changed",
        "call.moved = False",
        "test_the_ring_may_change_before_the_request_is_sent",
    ),
    "what_runs_is_not_here": Mutant(
        "_calls_tasks",
        "            self._present.add((frame.incarnation, frame.number))\n",
        "            pass\n",
        "test_a_member_that_missed_the_request_is_unknown_once_the_ring_changes",
    ),
    "what_is_done_is_here": Mutant(
        "_calls_tasks",
        "self._present.discard((frame.incarnation, frame.number))",
        "pass",
        "test_after_a_thaw_what_was_answered_meanwhile_is_unknown",
    ),
    "losses_stay_lost": Mutant(
        "_calls_tasks",
        "            call.moved = False\n        self._post(frame)\n",
        "            call.moved = False\n",
        "test_frames_that_are_lost_are_sent_again",
    ),
    "lost_answers_stay_lost": Mutant(
        "_calls_tasks",
        "if frame.kind == Kind.REQUEST:\n            call = self.open.get(frame.number)\n",
        "if True:\n            call = self.open.get(frame.number)\n",
        "test_frames_that_are_lost_are_sent_again",
    ),
    "calls_that_have_ended_are_sent_again": Mutant(
        "_calls_tasks",
        "            if call is None:\n                return\n            call.moved",
        "            if call is None:\n                call = OpenCall()\n            call.moved",
        "test_a_lost_request_of_a_call_that_has_ended_is_not_sent_again",
    ),
    "an_interrupted_frame_stays_so": Mutant(
        "_calls_tasks",
        'reached("a frame of a call was interrupted")',
        "return",
        "test_interrupted_frames_are_sent_again",
    ),
    "replies_to_others_count": Mutant(
        "_calls_tasks",
        "        elif ours:\n",
        "        else:\n",
        "test_replies_of_strangers_do_not_count",
    ),
    "replies_of_strangers_count": Mutant(
        "_calls_replies",
        "        if member not in self.awaited:\n            return\n        self.awaited.remove(member)\n",
        "        self.awaited.discard(member)\n",
        "test_replies_of_strangers_do_not_count",
    ),
    "all_callers_are_one": Mutant(
        "_calls_tasks",
        "secrets.token_bytes(16)",
        "bytes(16)",
        "test_two_calls_at_once",
    ),
    "the_end_looks_like_the_last_reply": Mutant(
        "_calls_replies",
        "        self.replies.close()  # first: else a task that waits would take it for the end of the replies\n",
        "        self._send.close()\n        self.replies.close()\n",
        "test_tasks_outside_of_the_block_hear_of_its_end",
    ),
    "only_some_exceptions_are_failures": Mutant(
        "_calls_tasks",
        "except Exception as exc:",
        "except OSError as exc:",
        "test_a_handler_that_raises_is_a_failure",
    ),
    "versions_are_ignored": Mutant(
        "_calls_tasks",
        "        elif frame.version != VERSION:\n",
        "        elif False:\n",
        "test_another_version_is_refused",
    ),
    "refusals_are_refused": Mutant(
        "_calls_tasks",
        "            if frame.kind == Kind.REQUEST:\n                self._post(Frame(Kind.OTHER_VERSION",
        "            if True:\n                self._post(Frame(Kind.OTHER_VERSION",
        "test_another_version_is_refused",
    ),
    "silent_without_a_handler": Mutant(
        "_calls_tasks",
        "            self._post(Frame(Kind.NO_HANDLER, frame.incarnation, frame.number))\n",
        "",
        "test_members_without_a_handler_are_not_awaited",
    ),
    "too_many_at_once": Mutant(
        "_calls",
        "range(max_running if",
        "range(max_running + 1 if",
        "test_handlers_at_once_are_bounded_and_so_are_requests_that_wait",
    ),
    "received_events_count": Mutant(
        "_calls",
        "core.buffered_bytes -= event_bytes(event)",
        "pass",
        "test_events_that_are_not_received_are_bounded",
    ),
    "errors_of_handlers_are_cancellations": Mutant(
        "_block",
        "if failure is None or (told is not None and _is_cancelled(failure)):",
        "if failure is None:",
        "test_a_handler_that_ends_the_program",
    ),
    "own_losses_come_out": Mutant(
        "_calls",
        "if exc is failure or not all(map(Frame.decode, exc.payloads)):",
        "if True:",
        "test_what_is_lost_at_the_end_raises_nothing",
    ),
}


@pytest.mark.parametrize(
    "name", [each for number, name in enumerate(MUTANTS) for each in (long(name) if number % _EVERY else [name])]
)
def test_a_test_finds_it(name: str) -> None:
    mutant = MUTANTS[name]
    test = f"tests/recipes/test_calls.py::{mutant.caught_by}"
    result = run((f"triocoro.recipes.{mutant.module}", mutant.old, mutant.new), test)
    # Exit codes 2 to 5 would mean that the test did not run.
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"FAILED {test}" in result.stdout


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_each_mutant_finds_its_text_in_its_module(mutant: Mutant) -> None:
    name = f"{mutant.module}.py"
    path = _ROOT / "triocoro" / "recipes" / name
    compile(hook.mutated(path.read_text(encoding="utf-8"), mutant.old, mutant.new), name, "exec")
