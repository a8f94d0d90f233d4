"""A daemon whose news arrive late, or not at all: it stands between the SDK and an endpoint, at the raw seam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import attrs

from triocoro import Endpoint, QuorumType, ServiceSpec
from triocoro.testing._history.recording import EndpointWrapper

RawT = TypeVar("RawT")


@attrs.define
class News:
    """What happens to the events of all connections to one service."""

    held: bool = False
    """Whether events are held back. They come with the first event after that."""
    drop: Callable[[object], bool] = lambda _: False
    """Events that never come."""
    _waiting: list[object] = attrs.field(factory=list[object])

    @property
    def waiting(self) -> list[object]:
        """The events that are held back."""
        return list(self._waiting)

    def pass_on(self, events: Sequence[object]) -> Sequence[object]:
        self._waiting += [event for event in events if not self.drop(event)]
        if self.held:
            return []
        events, self._waiting = self._waiting, []
        return events


class _Proxy:
    def __init__(self, raw: Any, news: News, quorum_type: QuorumType) -> None:
        self._raw = raw
        self._news = news
        self.type = quorum_type

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def dispatch(self, max_events: int, max_bytes: int) -> tuple[int, Sequence[object]]:
        taken, events = self._raw.dispatch(max_events, max_bytes)
        return taken, self._news.pass_on(events)


class LateEndpoint(EndpointWrapper):
    """An endpoint whose news arrive as told."""

    def __init__(self, endpoint: Endpoint, quorum_type: QuorumType = QuorumType.SET) -> None:
        super().__init__(endpoint)
        self._quorum_type = quorum_type
        self.news = {"cpg": News(), "quorum": News()}
        """What happens to the news of each service."""
        self.raw: dict[str, Any] = {}
        """The latest handle of each service."""

    async def connect(self, service: ServiceSpec[RawT, object]) -> RawT:
        raw = await self._endpoint.connect(service)
        proxy = _Proxy(raw, self.news[service.name], self._quorum_type)
        self.raw[service.name] = proxy
        return cast("RawT", proxy)
