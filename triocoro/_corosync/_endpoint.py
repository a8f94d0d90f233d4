"""A daemon of Corosync as an `Endpoint`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

import trio

from .._errors import BadHandleError, CorosyncUnavailableError
from .._raw import RawCpg, RawVotequorum

if TYPE_CHECKING:
    from ._shim import Connection

HandleT = TypeVar("HandleT")


@final
class CorosyncEndpoint:
    """A daemon that listens in our own namespaces, or in those of another process.

    Args:
        label: names the daemon in messages.
        namespaces: returns a pidfd of a process in the daemon's network and mount (and user) namespaces. It is called
            for each connect, on the Trio thread; the pidfd stays its owner's. What it raises comes out of the connect.
    """

    def __init__(self, label: str, namespaces: Callable[[], int] | None = None) -> None:
        self._label = label
        self._namespaces = namespaces

    def __repr__(self) -> str:
        return f"<CorosyncEndpoint {self._label!r}>"

    @property
    def label(self) -> str:
        return self._label

    @property
    def pid(self) -> int:
        return os.getpid()

    async def connect_cpg(self, *, initial_totem_conf: bool = False) -> RawCpg:
        _require_extension()
        from . import _cpg

        return await self._connect(
            lambda pidfd: _cpg.connect(pidfd, initial_totem_conf=initial_totem_conf), _cpg.disconnect, _cpg.CpgHandle
        )

    async def connect_votequorum(self) -> RawVotequorum:
        _require_extension()
        from . import _votequorum

        return await self._connect(_votequorum.connect, _votequorum.disconnect, _votequorum.VotequorumHandle)

    @trio.lowlevel.enable_ki_protection
    async def _connect(
        self,
        connect: Callable[[int], Connection],
        disconnect: Callable[[Connection], None],
        handle: Callable[[Connection, trio.CapacityLimiter], HandleT],
    ) -> HandleT:
        from ._handle import Undoable, in_background, run_undoable

        # A limiter of its own: forty connects to a frozen daemon would use up Trio's default one.
        lane = trio.CapacityLimiter(1)
        # Whoever takes the pidfd from here closes it: the worker, or we, if we are cancelled before it has begun.
        pidfds: list[int] = [] if self._namespaces is None else [os.dup(self._namespaces())]

        def trip() -> Connection:
            if self._namespaces is None:
                return connect(-1)
            try:
                pidfd = pidfds.pop()
            except IndexError:
                raise BadHandleError("the connect was cancelled") from None
            try:
                return connect(pidfd)
            finally:
                os.close(pidfd)

        def disconnect_late(connection: Connection) -> None:
            in_background(partial(disconnect, connection))

        try:
            connection = await run_undoable(Undoable(trip, disconnect), lambda call: call(), disconnect_late, lane)
        finally:
            while pidfds:
                os.close(pidfds.pop())
        return handle(connection, lane)


def _require_extension() -> None:
    try:
        from . import _shim
    except ImportError as error:
        raise CorosyncUnavailableError(
            "triocoro was installed without its extension module triocoro._corosync._shim, which real connections need:"
            " install a wheel for this platform, or a C compiler and then build triocoro again"
            f" (pip install --no-binary triocoro --force-reinstall triocoro); the import says: {error}"
        ) from error
    del _shim


SYSTEM = CorosyncEndpoint("the system's Corosync")
