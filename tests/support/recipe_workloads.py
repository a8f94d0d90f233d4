"""Clients of recipes in a cluster with faults, and what must hold whatever happens; on the fake and on real nodes.

Each workload starts an application on each node, and on the fake now and then a second one. Their clients send, or
execute commands, or hold a lock, and are cancelled at random. Applications end and begin again, with their memory lost.
A schedule of faults goes on beside that.

A workload returns the violations that it has found. If members do not come to terms once all is repaired, that is one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs
import trio

import triocoro
from support.machines import Map, command
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
from triocoro.recipes._agreement import Agreement
from triocoro.testing import (
    Cluster,
    FakeCluster,
    FaultSchedule,
    History,
    Node,
    check_linearizable,
    models,
    random_schedule,
)

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


def faults(cluster: Cluster, chance: random.Random, seconds: float) -> FaultSchedule:
    """What happens to the cluster."""
    return random_schedule(
        options=cluster.options,
        verbs=VERBS if isinstance(cluster, FakeCluster) else REAL_VERBS,
        steps=chance.randint(1, 10),
        seconds=seconds,
        minority=chance.random() < 0.5,
        chance=chance,
    )


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
    opener: Opener[RecipeT]
    client: Client[RecipeT]
    is_primary: Callable[[RecipeT], bool]
    is_over: Callable[[], bool] = lambda: True
    """Called when all is repaired and all members are ready; whether the clients have done what they must still do."""
    clients: int = 2
    restarts: float = 0.5
    """How many applications end in a second."""
    reckless: bool = False
    """Whether applications end although a majority of the memory may be lost by it."""
    present: dict[int, RecipeT] = attrs.field(factory=dict[int, RecipeT])
    _scopes: dict[int, trio.CancelScope] = attrs.field(factory=dict[int, trio.CancelScope])
    _lives: Counter[int] = attrs.field(factory=Counter[int])
    stalled: list[str] = attrs.field(factory=list[str])
    """The members that did not come to terms."""

    async def run(self, schedule: FaultSchedule, patience: float) -> None:
        """Run all, until the schedule is over and all members are in the primary component again.

        If they are not, after so many seconds, `stalled` tells.
        """
        async with trio.open_nursery() as nursery:
            for node in self.cluster.nodes.values():
                nursery.start_soon(self._live, node)
            async with trio.open_nursery() as troubles, self.cluster.nemesis(schedule) as over:
                troubles.start_soon(self._end_applications)
                if isinstance(self.cluster, FakeCluster):
                    troubles.start_soon(self._second_applications)
                await over.wait()
                troubles.cancel_scope.cancel()
            if not self.reckless:
                with trio.move_on_after(patience) as scope:  # noqa: ASYNC912 - the workload's own patience
                    while not (self._all_primary() and self.is_over()):  # noqa: ASYNC110 - no event tells all that
                        await trio.sleep(0.05)
                if scope.cancelled_caught and not self._memory_is_lost():
                    self.stalled = [f"STALL: {recipe!r}" for recipe in self.present.values()]
            nursery.cancel_scope.cancel()

    def _memory_is_lost(self) -> bool:
        """Whether no majority of those that vote lives: then only an operator can help."""
        agreements = [agreement_of(recipe) for recipe in self.present.values()]
        alive = {agreement.incarnation for agreement in agreements}
        return any(
            not config.majority(alive.__contains__) for agreement in agreements for config in agreement.known_configs()
        )

    def name_of(self, nodeid: int) -> str:
        """The name of the present application of a node."""
        return f"{nodeid}.{self._lives[nodeid]}"

    def _all_primary(self) -> bool:
        return self.present.keys() == self.cluster.nodes.keys() and all(map(self.is_primary, self.present.values()))

    async def _live(self, node: Node) -> None:
        """Run one application after the other on a node."""
        while True:
            self._lives[node.nodeid] += 1
            with trio.CancelScope() as scope, suppress(triocoro.CorosyncError):
                self._scopes[node.nodeid] = scope
                await self._application(node, self.name_of(node.nodeid), node.nodeid)
            self.present.pop(node.nodeid, None)
            await trio.sleep(self.chance.expovariate(10))

    async def _application(self, endpoint: Any, name: str, nodeid: int | None) -> None:
        async with self.opener(endpoint) as recipe, trio.open_nursery() as nursery:
            if nodeid is not None:
                self.present[nodeid] = recipe
            for number in range(self.clients):
                nursery.start_soon(self.client, recipe, f"{name}.{number}")
            await trio.sleep_forever()

    async def _second_applications(self) -> None:
        assert isinstance(self.cluster, FakeCluster)
        number = 0
        while True:
            await trio.sleep(self.chance.expovariate(1))
            number += 1
            node = self.cluster[self.chance.choice(sorted(self.cluster.nodes))]
            with trio.move_on_after(self.chance.expovariate(1)), suppress(triocoro.CorosyncError):
                await self._application(node.client(), f"second {number}", None)

    async def _end_applications(self) -> None:
        while True:
            await trio.sleep(self.chance.expovariate(self.restarts))
            # One keeps its memory: if all is lost, all begin anew, and nothing is promised about that.
            nodeid = self.chance.choice(sorted(self.cluster.nodes)[self.reckless :])
            if self.reckless or self._all_primary():
                self.present.pop(nodeid, None)
                self._scopes[nodeid].cancel()


async def perhaps_cancelled(chance: random.Random, call: Callable[[], Awaitable[object]]) -> None:
    """Call it, and now and then cancel it: after some time, or at one of its first checkpoints."""
    what = chance.random()
    if what < 0.8:
        await call()
    elif what < 0.9:
        with trio.move_on_after(chance.expovariate(100)):
            await call()
    else:
        with trio.CancelScope() as scope:  # noqa: ASYNC912 - others cancel it
            async with trio.open_nursery() as nursery:

                async def called() -> None:
                    await call()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(called)
                for _ in range(chance.randrange(5)):
                    await trio.lowlevel.checkpoint()
                scope.cancel()


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


async def safe_group(  # noqa: C901 - its clients are functions in it
    cluster: Cluster, chance: random.Random, seconds: float, patience: float
) -> list[str]:
    """Members agree on the log, a commit is for ever, and nothing comes twice."""
    log = Log()
    over = False
    under_way = 0

    def is_over() -> bool:
        """Stop sending, and see whether all have received all that was sent."""
        nonlocal over
        over = True
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
        while True:
            number += 1
            sent = Sent(f"{name} {number}".encode(), committed_before=log.acknowledged)
            log.sent.append(sent)
            under_way += 1
            try:
                await perhaps_cancelled(chance, lambda sent=sent: one(group, sent))  # type: ignore[misc]
            finally:
                under_way -= 1
            await trio.sleep(chance.expovariate(15))
            if over:
                return

    async def one(group: SafeGroup, sent: Sent) -> None:
        try:
            sent.outcome = commit = await group.send(sent.payload)
            log.acknowledged = max(log.acknowledged, commit.index)
        except NotPrimaryError:
            sent.outcome = "refused"
        except UncertainError:
            pass

    async def client(group: SafeGroup, name: str) -> None:
        await (receive if name.endswith(".0") else send)(group, name)

    world = World(
        cluster,
        chance,
        lambda endpoint: open_safe_group("log", endpoint=endpoint),
        client,
        lambda group: group.primary,
        is_over,
        clients=3,
        reckless=chance.random() < 0.1,
    )
    await world.run(faults(cluster, chance, seconds), patience)
    return world.stalled + log.violations(all_received=not world.reckless and not world.stalled)


# -- replicas ----------------------------------------------------------------------------------------------------------


async def replica(cluster: Cluster, chance: random.Random, seconds: float, patience: float) -> list[str]:
    """Its results are linearizable, and members whose state is equally far have the same."""
    history = History()
    numbers = iter(range(1, 10**9))

    async def client(member: Replica[Map], name: str) -> None:
        while True:
            await perhaps_cancelled(chance, lambda: one(member, name))
            await trio.sleep(chance.expovariate(15))

    async def one(member: Replica[Map], name: str) -> None:
        key = chance.choice("xyz")
        value = next(numbers)
        kind = chance.random()
        client = f"{name} {value}"  # an operation may still take effect after the next one of its client began
        with suppress(*REFUSALS):
            if kind < 0.4:
                with history.operation("get", key, client=client) as operation:
                    operation.result = await member.read(lambda machine: machine.values.get(key))
            elif kind < 0.6:
                with history.operation("put", key, value, client=client) as operation:
                    await member.execute(command("put", key, value))
                    operation.result = None
            elif kind < 0.8:
                old = member.machine.values.get(key)
                with history.operation("cas", key, old, value, client=client) as operation:
                    operation.result = await member.execute(command("cas", key, old, value)) == b"true"
            else:
                old = member.machine.values.get(key)
                with history.operation("cas", key, old, value, client=client) as operation:
                    operation.result = await member.ensure(command("cas", key, old, value)) == b"true"

    world = World(
        cluster,
        chance,
        lambda endpoint: open_replica("store", Map(chance.choice([0, 0, 0, 300_000])), endpoint=endpoint),
        client,
        lambda member: member.primary,
        clients=2,
        reckless=chance.random() < 0.1,
    )
    await world.run(faults(cluster, chance, seconds), patience)
    return world.stalled + [str(violation) for violation in check_linearizable(history.operations(), models.Map())]


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


async def lock(cluster: Cluster, chance: random.Random, seconds: float, patience: float) -> list[str]:
    """At most one client passes `check` at any time, and tokens only grow."""
    register = Register()

    async def client(found: Lock, name: str) -> None:
        while True:
            with trio.move_on_after(chance.expovariate(1 / 10)), suppress(LeaseLostError):
                async with found.hold() as held:
                    register.enter(held, name)
                    for _ in range(chance.randrange(20)):
                        register.write(held, name)
                        await trio.sleep(chance.expovariate(chance.choice([1, 10, 100])))
                        register.write(held, name)
            await trio.sleep(chance.expovariate(10))

    world = World(
        cluster,
        chance,
        lambda endpoint: open_lock("lock", lock_delay=DELAY, endpoint=endpoint),
        client,
        lambda found: found._candidate.member.primary,
        restarts=0.3,
        reckless=chance.random() < 0.1,
    )
    await world.run(faults(cluster, chance, seconds), patience)
    return world.stalled + register.found


def agreement_of(recipe: Any) -> Agreement:
    """The agreement of a member: what no user can see."""
    found: Agreement = (recipe._candidate.member if isinstance(recipe, Lock) else recipe._member).agreement
    return found


Workload = Callable[[Cluster, random.Random, float, float], Awaitable[list[str]]]
WORKLOADS: Final[dict[str, Workload]] = {"safe_group": safe_group, "replica": replica, "lock": lock}


def names() -> Sequence[str]:
    """Of the workloads."""
    return list(WORKLOADS)
