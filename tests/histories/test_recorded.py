"""The checkers on recordings: no false alarm, and an alarm if a recording is forged."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
from support.chaos import chaos
from support.fixtures.figures import Bound, Figure

from triocoro import (
    Address,
    ConfigChange,
    Message,
    QuorumChange,
    Reason,
    RingId,
    TotemChange,
    VotequorumChange,
    VotequorumInfo,
)
from triocoro.testing import Cluster, Delivery, Entry, Fault, History, Return, Rule, check

_PLACES = 12
"""The number of places at which a recording is forged, one at a time."""

_recordings: dict[str, History] = {}
"""One recording for each mode, as recording a real cluster takes long."""

Forge: TypeAlias = Callable[[Sequence[Entry], int], "list[Entry] | None"]
"""Returns a copy of the entries that is forged at an index; `None` if there is nothing to forge there."""


@attrs.frozen
class Forgery:
    """One way to forge a recording."""

    forge: Forge
    rules: set[Rule]
    """The rules that may find it."""
    least: float = 1
    """The share of all places at which they must find it."""


async def recording(cluster: Cluster, mode: str) -> History:
    if mode not in _recordings:
        _recordings[mode] = await chaos(cluster)
    return _recordings[mode]


async def test_there_is_no_false_alarm(
    corosync_cluster: Cluster, corosync_mode: str, figure: Figure, bound: Bound
) -> None:
    began = time.perf_counter()
    history = await recording(corosync_cluster, corosync_mode)
    figure("chaos took", f"{time.perf_counter() - began:.1f} s")
    began = time.process_time()
    violations = check(history, options=corosync_cluster.options)
    each = (time.process_time() - began) / len(history)
    bound("10,000 entries of a history are checked: seconds of CPU", each * 10_000, 1.0)
    assert list(map(str, violations)) == []
    # Make sure that the recording is eventful.
    verbs = {entry.verb for entry in history if isinstance(entry, Fault)}
    assert verbs == {"partition", "heal", "kill", "start", "freeze", "thaw", "stop", "isolate", "restart"}
    events = [entry.event for entry in history if isinstance(entry, Delivery)]
    assert Counter(map(type, events))[Message] > 100
    # LEAVE is not required: a member may stay until the end.
    reasons = {
        one.reason for change in events if isinstance(change, ConfigChange) for one in change.joined + change.left
    }
    assert reasons >= {Reason.JOIN, Reason.NODEDOWN, Reason.NODEUP}
    assert {change.quorate for change in events if isinstance(change, VotequorumChange)} == {False, True}
    assert len({change.ring_id for change in events if isinstance(change, TotemChange)}) >= 6


# -- forgeries ---------------------------------------------------------------------------------------------------------


def event_changed(kind: type[Any], change: Callable[[Any], object]) -> Forge:
    """Change an event of that type; there is nothing to forge where `change` returns `None`."""

    def forge(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        entry = entries[index]
        if not isinstance(entry, Delivery) or not isinstance(entry.event, kind):
            return None
        forged = change(entry.event)
        return None if forged is None else [*entries[:index], attrs.evolve(entry, event=forged), *entries[index + 1 :]]

    return forge


def result_changed(kind: type[Any], change: Callable[[Any], object]) -> Forge:
    """Change the result of a call."""

    def forge(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        entry = entries[index]
        if not isinstance(entry, Return) or not isinstance(entry.result, kind) or entry.waiting:
            return None
        return [*entries[:index], attrs.evolve(entry, result=change(entry.result)), *entries[index + 1 :]]

    return forge


def repeated(number: int, kind: type[Any]) -> Forge:
    """Deliver an event `number` times instead of once."""

    def forge(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        entry = entries[index]
        if not isinstance(entry, Delivery) or not isinstance(entry.event, kind):
            return None
        return [*entries[:index], *[entry] * number, *entries[index + 1 :]]

    return forge


def neighbour(entries: Sequence[Entry], index: int, step: int) -> int | None:
    """The index of the same handle's delivery before (step -1) or after (step 1) an index."""
    entry = entries[index]
    other = index + step
    while isinstance(entry, Delivery) and 0 <= other < len(entries):
        found = entries[other]
        if isinstance(found, Delivery) and (found.client, found.handle) == (entry.client, entry.handle):
            return other
        other += step
    return None


def swapped(entries: Sequence[Entry], index: int) -> list[Entry] | None:
    """Swap two messages that follow each other."""
    here = entries[index]
    other = neighbour(entries, index, 1) if isinstance(here, Delivery) and isinstance(here.event, Message) else None
    if other is None or not isinstance(here, Delivery):
        return None
    there = entries[other]
    if not isinstance(there, Delivery) or not isinstance(there.event, Message):
        return None
    forged = list(entries)
    forged[index], forged[other] = attrs.evolve(here, event=there.event), attrs.evolve(there, event=here.event)
    return forged


def not_at_the_ends(forge: Forge) -> Forge:
    """Forge only where the same handle has deliveries before and after: not its first or last one."""

    def inner(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        forged = forge(entries, index)
        has_neighbours = forged and None not in {neighbour(entries, index, step) for step in (-1, 1)}
        return forged if has_neighbours else None

    return inner


def closing_a_transition(forge: Forge) -> Forge:
    """Forge only where the event closes a transition, and not the report of the ring that a member joins in."""

    def inner(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        forged = forge(entries, index)
        before = neighbour(entries, index, -1) if forged else None
        change = None if before is None else entries[before]
        if not isinstance(change, Delivery) or not isinstance(change.event, ConfigChange):
            return None
        reasons = {one.reason for one in change.event.joined + change.event.left}
        return forged if reasons & {Reason.NODEDOWN, Reason.NODEUP} else None

    return inner


def with_other_reports(forge: Forge) -> Forge:
    """Forge only where other CPG handles of the node report the ring, and this one reports an older and a newer one."""

    def inner(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        forged = forge(entries, index)
        here = entries[index]
        if forged is None or not isinstance(here, Delivery):
            return None
        rings = [
            (place, entry)
            for place, entry in enumerate(entries)
            if isinstance(entry, Delivery) and entry.node == here.node and isinstance(entry.event, TotemChange)
        ]
        own = [place for place, entry in rings if (entry.client, entry.handle) == (here.client, here.handle)]
        others = [place for place, entry in rings if entry.event.ring_id == here.event.ring_id and place != index]
        return forged if any(own[0] < place < own[-1] for place in others) and own[0] < index < own[-1] else None

    return inner


def before_leaving(forge: Forge) -> Forge:
    """Forge only where the handle has not left: what it is still told of its group after that is under no rule."""

    def inner(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        here = entries[index]
        if not isinstance(here, Delivery) or (forged := forge(entries, index)) is None:
            return None
        address = next(
            entry.result
            for entry in entries
            if isinstance(entry, Return) and (entry.client, entry.handle) == (here.client, here.handle)
        )
        changes = (
            entry.event
            for entry in entries[:index]
            if isinstance(entry, Delivery) and (entry.client, entry.handle) == (here.client, here.handle)
        )
        left = [one.address for change in changes if isinstance(change, ConfigChange) for one in change.left]
        return None if address in left else forged

    return inner


def _with_other_sender(message: Message) -> Message:
    return Message(Address(message.sender.nodeid % 3 + 1, message.sender.pid), message.payload)


def _with_other_member(change: ConfigChange) -> ConfigChange | None:
    if not change.members:
        return None
    *others, last = change.members
    return attrs.evolve(change, members=(*others, Address(last.nodeid, last.pid + 1)))


def _with_other_ring(change: TotemChange) -> TotemChange:
    return TotemChange(RingId(change.ring_id.nodeid, change.ring_id.seq + 1), change.members)


def _with_other_quorate(change: Any) -> Any:
    return attrs.evolve(change, quorate=not change.quorate)


_VIEWS = {Rule.VIEW_AGREEMENT}
# Members that share no messages before and after that place in their ring cannot be compared.
_MESSAGE = {Rule.SELF_DELIVERY, Rule.TOTAL_ORDER, Rule.VIRTUAL_SYNCHRONY}
# A wrong set of members also shows in the order, and in the messages that they send.
_MEMBERS = {Rule.VIEW_AGREEMENT, Rule.TOTAL_ORDER, Rule.INTEGRITY}

FORGERIES = {
    "a message is missing": Forgery(repeated(0, Message), _MESSAGE, 0.5),
    "a message is delivered twice": Forgery(before_leaving(repeated(2, Message)), {Rule.INTEGRITY}),
    "a message has another payload": Forgery(
        before_leaving(event_changed(Message, lambda message: Message(message.sender, message.payload[::-1]))),
        {Rule.INTEGRITY},
    ),
    "a message has another sender": Forgery(
        before_leaving(event_changed(Message, _with_other_sender)), {Rule.INTEGRITY}
    ),
    # A member's own message breaks integrity if it comes before it was sent.
    "two messages are swapped": Forgery(swapped, {Rule.FIFO, Rule.TOTAL_ORDER, Rule.INTEGRITY}, 0.5),
    "a change of the members is missing": Forgery(not_at_the_ends(repeated(0, ConfigChange)), _MEMBERS, 0.5),
    "a change of the members is repeated": Forgery(not_at_the_ends(repeated(2, ConfigChange)), _MEMBERS, 0.5),
    "a member has another address": Forgery(
        not_at_the_ends(event_changed(ConfigChange, _with_other_member)), _MEMBERS, 0.5
    ),
    # There is no other report to compare with for a handle that is alone on its node, or for a handle's last ring.
    "a ring is missing": Forgery(closing_a_transition(with_other_reports(repeated(0, TotemChange))), _VIEWS, 0.5),
    "a ring is reported twice": Forgery(closing_a_transition(repeated(2, TotemChange)), _VIEWS),
    "a ring has another id": Forgery(
        closing_a_transition(with_other_reports(event_changed(TotemChange, _with_other_ring))), _VIEWS, 0.5
    ),
    "a ring has other nodes": Forgery(
        closing_a_transition(
            event_changed(TotemChange, lambda change: TotemChange(change.ring_id, (*change.members, 4)))
        ),
        _VIEWS,
    ),
    # The first decision may have come in the middle of a transition.
    "votequorum reports the opposite": Forgery(
        event_changed(VotequorumChange, _with_other_quorate), {Rule.QUORUM}, 0.3
    ),
    "quorum reports the opposite": Forgery(event_changed(QuorumChange, _with_other_quorate), {Rule.QUORUM}),
    # Results in a transition are not judged.
    "info has more votes": Forgery(
        result_changed(VotequorumInfo, lambda info: attrs.evolve(info, total_votes=info.total_votes + 1)),
        {Rule.QUORUM},
        0.5,
    ),
    "info has a higher quorum": Forgery(
        result_changed(VotequorumInfo, lambda info: attrs.evolve(info, quorum=info.quorum + 1)), {Rule.QUORUM}, 0.5
    ),
    "is_quorate returns the opposite": Forgery(result_changed(bool, lambda answer: not answer), {Rule.QUORUM}, 0.5),
}


async def test_forgeries_are_found(corosync_cluster: Cluster, corosync_mode: str, figure: Figure) -> None:
    entries = list(await recording(corosync_cluster, corosync_mode))
    for name, forgery in FORGERIES.items():
        found = tried = 0
        for part in range(_PLACES):
            places = range(part * len(entries) // _PLACES, (part + 1) * len(entries) // _PLACES)
            forged = next((forged for index in places if (forged := forgery.forge(entries, index))), None)
            if forged is None:
                continue
            tried += 1
            rules = {violation.rule for violation in check(History(forged), options=corosync_cluster.options)}
            assert not rules or rules & forgery.rules, (name, rules)
            found += bool(rules)
        figure(name, f"found at {found} of {tried} places")
        assert found >= forgery.least * tried > 0, name
