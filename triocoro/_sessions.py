"""Reconnecting: `sessions` opens a connection again and again, a session for each.

A session is a context manager around one `open_*`. Its start repeats the attempt while no daemon answers. Its end
absorbs the `ConnectionLostError` of the session's own connections, also out of the groups that nurseries raise.

The session's own connections are those that its `open_*` made, and those that were opened later within the session to
the same daemon: when that daemon dies, any of them may notice first.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from enum import Enum, auto
from functools import partial
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast, final, overload

import attrs
import trio

from . import _log
from ._backoff import Backoff
from ._cpg import Group, open_group
from ._errors import ConnectionLostError, TryAgainError
from ._lifetime import Lifetime, lifetime_of, noting_lifetimes
from ._member import DEFAULT_MAX_BUFFERED_BYTES
from ._requests import is_without_daemon
from ._runs import require_trio
from ._services import Endpoint, HasEndpoint

if sys.version_info < (3, 11):
    # Trio depends on it there.
    from exceptiongroup import BaseExceptionGroup

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LASTING: Final = 1.0
"""Seconds: a session that was lost earlier makes the next one wait, and the longer, the more of them there are."""


class _State(Enum):
    NEW = auto()
    ENTERING = auto()
    OPEN = auto()
    LEAVING = auto()
    OVER = auto()


@attrs.define
class _Course:
    """The course of a session, as its loop follows it."""

    epoch: int
    state: _State = _State.NEW
    lasted: float | None = None
    """Seconds from the end of entering to the end of leaving; `None` if the session has not been open."""
    lost: ConnectionLostError | None = None

    @property
    def failed_soon(self) -> bool:
        """Whether the session failed, and so soon that the next one had better wait."""
        return self.lasted is None or (self.lost is not None and self.lasted < LASTING)

    def check_over(self) -> None:
        """Raise `RuntimeError` unless the session has ended."""
        if self.state is _State.NEW:
            raise RuntimeError(
                f"session {self.epoch} was not entered: write `async with session as ...:` inside the loop over"
                " triocoro.sessions(...), or leave the loop with `break`"
            )
        if self.state is not _State.OVER:
            raise RuntimeError(f"session {self.epoch} has not ended: leave its `async with` block before the next one")


@final
class Session(AbstractAsyncContextManager[T_co]):
    """One connection of a loop over `sessions`; `async with` opens it. Objects of this class come from `sessions`."""

    def __init__(
        self, course: _Course, opener: Callable[[], AbstractAsyncContextManager[T_co]], backoff: Backoff
    ) -> None:
        self._course = course
        self._opener = opener
        self._backoff = backoff
        self._manager: AbstractAsyncContextManager[T_co] | None = None
        self._lifetimes: list[Lifetime] = []
        self._opened = 0.0

    def __repr__(self) -> str:
        return f"<triocoro.Session {self.epoch}, {self._course.state.name.lower()}>"

    @property
    def epoch(self) -> int:
        """The number of the session in its loop: 1, 2, and so on.

        Each epoch is another connection, and for a group another membership.
        """
        return self._course.epoch

    @property
    def lost(self) -> ConnectionLostError | None:
        """How the connection was lost; `None` until the block has ended, and if the connection was not lost.

        Its `unconfirmed` says how many of our messages had been sent and had not been delivered back.
        """
        return self._course.lost

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> T_co:
        """Connect. While no daemon answers, try again with growing pauses, until cancelled.

        Returns:
            what the `open_*` function yields.

        Raises:
            RuntimeError: the session was entered before.
            TypeError: `opener` is no `open_*` function: it did not return an async context manager.
            others: as the `open_*` function, except where the daemon is not there yet, or dies meanwhile.

        Cancelled: as the `open_*` function.
        """
        if self._course.state is not _State.NEW:
            raise RuntimeError(f"session {self.epoch} was entered before: a session can be entered once")
        self._course.state = _State.ENTERING
        try:
            value = await self._open()
        except BaseException:
            self._course.state = _State.OVER
            raise
        self._course.state = _State.OPEN
        self._opened = trio.current_time()
        return value

    async def _open(self) -> T_co:
        attempts = 0
        while True:
            manager = self._opener()
            if not hasattr(type(cast("object", manager)), "__aenter__"):
                raise TypeError(f"expected a function that returns an async context manager, not {manager!r}")
            try:
                with noting_lifetimes() as self._lifetimes:
                    value = await manager.__aenter__()
            except Exception as exc:
                if not self._may_pass(exc):
                    raise
                error = exc
            else:
                self._manager = manager
                if attempts:
                    self._note("connected", "session %d has found the daemon", level=logging.INFO)
                return value
            if not attempts:
                text = "session %d waits for the daemon: %s"
                self._note("waiting", text, error, level=logging.WARNING, error=str(error))
            attempts += 1
            pause = self._backoff.next_pause()
            self._note("retrying", "session %d tries again in %.3f s", pause, attempt=attempts, pause=pause)
            await trio.sleep(pause)

    def _note(self, event: str, text: str, *args: object, level: int = logging.DEBUG, **details: object) -> None:
        _log.note(_log.SESSIONS, event, {"epoch": self.epoch}, text, self.epoch, *args, level=level, **details)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool:
        """Disconnect as the `open_*` function does. Our own `ConnectionLostError` does not come out."""
        manager, self._manager = self._manager, None
        if manager is None:
            raise RuntimeError(f"session {self.epoch} is not open: it cannot be left")
        self._course.state = _State.LEAVING
        outcome = exc
        try:
            if await manager.__aexit__(exc_type, exc, tb):  # noqa: ASYNC102 - bounds itself
                outcome = None
        except BaseException as raised:  # noqa: BLE001, ASYNC103 - raised below, unless it is our own loss
            outcome = raised
        self._course.state = _State.OVER
        self._course.lasted = trio.current_time() - self._opened
        absorbed, rest = self._absorb(outcome, exc)
        self._course.lost = self._loss(absorbed)
        if self._course.lost is not None:
            unconfirmed = self._course.lost.unconfirmed
            text = "session %d lost its connection after %.3f s"
            self._note("lost", text, self._course.lasted, level=logging.INFO, unconfirmed=unconfirmed)
        if rest is None:
            return exc is not None  # noqa: ASYNC910 - the manager's end is one
        if rest is exc:
            return False  # noqa: ASYNC910 - as above
        context = rest.__context__
        try:
            raise rest
        finally:
            rest.__context__ = context

    def _absorb(
        self, outcome: BaseException | None, exc: BaseException | None
    ) -> tuple[BaseException | None, BaseException | None]:
        """Split off what is absorbed of what the manager raised when the block had raised `exc`."""
        if isinstance(outcome, ConnectionLostError) and outcome is not exc:
            return outcome, None  # the manager's own
        return _split(outcome, self._is_own)

    def _is_own(self, exc: BaseException) -> bool:
        """Whether `exc` is the loss of one of the session's own connections."""
        lifetime = lifetime_of(exc)
        return (
            isinstance(exc, ConnectionLostError)
            and lifetime is not None
            and any(lifetime.daemon == own.daemon and lifetime.number >= own.number for own in self._lifetimes)
        )

    def _may_pass(self, exc: BaseException) -> bool:
        """Whether another attempt to connect may succeed, once the daemon is there."""
        return all(
            isinstance(leaf, TryAgainError) or is_without_daemon(leaf) or self._is_own(leaf) for leaf in _leaves(exc)
        )

    def _loss(self, absorbed: BaseException | None) -> ConnectionLostError | None:
        """How the session was lost. If several connections were, the one with the most unconfirmed messages counts."""
        errors: list[BaseException] = [lifetime.loss() for lifetime in self._lifetimes if lifetime.lost]
        losses = [error for error in errors or _leaves(absorbed) if isinstance(error, ConnectionLostError)]
        return max(losses, key=lambda loss: loss.unconfirmed, default=None)


def _split(
    exc: BaseException | None, condition: Callable[[BaseException], bool]
) -> tuple[BaseException | None, BaseException | None]:
    """The part of an exception, or of a group, that fulfils a condition, and the rest."""
    if not isinstance(exc, BaseExceptionGroup):
        return (exc, None) if exc is not None and condition(exc) else (None, exc)
    group = cast("BaseExceptionGroup[BaseException]", exc)
    fulfils, rest = group.split(lambda inner: condition(inner))  # noqa: PLW0108 - Python 3.11 takes no bound method
    return (None, group) if fulfils is None else (fulfils, rest)


def _leaves(exc: BaseException | None) -> Iterator[BaseException]:
    """The exceptions in a group and its groups; an exception that is no group stands for itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", exc).exceptions:
            yield from _leaves(inner)
    elif exc is not None:
        yield exc


@final
class _Sessions(AsyncIterator[Session[T_co]]):
    """The iterator that `sessions` returns. It holds nothing open, and so may be abandoned at any time."""

    def __init__(self, opener: Callable[[], AbstractAsyncContextManager[T_co]]) -> None:
        self._opener = opener
        self._backoff = Backoff.of_sessions()
        self._course: _Course | None = None

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> Session[T_co]:
        require_trio()
        previous = self._course
        if previous is not None:
            previous.check_over()
        if previous is not None and previous.failed_soon:
            await trio.sleep(self._backoff.next_pause())
        else:
            self._backoff.reset()
            await trio.lowlevel.checkpoint()
        if self._course is not previous:
            raise trio.BusyResourceError("another task uses this iterator: call triocoro.sessions in each task")
        self._course = _Course(previous.epoch + 1 if previous else 1)
        return Session(self._course, self._opener, self._backoff)


@overload
def sessions(
    opener: bytes | str,
    /,
    *,
    totem_changes: bool = False,
    receive: bool = True,
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES,
    endpoint: Endpoint | HasEndpoint | None = None,
) -> AsyncIterator[Session[Group]]: ...


@overload
def sessions(
    opener: Callable[P, AbstractAsyncContextManager[T]], /, *args: P.args, **kwargs: P.kwargs
) -> AsyncIterator[Session[T]]: ...


def sessions(opener: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Session[Any]]:
    """Connect again whenever the connection is lost: one session after another, for as long as the loop runs.

    ::

        async for session in triocoro.sessions("chat"):
            async with session as group:
                async for event in group:
                    ...

    Entering a session connects. While no daemon answers, or it dies meanwhile, entering tries again with random,
    growing pauses of up to a second, until cancelled. If the connection is lost, the block is cancelled, as that of
    `open_group`, but no `ConnectionLostError` comes out: the code after the block runs, where `Session.lost` describes
    the loss, and the loop goes on with the next session. That is a new connection, and for a group a new membership,
    which begins with the `ConfigChange` of its own join.

    A block that ends otherwise ends its session, as that of `open_group` does. If it raised no exception, the loop goes
    on at once; `break` ends the loop. All other errors come out, from entering a session as well: for them, another
    attempt would not help, or would hide that messages were lost. The `ConnectionLostError` of another connection comes
    out too, unless it was opened within the session and to the same daemon.

    Args:
        opener: the name of a group, which `open_group` joins; or an `open_*` function, or any function that returns an
            async context manager, such as one of yours that opens several connections.
        *args: the arguments of that function.
        **kwargs: its keyword arguments, or those of `open_group`.

    Returns:
        an async iterator of sessions. It holds nothing open, so it may be abandoned. Each session must have been
        entered and left before the next one, which else is a `RuntimeError`.

    Raises:
        TypeError: `opener` is neither a name nor a function. Entering a session raises it if that function returns no
            async context manager.

    Cancelled: the next session has not begun.
    """
    if isinstance(opener, (bytes, str)):
        return _Sessions(partial(open_group, opener, *args, **kwargs))
    if not callable(opener):
        raise TypeError(f"expected the name of a group or an open_* function, not {opener!r}")
    function = cast("Callable[..., AbstractAsyncContextManager[Any]]", opener)
    return _Sessions(partial(function, *args, **kwargs))
