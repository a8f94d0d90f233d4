"""Locks and leadership: one holder at a time, with a token that only grows.

The log has a queue of clients; one client is one block that wants the lock. It is always in one of these states:

=========  ===========================================  =============================================================
state      it                                           what ends it
=========  ===========================================  =============================================================
asking     sends a request                              the request is committed: waiting
waiting    is in the queue                              it is the first: granted. It is in the queue no more, since all
                                                        memory was lost or its lease was over: asking
granted    is the first, and sends a renewal            the renewal is committed while it holds the lock, and the lease
                                                        is not over: holding. Else: granted, waiting or asking, by what
                                                        the queue says
holding    runs the block, and sends renewals           the lease is over, or another one holds the lock: lost. The
                                                        block ends: over
lost, over sends a release, and does not wait for it    nothing
=========  ===========================================  =============================================================

Each member watches the first client. If that one has not renewed its lease for `lock_delay`, the member sends an
expiry, which names the renewal that it has seen; it counts if that is still the latest one.
"""

from __future__ import annotations

import struct
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, final

import attrs
import trio

from triocoro import Address, Endpoint, HasEndpoint, reached

from ._block import running_beside
from ._electorate import cmap_items, electorate
from ._errors import LeaseLostError, NotPrimaryError, UncertainError
from ._frames import LOCK
from ._member import Member
from ._participant import Participant
from ._validate import checked_seconds

DRIFT: Final = 0.01
"""How much faster or slower a clock may run than another one."""
RENEWALS: Final = 5
"""How often a lease is renewed while it lasts."""
_SILENCE: Final = ("runtime.config.totem.token", "runtime.config.totem.consensus")  # milliseconds
_SYNC: Final = 0.2  # seconds in which the services synchronise after a ring has formed

_REQUEST, _RELEASE, _RENEW, _EXPIRE = b"q", b"l", b"n", b"x"
_CLOCK = struct.Struct(">Q")  # the wall clock in milliseconds
_CLIENT = struct.Struct(">QQIId")
_INDEX = struct.Struct(">Q")
_TOKEN = struct.Struct(">QQ")


@final
@attrs.frozen(order=True)
class Token:
    """A fencing token: each holder's is greater than those of all holders before it.

    Attributes:
        epoch: the sequence number of the ring in which the lock was granted.
        index: a number that grows with each holder.
    """

    epoch: int
    index: int


@final
@attrs.frozen
class _Client:
    """One who wants the lock: the incarnation of its member, and a number."""

    incarnation: int
    number: int
    address: Address = attrs.field(eq=False)
    """Of its member, when it asked."""
    lock_delay: float = attrs.field(eq=False)
    """For how long its lease lasts."""

    def encode(self) -> bytes:
        return _CLIENT.pack(self.incarnation, self.number, self.address.nodeid, self.address.pid, self.lock_delay)

    @classmethod
    def decode(cls, data: bytes) -> _Client:
        incarnation, number, nodeid, pid, lock_delay = _CLIENT.unpack_from(data)
        return cls(incarnation, number, Address(nodeid, pid), lock_delay)


def _message(kind: bytes, client: _Client) -> bytes:
    return kind + _CLOCK.pack(int(time.time() * 1000)) + client.encode()


@final
class _Queue:
    """The state of a lock: who waits, the first of whom holds it."""

    def __init__(self) -> None:
        self.clients: list[_Client] = []
        self.token: Token = Token(0, 0)
        self.renewed: int = 0
        """The index of the message that granted the lock, or renewed it."""
        self.seen: float = 0.0
        """When this member applied that message."""

    @property
    def holder(self) -> _Client | None:
        """The client that has the lock."""
        return self.clients[0] if self.clients else None

    def apply(self, _sender: Address, payload: bytes, epoch: int, index: int) -> None:
        kind, rest = payload[:1], payload[1 + _CLOCK.size :]
        before = self.holder
        client = _Client.decode(rest)
        if kind == _REQUEST:
            if client not in self.clients:
                self.clients.append(client)
        elif kind == _RELEASE:
            if client in self.clients:
                self.clients.remove(client)
        elif kind == _RENEW:
            if client == before:
                self._note(index)
        elif kind == _EXPIRE:
            (renewed,) = _INDEX.unpack_from(rest, _CLIENT.size)
            if client == before and renewed == self.renewed:
                self.clients.remove(client)
            else:
                reached("an expiry comes after a renewal, or after the end")
        if self.holder is not None and self.holder != before:
            # If all have lost their memory in one ring, the wall clock makes tokens grow.
            (clock,) = _CLOCK.unpack_from(payload, 1)
            self.token = Token(epoch, max(self.token.index + 1, clock))
            self._note(index)

    def _note(self, index: int) -> None:
        self.renewed = index
        self.seen = trio.current_time()

    def snapshot(self) -> Iterable[bytes]:
        head = _TOKEN.pack(self.token.epoch, self.token.index) + _INDEX.pack(self.renewed)
        return (head + b"".join(client.encode() for client in self.clients),)

    def restore(self, chunks: Iterable[bytes], _index: int, *, discards: bool) -> None:  # noqa: ARG002 - `Application`
        data = b"".join(chunks)
        self.token = Token(*_TOKEN.unpack_from(data))
        (self.renewed,) = _INDEX.unpack_from(data, _TOKEN.size)
        starts = range(_TOKEN.size + _INDEX.size, len(data), _CLIENT.size)
        self.clients = [_Client.decode(data[start:]) for start in starts]
        self.seen = trio.current_time()


def _clocks() -> tuple[float, float]:
    """Trio's clock, and one that goes on while the machine sleeps."""
    return trio.current_time(), time.clock_gettime(time.CLOCK_BOOTTIME)


@final
class _Lease:
    """For how long no other member can hold the lock."""

    def __init__(self, lasts: float) -> None:
        self.since: tuple[float, float] | None = None
        """What the clocks showed when it began; `None` if it has not, or was given up."""
        self._lasts = lasts

    def remaining(self) -> float:
        if self.since is None:
            return 0.0
        passed = max(now - then for now, then in zip(_clocks(), self.since, strict=True))
        return max(0.0, self._lasts - passed)


@final
class Held:
    """A lock that we hold, or held. Objects of this class come from `Lock.hold` and `Leadership.lead`."""

    def __init__(self, token: Token, lease: _Lease, label: str) -> None:
        self._token = token
        self._lease = lease
        self._label = label

    def __repr__(self) -> str:
        return f"<triocoro.recipes.Held {self._label}, {self._token}, {self.remaining():.3f} s>"

    @property
    def token(self) -> Token:
        """The fencing token. A resource that has seen a greater one must refuse this one."""
        return self._token

    def check(self) -> None:
        """Return if no other member can hold the lock at this instant.

        It sends nothing. What is done after it may still come late: only a resource that compares tokens is protected
        from that.

        Raises:
            LeaseLostError: another member may hold the lock.
        """
        if not self.remaining():
            raise LeaseLostError(f"{self._label}: {self._token} is not ours any more, or may not be")

    def remaining(self) -> float:
        """For how many seconds no other member can hold the lock, if it is not renewed meanwhile."""
        return self._lease.remaining()


@final
class _Candidate:
    """This program's part in a lock."""

    def __init__(self, member: Member[None], queue: _Queue, lock_delay: float) -> None:
        self.member = member
        self.queue = queue
        self._lock_delay = lock_delay
        self._numbers = 0

    @property
    def holder(self) -> Address | None:
        """The member that holds the lock, as far as this one knows."""
        client = self.queue.holder
        return client.address if client is not None else None

    async def watch(self) -> None:
        """Take the lock from each holder that has not renewed it for so long that its lease is over."""
        queue = self.queue
        while True:
            await self.member.wait(lambda: queue.holder is not None and self.member.primary)
            holder, renewed = queue.holder, queue.renewed
            if holder is None:
                continue
            with trio.move_on_at(queue.seen + holder.lock_delay):
                await self.member.wait(partial(self._is_over, holder, renewed))
            if not self._is_over(holder, renewed):
                reached("the lease of a holder is over")
                with suppress(NotPrimaryError, UncertainError):
                    await self.member.submit(_message(_EXPIRE, holder) + _INDEX.pack(renewed))

    def _is_over(self, holder: _Client, renewed: int) -> bool:
        """Whether another one holds the lock, or the holder has renewed its lease."""
        return (holder, renewed) != (self.queue.holder, self.queue.renewed)

    @asynccontextmanager
    async def holding(self) -> AsyncGenerator[Held, None]:  # noqa: ASYNC910 - the beginning is one
        """Wait for the lock. The block is cancelled when it may be lost; the end then does not raise."""
        self._numbers += 1
        incarnation, address = self.member.agreement.incarnation, self.member.address
        client = _Client(incarnation, self._numbers, address, self._lock_delay)
        lease = _Lease(self._lock_delay * (1 - DRIFT))
        try:
            token = await self._granted(client, lease)
            with trio.CancelScope() as scope:  # noqa: ASYNC912 - for the caller's block
                async with running_beside(partial(self._renew, client, token, lease, scope)):
                    yield Held(token, lease, self.member.label)
        finally:
            lease.since = None
            self.member.post(_message(_RELEASE, client))

    def _holds(self, client: _Client, token: Token) -> bool:
        return client == self.queue.holder and self.queue.token == token

    async def _granted(self, client: _Client, lease: _Lease) -> Token:
        """Wait in the queue for the lock, and for a lease that is not over yet."""
        queue = self.queue
        while True:
            if client not in queue.clients:
                await self._commit(_message(_REQUEST, client))
            await self.member.wait(lambda: client == queue.holder or client not in queue.clients)
            if client == queue.holder:
                token = queue.token
                await self._extend(client, token, lease)
                if lease.remaining():
                    return token

    async def _extend(self, client: _Client, token: Token, lease: _Lease) -> None:
        """Renew the lease: it begins before the message is sent, and counts once that is committed."""
        since = _clocks()
        await self._commit(_message(_RENEW, client))
        lease.since = since if self._holds(client, token) else None

    async def _renew(  # noqa: ASYNC910 - a task of our own
        self, client: _Client, token: Token, lease: _Lease, scope: trio.CancelScope
    ) -> None:
        """Renew the lease until it is lost, and then cancel."""
        # Once the member is gone, the lease cannot be renewed.
        with trio.CancelScope() as lasting, suppress(trio.ClosedResourceError):  # noqa: ASYNC912 - as above
            while self._holds(client, token):
                lasting.deadline = trio.current_time() + lease.remaining()
                await trio.sleep(self._lock_delay / RENEWALS)
                await self._extend(client, token, lease)
        lease.since = None
        scope.cancel()

    async def _commit(self, payload: bytes) -> None:
        """Have a message committed, once or more often."""
        while True:
            await self.member.wait_primary()
            with suppress(NotPrimaryError, UncertainError):
                return await self.member.submit(payload)


@final
class Lock(Participant[None]):
    """A lock that one block in the cluster holds at a time. Objects of this class come from `open_lock`."""

    def __init__(self, candidate: _Candidate) -> None:
        super().__init__(candidate.member)
        self._candidate = candidate

    @property
    def holder(self) -> Address | None:
        """The member that holds it, as far as this one knows, or `None`. It may have lost it meanwhile."""
        return self._candidate.holder

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[Held, None]:
        """Wait for the lock, and hold it while the block runs. Those who wait get it in the order in which they asked.

        What this does not promise: that another member does not hold it as well while code runs that has not called
        `Held.check` just before, or stands still after it. Only a resource that refuses lower tokens is protected.

        Returns:
            an async context manager, which gives a `Held`.

        Raises:
            LeaseLostError: the lock may have been lost, so the block was cancelled.
            trio.ClosedResourceError: the block that opened the lock has ended.

        Cancelled: the lock is released in the background; if there is no majority, it is free after `lock_delay`.
        """
        over = False
        async with self._candidate.holding() as held:
            yield held
            over = True
        if not over:
            raise LeaseLostError(f"{self._candidate.member.label}: the lock may have been lost while the block ran")


@final
class Leadership(Participant[None]):
    """An office that one member in the cluster holds at a time. Objects of this class come from `open_leadership`."""

    def __init__(self, candidate: _Candidate) -> None:
        super().__init__(candidate.member)
        self._candidate = candidate

    @property
    def leader(self) -> Address | None:
        """The member that leads, as far as this one knows, or `None`. It may have been deposed meanwhile."""
        return self._candidate.holder

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[Held, None]:
        """Wait until we lead, and run the block while we do. It is cancelled when another member may lead.

        The end of the block does not raise if that was so, nor if `Held.check` did: call it again to be a candidate
        again.

        What this does not promise: as `Lock.hold`.

        Returns:
            an async context manager, which gives a `Held`.

        Raises:
            trio.ClosedResourceError: the block that opened the leadership has ended.

        Cancelled: as `Lock.hold`.
        """
        async with self._candidate.holding() as held:
            try:
                yield held
            except LeaseLostError:
                if held.remaining():
                    raise  # another one's


@asynccontextmanager
async def _open(
    name: bytes | str,
    lock_delay: float | None,
    nodes: Mapping[int, int] | Collection[int] | None,
    endpoint: Endpoint | HasEndpoint | None,
) -> AsyncGenerator[_Candidate, None]:
    if lock_delay is not None:
        checked_seconds(lock_delay, "lock_delay")
    votes = await electorate(name, nodes, endpoint)
    shortest = await shortest_lock_delay(endpoint)
    delay = 2 * shortest if lock_delay is None else lock_delay
    if delay < shortest:
        raise ValueError(
            f"a lock_delay of {lock_delay} s; Corosync may take so long to find a dead node that every such death would"
            f" end all leases: it must be at least {shortest:.3f} s"
        )
    queue = _Queue()
    candidate = _Candidate(Member(name, LOCK, votes, queue, endpoint), queue, delay)
    async with candidate.member.taking_part(candidate.watch):
        yield candidate


async def shortest_lock_delay(endpoint: Endpoint | HasEndpoint | None = None) -> float:
    """The least `lock_delay`: a lease must outlast the time that Corosync takes to give up a dead node.

    Args:
        endpoint: the daemon to ask for `token` and `consensus`.

    Returns:
        seconds.

    Raises: as `triocoro.open_cmap`; while there is no daemon, it waits.

    Cancelled: nothing has changed.

    Source: corosync.conf(5).
    """
    totem = dict(await cmap_items("runtime.config.totem.", endpoint))
    silence = sum(value for value in map(totem.get, _SILENCE) if isinstance(value, int)) / 1000
    # lease - renewal interval > silence, where the lease is delay * (1 - DRIFT) and the interval delay / RENEWALS.
    return (silence + _SYNC) / (1 - DRIFT - 1 / RENEWALS)


@asynccontextmanager
async def open_lock(
    name: bytes | str,
    *,
    lock_delay: float | None = None,
    nodes: Mapping[int, int] | Collection[int] | None = None,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Lock, None]:
    """Take part in a lock: a block of one member in the cluster holds it at a time.

    What this does not promise:

    - A holder that stands still, or acts after `Held.check`, may act while another member holds the lock. Give the
      resource `Held.token`, and let it refuse lower ones.
    - The clocks of the nodes must not run faster or slower than each other by more than one per cent. A machine that
      is paused must have a clock that shows it (CLOCK_BOOTTIME does after a suspend, and may not after a snapshot of a
      virtual machine is restored).
    - Tokens grow while any majority keeps its memory. If all lose it, they still do if Corosync has formed a ring since
      then and keeps its `state_dir`, or else if the nodes' wall clocks have not gone back.
    - All else that `open_safe_group` does not promise.

    The state is kept in memory by all members, so each node needs one that stays, whether it wants the lock or not.

    Args:
        name: of the group, which is this lock's alone.
        lock_delay: the seconds after which a holder that has not renewed its lease has lost it; by default, twice
            `shortest_lock_delay`. Members may have different ones: that of the holder counts.
        nodes: the electorate: votes by node, or nodes with a vote each; by default, the node list of corosync.conf with
            its `quorum_votes`. It counts only where a log begins.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises:
        TypeError: `lock_delay` is no number.
        ValueError: it is less than `shortest_lock_delay`, so that each death of a node would end all leases.
        others: as `open_safe_group`.

    Cancelled: we are not a member. What we held is free after `lock_delay`, or at once if the release is committed.

    Source: corosync.conf(5) has `token` and `consensus`.
    """
    async with _open(name, lock_delay, nodes, endpoint) as candidate:
        yield Lock(candidate)


@asynccontextmanager
async def open_leadership(
    name: bytes | str,
    *,
    lock_delay: float | None = None,
    nodes: Mapping[int, int] | Collection[int] | None = None,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Leadership, None]:
    """Be a candidate for an office: a member in the cluster leads at a time, and the others take over when it is lost.

    What this does not promise: as `open_lock`. The leader is who holds the lock.

    Args:
        name: of the group, which is this office's alone.
        lock_delay: the seconds after which a leader that has not renewed its lease is deposed; by default, twice
            `shortest_lock_delay`. Candidates may have different ones: that of the leader counts.
        nodes: as for `open_lock`.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises: as `open_lock`.

    Cancelled: we are no candidate. An office that we held is free after `lock_delay`, or at once if that is committed.

    Source: corosync.conf(5) has `token` and `consensus`.
    """
    async with _open(name, lock_delay, nodes, endpoint) as candidate:
        yield Leadership(candidate)
