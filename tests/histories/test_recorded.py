"""The checkers and what was recorded: no false alarm, and an alarm if somebody forges it."""

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
"""How many places of a recording are forged, one at a time."""

_recordings: dict[str, History] = {}
"""By the mode: a recording of a real cluster takes its time."""

Forge: TypeAlias = Callable[[Sequence[Entry], int], "list[Entry] | None"]
"""What takes the entries, and gives others that were forged at a place; `None` where there is nothing to forge."""


@attrs.frozen
class Forgery:
    """Something that may be wrong with a recording."""

    forge: Forge
    rules: set[Rule]
    """Those that find it."""
    least: float = 1
    """The part of all places where they must."""


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
    # It was not a quiet time.
    verbs = {entry.verb for entry in history if isinstance(entry, Fault)}
    assert verbs == {"partition", "heal", "kill", "start", "freeze", "thaw", "stop", "isolate", "restart"}
    told = [entry.event for entry in history if isinstance(entry, Delivery)]
    assert Counter(map(type, told))[Message] > 100
    # A member may live through all of it, and leave only then.
    reasons = {one.reason for change in told if isinstance(change, ConfigChange) for one in change.joined + change.left}
    assert reasons >= {Reason.JOIN, Reason.NODEDOWN, Reason.NODEUP}
    assert {change.quorate for change in told if isinstance(change, VotequorumChange)} == {False, True}
    assert len({change.ring_id for change in told if isinstance(change, TotemChange)}) >= 6


# -- forgeries ---------------------------------------------------------------------------------------------------------


def told(kind: type[Any], change: Callable[[Any], object]) -> Forge:
    """An event of a kind says something else; it stays as it is where `change` gives `None`."""

    def forge(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        entry = entries[index]
        if not isinstance(entry, Delivery) or not isinstance(entry.event, kind):
            return None
        other = change(entry.event)
        return None if other is None else [*entries[:index], attrs.evolve(entry, event=other), *entries[index + 1 :]]

    return forge


def answered(kind: type[Any], change: Callable[[Any], object]) -> Forge:
    """A call has another result."""

    def forge(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        entry = entries[index]
        if not isinstance(entry, Return) or not isinstance(entry.result, kind) or entry.waiting:
            return None
        return [*entries[:index], attrs.evolve(entry, result=change(entry.result)), *entries[index + 1 :]]

    return forge


def times(number: int, kind: type[Any]) -> Forge:
    """An event comes that often, instead of once."""

    def forge(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        entry = entries[index]
        if not isinstance(entry, Delivery) or not isinstance(entry.event, kind):
            return None
        return [*entries[:index], *[entry] * number, *entries[index + 1 :]]

    return forge


def neighbour(entries: Sequence[Entry], index: int, step: int) -> int | None:
    """Where the event before (-1) or behind (1) is that the same handle told of."""
    entry = entries[index]
    other = index + step
    while isinstance(entry, Delivery) and 0 <= other < len(entries):
        found = entries[other]
        if isinstance(found, Delivery) and (found.client, found.handle) == (entry.client, entry.handle):
            return other
        other += step
    return None


def swapped(entries: Sequence[Entry], index: int) -> list[Entry] | None:
    """Two messages that follow each other change places."""
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


def between(forge: Forge) -> Forge:
    """Only where the same handle tells of something before and afterwards: not the first or the last event of all."""

    def inner(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        forged = forge(entries, index)
        has_neighbours = forged and None not in {neighbour(entries, index, step) for step in (-1, 1)}
        return forged if has_neighbours else None

    return inner


def closing(forge: Forge) -> Forge:
    """Only where the event closes a transition: not what a member is told of its ring when it joins."""

    def inner(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        forged = forge(entries, index)
        before = neighbour(entries, index, -1) if forged else None
        change = None if before is None else entries[before]
        if not isinstance(change, Delivery) or not isinstance(change.event, ConfigChange):
            return None
        reasons = {one.reason for one in change.event.joined + change.event.left}
        return forged if reasons & {Reason.NODEDOWN, Reason.NODEUP} else None

    return inner


def compared(forge: Forge) -> Forge:
    """Only where others of CPG on the node were told of that ring, and this handle of an earlier and a later one."""

    def inner(entries: Sequence[Entry], index: int) -> list[Entry] | None:
        forged = forge(entries, index)
        here = entries[index]
        if forged is None or not isinstance(here, Delivery):
            return None
        rings = [(place, it) for place, it in enumerate(entries) if isinstance(it, Delivery) and it.node == here.node]
        rings = [(place, it) for place, it in rings if isinstance(it.event, TotemChange)]
        own = [place for place, it in rings if (it.client, it.handle) == (here.client, here.handle)]
        others = [place for place, it in rings if it.event.ring_id == here.event.ring_id and place != index]
        return forged if any(own[0] < place < own[-1] for place in others) and own[0] < index < own[-1] else None

    return inner


def of_members(forge: Forge) -> Forge:
    """Only where the handle has not left: it may go on hearing its group for a while, and no rule is about that."""

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


def _another_sender(message: Message) -> Message:
    return Message(Address(message.sender.nodeid % 3 + 1, message.sender.pid), message.payload)


def _another_member(change: ConfigChange) -> ConfigChange | None:
    if not change.members:
        return None
    *others, last = change.members
    return attrs.evolve(change, members=(*others, Address(last.nodeid, last.pid + 1)))


def _another_ring(change: TotemChange) -> TotemChange:
    return TotemChange(RingId(change.ring_id.nodeid, change.ring_id.seq + 1), change.members)


def _otherwise(change: Any) -> Any:
    return attrs.evolve(change, quorate=not change.quorate)


_VIEWS = {Rule.VIEW_AGREEMENT}
# Who has no message in common with others in its ring before and after that place cannot be compared with them.
_MESSAGE = {Rule.SELF_DELIVERY, Rule.TOTAL_ORDER, Rule.VIRTUAL_SYNCHRONY}
# A member that should have been there, or not, shows in the order, and in what it sends, as well.
_MEMBERS = {Rule.VIEW_AGREEMENT, Rule.TOTAL_ORDER, Rule.INTEGRITY}

FORGERIES = {
    "a message is missing": Forgery(times(0, Message), _MESSAGE, 0.5),
    "a message comes twice": Forgery(of_members(times(2, Message)), {Rule.INTEGRITY}),
    "a message is another": Forgery(
        of_members(told(Message, lambda message: Message(message.sender, message.payload[::-1]))), {Rule.INTEGRITY}
    ),
    "a message is from another": Forgery(of_members(told(Message, _another_sender)), {Rule.INTEGRITY}),
    # Its own message, before it was sent, breaks integrity.
    "two messages change places": Forgery(swapped, {Rule.FIFO, Rule.TOTAL_ORDER, Rule.INTEGRITY}, 0.5),
    "a change of the members is missing": Forgery(between(times(0, ConfigChange)), _MEMBERS, 0.5),
    "a change of the members comes twice": Forgery(between(times(2, ConfigChange)), _MEMBERS, 0.5),
    "a member is another": Forgery(between(told(ConfigChange, _another_member)), _MEMBERS, 0.5),
    # Who is alone on its node has nobody to be compared with; nor has the last ring of a handle.
    "a ring is missing": Forgery(closing(compared(times(0, TotemChange))), _VIEWS, 0.5),
    "a ring comes twice": Forgery(closing(times(2, TotemChange)), _VIEWS),
    "a ring is another": Forgery(closing(compared(told(TotemChange, _another_ring))), _VIEWS, 0.5),
    "a ring has other nodes": Forgery(
        closing(told(TotemChange, lambda change: TotemChange(change.ring_id, (*change.members, 4)))), _VIEWS
    ),
    # The first decision may have come in the middle of a transition.
    "votequorum says otherwise": Forgery(told(VotequorumChange, _otherwise), {Rule.QUORUM}, 0.3),
    "quorum says otherwise": Forgery(told(QuorumChange, _otherwise), {Rule.QUORUM}),
    # Nothing is said of answers in a transition.
    "votes are more": Forgery(
        answered(VotequorumInfo, lambda info: attrs.evolve(info, total_votes=info.total_votes + 1)), {Rule.QUORUM}, 0.5
    ),
    "quorum is higher": Forgery(
        answered(VotequorumInfo, lambda info: attrs.evolve(info, quorum=info.quorum + 1)), {Rule.QUORUM}, 0.5
    ),
    "the answer is otherwise": Forgery(answered(bool, lambda answer: not answer), {Rule.QUORUM}, 0.5),
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
