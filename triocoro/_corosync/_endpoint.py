"""`CorosyncEndpoint`: a real daemon to connect to."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast, final

import trio

from .._errors import CorosyncUnavailableError
from .._problem import Problem, reporting
from .._services import ServiceSpec
from .._workers import in_background
from ._namespaces import Namespaces

if TYPE_CHECKING:
    from ._handle import CorosyncHandle
    from ._shim import LibraryConnection

RawT = TypeVar("RawT")
HandleT = TypeVar("HandleT", bound="CorosyncHandle[object]")


@final
class CorosyncEndpoint:
    """A daemon that listens in our own namespaces, or in those of another process.

    Args:
        label: the daemon's name in messages.
        namespaces: returns a pidfd of a process in the daemon's network and mount (and user) namespaces. It is called
            at each connect, on the Trio thread. The pidfd is duplicated, never closed. An exception comes out of the
            connect.
    """

    def __init__(self, label: str, namespaces: Callable[[], int] | None = None) -> None:
        self._label = label
        self._namespaces = Namespaces(namespaces)

    def __repr__(self) -> str:
        return f"<CorosyncEndpoint {self._label!r}>"

    @property
    def label(self) -> str:
        return self._label

    @property
    def identity(self) -> Hashable:
        return "corosync", self._namespaces.pidfd

    @property
    def pid(self) -> int:
        return os.getpid()

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        _require_extension()
        from ._services import handle_class_and_flags

        handle_class, flags = handle_class_and_flags(service)
        return cast("RawT", await self._connect(handle_class, flags))

    @trio.lowlevel.enable_ki_protection
    async def _connect(self, kind: type[HandleT], flags: int) -> HandleT:
        from ._handle import Undoable, run_undoable

        library = kind.library
        # Not Trio's default limiter: forty connects to a frozen daemon would exhaust it.
        lane = trio.CapacityLimiter(1)

        def disconnect_late(connection: LibraryConnection) -> None:
            in_background(partial(library.disconnect, connection))

        with self._namespaces.entrance() as entrance:
            trip = Undoable(lambda: entrance.enter(lambda pidfd: library.connect(pidfd, flags)), library.disconnect)
            connection = await run_undoable(trip, lambda call: call(), disconnect_late, lane)
        return kind(connection, lane, self._namespaces)


def no_extension(error: ImportError) -> Problem:
    """Describe that the extension module cannot be imported."""
    return Problem(
        "no-extension",
        "triocoro was installed without its extension module triocoro._corosync._shim, which real connections need",
        "install a wheel for this platform; or a C compiler and Python's headers (Debian: gcc, libc6-dev and"
        " python3-dev), and then build triocoro again: pip install --force-reinstall --no-deps --no-cache-dir, followed"
        f" by what it was installed from (its git URL, folder or source distribution); the import says: {error}",
    )


def _require_extension() -> None:
    try:
        from . import _shim
    except ImportError as error:
        os.close(os.open(os.devnull, os.O_RDONLY))  # raises the error to report, if there are no more fds
        problem = no_extension(error)
        raise reporting(CorosyncUnavailableError(str(problem)), problem) from error
    del _shim


SYSTEM = CorosyncEndpoint("the system's Corosync")
