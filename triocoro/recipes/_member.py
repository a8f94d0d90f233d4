"""A member of a safe group: the agreement, connected to Corosync, with what waits to be committed."""

from __future__ import annotations

import logging
import random
import struct
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar, cast, final

import attrs
import trio
from outcome import Error, Outcome, Value

import triocoro
from triocoro import Address, Endpoint, HasEndpoint, Message, MessageLost, View, Views, reached

from ._agreement import Agreement
from ._block import running_beside
from ._config import Config
from ._errors import NotPrimaryError, ProtocolError, UncertainError
from ._frames import FrameError, OtherProtocolError
from ._log import Entry
from ._states import State

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_logger = logging.getLogger("triocoro.recipes")

_HEAD = struct.Struct(">II")  # nodeid and pid of the sender
_SIZE = struct.Struct(">I")
_COUNT = struct.Struct(">Q")
_BATCH_BYTES = 64 * 1024
_WINDOW = 4  # entries of ours under way; what comes meanwhile is packed into the next one
_WAITING_BYTES = 4 * 2**20
_GRACE = 1.0  # seconds
_PATIENCE = 2.0  # seconds in which a member that we have asked for something must have sent some of it


@final
@attrs.frozen
class MemberStatus:
    """A member, as another one sees it.

    Attributes:
        address: the member.
        votes: the votes of its node, if it votes for it; else 0.
        behind: how many entries of the log it has not acknowledged; `None` if it has not got the state yet, or is
            stopped since a ring formed or a member joined.
    """

    address: Address
    votes: int
    behind: int | None


@final
@attrs.frozen
class Status:
    """What a member knows of its group.

    Attributes:
        primary: whether messages can be committed now, as far as this member knows.
        obstacle: why not, in words; `None` if they can, or may be soon.
        committed: the index of the last committed message.
        nodes: the electorate, votes by node.
        vacant: the nodes of the electorate for which no member here votes.
        members: the members of the view.
    """

    primary: bool
    obstacle: str | None
    committed: int
    nodes: Mapping[int, int] = attrs.field(hash=False)
    vacant: tuple[int, ...]
    members: tuple[MemberStatus, ...]


class Application(Protocol[T_co]):
    """What is done with committed messages."""

    def apply(self, sender: Address, payload: bytes, epoch: int, index: int, /) -> T_co:
        """Take a message, whose place is that of a `Commit`; its result goes to the one who waits for it."""
        ...

    def snapshot(self) -> Iterable[bytes]:
        """The state in chunks, as it is now."""
        ...

    def restore(self, chunks: Iterable[bytes], index: int, /, *, discards: bool) -> None:
        """Take the state after the message with this index for our own; some of what was applied may not be in it."""


def _incarnation() -> int:
    """A number that no other member ever has, and that seeds repeat.

    `random` may be seeded alike everywhere; Trio's clock begins at a random time of each process.
    """
    chance = repr((random.getrandbits(64), trio.current_time())).encode()
    return int.from_bytes(blake2b(chance, digest_size=8).digest(), "big")


@final
class _Submission(Generic[T]):
    """A message that waits to be committed."""

    __slots__ = ("payload", "task")

    def __init__(self, payload: bytes, task: trio.lowlevel.Task | None) -> None:
        self.payload = payload
        self.task = task
        """Who waits for the result."""

    def settle(self, outcome: Outcome[T]) -> None:
        """Tell the result."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task, outcome)
            self.task = None


@final
class Member(Generic[T]):
    """Joins the group again and again, and keeps the state meanwhile.

    Args:
        name: of the group.
        mark: of the recipe.
        votes: the electorate.
        application: takes what is committed.
        endpoint: the daemon.
    """

    def __init__(
        self,
        name: bytes | str,
        mark: bytes,
        votes: Mapping[int, int],
        application: Application[T],
        endpoint: Endpoint | HasEndpoint | None,
    ) -> None:
        self.agreement: Agreement = Agreement(_incarnation(), votes, self, mark=mark)
        self.count: int = 0
        """How many messages are committed."""
        self.joined: trio.Event = trio.Event()
        self._name = name
        self._application = application
        self._endpoint = endpoint
        self._waiting: deque[_Submission[T]] = deque()
        self._waiting_bytes = 0
        self._under_way: dict[int, list[_Submission[T]]] = {}
        self.address: Address = Address(0, 0)
        self._views: Views | None = None
        self._to_send = trio.Event()
        self._stuck: bytes | None = None  # a frame that had to wait
        self._closed = False
        self._waiters: dict[trio.lowlevel.Task, Callable[[], bool]] = {}
        self._room = trio.lowlevel.ParkingLot()
        self._obstacle: str | None = None  # which was logged
        self._strangers: set[Address] = set()  # members of another protocol, to whom we have spoken

    # -- what callers do -----------------------------------------------------------------------------------------------

    @property
    def primary(self) -> bool:
        """Whether messages can be committed now, as far as we know, and we have our vote if it is ours.

        Until its first entry is committed, a log needs all seats. From then on a majority of them goes on.
        """
        agreement = self.agreement
        if agreement.state is not State.PRIMARY or not agreement.holding.committed:
            return False
        return agreement.obstacle() is None and not agreement.is_taking_seat

    async def submit(self, payload: bytes) -> T:
        """Send a message, and wait until it is committed and applied."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._waiting_bytes > _WAITING_BYTES:
            await self._room.park()
        self._check_primary()
        submission: _Submission[T] = _Submission(payload, trio.lowlevel.current_task())
        self._put(submission)

        def abort(_: object) -> trio.lowlevel.Abort:
            submission.task = None
            if submission in self._waiting:
                self._waiting.remove(submission)
                self._waiting_bytes -= len(payload)
                self._make_room()
            return trio.lowlevel.Abort.SUCCEEDED

        return cast("T", await trio.lowlevel.wait_task_rescheduled(abort))

    def status(self) -> Status:
        """What this member knows of its group."""
        agreement = self.agreement
        config = agreement.known_configs()[-1]
        members = tuple(self._status_of(address, config) for address in sorted(agreement.members))
        seated = {member.address.nodeid for member in members if member.votes}
        vacant = tuple(sorted(config.votes.keys() - seated))
        obstacle = agreement.obstacle()
        return Status(self.primary, obstacle, self.count, dict(config.votes), vacant, members)

    def _status_of(self, address: Address, config: Config) -> MemberStatus:
        incarnation = self.agreement.who.get(address)
        seated = incarnation is not None and config.seats.get(address.nodeid) == incarnation
        acknowledged = self.agreement.acks.get(incarnation) if incarnation is not None else None
        behind = None if acknowledged is None else max(0, self.agreement.holding.length - acknowledged)
        return MemberStatus(address, config.votes[address.nodeid] if seated else 0, behind)

    async def change_nodes(self, votes: Mapping[int, int]) -> None:
        """Have another electorate committed."""
        await trio.lowlevel.checkpoint()
        holding = self.agreement.holding
        while True:
            await self.wait(self._can_propose_votes)
            self._check_primary()
            if holding.configs[0].votes == votes:
                return
            number = self.agreement.propose_votes(votes)
            if number is None:
                raise NotPrimaryError(f"{self.label}: there are no members on a majority of the new electorate")
            self._send_soon()
            await self.wait(partial(self._is_settled, number))
            if not self._is_committed(number):
                reason = self.agreement.obstacle() or "there was no majority for a moment"
                raise UncertainError(f"{self.label}: sent, and not known to be committed: {reason}")
            if holding.configs[0].votes == votes:
                return

    def _can_propose_votes(self) -> bool:
        """Whether no other electorate is under way; if there is no majority, that is told first."""
        return self.agreement.obstacle() is not None or (self.primary and len(self.agreement.holding.configs) == 1)

    def _is_settled(self, number: int) -> bool:
        """Whether what we have proposed is committed or given up."""
        return all(it.number != number for it in self.agreement.pending)

    def _is_committed(self, number: int) -> bool:
        return self.agreement.holding.committed_numbers.get(self.agreement.incarnation, 0) >= number

    async def wait_primary(self) -> None:
        """Wait until messages can be committed."""
        await self.wait(lambda: self.primary)

    async def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds, which only messages or the primary component change."""
        await trio.lowlevel.checkpoint()
        task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            del self._waiters[task]
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            self._check_open()
            if condition():
                return
            self._waiters[task] = condition
            await trio.lowlevel.wait_task_rescheduled(abort)

    def _wake(self) -> None:
        """Let those go on whose condition holds; one that raises does so in its own task."""
        for task, condition in [*self._waiters.items()]:
            try:
                holds = self._closed or condition()
            except Exception:  # noqa: BLE001 - it is the caller's
                holds = True
            if holds:
                del self._waiters[task]
                trio.lowlevel.reschedule(task)

    def unique(self) -> bytes:
        """An id that no other member gives, and this one never again."""
        return self.agreement.unique().to_bytes(8, "big")

    def post(self, payload: bytes) -> None:
        """Send a message if that is possible now, and do not wait for it."""
        if self.agreement.obstacle() is None:
            self._put(_Submission(payload, None))

    def _put(self, submission: _Submission[T]) -> None:
        self._waiting.append(submission)
        self._waiting_bytes += len(submission.payload)
        if len(self._under_way) < _WINDOW:
            self._pack()
            self._send_soon()

    def _check_open(self) -> None:
        if self._closed:
            raise self._ended()

    def _ended(self) -> trio.ClosedResourceError:
        return trio.ClosedResourceError(f"{self.label}: the block that opened it has ended")

    def _check_primary(self) -> None:
        self._check_open()
        obstacle = self.agreement.obstacle()
        if obstacle is not None:
            raise NotPrimaryError(f"{self.label}: {obstacle}")

    @property
    def label(self) -> str:
        """The group and this member, for messages."""
        name = self._name.decode(errors="replace") if isinstance(self._name, bytes) else self._name
        return f"{name} on node {self.address.nodeid}" if self.joined.is_set() else name

    # -- the connection ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def taking_part(self, *beside: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
        """Take part while the block runs, and run other tasks beside it; the block begins once we have joined.

        At its end, what is under way has at most a second to be committed.
        """

        async def run() -> None:
            async with trio.open_nursery() as nursery:
                for task in (self._run, *beside):
                    nursery.start_soon(task)

        try:
            async with running_beside(run):
                await self.joined.wait()
                try:
                    yield
                finally:
                    with trio.move_on_after(_GRACE, shield=True):
                        await self.wait(lambda: not self.agreement.pending or self.agreement.obstacle() is not None)
        finally:
            self._closed = True
            self._give_up("the block that opened it has ended")
            self._wake()

    async def _run(self) -> None:
        """Take part, until cancelled."""
        async for session in triocoro.sessions(triocoro.open_views, self._name, endpoint=self._endpoint):
            try:
                async with session as views, trio.open_nursery() as nursery:
                    self.address = views.address
                    self.agreement.connected(views.address)
                    self._views, self._stuck, self._to_send = views, None, trio.Event()
                    self.joined.set()
                    nursery.start_soon(self._send, views)
                    nursery.start_soon(self._look_after)
                    while True:
                        self._take(await views.receive_batch())
            finally:
                self._views = None
                self.agreement.disconnected()
                self._react()

    def _take(self, events: Sequence[triocoro.ViewEvent]) -> None:
        agreement = self.agreement
        for event in events:
            if isinstance(event, Message):
                try:
                    agreement.deliver(event.sender, event.payload)
                except OtherProtocolError as error:
                    self._refuse(event.sender, error)
                except FrameError as error:
                    _logger.warning("%s: ignored a message of %s: %s", self.label, event.sender, error)
            elif isinstance(event, View):
                self._strangers.intersection_update(event.members)
                agreement.view(event.ring_id, event.members)
            elif isinstance(event, MessageLost):
                agreement.lost(event.payload)
        self._react()

    def _refuse(self, sender: Address, error: OtherProtocolError) -> None:
        """End, if we have no log; else let the other one know what we are, so that it ends."""
        if not self.agreement.holding.has_log:
            raise ProtocolError(f"{self.label}: member {sender} speaks another protocol: {error}") from None
        if sender not in self._strangers:
            self._strangers.add(sender)
            _logger.warning("%s: ignored a frame of %s: %s", self.label, sender, error)
            self.agreement.speak()

    async def _send(self, views: Views) -> None:
        """Send what could not be sent at once."""
        while True:
            await self._to_send.wait()
            while self._stuck is not None or self.agreement.outbox:
                frame = self._stuck if self._stuck is not None else self.agreement.next_frame()
                await views.send(frame)
                self._stuck = None
            self._to_send = trio.Event()

    async def _look_after(self) -> None:
        while True:
            await trio.sleep(_PATIENCE)
            self.agreement.tick()
            self._react()

    def _send_soon(self) -> None:
        """Send without waiting, which is quicker; the task does the rest."""
        while self._views is not None and self.agreement.outbox and not self._to_send.is_set():
            frame = self.agreement.next_frame()
            try:
                self._views.send_nowait(frame)
            except trio.WouldBlock:
                self._stuck = frame
                self._to_send.set()
            except (trio.ClosedResourceError, triocoro.ConnectionLostError):
                self._views = None

    def _react(self) -> None:
        """What follows from what the agreement has taken in."""
        obstacle = self.agreement.obstacle()
        if obstacle != self._obstacle:
            self._obstacle = obstacle
            _logger.info("%s: %s", self.label, obstacle or "there is a majority")
        if obstacle is not None:
            self._give_up(obstacle)
        if self._waiting:
            self._pack()
        self._send_soon()
        if self._waiters:
            self._wake()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _pack(self) -> None:
        """Propose what waits; what comes while entries are under way is packed into one."""
        while self._waiting and len(self._under_way) < _WINDOW:
            batch: list[_Submission[T]] = []
            size = 0
            while self._waiting and (not batch or size + len(self._waiting[0].payload) <= _BATCH_BYTES):
                batch.append(self._waiting.popleft())
                size += len(batch[-1].payload)
            self._waiting_bytes -= size
            parts = [_HEAD.pack(self.address.nodeid, self.address.pid)]
            for submission in batch:
                parts += (_SIZE.pack(len(submission.payload)), submission.payload)
            self._under_way[self.agreement.propose(b"".join(parts))] = batch
        self._make_room()

    def _make_room(self) -> None:
        """Let go on those who wait until fewer bytes wait."""
        if self._room and self._waiting_bytes <= _WAITING_BYTES:
            self._room.unpark_all()

    def _give_up(self, obstacle: str) -> None:
        """Tell those who wait that we are not in the primary component."""
        sent = self.agreement.withdraw()
        for number, batch in self._under_way.items():
            for submission in batch:
                error: Exception
                if number <= sent:
                    error = UncertainError(f"{self.label}: sent, and not known to be committed: {obstacle}")
                else:
                    error = self._not_sent(obstacle)
                submission.settle(Error(error))
        self._under_way.clear()
        while self._waiting:
            submission = self._waiting.popleft()
            submission.settle(Error(self._not_sent(obstacle)))
        self._waiting_bytes = 0
        self._make_room()

    def _not_sent(self, obstacle: str) -> Exception:
        return self._ended() if self._closed else NotPrimaryError(f"{self.label}: {obstacle}")

    # -- what the agreement tells --------------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Apply the messages of a committed entry, and answer those who wait for them."""
        payload = entry.payload
        sender = Address(*_HEAD.unpack_from(payload))
        batch = self._under_way.pop(entry.number, None) if entry.incarnation == self.agreement.incarnation else None
        at = _HEAD.size
        place = 0
        while at < len(payload):
            (size,) = _SIZE.unpack_from(payload, at)
            at += _SIZE.size
            self.count += 1
            result = self._application.apply(sender, payload[at : at + size], entry.epoch, self.count)
            at += size
            if batch is not None:
                batch[place].settle(Value(result))
                place += 1

    def snapshot(self) -> Iterable[bytes]:
        """The number of messages, and the state of the application."""
        count, chunks = self.count, self._application.snapshot()

        def both() -> Iterable[bytes]:
            yield _COUNT.pack(count)
            yield from chunks

        return both()

    def restore(self, chunks: Sequence[bytes], *, discards: bool) -> None:
        """Take what `snapshot` of another member gave. What we were waiting for may be in it."""
        discards = discards and self.count > 0
        (count,) = _COUNT.unpack_from(chunks[0])
        if discards:
            _logger.warning(
                "%s: discards what was committed here, up to %d messages: others have begun without it. An operator has"
                " bootstrapped them, or members on all nodes had no state",
                self.label,
                self.count,
            )
        self.count = count
        self._application.restore((chunks[0][_COUNT.size :], *chunks[1:]), count, discards=discards)
        done = self.agreement.holding.committed_numbers.get(self.agreement.incarnation, 0)
        for number in [number for number in self._under_way if number <= done]:
            reached("what a member has sent is in a snapshot")
            for submission in self._under_way.pop(number):
                error = UncertainError(f"{self.label}: committed or not, and the log has been cut behind it")
                submission.settle(Error(error))
