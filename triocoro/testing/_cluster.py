"""What a test sees of a cluster, real or fake."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, suppress
from types import MappingProxyType, TracebackType
from typing import Any, Final, Literal, TypeAlias, TypedDict, cast

import attrs
import trio

from .._cpg import open_group
from .._endpoint import default_endpoint
from .._errors import ConnectionLostError, CorosyncUnavailableError
from .._raw import Endpoint
from .._types import VotequorumNodelist
from .._votequorum import open_votequorum
from ._network import Network

MAX_NODES: Final = 253
"""As many as one packet to the supervisor of real nodes carries fds; the network has addresses for one more."""

_PATIENCE: Final = 30.0
"""Seconds that memberships may take to settle; a machine under load is slow, yet not that slow."""
_POLL: Final = 0.05

_numbers = itertools.count(1)

_WINDOW: Final = 10_000
_DEVICE_TIMEOUT: Final = 10_000
_DEVICE_SYNC_TIMEOUT: Final = 30_000
_MOST_VOTES: Final = 509
_LEAST_BESIDE_DEVICE: Final = 2


LogLevel: TypeAlias = Literal["info", "debug", "trace"]
"""How much daemons log."""

LOG_LEVELS: Final[tuple[LogLevel, ...]] = ("info", "debug", "trace")


class ClusterSettings(TypedDict, total=False):
    """What the constructors of clusters take besides the number of nodes: the further fields of `ClusterOptions`."""

    two_node: bool
    wait_for_all: bool | None
    last_man_standing: bool
    last_man_standing_window: int
    auto_tie_breaker: bool
    auto_tie_breaker_node: str | None
    allow_downscale: bool
    expected_votes: int | None
    votes: Mapping[int, int]
    qdevice_votes: int | None
    qdevice_timeout: int
    qdevice_sync_timeout: int
    token: int
    log_level: LogLevel


def _number(minimum: int) -> Callable[[Any, Any, Any], None]:
    return attrs.validators.and_(
        attrs.validators.instance_of(int), attrs.validators.ge(minimum), attrs.validators.le(2**32 - 1)
    )


_BOOL: Final = attrs.validators.instance_of(bool)


def _votes(votes: Mapping[int, int]) -> dict[int, int]:
    """A copy, as nobody else may change it."""
    if not isinstance(cast("object", votes), Mapping) or not all(
        isinstance(cast("object", number), int) for item in votes.items() for number in item
    ):
        raise TypeError(f"votes must be a mapping of node ids to numbers: {votes!r}")
    return dict(votes)


@attrs.frozen(kw_only=True)
class ClusterOptions:
    """How a cluster is configured; see votequorum(5) and corosync.conf(5).

    What votequorum would refuse, or ignore, is a `ValueError`.
    """

    nodes: int = attrs.field(default=3, validator=[_number(1), attrs.validators.le(MAX_NODES)])
    """How many nodes, at most 253; their ids are 1 to that number."""
    two_node: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's two_node; it brings wait_for_all with it, unless that is given."""
    wait_for_all: bool | None = attrs.field(default=None, validator=attrs.validators.optional(_BOOL))
    """votequorum's wait_for_all; `None` leaves it to two_node."""
    last_man_standing: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's last_man_standing: fewer votes are expected once nodes have been away for the window's time."""
    last_man_standing_window: int = attrs.field(default=_WINDOW, validator=_number(1))
    """votequorum's last_man_standing_window, in milliseconds."""
    auto_tie_breaker: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's auto_tie_breaker: one half of the votes is enough where a certain node is."""
    auto_tie_breaker_node: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(str))
    )
    """Which node that is: ``"lowest"`` (votequorum's default), ``"highest"``, or ids in order, such as ``"3 1"``."""
    allow_downscale: bool = attrs.field(default=False, validator=_BOOL)
    """votequorum's allow_downscale: nodes that stop in good order are no longer expected."""
    expected_votes: int | None = attrs.field(default=None, validator=attrs.validators.optional(_number(1)))
    """votequorum's expected_votes; `None`: the votes of all nodes."""
    votes: Mapping[int, int] = attrs.field(default=MappingProxyType[int, int]({}), converter=_votes, hash=False)
    """The votes of nodes that have another number than 1, by their ids (quorum_votes)."""
    qdevice_votes: int | None = attrs.field(default=None, validator=attrs.validators.optional(_number(0)))
    """The votes of a quorum device; `None`: none is configured, and one that registers all the same has no votes."""
    qdevice_timeout: int = attrs.field(default=_DEVICE_TIMEOUT, validator=_number(1))
    """How many milliseconds a quorum device may be silent."""
    qdevice_sync_timeout: int = attrs.field(default=_DEVICE_SYNC_TIMEOUT, validator=_number(1))
    """How many milliseconds a change of the membership waits for a quorum device that lives."""
    token: int = attrs.field(default=500, validator=_number(100))
    """totem's token timeout in milliseconds (the fake's changes take no time)."""

    log_level: LogLevel = attrs.field(default="info", validator=attrs.validators.in_(LOG_LEVELS))
    """How much the daemons log: "info", "debug" or "trace" (the fake logs what it does either way)."""

    def __attrs_post_init__(self) -> None:
        for wrong, complaint in self._rules():
            if wrong:
                raise ValueError(complaint)

    def votes_of(self, nodeid: int) -> int:
        """The votes that a node starts with."""
        return self.votes.get(nodeid, 1)

    @property
    def total_votes(self) -> int:
        """The votes that all nodes start with."""
        return sum(self.votes_of(nodeid) for nodeid in self._nodeids)

    @property
    def tie_breakers(self) -> tuple[int, ...]:
        """The ids in `auto_tie_breaker_node`; empty where that is a word."""
        words = (self.auto_tie_breaker_node or "").split()
        return tuple(map(int, words)) if all(word.isdecimal() for word in words) else ()

    @property
    def _nodeids(self) -> range:
        return range(1, self.nodes + 1)

    def _rules(self) -> Iterator[tuple[bool, str]]:
        """What does not go together (votequorum_readconfig in exec/votequorum.c): whether it is so, and the words."""
        tie_breaker = self.auto_tie_breaker_node
        most = max(self.expected_votes or 0, self.total_votes + (self.qdevice_votes or 0))
        yield not self.votes.keys() <= set(self._nodeids), f"votes must be of nodes 1 to {self.nodes}: {self.votes}"
        yield any(votes < 0 for votes in self.votes.values()), f"votes must not be negative: {self.votes}"
        yield most > _MOST_VOTES, f"{most} votes are too many: votequorum counts quorum in one byte"
        yield self.two_node and self.auto_tie_breaker, "two_node and auto_tie_breaker exclude each other"
        yield (
            self.allow_downscale and self.expected_votes is not None,
            "expected_votes are ignored with allow_downscale: what was expected before counts",
        )
        yield (
            self.auto_tie_breaker and self.total_votes % 2 == 1 and not self.wait_for_all,
            "auto_tie_breaker needs wait_for_all where the number of votes is odd",
        )
        yield tie_breaker is not None and not self.auto_tie_breaker, "auto_tie_breaker_node needs auto_tie_breaker"
        yield (
            tie_breaker not in {None, "lowest", "highest"}
            and not (
                set(self.tie_breakers) <= set(self._nodeids)
                and " ".join(map(str, self.tie_breakers)) == tie_breaker != ""
            ),
            f"auto_tie_breaker_node must be 'lowest', 'highest', or ids of nodes in a row: {tie_breaker!r}",
        )
        yield (
            self.last_man_standing and any(votes > 1 for votes in self.votes.values()),
            "last_man_standing needs nodes of one vote each",
        )
        yield (
            self.last_man_standing_window != _WINDOW and not self.last_man_standing,
            "last_man_standing_window needs last_man_standing",
        )
        for name, default in (("timeout", _DEVICE_TIMEOUT), ("sync_timeout", _DEVICE_SYNC_TIMEOUT)):
            yield (
                self.qdevice_votes is None and getattr(self, f"qdevice_{name}") != default,
                f"qdevice_{name} needs qdevice_votes",
            )
        for name in ("two_node", "last_man_standing", "auto_tie_breaker", "allow_downscale"):
            yield self.qdevice_votes is not None and bool(getattr(self, name)), f"no quorum device beside {name}"
        yield (
            None not in {self.expected_votes, self.qdevice_votes}
            and (self.expected_votes or 0) - (self.qdevice_votes or 0) < _LEAST_BESIDE_DEVICE,
            f"expected_votes must be at least {_LEAST_BESIDE_DEVICE} more than qdevice_votes",
        )


class Node(ABC):
    """One node of a cluster."""

    def __init__(self, nodeid: int) -> None:
        self.nodeid = nodeid

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.nodeid}>"

    @property
    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Give this as `endpoint=` to talk to this node's daemon; it stays valid when the daemon is restarted."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The daemon's pid as this process sees it; `None` on the fake, and while no daemon runs."""

    @property
    @abstractmethod
    def log(self) -> str:
        """What the daemon has logged so far, over all its restarts."""

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the daemon runs; a frozen one does."""

    @contextmanager
    def as_default(self) -> Generator[None, None, None]:
        """Make this node the default endpoint within a `with` block, in this context."""
        token = default_endpoint.set(self.endpoint)
        try:
            yield
        finally:
            default_endpoint.reset(token)

    @abstractmethod
    async def start(self) -> None:
        """Start the daemon; returns once clients can connect to it. Nothing happens if it runs."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop the daemon in good order (SIGTERM: it leaves the cluster), and wait for its end."""

    @abstractmethod
    async def kill(self) -> None:
        """Kill the daemon (SIGKILL: the others must find out), and wait for its end."""

    async def restart(self) -> None:
        """Stop the daemon in good order, if it runs, and start it.

        Cancelled: it may be stopped.
        """
        await self.stop()
        await self.start()

    @abstractmethod
    async def freeze(self) -> None:
        """Stop the daemon in its tracks (SIGSTOP) until `thaw`.

        Raises:
            RuntimeError: no daemon runs.
        """

    @abstractmethod
    async def thaw(self) -> None:
        """Let a frozen daemon go on (SIGCONT)."""


class Cluster(AbstractContextManager["Cluster"], AbstractAsyncContextManager["Cluster"]):
    """A throwaway cluster. Use it with `async with`, or with a plain `with`, which blocks while it starts and stops."""

    def __init__(self, options: ClusterOptions) -> None:
        self.options = options
        self._network = Network(frozenset(range(1, options.nodes + 1)))

    @property
    @abstractmethod
    def nodes(self) -> Mapping[int, Node]:
        """The nodes by their ids."""

    @property
    def network(self) -> Network:
        """What is wrong with the network."""
        return self._network

    def __getitem__(self, nodeid: int) -> Node:
        return self.nodes[nodeid]

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
        """The nodes that hear `nodeid`, and are heard by it, itself included; none if it is frozen or down."""
        up = self._up()
        return frozenset(other for other in up if nodeid in up and self._network.linked(nodeid, other))

    async def partition(self, *sides: Iterable[int]) -> None:
        """Cut the network between `sides`, in place of any cut before; packet loss stays.

        Args:
            sides: sets of node ids; nodes that are not named stay with the first side.

        Cancelled: it may have been cut.
        """
        await self._rewire(lambda network: network.partition(sides))

    async def isolate(self, nodeid: int) -> None:
        """Cut one node off from all others; other cuts stay as they are.

        Cancelled: it may have been cut off.
        """
        await self._rewire(lambda network: network.isolate(nodeid))

    async def cut(self, source: int, target: int) -> None:
        """Let nothing that node `source` sends arrive at node `target`; the other direction, and other cuts, stay.

        To Corosync the two are apart then, as links work in both directions or not at all. Where there are more nodes
        than two, the daemons settle who stays with the others; it takes them some seconds, and may never come to an end
        (docs/facts.md).

        Cancelled: it may have been cut.
        """
        await self._rewire(lambda network: network.cut_off(source, target))

    async def lose(self, percent: float, *, nodes: Iterable[int] | None = None) -> None:
        """Lose that much of what nodes send to each other, by chance, in place of any loss before.

        Corosync repeats what got lost, so that messages arrive all the same, only later. With a few per cent, a ring
        may now and then be formed anew of the same nodes; with 15 or more, nodes lose each other. On the fake nothing
        happens below 100.

        Args:
            percent: 0 to 100 per cent of the packets; 0 ends it.
            nodes: the nodes that do not hear them; all, unless given. The loss of others stays.

        Cancelled: it may be in force.
        """
        nodeids = frozenset(self.nodes if nodes is None else nodes)
        await self._rewire(lambda network: network.lose(percent, nodeids))

    async def heal(self) -> None:
        """Mend the network: no cut and no loss is left.

        Cancelled: it may have been mended.
        """
        await self._rewire(lambda network: Network(network.nodeids))

    @abstractmethod
    async def _rewire(self, change: Callable[[Network], Network]) -> None:
        """Make the network what `change` makes of it, and `network` with it; one change after the other."""

    @abstractmethod
    def _up(self) -> frozenset[int]:
        """The nodes that run, and are not frozen."""

    @abstractmethod
    def check_runs(self) -> None:
        """Raise `RuntimeError` if we are not in the block: elsewhere there is nothing to do anything to."""

    async def settled(self) -> None:
        """Wait until the memberships on all nodes that are up (and not frozen) are what the network allows.

        That is: the nodes of each membership agree on it, its network holds, and no two of them could be one. Quorum
        has been counted by then, the nodes are ready for requests, and messages get around: to see that, it joins a
        group of its own on each of them. The network and the nodes may change meanwhile.

        Raises:
            RuntimeError: the cluster does not run.
            trio.TooSlowError: it has not come to that within 30 seconds; the message says which node sees what.
        """
        self.check_runs()
        watch = _Watch(self, self._up)
        with trio.move_on_after(_PATIENCE) as patience:
            async with trio.open_nursery() as nursery:
                await watch.settled(nursery)
                nursery.cancel_scope.cancel()
        if patience.cancelled_caught:
            raise trio.TooSlowError(
                f"the memberships have not settled within {_PATIENCE:g} seconds:\n" + "\n".join(watch.findings())
            )


class _Watch:
    """What the nodes of a cluster see of each other."""

    def __init__(self, cluster: Cluster, up: Callable[[], frozenset[int]]) -> None:
        self._cluster = cluster
        self._up = up
        self._followed: set[int] = set()
        self._sees: dict[int, frozenset[int]] = {}
        self._changes = 0
        self._news = trio.Event()

    async def settled(self, nursery: trio.Nursery) -> None:
        """Wait until all that is seen fits together, and no transition is under way."""
        while not await self._is_settled(nursery):
            await self._wait()

    async def _is_settled(self, nursery: trio.Nursery) -> bool:
        await trio.lowlevel.checkpoint()
        for nodeid in self._up() - self._followed:
            self._followed.add(nodeid)
            nursery.start_soon(self._follow, self._cluster[nodeid])
        changes = self._changes
        return self._fits() and await self._gets_around() and self._fits() and changes == self._changes

    def findings(self) -> Iterator[str]:
        """Which node sees what."""
        for nodeid in sorted(self._up() | self._followed):
            sees = sorted(self._sees[nodeid]) if nodeid in self._sees else "nothing yet"
            yield f"- node {nodeid} sees {sees}, and hears {sorted(self._cluster.reachable(nodeid))}"

    async def _follow(self, node: Node) -> None:  # noqa: ASYNC910 - a task of our own
        """Keep up with one node, while it is there."""
        try:
            async with open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
                async for change in changes:
                    if isinstance(change, VotequorumNodelist):
                        self._see(node.nodeid, frozenset(change.nodes))
        except (ConnectionLostError, CorosyncUnavailableError):
            self._followed.discard(node.nodeid)
            self._see(node.nodeid, None)

    def _see(self, nodeid: int, members: frozenset[int] | None) -> None:
        self._sees.pop(nodeid, None)
        if members is not None:
            self._sees[nodeid] = members
        self._changes += 1
        self._news.set()

    def _fits(self) -> bool:
        network, up = self._cluster.network, self._up()
        sees = {nodeid: self._sees.get(nodeid) for nodeid in up}
        return all(
            members is not None
            and members <= up
            and all(sees[other] == members for other in members)
            and network.holds(members)
            # Nobody else could be in it.
            and not any(network.meet(members | (sees[other] or {other})) for other in up - members)
            for members in sees.values()
        )

    async def _gets_around(self) -> bool:
        """Whether a message gets around from every node.

        None does while totem gathers a new ring, which no node list tells of before it is there; and the services serve
        no requests in the transition that the node list begins.
        """
        up, arrived = self._up(), set[int]()
        async with trio.open_nursery() as nursery:
            for nodeid in up:
                nursery.start_soon(self._send_around, self._cluster[nodeid], arrived)
            while len(arrived) < len(up) and self._fits():
                await self._wait()
            nursery.cancel_scope.cancel()
        return len(arrived) == len(up)

    async def _send_around(self, node: Node, arrived: set[int]) -> None:  # noqa: ASYNC910 - a task of our own
        with suppress(ConnectionLostError, CorosyncUnavailableError):
            # Joins come back in agreed order.
            async with open_group(f"triocoro settled {next(_numbers)}", receive=False, endpoint=node.endpoint):
                pass
            arrived.add(node.nodeid)
            self._news.set()

    async def _wait(self) -> None:
        """Wait for news. Nobody tells of what is done to the network, or to nodes: so not for long."""
        with trio.move_on_after(_POLL):
            await self._news.wait()
            self._news = trio.Event()
