"""Quorum: what nodes say of it must follow from their memberships and the votes.

Where the outcome depends on something that a history does not tell, all that could be is accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import attrs

from ..._types import (
    ExpectedVotesChange,
    NodeState,
    QuorumChange,
    VotequorumChange,
    VotequorumFlag,
    VotequorumInfo,
    VotequorumNodelist,
)
from .._cluster.options import ClusterOptions
from .._history.entries import Call, Delivery, Entry, Return
from .electorate import Electorate
from .refusals import refusals
from .violation import Rule, Violation


def quorum_violations(history: Sequence[Entry], options: ClusterOptions) -> Iterator[Violation]:
    """What is wrong with quorum."""
    return _Checker(options, refusals(history)).run(history)


_STEP = 4
"""By how much the sequence of a ring is above the highest that its nodes have seen, at least."""


@attrs.define(eq=False)
class _Suspect:
    """Votes that are not those of the ring that was told of: a transition counts before it tells of its ring."""

    violation: Violation
    """What is wrong unless a transition had begun."""
    info: VotequorumInfo
    retracted: bool = False
    """Whether a later answer had the votes of the ring."""


@attrs.define(eq=False)
class _Handle:
    """A connection to votequorum or quorum, and what its client was told."""

    nodelist: Delivery | None = None
    """The latest ring."""
    rings: int = 0
    """How many rings were told of since quorum was."""
    decision: Delivery | None = None
    """The latest news of quorum."""
    before: Delivery | None = None
    """The decision before this ring, if no other ring was in between and nobody has joined."""
    initial: Delivery | None = None
    """The decision that tracking began with: it may have come in the middle of a transition."""
    expected: int | None = None
    """What is expected, if a client has set it and all have counted since."""
    pending: set[int] = attrs.field(factory=set[int])
    """What clients want to be expected, and was not told of yet."""
    events: int = 0
    """How many there were."""
    suspect: _Suspect | None = None
    """What the next event will show to be right or wrong."""

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes of the latest ring."""
        if self.nodelist is None:
            return ()
        told: VotequorumNodelist = self.nodelist.event
        return told.nodes

    @property
    def seq(self) -> int:
        """The number of the latest ring."""
        if self.nodelist is None:
            return 0
        told: VotequorumNodelist = self.nodelist.event
        return told.ring_id.seq

    @property
    def settled(self) -> bool:
        """Whether no transition is under way."""
        if self.decision is None or self.nodelist is None or self.rings:
            return False
        # Tracking that begins in a transition is told of the ring to come, and of quorum in the ring before.
        return self.initial is None or set(_members(self.initial)) == set(self.nodes)


class _Checker:
    def __init__(self, options: ClusterOptions, refused: set[tuple[str, int]]) -> None:
        self._electorate = Electorate(options)
        self._options = options
        self._everybody = set(range(1, options.nodes + 1))
        self._refused = refused
        self._handles: dict[tuple[str, int], _Handle] = {}
        self._calls: dict[tuple[str, int], tuple[Call, int]] = {}

    def run(self, history: Iterable[Entry]) -> Iterator[Violation]:
        for entry in history:
            if self._electorate.unknown:
                # Somebody has changed the configuration.
                break
            if isinstance(entry, Delivery):
                yield from self._event(entry)
            elif isinstance(entry, Call):
                self._call(entry)
            elif isinstance(entry, Return):
                yield from self._return(entry)
        if self._electorate.unknown:
            return
        for handle in self._handles.values():
            if handle.initial is not None and handle.settled:
                yield from self._votequorum_decision(handle, handle.initial)
            if handle.suspect is not None and handle.suspect.retracted:
                yield handle.suspect.violation

    def _handle(self, entry: Call | Return | Delivery) -> _Handle:
        return self._handles.setdefault((entry.client, entry.handle), _Handle())

    # -- what clients do -----------------------------------------------------------------------------------------------

    def _call(self, call: Call) -> None:
        self._calls[call.client, call.number] = call, self._handle(call).events
        if (call.client, call.number) in self._refused:
            return
        self._electorate.note(call)
        if call.function in {"set_expected", "set_votes"}:
            for handle in self._handles.values():
                handle.expected = None
                handle.pending.add(call.arguments.get("expected_votes", 0))

    def _return(self, answer: Return) -> Iterator[Violation]:
        handle = self._handle(answer)
        call, events = self._calls.get((answer.client, answer.number), (None, -1))
        if call is None or answer.waiting or events != handle.events or handle.decision is None:
            # Something may have happened meanwhile.
            return
        if call.function == "is_quorate":
            told: QuorumChange = handle.decision.event
            if answer.result is not told.quorate:
                text = f"{answer.client!r} was told that it is {_quorate(told.quorate)}, and the answer was otherwise"
                yield Violation(Rule.QUORUM, text, (handle.decision, answer))
        elif call.function == "info" and handle.settled and handle.nodelist is not None:
            info: VotequorumInfo = answer.result
            if info.nodeid == answer.node:
                yield from self._info(handle, handle.nodelist, answer, info)

    def _info(self, handle: _Handle, ring: Delivery, answer: Return, info: VotequorumInfo) -> Iterator[Violation]:
        """What a node says of itself, while no transition is under way."""
        nodes = handle.nodes

        def wrong(what: str) -> Violation:
            return Violation(Rule.QUORUM, f"{answer.client!r}, with nodes {sorted(nodes)}: {what}", (ring, answer))

        least, most = self._votes(nodes, nodes, info)
        if info.total_votes < least and self._options.allow_downscale:
            return  # somebody leaves, in good order or not: no other event need come of it
        if not least <= info.total_votes <= most:
            violation = wrong(f"{info.total_votes} votes, which should be {_range(least, most)}")
            if info.total_votes > self._votes(nodes, self._everybody, info)[1]:
                yield violation
            else:
                handle.suspect = handle.suspect or _Suspect(violation, info)
            return
        if handle.suspect is not None:
            handle.suspect.retracted = True
        for what in self._wrong_quorum(nodes, least, info, handle.expected):
            yield wrong(what)

    def _wrong_quorum(
        self, nodes: Collection[int], fewest: int, info: VotequorumInfo, expected: int | None
    ) -> Iterator[str]:
        """What does not follow from the votes; a change of theirs shows before quorum is counted anew."""
        electorate = self._electorate
        least, most = electorate.quorum(nodes, min(fewest, info.total_votes), info.total_votes, expected)
        if not least <= info.quorum <= most:
            yield f"a quorum of {info.quorum}, which should be {_range(least, most)}"
        if not electorate.is_plain(nodes):
            return
        if info.quorate and info.total_votes < info.quorum:
            half = self._options.auto_tie_breaker and info.total_votes == info.expected_votes // 2
            if not half:
                yield f"quorate with {info.total_votes} votes, where {info.quorum} are needed"
        elif not info.quorate and info.total_votes >= info.quorum and not electorate.waits_for_all:
            yield f"not quorate with {info.total_votes} votes, where {info.quorum} are needed"

    def _votes(self, fewest: Collection[int], most: Collection[int], info: VotequorumInfo) -> tuple[int, int]:
        """The fewest and the most votes there may be, where at least those nodes are counted, and at most these."""
        device = VotequorumFlag.QDEVICE_CAST_VOTE in info.flags
        return self._electorate.votes(fewest, device=device)[0], self._electorate.votes(most, device=device)[1]

    # -- what clients are told -----------------------------------------------------------------------------------------

    def _event(self, event: Delivery) -> Iterator[Violation]:
        handle = self._handle(event)
        handle.events += 1
        what = event.event
        suspect, handle.suspect = handle.suspect, None
        if suspect is not None and not (
            isinstance(what, VotequorumNodelist) and self._was_in_transition(handle, what, suspect)
        ):
            yield suspect.violation
        if isinstance(what, VotequorumNodelist):
            self._nodelist(handle, event)
        elif isinstance(what, VotequorumChange):
            if handle.decision is None:
                handle.initial = event
            else:
                handle.initial = None
                yield from self._votequorum_decision(handle, event)
            handle.decision = event
            handle.rings = 0
        elif isinstance(what, ExpectedVotesChange):
            if handle.pending == {what.expected_votes} and self._electorate.is_told:
                handle.expected = what.expected_votes
            handle.pending.clear()
        elif isinstance(what, QuorumChange):
            handle.decision = event
            # Who is about to stop is in the ring still, and has no votes any more.
            if what.members and not self._options.allow_downscale:
                yield from self._decision((event,), what.members, quorate=what.quorate, expected=None)

    def _was_in_transition(self, handle: _Handle, ring: VotequorumNodelist, suspect: _Suspect) -> bool:
        """Whether what led to that ring explains votes that were not those of the ring before it."""
        before, after = set(handle.nodes), set(ring.nodes)
        if ring.ring_id.seq - handle.seq >= 2 * _STEP:
            # Others may have come, been counted and left in rings that nobody was told of.
            before, after = set[int](), self._everybody
        elif suspect.retracted:
            return False
        least, most = self._votes(before & after, before | after, suspect.info)
        return least <= suspect.info.total_votes <= most

    def _nodelist(self, handle: _Handle, event: Delivery) -> None:
        told: VotequorumNodelist = event.event
        smaller = set(told.nodes) <= set(handle.nodes)
        handle.before = handle.decision if handle.settled and smaller and handle.initial is None else None
        handle.initial = None
        handle.rings += 1
        handle.nodelist = event
        if not smaller:
            # Newcomers may expect something else.
            handle.expected = None

    def _votequorum_decision(self, handle: _Handle, event: Delivery) -> Iterator[Violation]:
        told: VotequorumChange = event.event
        if handle.nodelist is None:
            return
        members = _members(event)
        if set(members) != set(handle.nodes) and not self._options.allow_downscale:
            text = (
                f"{event.client!r} was told of the ring of {sorted(handle.nodes)}, but of the members {sorted(members)}"
            )
            yield Violation(Rule.QUORUM, text, (handle.nodelist, event))
            return
        evidence = (handle.nodelist, event)
        yield from self._decision(evidence, members, quorate=told.quorate, expected=handle.expected)
        if handle.before is not None:
            yield from self._change(handle.before, evidence, members, told)

    def _decision(
        self, evidence: tuple[Delivery, ...], members: tuple[int, ...], *, quorate: bool, expected: int | None
    ) -> Iterator[Violation]:
        """Quorum in the light of the votes alone."""
        verdict = self._electorate.verdict(members, expected)
        if verdict is not None and verdict is not quorate:
            text = (
                f"{evidence[-1].client!r}, with nodes {sorted(members)}, is {_quorate(quorate)}: it should be otherwise"
            )
            yield Violation(Rule.QUORUM, text, evidence)

    def _change(
        self, before: Delivery, evidence: tuple[Delivery, ...], members: tuple[int, ...], told: VotequorumChange
    ) -> Iterator[Violation]:
        """Quorum after nodes have left, in the light of what it was before."""
        old: VotequorumChange = before.event
        old_members = _members(before)
        verdict = self._electorate.verdict_after(old_members, members, was_quorate=old.quorate)
        if verdict is not None and verdict is not told.quorate:
            text = (
                f"{before.client!r}, with nodes {sorted(members)}, is {_quorate(told.quorate)}, after it was"
                f" {_quorate(old.quorate)} with {sorted(old_members)}: it should be otherwise"
            )
            yield Violation(Rule.QUORUM, text, (before, *evidence))


def _members(decision: Delivery) -> tuple[int, ...]:
    """The nodes that count, the quorum device not among them."""
    told: VotequorumChange = decision.event
    return tuple(node.nodeid for node in told.nodes if node.state is NodeState.MEMBER and node.nodeid)


def _quorate(quorate: bool) -> str:  # noqa: FBT001 - it says what it is
    return "quorate" if quorate else "not quorate"


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least} to {most}"
