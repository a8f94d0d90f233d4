"""The processes of one node, and its log, as this process sees them."""

from __future__ import annotations

import math
import os
import select
import signal
import threading
from contextlib import suppress
from pathlib import Path

import attrs
import trio
from trio.testing import MockClock

from ..._errors import CorosyncUnavailableError, naming_descriptors
from ..._services import Endpoint


def pid_of(pidfd: int) -> int:
    """The pid of a pidfd's process as this process sees it; -1 if it has ended and been reaped."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii").splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise ValueError(f"fd {pidfd} is not a pidfd")


@attrs.frozen
class DaemonProcess:
    """One run of a node's daemon, from its start to its end."""

    pidfd: int
    pid: int

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    @property
    def states(self) -> str:
        """The states of its threads, one letter each, as in ps(1)."""
        try:
            stats = [path.read_text(errors="replace") for path in Path(f"/proc/{self.pid}/task").glob("*/stat")]
        except (FileNotFoundError, ProcessLookupError):
            return "X"  # the daemon, or one of its threads, has just ended
        # The state follows the name, which is in parentheses and may contain some.
        return "".join(stat.rpartition(")")[2].split()[0] for stat in stats)

    @property
    def frozen(self) -> bool:
        """Whether all of its threads have stopped."""
        return set(self.states) <= {"T"}

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs; a pidfd cannot hit another process that has got the same pid."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    async def ended(self) -> None:
        """Wait until the process has ended."""
        with naming_descriptors("dup"):
            fd = os.dup(self.pidfd)  # Trio allows one task at a time to wait for an fd
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)


class NodeProcesses:
    """The processes of one node: the holder of its namespaces, and the latest run of its daemon. And its log."""

    def __init__(self, nodeid: int, cluster_name: str) -> None:
        self.nodeid = nodeid
        self.starting: threading.Lock = threading.Lock()
        """Held by the thread that starts the daemon."""
        self.daemon: DaemonProcess | None = None
        self.holder: int | None = None
        self.label: str = f"node {nodeid} of {cluster_name}"
        """Names the node and its cluster in messages."""
        self._log_name = f"{cluster_name}-node{nodeid}"
        self._log_fd: int | None = None
        self._log_start = 0
        self._final_log = b""
        self._endpoint: Endpoint | None = None

    @property
    def running(self) -> bool:
        """Whether the daemon runs."""
        return self.daemon is not None and self.daemon.running

    @property
    def up(self) -> bool:
        """Whether the daemon runs and is not frozen."""
        return self.daemon is not None and self.daemon.running and not self.daemon.frozen

    @property
    def holder_pid(self) -> int | None:
        """The holder's pid as this process sees it."""
        return None if self.holder is None else pid_of(self.holder)

    @property
    def endpoint(self) -> Endpoint:
        """An endpoint that connects in the namespaces of the holder."""
        if self._endpoint is None:
            # Imported late: without the extension module, `requirements` must still be able to report that.
            from ..._corosync import CorosyncEndpoint

            self._endpoint = CorosyncEndpoint(self.label, namespaces=self._namespaces)
        return self._endpoint

    def _namespaces(self) -> int:
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, MockClock) and clock.autojump_threshold < math.inf:
            raise RuntimeError(
                f"{self.label}: a clock with an autojump_threshold does not go with real daemons: it jumps"
                " whenever all tasks wait, as they do for the daemons, whose time is not ours. Use a FakeCluster"
                " (with pytest, mark the test corosync_fake_only), or no such clock"
            )
        if self.holder is None:
            raise CorosyncUnavailableError(f"{self.label}: its cluster does not run")
        return self.holder

    @property
    def log(self) -> str:
        """The log of all its daemons; it can still be read after `close`."""
        return self.log_since(0)

    @property
    def latest_log(self) -> str:
        """The log of the latest daemon."""
        return self.log_since(self._log_start)

    @property
    def log_size(self) -> int:
        """The size of the log in bytes; cheap."""
        return len(self._final_log) if self._log_fd is None else os.fstat(self._log_fd).st_size

    def log_since(self, size: int) -> str:
        """The log from an earlier `log_size` on."""
        return self._logged(size).decode(errors="replace")

    def _logged(self, start: int = 0) -> bytes:
        if self._log_fd is None:
            return self._final_log[start:]
        # pread(2), since read(2) would move the position at which the daemon writes.
        return os.pread(self._log_fd, os.fstat(self._log_fd).st_size, start)

    async def ended(self) -> None:
        """Wait until no daemon runs."""
        await trio.lowlevel.checkpoint()
        if self.daemon is not None:
            await self.daemon.ended()

    def open_log(self) -> int:
        """Create the file that the daemons log to; returns its fd."""
        self._log_fd = os.memfd_create(self._log_name)
        return self._log_fd

    def expect_daemon(self) -> None:
        """Note that a new daemon is about to be started: `latest_log` begins here."""
        self._log_start = self.log_size

    def set_daemon(self, pidfd: int) -> None:
        """Take over the pidfd of a daemon that has been started, unless an exception is raised."""
        daemon = DaemonProcess(pidfd, pid_of(pidfd))
        if self.daemon is not None:
            os.close(self.daemon.pidfd)
        self.daemon = daemon

    def close(self) -> None:
        """Close the fds, and keep the log in memory: the cluster has ended."""
        if self.daemon is not None:
            os.close(self.daemon.pidfd)
            self.daemon = None
        if self.holder is not None:
            os.close(self.holder)
            self.holder = None
        if self._log_fd is not None:
            self._final_log = self._logged()
            os.close(self._log_fd)
            self._log_fd = None
