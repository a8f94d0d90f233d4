"""Integrity, FIFO, and self-delivery: what became of each message that was sent."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence

import attrs

from ..._types import Address, ConfigChange, Message, show_payload
from .._history.entries import Delivery
from .members import Member, Send, show
from .violation import Rule, Violation


@attrs.define(eq=False)
class _Sender:
    """All that one address has sent to one group, in its order; a process may have been a member repeatedly."""

    sends: list[Send] = attrs.field(factory=list[Send])
    indices: dict[bytes, list[int]] = attrs.field(factory=dict[bytes, list[int]])
    """Where each payload is among them."""

    def add(self, send: Send) -> None:
        self.indices.setdefault(send.payload, []).append(len(self.sends))
        self.sends.append(send)

    def sent_before(self, payload: bytes, position: int) -> int:
        """How often it had been sent when the history came to that position."""
        return bisect_left(self.indices.get(payload, ()), position, key=lambda index: self.sends[index].position)

    def next(self, payload: bytes, index: int) -> int | None:
        """The first one of that payload behind an index."""
        indices = self.indices.get(payload, ())
        at = bisect_right(indices, index)
        return indices[at] if at < len(indices) else None


@attrs.define(eq=False)
class _Excuses:
    """Why something that a member sent need not come back to it."""

    lost: Counter[bytes]
    """What the client was told that it lost."""
    others: Counter[bytes] = attrs.field(factory=Counter[bytes])
    """What may have come back as an earlier one of the same payload, of which it is not known that it was sent."""

    def came_back(self, send: Send) -> None:
        """That one did, or a later one of the same payload."""
        if not send.certain:
            self.others[send.payload] += 1

    def fail(self, send: Send) -> bool:
        """Whether that one is missing without an excuse. Each counts once."""
        if not send.certain:
            return False
        for excuse in (self.others, self.lost):
            if excuse[send.payload]:
                excuse[send.payload] -= 1
                return False
        return True


class Messages:
    """Checks what members delivered against what was sent."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._senders: dict[tuple[bytes, Address], _Sender] = {}
        # Of each client, who may have been a member several times: what it was told that it lost.
        self._lost = {member.client: Counter(member.lost) for member in members}
        for member in members:
            self._senders.setdefault((member.group, member.address), _Sender())
        everything = [(send.position, index, send) for index, member in enumerate(members) for send in member.sends]
        for _, index, send in sorted(everything, key=lambda item: item[:2]):
            self._senders[members[index].group, members[index].address].add(send)

    def times_sent(self, group: bytes, address: Address, payload: bytes) -> int | None:
        """How often it was sent, for all that is known; `None` if the history does not tell of that sender."""
        sender = self._senders.get((group, address))
        return None if sender is None else len(sender.indices.get(payload, ()))

    def violations(self) -> Iterator[Violation]:
        """What is wrong."""
        for member in self._members:
            yield from self._receiver(member)
            yield from self._self_delivery(member)

    def _receiver(self, member: Member) -> Iterator[Violation]:
        deliveries: dict[tuple[Address, bytes], list[Delivery]] = {}
        # Of each sender: how far we are in what it has sent, and the event that took us there.
        reached: dict[Address, tuple[int, Delivery]] = {}
        view: ConfigChange | None = None
        viewed: Delivery | None = None
        for position, event in zip(member.positions, member.events, strict=True):
            what = event.event
            if isinstance(what, ConfigChange):
                view, viewed = what, event
            if not isinstance(what, Message):
                continue
            if view is None or viewed is None or not any(one.nodeid == what.sender.nodeid for one in view.members):
                yield Violation(
                    Rule.INTEGRITY,
                    f"{member} received {show_payload(what.payload)} from {show(what.sender)},"
                    " which has no member in the group",
                    (event,) if viewed is None else (viewed, event),
                )
                continue
            sender = self._senders.get((member.group, what.sender))
            if sender is None:
                continue
            same = deliveries.setdefault((what.sender, what.payload), [])
            same.append(event)
            wrong = self._integrity(member, same, sender, position)
            if wrong is not None:
                yield wrong
                continue
            before, last = reached.get(what.sender, (-1, event))
            index = sender.next(what.payload, before)
            if index is None:
                yield Violation(
                    Rule.FIFO,
                    f"{member} received {show_payload(what.payload)} after {show_payload(last.event.payload)},"
                    f" but {show(what.sender)} had sent it before",
                    (sender.sends[sender.indices[what.payload][-1]].call, sender.sends[before].call, last, event),
                )
            else:
                reached[what.sender] = index, event

    @staticmethod
    def _integrity(member: Member, same: Sequence[Delivery], sender: _Sender, position: int) -> Violation | None:
        """The violation if the last one of these deliveries of one payload, at that position, is one too many."""
        first, event, times = same[0], same[-1], len(same)
        what: Message = event.event
        sent = sender.sent_before(what.payload, position)
        if times <= sent:
            return None
        who, payload = show(what.sender), what.payload
        if sent:
            text = f"{member} received {show_payload(payload)} from {who} {times} times, which had sent it {sent} times"
            return Violation(Rule.INTEGRITY, text, (sender.sends[sender.indices[payload][0]].call, first, event))
        later = sender.indices.get(payload)
        if later:
            text = f"{member} received {show_payload(payload)} before {who} sent it"
            return Violation(Rule.INTEGRITY, text, (event, sender.sends[later[0]].call))
        text = f"{member} received {show_payload(payload)}, which {who} has never sent"
        return Violation(Rule.INTEGRITY, text, (event,))

    def _self_delivery(self, member: Member) -> Iterator[Violation]:
        own = _Sender()
        for send in member.sends:
            own.add(send)
        excuses = _Excuses(self._lost[member.client])
        index = -1
        for event in member.events:
            what = event.event
            if not isinstance(what, Message) or what.sender != member.address:
                continue
            found = own.next(what.payload, index)
            if found is not None:
                for lost in range(index + 1, found):
                    if excuses.fail(own.sends[lost]):
                        yield Violation(
                            Rule.SELF_DELIVERY,
                            f"{member} sent {show_payload(own.sends[lost].payload)},"
                            " and received a later one of its own instead",
                            (own.sends[lost].call, own.sends[found].call, event),
                        )
                index = found
                excuses.came_back(own.sends[found])
        if member.leave is None:
            return
        for send in filter(excuses.fail, own.sends[index + 1 :]):
            yield Violation(
                Rule.SELF_DELIVERY,
                f"{member} sent {show_payload(send.payload)}, and had left the group before it came back",
                (send.call, member.leave),
            )
