"""Round trips to the daemon: connecting, requests in their turn, retries, and requests that undo earlier ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, TypeVar, final

import trio

from ._backoff import retry
from ._enums import CsError
from ._errors import (
    CorosyncError,
    CorosyncUnavailableError,
    LibraryError,
    NoResourcesError,
    NotExistError,
    TryAgainError,
)
from ._lifetime import Lifetime
from ._raw import RawHandle
from ._services import Endpoint, ServiceSpec

T = TypeVar("T")
RawT = TypeVar("RawT")

GRACE: Final = 1.0
"""The most seconds that the end of a block waits for the daemon. What is not over by then completes in the background.
"""

MAY_PASS: Final = (TryAgainError, NoResourcesError)
"""What the end of a block waits out: the daemon is busy, or we lack a thread to wait for its answer."""


async def connect(service: ServiceSpec[RawT, object], endpoint: Endpoint, *, retrying: bool = True) -> RawT:
    """Connect to a service.

    Args:
        service: the service and its options.
        endpoint: the daemon.
        retrying: whether to try again while the daemon is starting.
    """
    try:
        if not retrying:
            return await endpoint.connect(service)
        about = {"service": service.name, "daemon": endpoint.label}
        return await retry(lambda: endpoint.connect(service), about=about)
    except (LibraryError, NotExistError) as exc:
        # A daemon that is about to end has removed its files already: NotExistError.
        raise CorosyncUnavailableError(
            f"cannot connect to {endpoint.label}: no Corosync daemon answers there; start it, then try again ({exc})",
            function=exc.function,
        ) from exc
    except CorosyncUnavailableError as exc:
        raise CorosyncUnavailableError(
            f"cannot connect to {endpoint.label}: {exc}", function=exc.function
        ) from exc.__cause__


def is_without_daemon(error: BaseException) -> bool:
    """Whether `connect` raised `error` because no daemon answers, rather than because it cannot be asked."""
    return isinstance(error, CorosyncUnavailableError) and isinstance(error.__cause__, (LibraryError, NotExistError))


@final
class Requests:
    """The round trips of one connection.

    The C libraries allow one request at a time on a handle. The raw handle's `lane` enforces that.
    """

    def __init__(self, raw: RawHandle[object], lifetime: Lifetime) -> None:
        self._raw = raw
        self._lifetime = lifetime
        self._undoing = 0
        self._grace_ends = 0.0

    def grace_ends(self) -> float:
        """Until when the end of a block may wait for the daemon. Ends that wait for it at once share one grace."""
        if not self._undoing:
            self._grace_ends = trio.current_time() + GRACE
        return self._grace_ends

    async def run(
        self,
        call: Callable[[], Awaitable[T]],
        *,
        retrying: bool = True,
        explain: Mapping[CsError, str] | None = None,
    ) -> T:
        """Make one round trip.

        Args:
            call: the raw handle's method.
            retrying: whether to repeat it while the daemon says try-again.
            explain: for each error code that has a special meaning here, the text of the error message.

        Cancelled: returns at once; the daemon may still carry out the request.
        """
        await self._lifetime.check_async()
        try:
            with self._lifetime.interruptible():
                return await (retry(call, about=self._lifetime.about) if retrying else call())
        except LibraryError as exc:
            await self._lifetime.fail(exc)
        except CorosyncError as exc:
            text = (explain or {}).get(exc.code)
            if text is None:
                raise
            raise type(exc)(f"{exc.function}: CS_ERR_{exc.code.name}: {text}", function=exc.function) from None

    async def undo(self, call: Callable[[], Awaitable[object]]) -> None:
        """Send a request that undoes an earlier one, and wait until it is over, for at most `GRACE` seconds.

        If that does not suffice, or the caller is cancelled, it completes in the background. The daemon's errors are
        dropped: what cannot be undone is gone, or ends with the connection.

        Args:
            call: the raw handle's method.
        """
        done = trio.Event()
        failures: list[Exception] = []
        lifetime = self._lifetime
        grace_ends = self.grace_ends()

        async def run() -> None:  # noqa: ASYNC910 - a task of its own
            try:
                # Not `run`, which would count the end of the connection as told, though the user does not hear of it.
                with lifetime.cancelled_at_end(trio.CancelScope()):
                    await retry(call, MAY_PASS, lifetime.about)
            except LibraryError as exc:
                lifetime.lose(exc)
            except CorosyncError:
                pass
            except Exception as exc:  # noqa: BLE001 - from here it would end the whole run
                failures.append(exc)
            finally:
                self._undoing -= 1
                done.set()

        if not lifetime.ended and not lifetime.forked:
            self._undoing += 1
            trio.lowlevel.spawn_system_task(run, name=f"triocoro: {lifetime.label}")
            with trio.move_on_at(grace_ends):
                await done.wait()
        if failures:
            raise failures[0]
        await trio.lowlevel.checkpoint()

    @asynccontextmanager
    async def lane(self) -> AsyncGenerator[None, None]:
        """Within the block, no round trip is under way on the handle."""
        borrower = object()
        lane = self._raw.lane
        with self._lifetime.interruptible():
            await lane.acquire_on_behalf_of(borrower)
        try:
            self._lifetime.check()
            yield
        finally:
            lane.release_on_behalf_of(borrower)
