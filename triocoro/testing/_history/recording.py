"""An endpoint that records what its clients do and are told. It works with any endpoint below and any code above."""

from __future__ import annotations

import inspect
import itertools
import select
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from typing import Any, Final, TypeAlias, TypeVar, cast

import attrs
import trio

from ..._endpoint import default_endpoint
from ..._errors import CorosyncError
from ..._forks import Origin
from ..._raw import MulticastStatus
from ..._services import Endpoint, ServiceSpec
from ..._types import Address, Message, MessageLost
from .clock import HistoryClock
from .entries import Call, Cancellation, Delivery, Entry, Failure, Loss, Return
from .log import Part, bytes_of, places
from .values import immutable

T = TypeVar("T")
RawT = TypeVar("RawT")

_FEW: Final = 8
"""So few events are recorded faster as they are."""

Write: TypeAlias = Callable[[Part], None]
"""Adds entries to a history."""

_under_way: ContextVar[tuple[Write, ...] | None] = ContextVar("triocoro.testing.recorded", default=())
"""The histories that the connection which this context makes is recorded into already; `None`: to be in none."""


@contextmanager
def not_recorded() -> Generator[None, None, None]:
    """Within a `with` block, clusters do not record the connections that this context makes."""
    token = _under_way.set(None)
    try:
        yield
    finally:
        _under_way.reset(token)


@attrs.define(eq=False)
class _Recorder:
    """Writes the entries of one client."""

    add: Write
    clock: Callable[[], float]
    client: str
    node: int
    handles: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def write(self, kind: Callable[..., Entry], handle: int, *, size: int = 0, **fields: object) -> None:
        """Write one entry, of now; `size` is that of its payloads."""
        self.add((next(places), 1, size, self._entry, (kind, self.clock(), handle, fields)))

    def _entry(
        self, kind: Callable[..., Entry], time: float, handle: int, fields: dict[str, object]
    ) -> tuple[Entry, ...]:
        return (kind(time=time, client=self.client, node=self.node, handle=handle, **fields),)

    def deliveries(self, time: float, handle: int, events: Sequence[object]) -> Iterator[Entry]:
        """The entries for events that were taken at once."""
        for event in events:
            yield Delivery(time=time, client=self.client, node=self.node, handle=handle, event=event)

    def messages(
        self, time: float, handle: int, senders: Sequence[Address], payloads: Sequence[bytes]
    ) -> Iterator[Entry]:
        """The entries for messages that were taken at once."""
        return self.deliveries(time, handle, list(map(Message, senders, payloads)))

    def multicast(
        self, time: float, handle: int, number: int, payloads: tuple[bytes, ...], failure: str | None
    ) -> Iterator[Entry]:
        """The entries for a call of `multicast`, which takes no time."""
        call: dict[str, Any] = {
            "time": time,
            "client": self.client,
            "node": self.node,
            "handle": handle,
            "number": number,
        }
        yield Call(function="multicast", arguments={"payloads": payloads}, **call)
        yield Return(**call) if failure is None else Failure(error=failure, **call)

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
        self.write(
            Call, handle, size=bytes_of(arguments.values()), number=number, function=function, arguments=arguments
        )
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


class EndpointWrapper:
    """An endpoint of the same daemon, for clients of the same pid, as the one underneath."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

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


class RecordingEndpoint(EndpointWrapper):
    """An endpoint that records: pass it to `open_*`, or make it the default endpoint of the application under test.

    Objects of this class come from `History.endpoint`. It records what passes between the SDK and Corosync. That need
    not be one call for each call of the application: the SDK may make several, or none.
    """

    def __init__(self, endpoint: Endpoint, *, add: Write, clock: Callable[[], float], client: str, node: int) -> None:
        super().__init__(endpoint)
        self._origin = Origin()
        self._recorder = _Recorder(add, clock, client, node)

    def __repr__(self) -> str:
        return f"<RecordingEndpoint {self._recorder.client!r} of {self._endpoint!r}>"

    @property
    def wanted(self) -> bool:
        """Whether to record a connection that this context makes: it may be recorded into the same history already."""
        under_way = _under_way.get()
        return under_way is not None and self._recorder.add not in under_way and not self._origin.forked

    @contextmanager
    def as_default(self) -> Generator[None, None, None]:
        """Make this the default endpoint within a `with` block, in this context."""
        token = default_endpoint.set(self)
        try:
            yield
        finally:
            default_endpoint.reset(token)

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
        recorder = self._recorder
        handle = next(recorder.handles)
        raws: list[object] = []

        async def action() -> Address:
            under_way = _under_way.get()
            token = _under_way.set(None if under_way is None else (*under_way, recorder.add))
            try:
                raws.append(await self._endpoint.connect(service))
            finally:
                _under_way.reset(token)
            return Address(recorder.node, self.pid)

        await recorder.call(handle, f"connect_{service.name}", attrs.asdict(service), action)
        return cast("RawT", _RecordingHandle(raws[0], recorder, handle))


class _RecordingHandle:
    """Wraps a raw handle of any service, and records what passes through it.

    Args:
        raw: the handle.
        recorder: writes the entries of the handle's client.
        number: the handle's number.
    """

    def __init__(self, raw: Any, recorder: _Recorder, number: int) -> None:  # noqa: ANN401 - of any service
        self._below = raw
        self._recorder = recorder
        self._number = number
        self._clock = recorder.clock.of_this_run() if isinstance(recorder.clock, HistoryClock) else recorder.clock
        self._lost = False
        self._closing = False
        self._incomplete: Sequence[object] = ()
        self._has_copied = False
        """Whether `dispatch` has copied the next piece already."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any attribute of the handle
        attribute = getattr(self._below, name)
        if callable(attribute):  # not the value of a property, which may change
            attribute = self._recorded(name, attribute)
            setattr(self, name, attribute)  # found at once the next time
        return attribute

    def _recorded(self, name: str, attribute: Any) -> Any:  # noqa: ANN401 - as above
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
        poll.register(self._below.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Send, and record what was sent."""
        # Others, in this process or another, may receive a message before this call returns.
        place, time = next(places), self._clock()
        try:
            sent, status = self._below.multicast(payloads)
        except CorosyncError as error:
            self._add_multicast(place, time, payloads, type(error).__name__)
            raise
        if sent:
            self._add_multicast(place, time, payloads[:sent], None)
        return sent, status

    def _add_multicast(self, place: int, time: float, payloads: Sequence[bytes], failure: str | None) -> None:
        recorder = self._recorder
        arguments = time, self._number, next(recorder.numbers), tuple(payloads), failure
        recorder.add((place, 2, sum(map(len, payloads)), recorder.multicast, arguments))

    def report_lost(self, payloads: Sequence[bytes]) -> None:
        """Record the losses of own messages that the SDK has found."""
        for payload in payloads:
            self._recorder.write(Delivery, 0, size=len(payload), event=MessageLost(payload))

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[Any]]:
        """Take the waiting events, and record them."""
        try:
            taken, events = self._below.dispatch(max_events, max_bytes)
        except CorosyncError:
            if not self._lost:
                self._lost = True
                self._recorder.write(Loss, self._number)
            raise
        if events:
            if self._below.complete():
                self._add_deliveries(events)
            else:
                self._incomplete = events
                self._has_copied = True
        return taken, events

    def complete(self) -> bool:
        """Copy a further piece of huge messages. The events that were taken are recorded once all have arrived."""
        if self._has_copied:
            self._has_copied = False
            return False
        complete: bool = self._below.complete()
        if complete and self._incomplete:
            events, self._incomplete = self._incomplete, ()
            self._add_deliveries(events)
        return complete

    def _add_deliveries(self, events: Sequence[Any]) -> None:
        recorder = self._recorder
        # All get the same time: the client took them at once.
        time = self._clock()
        if len(events) > _FEW:
            # Not the messages: each garbage collection would go through all that stay.
            try:
                senders, payloads = [event.sender for event in events], [event.payload for event in events]
            except AttributeError:
                pass  # not all are messages
            else:
                arguments = time, self._number, senders, payloads
                recorder.add((next(places), len(events), sum(map(len, payloads)), recorder.messages, arguments))
                return
        size = sum([len(event.payload) for event in events if isinstance(event, Message)])
        recorder.add((next(places), len(events), size, recorder.deliveries, (time, self._number, tuple(events))))

    def close(self, *, leave: bool = False, reason: str = "") -> None:
        """Close the handle."""
        if not self._closing:
            self._closing = True
            number = next(self._recorder.numbers)
            arguments = {"leave": leave, **({"reason": reason} if reason else {})}
            self._recorder.write(Call, self._number, number=number, function="close", arguments=arguments)
        self._below.close(leave=leave, reason=reason)
