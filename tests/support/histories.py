"""Histories in few words: `history("a join a; a ring 4 12; a send x; a got a x")`.

Each word before a verb is a client. Of those who are in groups, the letter tells the node: a and A are on node 1, b on
node 2, and so on; those who ask about quorum have its number, such as v1 (votequorum) and q1 (quorum).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from triocoro import (
    Address,
    ConfigChange,
    ExpectedVotesChange,
    MemberChange,
    Message,
    MessageLost,
    NodelistChange,
    NodeState,
    QuorumChange,
    Reason,
    RingId,
    TotemChange,
    VotequorumChange,
    VotequorumFlag,
    VotequorumInfo,
    VotequorumNode,
    VotequorumNodelist,
)
from triocoro.testing import Call, Delivery, Entry, Failure, History, Return

_CHANGES = {
    "+": Reason.JOIN,
    "-": Reason.LEAVE,
    "!": Reason.PROCDOWN,
    "down": Reason.NODEDOWN,
    "up": Reason.NODEUP,
}
_SENDS = {"send": "multicast", "maybe": "multicast", "frag": "multicast_fragmented", "zcb": "zcb_mcast_joined"}


def history(*scripts: str) -> History:
    """The history that the scripts tell, one after the other."""
    return History(_Teller().told("; ".join(scripts)))


def _node(client: str) -> int:
    digits = re.sub(r"\D", "", client)
    return int(digits) if digits else ord(client[0].lower()) - ord("a") + 1


def _address(client: str) -> Address:
    return Address(_node(client), 100 + ord(client[0]))


def _nodes(word: str) -> tuple[int, ...]:
    return tuple(map(int, word))


class _Teller:
    def __init__(self) -> None:
        self._time = 0
        self._numbers: dict[str, int] = {}
        self._handles: dict[str, int] = {}

    def told(self, script: str) -> Iterator[Entry]:
        for line in script.split(";"):
            if words := line.split():
                yield from self._line(*words)

    def _line(self, client: str, verb: str, *words: str) -> Iterator[Entry]:
        if verb[0] in _CHANGES and len(verb) > 1:
            words = (verb[1:], *words)
            verb = verb[0]
        if verb in _CHANGES:
            yield self._event(client, _change(_CHANGES[verb], *words))
        elif verb in _SENDS:
            yield from self._send(client, verb, words)
        else:
            yield from getattr(self, f"_{verb}")(client, *words)

    def _entry(self, kind: Any, client: str, **fields: Any) -> Any:
        self._time += 1
        return kind(
            time=float(self._time), client=client, node=_node(client), handle=self._handles.get(client, 1), **fields
        )

    def _event(self, client: str, event: object) -> Delivery:
        entry: Delivery = self._entry(Delivery, client, event=event)
        return entry

    def _call(
        self, client: str, function: str, result: object = None, *, error: str = "", **arguments: Any
    ) -> Iterator[Entry]:
        self._numbers[client] = number = self._numbers.get(client, 0) + 1
        yield self._entry(Call, client, number=number, function=function, arguments=arguments)
        if error:
            yield self._entry(Failure, client, number=number, error=error)
        else:
            yield self._entry(Return, client, number=number, result=result)

    # -- groups: the members are a word of their letters, the nodes of a ring a word of their ids ----------------------

    def _connect(self, client: str, group: str = "g") -> Iterator[Entry]:
        self._handles[client] = self._handles.get(client, 0) + 1
        yield from self._call(client, "connect_cpg", _address(client), initial_totem_conf=True)
        yield from self._call(client, "join", group=group.encode())

    def _connects(self, client: str) -> Iterator[Entry]:
        """And its join is refused."""
        self._handles[client] = self._handles.get(client, 0) + 1
        yield from self._call(client, "connect_cpg", _address(client), initial_totem_conf=True)
        yield from self._call(client, "join", error="ExistError", group=b"g")

    def _join(self, client: str, members: str, group: str = "g") -> Iterator[Entry]:
        yield from self._connect(client, group)
        yield self._event(client, _change(Reason.JOIN, client, members))

    def _ring(self, client: str, seq: str, nodes: str, representative: str = "") -> Iterator[Entry]:
        members = _nodes(nodes)
        yield self._event(client, TotemChange(RingId(int(representative or members[0]), int(seq)), members))

    def _send(self, client: str, verb: str, words: tuple[str, ...]) -> Iterator[Entry]:
        payloads = tuple(word.encode() for word in words)
        arguments: dict[str, Any] = {"payloads": payloads} if _SENDS[verb] == "multicast" else {"payload": payloads[0]}
        yield from self._call(client, _SENDS[verb], error="LibraryError" if verb == "maybe" else "", **arguments)

    def _got(self, client: str, sender: str, *payloads: str) -> Iterator[Entry]:
        for payload in payloads:
            yield self._event(client, Message(_address(sender), payload.encode()))

    def _lost(self, client: str, payload: str) -> Iterator[Entry]:
        self._time += 1
        event = MessageLost(payload.encode())
        yield Delivery(time=float(self._time), client=client, node=_node(client), handle=0, event=event)

    def _leave(self, client: str) -> Iterator[Entry]:
        yield from self._call(client, "leave", group=b"g")

    # -- quorum --------------------------------------------------------------------------------------------------------

    def _nodes(self, client: str, seq: str, nodes: str) -> Iterator[Entry]:
        members = _nodes(nodes)
        yield self._event(client, VotequorumNodelist(RingId(members[0], int(seq)), members))

    def _yes(self, client: str, members: str, *gone: str) -> Iterator[Entry]:
        yield self._event(client, _decision(members, *gone, quorate=True))

    def _no(self, client: str, members: str, *gone: str) -> Iterator[Entry]:
        yield self._event(client, _decision(members, *gone, quorate=False))

    def _quorum(self, client: str, answer: str, seq: str, nodes: str) -> Iterator[Entry]:
        members = _nodes(nodes)
        yield self._event(client, QuorumChange(answer == "yes", RingId(members[0], int(seq)), members))

    def _track(self, client: str) -> Iterator[Entry]:
        yield from self._call(client, "trackstart", flags=2)

    def _list(self, client: str, seq: str, nodes: str) -> Iterator[Entry]:
        members = _nodes(nodes)
        yield self._event(client, NodelistChange(RingId(members[0], int(seq)), members, (), ()))

    def _quorate(self, client: str, answer: str) -> Iterator[Entry]:
        yield from self._call(client, "is_quorate", answer == "yes")

    def _expected(self, client: str, votes: str) -> Iterator[Entry]:
        yield self._event(client, ExpectedVotesChange(int(votes)))

    def _expect(self, client: str, votes: str) -> Iterator[Entry]:
        yield from self._call(client, "set_expected", expected_votes=int(votes))

    def _vote(self, client: str, nodeid: str, votes: str) -> Iterator[Entry]:
        yield from self._call(client, "set_votes", nodeid=int(nodeid), votes=int(votes))

    def _refused(self, client: str, nodeid: str, votes: str) -> Iterator[Entry]:
        arguments = {"nodeid": int(nodeid), "votes": int(votes)}
        yield from self._call(client, "set_votes", error="InvalidParamError", **arguments)

    def _wins(self, client: str) -> Iterator[Entry]:
        yield from self._call(client, "qdevice_master_wins", name="device", allow=True)

    def _set(self, client: str, key: str) -> Iterator[Entry]:
        yield from self._call(client, "set", key=key, value=1)

    def _info(self, client: str, answer: str, total: str, quorum: str, expected: str, *flags: str) -> Iterator[Entry]:
        flag = VotequorumFlag.QUORATE if answer == "yes" else VotequorumFlag(0)
        for name in flags:
            flag |= VotequorumFlag[name]
        info = VotequorumInfo(
            nodeid=_node(client),
            state=NodeState.MEMBER,
            votes=1,
            expected_votes=int(expected),
            highest_expected=int(expected),
            total_votes=int(total),
            quorum=int(quorum),
            flags=flag,
            qdevice_votes=0,
            qdevice_name="",
        )
        yield from self._call(client, "info", info, nodeid=0)


def _change(reason: Reason, who: str, members: str = "") -> ConfigChange:
    changes = tuple(MemberChange(_address(client), reason) for client in who)
    came = reason in {Reason.JOIN, Reason.NODEUP}
    return ConfigChange(
        members=tuple(sorted(map(_address, members))),
        joined=changes if came else (),
        left=() if came else changes,
    )


def _decision(members: str, *gone: str, quorate: bool) -> VotequorumChange:
    nodes = [VotequorumNode(nodeid, NodeState.MEMBER) for nodeid in _nodes(members)]
    nodes += [VotequorumNode(nodeid, NodeState.DEAD) for word in gone for nodeid in _nodes(word)]
    return VotequorumChange(quorate, tuple(nodes))
