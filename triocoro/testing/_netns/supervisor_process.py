"""Start a cluster's supervisor, and send requests to it."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from ..._errors import CorosyncUnavailableError
from .background import require_fds
from .requirements import Programs, unavailable
from .supervisor import MAX_FDS, PACKET, PR_SET_PDEATHSIG, call

Operation: TypeAlias = Literal["create", "add", "start", "filter", "write", "remove", "keep", "status"]
"""The requests that the supervisor knows."""

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_PATIENCE = 30.0
_BRIEFLY = 1.0

_GOALS: Final[dict[Operation, str]] = {
    "create": "create the cluster's nodes",
    "add": "create the cluster's nodes",
    "start": "start the cluster's daemons",
    "filter": "change the cluster's network",
    "write": "change the cluster's configuration",
    "remove": "remove a node from the cluster",
    "keep": "keep the cluster, or stop keeping it",
    "status": "learn how a daemon has ended",
}
"""The purpose of each request, for error messages."""


def end_with_parent() -> None:
    """Let the kernel kill this process, and thereby its real clusters, when the thread that started it ends.

    It is for worker processes that would outlive a controller that was killed, such as those of pytest-xdist. See
    PR_SET_PDEATHSIG in prctl(2).
    """
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class SupervisorProcess:
    """A running supervisor. When it ends, all that it created ends as well."""

    def __init__(self, programs: Programs) -> None:
        self._lock = threading.Lock()
        self._answered = True
        with ExitStack() as ours, ExitStack() as passed:
            self._output = os.memfd_create("triocoro-supervisor")
            ours.callback(os.close, self._output)
            self._requests = os.memfd_create("triocoro-requests")
            ours.callback(os.close, self._requests)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.callback(self._control.close)
            passed.callback(theirs.close)
            # The supervisor watches this process, too: a process forked from it may hold the control socket open.
            owner = os.pidfd_open(os.getpid())
            passed.callback(os.close, owner)
            inherited = (theirs.fileno(), owner, self._requests)
            self._process = subprocess.Popen(
                programs.in_namespaces(sys.executable, "-I", "-S", str(_SUPERVISOR), *map(str, inherited)),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                cwd="/",
                pass_fds=inherited,
                start_new_session=True,  # so that the terminal's interrupt does not reach it
            )
            self._files = ours.pop_all()

    @property
    def pid(self) -> int:
        """The pid of unshare(1), which waits for the supervisor; if it is killed, the supervisor ends."""
        return self._process.pid

    def request(
        self, op: Operation, fds: Sequence[int] = (), *, expected_fds: int = 0, **fields: object
    ) -> tuple[dict[str, Any], list[int]]:
        """Send a request, and block until the reply arrives, which is soon.

        Args:
            op: the request.
            fds: what it carries.
            expected_fds: without room for so many more, nothing is sent.
            fields: its fields.

        Returns:
            the reply and its fds.

        Raises:
            CorosyncUnavailableError: the request failed, or the supervisor has ended.
            OSError: this process has no room for the fds of the reply.
        """
        require_fds(expected_fds)
        with self._lock:
            if not self._answered:
                # Its late reply must not be taken for the reply to this request.
                raise self._error(
                    op, "has not answered an earlier request; leave the cluster's block, and make another one"
                )
            self._answered = False  # an interrupt leaves it at that
            packet, received = self._ask(op, json.dumps({"op": op, **fields}).encode(), fds)
            self._answered = True
        reply: dict[str, Any] = json.loads(packet)
        if "error" in reply:
            raise self._error(op, f"says: {reply['error']}")
        return reply, received

    def _ask(self, op: Operation, text: bytes, fds: Sequence[int]) -> tuple[bytes, list[int]]:
        self._control.settimeout(_PATIENCE)
        try:
            os.pwrite(self._requests, text, 0)
            socket.send_fds(self._control, [str(len(text)).encode()], fds)
            packet, received, flags, _ = socket.recv_fds(self._control, PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            raise self._error(op, f"has not answered within {_PATIENCE:g} seconds") from None
        except OSError as error:
            raise self._error(op, f"does not answer: {error}") from None
        if not packet:
            raise self._error(op, "has ended")
        if flags & socket.MSG_CTRUNC:
            for fd in received:
                os.close(fd)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return packet, received

    def _error(self, op: Operation, reason: str) -> CorosyncUnavailableError:
        output = os.pread(self._output, 65536, 0).decode(errors="replace").strip()
        return unavailable(f"cannot {_GOALS[op]}: its supervisor {reason}\n{output}".rstrip())

    def release(self) -> None:
        """Disconnect from a supervisor that was told to keep its nodes, and let it run."""
        self._files.close()
        # Otherwise Popen would warn that the process still runs.
        self._process.returncode = 0

    def close(self) -> None:
        """End the supervisor, and wait until everything in its pid namespace has ended."""
        with suppress(OSError):  # it has ended already
            # Closing it is not enough: a process forked from ours may hold the socket, too.
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            # A supervisor that has not answered may be busy, frozen, or about to keep its nodes.
            self._process.wait(_PATIENCE if self._answered else _BRIEFLY)
        except subprocess.TimeoutExpired:
            self._process.kill()  # that is unshare(1), whose death kills the supervisor
            self._process.wait()
        self._files.close()
