"""A simulated bus: nodes with daemons that order messages as Corosync does, and processes with an `Agreement` each.

Nothing happens by itself. Each method is one step, and takes numbers that decide what chance would decide; a step
that makes no sense in the present state does nothing, so that any part of a schedule is a schedule too.

What the bus does is what Corosync was seen to do (docs/facts.md, 15, 66, 68, 86):

- All nodes of a ring deliver its messages, joins and leaves in one order, each at its own pace.
- When nodes move on to another ring, those that come from one ring deliver the same of it: a prefix of its order, no
  less than any of them has delivered, and after a gap only messages of nodes that move on with them.
- Nodes that are left behind stay in their ring, and deliver what they send there to themselves.
- What a daemon has not sent when its ring ends, it sends in the next one, after its members have been told of that ring
  (totem uses another queue until the services are synchronized, `waiting_trans_ack`). The view of a ring is at the same
  place of the order for all members, or the ring ends before.
- A member whose news of quorum are late reads the view later, or never if the ring has ended by then; messages after
  that place are held back until it has a view (triocoro's views do that).
- A member reads its stream when it pleases. If its connection ends, it loses the rest of the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from typing import Any

from triocoro import Address, RingId
from triocoro.recipes._agreement import Agreement
from triocoro.recipes._ballots import Ballot
from triocoro.recipes._frames import OPERATOR, Found, decode, encode
from triocoro.recipes._states import State

RETAIN = 3
PRIMARY = State.PRIMARY
IN_A_ROW = 1  # so that members acknowledge in advance as often as may be
CHUNK = 40  # so that few entries already take several messages

MESSAGE, VIEW, CONNECTED, DISCONNECTED, LOST = range(5)  # what is in a process's inbox
FRAME, JOIN, LEAVE, SYNC, DROPPED = range(5)  # what is in the order of a ring
MOST = 8_000
"""How many messages a process may send in one run. More are a fault: the members do not come to rest."""


class Violation(Exception):  # noqa: N818 - the word of the checkers
    """The members contradict each other, or have not come to rest."""


class Forgotten(Exception):  # noqa: N818 - not an error
    """All nodes have offered no log while those that have one were away: what is documented as not promised."""


class Undecided(Exception):  # noqa: N818 - not an error
    """Members have different ends of a log, and what decides is lost with a seat: documented as not promised."""


class History:
    """What was applied, in its one order; raises `Violation` if a member applies anything else."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, int, int, int, bytes]] = []
        """Index, epoch, incarnation, number, payload."""
        self.proposed: dict[int, deque[tuple[int, bytes]]] = {}
        """What each incarnation has proposed and nobody has applied: numbers and payloads."""
        self.withdrawn: dict[int, int] = {}
        """Up to which number an incarnation has withdrawn what it has proposed."""

    def apply(self, machine: Machine, it: tuple[int, int, int, int, bytes]) -> None:
        """A member applies an entry."""
        at = machine.count
        if at < len(self.applied):
            if self.applied[at] != it:
                raise Violation(f"{machine.name} applies {it} where others applied {self.applied[at]}")
        else:
            index, _, incarnation, number, payload = it
            if self.applied and index <= self.applied[-1][0]:
                raise Violation(f"{machine.name} applies {it} after {self.applied[-1]}")
            proposed = self.proposed[incarnation]
            withdrawn = self.withdrawn.get(incarnation, 0)
            while proposed and proposed[0][0] < number and proposed[0][0] <= withdrawn:
                proposed.popleft()
            if not proposed or proposed.popleft() != (number, payload):
                raise Violation(f"{machine.name} applies {it}, which is not what its sender has proposed next")
            self.applied.append(it)
        machine.count = at + 1

    def withdraw(self, incarnation: int, sent: int) -> None:
        """An incarnation withdraws what it has proposed; what was sent may be applied none the less."""
        proposed = self.proposed[incarnation]
        while proposed and proposed[-1][0] > sent:
            proposed.pop()
        if proposed:
            self.withdrawn[incarnation] = proposed[-1][0]

    def waits(self, incarnation: int) -> bool:
        """Whether an incarnation has proposed what must be applied, and was not."""
        proposed = self.proposed[incarnation]
        return bool(proposed) and proposed[-1][0] > self.withdrawn.get(incarnation, 0)

    def forget(self, count: int) -> None:
        """All that have applied more than this many are dead: what they alone knew counts as proposed again."""
        while len(self.applied) > count:
            _, _, incarnation, number, payload = self.applied.pop()
            self.proposed[incarnation].appendleft((number, payload))

    def encoded(self, count: int) -> bytes:
        """A snapshot after this many."""
        return repr((count, [(index, *its) for index, _, *its in self.applied[:count]])).encode()

    def restore(self, machine: Machine, data: bytes) -> None:
        """A member takes a snapshot."""
        count = int(data[1:].partition(b",")[0])
        if data != self.encoded(count):
            raise Violation(f"{machine.name} restores {data!r} where others applied {self.applied[:count]}")
        if count < machine.count:
            raise Violation(f"{machine.name} goes back from {machine.count} applied to {count}")
        machine.count = count


class Machine:
    """The machine of one process: counts what it has applied, and shows it to the history."""

    def __init__(self, name: str, history: History) -> None:
        self.name = name
        self.count = 0
        self.restored = 0
        """How many snapshots it has taken."""
        self.made = 0
        """How many it has made."""
        self._history = history

    def apply(self, entry: Any) -> None:
        self._history.apply(self, (entry.index, entry.epoch, entry.incarnation, entry.number, entry.payload))

    def snapshot(self) -> Iterable[bytes]:
        self.made += 1
        data = self._history.encoded(self.count)
        return [data[at : at + 48] for at in range(0, len(data), 48)]

    def restore(self, chunks: Sequence[bytes], *, discards: bool) -> None:
        before = self.count
        self._history.restore(self, b"".join(chunks))
        if discards and before:
            raise Violation(f"{self.name} discards what it has applied")
        self.restored += 1


class Connection:
    """A process's connection to its daemon, and its membership of the group."""

    __slots__ = ("address", "closed", "held", "late", "node", "process")

    def __init__(self, node: Node, process: Process) -> None:
        self.node = node
        self.process = process
        self.address = process.address
        self.closed = False
        self.late: list[bytes] = []  # lost frames that are reported at the next own delivery
        self.held: list[tuple[Any, ...]] | None = None  # what waits for the news of quorum: a view, and what follows

    def show(self, event: tuple[Any, ...]) -> None:
        """Let the process read an event."""
        if self.held is not None:
            self.held.append(event)
        else:
            self.process.inbox.append(event)

    def settle(self) -> None:
        """The news of quorum are here."""
        if self.held is not None:
            self.process.inbox.extend(self.held)
            self.held = None


class Process:
    """A process with an agreement."""

    def __init__(self, name: str, agreement: Agreement, machine: Machine, address: Address) -> None:
        self.name = name
        self.agreement = agreement
        self.machine = machine
        self.address = address
        self.inbox: deque[tuple[Any, ...]] = deque()
        self.connection: Connection | None = None
        self.stopped = False
        self.sent = 0
        self.proposed = 0


class Operator:
    """One who calls `bootstrap` on a node: a member of the group that only founds ballots."""

    def __init__(self, bus: Bus, nodeid: int) -> None:
        node = bus.nodes[nodeid]
        address = Address(nodeid, 9000 + len(node.ring.order if node.ring is not None else ()))
        machine = Machine("operator", bus.history)
        process = Process("operator", Agreement(0, bus.votes, machine), machine, address)
        self._connection = Connection(node, process)
        node.queue.append((JOIN, self._connection))

    def found(self, founder: int, *, forced: bool) -> None:
        """Send the founding of a ballot of the present ring."""
        node = self._connection.node
        ballot = Ballot.first(node.ring_id)._replace(founder=founder)
        node.queue.append((FRAME, self._connection, encode(Found(ballot, forced), OPERATOR)))

    def leave(self) -> None:
        """Leave the group."""
        self._connection.closed = True
        if self._connection in self._connection.node.locals:
            self._connection.node.locals.remove(self._connection)
        self._connection.node.queue.append((LEAVE, self._connection))


class Ring:
    """A ring and the one order of what was sent in it."""

    __slots__ = ("id", "order")

    def __init__(self, ring_id: RingId) -> None:
        self.id = ring_id
        self.order: list[tuple[Any, ...]] = []


class Node:
    """A node and its daemon."""

    def __init__(self, nodeid: int) -> None:
        self.id = nodeid
        self.up = False
        self.seq = 0
        self.ring: Ring | None = None
        self.at = 0  # how much of the ring it has delivered
        self.synced = False  # whether it knows the members of the group in this ring; it sends nothing before
        self.queue: deque[tuple[Any, ...]] = deque()  # what it has not sent yet
        self.members: list[Connection] = []  # of the group, as it knows them
        self.locals: list[Connection] = []  # its own clients that have joined
        self.ring_id = RingId(nodeid, 0)
        self.hold = 0  # which of its clients have late news of quorum in this ring: bits


class Bus:
    """Nodes 1, 2, ... with processes, all of them down at first.

    Args:
        nodes: how many nodes.
        members: how many processes each of them has.
        make: makes an agreement from incarnation, votes and machine.
        trace: called with a line for each thing that happens; `None` is faster.
        protect: refuse steps that lose the memory of a majority of the seats.
        in_a_row: how many entries a member must have sent in a row to acknowledge its next one in advance.
    """

    def __init__(
        self,
        nodes: int,
        members: int = 1,
        *,
        make: Callable[..., Agreement] = Agreement,
        trace: Callable[[str], None] | None = None,
        protect: bool = True,
        in_a_row: int = IN_A_ROW,
    ) -> None:
        self.history = History()
        self.nodes = {nodeid: Node(nodeid) for nodeid in range(1, nodes + 1)}
        self.names = [f"{nodeid}{'abcd'[slot]}" for nodeid in self.nodes for slot in range(members)]
        self.processes: dict[str, Process | None] = dict.fromkeys(self.names)
        self.votes = dict.fromkeys(self.nodes, 1)
        self.trace = trace
        self.protect = protect
        self._make = make
        self._in_a_row = in_a_row
        self._begun: set[bytes] = set()  # the digests of the logs that began before anything was applied
        self._launched = dict.fromkeys(self.names, 0)
        self._last_address: dict[str, Address] = {}

    # -- processes -----------------------------------------------------------------------------------------------------

    def launch(self, name: str, same: int = 0) -> None:
        """Start a process, which knows nothing; `same`: with the address of the one before it."""
        nodeid, slot = int(name[0]), ord(name[1]) - ord("a")
        if self.processes[name] is not None or self._forgets(nodeid, None):
            return
        self._launched[name] += 1
        generation = self._launched[name]
        if not same or name not in self._last_address:
            self._last_address[name] = Address(
                nodeid, 1000 * (3 - slot if generation % 3 == 2 else slot + 1) + generation
            )
        incarnation = nodeid * 10_000 + slot * 1000 + generation
        machine = Machine(f"{name}#{generation}", self.history)
        agreement = self._make(incarnation, self.votes, machine, retain=RETAIN, chunk=CHUNK, in_a_row=self._in_a_row)
        self.processes[name] = process = Process(machine.name, agreement, machine, self._last_address[name])
        self._watch(process)
        self.history.proposed[incarnation] = deque()
        self.connect(name)

    def _watch(self, process: Process) -> None:
        """Notice a log that begins although entries were applied."""
        agreement = process.agreement
        begin = agreement.holding.begin

        def watched(digest: bytes) -> None:
            begin(digest)
            if not self.history.applied:
                self._begun.add(digest)
            elif digest not in self._begun:
                here = [
                    it.name
                    for it in self.processes.values()
                    if it is not None and it.machine.count and it.address in agreement.members and it.connection
                ]
                if here:
                    raise Violation(f"begins again: {process.name} in {agreement.ballot}, although {here} are here")
                raise Forgotten

        agreement.holding.begin = watched  # type: ignore[method-assign]

    def crash(self, name: str, drop: int = 0) -> None:
        """End a process; the last `drop` of its messages do not reach the daemon."""
        process = self.processes[name]
        if process is None or self._forgets(int(name[0]), process):
            return
        self._disconnect(process, drop)
        self.processes[name] = None

    def stop(self, name: str) -> None:
        """Stop a process: it reads nothing."""
        if (process := self.processes[name]) is not None:
            process.stopped = True

    def go_on(self, name: str) -> None:
        """Let a stopped process go on."""
        if (process := self.processes[name]) is not None:
            process.stopped = False

    def connect(self, name: str) -> None:
        """Let a process without a connection connect, if its daemon runs."""
        process = self.processes[name]
        node = self.nodes[int(name[0])]
        if process is None or process.connection is not None or process.inbox or process.stopped or not node.up:
            return
        process.connection = Connection(node, process)
        node.queue.append((JOIN, process.connection))

    def disconnect(self, name: str, keep: int = 0, drop: int = 0) -> None:
        """End the connection of a process, which still reads `keep` events; its last `drop` messages are lost."""
        process = self.processes[name]
        if process is not None and process.connection is not None and not process.connection.closed:
            self._disconnect(process, drop)
            self._cut(process, keep)

    def _disconnect(self, process: Process, drop: int) -> None:
        connection = process.connection
        if connection is None or connection.closed:
            return
        connection.closed = True
        node = connection.node
        if connection in node.locals:
            node.locals.remove(connection)
        for it in [it for it in reversed(node.queue) if it[0] == FRAME and it[1] is connection][:drop]:
            node.queue.remove(it)
        node.queue.append((LEAVE, connection))

    def _cut(self, process: Process, keep: int) -> None:
        keep %= len(process.inbox) + 1
        while len(process.inbox) > keep:
            process.inbox.pop()
        process.inbox.append((DISCONNECTED,))

    def propose(self, name: str) -> None:
        """Let a process propose an entry."""
        process = self.processes[name]
        if process is None or process.stopped:
            return
        process.proposed += 1
        payload = b"%s:%d" % (process.name.encode(), process.proposed)
        number = process.agreement.propose(payload)
        self.history.proposed[process.agreement.incarnation].append((number, payload))
        self._flush(process)

    def withdraw(self, name: str) -> None:
        """Let a process withdraw what it has proposed."""
        process = self.processes[name]
        if process is not None and not process.stopped:
            self.history.withdraw(process.agreement.incarnation, process.agreement.withdraw())

    def vote(self, name: str, votes: int) -> None:
        """Let a process propose another electorate; two bits for each node say how many votes it has."""
        process = self.processes[name]
        if process is not None and not process.stopped and process.agreement.state is PRIMARY:
            electorate = {nodeid: votes >> 2 * nodeid & 3 for nodeid in self.nodes if votes >> 2 * nodeid & 3}
            if electorate:
                process.agreement.propose_votes(electorate)
                self._flush(process)

    def tick(self, name: str) -> None:
        """Let time pass for a process."""
        process = self.processes[name]
        if process is not None and not process.stopped:
            process.agreement.tick()
            self._flush(process)

    def read(self, name: str, count: int = 1, flush: int = 1) -> None:
        """Let a process read some of its events; unless `flush`, what it sends in answer waits."""
        process = self.processes[name]
        if process is None or process.stopped:
            return
        agreement, inbox = process.agreement, process.inbox
        while count and inbox:
            count -= 1
            event = inbox.popleft()
            if self.trace is not None:
                self.trace(f"    {process.name} reads {self._describe(event)}")
            kind = event[0]
            if kind == MESSAGE:
                agreement.deliver(event[1], event[2])
            elif kind == VIEW:
                agreement.view(event[1], event[2])
            elif kind == LOST:
                agreement.lost(event[1])
            elif kind == CONNECTED:
                agreement.connected(event[1])
            else:
                process.connection = None
                agreement.disconnected()
            if self.trace is not None:
                self.trace(f"        {process.name}: {status(process)}")
        if flush:
            self._flush(process)

    def _flush(self, process: Process) -> None:
        agreement, connection = process.agreement, process.connection
        if connection is None:
            return
        while agreement.outbox:
            process.sent += 1
            if process.sent > MOST:
                raise Violation(f"{process.name} has sent {process.sent} messages: it does not come to rest")
            frame = agreement.next_frame()
            if self.trace is not None:
                self.trace(f"        {process.name} sends {describe(frame)}")
            if not connection.closed:
                connection.node.queue.append((FRAME, connection, frame))

    # -- memory --------------------------------------------------------------------------------------------------------

    def _forgets(self, nodeid: int, dying: Process | None) -> bool:
        """Whether the end of a process, or the launch of one, would lose what must not be lost.

        A new log begins when all nodes offer none, so there is always a node all of whose processes have one. If the
        bus protects, a majority of the seats lives.
        """
        alive = [it for it in self.processes.values() if it is not None and it is not dying]
        if not any(it is not None and it.agreement.holding.has_log for it in self.processes.values()):
            return False
        keepers: dict[int, bool] = {}
        for it in alive:
            keepers[it.address.nodeid] = keepers.get(it.address.nodeid, True) and it.agreement.holding.has_log
        if dying is None:
            keepers[nodeid] = False
        if not any(keepers.values()):
            return True
        return self.protect and dying is not None and not self._seated(alive)

    def _seated(self, alive: Sequence[Process]) -> bool:
        living = {it.agreement.incarnation for it in alive}
        return all(
            config.majority(living.__contains__)
            for it in self.processes.values()
            if it is not None
            for config in it.agreement.holding.configs
        )

    def forget(self) -> None:
        """What the dead alone have applied is no more expected to be there."""
        self.history.forget(max((it.machine.count for it in self.processes.values() if it is not None), default=0))

    def can_go_on(self) -> bool:
        """Whether a majority of the seats of each configuration that any process knows is alive."""
        return self._seated([it for it in self.processes.values() if it is not None])

    # -- daemons -------------------------------------------------------------------------------------------------------

    def start(self, nodeid: int, forgets: int = 0) -> None:
        """Start a daemon, which is alone at first; `forgets`: without `state_dir`, so its rings are numbered anew."""
        node = self.nodes[nodeid]
        if not node.up:
            node.up = True
            node.seq = 0 if forgets else node.seq
            node.ring = None
            node.queue.clear()
            node.members, node.locals = [], []
            self.move([nodeid])

    def kill(self, nodeid: int, keep: int = 0) -> None:
        """Kill a daemon: its clients lose their connections, and more or less of what they have not read."""
        node = self.nodes[nodeid]
        if not node.up:
            return
        node.up = False
        node.queue.clear()
        node.ring = None
        for process in self.processes.values():
            connection = process.connection if process is not None else None
            if process is not None and connection is not None and connection.node is node and not connection.closed:
                connection.closed = True
                self._cut(process, keep)
                keep //= 3
        node.locals = []

    def place(self, nodeid: int, count: int = 1) -> None:
        """Let a node send, once it knows the members in its ring: what it sends has its place in the order."""
        node = self.nodes[nodeid]
        if node.ring is None:
            return
        order, queue = node.ring.order, node.queue
        while count and queue and node.synced:
            count -= 1
            order.append(queue.popleft())

    def lose(self, nodeid: int, which: int = 0, late: int = 0) -> None:
        """Drop a message that a daemon has accepted; its sender is told, `late` only when it gets a later one back."""
        queue = self.nodes[nodeid].queue
        frames = [at for at, it in enumerate(queue) if it[0] == FRAME and not it[1].closed]
        if frames:
            at = frames[which % len(frames)]
            queue[at] = (DROPPED, *queue[at][1:3], late)

    def deliver(self, nodeid: int, count: int = 1) -> None:
        """Let a node deliver what comes next in its ring."""
        node = self.nodes[nodeid]
        if node.ring is None:
            return
        order = node.ring.order
        while count and node.at < len(order):
            count -= 1
            item = order[node.at]
            node.at += 1
            self._deliver(node, item)

    def move(self, nodeids: Sequence[int], prefix: int = 0, hold: int = 0) -> None:
        """Let nodes form a ring.

        Args:
            nodeids: the nodes.
            prefix: how much of their old ring they deliver beyond what any of them already has.
            hold: the clients whose news of quorum are late: a bit for each client of a node.
        """
        nodes = [self.nodes[nodeid] for nodeid in nodeids if self.nodes[nodeid].up]
        if not nodes:
            return
        for ring in {id(node.ring): node.ring for node in nodes if node.ring is not None}.values():
            self._leave(ring, [node for node in nodes if node.ring is ring], prefix)
        seq = max(node.seq for node in nodes) + 4
        ring = Ring(RingId(min(node.id for node in nodes), seq))
        ring.order.append((SYNC, [connection for node in nodes for connection in node.locals]))
        for node in nodes:
            node.seq, node.ring, node.ring_id, node.at = seq, ring, ring.id, 0
            node.synced, node.hold = False, hold
            hold >>= 2
        if self.trace is not None:
            self.trace(f"    ring {ring.id.seq} of {[node.id for node in nodes]}")

    def settle(self, nodeid: int) -> None:
        """Let the clients of a node have the news of quorum that are late."""
        for it in self.nodes[nodeid].locals:
            it.settle()

    def _leave(self, ring: Ring, together: Sequence[Node], prefix: int) -> None:
        order = ring.order
        floor = max(node.at for node in together)
        end = floor + prefix % (len(order) - floor + 1)
        rest = [item for item in order[end:] if item[0] != SYNC and item[1].node in together]
        for node in together:
            for item in order[node.at : end]:
                self._deliver(node, item)
            for item in rest:
                self._deliver(node, item)

    def _deliver(self, node: Node, item: tuple[Any, ...]) -> None:
        kind, connection = item[0], item[1]
        if kind == FRAME:
            if connection.late and connection.node is node:
                self._report(connection)
            for it in node.locals:
                it.show((MESSAGE, connection.address, item[2]))
        elif kind == SYNC:
            node.synced = True
            node.members = [*item[1]]
            self._show_ring(node)
        elif kind == DROPPED:
            self._drop(node, connection, item[2], late=item[3])
        elif kind == JOIN:
            node.members.append(connection)
            if connection.node is node and not connection.closed:
                node.locals.append(connection)
                connection.show((CONNECTED, connection.address))
            self._show_members(node)
        elif connection in node.members:
            node.members.remove(connection)
            self._show_members(node)

    def _drop(self, node: Node, connection: Connection, frame: bytes, *, late: int) -> None:
        if connection.node is node:
            connection.late.append(frame)
            if not late:
                self._report(connection)

    def _show_members(self, node: Node) -> None:
        """Show the members on a node that others have joined or left."""
        members = self._addresses(node)
        for it in node.locals:
            it.show((VIEW, node.ring_id, members))

    def _report(self, connection: Connection) -> None:
        if not connection.closed:
            for frame in connection.late:
                connection.show((LOST, frame))
        connection.late.clear()

    def _show_ring(self, node: Node) -> None:
        """Show the members on a node the view of a new ring."""
        members = self._addresses(node)
        for number, it in enumerate(node.locals):
            kept = [event for event in it.held or () if event[0] != VIEW]  # a ring that has ended gets no view any more
            it.held = [] if node.hold >> number & 1 else None
            it.show((VIEW, node.ring_id, members))
            for event in kept:
                it.show(event)

    def _addresses(self, node: Node) -> tuple[Address, ...]:
        return tuple(sorted({it.address for it in node.members}, key=_key))

    # -- quiet ---------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Send, deliver and read until nothing is left."""
        more = True
        while more:
            more = False
            for node in self.nodes.values():
                more |= self._drained(node)
            for name, process in self.processes.items():
                if process is not None and process.inbox and not process.stopped:
                    self.read(name, 1 << 30)
                    more = True

    def _drained(self, node: Node) -> bool:
        """Let a node send some and deliver all that it can; whether there was anything."""
        if node.ring is None:
            return False
        self.place(node.id, 10)
        more = bool(node.queue) or node.at < len(node.ring.order)
        self.deliver(node.id, 1 << 30)
        for it in node.locals:
            if it.held is not None or it.late:
                more = True
            it.settle()
            self._report(it)
        return more

    def calm(self) -> None:
        """Let processes connect, and all messages flow."""
        for name in self.names:
            self.connect(name)
        self.drain()

    def quiet(self) -> None:
        """Heal everything, let all read everything, and check that the members agree.

        Raises:
            Violation: they do not, although a majority of the seats is alive.
        """
        self.heal()
        self.come_to_rest()
        self._check_end()

    def heal(self) -> None:
        """Let all daemons and processes go on, in one ring."""
        for nodeid in self.nodes:
            self.start(nodeid)
        for name in self.names:
            self.go_on(name)
            if process := self.processes[name]:
                self._flush(process)
        if len({id(node.ring) for node in self.nodes.values()}) > 1:
            self.move([*self.nodes])

    def come_to_rest(self) -> None:
        """Let processes begin, all messages flow, and time pass until the members agree, or nothing helps."""
        for _ in range(40):
            for name in self.names:
                self.launch(name)
            self.calm()
            self._catch_up()
            if self.agreed():
                break
            for name in self.names:
                self.tick(name)

    def _catch_up(self) -> None:
        """Form rings until their numbers are greater than those that any process has seen."""
        alive = [it.agreement for it in self.processes.values() if it is not None]
        if any(it._ring is not None and it.ballot is None for it in alive):
            seen = max(it._promised.seq for it in alive if it._promised is not None)
            for node in self.nodes.values():
                node.seq = max(node.seq, seen)
            self.move([*self.nodes])
            self.calm()

    def _check_end(self) -> None:
        alive = [it for it in self.processes.values() if it is not None]
        reasons = {it.name: it.agreement.obstacle() for it in alive}
        if self.agreed():
            # An electorate that is not committed yet may have a seat whose member is dead.
            if any(reasons.values()) and self.can_go_on():
                raise Violation(f"all is well, but this is said: {reasons}")
            return
        if self.can_go_on():
            if undecided(it.agreement for it in alive):
                raise Undecided
            raise Violation(f"not live ({reasons}): " + "; ".join(f"{it.name} {status(it)}" for it in alive))
        stalled = not any(it.agreement.state is PRIMARY for it in alive)
        if stalled and None in reasons.values():
            raise Violation(f"stalled, but not all members say a reason: {reasons}")

    def agreed(self) -> bool:
        """Whether all members are primary and have applied the same, and all that they have proposed."""
        history = self.history
        return all(
            it is not None
            and it.agreement.state is PRIMARY
            and it.machine.count == len(history.applied)
            and not history.waits(it.agreement.incarnation)
            for it in self.processes.values()
        )

    def _describe(self, event: tuple[Any, ...]) -> str:
        if event[0] == MESSAGE:
            return f"from {event[1]}: {describe(event[2])}"
        if event[0] == LOST:
            return f"lost {describe(event[1])}"
        if event[0] == VIEW:
            return f"view of ring {event[1].seq}: {' '.join(map(str, event[2]))}"
        return f"connected as {event[1]}" if event[0] == CONNECTED else "disconnected"


def _key(address: Address) -> tuple[int, int]:
    return address.nodeid, address.pid


def undecided(agreements: Iterable[Agreement]) -> bool:
    """Whether two seats of those that are alive have unsure and different ends of one log, and another seat is dead."""
    alive = {it.incarnation: it for it in agreements}
    seats = {seat for it in alive.values() for config in it.holding.configs for seat in config.seats.values()}
    offers = [offer for seat in seats & alive.keys() if (offer := alive[seat].offers.get(seat)) is not None]
    claims = [offer.claim for offer in offers if offer.claim is not None]
    return not seats <= alive.keys() and any(
        one.ballot == other.ballot and not one.includes(other) and not other.includes(one)
        for one, other in combinations(claims, 2)
    )


def describe(frame: bytes) -> str:
    """A frame in a few words."""
    return str(decode(frame))


def status(process: Process) -> str:
    """What a process knows, in a few words."""
    it = process.agreement
    holding = it.holding
    entries = f"log {holding.base}-{holding.length}" if it.holding.has_log else "no log"
    ballot = it.ballot and (*it.ballot[:3], it.ballot.founder % 1000)
    return f"{it.state.name} {ballot} {entries} committed {holding.committed} pending {len(it.pending)}"
