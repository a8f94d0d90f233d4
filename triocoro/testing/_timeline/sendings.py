"""Which deliveries belong to which messages: a message from its sender to those that received it."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

import attrs

from ..._types import Address, ConfigChange, Message, MessageLost
from .._history.entries import SENDS, Call, Delivery, Entry, Failure, Return
from .story import Receipt, Sending


@attrs.define(eq=False)
class _Sent:
    """A message that was sent; its receipts come in later."""

    index: int
    call: Call
    group: bytes | None
    payload: bytes
    members: tuple[Address, ...]
    """The group as its sender saw it."""
    receipts: list[Receipt] = attrs.field(factory=list[Receipt])
    receivers: set[Address | None] = attrs.field(factory=set["Address | None"])
    lost: bool = False
    refused: bool = False


@attrs.define
class _Handle:
    """A connection to cpg."""

    address: Address | None = None
    group: bytes | None = None
    joined: int = 0
    """How many messages had been sent when it joined."""


class Sendings:
    """Collects the messages of a history, entry by entry.

    A delivery belongs to the first message of its sender with that payload that comes after the one that the receiver
    had from it last: messages of one sender are received in the order in which they were sent. The first one that it
    has from a sender was sent after it had joined, if there is such a one.
    """

    def __init__(self, began: float) -> None:
        self._began = began
        self._handles: dict[tuple[str, int], _Handle] = defaultdict(_Handle)
        self._all: list[_Sent] = []
        self._sent: dict[tuple[Address, bytes | None, bytes], list[int]] = defaultdict(list)
        """The places in `_all` of the messages of a sender to a group with a payload."""
        self._last: dict[tuple[str, int, Address], int] = {}
        self._calls: dict[tuple[str, int], list[_Sent]] = {}

    def group_of(self, client: str, handle: int) -> bytes | None:
        """The group that a connection is in, or was in last."""
        return self._handles[client, handle].group

    def address_of(self, client: str, handle: int) -> Address | None:
        """The address of a connection in groups."""
        return self._handles[client, handle].address

    def read(self, index: int, entry: Entry, members: tuple[Address, ...]) -> None:
        """Take in the next entry.

        Args:
            index: its place in the history.
            entry: the entry.
            members: the group as its client sees it.
        """
        match entry:
            case Call(function="join"):
                handle = self._handles[entry.client, entry.handle]
                handle.group, handle.joined = entry.arguments.get("group"), len(self._all)
            case Call() if entry.function in SENDS:
                self._note_sent(index, entry, members)
            case Return(result=Address()):
                self._handles[entry.client, entry.handle].address = entry.result
            case Failure():
                for sent in self._calls.pop((entry.client, entry.number), ()):
                    sent.refused = not sent.receipts
            case Delivery(event=ConfigChange()):
                handle = self._handles[entry.client, entry.handle]
                if handle.address is None:
                    # The history has lost its connect. The first change that a member sees is its own join.
                    own = [change.address for change in entry.event.joined if change.address.nodeid == entry.node]
                    handle.address = own[0] if len(own) == 1 else None
            case Delivery(event=Message()):
                self._note_receipt(index, entry, entry.event)
            case Delivery(event=MessageLost()):
                self._note_loss(entry, entry.event.payload)
            case _:
                pass

    def _note_sent(self, index: int, call: Call, members: tuple[Address, ...]) -> None:
        handle = self._handles[call.client, call.handle]
        if handle.address is None:
            return
        calls = self._calls[call.client, call.number] = list[_Sent]()
        for payload in call.arguments.get("payloads") or (call.arguments["payload"],):
            self._sent[handle.address, handle.group, payload].append(len(self._all))
            sent = _Sent(index, call, handle.group, payload, members)
            self._all.append(sent)
            calls.append(sent)

    def _note_receipt(self, index: int, entry: Delivery, message: Message) -> None:
        handle = self._handles[entry.client, entry.handle]
        key = (entry.client, entry.handle, message.sender)
        places = self._sent.get((message.sender, handle.group, message.payload), ())
        which = bisect_right(places, self._last.get(key, handle.joined - 1))
        if which == len(places) and key not in self._last:
            which -= 1
        if 0 <= which < len(places):
            self._last[key] = places[which]
            sent = self._all[places[which]]
            receipt = Receipt(index=index, time=entry.time - self._began, client=entry.client, node=entry.node)
            sent.receipts.append(receipt)
            sent.receivers.add(handle.address)

    def _note_loss(self, entry: Delivery, payload: bytes) -> None:
        for sent in reversed(self._all):
            if sent.call.client == entry.client and sent.payload == payload and not sent.lost and not sent.receipts:
                sent.lost = True
                return

    def result(self) -> Iterator[Sending]:
        """The messages in the order in which they were sent, without those that were refused."""
        recorded = {(handle.group, handle.address) for handle in self._handles.values()}
        for sent in self._all:
            if not sent.refused:
                yield Sending(
                    index=sent.index,
                    time=sent.call.time - self._began,
                    client=sent.call.client,
                    node=sent.call.node,
                    group=sent.group,
                    payload=sent.payload,
                    receipts=tuple(sent.receipts),
                    missed=tuple(
                        member.nodeid
                        for member in sent.members
                        if (sent.group, member) in recorded and member not in sent.receivers
                    ),
                    lost=sent.lost,
                )
