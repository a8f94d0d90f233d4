"""Replicated state: a state machine whose commands a majority has before any member applies them."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Generic, Protocol, TypeVar, cast, final

import attrs

from triocoro import Address, Endpoint, HasEndpoint, reached

from ._electorate import electorate
from ._errors import CommandFailedError, NotPrimaryError, UncertainError, described
from ._frames import REPLICA
from ._member import Member
from ._participant import Participant
from ._validate import check_function, checked_bytes, checked_chunks, checked_payload

R = TypeVar("R")

REMEMBERED = 10_000
"""How many commands with an id are remembered, so that one that comes again is not applied again."""

MAX_ID = 255
"""The bytes of the longest id of a command."""

_COMMAND, _WITH_ID, _READ = b"c", b"i", b"r"
_SIZE = struct.Struct(">Q")
_LENGTHS = struct.Struct(">BBQ")  # of the id, whether the command failed, length of the result


class Machine(Protocol):
    """A state machine. `apply` must be deterministic: the same commands give the same state and results everywhere."""

    def apply(self, command: bytes, /) -> bytes:
        """Change the state, and return the result. An exception is a result too."""
        ...

    def snapshot(self) -> Iterable[bytes]:
        """The state in chunks. Commands may be applied while they are taken, and must not change them.

        So a generator must be made of a copy: its body runs only when a chunk is taken.
        """
        ...

    def restore(self, chunks: Iterable[bytes], /) -> None:
        """Take the state of another member in place of our own."""


M = TypeVar("M", bound=Machine)


@final
@attrs.define
class _Outcome:
    """What a command gave."""

    result: bytes
    failed: bool = False

    def get(self) -> bytes:
        if self.failed:
            raise CommandFailedError(self.result.decode())
        return self.result


@final
class _Application(Generic[M]):
    """Applies what is committed to the machine."""

    def __init__(self, machine: M) -> None:
        self.machine = machine
        self._outcomes: OrderedDict[bytes, _Outcome] = OrderedDict()

    def apply(self, _sender: Address, payload: bytes, _epoch: int, _index: int) -> _Outcome | None:
        kind, rest = payload[:1], payload[1:]
        if kind == _READ:
            return None
        if kind == _COMMAND:
            return self._run(rest)
        size = rest[0]
        key, command = rest[1 : size + 1], rest[size + 1 :]
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = self._run(command)
            if len(self._outcomes) > REMEMBERED:
                self._outcomes.popitem(last=False)
        else:
            reached("a command is answered from memory")
        return outcome

    def _run(self, command: bytes) -> _Outcome:
        try:
            return _Outcome(checked_bytes(self.machine.apply(command), "the result of apply"))
        except Exception as exc:  # noqa: BLE001 - a result like any other
            return _Outcome(described(exc), failed=True)

    def snapshot(self) -> Iterable[bytes]:
        outcomes = [
            _LENGTHS.pack(len(key), outcome.failed, len(outcome.result)) + key + outcome.result
            for key, outcome in self._outcomes.items()
        ]
        head = b"".join(outcomes)
        # The machine is asked now, not when the head has been sent: commands are applied until then.
        return chain((_SIZE.pack(len(head)) + head,), checked_chunks(self.machine.snapshot()))

    def restore(self, chunks: Iterable[bytes], _index: int, *, discards: bool) -> None:  # noqa: ARG002 - `Application`
        waiting = iter(chunks)
        head = next(waiting)
        size = _SIZE.size + _SIZE.unpack_from(head)[0]
        while len(head) < size:
            head += next(waiting)
        self._outcomes.clear()
        at = _SIZE.size
        while at < size:
            key_size, failed, result_size = _LENGTHS.unpack_from(head, at)
            at += _LENGTHS.size
            key = head[at : at + key_size]
            at += key_size
            self._outcomes[key] = _Outcome(head[at : at + result_size], bool(failed))
            at += result_size

        def rest() -> Iterable[bytes]:
            yield head[size:]
            yield from waiting

        self.machine.restore(rest())


@final
class Replica(Participant["_Outcome | None"], Generic[M]):
    """A member that has the state. Objects of this class come from `open_replica`."""

    def __init__(self, member: Member[_Outcome | None], machine: M) -> None:
        super().__init__(member)
        self._machine = machine

    @property
    def machine(self) -> M:
        """The machine of this member, which may be behind those of others. Do not change it."""
        return self._machine

    async def wait(self, condition: Callable[[M], bool]) -> None:
        """Wait until the machine of this member fulfils a condition.

        Raises:
            TypeError: `condition` is an async function.
            trio.ClosedResourceError: the block that opened it has ended.

        Cancelled: nothing has changed.
        """
        check_function(condition)
        await self._member.wait(lambda: condition(self._machine))

    async def execute(self, command: bytes, *, id: bytes | None = None) -> bytes:  # noqa: A002 - the word
        """Have a command applied by all members, and wait for its result.

        What this does not promise: that others have applied it when it returns, or that one that was not committed in
        time never will be (`UncertainError`).

        Args:
            command: for `Machine.apply`, at most 512 KiB. The results of those with an id are kept, and sent with
                snapshots: keep them small.
            id: 1 to 255 bytes that no other command has. If a command with it was applied before, it is not applied
                again, and the result is that of the first time. The latest 10,000 ids are remembered.

        Raises:
            CommandFailedError: `apply` raised an exception.
            NotPrimaryError: there is no majority; the command was not sent, and will never be applied.
            UncertainError: the command was sent, and then the majority or the connection was lost. It may be applied
                or not. Call it again with the same `id`, or use `ensure`.
            trio.ClosedResourceError: the block that opened it has ended; nothing was sent.
            TypeError, ValueError: an argument is none of the above; nothing was sent.

        Cancelled: the command may be applied or not.
        """
        command = checked_payload(command)
        if id is None:
            payload = _COMMAND + command
        else:
            key = checked_bytes(id, "an id")
            if not 0 < len(key) <= MAX_ID:
                raise ValueError(f"expected an id of 1 to {MAX_ID} bytes, not of {len(key)}")
            payload = _WITH_ID + bytes([len(key)]) + key + command
        outcome = await self._member.submit(payload)
        if outcome is None:
            raise AssertionError("a command without an outcome")
        return outcome.get()

    async def read(self, query: Callable[[M], R]) -> R:
        """Ask the machine, once everything that was committed before this call has been applied.

        What this does not promise: that the result is still true when it returns. To change what was read, let one
        command do both.

        Args:
            query: a function of the machine, which must not change it.

        Returns:
            what it returns; its exceptions come out.

        Raises:
            NotPrimaryError, UncertainError: there is no majority, so what this member has may be out of date.
            TypeError: `query` is an async function.
            trio.ClosedResourceError: the block that opened it has ended.

        Cancelled: nothing has changed.
        """
        check_function(query)
        await self._member.submit(_READ)
        return query(self._machine)

    async def ensure(self, command: bytes) -> bytes:
        """Have a command applied once, however long it takes: wait for a majority, and repeat it until it is committed.

        What this does not promise: "once" if 10,000 other commands with ids come in between, or if the memory of a
        majority is lost meanwhile.

        Returns:
            its result, as `execute`.

        Raises:
            CommandFailedError: `apply` raised an exception.
            TypeError, ValueError: as `execute`.
            trio.ClosedResourceError: the block that opened it has ended.

        Cancelled: the command may be applied or not.
        """
        key = self._member.unique()
        while True:
            await self._member.wait_primary()
            with suppress(NotPrimaryError, UncertainError):
                return await self.execute(command, id=key)


@asynccontextmanager
async def open_replica(
    name: bytes | str,
    machine: M,
    *,
    nodes: Mapping[int, int] | Collection[int] | None = None,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncGenerator[Replica[M], None]:
    """Take part in a replicated state machine: all members apply the same commands in the same order.

    What this does not promise: all that `open_safe_group` does not. A member that was away for long, or is new, gets a
    snapshot of another member's machine.

    Args:
        name: of the group. All its members must be of this kind, with machines that do the same.
        machine: applies commands; see `Machine`. It must be new, and nothing else may change it.
        nodes: the electorate: votes by node, or nodes with a vote each; by default, the node list of corosync.conf with
            its `quorum_votes`. It counts only where a log begins; later, `change_nodes` changes it.
        endpoint: the daemon to connect to, or a node of a test cluster; by default the default endpoint.

    Raises: as `open_safe_group`.

    Cancelled: as `open_safe_group`.

    Source: cpg_overview(3).
    """
    given = cast("object", machine)
    for method in ("apply", "snapshot", "restore"):
        if isinstance(given, type) or not callable(getattr(given, method, None)):
            raise TypeError(f"expected a machine with the methods apply, snapshot and restore, not {given!r}")
        check_function(getattr(given, method))
    votes = await electorate(name, nodes, endpoint)
    member: Member[_Outcome | None] = Member(name, REPLICA, votes, _Application(machine), endpoint)
    async with member.taking_part():
        yield Replica(member, machine)
