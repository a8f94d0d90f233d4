"""An endpoint that records what its clients do and are told. It works with any endpoint below and any code above."""

from __future__ import annotations

import inspect
import itertools
import math
import select
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, TypeVar, cast

import attrs
import trio

from ..._endpoint import default_endpoint
from ..._errors import CorosyncError
from ..._forks import Origin
from ..._raw import MulticastStatus
from ..._services import CpgSpec, Endpoint, ServiceSpec
from ..._types import Address, ConfigChange, MessageLost, TotemChange
from .entries import Call, Cancellation, Delivery, Entry, Failure, Loss, Return
from .values import immutable

T = TypeVar("T")
RawT = TypeVar("RawT")


_under_way: ContextVar[tuple[Callable[[Entry], None], ...] | None] = ContextVar("triocoro.testing.recorded", default=())
"""For a connection that this context makes, the `append` of the histories that record it already.

`None`: it is not to be recorded.
"""


@contextmanager
def not_recorded() -> Generator[None, None, None]:
    """Within a `with` block, clusters do not record the connections that this context makes."""
    token = _under_way.set(None)
    try:
        yield
    finally:
        _under_way.reset(token)


def is_to_record(append: Callable[[Entry], None]) -> bool:
    """Whether the history with this `append` is to record a connection that this context makes through a cluster."""
    under_way = _under_way.get()
    return under_way is not None and append not in under_way


@attrs.define(eq=False)
class _Recorder:
    """Writes the entries of one client."""

    append: Callable[[Entry], None]
    clock: Callable[[], float]
    client: str
    node: int
    handles: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    async def connect(self, endpoint: Endpoint, service: ServiceSpec[object, object]) -> object:
        """Connect to a service, and record all that passes through the handle."""
        if isinstance(service, CpgSpec):
            # The history needs the ring that a member starts in, even if the client has not asked for it.
            raw = await self._connect(endpoint, attrs.evolve(service, initial_totem_conf=True))
            return raw if service.initial_totem_conf else _WithoutInitialTotem(raw)
        return await self._connect(endpoint, service)

    async def _connect(self, endpoint: Endpoint, service: ServiceSpec[object, object]) -> object:
        handle = next(self.handles)
        raws: list[object] = []

        async def action() -> Address:
            under_way = _under_way.get()
            token = _under_way.set(None if under_way is None else (*under_way, self.append))
            try:
                raws.append(await endpoint.connect(service))
            finally:
                _under_way.reset(token)
            return Address(self.node, endpoint.pid)

        await self.call(handle, f"connect_{service.name}", attrs.asdict(service), action)
        return _RecordingHandle(raws[0], self, handle)

    def write(self, kind: Callable[..., Entry], handle: int, *, time: float | None = None, **fields: object) -> None:
        time = self.clock() if time is None else time
        self.append(kind(time=time, client=self.client, node=self.node, handle=handle, **fields))

    async def call(
        self,
        handle: int,
        function: str,
        arguments: dict[str, Any],
        action: Callable[[], Awaitable[T]],
        waiting: Callable[[], bool] = bool,
    ) -> T:
        """Make a round trip, and record the call and how it ended."""
        number = next(self.numbers)
        self.write(Call, handle, number=number, function=function, arguments=arguments)
        try:
            result = await action()
        except (trio.Cancelled, KeyboardInterrupt):
            self.write(Cancellation, handle, number=number)
            raise
        except Exception as error:
            self.write(Failure, handle, number=number, error=type(error).__name__)
            raise
        self.write(Return, handle, number=number, result=immutable(result), waiting=waiting())
        return result


class RecordingEndpoint:
    """An endpoint that records: pass it to `open_*`, or make it the default endpoint of the application under test.

    Objects of this class come from `History.endpoint`. It records what passes between the SDK and Corosync. That need
    not be one call for each call of the application: the SDK may make several, or none.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        append: Callable[[Entry], None],
        clock: Callable[[], float],
        client: str,
        node: int,
    ) -> None:
        self._origin = Origin()
        self._endpoint = endpoint
        self._recorder = _Recorder(append, clock, client, node)

    def __repr__(self) -> str:
        return f"<RecordingEndpoint {self._recorder.client!r} of {self._endpoint!r}>"

    @property
    def label(self) -> str:
        """The daemon's name in messages."""
        return self._endpoint.label

    @property
    def identity(self) -> Hashable:
        """The identity of the endpoint underneath."""
        return self._endpoint.identity

    @property
    def pid(self) -> int:
        """The pid under which our clients appear in groups."""
        return self._endpoint.pid

    @contextmanager
    def as_default(self) -> Generator[None, None, None]:
        """Make this the default endpoint within a `with` block, in this context."""
        token = default_endpoint.set(self)
        try:
            yield
        finally:
            default_endpoint.reset(token)

    def lost(self, payload: bytes) -> None:
        """Record that a message of the client's own was reported to it as lost.

        The SDK finds losses by itself and reports them by `MessageLost` and `MessageLostError`, so this endpoint does
        not see them. Corosync drops messages under load; `check` accepts the losses that were reported.
        """
        self._recorder.write(Delivery, 0, event=MessageLost(payload))

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        """Connect to one of the daemon's services.

        Raises:
            TypeError: the service is no `ServiceSpec`.
            RuntimeError: this is a forked child of the process that made the endpoint.
            others: as `Endpoint.connect`.
        """
        self._origin.check(
            f"{self!r} was made",
            "what it records would never reach its history, so make a History here, save it, and merge the two",
        )
        if not isinstance(service, ServiceSpec):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"service must be a ServiceSpec, not {type(service).__name__}")
        return cast("RawT", await self._recorder.connect(self._endpoint, service))


class _RecordingHandle:
    """Wraps a raw handle of any service, and records what passes through it.

    Args:
        raw: the handle.
        recorder: writes the entries of the handle's client.
        number: the handle's number.
    """

    def __init__(self, raw: Any, recorder: _Recorder, number: int) -> None:  # noqa: ANN401 - of any service
        self._raw = raw
        self._recorder = recorder
        self._number = number
        self._lost = False
        self._closing = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the handle
        attribute = getattr(self._raw, name)
        if not inspect.iscoroutinefunction(attribute) or name == "wait_closed":
            return attribute
        signature = inspect.signature(attribute)

        @wraps(attribute)
        async def recorded(*args: object, **kwargs: object) -> Any:  # noqa: ANN401 - as above
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            if name == "zcb_mcast_joined":
                # The arguments only say where the payload is; the daemon reads it from shared memory.
                arguments = {"payload": bytes(arguments["buffer"][: arguments["length"]])}
            action = partial(attribute, *args, **kwargs)
            return await self._recorder.call(self._number, name, immutable(arguments), action, self._has_events)

        return recorded

    def _has_events(self) -> bool:
        # A reply may arrive after its handle was closed, when there is no fd any more.
        if self._closing:
            return False
        poll = select.poll()
        poll.register(self._raw.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Send, and record what was sent."""
        # Another process may receive a message before this call returns.
        time = self._recorder.clock()
        try:
            sent, status = self._raw.multicast(payloads)
        except CorosyncError as error:
            number = self._write_multicast(payloads, time)
            self._recorder.write(Failure, self._number, number=number, error=type(error).__name__)
            raise
        if sent:
            number = self._write_multicast(payloads[:sent], time)
            self._recorder.write(Return, self._number, number=number)
        return sent, status

    def _write_multicast(self, payloads: Sequence[bytes], time: float) -> int:
        number = next(self._recorder.numbers)
        arguments = {"payloads": tuple(payloads)}
        self._recorder.write(Call, self._number, time=time, number=number, function="multicast", arguments=arguments)
        return number

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[Any]]:
        """Take the waiting events, and record them."""
        try:
            taken, events = self._raw.dispatch(max_events, max_bytes)
        except CorosyncError:
            if not self._lost:
                self._lost = True
                self._recorder.write(Loss, self._number)
            raise
        while not self._raw.complete():
            pass
        # All get the same time: the client took them at once.
        time = self._recorder.clock()
        for event in events:
            self._recorder.write(Delivery, self._number, time=time, event=event)
        return taken, events

    def close(self, *, leave: bool = False) -> None:
        """Close the handle."""
        if not self._closing:
            self._closing = True
            number = next(self._recorder.numbers)
            self._recorder.write(Call, self._number, number=number, function="close", arguments={"leave": leave})
        self._raw.close(leave=leave)


class _WithoutInitialTotem:
    """A CPG handle for a client that has not asked for the totem change that comes with a join.

    The client gets all other totem changes. The one to hide comes once the join is accepted, with the first change of
    any group on the node: right after the first `ConfigChange` at the latest (exec/cpg.c: notify_lib_joinlist). It
    repeats the totem change before it, if the handle has had one.

    One case is ambiguous: the handle has had no totem change yet, and the ring changes between the join and its
    `ConfigChange`. The change to hide and the ring's own then look the same in either order. We hide the first one, so
    the client may learn of its ring right after its own join instead of right before it.
    """

    def __init__(self, recording: Any) -> None:  # noqa: ANN401 - a stand-in for RawCpg
        self._recording = recording
        # How many events were waiting before the join and are not taken yet; infinite before the join.
        self._earlier: float = math.inf
        self._last: TotemChange | None = None
        self._is_member = False
        self._is_past = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the handle
        return getattr(self._recording, name)

    async def join(self, group: bytes) -> None:
        """Join a group."""
        is_first = self._earlier == math.inf
        if is_first:
            self._earlier = self._recording.waiting()
        try:
            await self._recording.join(group)
        except CorosyncError:
            if is_first:
                self._earlier = math.inf
            raise

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[Any]]:
        """Take the waiting events, without the one to hide."""
        taken, events = self._recording.dispatch(max_events, max_bytes)
        return taken, [event for event in events if self._is_past or not self._is_hidden(event)]

    def _is_hidden(self, event: object) -> bool:
        if self._is_member:
            # The first event after our own join, and nothing was hidden before it.
            self._is_past = True
            return isinstance(event, TotemChange)
        self._is_member = isinstance(event, ConfigChange)
        if not isinstance(event, TotemChange):
            return False
        self._earlier -= 1
        # A change that differs from the last one announces a new ring. If it was the one to hide after all, the next
        # one repeats it.
        self._is_past = self._earlier < 0 and self._last in (None, event)
        self._last = event
        return self._is_past
