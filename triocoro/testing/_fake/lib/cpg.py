"""The CPG library: lib/cpg.c."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from ...._enums import CsError, FlowControlState, IterationType
from ...._errors import error_from_code
from ...._raw import MULTICAST_BURST, MulticastStatus
from ...._types import Address, ConfigChange, CpgEvent, GroupMember, Message
from ..exec.cpg import CpgRecord, CpgService, Fragment
from ..exec.ipc import IpcConnection
from .handle import FakeHandle, OneWayRequest

MAX_ATOMIC_MESSAGE_SIZE = 1_047_552


class FakeCpg(FakeHandle[CpgRecord, CpgEvent]):
    """A client's handle of the CPG service: a `RawCpg`."""

    dispatch_function = "cpg_dispatch"

    def __init__(self, connection: IpcConnection, service: CpgService, pid: int, *, initial_totem_conf: bool) -> None:
        super().__init__(connection)
        self._service = service
        self._client = service.connect(connection)
        self._pid = pid
        self._initial_totem_conf = initial_totem_conf
        self._group: bytes | None = None
        self._assembling: set[Address] = set()
        self._buffers: dict[int, tuple[memoryview, bytearray]] = {}  # by the id of the view

    @property
    def assembling(self) -> bool:
        return False  # its messages come whole

    @property
    def max_atomic_message_size(self) -> int:
        return MAX_ATOMIC_MESSAGE_SIZE

    @property
    def flow_control_state(self) -> FlowControlState:
        # Corosync never reports anything else either.
        return FlowControlState.DISABLED

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        self._check("cpg_mcast_joined")
        if self._requesting:
            raise RuntimeError("multicast while a round trip is under way: the C library would mix up the answers")
        if not self._connection.writable():
            return 0, MulticastStatus.FULL
        burst = payloads[:MULTICAST_BURST]
        sizes = list(map(len, burst))
        if sizes and max(sizes) > MAX_ATOMIC_MESSAGE_SIZE:
            raise ValueError(f"{max(sizes)} bytes need multicast_fragmented")
        sent = self._connection.room_for(sizes)
        if sent:
            job = OneWayRequest(partial(self._service.mcast, self._client, tuple(burst[:sent])))
            self._connection.submit(job, sizes[:sent])
        return sent, MulticastStatus.SENT if sent == len(burst) else MulticastStatus.TRY_AGAIN

    def report_lost(self, payloads: Sequence[bytes]) -> None:
        pass  # only recordings need it

    async def multicast_fragmented(self, payload: bytes) -> None:
        view = memoryview(payload)
        fragments = [
            view[start : start + MAX_ATOMIC_MESSAGE_SIZE] for start in range(0, len(view), MAX_ATOMIC_MESSAGE_SIZE)
        ]
        await self._round_trips(
            "cpg_mcast_joined",
            [
                partial(
                    self._service.partial_mcast,
                    self._client,
                    fragment,
                    first=index == 0,
                    last=index == len(fragments) - 1,
                )
                for index, fragment in enumerate(fragments)
            ],
        )

    async def join(self, group: bytes) -> None:
        def join() -> None:
            self._service.join(self._client, group, self._pid, initial_totem_conf=self._initial_totem_conf)
            self._group = group

        await self._round_trips("cpg_join", [join], undo=lambda: self._service.leave(self._client, group))

    async def leave(self, group: bytes) -> None:
        await self._round_trips("cpg_leave", [lambda: self._service.leave(self._client, group)])

    async def membership(self, group: bytes) -> tuple[Address, ...]:
        return await self._round_trip("cpg_membership_get", lambda: self._service.membership(group))

    async def local_nodeid(self) -> int:
        return await self._round_trip("cpg_local_get", lambda: self._service.daemon.nodeid)

    async def iterate(self, kind: IterationType, group: bytes | None) -> tuple[GroupMember, ...]:
        if kind is IterationType.ONE_GROUP and group is None:
            raise error_from_code(CsError.INVALID_PARAM, "cpg_iteration_initialize")
        return await self._round_trip("cpg_iteration_initialize", lambda: self._service.iterate(kind, group))

    async def zcb_alloc(self, size: int) -> memoryview:
        if not 1 <= size <= MAX_ATOMIC_MESSAGE_SIZE:
            raise ValueError(f"size must be 1 to {MAX_ATOMIC_MESSAGE_SIZE}, not {size}")
        memory = bytearray(size)
        view = memoryview(memory)
        await self._round_trips("cpg_zcb_alloc", [lambda: None])
        self._buffers[id(view)] = view, memory
        return view

    async def zcb_free(self, buffer: memoryview) -> None:
        memory = self._owned(buffer)
        buffer.release()
        memory.clear()  # raises BufferError if there are slices left
        del self._buffers[id(buffer)]
        await self._round_trips("cpg_zcb_free", [lambda: None])

    async def zcb_mcast_joined(self, buffer: memoryview, length: int) -> None:
        memory = self._owned(buffer)
        if not 0 <= length <= len(memory):
            raise ValueError(f"length must be 0 to {len(memory)}, not {length}")

        def mcast() -> None:
            # Unlike other multicasts, this one has a reply.
            if not self._client.may_send:
                raise error_from_code(CsError.NOT_EXIST, "cpg_zcb_mcast_joined", "not a member")
            self._service.mcast(self._client, (bytes(memory[:length]),))

        await self._round_trips("cpg_zcb_mcast_joined", [mcast])

    def _owned(self, buffer: memoryview) -> bytearray:
        try:
            return self._buffers[id(buffer)][1]
        except KeyError:
            raise ValueError("not a buffer that zcb_alloc of this handle has returned, or it has been freed") from None

    def _decode(self, records: Sequence[CpgRecord]) -> Sequence[CpgEvent]:
        events: list[CpgEvent] = []
        for record in records:
            if isinstance(record, Message):
                events.append(record)
            elif isinstance(record, Fragment):
                message = self._assemble(record)
                if message is not None:
                    events.append(message)
            else:
                if isinstance(record, ConfigChange):
                    for change in record.left:
                        self._assembling.discard(change.address)
                events.append(record)
        return events

    def _assemble(self, fragment: Fragment) -> Message | None:
        if fragment.first:
            # The sender's message before was interrupted, and its send has failed.
            self._assembling.add(fragment.sender)
        if fragment.sender not in self._assembling or not fragment.last:
            return None
        self._assembling.remove(fragment.sender)
        # All parts are of the same payload, so it need not be put together again.
        return Message(fragment.sender, cast("bytes", fragment.payload.obj))

    def _finalize(self, *, leave: bool) -> None:
        # cpg_finalize is a round trip, so with a frozen daemon it ends at the thaw. In a transition a newer connection
        # is refused; the library does not mind, and disconnects.
        group = self._group
        if leave and group is not None:
            self._connection.submit(OneWayRequest(lambda: self._service.leave(self._client, group)))
        self._connection.submit(
            OneWayRequest(lambda: self._service.finalize(self._client), done=self._disconnect), flow_control=False
        )
