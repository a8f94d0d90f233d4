"""Runs a program on a cluster, real or fake, and writes down what is to be seen each time that all is quiet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import trio

import triocoro
from fuzz.agent import EXPECTED, TRACKED_KEYS, contents, name_of
from fuzz.clients import Client, ClientDiedError, Clients, Membership
from fuzz.program import GROUPS, Program, Step, node_of
from triocoro import (
    Address,
    ConfigChange,
    ExpectedVotesChange,
    Message,
    NodelistChange,
    QuorumChange,
    VotequorumChange,
    VotequorumNodelist,
)
from triocoro.testing import FakeCluster, History, NetnsCluster

MARKER = b"marker:"
"""Begins the payloads that show that all is quiet."""
SYNC_KEY = f"{TRACKED_KEYS}sync"
"""Set to show that all earlier changes of keys have been told of."""
LIMIT = 40.0
"""Seconds in which it must become so."""
FAULTS = {"partition", "isolate", "heal", "stop", "kill", "start", "restart", "freeze", "thaw"}
VOTES = {"set_votes", "set_expected"}
NOTHING = "nothing"
"""What comes of a step that makes no sense where it comes."""


class NotQuietError(Exception):
    """The cluster did not become what the steps so far allow; the message says who misses what."""


@attrs.frozen
class Outcome:
    """What has come of a program."""

    observations: list[dict[str, Any]]
    """One for each step."""
    history: History
    error: str = ""
    """Why it did not come to its end."""


async def run(program: Program, cluster: FakeCluster | NetnsCluster) -> Outcome:
    """Run a program on a cluster that is new."""
    async with trio.open_nursery() as nursery:
        clients = Clients(cluster, nursery)
        driver = _Driver(cluster, clients)
        error = ""
        try:
            await driver.run(program)
        except (NotQuietError, trio.TooSlowError) as problem:
            error = str(problem)
        await clients.end()
        nursery.cancel_scope.cancel()
    return Outcome(driver.seen, History.merge([driver.history, *clients.histories()]), error)


class _Driver:
    def __init__(self, cluster: FakeCluster | NetnsCluster, clients: Clients) -> None:
        self._cluster = cluster
        self._clients = clients
        self.history = History(clock=clients.clock)
        self.seen: list[dict[str, Any]] = []
        self._marks = 0
        self._admins = {
            nodeid: self.history.endpoint(cluster[nodeid], client=f"admin{nodeid}") for nodeid in cluster.nodes
        }

    async def run(self, program: Program) -> None:
        """All steps; after each, wait until all is quiet, and look."""
        for number, step in enumerate(program.steps):
            with _limit(number, step, "it takes"):
                result = await self._do(step)
            if result == NOTHING:
                self.seen.append({"result": NOTHING})
                continue
            await self._quiet(number, step, result)
            with _limit(number, step, "to look takes"):
                self.seen.append({"result": result, **await self._look(step, result)})

    # -- steps: each returns what came of it ---------------------------------------------------------------------------

    async def _do(self, step: Step) -> Any:
        arguments = dict(step)
        verb = arguments.pop("do")
        if verb in FAULTS:
            return await self._fault(verb, arguments)
        return await getattr(self, f"_do_{verb}")(**arguments)

    def _usable(self, node: int) -> bool:
        return bool(self._cluster.reachable(node))

    def _member(self, name: str, group: str) -> Membership | None:
        client = self._clients.get(name)
        if client is None or not self._usable(client.node):
            return None
        return client.memberships.get(group)

    async def _do_join(self, client: str, group: str, way: str) -> Any:
        if not self._usable(node_of(client)) or self._member(client, group) is not None:
            return NOTHING
        process = await self._clients.called(client)
        process.memberships[group] = Membership(process, group)
        result = await process.do("join", group=group, way=way)
        if result is not None:
            del process.memberships[group]
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
            return "died"
        member.client.sending.remove(sending)
        return result

    async def _do_storm(self, sends: list[dict[str, Any]], during: Step | None) -> Any:
        results: list[Any] = [NOTHING for _ in sends]

        async def one(index: int, send: dict[str, Any]) -> None:
            results[index] = await self._do_send(**send)

        async with trio.open_nursery() as nursery:
            for index, send in enumerate(sends):
                nursery.start_soon(one, index, send)
            if during is not None:
                await self._begun(sends)
                await self._do(during)
        return results if during is None else None

    async def _begun(self, sends: list[dict[str, Any]]) -> None:
        """Wait until one of the senders has got a message, for as long as that may take."""
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as nursery:

                async def wait(member: Membership) -> None:
                    await self._until(member.client, lambda: any(isinstance(e, Message) for e in member.events))
                    nursery.cancel_scope.cancel()

                for send in sends:
                    member = self._member(send["client"], send["group"])
                    if member is not None:
                        nursery.start_soon(wait, member)

    async def _do_leave(self, client: str, group: str, *, leaves: bool = True) -> Any:
        member = self._member(client, group)
        if member is None:
            return NOTHING
        result = await member.client.do("leave", group=group, leaves=leaves)
        del member.client.memberships[group]
        return result

    async def _do_drop(self, client: str, group: str) -> Any:
        return await self._do_leave(client, group, leaves=False)

    async def _do_die(self, client: str) -> Any:
        if self._clients.get(client) is None:
            return NOTHING
        await self._clients.die(client)
        return None

    async def _do_track(self, client: str, service: str) -> Any:
        if not self._usable(node_of(client)):
            return NOTHING
        process = await self._clients.called(client)
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
        return await (await self._clients.called(client)).do("mistake")

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
                    for group in list(client.memberships):
                        await client.do("lose", group=group)
                        del client.memberships[group]
                    client.tracked.clear()
        return None

    async def _ask(self, node: int, question: Callable[[], Awaitable[None]]) -> Any:
        if not self._usable(node):
            return NOTHING
        try:
            await question()
        except EXPECTED as error:
            return name_of(error)
        return None

    async def _do_set_votes(self, node: int, of: int, votes: int) -> Any:
        async def ask() -> None:
            async with triocoro.open_votequorum(endpoint=self._admins[node]) as votequorum:
                await votequorum.set_votes(of, votes)

        return await self._ask(node, ask)

    async def _do_set_expected(self, node: int, votes: int) -> Any:
        async def ask() -> None:
            async with triocoro.open_votequorum(endpoint=self._admins[node]) as votequorum:
                await votequorum.set_expected(votes)

        return await self._ask(node, ask)

    async def _do_set_key(self, node: int, key: str, value: str | float) -> Any:
        async def ask() -> None:
            async with triocoro.open_cmap(endpoint=self._admins[node]) as cmap:
                await cmap.set(key, value)

        return await self._ask(node, ask)

    async def _do_count_key(self, node: int, key: str, *, up: bool) -> Any:
        async def ask() -> None:
            async with triocoro.open_cmap(endpoint=self._admins[node]) as cmap:
                await (cmap.increment if up else cmap.decrement)(key)

        return await self._ask(node, ask)

    async def _do_delete_key(self, node: int, key: str) -> Any:
        async def ask() -> None:
            async with triocoro.open_cmap(endpoint=self._admins[node]) as cmap:
                await cmap.delete(key)

        return await self._ask(node, ask)

    # -- when all is quiet ---------------------------------------------------------------------------------------------

    async def _quiet(self, number: int, step: Step, result: Any) -> None:
        """Wait until every client has seen all that the steps so far can bring about."""
        if step["do"] in FAULTS | VOTES | {"storm"}:
            await self._cluster.settled()
        self._marks += 1
        members = [
            membership
            for client in self._clients
            if self._usable(client.node)
            for membership in client.memberships.values()
        ]
        with trio.move_on_after(LIMIT) as limit:
            await trio.lowlevel.checkpoint()
            # Of a group that the last member has left, only the nodes can tell.
            for nodeid in filter(self._usable, sorted(self._cluster.nodes)):
                await self._until_known(nodeid)
            for member in members:
                await self._until(member.client, partial(self._sees_its_peers, member))
            marker = MARKER + str(self._marks).encode()
            for member in members:
                await member.client.do("mark", group=member.group, marker=marker.decode())
            for member in members:
                await self._until(member.client, partial(_has_marks, member, marker))
            for client in self._clients:
                if self._usable(client.node) and client.tracked:
                    await self._until_told(client, told_of_votes=self._tells_of_votes(client, step, result))
        if limit.cancelled_caught:
            findings = "".join(
                f"\n- {member.client.name} in {member.group}: members {self._view(member)},"
                f" wanted {self._peers(member)}"
                for member in members
            )
            told = "".join(f"\n- {client.name} tracks {client.tracked}" for client in self._clients if client.tracked)
            raise NotQuietError(f"step {number}, {dict(step)}: not quiet after {LIMIT:g} seconds:{findings}{told}")

    async def _until(self, client: Client, condition: Callable[[], bool]) -> None:
        while not condition():
            await client.news.wait()

    async def _until_known(self, nodeid: int) -> None:
        """Wait until a node knows who is in the groups."""
        async with triocoro.open_cpg(endpoint=self._admins[nodeid]) as cpg:
            while await self._groups(cpg) != [  # noqa: ASYNC110 - nobody tells of it
                [group, name] for group in GROUPS for name in self._members_for(nodeid, group)
            ]:
                await trio.sleep(0.01)

    async def _groups(self, cpg: triocoro.Cpg) -> list[list[str]]:
        # Whoever waits for the cluster to settle has a group, too.
        return sorted(
            [group, self._name(member.address)]
            for member in await cpg.groups()
            if member.address is not None and (group := member.group.decode()) in GROUPS
        )

    def _tells_of_votes(self, client: Client, step: Step, result: Any) -> bool:
        """Whether a step has each tracker on the client's node told of expected votes."""
        return step["do"] == "set_expected" and result is None and step["node"] in self._cluster.reachable(client.node)

    async def _until_told(self, client: Client, *, told_of_votes: bool) -> None:
        """Wait until the trackers of a client are up to date."""
        if "cmap" in client.tracked:
            async with triocoro.open_cmap(endpoint=self._admins[client.node]) as cmap:
                await cmap.set(SYNC_KEY, self._marks)
            told = client.tracked["cmap"]
            await self._until(client, lambda: any(_is_sync(change, self._marks) for change in told))
        nodes = self._cluster.reachable(client.node)
        async with triocoro.open_quorum(endpoint=self._admins[client.node]) as quorum:
            quorate = await quorum.is_quorate()
        if "quorum" in client.tracked:
            changes = client.tracked["quorum"]
            await self._until(
                client,
                lambda: (
                    (last := _last(changes, QuorumChange)) is not None
                    and last.quorate == quorate
                    and frozenset(last.members) == nodes
                    and (ring := _last(changes, NodelistChange)) is not None
                    and frozenset(ring.members) == nodes
                ),
            )
        if "votequorum" in client.tracked:
            changes = client.tracked["votequorum"]
            await self._until(
                client,
                lambda: (
                    (last := _last(changes, VotequorumChange)) is not None
                    and last.quorate == quorate
                    and (ring := _last(changes, VotequorumNodelist)) is not None
                    and frozenset(ring.nodes) == nodes
                    and (not told_of_votes or _last(changes, ExpectedVotesChange) is not None)
                ),
            )

    def _name(self, address: Address) -> str:
        return self._clients.names.get(address, str(address))

    def _view(self, member: Membership) -> list[str]:
        # A process that has taken the place of a dead one has its name; that both are there must not be lost.
        return sorted(self._name(address) for address in member.members)

    def _sees_its_peers(self, member: Membership) -> bool:
        return self._view(member) == self._peers(member)

    def _peers(self, member: Membership) -> list[str]:
        return self._members_for(member.client.node, member.group)

    def _members_for(self, nodeid: int, group: str) -> list[str]:
        """Who should be in a group, as that node sees it."""
        reachable = self._cluster.reachable(nodeid)
        return sorted(
            client.name for client in self._clients if client.node in reachable and group in client.memberships
        )

    # -- what is to be seen --------------------------------------------------------------------------------------------

    async def _look(self, step: Step, result: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {"rings": self._rings()}
        for client in self._clients:
            if not self._usable(client.node):
                continue
            for group, member in sorted(client.memberships.items()):
                events, member.events = member.events, []
                seen[f"{client.name} in {group}"] = self._look_at_member(member, events, step)
            for service, told in client.tracked.items():
                told_of_votes = self._tells_of_votes(client, step, result)
                seen[f"{client.name} tracks {service}"] = _look_at_tracker(service, told, told_of_votes=told_of_votes)
        for nodeid in sorted(self._cluster.nodes):
            if self._usable(nodeid):
                seen[f"node {nodeid}"] = await self._look_at_node(nodeid)
        return seen

    def _rings(self) -> list[list[int]]:
        reachable = {self._cluster.reachable(nodeid) for nodeid in self._cluster.nodes}
        return sorted(sorted(nodes) for nodes in reachable if nodes)

    def _look_at_member(self, member: Membership, events: list[ConfigChange | Message], step: Step) -> dict[str, Any]:
        seen: dict[str, Any] = {"members": self._view(member), "nodes": sorted(member.nodes)}
        if step["do"] == "storm" and step["during"] is not None:
            return seen
        messages: dict[str, list[str]] = {}
        for event in events:
            if isinstance(event, Message) and not event.payload.startswith(MARKER):
                number = event.payload.partition(b":")[0].decode()
                # In the order of each sender. That of all together is left to the checkers.
                messages.setdefault(self._name(event.sender), []).append(f"{number}, {len(event.payload)} bytes")
        seen["messages"] = messages
        changes = [
            [kind, self._name(change.address), change.reason.name]
            for event in events
            if isinstance(event, ConfigChange)
            for kind, changes in (("joined", event.joined), ("left", event.left))
            for change in changes
        ]
        # Faults may take several rings; then only what has come of it is determined.
        seen["changes"] = _net(changes) if step["do"] in FAULTS else changes
        return seen

    async def _look_at_node(self, nodeid: int) -> dict[str, Any]:
        endpoint = self._admins[nodeid]
        seen: dict[str, Any] = {}
        async with triocoro.open_votequorum(endpoint=endpoint) as votequorum:
            for other in self._cluster.nodes:
                try:
                    info = await votequorum.info(other)
                except triocoro.CorosyncError as error:
                    seen[f"info {other}"] = name_of(error)
                else:
                    seen[f"info {other}"] = {
                        "state": info.state.name,
                        "votes": info.votes,
                        "expected votes": info.expected_votes,
                        "highest expected": info.highest_expected,
                        "total votes": info.total_votes,
                        "quorum": info.quorum,
                        "flags": repr(info.flags),
                    }
        async with triocoro.open_quorum(endpoint=endpoint) as quorum:
            seen["quorate"] = await quorum.is_quorate()
        async with triocoro.open_cpg(endpoint=endpoint) as cpg:
            seen["groups"] = await self._groups(cpg)
            seen["members"] = {group: sorted(map(self._name, await cpg.members(group))) for group in GROUPS}
        async with triocoro.open_cmap(endpoint=endpoint) as cmap:
            seen["keys"] = {key: repr(value) for key, value in await cmap.items(TRACKED_KEYS) if key != SYNC_KEY}
        return seen


@contextmanager
def _limit(number: int, step: Step, what: str) -> Generator[None, None, None]:
    with trio.move_on_after(LIMIT) as limit:
        yield
    if limit.cancelled_caught:
        raise NotQuietError(f"step {number}, {dict(step)}: {what} more than {LIMIT:g} seconds")


def _has_marks(member: Membership, marker: bytes) -> bool:
    senders = {event.sender for event in member.events if isinstance(event, Message) and event.payload == marker}
    return member.members <= senders


def _is_sync(told: Any, mark: int) -> bool:
    return bool(told.change.key == SYNC_KEY and told.change.new == mark)


def _last(events: Iterable[Any], kind: type[Any]) -> Any:
    return next((event for event in reversed(list(events)) if isinstance(event, kind)), None)


def _net(changes: list[list[str]]) -> dict[str, list[str]]:
    """Of each member that comes up an odd number of times, the last change: the others are as they were."""
    net: dict[str, list[str]] = {}
    for kind, name, reason in changes:
        if name in net:
            del net[name]
        else:
            net[name] = [kind, reason]
    return dict(sorted(net.items()))


def _look_at_tracker(service: str, told: list[Any], *, told_of_votes: bool) -> Any:
    """What it was told of last; of keys, all that is new; of expected votes, what came first of a step that tells."""
    if service == "cmap":
        changes = [
            [event.change.event.name, event.change.key, repr(event.change.new), repr(event.change.old)]
            for event in told
            if event.change.key != SYNC_KEY
        ]
        told.clear()
        return changes
    if service == "quorum":
        last = _last(told, QuorumChange)
        return {"quorate": last.quorate, "nodes": sorted(last.members)}
    last = _last(told, VotequorumChange)
    seen = {
        "quorate": last.quorate,
        "nodes": sorted(_last(told, VotequorumNodelist).nodes),
        "states": {str(node.nodeid): node.state.name for node in last.nodes},
    }
    votes = [event.expected_votes for event in told if isinstance(event, ExpectedVotesChange)]
    told[:] = [event for event in told if not isinstance(event, ExpectedVotesChange)]
    # In a transition, how often it comes varies.
    return {**seen, "expected votes": votes[0]} if told_of_votes else seen
