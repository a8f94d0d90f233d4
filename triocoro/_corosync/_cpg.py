"""libcpg as a `RawCpg`."""

from __future__ import annotations

import contextlib
import errno
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, final

import trio

from .._enums import CsError, FlowControlState, IterationType, Reason
from .._errors import CorosyncError, NoResourcesError, error_from_code
from .._raw import MULTICAST_BURST, MulticastStatus
from .._types import (
    Address,
    ConfigChange,
    CpgEvent,
    GroupMember,
    MemberChange,
    Message,
    RingId,
    TotemChange,
    make_address,
    make_messages,
)
from . import _arena
from ._causes import lack
from ._handle import CorosyncHandle, retry_briefly
from ._libraries import CPG, failure, failure_inside
from ._namespaces import Namespaces
from ._shim import ffi, lib
from ._zcb import SharedBuffer

if TYPE_CHECKING:
    from ._shim import Arena, CpgName, LibraryConnection

INITIAL_TOTEM_CONF = 0x01
"""Flag of `Library.connect`: deliver the current ring at the join (`CPG_MODEL_V1_DELIVER_INITIAL_TOTEM_CONF`)."""

# cpg_membership_get(3) writes up to 384 entries, whatever count it is given.
_MEMBERS_ROOM = 512

# The payloads of a burst are joined and sent in one call of the shim. Above this size, joining costs more than calling.
_GATHER_BYTES = 64 * 1024

_HEADER = 512
"""More bytes than come before the payload in a request, a fragment, or an event."""

_OK = int(CsError.OK)
_MESSAGE = lib.TC_MESSAGE
_LARGE_MESSAGE = lib.TC_LARGE_MESSAGE
_HUGE_MESSAGE = lib.TC_HUGE_MESSAGE
_CONFCHG = lib.TC_CONFCHG
_REASONS = {int(reason): reason for reason in Reason}
_MAX_SENDERS = 1024
_WORDS = _arena.WORDS
_ASSEMBLY = 1.0
"""The most seconds that closing a handle waits for messages to become whole."""
_NOTHING_FOLLOWS = 250
"""Milliseconds without an event after which no further part is expected."""
_FEW = 4
"""So few messages are decoded faster one by one."""


def _name(group: bytes) -> CpgName:
    return ffi.new("tc_cpg_name_t *", (len(group), group))


def _address(client: int) -> Address:
    return make_address(client >> 32, client & 0xFFFF_FFFF)


class _Senders(dict[int, Address]):
    """The addresses of senders by their numbers, each made once."""

    def __missing__(self, client: int) -> Address:
        if len(self) >= _MAX_SENDERS:
            self.clear()
        sender = self[client] = _address(client)
        return sender


def _config_change(members_count: int, blob: bytes) -> ConfigChange:
    words = memoryview(blob).cast("I").tolist()
    left_count = words[0]
    triples = list(zip(words[2::3], words[3::3], words[4::3], strict=True))
    left_from, joined_from = members_count, members_count + left_count
    changes = [MemberChange(Address(n, p), _REASONS.get(r, Reason.UNDEFINED)) for n, p, r in triples[left_from:]]
    return ConfigChange(
        members=tuple(sorted(Address(nodeid, pid) for nodeid, pid, _ in triples[:left_from])),
        joined=tuple(changes[joined_from - left_from :]),
        left=tuple(changes[: joined_from - left_from]),
    )


def _totem_change(ring_nodeid: int, blob: bytes) -> TotemChange:
    seq, nodes = _arena.ring(blob)
    return TotemChange(RingId(ring_nodeid, seq), nodes)


@final
class CorosyncCpg(CorosyncHandle[CpgEvent]):
    """A handle of libcpg."""

    library = CPG
    dispatch_function = "cpg_dispatch"

    def __init__(self, connection: LibraryConnection, lane: trio.CapacityLimiter, namespaces: Namespaces) -> None:
        super().__init__(connection, lane, namespaces)
        self._max_message_size = connection.max_message_size
        self._fragments = True
        if not self.hangs_up:
            # A datagram takes one message or fragment, and the library does not know how large a datagram may be.
            largest = lib.tc_max_datagram(self._fd) - _HEADER
            self._fragments = largest >= self._max_message_size
            self._max_message_size = min(largest, self._max_message_size)
        self._assembling = False
        self._interrupted = False
        self._group: CpgName | None = None
        self._senders = _Senders()
        self._incomplete: deque[_arena.Pages] = deque()
        self._copying = threading.Lock()
        self._buffers: dict[int, SharedBuffer] = {}  # by the id of the caller's view

    @property
    def max_atomic_message_size(self) -> int:
        return self._max_message_size

    @property
    def flow_control_state(self) -> FlowControlState:
        state = ffi.new("uint32_t *")
        code = lib.cpg_flow_control_state_get(self._handle, state)
        if code != CsError.OK:
            raise failure(code, "cpg_flow_control_state_get")
        return FlowControlState(state[0])

    # --- dispatch ---

    # The library keeps the parts of a message until it is whole, or its sender leaves or begins another one. If the
    # handle is finalized before that, their memory is lost. The library does not say whose parts it has, so this
    # assumes that one member at a time sends messages in parts.

    @property
    def assembling(self) -> bool:
        return self._assembling

    def _note_without_callback(self) -> None:
        self._assembling = True

    def _assemble(self, *, interrupted: bool) -> None:
        """On a worker: dispatch until no parts of a message are left, nothing more comes, or it takes too long.

        Args:
            interrupted: whether to wait also until interrupted senders have sent another message.
        """
        readable = select.poll()
        readable.register(self._fd, select.POLLIN)
        deadline = time.monotonic() + _ASSEMBLY
        with contextlib.suppress(CorosyncError):
            while (self._assembling or (interrupted and self._interrupted)) and time.monotonic() < deadline:
                if not readable.poll(_NOTHING_FOLLOWS) or not self.dispatch(1, 1)[0]:
                    return
                while not self.complete():  # which gives the pages of a huge message back
                    pass

    def _decode(self, arena: Arena) -> Sequence[CpgEvent]:
        data = ffi.buffer(arena.data, arena.used)
        senders = self._senders
        if arena.count > _FEW:
            # By columns, without a Python call for each message: 0.4 us a message instead of 1.5.
            words = _arena.words(arena)
            if words[::_WORDS].count(_MESSAGE) == arena.count:
                starts, lengths = words[2::_WORDS], words[3::_WORDS]
                payloads = [data[start : start + length] for start, length in zip(starts, lengths, strict=True)]
                return make_messages(map(senders.__getitem__, words[1::_WORDS]), payloads)
        events: list[CpgEvent] = []
        for index, (kind, value, extra, offset, length) in enumerate(_arena.records(arena)):
            if kind <= _LARGE_MESSAGE:
                small = kind == _MESSAGE
                payload = data[offset : offset + length] if small else _arena.large_payload(offset, length)
                events.append(Message(senders[extra], payload))
                if length > self._max_message_size:
                    self._assembling = self._interrupted = False
            elif kind == _HUGE_MESSAGE:
                pages = _arena.take_pages(arena, index)
                self._incomplete.append(pages)
                events.append(Message(senders[extra], pages.payload))
                self._assembling = self._interrupted = False
            elif kind == _CONFCHG:
                events.append(_config_change(value, data[offset : offset + length]))
                # It interrupts senders, whose parts remain until they begin another message.
                self._interrupted = self._interrupted or self._assembling
                self._assembling = False
            else:
                events.append(_totem_change(extra, data[offset : offset + length]))
        return events

    def complete(self) -> bool:
        with self._copying:  # the worker that closes the handle may do it as well
            if self._incomplete and self._incomplete[0].copy_some():
                self._incomplete.popleft()
            return not self._incomplete

    # --- multicast ---

    @trio.lowlevel.enable_ki_protection
    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        burst = payloads[:MULTICAST_BURST]
        lengths = list(map(len, burst))
        if lengths and max(lengths) > self._max_message_size:
            raise ValueError("a message above the atomic size must go through multicast_fragmented")
        if sum(lengths) <= _GATHER_BYTES:
            sent, code = self._multicast(b"".join(burst), lengths)
        else:
            sent, code = 0, _OK
            for payload, length in zip(burst, lengths, strict=True):
                accepted, code = self._multicast(payload, [length])
                sent += accepted
                if not accepted:
                    break
        if code == _OK:
            return sent, MulticastStatus.SENT
        if code == CsError.TRY_AGAIN:
            return sent, MulticastStatus.TRY_AGAIN
        if code != lib.TC_FULL and not sent:
            raise failure(code, "cpg_mcast_joined")
        # After a partial success an error can wait: a broken connection is writable at once, so the next call gets it.
        return sent, MulticastStatus.FULL

    def _multicast(self, data: bytes, lengths: Sequence[int]) -> tuple[int, int]:
        # In the upper 32 bits, how many were sent; in the lower ones, the signed code of the last attempt.
        result = lib.tc_cpg_multicast(self._handle, self._fd, data, lengths, len(lengths))
        code = result & 0xFFFF_FFFF
        return result >> 32, code - (1 << 32) if code >> 31 else code

    def report_lost(self, payloads: Sequence[bytes]) -> None:
        pass  # only recordings need it

    async def multicast_fragmented(self, payload: bytes) -> None:
        if not self._fragments:
            raise error_from_code(
                CsError.TOO_BIG,
                "cpg_mcast_joined",
                f"a message of {len(payload)} bytes does not fit into the sockets between this daemon and its clients"
                f" (system.qb_ipc_type: socket), which take {self._max_message_size}; raise the limit for all daemons"
                " (sysctl net.core.wmem_max=2097152, then restart them), or have them use shared memory",
            )
        await self._request(
            "cpg_mcast_joined",
            lambda: lib.tc_cpg_multicast_fragmented(self._handle, self._fd, payload, len(payload)),
        )

    # --- membership ---

    async def join(self, group: bytes) -> None:
        name = _name(group)
        code = await self._undoable(lambda: self._join(name), self._undo_join)
        if code != CsError.OK:
            raise failure(code, "cpg_join")

    def _join(self, name: CpgName) -> int:
        code = lib.cpg_join(self._handle, name)
        if code == CsError.OK:
            self._group = name
        return code

    def _leave(self) -> int:
        """Leave the group that was joined, if any. To be called on a worker, within `_exclusively`."""
        if self._group is None:
            return CsError.OK
        code = lib.cpg_leave(self._handle, self._group)
        if code == CsError.OK:
            self._group = None
        return code

    def _undo_join(self, code: int) -> None:
        if code == CsError.OK:
            retry_briefly(self._leave)

    async def leave(self, group: bytes) -> None:
        name = _name(group)

        def leave() -> int:
            code = lib.cpg_leave(self._handle, name)
            if code == CsError.OK:
                self._group = None
            return code

        await self._request("cpg_leave", leave)

    async def membership(self, group: bytes) -> tuple[Address, ...]:
        name = _name(group)
        members = ffi.new("tc_cpg_address_t[]", _MEMBERS_ROOM)
        count = ffi.new("int *")
        await self._request("cpg_membership_get", lambda: lib.cpg_membership_get(self._handle, name, members, count))
        return tuple(Address(members[i].nodeid, members[i].pid) for i in range(min(count[0], _MEMBERS_ROOM)))

    async def local_nodeid(self) -> int:
        nodeid = ffi.new("unsigned int *")
        await self._request("cpg_local_get", lambda: lib.cpg_local_get(self._handle, nodeid))
        return nodeid[0]

    async def iterate(self, kind: IterationType, group: bytes | None) -> tuple[GroupMember, ...]:
        return await self._trip(lambda: self._iterate(kind, group))

    def _iterate(self, kind: IterationType, group: bytes | None) -> tuple[GroupMember, ...]:
        function = ffi.new("const char **")
        arena = _arena.borrow()
        try:
            code = lib.tc_cpg_iterate(self._handle, self._fd, kind, _name(group or b""), arena, function)
            if code == lib.TC_LACKING:
                raise lack(errno.EAGAIN, ffi.string(function[0]).decode())
            if code != CsError.OK:
                raise failure(code, ffi.string(function[0]).decode())
            data = ffi.buffer(arena.data, arena.used)
            names_only = kind is IterationType.NAME_ONLY
            return tuple(
                GroupMember(data[offset : offset + length], None if names_only else _address(client))
                for _, _, client, offset, length in _arena.records(arena)
            )
        finally:
            _arena.give_back(arena)

    # --- zero copy ---

    async def zcb_alloc(self, size: int) -> memoryview:
        if not 1 <= size <= self._max_message_size:
            raise ValueError(f"size must be 1 to {self._max_message_size}, not {size}")
        self._require_daemon("cpg_zcb_alloc")
        with self._namespaces.entrance() as entrance:
            shared = await self._undoable(
                lambda: entrance.enter(lambda pidfd: self._zcb_alloc(pidfd, size)),
                lambda shared: retry_briefly(partial(self._zcb_free, shared)),
            )
        return shared.view

    def _require_daemon(self, function: str) -> None:
        """Raise the right error if the daemon is gone: without this, entering its namespaces would fail first."""
        if lib.tc_hung_up(self._fd):
            raise failure(CsError.LIBRARY, function)

    def _zcb_alloc(self, pidfd: int, size: int) -> SharedBuffer:
        allocation = ffi.new("struct tc_allocation *")
        allocation.handle, allocation.fd, allocation.size = self._handle, self._fd, size
        code = lib.tc_cpg_zcb_alloc(pidfd, allocation)
        if code != CsError.OK:
            raise failure_inside(code, allocation)
        shared = SharedBuffer(allocation.buffer, size)
        self._buffers[id(shared.view)] = shared
        return shared

    @trio.lowlevel.enable_ki_protection
    async def zcb_free(self, buffer: memoryview) -> None:
        shared = self._owned(buffer)
        shared.give_back()
        try:
            code = await self._trip(partial(self._zcb_free, shared))
        except (trio.Cancelled, KeyboardInterrupt):
            # If the worker has begun, it completes, and then this does nothing.
            trio.lowlevel.spawn_system_task(self._late, partial(retry_briefly, partial(self._zcb_free, shared)))
            raise
        except NoResourcesError:
            shared.given_back = False
            raise
        if code != CsError.OK:
            raise failure(code, "cpg_zcb_free")

    def _zcb_free(self, shared: SharedBuffer) -> int:
        """To be called on a worker, within `_exclusively`."""
        if id(shared.view) not in self._buffers:
            return CsError.OK
        code = lib.tc_cpg_zcb_free(self._handle, shared.address, shared.size)
        if code == CsError.TRY_AGAIN:
            shared.given_back = False
        else:
            del self._buffers[id(shared.view)]
        return code

    async def zcb_mcast_joined(self, buffer: memoryview, length: int) -> None:
        shared = self._owned(buffer)
        if not 0 <= length <= shared.size:
            raise ValueError(f"length must be 0 to {shared.size}, not {length}")
        await self._request(
            "cpg_zcb_mcast_joined",
            lambda: lib.tc_cpg_zcb_mcast_joined(self._handle, self._fd, shared.address, length),
        )

    def _owned(self, buffer: memoryview) -> SharedBuffer:
        # Neither the library nor the daemon checks the address.
        shared = self._buffers.get(id(buffer))
        if shared is None or shared.given_back:
            raise ValueError("not a buffer that zcb_alloc of this handle has returned, or it has been freed")
        return shared

    # --- closing ---

    def _finalize(self, *, leave: bool) -> None:
        # First without the interruption that our leave is for others.
        self._assemble(interrupted=False)
        if leave:
            retry_briefly(self._leave)
        self._assemble(interrupted=True)
        for shared in list(self._buffers.values()):
            with contextlib.suppress(BufferError):  # in use: it stays mapped, as the library would leave it
                shared.give_back()
                retry_briefly(partial(self._zcb_free, shared))
        super()._finalize(leave=leave)
