"""Clusters of real Corosync daemons, each node in network and mount namespaces of its own."""

from __future__ import annotations

import itertools
import os
import secrets
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final

import attrs
import trio

from ..._errors import NoResourcesError
from ..._forks import Origin
from ..._runs import require_trio
from ..._workers import on_worker
from .._cluster.cluster import Cluster
from .._cluster.corosync_conf import KEY_BYTES, KEY_FILE, STATE_DIR, corosync_conf
from .._cluster.network import Network
from .._cluster.node import node_of, removed
from .._cluster.options import ClusterOptions, ClusterSettings, merge
from . import requirements
from .background import BackgroundRun
from .nft import filter_rules
from .node import NetnsNode
from .node_processes import NodeProcesses
from .readiness import Readiness
from .supervisor_process import SupervisorProcess

if TYPE_CHECKING:
    from typing_extensions import Unpack  # in typing from Python 3.11 on

_CONF = f"{STATE_DIR}/corosync.conf"


_numbers = itertools.count(1)

_START_POLL: Final = 0.01


class NetnsCluster(Cluster):
    """A throwaway cluster of real Corosync daemons.

    Each node has its own network and mount namespace, and its files on a tmpfs there. Entering the block waits until
    every node sees all nodes in its cluster and has counted their votes; the cluster is then quorate, unless the
    options require more votes than the nodes have. When the block ends, or this process is killed, nothing is left
    behind. An instance can be used once.

    A forked child may connect to the nodes. The cluster remains its parent's: its methods and those of its nodes that
    change something are a `RuntimeError` in the child, and leaving the block there does nothing.

    Args:
        options: the configuration; without it, that of `ClusterOptions()`.
        nodes: how many nodes, with the ids 1 to that number; replaces `options.nodes` and `options.nodeids`.
        settings: further fields of `ClusterOptions`; each replaces that field of `options`.

    Raises:
        CorosyncUnavailableError: on entry, if this machine lacks something, or a daemon does not start; the message
            lists what is missing, or gives the daemon's own reason and the end of its log.
        NoResourcesError: on entry, if this process has too few file descriptors left.
    """

    def __init__(
        self, *, options: ClusterOptions | None = None, nodes: int | None = None, **settings: Unpack[ClusterSettings]
    ) -> None:
        super().__init__(merge(options, nodes, settings), f"triocoro-{os.getpid()}-{next(_numbers)}")
        self._origin = Origin()
        self._processes: dict[int, NodeProcesses] = {}
        self._nodes: dict[int, NetnsNode] = {}
        for nodeid in self.options.nodeids:
            self._make_node(nodeid)
        self._supervisor: SupervisorProcess | None = None
        self._argv: list[str] = []
        self._nft = ""
        self._key = secrets.token_hex(KEY_BYTES)
        self._enforces_encryption = False
        self._how_to_enter = ""
        self._kept = False
        self._used = False
        self._rewiring = threading.Lock()
        self.disturbances: int = 0
        """How often the network was changed, or a node was frozen."""

    def _make_node(self, nodeid: int) -> NodeProcesses:
        processes = NodeProcesses(nodeid, self.name)
        node = NetnsNode(
            processes,
            self.name,
            self._recording,
            start=self._start_one,
            note_freeze=self._note_disturbance,
            check_caller=self._check_caller,
        )
        # Not in place, as another thread may be going through the nodes.
        self._processes = {**self._processes, nodeid: processes}
        self._nodes = {**self._nodes, nodeid: node}
        return processes

    @property
    def nodes(self) -> Mapping[int, NetnsNode]:
        """The nodes by their ids."""
        return self._nodes

    def __getitem__(self, nodeid: int) -> NetnsNode:
        return node_of(self._nodes, nodeid)

    def keep(self, *, kept: bool = True) -> None:
        """Let the nodes outlive the block and this process, however it ends; `how_to_enter` says how to end them.

        After the block, this object can do nothing with them. The call blocks briefly, and works inside a Trio run and
        outside.

        Args:
            kept: False reverts it: the nodes end with the block.

        Raises:
            RuntimeError: the cluster does not run.
        """
        self._running_supervisor().request("keep", keep=kept)
        self._kept = kept

    @property
    def how_to_enter(self) -> str:
        """How to inspect the nodes from a shell: text for people, of several lines.

        The first line names the cluster. Then come, for each node, a command that runs corosync-quorumtool in it, which
        may be replaced by any other program, and one that prints its log; at last, the command that ends the cluster.
        Each is a line of its own, after a colon, and works as it is in the shell of the same user::

            the cluster triocoro-4711-1:
              look into node 1: nsenter --target 4714 --net --mount -- corosync-quorumtool -s
              read its log: cat /proc/4714/fd/1
              end all of it: kill -KILL 4713

        Empty until the cluster has been started. After the block it is of use only if the nodes were kept.
        """
        return self._how_to_enter

    def _note_disturbance(self) -> None:
        self.disturbances += 1

    def _up(self) -> frozenset[int]:
        return frozenset(node.nodeid for node in self._processes.values() if node.up)

    def _check_runs(self) -> None:
        """Raise `RuntimeError` outside the cluster's block, and in a forked child."""
        self._running_supervisor()

    async def _rewire(self, change: Callable[[Network], Network]) -> None:
        self._check_caller()
        await BackgroundRun(lambda: self._filter(change)).run()

    def __enter__(self) -> NetnsCluster:  # noqa: PYI034 - typing has Self from Python 3.11 on
        self._use()
        try:
            BackgroundRun(self._start_all).run_blocking()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._close()

    async def __aenter__(self) -> NetnsCluster:  # noqa: PYI034 - typing has Self from Python 3.11 on
        require_trio()
        self._use()
        try:
            await BackgroundRun(self._start_all).run()
        except BaseException:
            await self._aclose()  # noqa: ASYNC102 - shielded inside
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._aclose()  # noqa: ASYNC102 - shielded inside

    def _check_process(self) -> None:
        self._origin.check(
            f"{self!r} was made", "connect to its nodes' endpoints from here, or start a cluster of your own"
        )

    def _check_caller(self) -> None:
        self._check_process()
        require_trio()

    def _use(self) -> None:
        self._check_process()
        if self._used:
            raise RuntimeError("a cluster is used once; make another one")
        self._used = True

    async def _aclose(self) -> None:  # noqa: ASYNC910 - without a thread, there is no time for one
        if self._origin.forked:
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope(shield=True):  # noqa: ASYNC912 - as above
            try:
                # With a limiter of its own: calls to our frozen daemons may hold all threads of the default one.
                await on_worker(self._close, trio.CapacityLimiter(1))
            except NoResourcesError:
                self._close()  # the loop stands still for it, but the cluster ends

    def _close(self) -> None:
        """End the cluster, and wait for its end, or release it if it is kept. In a forked child, do nothing."""
        if self._origin.forked:
            return
        if self._supervisor is not None:
            if self._kept:
                self._supervisor.release()
            else:
                self._supervisor.close()
            self._supervisor = None
        for node in self._processes.values():
            node.close()

    async def _reconfigure(self, change: Callable[[ClusterOptions], ClusterOptions]) -> ClusterOptions:
        return await BackgroundRun(lambda: self._write_configuration(change)).run()

    # The following methods run in a BackgroundRun, where a request to the supervisor may block for a moment.

    async def _start_all(self) -> None:
        programs = requirements.find_programs()
        self._supervisor = SupervisorProcess(programs)
        self._create(self._supervisor, programs)
        await self._start_daemons(list(self._processes.values()), frozenset(self._nodes))

    async def _start_one(self, node: NodeProcesses) -> None:  # noqa: ASYNC910 - starting daemons waits for them
        if self._processes.get(node.nodeid) is not node:
            raise removed(node.label)
        # Each call is in a thread of its own. Another one that starts this node may take long, and ends by itself.
        while not node.starting.acquire(blocking=False):  # noqa: ASYNC110 - other runs cannot set an event here
            await trio.sleep(_START_POLL)
        try:
            if not node.running:
                # As after an upgrade: the program that PATH leads to now.
                self._argv[0] = requirements.find_program("corosync") or self._argv[0]
                await self._start_daemons([node], None)
        finally:
            node.starting.release()

    def _running_supervisor(self) -> SupervisorProcess:
        self._check_process()
        if self._supervisor is None:
            raise RuntimeError(f"{self!r} does not run")
        return self._supervisor

    async def _filter(self, change: Callable[[Network], Network]) -> None:  # noqa: ASYNC910 - in a run of its own
        # Each call is in a thread of its own. The lock is held for a request to the supervisor, which is quick.
        with self._rewiring:
            network = change(self._network)
            self._note_disturbance()
            self._apply_filters(network)
            # Here and not in the caller, which may have been cancelled meanwhile.
            self._network = network

    def _apply_filters(self, network: Network) -> None:
        self._running_supervisor().request(
            "filter",
            nft=self._nft,
            nodes={nodeid: filter_rules(network, self._addresses, nodeid) for nodeid in self._nodes},
        )

    async def _write_configuration(  # noqa: ASYNC910 - in a run of its own
        self, change: Callable[[ClusterOptions], ClusterOptions]
    ) -> ClusterOptions:
        with self._rewiring:
            options = change(self._options)
            supervisor = self._running_supervisor()
            added = [nodeid for nodeid in options.nodeids if nodeid not in self._nodes]
            removed = [nodeid for nodeid in self._nodes if nodeid not in options.nodeids]
            for nodeid in removed:
                self._remove(supervisor, nodeid)
            before = self._options, self._network, self._addresses
            self._adopt(options)
            try:
                self._add(supervisor, [self._make_node(nodeid) for nodeid in added])
                self._write(supervisor)
            except BaseException:
                for nodeid in added:
                    self._remove(supervisor, nodeid)
                if not removed:
                    self._options, self._network, self._addresses = before
                    self._write(supervisor)
                raise
            return options  # noqa: ASYNC910 - as above

    def _remove(self, supervisor: SupervisorProcess, nodeid: int) -> None:
        if self._processes[nodeid].holder is not None:
            supervisor.request("remove", node=str(nodeid))
        self._processes[nodeid].close()
        self._processes = {other: node for other, node in self._processes.items() if other != nodeid}
        self._nodes = {other: node for other, node in self._nodes.items() if other != nodeid}

    def _write(self, supervisor: SupervisorProcess) -> None:
        """Write the configuration of all nodes, and their packet filters: a new node may have an earlier address."""
        supervisor.request("write", nodes=dict.fromkeys(map(str, self._nodes), self._files()))
        self._apply_filters(self._network)

    def _create(self, supervisor: SupervisorProcess, programs: requirements.Programs) -> None:
        self._argv = [programs.corosync, "-f", "-c", _CONF]
        self._nft = programs.nft
        self._enforces_encryption = programs.enforces_encryption()
        supervisor.request("create", ip=programs.ip, private=programs.private_directories(), links=self.options.links)
        self._add(supervisor, list(self._processes.values()))
        self._how_to_enter = "\n".join(self._directions(supervisor))

    def _add(self, supervisor: SupervisorProcess, nodes: list[NodeProcesses]) -> None:
        """Create nodes with all of their files."""
        files = self._files()
        _, holders = supervisor.request(
            "add",
            [node.open_log() for node in nodes],
            expected_fds=len(nodes),
            nodes={
                node.nodeid: {
                    "port": f"node{self._addresses.numbers[node.nodeid]}",
                    "addresses": self._addresses.interfaces(node.nodeid),
                    "files": files,
                }
                for node in nodes
            },
        )
        for node, holder in zip(nodes, holders, strict=True):
            node.holder = holder

    def _files(self) -> dict[str, str]:
        """The text of each node's files, by path."""
        options = self.options
        if self._enforces_encryption and options.transport == "knet" and not options.encrypts:
            options = attrs.evolve(options, crypto_cipher="aes256", crypto_hash="sha256")
        files = {_CONF: corosync_conf(options, self._addresses, self.name)}
        if options.encrypts:
            files[KEY_FILE] = self._key
        return files

    def _directions(self, supervisor: SupervisorProcess) -> Iterator[str]:
        tool = requirements.find_program("corosync-quorumtool") or "corosync-quorumtool", "-s"
        yield f"the cluster {self.name}:"
        for node in self._processes.values():
            pid = node.holder_pid or -1
            yield f"  look into node {node.nodeid}: {shlex.join(requirements.entering(pid, *tool))}"
            yield f"  read its log: cat /proc/{pid}/fd/1"
        yield f"  end all of it: kill -KILL {supervisor.pid}"

    async def _start_daemons(self, nodes: list[NodeProcesses], members: frozenset[int] | None) -> None:
        """Start daemons, and wait until they are ready; `members` as for `Readiness.wait`."""
        supervisor = self._running_supervisor()

        def status(nodeid: int) -> int | None:
            reply, _ = supervisor.request("status", node=str(nodeid))
            value: int | None = reply["status"]
            return value

        ids = [str(node.nodeid) for node in nodes]
        for node in nodes:
            node.expect_daemon()
        # One more, to read the pids.
        _, pidfds = supervisor.request("start", expected_fds=len(ids) + 1, nodes=ids, argv=self._argv)
        try:
            for node in nodes:
                node.set_daemon(pidfds[0])
                del pidfds[0]
        finally:
            for pidfd in pidfds:
                os.close(pidfd)
        await Readiness(nodes, status, self.options).wait(members)
