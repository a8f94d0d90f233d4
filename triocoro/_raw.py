"""The one seam between the SDK and a Corosync, real or fake.

Two implementations stand behind these protocols: the C libraries (`triocoro._corosync`) and the in-memory cluster
(`triocoro.testing`). Everything above is shared between them. Rules that both keep:

- All methods are called from the Trio thread, inside a run. None of them blocks it.
- Group names and payloads come validated, as `bytes`; the values that come back are those of `triocoro._types`.
- `fileno()` is readable while events wait (one byte an event, so that FIONREAD counts them), readable and hung up once
  the daemon is gone, and writable while the daemon has room for notifications of requests.
- Round trips (the `async` methods) hold the handle's `lane` for as long as the daemon works on them. A cancelled caller
  is let go at once; the request goes on, its result is dropped, and the lane stays taken until it is over. A cancelled
  `join` that succeeds is undone by a leave, a cancelled `track_add` by a `track_delete`, a cancelled `zcb_alloc` by a
  `zcb_free`.
- Each failure is a `CorosyncError` of the class that fits its code. A broken connection is `LibraryError`;
  `TryAgainError` is passed on. Nothing is retried here.
- After `close()` nothing else is called but `wait_closed()` and `close()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol, TypeVar

import trio

from ._enums import CmapTrack, FlowControlState, IterationType, QuorumType, ShutdownFlag, Track
from ._types import (
    Address,
    CmapNotification,
    CpgEvent,
    GroupMember,
    IPAddress,
    NodeStatus,
    QuorumEvent,
    RingId,
    RingStatus,
    TypedValue,
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

    async def zcb_alloc(self, size: int) -> memoryview:
        """cpg_zcb_alloc(3): a writable buffer of `size` bytes that the daemon sees too, 1 byte to the atomic size."""
        ...

    async def zcb_free(self, buffer: memoryview) -> None:
        """cpg_zcb_free(3) of what `zcb_alloc` returned; if cancelled, it goes on in the background.

        Raises:
            BufferError: slices of it are still in use. It stays, to be freed again; `buffer` itself is released.
            ValueError: this handle has not returned it, or it has been freed.
        """
        ...

    async def zcb_mcast_joined(self, buffer: memoryview, length: int) -> None:
        """cpg_zcb_mcast_joined(3): send the first `length` bytes of what `zcb_alloc` returned."""
        ...


class RawTracking(Protocol):
    """What the handles of libvotequorum and libquorum have in common."""

    async def trackstart(self, flags: Track) -> None:
        """votequorum_trackstart(3), quorum_trackstart(3)."""
        ...

    async def trackstop(self) -> None:
        """votequorum_trackstop(3), quorum_trackstop(3)."""
        ...


class RawVotequorum(RawHandle[VotequorumEvent], RawTracking, Protocol):
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

    async def qdevice_register(self, name: str) -> None:
        """votequorum_qdevice_register(3)."""
        ...

    async def qdevice_unregister(self, name: str) -> None:
        """votequorum_qdevice_unregister(3)."""
        ...

    async def qdevice_update(self, old_name: str, new_name: str) -> None:
        """votequorum_qdevice_update(3)."""
        ...

    async def qdevice_poll(self, name: str, cast_vote: bool, ring_id: RingId) -> None:  # noqa: FBT001 - as in C
        """votequorum_qdevice_poll(3)."""
        ...

    async def qdevice_master_wins(self, name: str, allow: bool) -> None:  # noqa: FBT001 - as in C
        """votequorum_qdevice_master_wins(3)."""
        ...

    async def get_qdevice_extra_info(self, nodeid: int) -> bytes:
        """votequorum_get_qdevice_extra_info; 0 is the daemon's own node. `NotSupportedError`: the library lacks it."""
        ...

    async def set_qdevice_extra_info(self, extra_info: bytes) -> None:
        """votequorum_set_qdevice_extra_info. `NotSupportedError`: the library lacks it."""
        ...


class RawQuorum(RawHandle[QuorumEvent], RawTracking, Protocol):
    """A handle of libquorum, of model v1."""

    @property
    def type(self) -> QuorumType:
        """What quorum_model_initialize(3) said."""
        ...

    async def is_quorate(self) -> bool:
        """quorum_getquorate(3)."""
        ...


class RawCmap(RawHandle[CmapNotification], Protocol):
    """A handle of libcmap.

    Keys, prefixes and values come validated; where a key is missing, the error is a `KeyNotFoundError`.
    """

    async def get(self, key: str) -> TypedValue:
        """cmap_get(3)."""
        ...

    async def set(self, key: str, value: TypedValue) -> None:
        """cmap_set(3)."""
        ...

    async def delete(self, key: str) -> None:
        """cmap_delete(3)."""
        ...

    async def increment(self, key: str) -> None:
        """cmap_inc(3)."""
        ...

    async def decrement(self, key: str) -> None:
        """cmap_dec(3)."""
        ...

    async def items(self, prefix: str) -> list[tuple[str, TypedValue]]:
        """cmap_iter_init(3), all of cmap_iter_next(3) with a cmap_get(3) each, and cmap_iter_finalize(3), in one trip.

        A key that is deleted meanwhile is left out.
        """
        ...

    async def track_add(self, tracker: int, key: str, track_type: CmapTrack) -> None:
        """cmap_track_add(3); an empty key stands for none.

        Args:
            tracker: what the notifications are to carry, since they may come before this returns; unique in the handle.
            key: the key, or the prefix.
            track_type: what to tell of.
        """
        ...

    async def track_delete(self, tracker: int) -> None:
        """cmap_track_delete(3). Notifications that wait by then are dropped."""
        ...


class RawCfg(RawHandle[ShutdownFlag], Protocol):
    """A handle of libcfg; its events are requests to shut down."""

    async def local_nodeid(self) -> int:
        """corosync_cfg_local_get(3)."""
        ...

    async def node_status(self, nodeid: int) -> NodeStatus:
        """corosync_cfg_node_status_get(3)."""
        ...

    async def ring_status(self) -> tuple[RingStatus, ...]:
        """corosync_cfg_ring_status_get(3)."""
        ...

    async def node_addresses(self, nodeid: int) -> tuple[IPAddress, ...]:
        """corosync_cfg_get_node_addrs(3)."""
        ...

    async def reload_config(self) -> None:
        """corosync_cfg_reload_config(3)."""
        ...

    async def reopen_log_files(self) -> None:
        """corosync_cfg_reopen_log_files(3)."""
        ...

    async def kill_node(self, nodeid: int, reason: str) -> None:
        """corosync_cfg_kill_node(3)."""
        ...

    async def try_shutdown(self, flags: ShutdownFlag) -> None:
        """corosync_cfg_try_shutdown(3): returns once it is decided. `BusyError`: refused."""
        ...

    async def trackstart(self) -> None:
        """corosync_cfg_trackstart(3)."""
        ...

    async def trackstop(self) -> None:
        """corosync_cfg_trackstop(3)."""
        ...

    async def reply_to_shutdown(self, accept: bool) -> None:  # noqa: FBT001 - as in C
        """corosync_cfg_replyto_shutdown(3)."""
        ...
