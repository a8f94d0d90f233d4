"""The interface of the nodes of clusters, real and fake."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from ..._endpoint import default_endpoint
from ..._services import Endpoint
from .recording import Recording

NodeT = TypeVar("NodeT", bound="Node")


class Node(ABC):
    """One node of a cluster."""

    def __init__(self, nodeid: int, cluster_name: str, recording: Recording) -> None:
        self.nodeid = nodeid
        self.label: str = f"node {nodeid} of {cluster_name}"
        """Names the node and its cluster in messages."""
        self._cluster_name = cluster_name
        self._recording = recording

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.nodeid} of {self._cluster_name}>"

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """The `endpoint=` of clients of this node's daemon; it stays valid when the daemon is restarted.

        While the cluster is recorded, so are the connections that are made with it.
        """

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The daemon's pid as this process sees it; `None` on the fake, and while no daemon runs."""

    @property
    @abstractmethod
    def log(self) -> str:
        """The daemon's log so far, over all its restarts."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the daemon runs; a frozen one does."""

    @property
    @abstractmethod
    def frozen(self) -> bool:
        """Whether the daemon is frozen."""

    @contextmanager
    def as_default(self) -> Generator[None, None, None]:
        """Make this node `triocoro.default_endpoint` within a `with` block."""
        token = default_endpoint.set(self.endpoint)
        try:
            yield
        finally:
            default_endpoint.reset(token)

    async def start(self) -> None:
        """Start the daemon; returns once clients can connect to it. Nothing happens if it runs.

        Cancelled: the daemon may have been started.

        Raises:
            RuntimeError: the cluster does not run, or the node was removed from it.
            CorosyncUnavailableError: the daemon ended, or no client could connect to it; the message has its log.
        """
        with self._recording.fault("start", nodeid=self.nodeid):
            await self._start()

    async def stop(self) -> None:
        """Shut the daemon down cleanly (SIGTERM: it leaves the cluster), and wait for its end.

        A frozen daemon is thawed for that.

        Cancelled: the daemon still ends.

        Raises:
            trio.TooSlowError: it has not ended within 30 seconds; the message has the end of its log.
        """
        with self._recording.fault("stop", nodeid=self.nodeid):
            await self._stop()

    async def kill(self) -> None:
        """Kill the daemon (SIGKILL: the other nodes detect the loss), and wait for its end.

        Cancelled: the daemon still ends.
        """
        with self._recording.fault("kill", nodeid=self.nodeid):
            await self._kill()

    async def restart(self) -> None:
        """Shut the daemon down cleanly, if it runs, and start it.

        Cancelled: it may be stopped.
        """
        with self._recording.fault("restart", nodeid=self.nodeid):
            await self.stop()
            await self.start()

    async def freeze(self) -> None:
        """Stop the daemon in its tracks (SIGSTOP) until `thaw`; returns once all of its threads have stopped.

        Cancelled: it may be frozen.

        Raises:
            RuntimeError: no daemon runs.
            trio.TooSlowError: it has not stopped within 30 seconds; the message has the states of its threads.
        """
        with self._recording.fault("freeze", nodeid=self.nodeid):
            await self._freeze()

    async def thaw(self) -> None:
        """Let a frozen daemon go on (SIGCONT).

        Cancelled: it may go on.
        """
        with self._recording.fault("thaw", nodeid=self.nodeid):
            await self._thaw()

    @abstractmethod
    async def _start(self) -> None: ...

    @abstractmethod
    async def _stop(self) -> None: ...

    @abstractmethod
    async def _kill(self) -> None: ...

    @abstractmethod
    async def _freeze(self) -> None: ...

    @abstractmethod
    async def _thaw(self) -> None: ...


def removed(label: str) -> RuntimeError:
    """The error for a node that its cluster has no longer."""
    return RuntimeError(f"{label} was removed from its cluster; `add_node` makes another one")


def node_of(nodes: Mapping[int, NodeT], nodeid: int) -> NodeT:
    """Return the node with that id, for the `cluster[nodeid]` of each kind of cluster.

    Raises:
        KeyError: there is none; the message lists those that there are.
    """
    try:
        return nodes[nodeid]
    except KeyError:
        known = ", ".join(map(str, nodes))
        raise KeyError(f"there is no node {nodeid!r} in this cluster; its nodes are {known}") from None
