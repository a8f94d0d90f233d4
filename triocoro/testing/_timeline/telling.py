"""`tell`: reads a history, and makes a `Story` of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import attrs

from ..._types import (
    ConfigChange,
    MessageLost,
    NodelistChange,
    QuorumChange,
    RingId,
    TotemChange,
    VotequorumChange,
    VotequorumInfo,
    VotequorumNodelist,
)
from .._checkers.electorate import Electorate
from .._cluster.options import ClusterOptions
from .._history.entries import (
    Call,
    Cancellation,
    ClientEntry,
    Delivery,
    Entry,
    Failure,
    Fault,
    Invocation,
    Loss,
    Note,
    Outcome,
    OutcomeStatus,
    Return,
)
from .._history.history import History
from . import words
from .ending import FUNCTIONS, clean_up_begins
from .network import network_after
from .sendings import Sendings
from .story import Condition, End, Event, GroupSpan, Kind, NodeSpan, NodeState, OperationSpan, Sending, Story
from .told import told

_LONG: Final = 0.05
"""Seconds after which it is worth a line that a call was given up."""

_CHANGES: Final = frozenset(
    {
        "set",
        "delete",
        "increment",
        "decrement",
        "set_expected",
        "set_votes",
        "qdevice_register",
        "qdevice_unregister",
        "qdevice_master_wins",
        "kill_node",
        "try_shutdown",
        "reload_config",
    }
)
"""Calls that change more than the client's own state."""

_QUIET: Final = frozenset({"TryAgainError"})
"""Errors after which the SDK tries again."""

_AFTER: Final = {
    "kill": Condition.DOWN,
    "stop": Condition.DOWN,
    "remove_node": Condition.DOWN,
    "start": Condition.UP,
    "restart": Condition.UP,
    "add_node": Condition.UP,
    "thaw": Condition.UP,
    "freeze": Condition.FROZEN,
}
"""The condition of a node after each verb."""


def tell(
    history: History,
    options: ClusterOptions | None = None,
    *,
    log: Collection[Note] = (),
    died: Collection[int] = (),
    failure: str | None = None,
) -> Story:
    """What a history says happened.

    Args:
        history: the history.
        options: how the cluster was configured. With them, quorum is derived from the votes where no client asked.
        log: lines of the daemons' logs, with times of the history's clock.
        died: the nodes whose daemons ended, although nothing in the history made them.
        failure: why the test failed, at the end of the history. When it did, the clean-up had not begun yet.
    """
    return _Teller(list(history), history.dropped, options).story(log, died, failure)


class _Teller:
    def __init__(self, entries: list[Entry], dropped: int, options: ClusterOptions | None) -> None:
        self._entries = entries
        self._dropped = dropped
        self._electorate = None if options is None else Electorate(options)
        self._began = entries[0].time if entries else 0.0
        self._now = 0.0
        self._index = 0
        self._events: list[Event] = []
        self._nodes = _nodes(entries, () if options is None else options.nodeids)
        self._states = dict.fromkeys(self._nodes, NodeState())
        self._since: dict[int, tuple[int, float]] = dict.fromkeys(self._nodes, (0, 0.0))
        self._node_spans: list[NodeSpan] = []
        self._views: dict[tuple[str, int], GroupSpan] = {}
        self._group_spans: list[GroupSpan] = []
        self._sendings = Sendings(self._began)
        self._calls: dict[tuple[str, int], Call] = {}
        self._operations: dict[tuple[str, int], OperationSpan] = {}

    def story(self, log: Collection[Note], died: Collection[int], failure: str | None) -> Story:
        clients: dict[str, int | None] = {}
        failed_at = len(self._entries) if failure is None else clean_up_begins(self._entries)
        end: End | None = None
        for index, entry in told(self._entries):
            if end is None and index >= failed_at:
                end = self._end()
            self._index, self._now = index, entry.time - self._began
            client: str | None = getattr(entry, "client", None)
            if client is not None and clients.get(client) is None:
                clients[client] = getattr(entry, "node", None)
            view = self._views.get((entry.client, entry.handle)) if isinstance(entry, ClientEntry) else None
            self._sendings.read(index, entry, () if view is None else view.members)
            self._read(entry)
        self._index = len(self._entries)
        if end is None:
            end = self._end()
        for node in self._nodes:
            self._end_span(node)
        for span in self._operations.values():
            if span.outcome is None:
                self._say_unfinished(span)
        sendings = tuple(self._sendings.result())
        events = [*self._events, *map(_event, sendings), *self._log(log), *self._deaths(died)]
        if failure is not None:
            at = self._entries[failed_at].time - self._began if failed_at < len(self._entries) else self._now
            events.append(Event(index=failed_at, time=at, kind=Kind.FAILURE, nodes=(), text=failure))
        return Story(
            duration=self._now,
            dropped=self._dropped,
            nodes=self._nodes,
            clients=clients,
            # A failure comes before the entry at its place: the first of the clean-up.
            events=tuple(sorted(events, key=lambda event: (event.index, event.kind is not Kind.FAILURE))),
            node_spans=tuple(self._node_spans),
            group_spans=(*self._group_spans, *self._open_views()),
            sendings=sendings,
            operations=tuple(
                span if span.outcome is not None else attrs.evolve(span, ended=self._now)
                for span in self._operations.values()
            ),
            end=end,
        )

    def _end(self) -> End:
        entries = self._entries[: self._index + 1]
        return End(
            pending=tuple(call for call in self._calls.values() if call.function not in FUNCTIONS),
            states=dict(self._states),
            views=self._open_views(),
            network=network_after(self._nodes, entries),
        )

    def _open_views(self) -> tuple[GroupSpan, ...]:
        return tuple(attrs.evolve(view, ended=self._now, end=self._index) for view in self._views.values())

    def _deaths(self, died: Collection[int]) -> Iterator[Event]:
        """The ends of daemons, each where the first client lost its connection after the last fault at the node."""
        for node in died:
            losses = list[int]()
            for index, entry in enumerate(self._entries):
                if isinstance(entry, Loss) and entry.node == node:
                    losses.append(index)
                elif isinstance(entry, Fault) and words.node_of_fault(entry) == node:
                    losses.clear()
            index = losses[0] if losses else max(0, len(self._entries) - 1)
            at = self._entries[index].time - self._began if self._entries else 0.0
            text = "the daemon ended, and nothing in the test made it"
            yield Event(index=index, time=at, kind=Kind.LOSS, nodes=(node,), text=text)

    def _log(self, notes: Iterable[Note]) -> Iterator[Event]:
        times = [entry.time for entry in self._entries]
        for note in notes:
            yield Event(
                index=max(0, bisect_right(times, note.time) - 1),
                time=note.time - self._began if times else 0.0,
                kind=Kind.LOG,
                nodes=() if note.node is None else (note.node,),
                text=note.text,
                notable=True,
            )

    def _say(
        self,
        kind: Kind,
        text: str,
        node: int | None,
        *,
        client: str | None = None,
        detail: str = "",
        notable: bool = False,
    ) -> None:
        self._events.append(
            Event(
                index=self._index,
                time=self._now,
                kind=kind,
                nodes=() if node is None else (node,),
                text=text,
                detail=detail,
                client=client,
                notable=notable,
            )
        )

    def _read(self, entry: Entry) -> None:
        match entry:
            case Call():
                self._read_call(entry)
            case Return() | Failure() | Cancellation():
                self._read_end(entry)
            case Delivery():
                self._read_delivery(entry)
            case Loss():
                self._views_end(entry.client, entry.handle)
                self._say(Kind.LOSS, "the connection to the daemon is lost", entry.node, client=entry.client)
            case Fault():
                self._read_fault(entry)
            case Note():
                self._say(Kind.NOTE, entry.text, entry.node)
            case Invocation():
                key = (entry.client, entry.number)
                self._operations[key] = OperationSpan(
                    invocation=entry, outcome=None, began=self._now, ended=self._now, index=self._index
                )
            case Outcome():
                self._read_outcome(entry)

    def _read_call(self, call: Call) -> None:
        if self._electorate is not None:
            self._electorate.note(call)
        if call.function != "close":
            self._calls[call.client, call.number] = call
            return
        view = self._views.get((call.client, call.handle))
        reason = call.arguments.get("reason")
        if reason:
            self._say(Kind.LOSS, f"receives too slowly and is cut off: {reason}", call.node, client=call.client)
        elif view is not None and not call.arguments.get("leave"):
            text = f"{words.group_in_words(view.group)}: closes its connection, and does not leave first"
            self._say(Kind.GROUP, text, call.node, client=call.client, notable=True)
        self._views_end(call.client, call.handle)
        for key, pending in [*self._calls.items()]:
            if (pending.client, pending.handle) == (call.client, call.handle):
                del self._calls[key]

    def _read_end(self, end: Return | Failure | Cancellation) -> None:
        call = self._calls.pop((end.client, end.number), None)
        if call is None:
            return
        text = words.call_in_words(call.function, call.arguments)
        waited = end.time - call.time
        match end:
            case Return():
                if call.function in _CHANGES:
                    self._say(Kind.CALL, text, end.node, client=end.client)
                elif call.function == "is_quorate" and isinstance(end.result, bool):
                    self._note_quorum(end.node, end.result)
                elif isinstance(end.result, VotequorumInfo) and end.result.nodeid == end.node:
                    self._note_quorum(end.node, end.result.quorate)
                elif call.function == "leave":
                    self._views_end(end.client, end.handle)
            case Failure() if end.error not in _QUIET:
                self._say(Kind.CALL, f"{text} raises {end.error}", end.node, client=end.client, notable=True)
            case Cancellation() if waited >= _LONG:
                given_up = f"{text} is given up after {waited:.3f} s without an answer"
                self._say(Kind.CALL, given_up, end.node, client=end.client, notable=True)
            case _:
                pass

    def _read_delivery(self, entry: Delivery) -> None:
        match entry.event:
            case TotemChange(ring_id, members) | VotequorumNodelist(ring_id, members):
                self._note_ring(entry.node, ring_id, members)
            case NodelistChange(ring_id, members):
                self._note_ring(entry.node, ring_id, members)
            case QuorumChange(quorate, ring_id, members):
                self._note_ring(entry.node, ring_id, members, quorate=quorate)
            case VotequorumChange(quorate):
                self._note_quorum(entry.node, quorate)
            case ConfigChange():
                self._note_view(entry, entry.event)
            case MessageLost(payload):
                text = f"a message was lost: {words.value_in_words(payload)}"
                self._say(Kind.LOSS, text, entry.node, client=entry.client)
            case _:
                pass

    def _read_fault(self, fault: Fault) -> None:
        node = words.node_of_fault(fault)
        self._say(Kind.FAULT, words.fault_in_words(fault), node, detail=fault.where or "")
        condition = _AFTER.get(fault.verb)
        if node is None or condition is None:
            return
        before = self._states[node]
        if fault.verb == "start" and before.condition is not Condition.DOWN:
            return  # which does nothing
        if condition is Condition.DOWN or fault.verb == "restart" or before.condition is Condition.DOWN:
            self._change(node, NodeState(condition))
        else:
            self._change(node, attrs.evolve(before, condition=condition))

    def _read_outcome(self, outcome: Outcome) -> None:
        span = self._operations.get((outcome.client, outcome.number))
        if span is None:
            return
        self._operations[outcome.client, outcome.number] = attrs.evolve(span, outcome=outcome, ended=self._now)
        text = words.operation_in_words(span.invocation)
        match outcome.status:
            case OutcomeStatus.RETURNED:
                text += f" returns {words.value_in_words(outcome.result)}"
            case OutcomeStatus.REFUSED:
                text += f" is refused: {outcome.error}"
            case OutcomeStatus.UNKNOWN:
                text += f" fails, and may have happened: {outcome.error}"
        if self._now - span.began >= _LONG:
            text += f" (after {self._now - span.began:.3f} s)"
        notable = outcome.status is not OutcomeStatus.RETURNED
        self._say(Kind.OPERATION, text, outcome.node, client=outcome.client, notable=notable)

    def _say_unfinished(self, span: OperationSpan) -> None:
        invocation = span.invocation
        self._index, now, self._now = span.index, self._now, span.began
        text = f"{words.operation_in_words(invocation)} begins, and has not ended"
        self._say(Kind.OPERATION, text, invocation.node, client=invocation.client, notable=True)
        self._now = now

    def _note_ring(self, node: int, ring_id: RingId, members: tuple[int, ...], *, quorate: bool | None = None) -> None:
        state = self._states[node]
        if state.ring_id is not None and ring_id.seq < state.ring_id.seq:
            return  # a slow reader
        if state.ring_id == ring_id:
            if quorate is not None:
                self._note_quorum(node, quorate)
            return
        if quorate is None and self._electorate is not None:
            quorate = self._electorate.verdict(members, None)
        self._change(node, attrs.evolve(state, ring_id=ring_id, members=tuple(sorted(members)), quorate=quorate))
        alone = f"ring of {words.nodes_in_words(sorted(members))}" if len(members) > 1 else "alone in its ring"
        self._say(Kind.RING, f"{alone}{words.quorum_in_words(quorate=quorate)}", node)

    def _note_quorum(self, node: int, quorate: bool) -> None:  # noqa: FBT001 - it is what is noted
        state = self._states[node]
        if state.quorate != quorate:
            self._change(node, attrs.evolve(state, quorate=quorate))
            self._say(Kind.QUORUM, "quorate" if quorate else "NOT quorate", node)

    def _note_view(self, entry: Delivery, change: ConfigChange) -> None:
        key = (entry.client, entry.handle)
        group = self._sendings.group_of(*key)
        self._views_end(*key)
        own = self._sendings.address_of(*key)
        if own is None or own in change.members:
            self._views[key] = GroupSpan(
                client=entry.client,
                node=entry.node,
                handle=entry.handle,
                group=group,
                members=change.members,
                began=self._now,
                ended=self._now,
                first=self._index,
                end=self._index,
            )
        text = f"{words.group_in_words(group)}: {words.members_in_words(change.members)}"
        changes = words.changes_in_words((*change.joined, *change.left))
        self._say(Kind.GROUP, text, entry.node, client=entry.client, detail=changes)

    def _views_end(self, client: str, handle: int) -> None:
        view = self._views.pop((client, handle), None)
        if view is not None:
            self._group_spans.append(attrs.evolve(view, ended=self._now, end=self._index))

    def _change(self, node: int, state: NodeState) -> None:
        self._end_span(node)
        self._states[node] = state
        self._since[node] = self._index, self._now

    def _end_span(self, node: int) -> None:
        first, began = self._since[node]
        if self._index > first:
            state = self._states[node]
            span = NodeSpan(node=node, began=began, ended=self._now, first=first, end=self._index, state=state)
            self._node_spans.append(span)


def _nodes(entries: Collection[Entry], configured: Collection[int]) -> tuple[int, ...]:
    """All nodes that are named anywhere."""

    def named() -> Iterator[int]:
        yield from configured
        for entry in entries:
            match entry:
                case Fault():
                    node = words.node_of_fault(entry)
                    yield from () if node is None else (node,)
                    yield from (node for side in entry.arguments.get("sides", ()) for node in side)
                case Delivery(event=TotemChange(_, members)):
                    yield from members
                case _:
                    node = entry.node
                    yield from () if node is None else (node,)

    return tuple(sorted(set(named())))


def _event(sending: Sending) -> Event:
    """A message as an event, with its fate."""
    receivers = sorted(words.client_in_words(receipt.client) for receipt in sending.receipts)
    fate = f"received by {', '.join(receivers)}" if receivers else "received by no recorded client"
    if sending.missed:
        fate += f", not by {words.numbers(sending.missed)}"
    text = f"sends {words.message_in_words(sending.payload)} to {words.group_in_words(sending.group)}"
    return Event(
        index=sending.index,
        time=sending.time,
        kind=Kind.MESSAGE,
        nodes=(sending.node,),
        text=f"{text}: {'LOST' if sending.lost else fate}",
        client=sending.client,
        notable=sending.lost or bool(sending.missed),
    )
