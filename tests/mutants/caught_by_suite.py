"""Mutants that a test of the suite finds. The test also runs on real Corosync, unless it is in tests/fake."""

from __future__ import annotations

from .mutant import Mutant

GROUPS = {
    "nodedown_for_procdown": Mutant(
        "A process that exits without a leave is reported as NODEDOWN.",
        "exec.cpg",
        "self.multicast(_ProcLeave(client.group, client.pid, Reason.PROCDOWN))",
        "self.multicast(_ProcLeave(client.group, client.pid, Reason.NODEDOWN))",
        "tests/sdk/test_lowlevel.py::test_finalize_without_leave_is_procdown",
    ),
    "procdown_for_nodedown": Mutant(
        "Processes that leave with their node are reported as PROCDOWN.",
        "exec.cpg",
        "MemberChange(address, Reason.NODEDOWN)",
        "MemberChange(address, Reason.PROCDOWN)",
        "tests/clusters/test_faults.py::test_groups_part_and_meet",
    ),
    "join_for_nodeup": Mutant(
        "Processes that come with their node are reported as JOIN.",
        "exec.cpg",
        "MemberChange(address, Reason.NODEUP)",
        "MemberChange(address, Reason.JOIN)",
        "tests/clusters/test_faults.py::test_groups_part_and_meet",
    ),
    "leave_twice": Mutant(
        "A client that has left a group can leave it again.",
        "exec.cpg",
        "        if client.state in (CpdState.UNJOINED, CpdState.LEAVE_STARTED):\n",
        "        if client.state is CpdState.UNJOINED:\n",
        "tests/raw/test_raw_groups.py::test_handles_are_single_use",
    ),
    "join_across_views": Mutant(
        "Messages that a node sends in its old ring when it is stopped reach the nodes that have left this ring.",
        "exec.totem",
        "            if daemon is not None and not daemon.frozen and daemon.ring is ring:\n",
        "            if daemon is not None and not daemon.frozen:\n",
        "tests/fake/test_fake.py::test_a_frozen_node_that_is_stopped_tells_the_others_nothing",
    ),
    "fragments_are_not_interrupted": Mutant(
        "A fragmented message is not interrupted when the members change in between.",
        "exec.cpg",
        "        if client.transitions != client.first_transition:\n",
        "        if client.transitions < client.first_transition:\n",
        "tests/fake/test_fake.py::test_configuration_change_interrupts_fragments",
    ),
    "handle_survives": Mutant(
        "Connections do not break when the daemon dies.",
        "exec.daemon",
        "        for connection in connections:\n            connection.hang_up()\n",
        "",
        "tests/raw/test_raw_handles.py::test_a_daemon_that_dies",
    ),
    "freeze_loses_events": Mutant(
        "Events that were queued in a daemon when it froze are not sent after the thaw.",
        "exec.daemon",
        "        for connection in list(self.connections):\n            connection.notify()\n        self.run_jobs()\n",
        "        self.run_jobs()\n",
        "tests/raw/test_raw_handles.py::test_events_that_wait_in_a_frozen_daemon_come_after_the_thaw",
    ),
}

QUORUM = {
    "wait_for_all_ignored": Mutant(
        "wait_for_all has no effect.",
        "exec.votes",
        "        if self.wait_for_all and self.waiting_for_all:\n",
        "        if not self.wait_for_all and self.waiting_for_all:\n",
        "tests/sdk/test_votequorum.py::test_wait_for_all",
    ),
    "two_node_ignored": Mutant(
        "two_node has no effect: one of two nodes is not quorate.",
        "exec.votes",
        "        if self.two_node and voters <= _TWO_NODES:\n",
        "        if self.two_node and voters < _TWO_NODES - 1:\n",
        "tests/sdk/test_votequorum.py::test_two_nodes",
    ),
    "window_too_short": Mutant(
        "The window of last_man_standing is half as long as configured.",
        "exec.votequorum",
        "self.configuration.last_man_standing_window / 1000",
        "self.configuration.last_man_standing_window / 2000",
        "tests/fake/test_fake.py::test_the_window_of_last_man_standing",
    ),
    "device_has_no_vote": Mutant(
        "The quorum device's votes are not counted.",
        "exec.votes",
        "+ (self.qdevice.votes if device_votes else 0)",
        "+ (0 if device_votes else 0)",
        "tests/sdk/test_qdevice.py::test_master_wins",
    ),
    "stale_expected_votes": Mutant(
        "A node ignores a new number of expected votes.",
        "exec.votequorum",
        "                votes.expect(value)\n",
        "",
        "tests/sdk/test_votequorum.py::test_set_expected",
    ),
    "wrong_error": Mutant(
        "The error for an unknown node is INVALID_PARAM.",
        "exec.votequorum",
        'raise error_from_code(CsError.NOT_EXIST, "votequorum_getinfo"',
        'raise error_from_code(CsError.INVALID_PARAM, "votequorum_getinfo"',
        "tests/sdk/test_bad_input.py::test_errors_of_the_daemon_carry_their_code",
    ),
    "who_speaks_first": Mutant(
        "In a transition the nodes send in the order of their ids for each service.",
        "exec.totem",
        "            token_order.rotate()\n",
        "",
        "tests/sdk/test_votequorum.py::test_of_two_nodes_the_second_speaks_first",
    ),
    "quorum_before_nodes": Mutant(
        "Tracking starts with the quorum change, before the node list.",
        "exec.votequorum",
        "lambda: (self._nodelist(), self._change())",
        "lambda: (self._change(), self._nodelist())",
        "tests/sdk/test_lowlevel_votequorum.py::test_votequorum_dispatches_as_cpg_does",
    ),
}

MAPS = {
    "old_value_missing": Mutant(
        "A change of a key is reported without the old value.",
        "exec.icmap",
        "                            old=None if old is None else old.value,\n",
        "                            old=None,\n",
        "tests/sdk/test_cmap_tracking.py::test_changes_of_a_key_and_of_a_prefix",
    ),
    "no_change_is_told": Mutant(
        "Setting a key to the value that it has is reported as a change.",
        "exec.icmap",
        "        if old is not None and _same(old, new):\n            return\n",
        "",
        "tests/sdk/test_cmap_tracking.py::test_values_are_compared_bit_by_bit_to_decide_whether_they_changed",
    ),
}

MUTANTS = {**GROUPS, **QUORUM, **MAPS}
