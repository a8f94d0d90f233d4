"""Clusters of real Corosync daemons, each node in network and mount namespaces of its own."""

from __future__ import annotations

import itertools
import os
import secrets
import shlex
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from ..._services import Endpoint
from .._cluster.cluster import Cluster, Node
from .._cluster.corosync_conf import KEY_BYTES, STATE_DIR, address, corosync_conf
from .._cluster.network import Network
from .._cluster.options import ClusterOptions, ClusterSettings, merge
from . import requirements
from .apart import Apart
from .hub import Hub
from .machine import Daemon, Machine, pid_of
from .nft import filter_rules
from .readiness import Readiness, describe_log

if TYPE_CHECKING:
    from typing_extensions import Unpack  # which is younger than Python 3.10

_CONF = f"{STATE_DIR}/corosync.conf"
_FREEZE_POLL = 0.001
_PATIENCE = 30.0
"""Seconds that a daemon may take to end, or to stand still."""

_numbers = itertools.count(1)


class NetnsNode(Node):
    """A node of a `NetnsCluster`."""

    def __init__(self, machine: Machine, start: Callable[[Machine], Awaitable[None]], note: Callable[[], None]) -> None:
        super().__init__(machine.nodeid)
        self._note_freeze = note
        self._machine = machine
        self._start = start
        self._starting = trio.Lock()

    @property
    def endpoint(self) -> Endpoint:
        """Give this as `endpoint=` to talk to this node's daemon; it stays valid when the daemon is restarted."""
        return self._machine.endpoint

    @property
    def pid(self) -> int | None:
        """The daemon's pid as this process sees it; `None` while no daemon runs."""
        daemon = self._machine.daemon
        return daemon.pid if daemon is not None and daemon.running else None

    @property
    def namespace_pid(self) -> int | None:
        """A process in the node's namespaces that outlives its daemons, for nsenter(1); `None` outside the block."""
        return self._machine.holder_pid

    @property
    def log(self) -> str:
        """What the daemon has logged so far, over all its restarts; it stays when the cluster has ended."""
        return self._machine.log

    @property
    def log_size(self) -> int:
        """How many bytes the daemon has logged so far; it takes no time."""
        return self._machine.log_size

    def log_since(self, size: int) -> str:
        """What the daemon has logged since the log had that size."""
        return self._machine.log_since(size)

    @property
    def running(self) -> bool:
        """Whether the daemon runs; a frozen one does."""
        return self._machine.running

    async def start(self) -> None:
        """Start the daemon; returns once clients can connect to it. Nothing happens if it runs.

        Cancelled: the daemon may have been started.

        Raises:
            CorosyncUnavailableError: the daemon ended, or nobody could connect to it; the message has its log.
        """
        async with self._starting:
            if not self.running:
                await Apart(lambda: self._start(self._machine)).run()

    async def stop(self) -> None:
        """Stop the daemon in good order (SIGTERM: it leaves the cluster), and wait for its end.

        A frozen daemon is thawed for that. Cancelled: the daemon goes on ending.

        Raises:
            trio.TooSlowError: it has not ended within 30 seconds; the message has the end of its log.
        """
        # Both, as systemd does: a process that stands still does not handle SIGTERM.
        await self._end(signal.SIGTERM, signal.SIGCONT)

    async def kill(self) -> None:
        """Kill the daemon (SIGKILL: the others must find out), and wait for its end.

        Cancelled: the daemon goes on ending.
        """
        await self._end(signal.SIGKILL)

    async def _end(self, *signals: signal.Signals) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        daemon = self._machine.daemon
        if daemon is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        for number in signals:
            daemon.send(number)
        await Apart(lambda: self._ended(daemon, " and ".join(number.name for number in signals))).run()

    async def _ended(self, daemon: Daemon, signals: str) -> None:
        with trio.move_on_after(_PATIENCE) as patience:
            await daemon.ended()
        if patience.cancelled_caught:
            raise trio.TooSlowError(
                f"node {self.nodeid}: corosync has not ended within {_PATIENCE:g} seconds of {signals}\n"
                f"{describe_log(self._machine.latest_log)}"
            )

    async def freeze(self) -> None:
        """Stop the daemon in its tracks (SIGSTOP) until `thaw`; returns once it stands still.

        Cancelled: it may be frozen.

        Raises:
            RuntimeError: no daemon runs.
            trio.TooSlowError: it does not stand still within 30 seconds; the message has the states of its threads.
        """
        await trio.lowlevel.checkpoint()
        daemon = self._machine.daemon
        if daemon is None or not daemon.running:
            raise RuntimeError(f"node {self.nodeid} does not run, so it cannot be frozen")
        self._note_freeze()
        daemon.send(signal.SIGSTOP)
        await Apart(lambda: self._frozen(daemon)).run()

    async def _frozen(self, daemon: Daemon) -> None:  # noqa: ASYNC910 - it may have happened already
        with trio.move_on_after(_PATIENCE) as patience:  # noqa: ASYNC912 - as above
            while not daemon.frozen and daemon.running:  # noqa: ASYNC110 - only its parent is told
                await trio.sleep(_FREEZE_POLL)
        if patience.cancelled_caught:
            raise trio.TooSlowError(
                f"node {self.nodeid}: corosync has not stood still within {_PATIENCE:g} seconds of SIGSTOP;"
                f" its threads are in these states: {daemon.states}"
            )

    async def thaw(self) -> None:
        """Let a frozen daemon go on (SIGCONT)."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._machine.daemon is not None:
            self._machine.daemon.send(signal.SIGCONT)
        await trio.lowlevel.cancel_shielded_checkpoint()


class NetnsCluster(Cluster):
    """A throwaway cluster of real Corosync daemons.

    Each node has a network and a mount namespace of its own, and its files on a tmpfs there. The block is entered once
    every node finds itself in a cluster of all nodes, and has counted votes; that is a quorate one unless the options
    ask for more votes than the nodes have. Nothing is left when the block ends, nor when this process is killed. An
    instance is used once.

    Args:
        options: the configuration; without it, that of `ClusterOptions()`.
        nodes: how many nodes, with the ids 1 to that number; replaces `options.nodes`.
        settings: further fields of `ClusterOptions`; each replaces that field of `options`.

    Raises:
        CorosyncUnavailableError: on entry, when this machine lacks something, or a daemon does not start; the message
            lists what is missing, or gives the daemon's own reason and the end of its log.
    """

    def __init__(
        self, *, options: ClusterOptions | None = None, nodes: int | None = None, **settings: Unpack[ClusterSettings]
    ) -> None:
        super().__init__(merge(options, nodes, settings))
        self.name = f"triocoro-{os.getpid()}-{next(_numbers)}"
        self._machines = [Machine(nodeid, self.name) for nodeid in self.options.nodeids]
        self._nodes = {
            machine.nodeid: NetnsNode(machine, self._start_one, self._note_disturbance) for machine in self._machines
        }
        self._hub: Hub | None = None
        self._argv: list[str] = []
        self._nft = ""
        self._how_to_enter = ""
        self._kept = False
        self._used = False
        self._rewiring = threading.Lock()
        self.disturbances = 0
        """How often the network was changed, or a node was frozen."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self._nodes)} nodes>"

    @property
    def nodes(self) -> Mapping[int, NetnsNode]:
        """The nodes by their ids."""
        return self._nodes

    def __getitem__(self, nodeid: int) -> NetnsNode:
        return self._nodes[nodeid]

    def keep(self, *, kept: bool = True) -> None:
        """Let the nodes outlive the block, and this process however it ends; `how_to_enter` says how to end them.

        Once the block has been left, this object knows no more of them. It takes a moment, and may be called within a
        Trio run and outside.

        Args:
            kept: False takes it back.

        Raises:
            RuntimeError: the cluster does not run.
        """
        self._running_hub().request("keep", keep=kept)
        self._kept = kept

    @property
    def how_to_enter(self) -> str:
        """Lines for who wants to look into the nodes: commands that do it, where the logs are, and how to end it all.

        Empty until the cluster has been started. It holds after the block only if the nodes were kept.
        """
        return self._how_to_enter

    def _note_disturbance(self) -> None:
        self.disturbances += 1

    def _up(self) -> frozenset[int]:
        return frozenset(machine.nodeid for machine in self._machines if machine.up)

    def check_runs(self) -> None:
        """Raise `RuntimeError` if we are not in the block: elsewhere there is nothing to do anything to."""
        self._running_hub()

    async def _rewire(self, change: Callable[[Network], Network]) -> None:
        await Apart(lambda: self._filter(change)).run()

    def __enter__(self) -> NetnsCluster:  # noqa: PYI034 - Self is younger than Python 3.10
        self._use()
        try:
            Apart(self._start_all).run_blocking()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._close()

    async def __aenter__(self) -> NetnsCluster:  # noqa: PYI034 - as above
        self._use()
        try:
            await Apart(self._start_all).run()
        except BaseException:
            await self._aclose()  # noqa: ASYNC102 - shielded inside
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._aclose()  # noqa: ASYNC102 - shielded inside

    def _use(self) -> None:
        if self._used:
            raise RuntimeError("a cluster is used once; make another one")
        self._used = True

    async def _aclose(self) -> None:
        with trio.CancelScope(shield=True):
            # A limiter of its own, as the default one may be exhausted by calls that wait for our frozen daemons.
            await trio.to_thread.run_sync(self._close, limiter=trio.CapacityLimiter(1))

    def _close(self) -> None:
        """End everything, and wait for its end; or let go of it."""
        if self._hub is not None:
            if self._kept:
                self._hub.let_go()
            else:
                self._hub.close()
            self._hub = None
        for machine in self._machines:
            machine.close()

    # What follows runs apart: in a Trio run of its own, which a request to the supervisor may block for a moment.

    async def _start_all(self) -> None:
        programs = requirements.find_programs()
        self._hub = Hub(programs)
        self._create(self._hub, programs)
        await self._start_daemons(self._machines, frozenset(self._nodes))

    async def _start_one(self, machine: Machine) -> None:
        await self._start_daemons([machine], None)

    def _running_hub(self) -> Hub:
        if self._hub is None:
            raise RuntimeError(f"{self!r} does not run")
        return self._hub

    async def _filter(self, change: Callable[[Network], Network]) -> None:  # noqa: ASYNC910 - as said above
        # Each is in a thread of its own. This waits for the supervisor, which is quick.
        with self._rewiring:
            network = change(self._network)
            self._note_disturbance()
            self._running_hub().request(
                "filter", nft=self._nft, nodes={nodeid: filter_rules(network, nodeid) for nodeid in self._nodes}
            )
            # Here, since whoever called may have been cancelled.
            self._network = network

    def _create(self, hub: Hub, programs: requirements.Programs) -> None:
        self._argv = [programs.corosync, "-f", "-c", _CONF]
        self._nft = programs.nft
        key = secrets.token_hex(KEY_BYTES) if programs.enforces_encryption() else None
        conf = corosync_conf(self.options, self.name, key=key)
        _, holders = hub.request(
            "create",
            [machine.open_log() for machine in self._machines],
            ip=programs.ip,
            private=programs.private_directories(),
            nodes={nodeid: {"address": f"{address(nodeid)}/24", "files": {_CONF: conf}} for nodeid in self._nodes},
        )
        for machine, holder in zip(self._machines, holders, strict=True):
            machine.holder = holder
        self._how_to_enter = "\n".join(self._directions(hub, programs, holders))

    def _directions(self, hub: Hub, programs: requirements.Programs, holders: list[int]) -> Iterator[str]:
        look = requirements.find_program("corosync-quorumtool") or "corosync-quorumtool", "-s"
        yield f"the cluster {self.name}:"
        for machine, holder in zip(self._machines, holders, strict=True):
            pid = pid_of(holder)
            yield f"  look into node {machine.nodeid}: {shlex.join(programs.entering(pid, *look))}"
            yield f"  read its log: cat /proc/{pid}/fd/1"
        yield f"  end all of it: kill -KILL {hub.pid}"

    async def _start_daemons(self, machines: list[Machine], members: frozenset[int] | None) -> None:
        hub = self._running_hub()

        def status(nodeid: int) -> int | None:
            reply, _ = hub.request("status", node=str(nodeid))
            value: int | None = reply["status"]
            return value

        ids = [str(machine.nodeid) for machine in machines]
        for machine in machines:
            machine.expect_daemon()
        _, pidfds = hub.request("start", nodes=ids, argv=self._argv)
        for machine, pidfd in zip(machines, pidfds, strict=True):
            machine.set_daemon(pidfd)
        await Readiness(machines, status).wait(members)
