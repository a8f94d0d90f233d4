"""The in-memory cluster as a test sees it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

import trio

from ..._services import Endpoint
from .._cluster.cluster import Cluster, Node
from .._cluster.network import Network
from .._cluster.options import ClusterOptions, ClusterSettings, merge
from .endpoint import FakeEndpoint, services
from .exec.daemon import Daemon
from .exec.totem import Totem

if TYPE_CHECKING:
    from typing_extensions import Unpack  # which is younger than Python 3.10


class FakeCluster(Cluster):
    """A Corosync cluster in memory, which serves process groups, votequorum, quorum, cmap and cfg as Corosync would.

    It needs no privileges, no processes and, unless given a latency, no time: the effect of each verb and of each
    request is complete when it returns, and `trio.testing.MockClock` stays exact. It may be created and entered outside
    of a Trio run; what takes time by its nature, such as the window of last_man_standing, passes within runs only. An
    instance is used once.

    With a latency or jitter, whatever nodes tell each other outside of transitions comes later (docs/determinism.md).
    Real clusters have no such arguments: their network takes the time that it takes.

    Args:
        options: the configuration; without it, that of `ClusterOptions()`.
        nodes: how many nodes, with the ids 1 to that number; replaces `options.nodes`.
        latency: how many seconds a message takes to each node, its sender's included.
        jitter: up to how many seconds more it takes, by chance, for each message and node.
        seed: of that chance; an integer, whose sign does not count.
        settings: further fields of `ClusterOptions`; each replaces that field of `options`.

    Raises:
        ValueError: a latency or jitter is negative or not finite, or the options are contradictory.
    """

    def __init__(
        self,
        *,
        options: ClusterOptions | None = None,
        nodes: int | None = None,
        latency: float = 0,
        jitter: float = 0,
        seed: int = 0,
        **settings: Unpack[ClusterSettings],
    ) -> None:
        super().__init__(merge(options, nodes, settings))
        self._used = False
        self._entered = False
        self._totem = Totem(self.options.nodeids, latency=latency, jitter=jitter, seed=seed)
        pids = itertools.count(os.getpid() + 1)
        self._nodes = {nodeid: FakeNode(nodeid, self, self._totem, pids) for nodeid in self.options.nodeids}

    @property
    def nodes(self) -> Mapping[int, FakeNode]:
        """The nodes by their ids."""
        return MappingProxyType(self._nodes)

    def __getitem__(self, nodeid: int) -> FakeNode:
        return self._nodes[nodeid]

    def check_runs(self) -> None:
        """Raise `RuntimeError` if we are not in the block: elsewhere there is nothing to do anything to."""
        if not self._entered:
            raise RuntimeError(f"{self!r} does not run")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, {len(self._nodes)} nodes>"

    def __enter__(self) -> FakeCluster:  # noqa: PYI034 - typing.Self is younger than Python 3.10
        if self._used:
            raise RuntimeError("a cluster is used once; make another one")
        self._used = self._entered = True
        for node in self._nodes.values():
            node.boot()
        self._totem.reform()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._entered = False
        for node in self._nodes.values():
            node.crash()

    async def __aenter__(self) -> FakeCluster:  # noqa: PYI034 - as above
        await trio.lowlevel.checkpoint()
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)
        await trio.lowlevel.checkpoint()  # noqa: ASYNC102 - all is done by now

    def _up(self) -> frozenset[int]:
        return frozenset(nodeid for nodeid, node in self._nodes.items() if node.running and not node.frozen)

    async def _rewire(self, change: Callable[[Network], Network]) -> None:
        self.check_runs()
        await trio.lowlevel.checkpoint()
        self._network = change(self._network)
        self._totem.rewire(self._network)


class FakeNode(Node):
    """A node of a `FakeCluster`."""

    def __init__(self, nodeid: int, cluster: FakeCluster, totem: Totem, pids: Iterable[int]) -> None:
        super().__init__(nodeid)
        self._cluster = cluster
        self._totem = totem
        self._pids = iter(pids)
        self._daemon: Daemon | None = None
        self._endpoint = self._endpoint_of(os.getpid())
        self._log: list[str] = []

    @property
    def endpoint(self) -> Endpoint:
        """Give this as `endpoint=` to talk to this node; its clients have this process's pid."""
        return self._endpoint

    def client(self) -> Endpoint:
        """A further endpoint of this node, whose clients have a pid of their own, for several members of one group."""
        return self._endpoint_of(next(self._pids))

    @property
    def daemon(self) -> Daemon | None:
        """The daemon, while one runs."""
        return self._daemon if self._daemon is not None and self._daemon.alive else None

    @property
    def pid(self) -> int | None:
        """`None`: there is no process."""
        return None

    @property
    def log(self) -> str:
        """What has happened on this node, in the style of Corosync's log, over all its restarts."""
        return "".join(self._log)

    @property
    def running(self) -> bool:
        """Whether the daemon runs; a frozen one does."""
        return self.daemon is not None

    @property
    def frozen(self) -> bool:
        """Whether the daemon is frozen."""
        return self.daemon is not None and self.daemon.frozen

    async def start(self) -> None:
        """Start the daemon. Nothing happens if it runs."""
        await trio.lowlevel.checkpoint()
        self._cluster.check_runs()
        if self.daemon is None:
            self.boot()
            self._totem.reform()

    async def stop(self) -> None:
        """Stop the daemon in good order: it parts from its clients, then from the others. A frozen one thaws first."""
        await trio.lowlevel.checkpoint()
        if self.daemon is not None:
            self.daemon.shut_down()

    async def kill(self) -> None:
        """Kill the daemon: its connections break, and the others lose the node. Frozen ones can be killed too."""
        await trio.lowlevel.checkpoint()
        self.crash()
        self._totem.reform()

    async def freeze(self) -> None:
        """Stop the daemon in its tracks. If there are others in its ring, they lose it at once."""
        await trio.lowlevel.checkpoint()
        if self.daemon is None:
            raise RuntimeError(f"node {self.nodeid} does not run, so it cannot be frozen")
        if not self.daemon.frozen:
            self.daemon.freeze()
            self._totem.reform()

    async def thaw(self) -> None:
        """Let a frozen daemon go on: it works off what has come in, and then finds out what it has missed."""
        await trio.lowlevel.checkpoint()
        if self.daemon is not None and self.daemon.frozen:
            self._totem.thaw(self.daemon)

    def boot(self) -> None:
        """Start the daemon, alone in a ring for now."""
        daemon = self._daemon = Daemon(self.nodeid, self._totem, self._write_log)
        daemon.begin({service.name: service for service in services(daemon, self._cluster.options)})

    def crash(self) -> None:
        """End the daemon, without telling the other nodes."""
        if self.daemon is not None:
            self.daemon.die()

    def _endpoint_of(self, pid: int) -> FakeEndpoint:
        return FakeEndpoint(self.nodeid, lambda: self.daemon, pid, identity=self)

    def _write_log(self, subsystem: str, text: str) -> None:
        self._log.append(f"[{subsystem:<6}] {text}\n")
