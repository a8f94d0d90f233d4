"""The supervisor of one cluster: pid 1 of its pid namespace, in the network namespace that holds the bridge.

Run by path with nothing but the standard library, so that it starts fast: `supervisor.py CONTROL OWNER REQUESTS`, three
inherited fds. It obeys requests, JSON objects, one at a time: each is written to the start of the file REQUESTS, as a
packet may be too small for it, and a packet on CONTROL tells its length, and brings its fds. The answer is a packet:
one JSON object and its fds. When CONTROL is closed, or the process behind the pidfd OWNER ends, it exits, unless it was
told to keep the nodes. Then the kernel kills all that is left in the pid namespace, and with the last process go the
namespaces, mounts and interfaces.

A node is a *holder*, a process that owns the node's network and mount namespaces, has the node's log as its stdout, and
does nothing else; the node's daemons come and go, children of the supervisor that enter the holder's namespaces.
Requests:

- `{"op": "create", "ip": path, "private": [directory, ...], "nodes": {id: {"address": ..., "files": {path: text}}}}`
  with one log fd a node: makes the network and the holders. The answer brings a pidfd of each holder.
- `{"op": "start", "nodes": [id, ...], "argv": [...]}`: starts daemons. The answer brings a pidfd of each.
- `{"op": "filter", "nft": path, "nodes": {id: [line, ...]}}`: has `nft -f` do them in the nodes' networks.
- `{"op": "keep", "keep": bool}`: whether the nodes outlive the owner.
- `{"op": "status", "node": id}`: `{"status": how the node's latest daemon ended, or null}`, as in wait(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_NOSUID = 2
MS_NODEV = 4
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
MAX_FDS = 253
PACKET = 1 << 16
BRIDGE = "bridge0"
SHARED_MEMORY = "/dev/shm"

_libc = ctypes.CDLL(None, use_errno=True)


class SetupError(Exception):
    """What the owner is told when a request fails."""


def call(function: str, *args: int | bytes | None) -> None:
    """Call into libc; Python has these functions from 3.12 on only, or not at all."""
    if getattr(_libc, function)(*args) != 0:
        error = ctypes.get_errno()
        raise SetupError(f"{function}{args}: {os.strerror(error)}")


class Node:
    """A node: its holder, and its daemon if one has been started."""

    def __init__(self, log: int) -> None:
        self.log = log
        self.holder = 0
        self.pidfd = -1
        self.daemon = 0
        self.status: int | None = None


def run(path: str, arguments: list[str], lines: list[str]) -> None:
    """Run a program that reads `lines` from its stdin, such as `ip -batch -`."""
    batch, errors = os.memfd_create("batch"), os.memfd_create("errors")
    try:
        os.write(batch, "\n".join(lines).encode() + b"\n")
        os.lseek(batch, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, batch, 0), (os.POSIX_SPAWN_DUP2, errors, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
        pid = os.posix_spawn(path, arguments, os.environ, file_actions=actions)
        if os.waitpid(pid, 0)[1] != 0:
            reason = os.pread(errors, 4096, 0).decode(errors="replace").strip()
            raise SetupError(f"{' '.join(arguments)}: {reason}")
    finally:
        os.close(batch)
        os.close(errors)


def mount_private(directories: list[str]) -> None:
    """Mount an empty tmpfs on each directory, in this mount namespace."""
    for directory in directories:
        mode = b"mode=1777" if directory == SHARED_MEMORY else b"mode=755"
        call("mount", b"tmpfs", directory.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, mode)


def write_files(files: dict[str, str]) -> None:
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


def hold(nodeid: str, spec: dict[str, Any], node: dict[str, Any], log: int, result: int) -> NoReturn:
    """The life of a holder, in a forked child: make the node's namespaces, say so on `result`, and stay."""
    try:
        call("prctl", PR_SET_NAME, f"node{nodeid}".encode(), 0, 0, 0)
        hub = os.open("/proc/self/ns/net", os.O_RDONLY)
        os.set_inheritable(hub, True)  # noqa: FBT003 - the standard library's signature
        call("unshare", CLONE_NEWNET | CLONE_NEWNS)
        mount_private(spec["private"])
        write_files(node["files"])
        run(
            spec["ip"],
            ["ip", "-batch", "-"],
            [
                # The other end goes to the hub. A pid would not do: iproute2 looks it up in /proc from 6.12 on, and
                # that /proc counts processes as they are counted outside.
                f"link add eth0 type veth peer name node{nodeid} netns /proc/self/fd/{hub}",
                f"address add {node['address']} dev eth0",
                "link set lo up",
                "link set eth0 up",
            ],
        )
        os.write(result, b"ok")
    except BaseException as error:  # noqa: BLE001, ASYNC103 - nothing may escape from a forked child
        os.write(result, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    # Whoever looks for the log of a node finds it here, even when no daemon runs.
    os.dup2(log, 1)
    os.closerange(2, 65536)
    os.close(0)
    while True:
        signal.pause()


def fork_reporting(child: Callable[[int], NoReturn]) -> tuple[int, int]:
    """Fork a child that reports on the fd that it is given: its pid, and where to read the report."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        child(writer)
    os.close(writer)
    return pid, reader


def report_of(reader: int) -> str:
    """What a child has reported, once it has closed its end."""
    with open(reader, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def run_daemon(node: Node, argv: list[str]) -> NoReturn:
    """Become a daemon, in a forked child."""
    try:
        call("setns", node.pidfd, CLONE_NEWNET | CLONE_NEWNS)
        # A daemon that was killed leaves its shared memory behind: 8 MB and more, each time.
        for name in os.listdir(SHARED_MEMORY):
            remove_tree(f"{SHARED_MEMORY}/{name}")
        os.chdir("/")
        os.setsid()
        # Python ignores these, and what is ignored stays so across exec.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(node.log, 1)
        os.dup2(node.log, 2)
        os.execv(argv[0], argv)  # noqa: S606 - there is no shell in here
    except BaseException as error:  # noqa: BLE001, ASYNC103 - as above
        os.write(node.log, f"{argv[0]}: {error}\n".encode())
    os._exit(127)


def filter_inside(node: Node, nft: str, lines: list[str], result: int) -> NoReturn:
    """Filter what the node hears, in a forked child; what goes wrong is written to `result`."""
    try:
        call("setns", node.pidfd, CLONE_NEWNET)
        run(nft, ["nft", "-f", "-"], lines)
    except BaseException as error:  # noqa: BLE001, ASYNC103 - as above
        os.write(result, f"{type(error).__name__}: {error}".encode())
    os._exit(0)


def remove_tree(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        for name in os.listdir(path):
            remove_tree(f"{path}/{name}")
        os.rmdir(path)
    else:
        os.unlink(path)


class Supervisor:
    """Answers the requests."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.nodes: dict[str, Node] = {}
        self.keep = False

    def create(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        ip = request["ip"]
        # Without spanning tree and its delay, a port forwards from the start. It comes before the nodes, so that no
        # port has the interface index that its other end has in the node's namespace: the kernel would let up to a
        # second go by before it sees such a one's carrier (linkwatch_urgent_event in net/core/link_watch.c).
        run(ip, ["ip", "-batch", "-"], [f"link add {BRIDGE} type bridge stp_state 0 forward_delay 0", "link set lo up"])
        forked = {
            nodeid: fork_reporting(partial(hold, nodeid, request, spec, log))
            for (nodeid, spec), log in zip(request["nodes"].items(), fds, strict=True)
        }
        for (nodeid, (pid, reader)), log in zip(forked.items(), fds, strict=True):
            result = report_of(reader)
            if result != "ok":
                raise SetupError(f"node {nodeid}: {result}")
            node = self.nodes[nodeid] = Node(log)
            node.holder = pid
            node.pidfd = os.pidfd_open(pid)
        ports = [f"link set node{nodeid} master {BRIDGE} up" for nodeid in self.nodes]
        run(ip, ["ip", "-batch", "-"], [*ports, f"link set {BRIDGE} up"])
        return {}, [node.pidfd for node in self.nodes.values()]

    def start(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        pidfds: list[int] = []
        for nodeid in request["nodes"]:
            node = self.nodes[nodeid]
            if node.daemon:
                raise SetupError(f"node {nodeid}: a daemon runs already")
            pid = os.fork()
            if pid == 0:
                run_daemon(node, request["argv"])
            node.daemon, node.status = pid, None
            pidfds.append(os.pidfd_open(pid))
        return {}, pidfds

    def filter(self, request: dict[str, Any]) -> dict[str, Any]:
        for nodeid, lines in request["nodes"].items():
            # A child, since nobody gets back out of the namespaces that easily.
            pid, reader = fork_reporting(partial(filter_inside, self.nodes[nodeid], request["nft"], lines))
            problem = report_of(reader)
            os.waitpid(pid, 0)
            if problem:
                raise SetupError(f"node {nodeid}: {problem}")
        return {}

    def reap(self) -> None:
        """Take the exit status of whatever has ended; orphans of the namespace are ours too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for node in self.nodes.values():
                if node.daemon == pid:
                    node.daemon, node.status = 0, status

    def answer(self, control: socket.socket) -> bool:
        """Do one request; False at the end of them.

        Raises:
            OSError: the owner has ended with the answer to come, or not read.
        """
        packet, fds, _, _ = socket.recv_fds(control, PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return False
        request = json.loads(os.pread(self.requests, int(packet), 0))
        # What the owner knows to have ended must be reaped by now.
        self.reap()
        reply: dict[str, Any]
        send: list[int] = []
        try:
            if request["op"] == "create":
                reply, send = self.create(request, fds)
            elif request["op"] == "start":
                reply, send = self.start(request)
            elif request["op"] == "filter":
                reply = self.filter(request)
            elif request["op"] == "keep":
                self.keep = request["keep"]
                reply = {}
            else:
                reply = {"status": self.nodes[request["node"]].status}
        except (SetupError, OSError) as error:
            reply = {"error": str(error)}
        try:
            socket.send_fds(control, [json.dumps(reply).encode()], send)
        finally:
            if request["op"] == "start":
                for fd in send:
                    os.close(fd)
        return True

    def serve(self, control: socket.socket) -> bool:
        """Do one request; False once nobody asks any longer."""
        try:
            return self.answer(control)
        except OSError:
            return False


def ignore(_number: int, _frame: object) -> None:
    """Handle a signal that the wakeup fd tells of."""


def main(control_fd: int, owner: int, requests: int) -> None:
    """Obey until the owner is gone; and stay if the nodes are kept."""
    call("prctl", PR_SET_NAME, b"corosync-hub", 0, 0, 0)
    for fd in (control_fd, owner, requests):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
    wake, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, ignore)
    supervisor = Supervisor(requests)
    poll = select.poll()
    for fd in (control_fd, owner, wake):
        poll.register(fd, select.POLLIN)
    control = socket.socket(fileno=control_fd)
    while True:
        ready = [fd for fd, _ in poll.poll()]
        if wake in ready:
            os.read(wake, 4096)
            supervisor.reap()
        for fd in (control_fd, owner):
            if fd in ready and (fd == owner or not supervisor.serve(control)):
                if not supervisor.keep:
                    return
                poll.unregister(fd)
                os.close(fd)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
