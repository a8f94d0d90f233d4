"""The supervisor of one cluster: pid 1 of its pid namespace, in the network namespace that holds the bridge.

It runs as `supervisor.py CONTROL OWNER REQUESTS`, with three inherited fds, and imports nothing but the standard
library, so that it starts fast.

It serves one request at a time. A request is a JSON object, written to the start of the file REQUESTS because it may be
too large for a packet; a packet on the socket CONTROL gives its length and carries its fds. The reply is one packet, a
JSON object and its fds; for a request that failed, it is `{"error": why}`. When CONTROL is closed, or the process
behind the pidfd OWNER ends, the supervisor exits, unless it was told to keep the nodes. The kernel then kills all other
processes of the pid namespace, and the namespaces, mounts and interfaces go with the last process.

Each node has a *holder*: a process that owns the node's network and mount namespaces and has the node's log as its
stdout. It only sleeps. The node's daemons are children of the supervisor that enter the holder's namespaces.
The requests:

- `{"op": "create", "ip": path, "private": [directory, ...], "links": number}`: create a network for each link.
- `{"op": "add", "nodes": {id: {"port": name, "addresses": [address, ...], "files": {path: text}}}}` with one log fd for
  each node: connect new nodes to the networks. The reply carries a pidfd of each holder.
- `{"op": "write", "nodes": {id: {path: text}}}`: replace files of nodes.
- `{"op": "remove", "node": id}`: end a node's holder, and with it the node.
- `{"op": "start", "nodes": [id, ...], "argv": [...]}`: start daemons. The reply carries a pidfd of each.
- `{"op": "filter", "nft": path, "nodes": {id: [line, ...]}}`: pass these lines to `nft -f` in the nodes' networks.
- `{"op": "keep", "keep": bool}`: whether the nodes outlive the owner.
- `{"op": "status", "node": id}`: the reply is `{"status": ...}`, the wait(2) status of the node's latest daemon, or
  null while it runs.
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
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypedDict, cast

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_NOSUID = 2
MS_NODEV = 4
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
MAX_FDS = 253
PACKET = 1 << 16
SHARED_MEMORY = "/dev/shm"

_libc = ctypes.CDLL(None, use_errno=True)


class SetupError(Exception):
    """A request failed; the owner gets the text."""


class NodeSpec(TypedDict):
    """What a `create` request says about one node."""

    port: str
    """The name of its port to the network of link 0; those to others have a suffix."""
    addresses: list[str]
    """Its addresses by link, each with the length of the prefix."""
    files: dict[str, str]
    """The texts of the files to write in its mount namespace, by path."""


class CreateRequest(TypedDict):
    """The fields of a `create` request."""

    ip: str
    """The path of ip(8)."""
    private: list[str]
    """The directories on which each node mounts an empty tmpfs."""
    links: int
    """The number of networks."""


def interface(port: str, link: int, address: str, hub: int) -> list[str]:
    """The commands of ip(8) that connect a node to a link, with the other end of the cable in the hub."""
    # Otherwise the kernel would look for duplicates of an IPv6 address for a second or two, and not use it meanwhile.
    nodad = " nodad" if ":" in address else ""
    return [
        # From iproute2 6.12 on, a pid would not do for `netns`: ip looks it up in /proc, and this /proc shows pids as
        # they are outside of our pid namespace.
        f"link add eth{link} type veth peer name {port_name(port, link)} netns /proc/self/fd/{hub}",
        f"address add {address} dev eth{link}{nodad}",
        f"link set eth{link} up",
    ]


def port_name(port: str, link: int) -> str:
    """The name of a node's port to the bridge of a link."""
    return f"{port}.{link}" if link else port


def call(function: str, *args: int | bytes | None) -> None:
    """Call a function of libc that `os` lacks before Python 3.12, or altogether."""
    if getattr(_libc, function)(*args) != 0:
        error = ctypes.get_errno()
        raise SetupError(f"{function}{args}: {os.strerror(error)}")


class ManagedNode:
    """The processes of a node: the holder, and the daemon if one runs."""

    def __init__(self, log: int, ports: list[str]) -> None:
        self.log = log
        self.ports = ports
        self.holder = 0
        self.pidfd = -1
        self.daemon = 0
        self.status: int | None = None


def run(path: str, arguments: list[str], lines: list[str]) -> None:
    """Run a program that reads `lines` from its stdin, such as `ip -batch -`."""
    with open(os.memfd_create("batch"), "wb") as batch_file, open(os.memfd_create("errors"), "wb") as errors_file:
        batch, errors = batch_file.fileno(), errors_file.fileno()
        os.write(batch, "\n".join(lines).encode() + b"\n")
        os.lseek(batch, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, batch, 0), (os.POSIX_SPAWN_DUP2, errors, 1), (os.POSIX_SPAWN_DUP2, errors, 2)]
        pid = os.posix_spawn(path, arguments, os.environ, file_actions=actions)
        if os.waitpid(pid, 0)[1] != 0:
            reason = os.pread(errors, 4096, 0).decode(errors="replace").strip()
            raise SetupError(f"{' '.join(arguments)}: {reason}")


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


def hold(nodeid: str, node: NodeSpec, network: CreateRequest, log: int, result: int) -> NoReturn:
    """Run a node's holder, in a forked child: create the node's namespaces, report on `result`, and sleep.

    Args:
        nodeid: the node's id.
        node: its part of the request.
        network: what all nodes share.
        log: the fd of the node's log.
        result: the fd for the report: "ok", or an error.
    """
    try:
        call("prctl", PR_SET_NAME, f"node{nodeid}".encode(), 0, 0, 0)
        hub = os.open("/proc/self/ns/net", os.O_RDONLY)
        os.set_inheritable(hub, True)  # noqa: FBT003 - the standard library's signature
        call("unshare", CLONE_NEWNET | CLONE_NEWNS)
        mount_private(network["private"])
        write_files(node["files"])
        run(
            network["ip"],
            ["ip", "-batch", "-"],
            [
                "link set lo up",
                *(
                    line
                    for link, address in enumerate(node["addresses"])
                    for line in interface(node["port"], link, address, hub)
                ),
            ],
        )
        os.write(result, b"ok")
    except BaseException as error:  # noqa: BLE001, ASYNC103 - nothing may escape from a forked child
        os.write(result, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    # The node's log can be read as the holder's stdout (/proc/PID/fd/1), even while no daemon runs.
    os.dup2(log, 1)
    os.closerange(2, 65536)
    os.close(0)
    while True:
        signal.pause()


def fork_reporting(child: Callable[[int], NoReturn]) -> tuple[int, int]:
    """Fork a child that gets an fd to report on; returns its pid, and the fd to read the report from."""
    reader, writer = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        child(writer)
    os.close(writer)
    return pid, reader


def report_of(reader: int) -> str:
    """Read a child's report, up to the end of the pipe."""
    with open(reader, "rb") as pipe:
        return pipe.read().decode(errors="replace")


def check_report(who: str, reader: int) -> None:
    """Raise `SetupError` unless a child reports "ok"."""
    report = report_of(reader)
    if report != "ok":
        raise SetupError(f"{who}: {report}")


def run_daemon(node: ManagedNode, argv: list[str]) -> NoReturn:
    """Enter the node's namespaces and execute its daemon, in a forked child."""
    try:
        call("setns", node.pidfd, CLONE_NEWNET | CLONE_NEWNS)
        # A daemon that was killed has left its files in shared memory, 8 MB and more.
        for name in os.listdir(SHARED_MEMORY):
            remove_tree(f"{SHARED_MEMORY}/{name}")
        os.chdir("/")
        os.setsid()
        # Python ignores these signals, and exec keeps ignored signals ignored.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(node.log, 1)
        os.dup2(node.log, 2)
        os.execv(argv[0], argv)  # noqa: S606 - a shell is neither needed nor there
    except BaseException as error:  # noqa: BLE001, ASYNC103 - nothing may escape from a forked child
        os.write(node.log, f"{argv[0]}: {error}\n".encode())
    os._exit(127)


def filter_inside(node: ManagedNode, nft: str, lines: list[str], result: int) -> NoReturn:
    """Pass rules to nft in the node's network namespace, in a forked child; an error is written to `result`."""
    try:
        call("setns", node.pidfd, CLONE_NEWNET)
        run(nft, ["nft", "-f", "-"], lines)
    except BaseException as error:  # noqa: BLE001, ASYNC103 - nothing may escape from a forked child
        os.write(result, f"{type(error).__name__}: {error}".encode())
    os._exit(0)


def write_inside(node: ManagedNode, files: dict[str, str], result: int) -> NoReturn:
    """Write files in the node's mount namespace, in a forked child; an error is written to `result`."""
    try:
        call("setns", node.pidfd, CLONE_NEWNS)
        write_files(files)
    except BaseException as error:  # noqa: BLE001, ASYNC103 - nothing may escape from a forked child
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
    """Serves the requests, and reaps the processes of the pid namespace."""

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.nodes: dict[str, ManagedNode] = {}
        self.keep = False
        self.network: CreateRequest | None = None

    def create(self, request: CreateRequest) -> None:
        """Create a bridge for each link."""
        self.network = request
        # No spanning tree, so that ports forward at once; no snooping, so that multicast gets to all ports. The bridges
        # are created before the nodes, so that no port has the same interface index as its peer in the node's
        # namespace: the kernel may notice the carrier of such a port up to a second late (linkwatch_urgent_event in
        # net/core/link_watch.c).
        self.configure(
            "link set lo up",
            *(
                f"link add bridge{link} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                for link in range(request["links"])
            ),
        )

    def configure(self, *lines: str) -> None:
        """Run commands of ip(8) in the hub."""
        path = self.created()["ip"]
        run(path, ["ip", "-batch", "-"], list(lines))

    def created(self) -> CreateRequest:
        """The request that has created the network."""
        if self.network is None:
            raise SetupError("there is no network yet")
        return self.network

    def node(self, nodeid: str) -> ManagedNode:
        """The node with that id."""
        if nodeid not in self.nodes:
            raise SetupError(f"there is no node {nodeid}")
        return self.nodes[nodeid]

    def add(self, specs: dict[str, NodeSpec], logs: list[int]) -> list[int]:
        """Create nodes; returns the pidfds of their holders."""
        if len(logs) < len(specs):
            raise SetupError("it has too few file descriptors; raise the limit, which it inherits (ulimit -n)")
        network = self.created()
        nodes = {
            nodeid: ManagedNode(log, [port_name(spec["port"], link) for link in range(network["links"])])
            for (nodeid, spec), log in zip(specs.items(), logs, strict=True)
        }
        readers: list[int] = []
        try:
            for nodeid, node in nodes.items():
                node.holder, reader = fork_reporting(partial(hold, nodeid, specs[nodeid], network, node.log))
                readers.append(reader)
            for nodeid, node in nodes.items():
                check_report(f"node {nodeid}", readers.pop(0))
                node.pidfd = os.pidfd_open(node.holder)
            self.configure(
                *(
                    f"link set {port} master bridge{link} up"
                    for node in nodes.values()
                    for link, port in enumerate(node.ports)
                )
            )
        except BaseException:
            for reader in readers:
                os.close(reader)
            for node in nodes.values():
                self.end(node)
            raise
        self.nodes.update(nodes)
        return [node.pidfd for node in nodes.values()]

    def start(self, request: dict[str, Any]) -> list[int]:
        """Start daemons; returns their pidfds, which the caller closes."""
        pidfds: list[int] = []
        for nodeid in request["nodes"]:
            node = self.node(nodeid)
            if node.daemon:
                raise SetupError(f"node {nodeid}: a daemon runs already")
            pid = os.fork()
            if pid == 0:
                run_daemon(node, request["argv"])
            node.daemon, node.status = pid, None
            try:
                pidfds.append(os.pidfd_open(pid))
            except OSError:
                for pidfd in pidfds:
                    os.close(pidfd)
                raise
        return pidfds

    def filter(self, request: dict[str, Any]) -> None:
        """Replace the packet filters of nodes."""
        for nodeid, lines in request["nodes"].items():
            self.inside(nodeid, partial(filter_inside, self.node(nodeid), request["nft"], lines))

    def write(self, request: dict[str, Any]) -> None:
        """Replace files of nodes."""
        for nodeid, files in request["nodes"].items():
            self.inside(nodeid, partial(write_inside, self.node(nodeid), files))

    def inside(self, nodeid: str, child: Callable[[int], NoReturn]) -> None:
        """Run something inside of a node: in a child, since the way back out of a namespace is not open to all."""
        pid, reader = fork_reporting(child)
        problem = report_of(reader)
        os.waitpid(pid, 0)
        if problem:
            raise SetupError(f"node {nodeid}: {problem}")

    def remove(self, nodeid: str) -> None:
        """End a node whose daemon has ended, and with it its namespaces."""
        node = self.node(nodeid)
        if node.daemon:
            raise SetupError(f"node {nodeid}: its daemon runs")
        del self.nodes[nodeid]
        self.end(node)

    def end(self, node: ManagedNode) -> None:
        """End a node's holder, which may have failed half-way, and with it the node's namespaces."""
        for port in node.ports:
            # It would go with the namespace, but only after a moment.
            with suppress(SetupError):  # there may be none yet
                self.configure(f"link delete {port}")
        if node.holder:
            os.kill(node.holder, signal.SIGKILL)
            os.waitpid(node.holder, 0)
        for fd in (node.pidfd, node.log):
            if fd >= 0:
                os.close(fd)

    def reap(self) -> None:
        """Reap every child that has ended, orphans of the pid namespace included, and note how daemons ended."""
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

    def perform(self, request: dict[str, Any], fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Do what a request says; returns the reply and its fds.

        Raises:
            SetupError: it failed, or there is no such request.
            OSError: it failed.
        """
        op = request["op"]
        if op == "add":
            return {}, self.add(request["nodes"], fds)
        if op == "start":
            return {}, self.start(request)
        if op == "status":
            return {"status": self.node(request["node"]).status}, []
        if op == "create":
            self.create(cast("CreateRequest", request))
        elif op == "filter":
            self.filter(request)
        elif op == "write":
            self.write(request)
        elif op == "remove":
            self.remove(request["node"])
        elif op == "keep":
            self.keep = request["keep"]
        else:
            raise SetupError(f"there is no request {op!r}")
        return {}, []

    def answer(self, control: socket.socket) -> bool:
        """Receive a request, perform it, and send the reply; False at the end of the requests.

        Raises:
            OSError: the owner has ended before it read a reply.
        """
        packet, fds, _, _ = socket.recv_fds(control, PACKET, MAX_FDS, socket.MSG_CMSG_CLOEXEC)
        if not packet:
            return False
        request = json.loads(os.pread(self.requests, int(packet), 0))
        # The owner may know already, by a pidfd, that a daemon has ended: reap it before it asks for the status.
        self.reap()
        reply: dict[str, Any]
        send: list[int] = []
        try:
            reply, send = self.perform(request, fds)
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
        """Serve one request; False if the owner has closed its end."""
        try:
            return self.answer(control)
        except OSError:
            return False


def ignore(_number: int, _frame: object) -> None:
    """Do nothing: the wakeup fd reports the signal."""


def main(control_fd: int, owner: int, requests: int) -> None:
    """Serve requests until the owner is gone; stay if the nodes are to be kept."""
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
