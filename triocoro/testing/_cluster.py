"""What a test sees of a cluster, real or fake."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from types import TracebackType

import attrs
import trio

from .._cpg import open_cpg
from .._endpoint import default_endpoint
from .._raw import Endpoint
from .._types import VotequorumNodelist
from .._votequorum import open_votequorum


@attrs.frozen(kw_only=True)
class ClusterOptions:
    """How a cluster is configured; see votequorum(5) and corosync.conf(5)."""

    nodes: int = attrs.field(default=3, validator=[attrs.validators.instance_of(int), attrs.validators.ge(1)])
    """How many nodes; their ids are 1 to that number."""
    two_node: bool = False
    """votequorum's two_node; it brings wait_for_all with it, unless that is given."""
    wait_for_all: bool | None = None
    """votequorum's wait_for_all; `None` leaves it to two_node."""
    token: int = attrs.field(default=500, validator=attrs.validators.ge(100))
    """totem's token timeout in milliseconds (the fake's changes take no time)."""


class Node(ABC):
    """One node of a cluster."""

    def __init__(self, nodeid: int) -> None:
        self.nodeid = nodeid

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.nodeid}>"

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Give this as `endpoint=` to talk to this node's daemon; it stays valid when the daemon is restarted."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The daemon's pid as this process sees it; `None` on the fake, and while no daemon runs."""

    @property
    @abstractmethod
    def log(self) -> str:
        """What the daemon has logged so far, over all its restarts."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the daemon runs; a frozen one does."""

    @contextmanager
    def as_default(self) -> Generator[None, None, None]:
        """Make this node the default endpoint within a `with` block, in this context."""
        token = default_endpoint.set(self.endpoint)
        try:
            yield
        finally:
            default_endpoint.reset(token)

    @abstractmethod
    async def start(self) -> None:
        """Start the daemon; returns once clients can connect to it. Nothing happens if it runs."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the daemon in good order (SIGTERM: it leaves the cluster), and wait for its end."""

    @abstractmethod
    async def kill(self) -> None:
        """Kill the daemon (SIGKILL: the others must find out), and wait for its end."""

    @abstractmethod
    async def freeze(self) -> None:
        """Stop the daemon in its tracks (SIGSTOP) until `thaw`."""

    @abstractmethod
    async def thaw(self) -> None:
        """Let a frozen daemon go on (SIGCONT)."""


class Cluster(AbstractContextManager["Cluster"], AbstractAsyncContextManager["Cluster"]):
    """A throwaway cluster. Use it with `async with`, or with a plain `with`, which blocks while it starts and stops."""

    options: ClusterOptions

    @property
    @abstractmethod
    def nodes(self) -> Mapping[int, Node]:
        """The nodes by their ids."""

    def __getitem__(self, nodeid: int) -> Node:
        return self.nodes[nodeid]

    @abstractmethod
    def __enter__(self) -> Cluster: ...

    @abstractmethod
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    @abstractmethod
    async def __aenter__(self) -> Cluster: ...

    @abstractmethod
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def reachable(self, nodeid: int) -> frozenset[int]:
        """The nodes that `nodeid` can talk to now, itself included; none if it is frozen or down."""

    async def settled(self) -> None:
        """Wait until the membership on every node that is up (and not frozen) is what the topology allows.

        Quorum has been counted by then, and the nodes are ready for requests.
        """
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                if self.reachable(node.nodeid):
                    nursery.start_soon(self._node_settled, node)

    async def _node_settled(self, node: Node) -> None:
        async with (
            open_cpg(endpoint=node.endpoint) as cpg,
            open_votequorum(endpoint=node.endpoint) as votequorum,
            votequorum.track() as changes,
        ):
            async for change in changes:
                if isinstance(change, VotequorumNodelist) and frozenset(change.nodes) == self.reachable(node.nodeid):
                    # The node list only begins a transition. The daemon answers no CPG request before its end.
                    await cpg.local_nodeid()
                    return
