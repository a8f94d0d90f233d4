"""A daemon of Corosync as an `Endpoint`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

import trio

from .._errors import CorosyncUnavailableError
from .._raw import RawCfg, RawCmap, RawCpg, RawQuorum, RawVotequorum
from .._types import CmapMap
from ._namespaces import Namespaces

if TYPE_CHECKING:
    from ._handle import CorosyncHandle
    from ._shim import LibraryConnection

HandleT = TypeVar("HandleT", bound="CorosyncHandle[object]")


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
        self._namespaces = Namespaces(namespaces)

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
        from ._cpg import INITIAL_TOTEM_CONF, CorosyncCpg

        return await self._connect(CorosyncCpg, INITIAL_TOTEM_CONF if initial_totem_conf else 0)

    async def connect_votequorum(self, *, extra_info: bool = False) -> RawVotequorum:
        _require_extension()
        from ._votequorum import NEEDS_EXTRA_INFO, CorosyncVotequorum

        return await self._connect(CorosyncVotequorum, NEEDS_EXTRA_INFO if extra_info else 0)

    async def connect_quorum(self) -> RawQuorum:
        _require_extension()
        from ._quorum import CorosyncQuorum

        return await self._connect(CorosyncQuorum)

    async def connect_cmap(self, map: CmapMap) -> RawCmap:  # noqa: A002 - as in C
        _require_extension()
        from ._cmap import CorosyncCmap

        return await self._connect(CorosyncCmap, map)

    async def connect_cfg(self) -> RawCfg:
        _require_extension()
        from ._cfg import CorosyncCfg

        return await self._connect(CorosyncCfg)

    @trio.lowlevel.enable_ki_protection
    async def _connect(self, kind: type[HandleT], flags: int = 0) -> HandleT:
        from ._handle import Undoable, in_background, run_undoable

        library = kind.library
        # A limiter of its own: forty connects to a frozen daemon would use up Trio's default one.
        lane = trio.CapacityLimiter(1)

        def disconnect_late(connection: LibraryConnection) -> None:
            in_background(partial(library.disconnect, connection))

        with self._namespaces.entrance() as entrance:
            trip = Undoable(lambda: entrance.enter(lambda pidfd: library.connect(pidfd, flags)), library.disconnect)
            connection = await run_undoable(trip, lambda call: call(), disconnect_late, lane)
        return kind(connection, lane, self._namespaces)


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
