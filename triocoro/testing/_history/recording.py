"""An endpoint that writes down what its clients do and see, whatever is above and below it."""

from __future__ import annotations

import fcntl
import inspect
import itertools
import math
import select
import struct
import termios
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, TypeVar, cast

import attrs
import trio

from ..._endpoint import default_endpoint
from ..._errors import CorosyncError
from ..._raw import Endpoint, MulticastStatus, RawCfg, RawCmap, RawCpg, RawQuorum, RawVotequorum
from ..._types import Address, CmapMap, ConfigChange, MessageLost, TotemChange
from .history import Call, Cancellation, Entry, Event, Failure, History, Loss, Return, kept

T = TypeVar("T")


@attrs.define
class _Client:
    """Writes the entries of one client."""

    history: History
    name: str
    node: int
    handles: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def write(self, kind: Callable[..., Entry], handle: int, *, time: float | None = None, **fields: object) -> None:
        time = self.history.clock() if time is None else time
        self.history.append(kind(time=time, client=self.name, node=self.node, handle=handle, **fields))

    async def call(
        self,
        handle: int,
        function: str,
        arguments: dict[str, Any],
        action: Callable[[], Awaitable[T]],
        waiting: Callable[[], bool] = bool,
    ) -> T:
        """Do a round trip, and write down what came of it."""
        number = next(self.numbers)
        self.write(Call, handle, number=number, function=function, arguments=arguments)
        try:
            result = await action()
        except trio.Cancelled:
            self.write(Cancellation, handle, number=number)
            raise
        except Exception as error:
            self.write(Failure, handle, number=number, error=type(error).__name__)
            raise
        self.write(Return, handle, number=number, result=kept(result), waiting=waiting())
        return result


class RecordingEndpoint:
    """An endpoint that records: give it to `open_*`, or make it the default one of the application under test.

    Objects of this class come from `History.endpoint`. What is recorded is what passes between the SDK and Corosync:
    an application, or the SDK, that makes several calls of one, or none, is seen to do so.
    """

    def __init__(self, history: History, endpoint: Endpoint, *, client: str, node: int) -> None:
        self._endpoint = endpoint
        self._client = _Client(history, client, node)

    def __repr__(self) -> str:
        return f"<RecordingEndpoint {self._client.name!r} of {self._endpoint!r}>"

    @property
    def label(self) -> str:
        """Names the daemon in messages."""
        return self._endpoint.label

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
        """Write down that the client was told of a message of its own that got lost.

        What passes here does not show it: the SDK reports it by `MessageLost` and `MessageLostError`. Corosync drops
        messages under load; `check` does not mind those that were reported.
        """
        self._client.write(Event, 0, event=MessageLost(payload))

    async def connect_cpg(self, *, initial_totem_conf: bool = False) -> RawCpg:
        """Connect to the daemon's CPG service."""
        # Whoever reads the history wants to know in which ring a member began, even if the client does not.
        raw: RawCpg = await self._connect("connect_cpg", {"initial_totem_conf": True})
        return raw if initial_totem_conf else cast("RawCpg", _WithoutInitialTotem(raw))

    async def connect_votequorum(self, *, extra_info: bool = False) -> RawVotequorum:
        """Connect to the daemon's votequorum service."""
        raw: RawVotequorum = await self._connect("connect_votequorum", {"extra_info": extra_info})
        return raw

    async def connect_quorum(self) -> RawQuorum:
        """Connect to the daemon's quorum service."""
        raw: RawQuorum = await self._connect("connect_quorum", {})
        return raw

    async def connect_cmap(self, map: CmapMap) -> RawCmap:  # noqa: A002 - as in C
        """Connect to one of the daemon's maps."""
        raw: RawCmap = await self._connect("connect_cmap", {"map": map})
        return raw

    async def connect_cfg(self) -> RawCfg:
        """Connect to the daemon's cfg service."""
        raw: RawCfg = await self._connect("connect_cfg", {})
        return raw

    async def _connect(self, function: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401 - as many as services
        client = self._client
        handle = next(client.handles)
        raws: list[Any] = []

        async def action() -> Address:
            raws.append(await getattr(self._endpoint, function)(**arguments))
            return Address(client.node, self.pid)

        await client.call(handle, function, arguments, action)
        return _RecordingHandle(raws[0], client, handle)


class _RecordingHandle:
    """A raw handle of any service.

    Args:
        raw: the handle.
        client: whose it is.
        number: its number.
    """

    def __init__(self, raw: Any, client: _Client, number: int) -> None:  # noqa: ANN401 - of any service
        self._raw = raw
        self._client = client
        self._number = number
        self._lost = False
        self._closing = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the handle has
        attribute = getattr(self._raw, name)
        if not inspect.iscoroutinefunction(attribute) or name == "wait_closed":
            return attribute
        signature = inspect.signature(attribute)

        @wraps(attribute)
        async def recorded(*args: object, **kwargs: object) -> Any:  # noqa: ANN401 - as above
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            if name == "zcb_mcast_joined":
                # The daemon reads it from there by itself.
                arguments = {"payload": bytes(arguments["buffer"][: arguments["length"]])}
            action = partial(attribute, *args, **kwargs)
            return await self._client.call(self._number, name, kept(arguments), action, self._waiting)

        return recorded

    def _waiting(self) -> bool:
        # An answer may come when its handle has been given up: no fd is left then.
        if self._closing:
            return False
        poll = select.poll()
        poll.register(self._raw.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Send, and write down what has been sent."""
        # Another process may receive a message before this call returns.
        time = self._client.history.clock()
        try:
            sent, status = self._raw.multicast(payloads)
        except CorosyncError as error:
            number = self._write_multicast(payloads, time)
            self._client.write(Failure, self._number, number=number, error=type(error).__name__)
            raise
        if sent:
            number = self._write_multicast(payloads[:sent], time)
            self._client.write(Return, self._number, number=number)
        return sent, status

    def _write_multicast(self, payloads: Sequence[bytes], time: float) -> int:
        number = next(self._client.numbers)
        arguments = {"payloads": tuple(payloads)}
        self._client.write(Call, self._number, time=time, number=number, function="multicast", arguments=arguments)
        return number

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[Any]]:
        """Take what waits, and write it down."""
        try:
            taken, events = self._raw.dispatch(max_events, max_bytes)
        except CorosyncError:
            if not self._lost:
                self._lost = True
                self._client.write(Loss, self._number)
            raise
        # One time for all: what a client takes later had not come by then.
        time = self._client.history.clock()
        for event in events:
            self._client.write(Event, self._number, time=time, event=event)
        return taken, events

    def close(self, *, leave: bool = False) -> None:
        """Give the handle up."""
        if not self._closing:
            self._closing = True
            number = next(self._client.numbers)
            self._client.write(Call, self._number, number=number, function="close", arguments={"leave": leave})
        self._raw.close(leave=leave)


class _WithoutInitialTotem:
    """A handle of CPG for a client that has not asked for the totem change that comes with a join.

    All others it is told of anyway. The one to hide comes once the join is accepted, with the first change of any group
    on the node: right behind the first `ConfigChange` at the latest (exec/cpg.c: notify_lib_joinlist). It says the same
    as the one before, if there was any on this handle.

    Where the ring changes between the join and its `ConfigChange`, and the handle was told of none before, it looks the
    same whether that change or the one to hide comes first. We hide the first then, so the client may be told of its
    ring right behind its own join and not right before.
    """

    def __init__(self, recording: Any) -> None:  # noqa: ANN401 - it stands for a RawCpg
        self._recording = recording
        # How many events came before the join; all, while nobody has joined.
        self._earlier: float = math.inf
        self._last: TotemChange | None = None
        self._is_member = False
        self._over = False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the handle has
        return getattr(self._recording, name)

    async def join(self, group: bytes) -> None:
        """Join."""
        is_first = self._earlier == math.inf
        if is_first:
            (self._earlier,) = struct.unpack("i", fcntl.ioctl(self.fileno(), termios.FIONREAD, b"\0" * 4))
        try:
            await self._recording.join(group)
        except CorosyncError:
            if is_first:
                self._earlier = math.inf
            raise

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[Any]]:
        """Take what waits."""
        taken, events = self._recording.dispatch(max_events, max_bytes)
        return taken, [event for event in events if self._over or not self._is_hidden(event)]

    def _is_hidden(self, event: object) -> bool:
        if self._is_member:
            # The first one behind the own join, which nothing was hidden before.
            self._over = True
            return isinstance(event, TotemChange)
        self._is_member = isinstance(event, ConfigChange)
        if not isinstance(event, TotemChange):
            return False
        self._earlier -= 1
        # What differs from the last is a new ring's own; the next one says the same if this one was ours after all.
        self._over = self._earlier < 0 and self._last in (None, event)
        self._last = event
        return self._over
