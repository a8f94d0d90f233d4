"""Mutants that the checkers find in a recorded chaos run, each by the rule that it names."""

from __future__ import annotations

from triocoro.testing import Rule

from .mutant import Mutant

MESSAGES = {
    "corruption": Mutant(
        "Node 3 truncates the messages that it delivers.",
        "exec.cpg",
        "                self._deliver_to_clients(group, address, make_messages(repeat(address), payloads))\n",
        "                payloads = [payload[:9] if self.daemon.nodeid == 3 else payload for payload in payloads]\n"
        "                self._deliver_to_clients(group, address, make_messages(repeat(address), payloads))\n",
        Rule.INTEGRITY,
    ),
    "wrong_sender": Mutant(
        "The sender of every message appears to be on the receiver's own node.",
        "exec.cpg",
        "self._deliver_to_clients(group, address, make_messages(repeat(address), payloads))",
        "self._deliver_to_clients(group, address, make_messages(repeat(Address(self.daemon.nodeid, pid)), payloads))",
        Rule.INTEGRITY,
    ),
    "wrong_group": Mutant(
        "Messages of a group are delivered to the members of all groups.",
        "exec.cpg",
        "receivers = [client for client in self._clients if client.is_in(group)]",
        "receivers = [client for client in self._clients if client.is_in(client.group)]",
        Rule.INTEGRITY,
    ),
    "message_twice": Mutant(
        "Node 3 delivers the messages of node 1 twice.",
        "exec.cpg",
        "        for client in receivers:\n",
        "        for client in receivers * (2 if (nodeid, self.daemon.nodeid) == (1, 3) else 1):\n",
        Rule.INTEGRITY,
    ),
    "messages_swapped": Mutant(
        "Node 3 sorts the messages that wait for a client by sender.",
        "lib.handle",
        "        connection.acknowledge(len(records))\n",
        "        connection.acknowledge(len(records))\n"
        "        if connection.daemon.nodeid == 3 and all(hasattr(event, 'sender') for event in events):\n"
        "            events.sort(key=lambda event: event.sender)\n",
        Rule.TOTAL_ORDER,
    ),
    "message_lost_to_one": Mutant(
        "Node 3 drops one in ten of the messages of node 1.",
        "exec.cpg",
        "        sizes = [len(record.payload) for record in records]\n",
        "        if (nodeid, self.daemon.nodeid) == (1, 3):\n"
        "            records = [record for record in records if not record.payload.endswith(b'7')]\n"
        "        sizes = [len(record.payload) for record in records]\n",
        Rule.TOTAL_ORDER,
    ),
    "self_delivery_missing": Mutant(
        "Node 3 does not deliver one in ten of its own messages.",
        "exec.cpg",
        "        sizes = [len(record.payload) for record in records]\n",
        "        if nodeid == self.daemon.nodeid == 3:\n"
        "            records = [record for record in records if not record.payload.endswith(b'7')]\n"
        "        sizes = [len(record.payload) for record in records]\n",
        Rule.TOTAL_ORDER,
    ),
    "fifo_broken": Mutant(
        "A daemon that thaws runs its queued requests in reverse order.",
        "exec.daemon",
        "        for index, (job, during_sync) in enumerate(self._jobs):\n",
        "        for index, (job, during_sync) in reversed(list(enumerate(self._jobs))):\n",
        Rule.FIFO,
    ),
    "across_views": Mutant(
        "Node 3 delivers each message of another node only when the next one arrives, perhaps in another ring.",
        "exec.cpg",
        "        receivers = [client for client in self._clients if client.is_in(group)]\n",
        "        if sender.nodeid != self.daemon.nodeid == 3:\n"
        "            late = vars(self).setdefault('late', {})\n"
        "            late[group], records = records, late.get(group)\n"
        "            if records is None:\n"
        "                return\n"
        "        receivers = [client for client in self._clients if client.is_in(group)]\n",
        Rule.VIRTUAL_SYNCHRONY,
    ),
}

_SLOW = {"nodes": 3, "latency": 0.01, "jitter": 0.02}
"""A cluster in which messages are in transit for a time."""

IN_TRANSIT = {
    "own_ones_first": Mutant(
        "A node delivers its own messages at once, before those that are in transit ahead of them.",
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
        "Messages in transit when a ring breaks are delivered in the next ring.",
        "exec.totem",
        "            self._transit.recover([nodeid for nodeid in members if nodeid in nodeids])\n",
        "            pass\n",
        Rule.VIRTUAL_SYNCHRONY,
        _SLOW,
    ),
    "nothing_is_shared": Mutant(
        "When a ring breaks, each node delivers only what it has itself, not what nodes that go on with it have.",
        "exec.totem",
        "            self._transit.recover([nodeid for nodeid in members if nodeid in nodeids])\n",
        "            for nodeid in members:\n                self._transit.recover([nodeid])\n",
        Rule.VIRTUAL_SYNCHRONY,
        _SLOW,
    ),
    "one_forgets": Mutant(
        "When a ring breaks, the last node drops the messages in transit to it.",
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
        "Clients of node 2 are not told of the members that left with a node.",
        "exec.cpg",
        "        for group, addresses in _by_group(gone):\n",
        "        for group, addresses in () if self.daemon.nodeid == 2 else _by_group(gone):\n",
        Rule.VIEW_AGREEMENT,
    ),
    "change_twice": Mutant(
        "The members that come with a node are reported twice.",
        "exec.cpg",
        "        for group, addresses in _by_group(added):\n",
        "        for group, addresses in _by_group(added) * 2:\n",
        Rule.VIEW_AGREEMENT,
    ),
    "join_before_members": Mutant(
        "A join is reported with the old list of members.",
        "exec.cpg",
        "                if self._add(process):\n"
        "                    self._config_change(group, joined=[MemberChange(process.address, Reason.JOIN)])\n",
        "                if process not in self._processes:\n"
        "                    self._config_change(group, joined=[MemberChange(process.address, Reason.JOIN)])\n"
        "                    self._add(process)\n",
        Rule.VIEW_AGREEMENT,
    ),
    "leaver_stays": Mutant(
        "A leave is reported with the leaver still in the list of members.",
        "exec.cpg",
        "for address in self.membership(group) if address not in gone)",
        "for address in self.membership(group))",
        Rule.VIEW_AGREEMENT,
    ),
    "totem_change_first": Mutant(
        "The totem change comes before the configuration changes that belong to it.",
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
        "One client of each node gets no totem changes.",
        "exec.cpg",
        "        for client in self._clients:\n            self._totem_change(client)\n",
        "        for client in self._clients[1:]:\n            self._totem_change(client)\n",
        Rule.VIEW_AGREEMENT,
    ),
    "totem_change_of_old": Mutant(
        "The totem change has the id of the new ring with the nodes of the old one.",
        "exec.cpg",
        "        self._old_members = self._members\n        self._report_left()\n",
        "        self._report_left()\n",
        Rule.VIEW_AGREEMENT,
    ),
    "ring_goes_backwards": Mutant(
        "The seq of a new ring is based on the lowest one that its members have seen.",
        "exec.totem",
        "        seq = max(self._seqs[nodeid] for nodeid in members) + SEQ_STEP\n",
        "        seq = min(self._seqs[nodeid] for nodeid in members) + SEQ_STEP\n",
        Rule.VIEW_AGREEMENT,
    ),
    "one_id_for_two_rings": Mutant(
        "A ring keeps its id when it forms anew.",
        "exec.totem",
        "        ring = Ring(RingId(members[0], seq), members)\n",
        "        ring = Ring(RingId(members[0], SEQ_STEP), members)\n",
        Rule.VIEW_AGREEMENT,
    ),
    "no_ring_for_quorum": Mutant(
        "votequorum never adopts the id of a new ring.",
        "exec.votequorum",
        "        left = votes.enter_ring(members)\n        self.ring_id = ring_id\n",
        "        left = votes.enter_ring(members)\n",
        Rule.VIEW_AGREEMENT,
    ),
}

QUORUM = {
    "quorum_off_by_one": Mutant(
        "Half of the votes are enough for quorum.",
        "exec.votes",
        "max((votes + 2) % _MODULUS // 2 for votes in",
        "max((votes + 1) % _MODULUS // 2 for votes in",
        Rule.QUORUM,
        {"nodes": 4},
    ),
    "more_than_quorum": Mutant(
        "Quorum needs one vote more than it should.",
        "exec.votes",
        "        enough = self.quorum <= total\n",
        "        enough = self.quorum < total\n",
        Rule.QUORUM,
    ),
    "quorum_is_never_lost": Mutant(
        "A node that was quorate once stays quorate.",
        "exec.votes",
        "        self.quorate = enough or ",
        "        self.quorate = self.quorate or enough or ",
        Rule.QUORUM,
    ),
    "dead_votes_count": Mutant(
        "The votes of nodes that have left are counted.",
        "exec.votes",
        "sum(node.votes for node in self.members())",
        "sum(node.votes for node in self.nodes)",
        Rule.QUORUM,
    ),
    "news_of_yesterday": Mutant(
        "The quorum service reports votequorum's previous decision.",
        "exec.quorum",
        "        self._change = QuorumChange(quorate, ring_id, members)\n",
        "        self._change = QuorumChange(self._change.quorate, ring_id, members)\n",
        Rule.QUORUM,
    ),
    "wrong_half": Mutant(
        "auto_tie_breaker makes the half without the lowest node quorate.",
        "exec.votes",
        "            return self.lowest_is_member()\n",
        "            return not self.lowest_is_member()\n",
        Rule.QUORUM,
        {"nodes": 4, "auto_tie_breaker": True},
    ),
}

MUTANTS = {**MESSAGES, **IN_TRANSIT, **VIEWS, **QUORUM}
