"""Client processes as the driver sees them: real ones, and those that the fake only gives a pid."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, cast

import attrs
import trio

from fuzz.agent import Agent
from fuzz.program import node_of
from triocoro import (
    Address,
    ConfigChange,
    ExpectedVotesChange,
    Message,
    NodelistChange,
    QuorumChange,
    TotemChange,
    VotequorumChange,
    VotequorumNodelist,
)
from triocoro._corosync import CorosyncEndpoint
from triocoro._types import CmapNotification
from triocoro.testing import Call, Delivery, Entry, FakeCluster, History, Loss, NetnsCluster, RecordingEndpoint
from triocoro.testing._fake.cluster import FakeNode
from triocoro.testing._fake.exec.ipc import _Disconnect
from triocoro.testing._netns.node import NetnsNode

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["fuzz.agent"])


class ClientDiedError(Exception):
    """A client process ended without having been told to."""


@attrs.define(eq=False)
class Membership:
    """What a client has been told in a group since somebody looked."""

    client: Client
    group: str
    members: tuple[Address, ...] = ()
    ring: TotemChange | None = None
    """The last one."""
    events: list[ConfigChange | Message] = attrs.field(factory=list[ConfigChange | Message])
    lost: bool = False


class Client(ABC):
    """A client process, and what it has recorded."""

    def __init__(self, name: str, full_name: str, pid: int) -> None:
        self.name = name
        self.full_name = full_name
        """That in the history, which no other one has."""
        self.node = node_of(name)
        self.pid = pid
        self.entries: list[Entry] = []
        self.memberships: dict[str, Membership] = {}
        self.tracked: dict[str, list[Any]] = {}
        """The events of each service that it tracks."""
        self.news = trio.Event()
        self.sending: list[tuple[float, str, list[bytes]]] = []
        """What it was told to send, and has not said to have sent: when, to which group, and what."""
        self._handles: dict[int, Membership] = {}

    @abstractmethod
    async def do(self, verb: str, **arguments: Any) -> Any:
        """Have it do something (see `Agent`), and return what came of it."""

    @abstractmethod
    async def die(self) -> None:
        """End it as SIGKILL does."""

    def unwritten(self) -> Iterator[History]:
        """What it may have sent in its last moments, before it could record that."""
        written = {
            payload: entry.time
            for entry in self.entries
            if isinstance(entry, Call)
            for payload in (*entry.arguments.get("payloads", ()), entry.arguments.get("payload"))
        }
        for number, (time_told, group, payloads) in enumerate(self.sending):
            rest = tuple(payload for payload in payloads if payload not in written)
            # It sent them in this order.
            time = max([time_told, *(written[payload] for payload in payloads if payload in written)])
            for handle, membership in self._handles.items():
                if rest and membership.group == group and not membership.lost:
                    arguments = {"payloads": rest}
                    yield History(
                        [
                            Call(
                                time=time,
                                client=self.full_name,
                                node=self.node,
                                handle=handle,
                                number=-1 - number,
                                function="multicast",
                                arguments=arguments,
                            )
                        ]
                    )

    def take(self, entry: Entry) -> None:
        """It has recorded this."""
        self.entries.append(entry)
        if isinstance(entry, Call) and entry.function == "join":
            group = entry.arguments["group"].decode()
            # A join that fails, or one of another handle, must not take the place of a membership.
            if group in self.memberships and not self.memberships[group].members:
                self._handles[entry.handle] = self.memberships[group]
        elif isinstance(entry, Loss) and entry.handle in self._handles:
            self._handles[entry.handle].lost = True
        elif isinstance(entry, Delivery):
            self._take_event(entry.handle, entry.event)
        self.news.set()
        self.news = trio.Event()

    def _take_event(self, handle: int, event: object) -> None:
        membership = self._handles.get(handle)
        if isinstance(event, TotemChange) and membership is not None:
            membership.ring = event
        elif isinstance(event, (ConfigChange, Message)) and membership is not None:
            membership.events.append(event)
            if isinstance(event, ConfigChange):
                membership.members = event.members
        for service, kinds in _TOLD.items():
            if isinstance(event, kinds) and service in self.tracked:
                self.tracked[service].append(event)


_TOLD: dict[str, tuple[type[Any], ...]] = {
    "quorum": (QuorumChange, NodelistChange),
    "votequorum": (VotequorumChange, VotequorumNodelist, ExpectedVotesChange),
    "cmap": (CmapNotification,),
}


class FakeClient(Client):
    """Tasks of this process, with a pid of their own."""

    def __init__(self, name: str, full_name: str, node: FakeNode, clock: Callable[[], float]) -> None:
        endpoint = node.client()
        super().__init__(name, full_name, endpoint.pid)
        self._node = node
        self._endpoint = RecordingEndpoint(endpoint, append=self.take, clock=clock, client=full_name, node=node.nodeid)
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Be there until `die`."""
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            self._agent = Agent(self._endpoint, nursery)
            task_status.started()
            await trio.sleep_forever()
        self._ended.set()

    async def do(self, verb: str, **arguments: Any) -> Any:
        """See `Client`."""
        return await self._agent.do(verb, arguments)

    async def die(self) -> None:
        """See `Client`."""
        daemon = self._node.daemon
        if daemon is not None:
            for connection in [connection for connection in daemon.connections if connection.pid == self.pid]:
                daemon.submit(_Disconnect(daemon, connection))
        self._scope.cancel()
        await self._ended.wait()


class RealClient(Client):
    """A process."""

    def __init__(self, name: str, full_name: str, node: NetnsNode) -> None:
        ours, theirs = socket.socketpair()
        holder = node.namespace_pid
        with theirs:
            self._process = _PROCESSES.Process(
                target=_serve, args=(theirs, full_name, node.nodeid, holder), name=f"client {full_name}", daemon=True
            )
            self._process.start()
        super().__init__(name, full_name, cast("int", self._process.pid))
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._numbers = itertools.count(1)
        self._answers: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._killed = False
        self._dead = trio.Event()
        self._writing = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Take in what it says, until it is dead."""
        task_status.started()
        try:
            rest = b""
            # Killed while it had not read all that we wrote, it ends with an error.
            with suppress(trio.BrokenResourceError):
                async for chunk in self._stream:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._hear(*json.loads(line))
        finally:
            self._dead.set()
            self.news.set()
            for done, _ in self._answers.values():
                done.set()
            await trio.aclose_forcefully(self._stream)
            # It has ended: nobody else has the other end of the socket.
            self._process.join()
            self._process.close()
        if not self._killed:
            raise ClientDiedError(f"client {self.name} (pid {self.pid}) ended by itself")

    def _hear(self, kind: str, value: Any) -> None:
        if kind == "entry":
            for entry in History.from_json_lines(value):
                self.take(entry)
        else:
            done, results = self._answers.pop(value[0])
            results.append(value[1])
            done.set()

    async def do(self, verb: str, **arguments: Any) -> Any:
        """See `Client`."""
        number = next(self._numbers)
        done, results = self._answers[number] = trio.Event(), list[Any]()
        # Killed while it is told, it does not hear all.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async with self._writing:
                await self._stream.send_all(json.dumps([number, verb, arguments]).encode() + b"\n")
            await done.wait()
        if not results:
            raise ClientDiedError(f"client {self.name} (pid {self.pid}) died while it was told to {verb}")
        return results[0]

    async def die(self) -> None:
        """See `Client`."""
        self._killed = True
        self._process.kill()
        await self._dead.wait()


def _serve(channel: socket.socket, name: str, nodeid: int, holder: int) -> None:
    """In the process, which ends when nobody has the other end of the channel any more."""
    # Control-C is for whoever has the other end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pidfd = os.pidfd_open(holder)
    endpoint = CorosyncEndpoint(f"node {nodeid}", namespaces=lambda: pidfd)

    def say(kind: str, value: object) -> None:
        try:
            channel.sendall(json.dumps([kind, value]).encode() + b"\n")
        except OSError:
            os._exit(1)

    recording = RecordingEndpoint(
        endpoint,
        append=lambda entry: say("entry", History([entry]).to_json_lines()),
        clock=time.monotonic,
        client=name,
        node=nodeid,
    )
    # Written to by `say`, which waits, and read by the run, which must not make it one that does not wait.
    reader = channel.dup()

    async def obey(agent: Agent, number: int, verb: str, arguments: dict[str, Any]) -> None:
        say("done", [number, await agent.do(verb, arguments)])

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            agent = Agent(recording, nursery)
            rest = b""
            # Whoever has the other end may be killed.
            with suppress(ConnectionResetError):
                while chunk := await trio.to_thread.run_sync(reader.recv, 2**16, abandon_on_cancel=True):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        number, verb, arguments = json.loads(line)
                        nursery.start_soon(obey, agent, number, verb, arguments)
            os._exit(0)

    trio.run(main)


class Clients:
    """All clients of a run of a program."""

    def __init__(self, cluster: FakeCluster | NetnsCluster, nursery: trio.Nursery) -> None:
        self._cluster = cluster
        self._nursery = nursery
        self._alive: dict[str, FakeClient | RealClient] = {}
        self._all: list[Client] = []
        self.names: dict[Address, str] = {}
        """Who has which address, dead ones included."""
        ticks = itertools.count()
        # Nothing takes time on a fake, and yet one comes after the other.
        self.clock = time.monotonic if isinstance(cluster, NetnsCluster) else lambda: float(next(ticks))

    def __iter__(self) -> Iterator[Client]:
        """Those that are alive, by name."""
        return iter([client for _, client in sorted(self._alive.items())])

    def get(self, name: str) -> Client | None:
        """The one with this name, if it is alive."""
        return self._alive.get(name)

    async def called(self, name: str) -> Client:
        """The one with this name; a new one if there is none, or it has died."""
        if name not in self._alive:
            full_name = f"{name}{len(self._all)}"
            node = self._cluster[node_of(name)]
            client: FakeClient | RealClient
            if isinstance(node, FakeNode):
                client = FakeClient(name, full_name, node, self.clock)
            else:
                client = RealClient(name, full_name, node)
            await self._nursery.start(client.run)
            self._alive[name] = client
            self._all.append(client)
            self.names[Address(client.node, client.pid)] = name
        return self._alive[name]

    async def die(self, name: str) -> None:
        """Kill the one with this name."""
        await self._alive.pop(name).die()

    async def end(self) -> None:
        """Kill all."""
        for name in list(self._alive):
            await self.die(name)

    def histories(self) -> Iterator[History]:
        """What each has recorded."""
        for client in self._all:
            yield History(client.entries)
            yield from client.unwritten()
