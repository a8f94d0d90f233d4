"""A node of a real cluster, as tests use it."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio

from ..._services import Endpoint
from ..._validate import integer
from .._cluster.node import Node
from .._cluster.recording import NodeEndpoint, Recording
from .background import BackgroundRun
from .node_processes import DaemonProcess, NodeProcesses
from .readiness import describe_log
from .requirements import entering

_FREEZE_POLL = 0.001
_PATIENCE = 30.0
"""Seconds that a daemon may take to end, or to stop at SIGSTOP."""


class NetnsNode(Node):
    """A node of a `NetnsCluster`."""

    def __init__(
        self,
        processes: NodeProcesses,
        cluster_name: str,
        recording: Recording,
        *,
        start: Callable[[NodeProcesses], Awaitable[None]],
        note_freeze: Callable[[], None],
        check_caller: Callable[[], None],
    ) -> None:
        super().__init__(processes.nodeid, cluster_name, recording)
        self._processes = processes
        self._start_daemon = start
        self._endpoint: Endpoint | None = None
        self._note_freeze = note_freeze
        self._check_caller = check_caller

    @property
    def endpoint(self) -> Endpoint:
        """The `endpoint=` of clients of this node's daemon; it stays valid when the daemon is restarted."""
        if self._endpoint is None:
            self._endpoint = NodeEndpoint(self, self._processes.endpoint, self._recording, f"node {self.nodeid}")
        return self._endpoint

    @property
    def pid(self) -> int | None:
        """The daemon's pid as this process sees it; `None` while no daemon runs."""
        daemon = self._processes.daemon
        return daemon.pid if daemon is not None and daemon.running else None

    @property
    def namespace_pid(self) -> int | None:
        """A process in the node's namespaces that outlives its daemons, for nsenter(1); `None` outside the block."""
        return self._processes.holder_pid

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs another one in the node's namespaces, for `trio.run_process` or `subprocess`.

        Args:
            command: the other one, such as ``"corosync-quorumtool", "-s"``.

        Raises:
            RuntimeError: the cluster does not run.
        """
        pid = self.namespace_pid
        if pid is None:
            raise RuntimeError(f"{self.label}: the cluster does not run")
        return entering(pid, *command)

    @property
    def log(self) -> str:
        """The daemon's log so far, over all its restarts; it can still be read when the cluster has ended."""
        return self._processes.log

    @property
    def log_size(self) -> int:
        """The size of the log in bytes; cheap."""
        return self._processes.log_size

    def log_since(self, size: int) -> str:
        """The log from an earlier `log_size` on.

        Raises:
            ValueError, TypeError: the size is invalid.
        """
        integer(size, "size", 0, 2**63 - 1)
        return self._processes.log_since(size)

    @property
    def running(self) -> bool:
        """Whether the daemon runs; a frozen one does."""
        return self._processes.running

    @property
    def frozen(self) -> bool:
        """Whether the daemon is frozen."""
        daemon = self._processes.daemon
        return daemon is not None and daemon.running and daemon.frozen

    async def _start(self) -> None:
        self._check_caller()
        await BackgroundRun(lambda: self._start_daemon(self._processes)).run()

    async def _stop(self) -> None:
        # As systemd does: a stopped process handles SIGTERM only after SIGCONT.
        await self._end(signal.SIGTERM, signal.SIGCONT)

    async def _kill(self) -> None:
        await self._end(signal.SIGKILL)

    async def _end(self, *signals: signal.Signals) -> None:
        self._check_caller()
        await trio.lowlevel.checkpoint_if_cancelled()
        daemon = self._processes.daemon
        if daemon is None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        for number in signals:
            daemon.send(number)
        await BackgroundRun(lambda: self._ended(daemon, " and ".join(number.name for number in signals))).run()

    async def _ended(self, daemon: DaemonProcess, signals: str) -> None:
        with trio.move_on_after(_PATIENCE) as patience:
            await daemon.ended()
        if patience.cancelled_caught:
            raise trio.TooSlowError(
                f"{self.label}: corosync has not ended within {_PATIENCE:g} seconds of {signals}\n"
                f"{describe_log(self._processes.latest_log)}"
            )

    async def _freeze(self) -> None:
        self._check_caller()
        await trio.lowlevel.checkpoint()
        daemon = self._processes.daemon
        if daemon is None or not daemon.running:
            raise RuntimeError(f"{self.label} does not run, so it cannot be frozen")
        self._note_freeze()
        daemon.send(signal.SIGSTOP)
        await BackgroundRun(lambda: self._frozen(daemon)).run()

    async def _frozen(self, daemon: DaemonProcess) -> None:  # noqa: ASYNC910 - it may have happened already
        with trio.move_on_after(_PATIENCE) as patience:  # noqa: ASYNC912 - it may have happened already
            while not daemon.frozen and daemon.running:  # noqa: ASYNC110 - the kernel tells only its parent
                await trio.sleep(_FREEZE_POLL)
        if patience.cancelled_caught:
            raise trio.TooSlowError(
                f"{self.label}: corosync has not stood still within {_PATIENCE:g} seconds of SIGSTOP;"
                f" its threads are in these states: {daemon.states}"
            )

    async def _thaw(self) -> None:
        self._check_caller()
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._processes.daemon is not None:
            self._processes.daemon.send(signal.SIGCONT)
        await trio.lowlevel.cancel_shielded_checkpoint()
