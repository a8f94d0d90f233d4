"""Our end of a cluster's supervisor."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..._errors import CorosyncUnavailableError
from .requirements import Programs, unavailable
from .supervisor import MAX_FDS, PACKET, PR_SET_PDEATHSIG, call

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_PATIENCE = 30.0
_BRIEFLY = 1.0

_GOALS = {
    "create": "create the cluster's nodes",
    "start": "start the cluster's daemons",
    "filter": "change the cluster's network",
    "keep": "keep the cluster, or stop keeping it",
    "status": "learn how a daemon has ended",
}
"""What each request is for, in words for people."""


def end_with_parent() -> None:
    """Have the kernel kill this process, and so its clusters, once the thread has ended that started it."""
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Hub:
    """A running supervisor. With it ends all that it made."""

    def __init__(self, programs: Programs) -> None:
        self._lock = threading.Lock()
        self._answered = True
        self._output = os.memfd_create("triocoro-supervisor")
        self._requests = os.memfd_create("triocoro-requests")
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # A process that was forked from ours holds the control socket open as well; so the supervisor watches us, too.
        owner = os.pidfd_open(os.getpid())
        inherited = (theirs.fileno(), owner, self._requests)
        try:
            self._process = subprocess.Popen(
                programs.in_namespaces(sys.executable, "-I", "-S", str(_SUPERVISOR), *map(str, inherited)),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                cwd="/",
                pass_fds=inherited,
                start_new_session=True,  # the terminal's interrupt is not for them
            )
        except BaseException:
            self._close_files()
            raise
        finally:
            theirs.close()
            os.close(owner)

    @property
    def pid(self) -> int:
        """The process that waits for the supervisor, which does not outlive it."""
        return self._process.pid

    def request(self, op: str, fds: Sequence[int] = (), **fields: object) -> tuple[dict[str, Any], list[int]]:
        """Send a request, and wait for its answer: blocks briefly.

        Raises:
            CorosyncUnavailableError: the supervisor could not do it, or is no more.
        """
        with self._lock:
            if not self._answered:
                # A late answer must not be taken for one to this request.
                raise self._error(
                    op, "has not answered an earlier request; leave the cluster's block, and make another one"
                )
            self._answered = False  # and so it stays if we are interrupted
            packet, received = self._ask(op, json.dumps({"op": op, **fields}).encode(), fds)
            self._answered = True
        reply: dict[str, Any] = json.loads(packet)
        if "error" in reply:
            raise self._error(op, f"says: {reply['error']}")
        return reply, received

    def _ask(self, op: str, text: bytes, fds: Sequence[int]) -> tuple[bytes, list[int]]:
        self._control.settimeout(_PATIENCE)
        try:
            os.pwrite(self._requests, text, 0)
            socket.send_fds(self._control, [str(len(text)).encode()], fds)
            packet, received, _, _ = socket.recv_fds(self._control, PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        except TimeoutError:
            raise self._error(op, f"has not answered within {_PATIENCE:g} seconds") from None
        except OSError as error:
            raise self._error(op, f"does not answer: {error}") from None
        if not packet:
            raise self._error(op, "has ended")
        return packet, received

    def _error(self, op: str, reason: str) -> CorosyncUnavailableError:
        output = os.pread(self._output, 65536, 0).decode(errors="replace").strip()
        return unavailable(f"cannot {_GOALS[op]}: its supervisor {reason}\n{output}".rstrip())

    def _close_files(self) -> None:
        self._control.close()
        os.close(self._output)
        os.close(self._requests)

    def let_go(self) -> None:
        """Leave the supervisor, which keeps its nodes, to itself."""
        self._close_files()
        # Popen would warn that nobody has waited for it.
        self._process.returncode = 0

    def close(self) -> None:
        """End the supervisor, and wait until everything in its pid namespace has ended."""
        with suppress(OSError):  # it has ended already
            # Not only close: a process that was forked from ours may hold the socket, too.
            self._control.shutdown(socket.SHUT_RDWR)
        try:
            # One that has not answered may be busy, or stand still, or keep its nodes.
            self._process.wait(_PATIENCE if self._answered else _BRIEFLY)
        except subprocess.TimeoutExpired:
            self._process.kill()  # unshare(1) takes the supervisor with it
            self._process.wait()
        self._close_files()
