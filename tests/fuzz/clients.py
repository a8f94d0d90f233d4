"""Client processes as the driver sees them: real ones, and the simulated ones of a fake, which only have a pid."""

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
from multiprocessing import forkserver
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
from triocoro.testing._history.log import Part, made
from triocoro.testing._netns.node import NetnsNode

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["fuzz.agent"])


class ClientDiedError(Exception):
    """A client process ended by itself."""


@attrs.define(eq=False)
class ObservedMember:
    """What a client was told in a group since the last observation."""

    client: Client
    group: str
    view: tuple[Address, ...] = ()
    """The members of the group."""
    ring: TotemChange | None = None
    """The latest totem change."""
    events: list[ConfigChange | Message] = attrs.field(factory=list[ConfigChange | Message])
    lost: bool = False


class Client(ABC):
    """A client process, and the entries that it has recorded."""

    def __init__(self, name: str, full_name: str, pid: int) -> None:
        self.name = name
        self.full_name = full_name
        """The client's name in the history, which is never used again."""
        self.node = node_of(name)
        self.pid = pid
        self.entries: list[Entry] = []
        self.members: dict[str, ObservedMember] = {}
        """The groups that it is a member of."""
        self.tracked: dict[str, list[Any]] = {}
        """The events of each service that it tracks."""
        self.progress = trio.Event()
        """Set at the next entry, and replaced."""
        self.sending: list[tuple[float, str, list[bytes]]] = []
        """Unconfirmed sends: when the client was told to send, to which group, and which payloads."""
        self._handles: dict[int, ObservedMember] = {}

    @abstractmethod
    async def do(self, verb: str, **arguments: Any) -> Any:
        """Have the client carry out a verb (see `Agent`), and return the result."""

    @abstractmethod
    async def die(self) -> None:
        """End the client as SIGKILL does."""

    def unrecorded_sends(self) -> Iterator[History]:
        """Calls that the client may have made just before it was killed, and could not record."""
        recorded = {
            payload: entry.time
            for entry in self.entries
            if isinstance(entry, Call)
            for payload in (*entry.arguments.get("payloads", ()), entry.arguments.get("payload"))
        }
        for number, (time_told, group, payloads) in enumerate(self.sending):
            rest = tuple(payload for payload in payloads if payload not in recorded)
            # The client sent them in this order, so the rest came after the recorded ones.
            time = max([time_told, *(recorded[payload] for payload in payloads if payload in recorded)])
            for handle, member in self._handles.items():
                if rest and member.group == group and not member.lost:
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

    def add(self, entry: Entry) -> None:
        """Add an entry that the client has recorded."""
        self.entries.append(entry)
        if isinstance(entry, Call) and entry.function == "join":
            group = entry.arguments["group"].decode()
            # A join that fails, or one of another handle, must not replace a member.
            if group in self.members and not self.members[group].view:
                self._handles[entry.handle] = self.members[group]
        elif isinstance(entry, Loss) and entry.handle in self._handles:
            self._handles[entry.handle].lost = True
        elif isinstance(entry, Delivery):
            self._add_event(entry.handle, entry.event)
        self.progress.set()
        self.progress = trio.Event()

    def _add_event(self, handle: int, event: object) -> None:
        member = self._handles.get(handle)
        if isinstance(event, TotemChange) and member is not None:
            member.ring = event
        elif isinstance(event, (ConfigChange, Message)) and member is not None:
            member.events.append(event)
            if isinstance(event, ConfigChange):
                member.view = event.members
        for service, types in _TRACKED_EVENTS.items():
            if isinstance(event, types) and service in self.tracked:
                self.tracked[service].append(event)


_TRACKED_EVENTS: dict[str, tuple[type[Any], ...]] = {
    "quorum": (QuorumChange, NodelistChange),
    "votequorum": (VotequorumChange, VotequorumNodelist, ExpectedVotesChange),
    "cmap": (CmapNotification,),
}


class FakeClient(Client):
    """A client of a fake: tasks in this process, with a pid of their own."""

    def __init__(self, name: str, full_name: str, node: FakeNode, clock: Callable[[], float]) -> None:
        endpoint = node.client()
        super().__init__(name, full_name, endpoint.pid)
        self._node = node
        self._endpoint = RecordingEndpoint(
            endpoint,
            add=self._add_part,
            clock=clock,
            client=full_name,
            node=node.nodeid,
        )
        self._ended = trio.Event()

    def _add_part(self, part: Part) -> None:
        for entry in made(part):
            self.add(entry)

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until `die` is called."""
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
    """A client of a real cluster: a process."""

    def __init__(self, name: str, full_name: str, node: NetnsNode) -> None:
        ours, theirs = socket.socketpair()
        holder = node.namespace_pid
        _start_forkserver()
        with theirs:
            self._process = _PROCESSES.Process(
                target=_serve, args=(theirs, full_name, node.nodeid, holder), name=f"client {full_name}", daemon=True
            )
            self._process.start()
        super().__init__(name, full_name, cast("int", self._process.pid))
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        self._numbers = itertools.count(1)
        self._replies: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._killed = False
        self._dead = trio.Event()
        self._writing = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Read what the process writes, until it is dead."""
        task_status.started()
        try:
            rest = b""
            # If the process is killed before it has read all that we wrote, the stream ends with an error.
            with suppress(trio.BrokenResourceError):
                async for chunk in self._stream:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._handle_line(*json.loads(line))
        finally:
            self._dead.set()
            self.progress.set()
            for done, _ in self._replies.values():
                done.set()
            await trio.aclose_forcefully(self._stream)
            # The process has ended, as no other one has the other end of the socket.
            self._process.join()
            self._process.close()
        if not self._killed:
            raise ClientDiedError(f"client {self.name} (pid {self.pid}) ended by itself")

    def _handle_line(self, kind: str, value: Any) -> None:
        if kind == "entries":
            for entry in History.from_json_lines(value):
                self.add(entry)
        else:
            done, results = self._replies.pop(value[0])
            results.append(value[1])
            done.set()

    async def do(self, verb: str, **arguments: Any) -> Any:
        """See `Client`."""
        number = next(self._numbers)
        done, results = self._replies[number] = trio.Event(), list[Any]()
        # The process may be killed before it has read all of the request.
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


def _start_forkserver() -> None:
    """Start it, unless it runs; it ignores Control-C, which would make it print a traceback while it still imports."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(channel: socket.socket, name: str, nodeid: int, holder: int) -> None:
    """Run a client process, until the other end of the channel is closed."""
    # The process at the other end handles Control-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pidfd = os.pidfd_open(holder)
    except ProcessLookupError:  # the run was ended meanwhile, and its cluster with it
        os._exit(1)
    endpoint = CorosyncEndpoint(f"node {nodeid}", namespaces=lambda: pidfd)

    def write(kind: str, value: object) -> None:
        try:
            channel.sendall(json.dumps([kind, value]).encode() + b"\n")
        except OSError:
            os._exit(1)

    recording = RecordingEndpoint(
        endpoint,
        add=lambda part: write("entries", History(made(part)).to_json_lines()),
        clock=time.monotonic,
        client=name,
        node=nodeid,
    )
    # Read in a thread: as a Trio socket it would become non-blocking, and `write` needs it to block.
    reader = channel.dup()

    async def carry_out(agent: Agent, number: int, verb: str, arguments: dict[str, Any]) -> None:
        write("done", [number, await agent.do(verb, arguments)])

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            agent = Agent(recording, nursery)
            rest = b""
            # The process at the other end may be killed.
            with suppress(ConnectionResetError):
                while chunk := await trio.to_thread.run_sync(reader.recv, 2**16, abandon_on_cancel=True):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        number, verb, arguments = json.loads(line)
                        nursery.start_soon(carry_out, agent, number, verb, arguments)
            os._exit(0)

    trio.run(main)


class Clients:
    """All clients in a run of a program."""

    def __init__(self, cluster: FakeCluster | NetnsCluster, nursery: trio.Nursery) -> None:
        self._cluster = cluster
        self._nursery = nursery
        self._alive: dict[str, FakeClient | RealClient] = {}
        self._all: list[Client] = []
        self.names: dict[Address, str] = {}
        """The name of the client with each address, dead clients included."""
        ticks = itertools.count()
        # On a fake nothing takes time, so a counter gives entries different times.
        self.clock = time.monotonic if isinstance(cluster, NetnsCluster) else lambda: float(next(ticks))

    def __iter__(self) -> Iterator[Client]:
        """Iterate over the clients that are alive, sorted by name."""
        return iter([client for _, client in sorted(self._alive.items())])

    def get(self, name: str) -> Client | None:
        """Return the client with this name, if it is alive."""
        return self._alive.get(name)

    async def get_or_start(self, name: str) -> Client:
        """Return the client with this name; if there is none, or it has died, start one."""
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

    async def kill(self, name: str) -> None:
        """Kill the client with this name."""
        await self._alive.pop(name).die()

    async def kill_all(self) -> None:
        """Kill all clients."""
        for name in list(self._alive):
            await self.kill(name)

    def histories(self) -> Iterator[History]:
        """Return what each client has recorded, and what it may have done besides."""
        for client in self._all:
            yield History(client.entries)
            yield from client.unrecorded_sends()
