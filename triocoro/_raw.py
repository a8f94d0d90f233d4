"""The one seam between the SDK and a Corosync, real or fake.

Two implementations stand behind these protocols: the C libraries (`triocoro._corosync`) and the in-memory cluster
(`triocoro.testing`). Everything above is shared between them. Rules that both keep:

- All methods are called from the Trio thread, inside a run. None of them blocks it.
- Group names and payloads come validated, as `bytes`; the values that come back are those of `triocoro._types`.
- `fileno()` is readable while events wait (one byte an event, so that FIONREAD counts them), readable and hung up once
  the daemon is gone, and writable while the daemon has room for notifications of requests.
- Round trips (the `async` methods) hold the handle's `lane` for as long as the daemon works on them. A cancelled caller
  is let go at once; the request goes on, its result is dropped, and the lane stays taken until it is over. A cancelled
  `join` that succeeds is undone by a leave.
- Each failure is a `CorosyncError` of the class that fits its code. A broken connection is `LibraryError`;
  `TryAgainError` is passed on. Nothing is retried here.
- After `close()` nothing else is called but `wait_closed()` and `close()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol, TypeVar, runtime_checkable

import trio

from ._types import (
    Address,
    CpgEvent,
    FlowControlState,
    GroupMember,
    IterationType,
    Track,
    VotequorumEvent,
    VotequorumInfo,
)

EventT_co = TypeVar("EventT_co", covariant=True)

MULTICAST_BURST = 64
"""How many messages one `multicast` may send for one poll: when the socket has room at all, more than these fit."""


class MulticastStatus(Enum):
    """Why `RawCpg.multicast` stopped."""

    SENT = auto()
    """All were sent."""
    TRY_AGAIN = auto()
    """The daemon is under flow control; nothing tells when it is over."""
    FULL = auto()
    """The notification socket is full: wait until `fileno()` is writable."""


class RawHandle(Protocol[EventT_co]):
    """One connection to one service of one daemon."""

    @property
    def lane(self) -> trio.CapacityLimiter:
        """One token, taken while a round trip is under way, even one whose caller was cancelled."""
        ...

    def fileno(self) -> int:
        """The fd to wait on."""
        ...

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[EventT_co]]:
        """Take what waits, without waiting, until `max_events` were taken or `max_bytes` of payload are exceeded.

        Returns:
            how many were taken (a fragment counts, yet makes no event), and the events.

        Raises:
            LibraryError: the connection is broken, and nothing was taken.
        """
        ...

    def close(self, *, leave: bool = False) -> None:
        """Give the handle up: finalize it elsewhere, when the lane is free, without blocking. Idempotent.

        Args:
            leave: leave the joined group (if any) first, so that others see LEAVE and not PROCDOWN.
        """
        ...

    async def wait_closed(self) -> None:
        """Wait until what `close()` began is over; this may take as long as the daemon is frozen."""
        ...

    @property
    def closed(self) -> bool:
        """Whether what `close()` began is over."""
        ...


class RawCpg(RawHandle[CpgEvent], Protocol):
    """A handle of libcpg."""

    @property
    def max_atomic_message_size(self) -> int:
        """Bytes; larger messages must go through `multicast_fragmented`."""
        ...

    @property
    def flow_control_state(self) -> FlowControlState:
        """What cpg_flow_control_state_get(3) says."""
        ...

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Send as many of `payloads` as go now, at most `MULTICAST_BURST`.

        Only while no round trip is under way: the lane is free, or the caller itself holds its token.

        Returns:
            how many were sent, and why it stopped.

        Raises:
            CorosyncError: sending failed, and nothing was sent by this call.
        """
        ...

    async def multicast_fragmented(self, payload: bytes) -> None:
        """Send one message above the atomic size, by round trips. `InterruptError`: a membership change broke it."""
        ...

    async def join(self, group: bytes) -> None:
        """cpg_join(3): asks for it; the own configuration change says when it is so."""
        ...

    async def leave(self, group: bytes) -> None:
        """cpg_leave(3): asks for it; the own configuration change says when it is so."""
        ...

    async def membership(self, group: bytes) -> tuple[Address, ...]:
        """cpg_membership_get(3)."""
        ...

    async def local_nodeid(self) -> int:
        """cpg_local_get(3)."""
        ...

    async def iterate(self, kind: IterationType, group: bytes | None) -> tuple[GroupMember, ...]:
        """cpg_iteration_initialize(3), all of cpg_iteration_next(3), and cpg_iteration_finalize(3), in one trip."""
        ...


class RawVotequorum(RawHandle[VotequorumEvent], Protocol):
    """A handle of libvotequorum."""

    async def info(self, nodeid: int) -> VotequorumInfo:
        """votequorum_getinfo(3)."""
        ...

    async def set_expected(self, expected_votes: int) -> None:
        """votequorum_setexpected(3)."""
        ...

    async def set_votes(self, nodeid: int, votes: int) -> None:
        """votequorum_setvotes(3)."""
        ...

    async def trackstart(self, flags: Track) -> None:
        """votequorum_trackstart(3)."""
        ...

    async def trackstop(self) -> None:
        """votequorum_trackstop(3)."""
        ...


@runtime_checkable
class Endpoint(Protocol):
    """A daemon to connect to. It finds its daemon anew at each connect, so it survives restarts."""

    @property
    def label(self) -> str:
        """Names the daemon in messages, such as ``"the system's Corosync"`` or ``"node 2"``."""
        ...

    @property
    def pid(self) -> int:
        """The pid under which our clients appear in groups."""
        ...

    async def connect_cpg(self, *, initial_totem_conf: bool = False) -> RawCpg:
        """cpg_model_initialize(3). `LibraryError`: no daemon there; `CorosyncUnavailableError`: no library here.

        A cancelled connect goes on elsewhere, and what it yields is closed.
        """
        ...

    async def connect_votequorum(self) -> RawVotequorum:
        """votequorum_initialize(3); otherwise as `connect_cpg`."""
        ...
