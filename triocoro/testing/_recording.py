"""An endpoint that writes down what its clients do and see, whatever is above and below it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import attrs
import trio

from .._errors import CorosyncError
from .._raw import Endpoint, MulticastStatus, RawCfg, RawCmap, RawCpg, RawQuorum, RawVotequorum
from .._types import CmapMap
from ._history import Call, Cancellation, Event, Failure, History, Loss, Return

T = TypeVar("T")


@attrs.define
class _Client:
    """Writes the entries of one client."""

    history: History
    name: str
    node: int
    handles: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def write(self, kind: Callable[..., Any], handle: int, **fields: object) -> None:
        self.history.append(
            kind(time=self.history.clock(), client=self.name, node=self.node, handle=handle, **fields)
        )

    async def call(self, handle: int, function: str, arguments: dict[str, Any], action: Callable[[], Awaitable[T]]) -> T:
        """Do a round trip, and write down what came of it."""
        number = next(self.numbers)
        self.write(Call, handle, number=number, function=function, arguments=arguments)
        try:
            result = await action()
        except trio.Cancelled:
            self.write(Cancellation, handle, number=number)
            raise
        except CorosyncError as error:
            self.write(Failure, handle, number=number, error=type(error).__name__)
            raise
        self.write(Return, handle, number=number, result=_kept(result))
        return result


class RecordingEndpoint:
    """An endpoint that records: give it to `open_*`, or make it the default one of the application under test.

    Args:
        history: where to.
        endpoint: the daemon.
        client: a name for whoever uses it; unique in the history.
        node: the daemon's node.
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

    async def connect_cpg(self, *, initial_totem_conf: bool = False) -> RawCpg:
        """Connect to the daemon's CPG service."""
        return await self._connect("connect_cpg", {"initial_totem_conf": initial_totem_conf})

    async def connect_votequorum(self) -> RawVotequorum:
        """Connect to the daemon's votequorum service."""
        return await self._connect("connect_votequorum", {})

    async def connect_quorum(self) -> RawQuorum:
        """Connect to the daemon's quorum service."""
        return await self._connect("connect_quorum", {})

    async def connect_cmap(self, map: CmapMap) -> RawCmap:  # noqa: A002 - as in C
        """Connect to one of the daemon's maps."""
        return await self._connect("connect_cmap", {"map": map})

    async def connect_cfg(self) -> RawCfg:
        """Connect to the daemon's cfg service."""
        return await self._connect("connect_cfg", {})

    async def _connect(self, function: str, arguments: dict[str, Any]) -> Any:  # noqa: ANN401 - as many as services
        handle = next(self._client.handles)
        connect = getattr(self._endpoint, function)
        raw = None

        async def action() -> int:
            nonlocal raw
            raw = await connect(**arguments)
            return self.pid

        await self._client.call(handle, function, arguments, action)
        return _RecordingHandle(raw, self._client, handle)


class _RecordingHandle:
    """A raw handle of any service."""

    def __init__(self, raw: Any, client: _Client, number: int) -> None:  # noqa: ANN401 - as many as services
        self._raw = raw
        self._client = client
        self._number = number

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the handle has
        attribute = getattr(self._raw, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute
        signature = inspect.signature(attribute)

        @wraps(attribute)
        async def recorded(*args: object, **kwargs: object) -> Any:  # noqa: ANN401 - as above
            arguments = dict(signature.bind(*args, **kwargs).arguments)
            if name == "zcb_mcast_joined":
                arguments = {"payload": bytes(arguments["buffer"][: arguments["length"]])}
            kept = {key: _kept(value) for key, value in arguments.items()}
            return await self._client.call(self._number, name, kept, lambda: attribute(*args, **kwargs))

        return recorded

    def multicast(self, payloads: Sequence[bytes]) -> tuple[int, MulticastStatus]:
        """Send, and write down how many have been sent."""
        number = next(self._client.numbers)
        try:
            sent, status = self._raw.multicast(payloads)
        except CorosyncError as error:
            self._client.write(Call, self._number, number=number, function="multicast", arguments={"payloads": payloads})
            self._client.write(Failure, self._number, number=number, error=type(error).__name__)
            raise
        if sent:
            arguments = {"payloads": tuple(payloads[:sent])}
            self._client.write(Call, self._number, number=number, function="multicast", arguments=arguments)
            self._client.write(Return, self._number, number=number)
        return sent, status

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[Any]]:
        """Take what waits, and write it down."""
        try:
            taken, events = self._raw.dispatch(max_events, max_bytes)
        except CorosyncError:
            self._client.write(Loss, self._number)
            raise
        for event in events:
            self._client.write(Event, self._number, event=event)
        return taken, events

    def close(self, *, leave: bool = False) -> None:
        """Give the handle up."""
        if not self._raw.closed:
            number = next(self._client.numbers)
            self._client.write(Call, self._number, number=number, function="close", arguments={"leave": leave})
        self._raw.close(leave=leave)


def _kept(value: object) -> object:
    """What a history keeps of a value: a shared buffer is somebody else's."""
    return len(value) if isinstance(value, memoryview) else value
