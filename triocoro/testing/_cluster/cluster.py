"""The interface of clusters, real and fake."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from types import TracebackType
from typing import Final

import trio

from ... import _validate
from ..._cfg import open_cfg
from ..._errors import CorosyncError
from ..._runs import require_trio
from .._history.history import History, check_history
from .._history.recording import not_recorded
from .addresses import Addresses
from .nemesis import playing
from .network import Network
from .node import Node, node_of
from .options import ClusterOptions
from .recording import Recording
from .schedule import FaultSchedule
from .settling import MembershipWatch
from .waits import stretched

_PATIENCE: Final = 30.0
"""Seconds that memberships may take to settle, even on a machine under load, with the usual options."""


class Cluster(AbstractContextManager["Cluster"], AbstractAsyncContextManager["Cluster"]):
    """A throwaway cluster. Use it with `async with`, or with a plain `with`, which blocks while it starts and stops."""

    def __init__(self, options: ClusterOptions, name: str) -> None:
        self.name: str = name
        """Tells the cluster apart from others of this process, in messages and in the labels of its nodes."""
        self._options = options
        self._network = Network(frozenset(options.nodeids), options.links)
        self._recording = Recording()
        self._addresses: Addresses = Addresses(options.ip_versions).with_nodes(options.nodeids)

    @property
    def options(self) -> ClusterOptions:
        """The configuration of the cluster. Nodes that are added or removed change it."""
        return self._options

    @property
    @abstractmethod
    def nodes(self) -> Mapping[int, Node]:
        """The nodes by their ids, in the order of the node list."""

    @property
    def network(self) -> Network:
        """The cuts and the packet loss that are in force."""
        return self._network

    @property
    def running(self) -> bool:
        """Whether the cluster's block is active."""
        try:
            self._check_runs()
        except RuntimeError:
            return False
        return True

    @property
    def history(self) -> History | None:
        """The history that the cluster is recorded into; `None` if it is not recorded."""
        return self._recording.history

    def record(self, history: History | None) -> None:
        """Record the cluster into a history of its own, from now on.

        The history gets what is done to the cluster: each of the methods that change the network, the nodes, or one
        node, once it has taken effect. And it gets what clients do and are told, over connections that are made from
        now on with an endpoint of one of the nodes. Those of a node's own endpoint are the client ``node 1`` in it, for
        node 1. Endpoints of `History.endpoint` are clients with their own names, and recorded once.

        Args:
            history: where to record; it replaces an earlier one. `None` ends the recording.

        Raises:
            TypeError: it is no history.
        """
        if history is not None:
            check_history(history)
        self._recording.record(history)

    __iter__ = None
    """Not iterable: without this, Python would iterate by `cluster[0]`, `cluster[1]` and so on. `nodes` is."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self.nodes)} nodes>"

    def __getitem__(self, nodeid: int) -> Node:
        return node_of(self.nodes, nodeid)

    @abstractmethod
    def __enter__(self) -> Cluster: ...

    @abstractmethod
    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    @abstractmethod
    async def __aenter__(self) -> Cluster: ...

    @abstractmethod
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    def reachable(self, nodeid: int) -> frozenset[int]:
        """The nodes that node `nodeid` is linked to in both directions, and itself; none if it is frozen or down."""
        up = self._up()
        return frozenset(other for other in up if nodeid in up and self._network.linked(nodeid, other))

    async def partition(self, *sides: Iterable[int]) -> None:
        """Cut the network between `sides`. This replaces all earlier cuts; packet loss stays.

        Args:
            sides: sets of node ids; nodes that are not named belong to the first side.

        Cancelled: it may have been cut.
        """
        sets = [frozenset(side) for side in sides]
        with self._recording.fault("partition", sides=sets):
            await self._rewire(lambda network: network.partition(sets))

    async def isolate(self, nodeid: int) -> None:
        """Cut one node off from all others; other cuts stay as they are.

        Cancelled: it may have been cut off.
        """
        with self._recording.fault("isolate", nodeid=nodeid):
            await self._rewire(lambda network: network.isolate(nodeid))

    async def cut(self, source: int, target: int, *, link: int | None = None) -> None:
        """Drop everything that node `source` sends to node `target`; the other direction, and other cuts, stay as is.

        To Corosync the two are separated, since its links work in both directions or not at all. In a larger cluster,
        the daemons agree on the one that stays with the others. It takes them some seconds, and may never come to an
        end (docs/facts.md).

        Args:
            source: the node that is not heard.
            target: the node that does not hear it.
            link: drop only what is sent on this link. As long as another link works, the membership stays.

        Cancelled: it may have been cut.
        """
        on_link = {} if link is None else {"link": link}
        with self._recording.fault("cut", source=source, target=target, **on_link):
            await self._rewire(lambda network: network.cut_off(source, target, link))

    async def lose(self, percent: float, *, nodes: Iterable[int] | None = None) -> None:
        """Drop packets at random on their way to nodes. This replaces the earlier loss at these nodes.

        Corosync retransmits lost packets, so messages still arrive, only later. A loss of a few per cent sometimes
        makes the same nodes form a new ring; with 15 per cent or more, nodes lose each other. The fake ignores a loss
        below 100 per cent.

        Args:
            percent: 0 to 100 per cent of the packets; 0 ends the loss.
            nodes: the nodes at which packets are lost; all of them by default. The loss at others stays.

        Cancelled: it may be in force.
        """
        nodeids = frozenset(self.nodes if nodes is None else nodes)
        with self._recording.fault("lose", percent=percent, nodes=nodeids):
            await self._rewire(lambda network: network.lose(percent, nodeids))

    async def heal(self) -> None:
        """Remove all cuts and all packet loss.

        Cancelled: they may have been removed.
        """
        with self._recording.fault("heal"):
            await self._rewire(lambda network: network.healed())

    def nemesis(self, schedule: FaultSchedule) -> AbstractAsyncContextManager[trio.Event]:
        """Play a schedule of faults beside an `async with` block, in the time of the Trio run.

        The value of the block is an event that is set when all steps have been taken. A step whose time has passed
        while the one before it took effect follows at once. `freeze` does nothing to a node that is down.

        At the end of the block, the steps that are left are dropped, and what the others have left broken is repaired:
        the network is healed, and the nodes that they have frozen, killed or stopped are thawed or started. It does not
        wait until the memberships have settled. If the block ends with an exception, nothing is repaired, so that a
        report can show the state at the failure.

        Args:
            schedule: the steps; their times count from the begin of the block.

        Cancelled: a step that has begun takes effect.

        Raises:
            TypeError: it is no `FaultSchedule`.
            ValueError: on entry, if it names nodes that the cluster does not have.
        """
        _validate.instance(schedule, FaultSchedule, "schedule")
        return playing(self, schedule)

    async def add_node(self, nodeid: int | None = None, *, votes: int = 1) -> Node:
        """Add a node at run time: put it into the node list on all nodes, reload the list, and start the node.

        It returns once clients can connect to the node; `settled` waits until it has joined the others. Nodes that are
        down read the new list when they start. Frozen ones go on with the old list after the thaw, until a reload.

        Args:
            nodeid: its id; by default the one after the highest.
            votes: its votes (quorum_votes).

        Cancelled: it may be in the list, or be running.

        Raises:
            RuntimeError: the cluster does not run.
            ValueError: there is such a node, or the options exclude it.
            CorosyncUnavailableError: the node cannot be created, or its daemon does not start. The node is out of the
                list again, and gone.
            InvalidParamError: a daemon refuses the new list. It is as before again.
        """
        require_trio()
        self._check_runs()
        with self._recording.fault("add_node", nodeid=nodeid, votes=votes) as arguments:
            node = await self._add_node(nodeid, votes)
            arguments["nodeid"] = node.nodeid
            return node

    async def _add_node(self, nodeid: int | None, votes: int) -> Node:
        before = self._options
        options = await self._reconfigure(lambda options: options.with_node(nodeid, votes))
        node = self[options.nodeids[-1]]
        try:
            await self._reload()
            await node.start()
        except Exception as exc:  # noqa: BLE001 - it is raised below
            failure = exc
        else:
            return node
        await node.stop()
        await self._reconfigure(
            lambda now: before if now is options else now.without_node(node.nodeid),  # others may have come
        )
        with suppress(CorosyncError):  # what has failed once may do so again
            await self._reload()
        raise failure

    async def remove_node(self, nodeid: int) -> None:
        """Remove a node at run time: stop it, take it out of the node list on all others, and reload the list.

        Cuts and losses at the node end. Its `Node` object is of use for its log only.

        Cancelled: it may be stopped, or removed.

        Raises:
            RuntimeError: the cluster does not run.
            ValueError: there is no such node, or the options need it.
        """
        require_trio()
        self._check_runs()
        self._options.without_node(nodeid)
        with self._recording.fault("remove_node", nodeid=nodeid):
            await self[nodeid].stop()
            await self._reconfigure(lambda options: options.without_node(nodeid))
            await self._reload()

    @abstractmethod
    async def _reconfigure(self, change: Callable[[ClusterOptions], ClusterOptions]) -> ClusterOptions:
        """Change the options, create and remove nodes as they ask, and write the configuration of all; no reload.

        Returns:
            the changed options.
        """

    def _adopt(self, options: ClusterOptions) -> None:
        """Note changed options, and the nodes, network and addresses that follow from them."""
        added = [nodeid for nodeid in options.nodeids if nodeid not in self._network.nodeids]
        for removed in self._network.nodeids.difference(options.nodeids):
            self._addresses = self._addresses.without(removed)
        self._addresses = self._addresses.with_nodes(added)
        self._network = self._network.of(options.nodeids)
        self._options = options

    async def _reload(self) -> None:
        """Let all nodes that are up and not frozen read their configuration; one tells those that it is linked to."""
        await trio.lowlevel.checkpoint()
        left = set(self._up())
        while left:
            nodeid = min(left)
            with not_recorded():
                async with open_cfg(endpoint=self[nodeid].endpoint) as cfg:
                    await cfg.reload_config()
            left -= self.reachable(nodeid) | {nodeid}

    @abstractmethod
    async def _rewire(self, change: Callable[[Network], Network]) -> None:
        """Apply `change` to the real network and to `network`; concurrent calls take turns."""

    @abstractmethod
    def _up(self) -> frozenset[int]:
        """The nodes that run and are not frozen."""

    @abstractmethod
    def _check_runs(self) -> None:
        """Raise `RuntimeError` outside the cluster's block."""

    async def settled(self) -> None:
        """Wait until the memberships fit the network, on all nodes that are up and not frozen.

        They fit when the nodes of each membership agree on it, the network holds them together, and no two memberships
        could merge. By then the votes have been counted, the nodes answer requests, and messages get around. To check
        the last, this joins a process group of its own on each node. With several links, the nodes of each membership
        have noticed which of the links between them work. The network and the nodes may change meanwhile.

        Cancelled: nothing has changed.

        Raises:
            RuntimeError: the cluster does not run.
            trio.TooSlowError: this has taken 30 seconds, or longer if the token timeout is above 3 seconds; the message
                says which members each node sees.
        """
        require_trio()
        self._check_runs()
        watch = MembershipWatch(self, self._up)
        limit = stretched(_PATIENCE, self.options)
        with not_recorded(), trio.move_on_after(limit) as patience:
            async with trio.open_nursery() as nursery:
                await watch.settled(nursery)
                nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            raise trio.TooSlowError(
                f"the memberships have not settled within {limit:g} seconds:\n" + "\n".join(watch.findings())
            )
