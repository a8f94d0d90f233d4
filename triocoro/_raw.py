"""Protocols of the raw handles: the seam between the SDK and a Corosync, real or fake.

There are two implementations: the C libraries (`triocoro._corosync`) and the in-memory cluster (`triocoro.testing`).
Everything above these protocols is shared between them. Both keep these rules:

- All methods are called on the Trio thread, inside a run. None of them blocks it.
- Group names and payloads have been validated, and are `bytes`. Results are values of `triocoro._types`.
- `fileno()` is readable while events wait, and writable while the daemon has room for notifications of requests. Once
  the daemon is gone it is readable and hung up, if `hangs_up` says so. If not, only `dispatch` notices.
- Round trips (the `async` methods) hold the handle's `lane` for as long as the daemon works on them. A cancelled call
  returns at once. Its request goes on, its result is dropped, and the lane stays taken until it is over. A cancelled
  `join` that succeeds is undone by a leave, a cancelled `track_add` by a `track_delete`, a cancelled `zcb_alloc` by a
  `zcb_free`.
- Each failure is the `CorosyncError` subclass of its code. A broken connection is `LibraryError`. Nothing is retried:
  `TryAgainError` is raised.
- After `close()`, only `wait_closed()` and `close()` are called.
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
"""The most messages that one `multicast` sends after one poll: if the socket has room at all, more than these fit."""


class MulticastStatus(Enum):
    """Why `RawCpg.multicast` stopped."""

    SENT = auto()
    """All were sent."""
    TRY_AGAIN = auto()
    """The daemon is under flow control, and gives no notice when that ends."""
    FULL = auto()
    """The notification socket is full: wait until `fileno()` is writable."""


class RawHandle(Protocol[EventT_co]):
    """One connection to one service of one daemon."""

    @property
    def lane(self) -> trio.CapacityLimiter:
        """A limiter with one token, taken while a round trip is under way, even if its caller was cancelled."""
        ...

    def fileno(self) -> int:
        """Return the fd to wait on."""
        ...

    @property
    def hangs_up(self) -> bool:
        """Whether `fileno()` reports the end of the daemon.

        It does not if the daemon talks to its clients by sockets (``system.qb_ipc_type: socket``). Then `dispatch` must
        be called now and then, although no event waits.
        """
        ...

    def waiting(self) -> int:
        """Return how many events wait to be taken; there may be more that the daemon has not sent yet."""
        ...

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[EventT_co]]:
        """Take events without waiting, until `max_events` were taken or their payloads exceed `max_bytes`.

        Returns:
            how many were taken, and the events. A fragment of a message counts, but yields no event.

        Raises:
            LibraryError: the connection is broken, and nothing was taken.
        """
        ...

    def complete(self) -> bool:
        """Copy a further piece of the huge messages that the last dispatch has returned.

        Returns:
            whether all are complete. Their payloads must not be used before.
        """
        ...

    def close(self, *, leave: bool = False, reason: str = "") -> None:
        """Finalize the handle in the background, once the lane is free, without blocking. Idempotent.

        Args:
            leave: leave the joined group (if any) first, so that others see LEAVE and not PROCDOWN.
            reason: why, if the user has not asked for it; for handles that record.
        """
        ...

    async def wait_closed(self) -> None:
        """Wait until the handle is finalized, which may take as long as the daemon is frozen."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the handle is finalized."""
        ...


class RawCpg(RawHandle[CpgEvent], Protocol):
    """A handle of libcpg."""

    @property
    def max_atomic_message_size(self) -> int:
        """The atomic size in bytes; larger messages must go through `multicast_fragmented`."""
        ...

    @property
    def assembling(self) -> bool:
        """Whether a message has been dispatched in part, as far as can be told. Leaving would interrupt it."""
        ...

    @property
    def flow_control_state(self) -> FlowControlState:
        """The result of cpg_flow_control_state_get(3)."""
        ...

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Send as many of `payloads` as possible without waiting, at most `MULTICAST_BURST`.

        Call it only while no round trip is under way: the lane is free, or the caller holds its token.

        Returns:
            how many were sent, and why it stopped.

        Raises:
            CorosyncError: sending failed, and nothing was sent by this call.
        """
        ...

    def report_lost(self, payloads: Sequence[bytes]) -> None:
        """Take note that messages of ours were lost, as the SDK has found out. It is for handles that record."""
        ...

    async def multicast_fragmented(self, payload: bytes) -> None:
        """Send one message above the atomic size in round trips. `InterruptError`: a membership change broke it."""
        ...

    async def join(self, group: bytes) -> None:
        """cpg_join(3): request a join. A `ConfigChange` with our own address tells when it takes effect."""
        ...

    async def leave(self, group: bytes) -> None:
        """cpg_leave(3): request a leave. A `ConfigChange` with our own address tells when it takes effect."""
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
        """cpg_zcb_alloc(3): return a writable buffer shared with the daemon, of 1 byte up to the atomic size."""
        ...

    async def zcb_free(self, buffer: memoryview) -> None:
        """cpg_zcb_free(3) of a buffer of `zcb_alloc`. If cancelled, it completes in the background.

        Raises:
            BufferError: slices of it are still in use. The buffer stays allocated, to be freed by another call;
                `buffer` itself is released.
            ValueError: it is not a buffer of this handle, or has been freed.
        """
        ...

    async def zcb_mcast_joined(self, buffer: memoryview, length: int) -> None:
        """cpg_zcb_mcast_joined(3): send the first `length` bytes of a buffer of `zcb_alloc`."""
        ...


class RawTracking(Protocol):
    """The tracking of changes, which the handles of libvotequorum and libquorum have in common."""

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
    """A handle of libquorum, with model v1."""

    @property
    def type(self) -> QuorumType:
        """The type that quorum_model_initialize(3) reported."""
        ...

    async def is_quorate(self) -> bool:
        """quorum_getquorate(3)."""
        ...


class RawCmap(RawHandle[CmapNotification], Protocol):
    """A handle of libcmap.

    Keys, prefixes and values have been validated. If a key is missing, the error is a `KeyNotFoundError`.
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
            tracker: a number, unique in the handle, that the notifications carry: they may arrive before this returns.
            key: the key, or the prefix.
            track_type: which changes to notify of.
        """
        ...

    async def track_delete(self, tracker: int) -> None:
        """cmap_track_delete(3). Notifications of the tracker that still wait are dropped."""
        ...


class RawCfg(RawHandle[ShutdownFlag], Protocol):
    """A handle of libcfg. Its events are requests to agree to a shutdown."""

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
        """corosync_cfg_try_shutdown(3): return once it is decided. `BusyError`: refused."""
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
