"""Mutants that the checkers find in a recording of chaos, each by one rule at least."""

from __future__ import annotations

from triocoro.testing import Rule

from .mutant import Mutant

MESSAGES = {
    "corruption": Mutant(
        "Node 3 cuts off the end of what it delivers.",
        "exec.cpg",
        "                self._deliver_to_clients(group, Message(Address(sender, pid), payload))\n",
        "                payload = payload[:9] if self.daemon.nodeid == 3 else payload\n"
        "                self._deliver_to_clients(group, Message(Address(sender, pid), payload))\n",
        Rule.INTEGRITY,
    ),
    "wrong_sender": Mutant(
        "Whoever receives a message is told that it comes from its own node.",
        "exec.cpg",
        "self._deliver_to_clients(group, Message(Address(sender, pid), payload))",
        "self._deliver_to_clients(group, Message(Address(self.daemon.nodeid, pid), payload))",
        Rule.INTEGRITY,
    ),
    "wrong_group": Mutant(
        "Messages of a group go to the members of all groups.",
        "exec.cpg",
        "receivers = [client for client in self._clients if client.is_in(group)]",
        "receivers = [client for client in self._clients if client.is_in(client.group)]",
        Rule.INTEGRITY,
    ),
    "message_twice": Mutant(
        "Node 3 delivers what comes from node 1 twice.",
        "exec.cpg",
        "        for client in receivers:\n",
        "        for client in receivers * (2 if (nodeid, self.daemon.nodeid) == (1, 3) else 1):\n",
        Rule.INTEGRITY,
    ),
    "messages_swapped": Mutant(
        "Node 3 hands out what waits for a client by its senders, and not as it came.",
        "lib.handle",
        "        connection.acknowledge(taken)\n",
        "        connection.acknowledge(taken)\n"
        "        if connection.daemon.nodeid == 3 and all(hasattr(event, 'sender') for event in events):\n"
        "            events.sort(key=lambda event: event.sender)\n",
        Rule.TOTAL_ORDER,
    ),
    "message_lost_to_one": Mutant(
        "Node 3 misses one message in ten of those that node 1 sends.",
        "exec.cpg",
        "        for client in receivers:\n",
        "        lost = (nodeid, self.daemon.nodeid) == (1, 3) and record.payload.endswith(b'7')\n"
        "        for client in () if lost else receivers:\n",
        Rule.TOTAL_ORDER,
    ),
    "self_delivery_missing": Mutant(
        "Node 3 does not deliver one in ten of its own messages.",
        "exec.cpg",
        "        for client in receivers:\n",
        "        lost = nodeid == self.daemon.nodeid == 3 and record.payload.endswith(b'7')\n"
        "        for client in () if lost else receivers:\n",
        Rule.TOTAL_ORDER,
    ),
    "fifo_broken": Mutant(
        "A daemon that thaws does what was asked of it in the opposite order.",
        "exec.daemon",
        "        for index, (job, during_sync) in enumerate(self._jobs):\n",
        "        for index, (job, during_sync) in reversed(list(enumerate(self._jobs))):\n",
        Rule.FIFO,
    ),
    "across_views": Mutant(
        "Node 3 delivers each message of another node when the next one comes, be that in another ring.",
        "exec.cpg",
        "        receivers = [client for client in self._clients if client.is_in(group)]\n",
        "        if record.sender.nodeid != self.daemon.nodeid == 3:\n"
        "            late = vars(self).setdefault('late', {})\n"
        "            late[group], record = record, late.get(group)\n"
        "            if record is None:\n"
        "                return\n"
        "        receivers = [client for client in self._clients if client.is_in(group)]\n",
        Rule.VIRTUAL_SYNCHRONY,
    ),
}

_SLOW = {"nodes": 3, "latency": 0.01, "jitter": 0.02}
"""A cluster in which messages are on their way for some time."""

IN_TRANSIT = {
    "own_ones_first": Mutant(
        "A node delivers its own messages at once, whatever is on its way before them.",
        "exec.transit",
        "            self._inbox(nodeid).append(_Packet(self._numbers, now + delay, multicast))\n",
        "            if nodeid == multicast.sender:\n"
        "                self._inbox(nodeid).appendleft(_Packet(self._numbers, now, multicast))\n"
        "            else:\n"
        "                self._inbox(nodeid).append(_Packet(self._numbers, now + delay, multicast))\n",
        Rule.TOTAL_ORDER,
        _SLOW,
    ),
    "into_the_next_view": Mutant(
        "What is on its way when a ring breaks comes in the next one.",
        "exec.totem",
        "            self._transit.recover([nodeid for nodeid in members if nodeid in nodeids])\n",
        "            pass\n",
        Rule.VIRTUAL_SYNCHRONY,
        _SLOW,
    ),
    "nothing_is_shared": Mutant(
        "When a ring breaks, each node delivers what it has itself, and not what others have who go on with it.",
        "exec.totem",
        "            self._transit.recover([nodeid for nodeid in members if nodeid in nodeids])\n",
        "            for nodeid in members:\n                self._transit.recover([nodeid])\n",
        Rule.VIRTUAL_SYNCHRONY,
        _SLOW,
    ),
    "one_forgets": Mutant(
        "When a ring breaks, the last node forgets what was on its way to it.",
        "exec.totem",
        "            self._transit.recover([nodeid for nodeid in members if nodeid in nodeids])\n",
        "            self._transit.forget(members[-1])\n"
        "            self._transit.recover([nodeid for nodeid in members if nodeid in nodeids])\n",
        Rule.VIRTUAL_SYNCHRONY,
        _SLOW,
    ),
}

VIEWS = {
    "change_lost": Mutant(
        "Clients of node 2 are not told who went with a node.",
        "exec.cpg",
        "        for group, addresses in _by_group(gone):\n",
        "        for group, addresses in () if self.daemon.nodeid == 2 else _by_group(gone):\n",
        Rule.VIEW_AGREEMENT,
    ),
    "change_twice": Mutant(
        "Who comes with a node is told of twice.",
        "exec.cpg",
        "        for group, addresses in _by_group(added):\n",
        "        for group, addresses in _by_group(added) * 2:\n",
        Rule.VIEW_AGREEMENT,
    ),
    "join_before_members": Mutant(
        "A join is told of with the members of before.",
        "exec.cpg",
        "                if self._add(process):\n"
        "                    self._config_change(group, joined=[MemberChange(process.address, Reason.JOIN)])\n",
        "                if process not in self._processes:\n"
        "                    self._config_change(group, joined=[MemberChange(process.address, Reason.JOIN)])\n"
        "                    self._add(process)\n",
        Rule.VIEW_AGREEMENT,
    ),
    "leaver_stays": Mutant(
        "Whoever leaves is still among the members that are told with that.",
        "exec.cpg",
        "for address in self.membership(group) if address not in gone)",
        "for address in self.membership(group))",
        Rule.VIEW_AGREEMENT,
    ),
    "totem_change_first": Mutant(
        "The totem change comes before the configuration changes that it closes.",
        "exec.cpg",
        "        self._report_left()\n"
        "        self._report_joined()\n"
        "        self._join_lists.clear()\n"
        "        for client in self._clients:\n"
        "            self._totem_change(client)\n",
        "        for client in self._clients:\n"
        "            self._totem_change(client)\n"
        "        self._report_left()\n"
        "        self._report_joined()\n"
        "        self._join_lists.clear()\n",
        Rule.VIEW_AGREEMENT,
    ),
    "totem_change_lost": Mutant(
        "One client of each node is not told of new rings.",
        "exec.cpg",
        "        for client in self._clients:\n            self._totem_change(client)\n",
        "        for client in self._clients[1:]:\n            self._totem_change(client)\n",
        Rule.VIEW_AGREEMENT,
    ),
    "totem_change_of_old": Mutant(
        "The totem change has the new ring's id with the nodes of the old one.",
        "exec.cpg",
        "        self._old_members = self._members\n        self._report_left()\n",
        "        self._report_left()\n",
        Rule.VIEW_AGREEMENT,
    ),
    "ring_goes_backwards": Mutant(
        "A new ring's number follows the lowest one that its nodes have seen.",
        "exec.totem",
        "        seq = max(self._seqs[nodeid] for nodeid in members) + SEQ_STEP\n",
        "        seq = min(self._seqs[nodeid] for nodeid in members) + SEQ_STEP\n",
        Rule.VIEW_AGREEMENT,
    ),
    "one_id_for_two_rings": Mutant(
        "A ring's id does not change when it forms anew.",
        "exec.totem",
        "        ring = Ring(RingId(members[0], seq), members)\n",
        "        ring = Ring(RingId(members[0], SEQ_STEP), members)\n",
        Rule.VIEW_AGREEMENT,
    ),
    "no_ring_for_quorum": Mutant(
        "votequorum gives its clients the nodes of the ring before.",
        "exec.votequorum",
        "        left = votes.enter_ring(members)\n        self.ring_id = ring_id\n",
        "        left = votes.enter_ring(members)\n",
        Rule.VIEW_AGREEMENT,
    ),
}

QUORUM = {
    "quorum_off_by_one": Mutant(
        "Half of the votes are enough.",
        "exec.votes",
        "max((votes + 2) % _MODULUS // 2 for votes in",
        "max((votes + 1) % _MODULUS // 2 for votes in",
        Rule.QUORUM,
        {"nodes": 4},
    ),
    "more_than_quorum": Mutant(
        "One needs more votes than quorum says.",
        "exec.votes",
        "        enough = self.quorum <= total\n",
        "        enough = self.quorum < total\n",
        Rule.QUORUM,
    ),
    "quorum_is_never_lost": Mutant(
        "Whoever was quorate once stays so.",
        "exec.votes",
        "        self.quorate = enough or ",
        "        self.quorate = self.quorate or enough or ",
        Rule.QUORUM,
    ),
    "dead_votes_count": Mutant(
        "Nodes that are gone have votes.",
        "exec.votes",
        "sum(node.votes for node in self.members())",
        "sum(node.votes for node in self.nodes)",
        Rule.QUORUM,
    ),
    "news_of_yesterday": Mutant(
        "The quorum service tells what votequorum has decided before.",
        "exec.quorum",
        "        self._change = QuorumChange(quorate, ring_id, members)\n",
        "        self._change = QuorumChange(self._change.quorate, ring_id, members)\n",
        Rule.QUORUM,
    ),
    "wrong_half": Mutant(
        "auto_tie_breaker lets the half go on in which the lowest node is not.",
        "exec.votes",
        "            return self.lowest_is_member()\n",
        "            return not self.lowest_is_member()\n",
        Rule.QUORUM,
        {"nodes": 4, "auto_tie_breaker": True},
    ),
}

MUTANTS = {**MESSAGES, **IN_TRANSIT, **VIEWS, **QUORUM}
