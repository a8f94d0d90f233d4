"""Run a program on a cluster, real or fake. After each step, wait until the cluster is quiet, and observe it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any

import attrs
import trio

import triocoro
from fuzz import observe
from fuzz.agent import INPUT_ERRORS, contents, name_of
from fuzz.clients import Client, ClientDiedError, Clients, ObservedMember
from fuzz.observe import FAULTS, MARKER, SYNC_KEY
from fuzz.program import GROUPS, Program, Step, node_of
from triocoro import (
    Address,
    ExpectedVotesChange,
    Message,
    NodelistChange,
    QuorumChange,
    VotequorumChange,
    VotequorumNodelist,
)
from triocoro._types import CmapNotification
from triocoro.testing import FakeCluster, History, NetnsCluster

LIMIT = 40.0
"""Seconds in which a step must be done, and the cluster become quiet."""
VOTES = {"set_votes", "set_expected"}
NOTHING = "nothing"
"""The result of a step that does not apply when it is run."""
DIED = "died"
"""The result of a send whose client is killed meanwhile."""
FAULT_RESULTS = {DIED, NOTHING, "ClosedResourceError", "ConnectionLostError LIBRARY"}
"""The results that a send may have in a storm with a fault."""


class NotQuietError(Exception):
    """The cluster did not get into the state that the steps so far determine. The message says what is missing."""


@attrs.frozen
class Outcome:
    """What a program did on a cluster."""

    observations: list[dict[str, Any]]
    """One for each step."""
    history: History
    error: str = ""
    """Why the program was given up; empty if it ran to its end."""


async def run(program: Program, cluster: FakeCluster | NetnsCluster) -> Outcome:
    """Run a program on a new cluster."""
    async with trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        driver = _Driver(cluster, clients)
        error = ""
        try:
            await driver.run(program)
        except (NotQuietError, trio.TooSlowError) as problem:
            error = str(problem)
        await clients.kill_all()
        nursery.cancel_scope.cancel()
    return Outcome(driver.observations, History.merge([driver.history, *clients.histories()]), error)


class _Driver:
    def __init__(self, cluster: FakeCluster | NetnsCluster, clients: Clients) -> None:
        self._cluster = cluster
        self._clients = clients
        self.history = History(clock=clients.clock)
        self.observations: list[dict[str, Any]] = []
        self._markers = 0
        # The messages of storms with a fault. A frozen node may send its own much later.
        self._undetermined: set[int] = set()
        self._admins = {
            nodeid: self.history.endpoint(cluster[nodeid], client=f"admin{nodeid}") for nodeid in cluster.nodes
        }

    async def run(self, program: Program) -> None:
        """Run all steps; after each, wait until the cluster is quiet, and observe it."""
        for number, step in enumerate(program.steps):
            with _time_limit(number, step, "it takes"):
                result = await self._do(step)
            if result == NOTHING:
                self.observations.append({"result": NOTHING})
                continue
            await self._wait_until_quiet(number, step, result)
            with _time_limit(number, step, "observing takes"):
                self.observations.append({"result": result, **await self._observe(step, result)})
        for client in self._clients:
            for service in client.tracked if self._usable(client.node) else ():
                await client.do("untrack", service=service)

    # -- steps: each method returns its result -------------------------------------------------------------------------

    async def _do(self, step: Step) -> Any:
        arguments = dict(step)
        verb = arguments.pop("do")
        if verb in FAULTS:
            return await self._fault(verb, arguments)
        return await getattr(self, f"_do_{verb}")(**arguments)

    def _usable(self, node: int) -> bool:
        return bool(self._cluster.reachable(node))

    def _member(self, name: str, group: str) -> ObservedMember | None:
        client = self._clients.get(name)
        if client is None or not self._usable(client.node):
            return None
        return client.members.get(group)

    async def _do_join(self, client: str, group: str, api: str) -> Any:
        if not self._usable(node_of(client)) or self._member(client, group) is not None:
            return NOTHING
        process = await self._clients.get_or_start(client)
        process.members[group] = ObservedMember(process, group)
        result = await process.do("join", group=group, api=api)
        if result is not None:
            del process.members[group]
        return result

    async def _do_send(self, client: str, group: str, payloads: list[list[int]]) -> Any:
        member = self._member(client, group)
        if member is None:
            return NOTHING
        sending = (self._clients.clock(), group, [contents(number, size) for number, size in payloads])
        member.client.sending.append(sending)
        try:
            result = await member.client.do("send", group=group, payloads=payloads)
        except ClientDiedError:
            if self._clients.get(client) is not None:
                raise
            return DIED
        member.client.sending.remove(sending)
        return result

    async def _do_storm(self, sends: list[Step], during: Step | None) -> Any:
        results: list[Any] = [NOTHING for _ in sends]
        result: Any = None

        async def one(index: int, send: Step) -> None:
            results[index] = await self._do_send(**send)

        async with trio.open_nursery() as nursery:
            for index, send in enumerate(sends):
                nursery.start_soon(one, index, send)
            if during is not None:
                self._undetermined.update(number for send in sends for number, _ in send["payloads"])
                await self._wait_for_first_message(sends)
                result = await self._do(during)
        if during is None:
            return results
        # Which of the sends the fault stopped is not determined.
        return {"during": result, "errors": sorted({it for it in results if it is not None} - FAULT_RESULTS)}

    async def _wait_for_first_message(self, sends: list[Step]) -> None:
        """Wait until one of the senders has received a message, or for 0.2 seconds."""
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:

                async def wait(member: ObservedMember) -> None:
                    await self._wait_for(member.client, lambda: any(isinstance(e, Message) for e in member.events))
                    nursery.cancel_scope.cancel()

                for send in sends:
                    member = self._member(send["client"], send["group"])
                    if member is not None:
                        nursery.start_soon(wait, member)

    async def _do_leave(self, client: str, group: str, *, leave_first: bool = True) -> Any:
        member = self._member(client, group)
        if member is None:
            return NOTHING
        result = await member.client.do("leave", group=group, leave_first=leave_first)
        del member.client.members[group]
        return result

    async def _do_drop(self, client: str, group: str) -> Any:
        return await self._do_leave(client, group, leave_first=False)

    async def _do_die(self, client: str) -> Any:
        if self._clients.get(client) is None:
            return NOTHING
        await self._clients.kill(client)
        return None

    async def _do_track(self, client: str, service: str) -> Any:
        if not self._usable(node_of(client)):
            return NOTHING
        process = await self._clients.get_or_start(client)
        if service in process.tracked:
            return NOTHING
        process.tracked[service] = []
        return await process.do("track", service=service)

    async def _do_untrack(self, client: str, service: str) -> Any:
        process = self._clients.get(client)
        if process is None or not self._usable(process.node) or service not in process.tracked:
            return NOTHING
        result = await process.do("untrack", service=service)
        del process.tracked[service]
        return result

    async def _do_mistake(self, client: str) -> Any:
        if not self._usable(node_of(client)):
            return NOTHING
        return await (await self._clients.get_or_start(client)).do("mistake")

    async def _fault(self, verb: str, arguments: dict[str, Any]) -> Any:
        node = arguments.get("node")
        if verb == "partition":
            await self._cluster.partition(*arguments["sides"])
        elif verb == "isolate":
            await self._cluster.isolate(arguments["node"])
        elif verb == "heal":
            await self._cluster.heal()
        elif verb == "freeze" and not self._usable(arguments["node"]):
            return NOTHING
        else:
            await getattr(self._cluster[arguments["node"]], verb)()
        self.history.fault(verb, **arguments)
        if verb in {"stop", "kill", "restart"}:
            for client in self._clients:
                if client.node == node:
                    for group in list(client.members):
                        await client.do("lose", group=group)
                        del client.members[group]
                    for service in list(client.tracked):
                        await client.do("lose_track", service=service)
                        del client.tracked[service]
        return None

    async def _call(
        self,
        node: int,
        open_service: Callable[..., AbstractAsyncContextManager[Any]],
        call: Callable[[Any], Awaitable[object]],
    ) -> Any:
        if not self._usable(node):
            return NOTHING
        try:
            async with open_service(endpoint=self._admins[node]) as service:
                await call(service)
        except INPUT_ERRORS as error:
            return name_of(error)
        return None

    async def _do_set_votes(self, node: int, target: int, votes: int) -> Any:
        return await self._call(node, triocoro.open_votequorum, lambda votequorum: votequorum.set_votes(target, votes))

    async def _do_set_expected(self, node: int, votes: int) -> Any:
        return await self._call(node, triocoro.open_votequorum, lambda votequorum: votequorum.set_expected(votes))

    async def _do_set_key(self, node: int, key: str, value: str | float, type: str | None = None) -> Any:  # noqa: A002 - as in the step
        as_type = None if type is None else triocoro.CmapType[type]
        return await self._call(node, triocoro.open_cmap, lambda cmap: cmap.set(key, value, as_type))

    async def _do_count_key(self, node: int, key: str, *, up: bool) -> Any:
        return await self._call(
            node, triocoro.open_cmap, lambda cmap: cmap.increment(key) if up else cmap.decrement(key)
        )

    async def _do_delete_key(self, node: int, key: str) -> Any:
        return await self._call(node, triocoro.open_cmap, lambda cmap: cmap.delete(key))

    # -- waiting until the cluster is quiet ----------------------------------------------------------------------------

    async def _wait_until_quiet(self, number: int, step: Step, result: Any) -> None:
        """Wait until every client has seen everything that the steps so far cause."""
        if step["do"] in FAULTS | VOTES | {"storm"}:
            await self._cluster.settled()
        self._markers += 1
        members = [
            member for client in self._clients if self._usable(client.node) for member in client.members.values()
        ]
        with trio.move_on_after(LIMIT) as limit:
            await trio.lowlevel.checkpoint()
            # The nodes first: a group that the last member has left has no member to wait for.
            for nodeid in filter(self._usable, sorted(self._cluster.nodes)):
                await self._wait_for_groups(nodeid)
            for member in members:
                await self._wait_for(member.client, partial(self._has_expected_view, member))
            marker = MARKER + str(self._markers).encode()
            for member in members:
                await member.client.do("mark", group=member.group, marker=marker.decode())
            for member in members:
                await self._wait_for(member.client, partial(_has_markers, member, marker))
            for client in self._clients:
                if self._usable(client.node) and client.tracked:
                    await self._wait_for_trackers(client, votes_announced=self._announces_votes(client, step, result))
        if limit.cancelled_caught:
            views = "".join(
                f"\n- {member.client.name} in {member.group}: members {self._view(member)},"
                f" wanted {self._expected_view(member)}"
                for member in members
            )
            trackers = "".join(
                f"\n- {client.name} tracks {client.tracked}" for client in self._clients if client.tracked
            )
            raise NotQuietError(f"step {number}, {dict(step)}: not quiet after {LIMIT:g} seconds:{views}{trackers}")

    async def _wait_for(self, client: Client, condition: Callable[[], bool]) -> None:
        while not condition():
            await client.progress.wait()

    async def _wait_for_groups(self, nodeid: int) -> None:
        """Wait until a node knows the members of all groups."""
        async with triocoro.open_cpg(endpoint=self._admins[nodeid]) as cpg:
            while await observe.groups_of(cpg, self._name) != [  # noqa: ASYNC110 - Corosync announces no changes of other groups
                [group, name] for group in GROUPS for name in self._expected_members(nodeid, group)
            ]:
                await trio.sleep(0.01)

    def _announces_votes(self, client: Client, step: Step, result: Any) -> bool:
        """Whether a step has the expected votes announced to trackers on the client's node."""
        return step["do"] == "set_expected" and result is None and step["node"] in self._cluster.reachable(client.node)

    async def _wait_for_trackers(self, client: Client, *, votes_announced: bool) -> None:
        """Wait until the trackers of a client are up to date."""
        if "cmap" in client.tracked:
            async with triocoro.open_cmap(endpoint=self._admins[client.node]) as cmap:
                await cmap.set(SYNC_KEY, self._markers)
            notifications = client.tracked["cmap"]
            await self._wait_for(client, lambda: any(_is_sync(event, self._markers) for event in notifications))
        nodes = self._cluster.reachable(client.node)
        async with triocoro.open_quorum(endpoint=self._admins[client.node]) as quorum:
            quorate = await quorum.is_quorate()
        if "quorum" in client.tracked:
            changes = client.tracked["quorum"]
            await self._wait_for(
                client,
                lambda: (
                    (last := observe.last(changes, QuorumChange)) is not None
                    and last.quorate == quorate
                    and frozenset(last.members) == nodes
                    and (ring := observe.last(changes, NodelistChange)) is not None
                    and frozenset(ring.members) == nodes
                ),
            )
        if "votequorum" in client.tracked:
            changes = client.tracked["votequorum"]
            await self._wait_for(
                client,
                lambda: (
                    (last := observe.last(changes, VotequorumChange)) is not None
                    and last.quorate == quorate
                    and (ring := observe.last(changes, VotequorumNodelist)) is not None
                    and frozenset(ring.nodes) == nodes
                    and (not votes_announced or observe.last(changes, ExpectedVotesChange) is not None)
                ),
            )

    def _name(self, address: Address) -> str:
        return self._clients.names.get(address, str(address))

    def _view(self, member: ObservedMember) -> list[str]:
        # A list, not a set: a process has the name of the dead one that it replaced, and both may be in the view.
        return sorted(self._name(address) for address in member.view)

    def _has_expected_view(self, member: ObservedMember) -> bool:
        return self._view(member) == self._expected_view(member)

    def _expected_view(self, member: ObservedMember) -> list[str]:
        return self._expected_members(member.client.node, member.group)

    def _expected_members(self, nodeid: int, group: str) -> list[str]:
        """The members that a group should have, as seen from a node."""
        reachable = self._cluster.reachable(nodeid)
        return sorted(client.name for client in self._clients if client.node in reachable and group in client.members)

    # -- observing -----------------------------------------------------------------------------------------------------

    async def _observe(self, step: Step, result: Any) -> dict[str, Any]:
        observation: dict[str, Any] = {"rings": self._rings()}
        for client in self._clients:
            if not self._usable(client.node):
                continue
            for group, member in sorted(client.members.items()):
                events, member.events = member.events, []
                determined = [event for event in events if not self._is_undetermined(event)]
                observation[f"{client.name} in {group}"] = observe.member(
                    member, determined, step, self._view(member), self._name
                )
            for service, events in client.tracked.items():
                votes_announced = self._announces_votes(client, step, result)
                observation[f"{client.name} tracks {service}"] = observe.tracker(
                    service, events, votes_announced=votes_announced
                )
        for nodeid in sorted(self._cluster.nodes):
            if self._usable(nodeid):
                observation[f"node {nodeid}"] = await observe.node(
                    self._admins[nodeid], self._cluster.nodes, self._name
                )
        return observation

    def _is_undetermined(self, event: object) -> bool:
        return isinstance(event, Message) and observe.number_of(event) in self._undetermined

    def _rings(self) -> list[list[int]]:
        reachable = {self._cluster.reachable(nodeid) for nodeid in self._cluster.nodes}
        return sorted(sorted(nodes) for nodes in reachable if nodes)


@contextmanager
def _time_limit(number: int, step: Step, what: str) -> Generator[None, None, None]:
    with trio.move_on_after(LIMIT) as limit:
        yield
    if limit.cancelled_caught:
        raise NotQuietError(f"step {number}, {dict(step)}: {what} more than {LIMIT:g} seconds")


def _has_markers(member: ObservedMember, marker: bytes) -> bool:
    senders = {event.sender for event in member.events if isinstance(event, Message) and event.payload == marker}
    return senders.issuperset(member.view)


def _is_sync(notification: CmapNotification, marker: int) -> bool:
    return (notification.change.key, notification.change.new) == (SYNC_KEY, marker)
