"""The base classes of service engines, and what they see of a client's connection (exec/service.h)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

from ...._types import RingId
from .stats import ConnectionCounters


class ClientConnection(Protocol):
    """A client's connection to a service, as the daemon and the service see it."""

    @property
    def service(self) -> Service:
        """The service at the daemon's end."""
        ...

    @property
    def pid(self) -> int:
        """The client's process id."""
        ...

    @property
    def counters(self) -> ConnectionCounters:
        """Its record in the statistics."""
        ...

    @property
    def broken(self) -> bool:
        """Whether the daemon's end is closed."""
        ...

    def send(self, record: object, *, size: int = 0) -> None:
        """Queue an event, with `size` bytes of payload, for the client."""
        ...

    def send_all(self, records: Sequence[object], sizes: Sequence[int]) -> None:
        """Queue events, each with so many bytes of payload, for the client."""
        ...

    def notify(self) -> None:
        """Announce queued events to the client, as far as there is room."""
        ...

    def hang_up(self) -> None:
        """Close the daemon's end. Events that the client has not dispatched are lost."""
        ...


class Service(ABC):
    """A service engine: it talks to its peers through Totem, and to its clients through their connections.

    Args:
        multicast: sends a message to the service of the given name on every node of the ring.
    """

    name: ClassVar[str]
    """Unique within a daemon."""
    serves_during_sync: ClassVar[bool] = False
    """Whether requests are served in the middle of a transition."""

    def __init__(self, multicast: Callable[[str, object], None]) -> None:
        self._multicast = multicast

    def multicast(self, message: object) -> None:
        """Send `message` to this service on every node of the ring."""
        self._multicast(self.name, message)

    @abstractmethod
    def deliver(self, message: object, sender: int) -> None:
        """Handle a message from node `sender`, in agreed order."""

    @abstractmethod
    def connection_closed(self, connection: ClientConnection) -> None:
        """Forget a client, whose connection has been closed."""

    def exit(self) -> None:  # noqa: B027 - most services have nothing to say
        """Called at a clean shutdown, once the clients are gone: tell the other nodes what they must know."""


class Synchronised(Service):
    """A service that synchronises its state with its peers in each new ring (exec/sync.c)."""

    @abstractmethod
    def sync_init(self, transitional: frozenset[int], members: tuple[int, ...], ring_id: RingId) -> None:
        """A new ring begins; `transitional` are the nodes that come from our old ring with us."""

    @abstractmethod
    def sync_process(self) -> None:
        """Send the state that the other nodes need."""

    def sync_waits(self) -> bool:
        """Whether the transition must not end yet. When that changes, the service calls `Totem.proceed`."""
        return False

    @abstractmethod
    def sync_activate(self) -> None:
        """All that was sent has arrived everywhere: tell the clients."""
