"""`FakeCluster` and its nodes, which are the public face of the in-memory Corosync."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final

import trio

from ..._errors import CorosyncUnavailableError
from ..._forks import Origin
from ..._runs import require_trio
from ..._services import Endpoint
from .._cluster.cluster import Cluster
from .._cluster.corosync_conf import corosync_conf
from .._cluster.network import Network
from .._cluster.node import Node, node_of, removed
from .._cluster.options import ClusterOptions, ClusterSettings, merge
from .._cluster.recording import NodeEndpoint, Recording
from .endpoint import FakeEndpoint, services
from .exec import coroparse, totemconfig
from .exec.daemon import Daemon
from .exec.icmap import Icmap
from .exec.totem import Totem

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on


_CLUSTER_NAME: Final = "triocoro"
"""The name of every fake cluster in its corosync.conf; they never meet, so one name is enough."""

_numbers: Final = [itertools.count(1)]
"""The last one gives the names of clusters their numbers."""


@contextmanager
def numbering_anew() -> Generator[None, None, None]:
    """Within a `with` block, the names of clusters begin again, so that a run that is repeated has the same names."""
    anew = itertools.count(1)
    _numbers.append(anew)
    try:
        yield
    finally:
        _numbers.remove(anew)


class FakeCluster(Cluster):
    """A Corosync cluster in memory, with the CPG, votequorum, quorum, cmap and cfg services.

    It needs no privileges and no processes and, unless given a latency, takes no time: each call to the cluster or to a
    service has taken effect everywhere when it returns, and `trio.testing.MockClock` stays exact. It may be created and
    entered outside of a Trio run, but timers, such as the window of last_man_standing, run within Trio runs only. Runs
    in several threads can use it at once. An instance can be entered once. It is of one process: using it in a forked
    child is a `RuntimeError`, but for leaving its block, which does nothing there.

    With a latency or jitter, messages between nodes arrive later, except in transitions (docs/determinism.md). Real
    clusters have no such arguments, since their network takes its own time.

    Args:
        options: the configuration; by default `ClusterOptions()`.
        nodes: the number of nodes, whose ids are 1 to that number; replaces `options.nodes` and `options.nodeids`.
        latency: the seconds that a message takes to each node, the sender's own included.
        jitter: the maximum of the random seconds added to that, for each message and node.
        seed: the seed of these random numbers, an integer; its sign does not count.
        settings: further fields of `ClusterOptions`, each of which replaces that field of `options`.

    Raises:
        ValueError: a latency or jitter is negative or not finite, or the options are contradictory.
        CorosyncUnavailableError: on entry, if a daemon would refuse the options' extra lines; with its reason.
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
        super().__init__(merge(options, nodes, settings), f"fake-{next(_numbers[-1])}")
        self._origin = Origin()
        self._used = False
        self._entered = False
        self._conf = corosync_conf(self.options, self._addresses, _CLUSTER_NAME)
        self._totem = Totem(self._network, latency=latency, jitter=jitter, seed=seed)
        self._pids = itertools.count(os.getpid() + 1)
        self._nodes = {nodeid: self._make_node(nodeid) for nodeid in self.options.nodeids}

    def _make_node(self, nodeid: int) -> FakeNode:
        return FakeNode(nodeid, self, self._recording, totem=self._totem, pids=self._pids, start=self._start_one)

    @property
    def nodes(self) -> Mapping[int, FakeNode]:
        """The nodes, by id."""
        return MappingProxyType(self._nodes)

    def __getitem__(self, nodeid: int) -> FakeNode:
        return node_of(self._nodes, nodeid)

    def _check_runs(self) -> None:
        """Raise `RuntimeError` outside of the cluster's block, and in a forked child."""
        self.check_process()
        if not self._entered:
            raise RuntimeError(f"{self!r} does not run")

    def check_process(self) -> None:
        """Raise `RuntimeError` in a forked child."""
        self._origin.check(
            f"{self!r} was made",
            "a fake is in the memory of one process, so run its clients there, in threads if need be, or use real"
            " daemons (NetnsCluster)",
        )

    def check_caller(self) -> None:
        """Raise `RuntimeError` in a forked child, and outside of a task of Trio."""
        self.check_process()
        require_trio()

    def __enter__(self) -> FakeCluster:  # noqa: PYI034 - typing has Self from Python 3.11 on
        self.check_process()
        if self._used:
            raise RuntimeError("a cluster is used once; make another one")
        self._used = True
        self._check_configuration("every node")
        self._entered = True
        with self._totem.timers.lock:
            self._totem.timers.passes()  # in a run: it is its time
            for node in self._nodes.values():
                node.boot()
            self._totem.reform()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._origin.forked:
            return
        with self._totem.timers.lock:
            self._entered = False
            for node in self._nodes.values():
                node.crash()

    async def __aenter__(self) -> FakeCluster:  # noqa: PYI034 - typing has Self from Python 3.11 on
        require_trio()
        await trio.lowlevel.checkpoint()
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)
        await trio.lowlevel.checkpoint()  # noqa: ASYNC102 - the cluster has ended before it

    def read_configuration(self) -> Icmap:
        """The contents of corosync.conf, which is the same on every node."""
        return coroparse.parse(self._conf)

    def _check_configuration(self, who: str) -> None:
        try:
            totemconfig.check(self.read_configuration())
        except coroparse.ConfigurationError as error:
            raise CorosyncUnavailableError(f"{who}: corosync would not start\n  it said: {error}") from None

    async def _reconfigure(self, change: Callable[[ClusterOptions], ClusterOptions]) -> ClusterOptions:
        self.check_caller()
        self._check_runs()
        await trio.lowlevel.checkpoint()
        with self._totem.timers.lock:
            options = change(self._options)
            self._adopt(options)
            self._nodes = {nodeid: self._nodes.get(nodeid) or self._make_node(nodeid) for nodeid in options.nodeids}
            self._conf = corosync_conf(options, self._addresses, _CLUSTER_NAME)
            self._totem.set_network(self._network)
            return options

    def _start_one(self, node: FakeNode) -> None:
        self._check_runs()
        if self._nodes.get(node.nodeid) is not node:
            raise removed(node.label)
        if node.daemon is None:
            self._check_configuration(f"node {node.nodeid}")
            node.boot()
            self._totem.reform()

    def _up(self) -> frozenset[int]:
        return frozenset(nodeid for nodeid, node in self._nodes.items() if node.running and not node.frozen)

    async def _rewire(self, change: Callable[[Network], Network]) -> None:
        self.check_caller()
        self._check_runs()
        await trio.lowlevel.checkpoint()
        with self._totem.timers.lock:
            self._network = change(self._network)
            self._totem.set_network(self._network)


class FakeNode(Node):
    """A node of a `FakeCluster`."""

    def __init__(
        self,
        nodeid: int,
        cluster: FakeCluster,
        recording: Recording,
        *,
        totem: Totem,
        pids: Iterable[int],
        start: Callable[[FakeNode], None],
    ) -> None:
        super().__init__(nodeid, cluster.name, recording)
        self._start_daemon = start
        self._cluster = cluster
        self._totem = totem
        self._pids = iter(pids)
        self._daemon: Daemon | None = None
        self._endpoint = self._endpoint_of(os.getpid(), f"node {nodeid}")
        self._log: list[tuple[float | None, str]] = []

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint of this node, for `endpoint=`. Its clients have the pid of this process."""
        return self._endpoint

    def client(self) -> Endpoint:
        """A further endpoint of this node, whose clients have a pid of their own.

        With it, several clients of one node can be members of the same group.
        """
        pid = next(self._pids)
        return self._endpoint_of(pid, f"node {self.nodeid} pid {pid}")

    @property
    def daemon(self) -> Daemon | None:
        """The node's daemon; `None` if none is running."""
        daemon = self._daemon  # another thread may start or end one
        return daemon if daemon is not None and daemon.alive else None

    @property
    def pid(self) -> int | None:
        """`None`, since a fake node has no process."""
        return None

    @property
    def log(self) -> str:
        """The log of this node in the style of Corosync's, over all restarts."""
        return "".join(f"{line}\n" for _, line in self._log)

    @property
    def timed_log(self) -> Sequence[tuple[float | None, str]]:
        """The lines of the log, each with its time by the clock of the cluster's history, if it was recorded then."""
        return self._log

    @property
    def running(self) -> bool:
        """Whether the daemon is running. A frozen daemon is running."""
        return self.daemon is not None

    @property
    def frozen(self) -> bool:
        """Whether the daemon is frozen."""
        daemon = self.daemon
        return daemon is not None and daemon.frozen

    async def _start(self) -> None:
        self._cluster.check_caller()
        await trio.lowlevel.checkpoint()
        with self._totem.timers.lock:
            self._start_daemon(self)

    async def _stop(self) -> None:
        self._cluster.check_caller()
        await trio.lowlevel.checkpoint()
        with self._totem.timers.lock:
            if self.daemon is not None:
                self.daemon.shut_down()

    async def _kill(self) -> None:
        self._cluster.check_caller()
        await trio.lowlevel.checkpoint()
        with self._totem.timers.lock:
            self.crash()
            self._totem.reform()

    async def _freeze(self) -> None:
        self._cluster.check_caller()
        await trio.lowlevel.checkpoint()
        with self._totem.timers.lock:
            if self.daemon is None:
                raise RuntimeError(f"{self.label} does not run, so it cannot be frozen")
            if not self.daemon.frozen:
                self.daemon.freeze()
                self._totem.reform()

    async def _thaw(self) -> None:
        self._cluster.check_caller()
        await trio.lowlevel.checkpoint()
        with self._totem.timers.lock:
            if self.daemon is not None and self.daemon.frozen:
                self._totem.thaw(self.daemon)

    def boot(self) -> None:
        """Start a daemon in a ring of its own."""
        daemon = self._daemon = Daemon(self.nodeid, self._totem, self._write_log)
        daemon.start({service.name: service for service in services(daemon, self._cluster.read_configuration)})

    def crash(self) -> None:
        """End the daemon without telling the other nodes."""
        if self.daemon is not None:
            self.daemon.die()

    def _endpoint_of(self, pid: int, client: str) -> Endpoint:
        endpoint = FakeEndpoint(self.label, self._daemon_to_connect_to, pid, identity=self)
        return NodeEndpoint(self, endpoint, self._recording, client)

    def _daemon_to_connect_to(self) -> Daemon | None:
        self._cluster.check_process()
        return self.daemon

    def _write_log(self, subsystem: str, text: str) -> None:
        history = self._recording.history
        self._log.append((None if history is None else history.clock(), f"[{subsystem:<6}] {text}"))
