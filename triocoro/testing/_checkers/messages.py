"""Integrity, FIFO order and self-delivery: what became of each message that was sent."""

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
class _SentMessages:
    """All messages that one address sent to one group, in order, over all of its memberships."""

    sends: list[Send] = attrs.field(factory=list[Send])
    indices: dict[bytes, list[int]] = attrs.field(factory=dict[bytes, list[int]])
    """Where each payload occurs in `sends`."""

    def add(self, send: Send) -> None:
        self.indices.setdefault(send.payload, []).append(len(self.sends))
        self.sends.append(send)

    def times_sent_before(self, payload: bytes, position: int) -> int:
        """How often the payload had been sent before that position of the history."""
        return bisect_left(self.indices.get(payload, ()), position, key=lambda index: self.sends[index].position)

    def next(self, payload: bytes, index: int) -> int | None:
        """The index of the first send of the payload after `index`."""
        indices = self.indices.get(payload, ())
        place = bisect_right(indices, index)
        return indices[place] if place < len(indices) else None


@attrs.define(eq=False)
class _Excuses:
    """Reasons why a member's own message need not be delivered to it."""

    reported_lost: Counter[bytes]
    """Losses that were reported to the client."""
    uncertain: Counter[bytes] = attrs.field(factory=Counter[bytes])
    """Deliveries that were matched with an uncertain send, and may belong to a later send of the same payload."""

    def note_delivered(self, send: Send) -> None:
        """Note that this send, or a later one of the same payload, was delivered."""
        if not send.certain:
            self.uncertain[send.payload] += 1

    def is_missing(self, send: Send) -> bool:
        """Whether the message is missing without an excuse. Each excuse is used up by one message."""
        if not send.certain:
            return False
        for excuse in (self.uncertain, self.reported_lost):
            if excuse[send.payload]:
                excuse[send.payload] -= 1
                return False
        return True


class MessageChecker:
    """Compares what members delivered with what was sent."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._sent: dict[tuple[bytes, Address], _SentMessages] = {}
        # By client, not by member: a client may have been a member several times.
        self._lost = {member.client: Counter(member.lost) for member in members}
        for member in members:
            self._sent.setdefault((member.group, member.address), _SentMessages())
        sends = [(send.position, index, send) for index, member in enumerate(members) for send in member.sends]
        for _, index, send in sorted(sends, key=lambda item: item[:2]):
            self._sent[members[index].group, members[index].address].add(send)

    def times_sent(self, group: bytes, address: Address, payload: bytes) -> int | None:
        """How often a payload was sent, certainly or not; `None` if the sender was not recorded."""
        sent = self._sent.get((group, address))
        return None if sent is None else len(sent.indices.get(payload, ()))

    def sends_before(self, group: bytes, message: Message, position: int) -> list[Send]:
        """The sends of a message that began before that position of the history."""
        sent = self._sent.get((group, message.sender))
        sends = [] if sent is None else [sent.sends[index] for index in sent.indices.get(message.payload, ())]
        return [send for send in sends if send.position < position]

    def check(self) -> Iterator[Violation]:
        """The violations of integrity, FIFO order and self-delivery."""
        for member in self._members:
            yield from self._check_received(member)
            yield from self._check_self_delivery(member)

    def _check_received(self, member: Member) -> Iterator[Violation]:
        """The violations of integrity and FIFO order in what one member received."""
        same_message: dict[tuple[Address, bytes], list[Delivery]] = {}
        # For each sender: the index of its latest send that was delivered, and the delivery.
        reached: dict[Address, tuple[int, Delivery]] = {}
        view: ConfigChange | None = None
        last_change: Delivery | None = None
        for position, delivery in zip(member.positions, member.deliveries, strict=True):
            event = delivery.event
            if isinstance(event, ConfigChange):
                view, last_change = event, delivery
            if not isinstance(event, Message):
                continue
            has_member = view is not None and any(one.nodeid == event.sender.nodeid for one in view.members)
            if last_change is None or not has_member:
                yield Violation(
                    Rule.INTEGRITY,
                    f"{member} received {show_payload(event.payload)} from {show(event.sender)},"
                    " which has no member in the group",
                    (delivery,) if last_change is None else (last_change, delivery),
                )
                continue
            sent = self._sent.get((member.group, event.sender))
            if sent is None:
                continue
            same = same_message.setdefault((event.sender, event.payload), [])
            same.append(delivery)
            violation = self._check_integrity(member, same, sent, position)
            if violation is not None:
                yield violation
                continue
            before, last = reached.get(event.sender, (-1, delivery))
            index = sent.next(event.payload, before)
            if index is None:
                yield Violation(
                    Rule.FIFO,
                    f"{member} received {show_payload(event.payload)} after {show_payload(last.event.payload)},"
                    f" but {show(event.sender)} had sent it before",
                    (sent.sends[sent.indices[event.payload][-1]].call, sent.sends[before].call, last, delivery),
                )
            else:
                reached[event.sender] = index, delivery

    @staticmethod
    def _check_integrity(
        member: Member, same: Sequence[Delivery], sent: _SentMessages, position: int
    ) -> Violation | None:
        """The violation if the last of these deliveries of one message, at that position, is one too many."""
        first, delivery, times = same[0], same[-1], len(same)
        message: Message = delivery.event
        times_sent = sent.times_sent_before(message.payload, position)
        if times <= times_sent:
            return None
        sender, payload = show(message.sender), message.payload
        if times_sent:
            text = (
                f"{member} received {show_payload(payload)} from {sender} {times} times,"
                f" which had sent it {times_sent} times"
            )
            return Violation(Rule.INTEGRITY, text, (sent.sends[sent.indices[payload][0]].call, first, delivery))
        later = sent.indices.get(payload)
        if later:
            text = f"{member} received {show_payload(payload)} before {sender} sent it"
            return Violation(Rule.INTEGRITY, text, (delivery, sent.sends[later[0]].call))
        text = f"{member} received {show_payload(payload)}, which {sender} has never sent"
        return Violation(Rule.INTEGRITY, text, (delivery,))

    def _check_self_delivery(self, member: Member) -> Iterator[Violation]:
        own = _SentMessages()
        for send in member.sends:
            own.add(send)
        excuses = _Excuses(self._lost[member.client])
        index = -1
        for delivery in member.deliveries:
            event = delivery.event
            if not isinstance(event, Message) or event.sender != member.address:
                continue
            found = own.next(event.payload, index)
            if found is not None:
                for skipped in range(index + 1, found):
                    if excuses.is_missing(own.sends[skipped]):
                        yield Violation(
                            Rule.SELF_DELIVERY,
                            f"{member} sent {show_payload(own.sends[skipped].payload)},"
                            " and received a later one of its own instead",
                            (own.sends[skipped].call, own.sends[found].call, delivery),
                        )
                index = found
                excuses.note_delivered(own.sends[found])
        if member.leave is None:
            return
        for send in filter(excuses.is_missing, own.sends[index + 1 :]):
            yield Violation(
                Rule.SELF_DELIVERY,
                f"{member} sent {show_payload(send.payload)}, and had left the group before it came back",
                (send.call, member.leave),
            )
