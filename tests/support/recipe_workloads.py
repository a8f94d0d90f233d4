"""Clients of recipes in a cluster with faults, and what must hold whatever happens; on the fake and on real nodes.

Each workload starts an application on each node, and on the fake now and then a second one. Their clients send, or
execute commands, or hold a lock, and are cancelled at random. Applications end, and on the fake are killed or lose
their connections; they begin again with their memory lost. A schedule of faults goes on beside that. Once all is
repaired, each member must do its work again.

A workload returns the violations that it has found. If members do not come to terms once all is repaired, that is one.
`Extent` says how much happens.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs
import trio
from recipes.bus import undecided

import triocoro
from support.machines import Map, command
from triocoro import Endpoint
from triocoro.recipes import (
    Commit,
    Delivery,
    Held,
    LeaseLostError,
    Lock,
    Missed,
    NotPrimaryError,
    Replica,
    SafeEvent,
    SafeGroup,
    UncertainError,
    open_lock,
    open_replica,
    open_safe_group,
)
from triocoro.recipes._agreement import CHUNK, IN_A_ROW, RETAIN, Agreement
from triocoro.testing import (
    Cluster,
    FakeCluster,
    FaultSchedule,
    FaultStep,
    History,
    Node,
    check_linearizable,
    models,
    random_schedule,
)
from triocoro.testing._fake.cluster import FakeNode
from triocoro.testing._fake.exec.ipc import _Disconnect

REFUSALS: Final = (NotPrimaryError, UncertainError)
VERBS: Final = ("isolate", "partition", "freeze", "kill", "stop", "restart", "cut", "lose")
REAL_VERBS: Final = ("isolate", "partition", "freeze", "kill", "stop", "restart", "cut")


class HasPrimary(Protocol):
    """A recipe's member."""

    @property
    def primary(self) -> bool:
        """Whether it is in the primary component."""
        ...


RecipeT = TypeVar("RecipeT")
Opener = Callable[[Any], AbstractAsyncContextManager[RecipeT]]
"""Opens a recipe at a node, or at another endpoint."""
Client = Callable[[RecipeT, str], Awaitable[None]]
"""Uses a recipe, until cancelled; the name of the client says which life of which application it belongs to."""


@attrs.frozen
class Extent:
    """How much happens in a run."""

    seconds: float
    """The time over which faults are spread."""
    faults: int = 10
    """The most faults and repairs, but for the repairs at the end."""
    rate: float = 15
    """The operations of each client in a second, about."""
    operations: float = float("inf")
    """The most operations of each client."""
    ends: float = 0.5
    """The applications that end in a second."""
    seconds_on_nodes: float = 1
    """The second applications on a node that begin in a second; they last as long as the pause between two."""
    retain: int = RETAIN
    """How many committed entries members keep for those that come back; with few, these need snapshots."""
    chunk: int = CHUNK
    """The bytes of a part of a snapshot."""
    in_a_row: int = IN_A_ROW
    """How many entries a member must have sent in a row to acknowledge its next one in advance."""

    @classmethod
    def short(cls, chance: random.Random, *, least: float = 0.0) -> Extent:
        """A few faults and operations: crowded together, or with time in between for timeouts.

        Args:
            chance: decides which.
            least: the least time.
        """
        seconds = max(least, chance.choice([0.05, 0.05, 0.3, 2.0]))
        often, seldom = 1.0 / seconds, 0.2 / seconds
        return cls(
            seconds,
            faults=3,
            rate=4 / seconds,
            operations=chance.choice([2, 4, 6]),
            ends=chance.choice([often, seldom]),
            seconds_on_nodes=chance.choice([often, seldom]),
            retain=chance.choice([RETAIN, 2]),
            chunk=chance.choice([CHUNK, CHUNK, 40]),
            in_a_row=chance.choice([IN_A_ROW, 1]),
        )


@attrs.frozen
class Result:
    """What came of a run."""

    violations: list[str]
    operations: int
    """Those of which a client was told that they were done."""
    undecided: list[str] = attrs.field(factory=list[str])
    """The members, if they did not come to terms because what decides was lost with a seat: that is not promised."""


def faults(cluster: Cluster, chance: random.Random, extent: Extent) -> FaultSchedule:
    """What happens to the cluster."""
    schedule = random_schedule(
        options=cluster.options,
        verbs=VERBS if isinstance(cluster, FakeCluster) else REAL_VERBS,
        steps=chance.randint(1, extent.faults),
        seconds=extent.seconds,
        minority=len(cluster.nodes) > 2 and chance.random() < 0.5,
        chance=chance,
    )
    if len(cluster.nodes) > 2 and chance.random() < 0.2:
        # Three sides, which merge in one step or in two.
        nodeids = chance.sample(sorted(cluster.nodes), len(cluster.nodes))
        first, second = sorted(chance.sample(range(1, len(nodeids)), 2))
        sides = nodeids[:first], nodeids[first:second], nodeids[second:]
        begin, end = sorted(chance.uniform(0, extent.seconds) for _ in range(2))
        merged = chance.choice([FaultStep(end, "heal"), FaultStep(end, "partition", (sides[0] + sides[1], sides[2]))])
        steps = [*schedule.steps, FaultStep(begin, "partition", sides), merged]
        schedule = FaultSchedule(sorted(steps, key=lambda step: step.at))
    return schedule


def kill(cluster: FakeCluster, pid: int) -> None:
    """End the connections of a process, as its death does: its groups are told PROCDOWN."""
    for node in cluster.nodes.values():
        daemon = node.daemon
        if daemon is not None:
            for connection in [*daemon.connections]:
                if connection.pid == pid:
                    daemon.submit(_Disconnect(daemon, connection))


@attrs.define
class World(Generic[RecipeT]):
    """Applications on the nodes of a cluster.

    Args:
        cluster: the cluster.
        chance: decides what happens when.
        opener: opens the recipe.
        client: uses it.
        is_primary: whether a member is ready.
    """

    cluster: Cluster
    chance: random.Random
    extent: Extent
    opener: Opener[RecipeT]
    client: Client[RecipeT]
    is_primary: Callable[[RecipeT], bool]
    last: Callable[[RecipeT], Awaitable[object]]
    """Called when all is repaired, for each member: uses it once more. If it is refused, it is called again."""
    is_over: Callable[[], bool] = lambda: True
    """Called after that; whether the clients have done what they must still do."""
    clients: int = 2
    reckless: bool = False
    """Whether applications end although a majority of the memory may be lost by it."""
    careless: bool = False
    """Whether applications end although others are not in the primary component."""
    present: dict[int, RecipeT] = attrs.field(factory=dict[int, RecipeT])
    _pids: dict[int, int] = attrs.field(factory=dict[int, int])
    _scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict[int, trio.CancelScope])
    _lives: Counter[int] = attrs.field(factory=Counter[int])
    over: bool = False
    """Set when all is repaired: clients need not begin anything more."""
    stalled: list[str] = attrs.field(factory=list[str])
    """The members that did not come to terms."""
    undecided: list[str] = attrs.field(factory=list[str])
    """The same, if it is so because what decides was lost with a seat."""

    def __attrs_post_init__(self) -> None:
        kind = self.chance.random()
        self.reckless, self.careless = kind < 0.1, kind < 0.4

    async def run(self, patience: float) -> None:
        """Run all, until the schedule is over and all members are in the primary component again.

        If they are not, after so many seconds, `stalled` tells.
        """
        async with trio.open_nursery() as nursery:
            for node in self.cluster.nodes.values():
                nursery.start_soon(self._live, node)
            if self.chance.random() < 0.7:  # else the faults begin before the log does
                with trio.move_on_after(patience):  # noqa: ASYNC912 - the workload's own patience
                    await self._until(self._all_primary)
            schedule = faults(self.cluster, self.chance, self.extent)
            async with self.cluster.nemesis(schedule) as over, trio.open_nursery() as troubles:
                troubles.start_soon(self._end_applications)
                if self.chance.random() < 0.2:
                    troubles.start_soon(self._change_nodes)
                if isinstance(self.cluster, FakeCluster):
                    troubles.start_soon(self._second_applications)
                await over.wait()
                troubles.cancel_scope.cancel()
            self.over = True
            if self.reckless:
                await trio.sleep(self.chance.expovariate(1 / self.extent.seconds))
            else:
                with trio.move_on_after(patience) as scope:  # noqa: ASYNC912 - the workload's own patience
                    await self._recover()
                if scope.cancelled_caught and not self._memory_is_lost():
                    told = [self._told(nodeid) for nodeid in self.cluster.nodes]
                    if undecided(agreement_of(recipe) for recipe in self.present.values()):
                        self.undecided = told
                    else:
                        self.stalled = told
            nursery.cancel_scope.cancel()

    @staticmethod
    async def _until(condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - no event tells all that
            await trio.sleep(0.05)

    async def _recover(self) -> None:
        await self._until(self._all_primary)
        for recipe in [*self.present.values()]:
            while True:
                with suppress(*REFUSALS, LeaseLostError):
                    await self.last(recipe)
                    break
                await trio.sleep(0.05)
        await self._until(lambda: self._all_primary() and self.is_over())

    def _memory_is_lost(self) -> bool:
        """Whether no majority of those that vote lives: then only an operator can help."""
        agreements = [agreement_of(recipe) for recipe in self.present.values()]
        alive = {agreement.incarnation for agreement in agreements}
        return any(
            not config.majority(alive.__contains__) for agreement in agreements for config in agreement.known_configs()
        )

    def _told(self, nodeid: int) -> str:
        """What a member does that does not come to terms."""
        if nodeid not in self.present:
            return f"STALL: node {nodeid} has no member"
        it = agreement_of(self.present[nodeid])
        told = f"STALL: node {nodeid}, {it.incarnation}, is {it.state.value}, {it.obstacle()}: {it.ballot}"
        offer = it.offers.get(it.incarnation)
        return told if offer is None else f"{told}; committed {offer.committed}, {offer.claim}"

    def name_of(self, nodeid: int) -> str:
        """The name of the present application of a node."""
        return f"{nodeid}.{self._lives[nodeid]}"

    def _all_primary(self) -> bool:
        return self.present.keys() == self.cluster.nodes.keys() and all(map(self.is_primary, self.present.values()))

    async def _pause(self) -> None:
        """Wait as long as an application is away."""
        await trio.sleep(self.chance.expovariate(min(10, self.extent.rate)))

    async def _live(self, node: Node) -> None:
        """Run one application after the other on a node."""
        if self.chance.random() < 0.1:
            await self._pause()
        while True:
            self._lives[node.nodeid] += 1
            endpoint = node.client() if isinstance(node, FakeNode) else node.endpoint
            self._pids[node.nodeid] = endpoint.pid
            with trio.CancelScope() as scope, suppress(triocoro.CorosyncError):
                self._scopes[node.nodeid] = scope
                await self._application(endpoint, self.name_of(node.nodeid), node.nodeid)
            self.present.pop(node.nodeid, None)
            await self._pause()

    async def _application(self, endpoint: Any, name: str, nodeid: int | None) -> None:
        async with self.opener(endpoint) as recipe, trio.open_nursery() as nursery:
            agreement = agreement_of(recipe)
            agreement.holding._retain, agreement._chunk = self.extent.retain, self.extent.chunk
            agreement._in_a_row = self.extent.in_a_row
            if nodeid is not None:
                self.present[nodeid] = recipe
            for number in range(self.clients):
                nursery.start_soon(self.client, recipe, f"{name}.{number}")
            await trio.sleep_forever()

    async def _second_applications(self) -> None:
        """Run second applications on nodes, one at a time, until they are cancelled or killed.

        If a majority may be without memory, there are none on the node whose application keeps it: they would begin
        anew with others that are empty, while it is away, and nothing is promised about that.
        """
        assert isinstance(self.cluster, FakeCluster)
        number = 0
        while True:
            await trio.sleep(self.chance.expovariate(self.extent.seconds_on_nodes))
            number += 1
            lost = self.careless or len(self.cluster.nodes) == 2
            nodeid = self.chance.choice(sorted(self.cluster.nodes)[lost:])
            endpoint = self.cluster[nodeid].client()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._second_application, endpoint, f"second {number}")
                await self._moment()
                if self.chance.random() < 0.5:
                    kill(self.cluster, endpoint.pid)
                nursery.cancel_scope.cancel()

    async def _second_application(self, endpoint: Endpoint, name: str) -> None:
        with suppress(triocoro.CorosyncError):
            await self._application(endpoint, name, None)

    async def _moment(self) -> None:
        """Wait as long as a second application lasts: some time, or a few checkpoints, in which it hardly begins."""
        if self.chance.random() < 0.7:
            await trio.sleep(self.chance.expovariate(self.extent.seconds_on_nodes))
        else:
            for _ in range(self.chance.randrange(40)):
                await trio.lowlevel.checkpoint()

    async def _end_applications(self) -> None:
        """End applications now and then, or on the fake their connections."""
        while True:
            await trio.sleep(self.chance.expovariate(self.extent.ends))
            # One keeps its memory: if all is lost, all begin anew, and nothing is promised about that.
            nodeid = self.chance.choice(sorted(self.cluster.nodes)[self.careless :])
            how = self.chance.choice(["cancel", "kill", "disconnect"])
            if nodeid not in self._scopes or (how != "disconnect" and not self.careless and not self._all_primary()):
                continue
            if how != "cancel" and isinstance(self.cluster, FakeCluster):
                kill(self.cluster, self._pids[nodeid])
            if how != "disconnect":
                self.present.pop(nodeid, None)
                self._scopes[nodeid].cancel()

    async def _change_nodes(self) -> None:
        """Change the electorate now and then."""
        while True:
            await trio.sleep(self.chance.expovariate(self.extent.ends))
            members = [member for _, member in sorted(self.present.items())]
            if members:
                votes = {nodeid: self.chance.choice([0, 1, 1, 1, 2]) for nodeid in self.cluster.nodes}
                nodes = {nodeid: number for nodeid, number in votes.items() if number} or [*votes]
                member: Any = self.chance.choice(members)
                with (
                    trio.move_on_after(self.chance.expovariate(self.extent.ends)),
                    suppress(*REFUSALS, trio.ClosedResourceError),  # its application may end
                ):
                    await member.change_nodes(nodes)


async def perhaps_cancelled(chance: random.Random, call: Callable[[], Awaitable[object]]) -> None:
    """Call it, and now and then cancel it: after some time, or at one of its first checkpoints. It may be refused."""

    async def called(scope: trio.CancelScope) -> None:
        with suppress(*REFUSALS):
            await call()
        scope.cancel()

    what = chance.random()
    with trio.CancelScope() as scope:  # noqa: ASYNC912 - others cancel it
        if what < 0.8:
            await called(scope)
        elif what < 0.9:
            scope.deadline = trio.current_time() + chance.expovariate(100)
            await called(scope)
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(called, nursery.cancel_scope)
                for _ in range(chance.randrange(8)):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


# -- safe groups -------------------------------------------------------------------------------------------------------


@attrs.define
class Sent:
    """A message that was sent, and what its sender was told."""

    payload: bytes
    outcome: Commit | str = "unknown"
    committed_before: int = 0
    """The greatest index of those that had been acknowledged when it was sent."""


def index_of(event: SafeEvent) -> int:
    """The index up to which a member knows the log."""
    return event.last if isinstance(event, Missed) else event.commit.index


@attrs.define
class Log:
    """What members of a safe group were told."""

    sent: list[Sent] = attrs.field(factory=list[Sent])
    received: dict[str, list[SafeEvent]] = attrs.field(factory=dict[str, list[SafeEvent]])
    acknowledged: int = 0

    def sending(self, payload: str) -> Sent:
        """Note that a message is sent."""
        self.sent.append(Sent(payload.encode(), committed_before=self.acknowledged))
        return self.sent[-1]

    def violations(self, *, all_received: bool) -> list[str]:
        """Where they contradict each other.

        Args:
            all_received: whether a member must have received all that was acknowledged.
        """
        entries: dict[int, Delivery] = {}
        found = [line for name, events in self.received.items() for line in self._merge(name, events, entries)]
        times = Counter(delivery.payload for delivery in entries.values())
        found += [f"{payload!r} is in the log {number} times" for payload, number in times.items() if number > 1]
        top = max(entries, default=0)
        for sent in self.sent:
            if isinstance(sent.outcome, Commit):
                delivery = entries.get(sent.outcome.index)
                if delivery is None and (times[sent.payload] or (all_received and sent.outcome.index > top)):
                    found.append(f"{sent} was not received, up to {top}, or elsewhere")
                elif delivery is not None and (delivery.payload, delivery.commit) != (sent.payload, sent.outcome):
                    found.append(f"{sent} is {delivery} in the log")
                if sent.outcome.index <= sent.committed_before:
                    found.append(f"{sent} is before one that was acknowledged earlier")
            elif sent.outcome == "refused" and times[sent.payload]:
                found.append(f"{sent} is in the log")
        return found

    @staticmethod
    def _merge(name: str, events: Sequence[SafeEvent], entries: dict[int, Delivery]) -> Iterator[str]:
        """Add what a member received to the log, and yield where that does not fit."""
        index = 0
        for event in events:
            first = event.first if isinstance(event, Missed) else event.commit.index
            if first != index + 1 or index_of(event) < first:
                yield f"{name} received {event} after {index}"
            index = index_of(event)
            if isinstance(event, Delivery) and entries.setdefault(index, event) != event:
                yield f"{name} received {event}, and others {entries[index]}"


async def safe_group(cluster: Cluster, chance: random.Random, extent: Extent, patience: float) -> Result:
    """Members agree on the log, a commit is for ever, and nothing comes twice."""
    log = Log()
    under_way = 0

    def all_have_received() -> bool:
        if under_way:
            return False  # it may be acknowledged while the receivers end
        lasts = [log.received[name][-1:] for name in map(world.name_of, world.present)]
        return all(last and index_of(last[0]) >= log.acknowledged for last in lasts)

    async def receive(group: SafeGroup, name: str) -> None:
        events = log.received.setdefault(name.rpartition(".")[0], [])
        async for event in group:
            events.append(event)

    async def send(group: SafeGroup, name: str) -> None:
        nonlocal under_way
        number = 0
        while number < extent.operations and not world.over:
            number += 1
            sent = log.sending(f"{name} {number}")
            under_way += 1
            try:
                await perhaps_cancelled(chance, partial(one, group, sent))
            finally:
                under_way -= 1
            await trio.sleep(chance.expovariate(extent.rate))

    async def one(group: SafeGroup, sent: Sent) -> None:
        try:
            sent.outcome = commit = await group.send(sent.payload)
            log.acknowledged = max(log.acknowledged, commit.index)
        except NotPrimaryError:
            sent.outcome = "refused"
            raise

    async def client(group: SafeGroup, name: str) -> None:
        await (receive if name.endswith(".0") else send)(group, name)

    world = World(
        cluster,
        chance,
        extent,
        lambda endpoint: open_safe_group("log", endpoint=endpoint),
        client,
        lambda group: group.primary,
        lambda group: one(group, log.sending(f"last {len(log.sent)}")),
        all_have_received,
        clients=3,
    )
    await world.run(patience)
    violations = log.violations(all_received=not (world.reckless or world.stalled or world.undecided))
    acknowledged = sum(isinstance(sent.outcome, Commit) for sent in log.sent)
    return Result(world.stalled + violations, acknowledged, world.undecided)


# -- replicas ----------------------------------------------------------------------------------------------------------


async def replica(cluster: Cluster, chance: random.Random, extent: Extent, patience: float) -> Result:
    """Its results are linearizable, and members whose state is equally far have the same."""
    history = History()
    numbers = iter(range(1, 10**9))
    paddings = [0, 0, 0, 300_000] if extent.chunk == CHUNK else [0]

    def all_are_equal() -> bool:
        first, *others = [(it.machine.count, it.machine.values) for it in world.present.values()]
        return all(other == first for other in others)

    async def client(member: Replica[Map], name: str) -> None:
        number = 0
        while number < extent.operations and not world.over:
            number += 1
            await perhaps_cancelled(chance, lambda: one(member, name))
            await trio.sleep(chance.expovariate(extent.rate))

    async def one(member: Replica[Map], name: str) -> None:
        key = chance.choice("xyz")
        value = next(numbers)
        kind = chance.random()
        client = f"{name} {value}"  # an operation may still take effect after the next one of its client began
        if kind < 0.4:
            with history.operation("get", key, client=client) as operation:
                operation.result = await member.read(lambda machine: machine.values.get(key))
        elif kind < 0.6:
            with history.operation("put", key, value, client=client) as operation:
                await member.execute(command("put", key, value))
                operation.result = None
        else:
            old = member.machine.values.get(key)
            send = member.execute if kind < 0.8 else member.ensure
            with history.operation("cas", key, old, value, client=client) as operation:
                operation.result = await send(command("cas", key, old, value)) == b"true"

    world = World(
        cluster,
        chance,
        extent,
        lambda endpoint: open_replica("store", Map(chance.choice(paddings)), endpoint=endpoint),
        client,
        lambda member: member.primary,
        lambda member: one(member, "last"),
        all_are_equal,
    )
    await world.run(patience)
    operations = history.operations()
    found = [str(violation) for violation in check_linearizable(operations, models.Map())]
    return Result(world.stalled + found, sum(operation.ended is not None for operation in operations), world.undecided)


# -- locks -------------------------------------------------------------------------------------------------------------

DELAY: Final = 2.0
"""The lock_delay."""


@attrs.define
class Register:
    """What the lock protects: it refuses tokens that are smaller than one that it has seen."""

    held: list[Held] = attrs.field(factory=list[Held])
    """All that were ever given to a block; the last one has the greatest token."""
    found: list[str] = attrs.field(factory=list[str])
    writes: int = 0

    def enter(self, held: Held, name: str) -> None:
        """A block begins."""
        if self.held and held.token <= self.held[-1].token:
            self.found.append(f"{name}: {held.token} after {self.held[-1].token}")
        self.held.append(held)

    def write(self, held: Held, name: str) -> None:
        """If `check` lets us, no other one may pass it, and the register must take our token."""
        try:
            held.check()
        except LeaseLostError:
            return
        others = [other for other in self.held if other is not held and other.remaining() > 0]
        if others:
            self.found.append(f"{name}: {held} and {others} are held at once")
        if held.token < self.held[-1].token:
            self.found.append(f"{name}: {held} is refused, as {self.held[-1]} was here")
        self.writes += 1


async def lock(cluster: Cluster, chance: random.Random, extent: Extent, patience: float) -> Result:
    """At most one client passes `check` at any time, and tokens only grow."""
    register = Register()

    def all_are_equal() -> bool:
        queues = [found._candidate.queue for found in world.present.values()]
        first, *others = [(queue.clients, queue.token, queue.renewed) for queue in queues]
        return all(other == first for other in others)

    async def client(found: Lock, name: str) -> None:
        number = 0
        while number < extent.operations / 3 and not world.over:
            number += 1
            with trio.move_on_after(chance.expovariate(1 / 10)), suppress(LeaseLostError):
                await hold(found, name, chance.randrange(20 if extent.operations > 10 else 6))
            await trio.sleep(chance.expovariate(10))

    async def hold(found: Lock, name: str, times: int) -> None:
        async with found.hold() as held:
            register.enter(held, name)
            for _ in range(times):
                register.write(held, name)
                await trio.sleep(chance.expovariate(chance.choice([1, 10, 100])))
                register.write(held, name)
                if world.over:
                    break

    world = World(
        cluster,
        chance,
        extent,
        lambda endpoint: open_lock("lock", lock_delay=DELAY, endpoint=endpoint),
        client,
        lambda found: found._candidate.member.primary,
        lambda found: hold(found, "last", 1),
        all_are_equal,
        clients=chance.choice([1, 2]) if extent.operations < 10 else 2,
    )
    await world.run(patience)
    return Result(world.stalled + register.found, len(register.held), world.undecided)


def agreement_of(recipe: Any) -> Agreement:
    """The agreement of a member: what no user can see."""
    found: Agreement = (recipe._candidate.member if isinstance(recipe, Lock) else recipe._member).agreement
    return found


Workload = Callable[[Cluster, random.Random, Extent, float], Awaitable[Result]]
"""Runs it, with the patience for recovery."""
WORKLOADS: Final[dict[str, Workload]] = {"safe_group": safe_group, "replica": replica, "lock": lock}


def names() -> Sequence[str]:
    """Of the workloads."""
    return list(WORKLOADS)
