"""Runs a program on a cluster, real or fake, and writes down what is to be seen each time that all is quiet."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio
from fuzz.program import Program, Step

import triocoro
from triocoro import ConfigChange, GroupEvent, Message, MessageLost, lowlevel
from triocoro.testing import Cluster, History, RecordingEndpoint

MARKER = b"marker:"
"""Begins the payloads that show that all is quiet."""
LIMIT = 30.0
"""Seconds in which it must become so."""


class NotQuietError(Exception):
    """The cluster did not become what the steps so far allow; the message says who misses what."""


@attrs.frozen
class Outcome:
    """What has come of a program."""

    observations: list[dict[str, Any]]
    """One for each step."""
    history: History


class Client:
    """A member of a group, one for each node and group at a time."""

    def __init__(self, node: int, group: str, endpoint: RecordingEndpoint) -> None:
        self.node = node
        self.group = group
        self.endpoint = endpoint
        self.events: list[GroupEvent] = []
        self.members: frozenset[int] = frozenset()
        self.markers: set[tuple[int, bytes]] = set()
        self.changed = trio.Event()
        self.lost = False
        self.end = trio.Event()
        self.leaves = True
        self.gone = trio.Event()
        self.send: Callable[[list[bytes]], Awaitable[None]]

    async def handle(self, event: GroupEvent) -> None:
        """Take an event."""
        await trio.lowlevel.checkpoint()
        if isinstance(event, ConfigChange):
            self.members = frozenset(member.nodeid for member in event.members)
        elif isinstance(event, MessageLost):
            self.endpoint.lost(event.payload)
        if isinstance(event, Message) and event.payload.startswith(MARKER):
            self.markers.add((event.sender.nodeid, event.payload))
        else:
            self.events.append(event)
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def be_member(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Be one by way of `open_group`, until told to go, or the daemon goes."""
        try:
            async with triocoro.open_group(self.group, totem_changes=True, endpoint=self.endpoint) as group:
                self.send = group.send_batch
                async with trio.open_nursery() as nursery:

                    async def collect() -> None:
                        async for event in group:
                            await self.handle(event)

                    nursery.start_soon(collect)
                    task_status.started()
                    await self.end.wait()
                    nursery.cancel_scope.cancel()
        except triocoro.ConnectionLostError:
            self.lost = True
        finally:
            self.gone.set()
            self.wake()

    async def be_raw_member(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Be one by way of a low-level handle, which leaves or just goes."""
        handle = await lowlevel.cpg_initialize(
            deliver=self.handle, confchg=self.handle, totem_confchg=self.handle, endpoint=self.endpoint
        )

        async def send(payloads: list[bytes]) -> None:
            for payload in payloads:
                await _insist(lambda payload=payload: handle.mcast_joined(payload))  # type: ignore[misc]

        self.send = send
        try:
            await _insist(lambda: handle.join(self.group))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._dispatch, handle, nursery.cancel_scope)
                task_status.started()
                await self.end.wait()
                if self.leaves:
                    await _insist(lambda: handle.leave(self.group))
                    while self.node in self.members:
                        await self.changed.wait()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await handle.finalize()
            self.gone.set()
            self.wake()

    async def _dispatch(self, handle: lowlevel.CpgHandle, member: trio.CancelScope) -> None:
        try:
            await handle.dispatch(lowlevel.Dispatch.BLOCKING)
        except triocoro.ConnectionLostError:
            self.lost = True
            member.cancel()


async def _insist(call: Callable[[], Awaitable[None]]) -> None:
    """Call again and again while Corosync says so."""
    while True:
        try:
            await call()
        except triocoro.TryAgainError:
            await trio.sleep(0.005)
        else:
            return


class Driver:
    """Runs programs."""

    def __init__(self, cluster: Cluster, history: History, nursery: trio.Nursery) -> None:
        self._cluster = cluster
        self._history = history
        self._nursery = nursery
        self._clients: dict[tuple[int, str], Client] = {}
        self._count = 0
        self._marks = 0

    async def run(self, program: Program) -> list[dict[str, Any]]:
        """All steps; after each, wait until all is quiet, and look."""
        seen: list[dict[str, Any]] = []
        for number, step in enumerate(program.steps):
            arguments = dict(step)
            verb = arguments.pop("do")
            with trio.move_on_after(LIMIT) as limit:
                result = await getattr(self, f"_do_{verb}")(**arguments)
            if limit.cancelled_caught:
                raise NotQuietError(f"step {number}, {step}: it has not come to an end in {LIMIT:g} seconds")
            await self._quiet(number, step)
            seen.append({"step": number, "do": verb, "result": result, **await self._look(verb)})
        for client in list(self._clients.values()):
            client.end.set()
            await client.gone.wait()
        return seen

    # -- steps: each returns what came of it ---------------------------------------------------------------------------

    def _client_of(self, node: int, group: str) -> Client | None:
        client = self._clients.get((node, group))
        return None if client is None or client.lost or not self._cluster.reachable(node) else client

    def _usable(self, node: int) -> bool:
        return bool(self._cluster.reachable(node))

    async def _do_join(self, node: int, group: str, raw: bool) -> str:  # noqa: FBT001 - from JSON
        if not self._usable(node) or (node, group) in self._clients:
            return "nothing"
        self._count += 1
        endpoint = self._history.endpoint(self._cluster[node], client=f"{node}{group}{self._count}")
        client = Client(node, group, endpoint)
        try:
            await self._nursery.start(client.be_raw_member if raw else client.be_member)
        except triocoro.CorosyncError as error:
            return type(error).__name__
        self._clients[node, group] = client
        return "done"

    async def _do_send(self, node: int, group: str, payloads: list[str]) -> str:
        client = self._client_of(node, group)
        if client is None:
            return "nothing"
        try:
            await client.send([payload.encode() for payload in payloads])
        except triocoro.CorosyncError as error:
            return type(error).__name__
        return "done"

    async def _do_storm(self, sends: list[dict[str, Any]]) -> list[str]:
        results = ["" for _ in sends]

        async def one(index: int, send: dict[str, Any]) -> None:
            results[index] = await self._do_send(**send)

        async with trio.open_nursery() as nursery:
            for index, send in enumerate(sends):
                nursery.start_soon(one, index, send)
        return results

    async def _do_leave(self, node: int, group: str, *, leaves: bool = True) -> str:
        client = self._client_of(node, group)
        if client is None:
            return "nothing"
        client.leaves = leaves
        client.end.set()
        await client.gone.wait()
        del self._clients[node, group]
        return "done"

    async def _do_drop(self, node: int, group: str) -> str:
        return await self._do_leave(node, group, leaves=False)

    async def _do_partition(self, sides: list[list[int]]) -> None:
        await self._cluster.partition(*sides)
        self._history.fault("partition", sides=sides)

    async def _do_isolate(self, node: int) -> None:
        await self._cluster.isolate(node)
        self._history.fault("isolate", node=node)

    async def _do_heal(self) -> None:
        await self._cluster.heal()
        self._history.fault("heal")

    async def _do_node(self, verb: str, node: int) -> None:
        await getattr(self._cluster[node], verb)()
        self._history.fault(verb, node=node)
        if verb in {"stop", "kill", "restart"}:
            for key, client in list(self._clients.items()):
                if key[0] == node:
                    client.end.set()
                    await client.gone.wait()
                    del self._clients[key]

    async def _do_stop(self, node: int) -> None:
        await self._do_node("stop", node)

    async def _do_kill(self, node: int) -> None:
        await self._do_node("kill", node)

    async def _do_start(self, node: int) -> None:
        await self._do_node("start", node)

    async def _do_restart(self, node: int) -> None:
        await self._do_node("restart", node)

    async def _do_freeze(self, node: int) -> str | None:
        if not self._usable(node):
            return "nothing"
        await self._do_node("freeze", node)
        return None

    async def _do_thaw(self, node: int) -> None:
        await self._do_node("thaw", node)

    async def _ask(self, node: int, question: Callable[[], Awaitable[object]]) -> object:
        if not self._usable(node):
            return "nothing"
        try:
            return await question()
        except (triocoro.CorosyncError, ValueError) as error:
            return type(error).__name__

    async def _do_set_votes(self, node: int, of: int, votes: int) -> object:
        async def ask() -> None:
            async with triocoro.open_votequorum(endpoint=self._cluster[node].endpoint) as votequorum:
                await votequorum.set_votes(of, votes)

        return await self._ask(node, ask)

    async def _do_set_expected(self, node: int, votes: int) -> object:
        async def ask() -> None:
            async with triocoro.open_votequorum(endpoint=self._cluster[node].endpoint) as votequorum:
                await votequorum.set_expected(votes)

        return await self._ask(node, ask)

    async def _do_set_key(self, node: int, key: str, value: str | int) -> object:
        async def ask() -> None:
            async with triocoro.open_cmap(endpoint=self._cluster[node].endpoint) as cmap:
                await cmap.set(key, value)

        return await self._ask(node, ask)

    async def _do_delete_key(self, node: int, key: str) -> object:
        async def ask() -> None:
            async with triocoro.open_cmap(endpoint=self._cluster[node].endpoint) as cmap:
                await cmap.delete(key)

        return await self._ask(node, ask)

    # -- when all is quiet ---------------------------------------------------------------------------------------------

    async def _quiet(self, number: int, step: Step) -> None:
        """Wait until every client has seen all that the steps so far can bring about."""
        await self._cluster.settled()
        self._marks += 1
        marker = MARKER + str(self._marks).encode()
        alive = [client for key in self._clients if (client := self._client_of(*key)) is not None]
        with trio.move_on_after(LIMIT) as limit:
            for client in alive:
                while client.members != self._peers(client):
                    await client.changed.wait()
            for client in alive:
                await client.send([marker])
            for client in alive:
                while {(node, marker) for node in client.members} - client.markers:
                    await client.changed.wait()
        if limit.cancelled_caught:
            findings = "".join(
                f"\n- node {client.node} in {client.group}: members {sorted(client.members)}, wanted"
                f" {sorted(self._peers(client))}, markers of {sorted(n for n, m in client.markers if m == marker)}"
                for client in alive
            )
            raise NotQuietError(f"step {number}, {step}: not quiet after {LIMIT:g} seconds:{findings}")

    def _peers(self, client: Client) -> frozenset[int]:
        reachable = self._cluster.reachable(client.node)
        return frozenset(node for node in reachable if self._client_of(node, client.group) is not None)

    async def _look(self, verb: str) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for (node, group), client in sorted(self._clients.items()):
            if self._client_of(node, group) is None:
                continue
            events, client.events = client.events, []
            messages: dict[int, list[str]] = {}
            for event in events:
                if isinstance(event, Message):
                    messages.setdefault(event.sender.nodeid, []).append(event.payload.decode())
            seen[f"{node}{group}"] = {
                "members": sorted(client.members),
                # In the order of each sender. That of all together is left to the checkers.
                "messages": {str(sender): payloads for sender, payloads in sorted(messages.items())},
            }
            if verb in {"join", "leave", "drop"}:
                seen[f"{node}{group}"]["changes"] = [
                    [kind, change.address.nodeid, change.reason.name]
                    for event in events
                    if isinstance(event, ConfigChange)
                    for kind, changes in (("joined", event.joined), ("left", event.left))
                    for change in changes
                ]
        for nodeid in sorted(self._cluster.nodes):
            if self._usable(nodeid):
                seen[f"node {nodeid}"] = await self._look_at(nodeid)
        return seen

    async def _look_at(self, nodeid: int) -> dict[str, Any]:
        endpoint = self._cluster[nodeid].endpoint
        seen: dict[str, Any] = {}
        async with triocoro.open_votequorum(endpoint=endpoint) as votequorum:
            for other in self._cluster.nodes:
                try:
                    info = await votequorum.info(other)
                except triocoro.CorosyncError as error:
                    seen[f"info {other}"] = type(error).__name__
                else:
                    seen[f"info {other}"] = repr(info)
        async with triocoro.open_quorum(endpoint=endpoint) as quorum:
            seen["quorate"] = await quorum.is_quorate()
        async with triocoro.open_cpg(endpoint=endpoint) as cpg:
            groups = await cpg.groups()
            seen["groups"] = sorted(
                [member.group.decode(), member.address.nodeid] for member in groups if member.address is not None
            )
        async with triocoro.open_cmap(endpoint=endpoint) as cmap:
            seen["keys"] = [[key, repr(value)] for key, value in await cmap.items("fuzz.")]
        return seen


async def run(program: Program, cluster: Cluster) -> Outcome:
    """Run a program on a cluster that is new."""
    history = History()
    async with trio.open_nursery() as nursery:
        observations = await Driver(cluster, history, nursery).run(program)
        nursery.cancel_scope.cancel()
    return Outcome(observations, history)
