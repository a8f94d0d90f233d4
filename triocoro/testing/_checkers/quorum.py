"""Quorum: what daemons report must follow from the nodes in their rings and from the votes.

Where the outcome depends on something that a history does not show, every possible outcome is accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import attrs

from ..._enums import NodeState, VotequorumFlag
from ..._types import ExpectedVotesChange, QuorumChange, VotequorumChange, VotequorumInfo, VotequorumNodelist
from .._cluster.options import ClusterOptions
from .._history.entries import Call, Delivery, Entry, Return
from .electorate import Electorate
from .refusals import refusals
from .violation import Rule, Violation


def check_quorum(history: Sequence[Entry], options: ClusterOptions) -> Iterator[Violation]:
    """The violations of the quorum rule."""
    return _QuorumChecker(options, refusals(history)).check(history)


_RING_STEP = 4
"""A new ring's sequence number is higher than any that its nodes have seen, by at least this much."""


@attrs.define(eq=False)
class _Suspect:
    """An answer with votes that do not fit the reported ring: a transition counts votes before it reports its ring."""

    violation: Violation
    """The violation, unless a transition had begun."""
    info: VotequorumInfo
    retracted: bool = False
    """Whether a later answer had the votes of the reported ring again."""


@attrs.define(eq=False)
class _QuorumHandle:
    """A connection to votequorum or quorum, and what its client was told."""

    nodelist: Delivery | None = None
    """The latest ring."""
    rings: int = 0
    """The number of rings reported since the latest decision."""
    decision: Delivery | None = None
    """The latest `VotequorumChange` or `QuorumChange`."""
    before: Delivery | None = None
    """The decision in the ring before this one, if no other ring came in between and no node joined."""
    initial: Delivery | None = None
    """The decision that tracking began with: it may have come in the middle of a transition."""
    expected: int | None = None
    """The expected votes, if a client set them and all nodes have used that number since."""
    pending: set[int] = attrs.field(factory=set[int])
    """Expected votes that clients set and that were not announced yet."""
    events: int = 0
    """The number of events so far."""
    suspect: _Suspect | None = None
    """An answer that the next event will confirm or refute."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes of the latest ring."""
        if self.nodelist is None:
            return ()
        nodelist: VotequorumNodelist = self.nodelist.event
        return nodelist.nodes

    @property
    def seq(self) -> int:
        """The sequence number of the latest ring."""
        if self.nodelist is None:
            return 0
        nodelist: VotequorumNodelist = self.nodelist.event
        return nodelist.ring_id.seq

    @property
    def is_settled(self) -> bool:
        """Whether no transition is under way."""
        if self.decision is None or self.nodelist is None or self.rings:
            return False
        # If tracking begins in a transition, it reports the new ring first and then quorum in the old one.
        return self.initial is None or set(_members(self.initial)) == set(self.nodes)


class _QuorumChecker:
    def __init__(self, options: ClusterOptions, refused: set[tuple[str, int]]) -> None:
        self._electorate = Electorate(options)
        self._options = options
        self._all_nodes = set(options.nodeids)
        self._refused = refused
        self._handles: dict[tuple[str, int], _QuorumHandle] = {}
        self._calls: dict[tuple[str, int], tuple[Call, int]] = {}

    def check(self, history: Iterable[Entry]) -> Iterator[Violation]:
        for entry in history:
            if self._electorate.config_may_have_changed:
                # The options no longer say how the cluster is configured.
                return
            if isinstance(entry, Delivery):
                yield from self._check_delivery(entry)
            elif isinstance(entry, Call):
                self._note_call(entry)
            elif isinstance(entry, Return):
                yield from self._check_return(entry)
        if self._electorate.config_may_have_changed:
            return
        for handle in self._handles.values():
            if handle.initial is not None and handle.is_settled:
                yield from self._check_votequorum_decision(handle, handle.initial)
            if handle.suspect is not None and handle.suspect.retracted:
                yield handle.suspect.violation

    def _handle(self, entry: Call | Return | Delivery) -> _QuorumHandle:
        key = entry.client, entry.handle
        handle = self._handles.get(key)
        if handle is None:
            handle = self._handles[key] = _QuorumHandle()
        return handle

    # -- calls and their results ---------------------------------------------------------------------------------------

    def _note_call(self, call: Call) -> None:
        self._calls[call.client, call.number] = call, self._handle(call).events
        if (call.client, call.number) in self._refused:
            return
        self._electorate.note(call)
        if call.function in {"set_expected", "set_votes"}:
            for handle in self._handles.values():
                handle.expected = None
                handle.pending.add(call.arguments.get("expected_votes", 0))

    def _check_return(self, entry: Return) -> Iterator[Violation]:
        handle = self._handle(entry)
        call, events = self._calls.get((entry.client, entry.number), (None, -1))
        if call is None or entry.waiting or events != handle.events or handle.decision is None:
            # The state may have changed during the call.
            return
        if call.function == "is_quorate":
            change: QuorumChange = handle.decision.event
            if entry.result is not change.quorate:
                text = (
                    f"{entry.client!r} was told that it is {_quorate(change.quorate)}, but is_quorate returned"
                    f" {entry.result}"
                )
                yield Violation(Rule.QUORUM, text, (handle.decision, entry))
        elif call.function == "info" and handle.is_settled and handle.nodelist is not None:
            info: VotequorumInfo = entry.result
            if info.nodeid == entry.node:
                yield from self._check_info(handle, handle.nodelist, entry, info)

    def _check_info(
        self, handle: _QuorumHandle, ring: Delivery, entry: Return, info: VotequorumInfo
    ) -> Iterator[Violation]:
        """Check what a node reports about itself while no transition is under way."""
        nodes = handle.nodes

        def wrong(what: str) -> Violation:
            return Violation(Rule.QUORUM, f"{entry.client!r}, with nodes {sorted(nodes)}: {what}", (ring, entry))

        min_votes, max_votes = self._votes(nodes, nodes, info)
        if info.total_votes < min_votes and self._options.allow_downscale:
            return  # a node is leaving, cleanly or not; no other event need follow
        if not min_votes <= info.total_votes <= max_votes:
            violation = wrong(f"{info.total_votes} votes, which should be {_range(min_votes, max_votes)}")
            if info.total_votes > self._votes(nodes, self._all_nodes, info)[1]:
                yield violation
            else:
                handle.suspect = handle.suspect or _Suspect(violation, info)
            return
        if handle.suspect is not None:
            handle.suspect.retracted = True
        for what in self._quorum_complaints(nodes, min_votes, info, handle.expected):
            yield wrong(what)

    def _quorum_complaints(
        self, nodes: Collection[int], min_votes: int, info: VotequorumInfo, expected: int | None
    ) -> Iterator[str]:
        """What does not follow from the votes. Changed votes show before quorum is recalculated."""
        electorate = self._electorate
        lowest, highest = electorate.quorum(nodes, min(min_votes, info.total_votes), info.total_votes, expected)
        if not lowest <= info.quorum <= highest:
            yield f"a quorum of {info.quorum}, which should be {_range(lowest, highest)}"
        if not electorate.votes_are_fixed(nodes):
            return
        if info.quorate and info.total_votes < info.quorum:
            is_half = self._options.auto_tie_breaker and info.total_votes == info.expected_votes // 2
            if not is_half:
                yield f"quorate with {info.total_votes} votes, where {info.quorum} are needed"
        elif not info.quorate and info.total_votes >= info.quorum and not electorate.waits_for_all:
            yield f"not quorate with {info.total_votes} votes, where {info.quorum} are needed"

    def _votes(self, certain: Collection[int], possible: Collection[int], info: VotequorumInfo) -> tuple[int, int]:
        """The lowest and the highest number of votes that an answer may report.

        Args:
            certain: the nodes whose votes were counted.
            possible: these, and the nodes whose votes may have been counted.
            info: the answer; it says whether the quorum device voted.
        """
        device = VotequorumFlag.QDEVICE_CAST_VOTE in info.flags
        min_votes, _ = self._electorate.votes(certain, device=device)
        _, max_votes = self._electorate.votes(possible, device=device)
        return min_votes, max_votes

    # -- deliveries ----------------------------------------------------------------------------------------------------

    def _check_delivery(self, delivery: Delivery) -> Iterator[Violation]:
        handle = self._handle(delivery)
        handle.events += 1
        event = delivery.event
        suspect, handle.suspect = handle.suspect, None
        if suspect is not None and not (
            isinstance(event, VotequorumNodelist) and self._was_in_transition(handle, event, suspect)
        ):
            yield suspect.violation
        if isinstance(event, VotequorumNodelist):
            self._note_ring(handle, delivery)
        elif isinstance(event, VotequorumChange):
            if handle.decision is None:
                handle.initial = delivery
            else:
                handle.initial = None
                yield from self._check_votequorum_decision(handle, delivery)
            handle.decision = delivery
            handle.rings = 0
        elif isinstance(event, ExpectedVotesChange):
            if handle.pending == {event.expected_votes} and self._electorate.announces_expected:
                handle.expected = event.expected_votes
            handle.pending.clear()
        elif isinstance(event, QuorumChange):
            handle.decision = delivery
            # Under allow_downscale, a node that is about to stop is still in the ring and has no votes any more.
            if event.members and not self._options.allow_downscale:
                yield from self._check_decision((delivery,), event.members, quorate=event.quorate, expected=None)

    def _was_in_transition(self, handle: _QuorumHandle, ring: VotequorumNodelist, suspect: _Suspect) -> bool:
        """Whether the transition to that ring explains votes that did not fit the ring before it."""
        before, after = set(handle.nodes), set(ring.nodes)
        if ring.ring_id.seq - handle.seq >= 2 * _RING_STEP:
            # Nodes may have come, been counted and left again in rings that were never reported.
            before, after = set[int](), self._all_nodes
        elif suspect.retracted:
            return False
        min_votes, max_votes = self._votes(before & after, before | after, suspect.info)
        return min_votes <= suspect.info.total_votes <= max_votes

    def _note_ring(self, handle: _QuorumHandle, delivery: Delivery) -> None:
        nodelist: VotequorumNodelist = delivery.event
        is_smaller = set(nodelist.nodes) <= set(handle.nodes)
        handle.before = handle.decision if handle.is_settled and is_smaller and handle.initial is None else None
        handle.initial = None
        handle.rings += 1
        handle.nodelist = delivery
        if not is_smaller:
            # The nodes that joined may expect a different number of votes.
            handle.expected = None

    def _check_votequorum_decision(self, handle: _QuorumHandle, delivery: Delivery) -> Iterator[Violation]:
        change: VotequorumChange = delivery.event
        if handle.nodelist is None:
            return
        members = _members(delivery)
        if set(members) != set(handle.nodes) and not self._options.allow_downscale:
            text = (
                f"{delivery.client!r} was told of the ring of {sorted(handle.nodes)}, but of the members"
                f" {sorted(members)}"
            )
            yield Violation(Rule.QUORUM, text, (handle.nodelist, delivery))
            return
        evidence = (handle.nodelist, delivery)
        yield from self._check_decision(evidence, members, quorate=change.quorate, expected=handle.expected)
        if handle.before is not None:
            yield from self._check_decision_after(handle.before, evidence, members, change)

    def _check_decision(
        self, evidence: tuple[Delivery, ...], members: tuple[int, ...], *, quorate: bool, expected: int | None
    ) -> Iterator[Violation]:
        """Check a decision against the votes alone."""
        verdict = self._electorate.verdict(members, expected)
        if verdict is not None and verdict is not quorate:
            text = f"{evidence[-1].client!r}, with nodes {sorted(members)}, {_wrongly(quorate)}"
            yield Violation(Rule.QUORUM, text, evidence)

    def _check_decision_after(
        self, before: Delivery, evidence: tuple[Delivery, ...], members: tuple[int, ...], change: VotequorumChange
    ) -> Iterator[Violation]:
        """Check a decision after nodes have left against the decision before that."""
        old: VotequorumChange = before.event
        old_members = _members(before)
        verdict = self._electorate.verdict_after(old_members, members, was_quorate=old.quorate)
        if verdict is not None and verdict is not change.quorate:
            text = (
                f"{before.client!r}, with nodes {sorted(members)}, {_wrongly(change.quorate)}, as it was"
                f" {_quorate(old.quorate)} with {sorted(old_members)}"
            )
            yield Violation(Rule.QUORUM, text, (before, *evidence))


def _members(decision: Delivery) -> tuple[int, ...]:
    """The nodes that count as members, without the quorum device."""
    change: VotequorumChange = decision.event
    return tuple(node.nodeid for node in change.nodes if node.state is NodeState.MEMBER and node.nodeid)


def _quorate(quorate: bool) -> str:  # noqa: FBT001 - the function's name says what the argument is
    return "quorate" if quorate else "not quorate"


def _wrongly(quorate: bool) -> str:  # noqa: FBT001 - as above
    return "is quorate, but should not be" if quorate else "is not quorate, but should be"


def _range(lowest: int, highest: int) -> str:
    return str(lowest) if lowest == highest else f"{lowest} to {highest}"
