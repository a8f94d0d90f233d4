"""A member of a group that lives through restarts and faults of its daemon by `triocoro.sessions`.

    python -m support.restarts --number=1000    # on two real nodes; what make restarts does

The member is on node 1, to which everything happens. An observer on node 2 sees all of its memberships. Each message
says in which epoch it was sent, so that both notice if two epochs are shown as one.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

import triocoro
from triocoro import ConfigChange, Group, Message
from triocoro._lifetime import Lifetime
from triocoro.testing import Cluster, NetnsCluster, Node

from .traces import GRACE, busy_threads, names_in

GROUP = b"restarts"
_PAUSE = 0.02


@attrs.frozen
class Usage:
    """What this process and the nodes' /dev/shm hold, while the member and the observer are connected."""

    fds: int
    threads: int
    tasks: int
    mappings: int
    """Of files in /dev/shm."""
    shared_memory: int
    """Connections in the nodes' /dev/shm."""
    connections: int
    """Objects of connections, open or not."""

    @classmethod
    def now(cls, cluster: Cluster) -> Usage:
        gc.collect()
        holders = [node.namespace_pid for node in cluster.nodes.values()] if isinstance(cluster, NetnsCluster) else []
        return cls(
            fds=len(names_in("/proc/self/fd")),
            threads=len(busy_threads()),
            tasks=trio.lowlevel.current_statistics().tasks_living,
            mappings=Path("/proc/self/maps").read_text(encoding="utf-8").count("/qb-"),
            shared_memory=sum(
                path.is_dir() for holder in holders for path in Path(f"/proc/{holder}/root/dev/shm").glob("qb-*")
            ),
            connections=sum(isinstance(thing, Lifetime) for thing in gc.get_objects()),
        )

    def exceeds(self, other: Usage) -> bool:
        # Up to four memberships are remembered: those that were ending when the latest one began.
        allowed = attrs.evolve(other, connections=other.connections + 4)
        return any(mine > theirs for mine, theirs in zip(attrs.astuple(self), attrs.astuple(allowed), strict=True))


@attrs.define
class Restarts:
    """What happens to node 1 of a cluster of two, and what its member and its observer see."""

    cluster: Cluster
    upgrades: Sequence[str] = ()
    """Folders of other builds of the daemon, from which each restart takes the next one."""
    done: int = 0
    losses: int = 0
    """The connections that have been lost."""
    epoch: int = 0
    """The epoch that the member is in."""
    violations: list[str] = attrs.field(factory=list[str])
    _seen: tuple[int, int] = (0, 0)
    _joins: int = 0
    _leaves: int = 0
    _changed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def node(self) -> Node:
        return self.cluster[1]

    @property
    def faults(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        return self.stop, self.kill, self.freeze, self.partition, self.upgrade

    async def run(self, number: int, *, every: int, progress: Callable[[Usage], None] = lambda _: None) -> None:
        """Let faults happen, each of them in turn.

        Args:
            number: how many.
            every: after how many of them to look at what is held. To hold more than the first time is a violation.
            progress: called with what is held then.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._observe)
            nursery.start_soon(self._be_a_member)
            await self._caught_up(1)
            before: Usage | None = None
            for fault in range(number):
                await self.faults[fault % len(self.faults)]()
                self.done += 1
                if self.done % every == 0:
                    usage = await self._settled_usage(before)
                    if before is None:
                        before = usage
                    elif usage.exceeds(before):
                        self.violations.append(
                            f"after {self.done} faults, more is held than at first: {usage}, {before}"
                        )
                        before = usage
                    progress(usage)
            nursery.cancel_scope.cancel()

    # -- faults --------------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        epoch = self.epoch
        await self.node.stop()
        await self.node.start()
        await self._caught_up(epoch + 1)

    async def kill(self) -> None:
        epoch = self.epoch
        await self.node.kill()
        await self.node.start()
        await self._caught_up(epoch + 1)

    async def freeze(self) -> None:
        """For longer than the token: the other node gives it up. The connection stays."""
        epoch, leaves = self.epoch, self._leaves
        await self.node.freeze()
        await self._until(lambda: self._leaves > leaves)
        await self.node.thaw()
        await self._caught_up(epoch)

    async def partition(self) -> None:
        """The connection stays."""
        epoch, leaves = self.epoch, self._leaves
        await self.cluster.partition({1}, {2})
        await self._until(lambda: self._leaves > leaves)
        await self.cluster.heal()
        await self._caught_up(epoch)

    async def upgrade(self) -> None:
        epoch = self.epoch
        upgrades = len(self.upgrades)
        with _first_on_path(self.upgrades[self.done // len(self.faults) % upgrades] if upgrades else ""):
            await self.node.restart()
        await self._caught_up(epoch + 1)

    async def _caught_up(self, epoch: int) -> None:
        """Wait until the observer has a message that the member sent in that epoch, from now on."""
        _, number = self._seen
        await self._until(lambda: self._seen > (epoch, number + 1) or self.violations != [])
        if self._seen[0] != epoch:
            self.violations.append(f"after {self.done} faults, the member is in epoch {self.epoch}, not {epoch}")

    async def _settled_usage(self, bound: Usage | None) -> Usage:
        """What is held once what ends in the background has ended."""
        deadline = trio.current_time() + GRACE
        while True:
            usage = Usage.now(self.cluster)
            if bound is None or not usage.exceeds(bound) or trio.current_time() > deadline:
                return usage
            await trio.sleep(_PAUSE)

    # -- the two members -----------------------------------------------------------------------------------------------

    async def _be_a_member(self) -> None:
        async for session in triocoro.sessions(GROUP, endpoint=self.node.endpoint):
            async with session as group, trio.open_nursery() as nursery:
                self.epoch = session.epoch
                nursery.start_soon(self._send, group, session.epoch)
                first = await group.receive()
                if not isinstance(first, ConfigChange) or group.address not in [it.address for it in first.joined]:
                    self.violations.append(f"epoch {session.epoch} begins with {first}")
                async for event in group:
                    self._check_own(event, group, session.epoch)
            self.losses += session.lost is not None

    def _check_own(self, event: triocoro.GroupEvent, group: Group, epoch: int) -> None:
        if isinstance(event, Message) and event.sender == group.address and _parse(event)[0] != epoch:
            self.violations.append(f"epoch {epoch} shows {event}")
        if isinstance(event, ConfigChange) and group.address in [it.address for it in event.left]:
            self.violations.append(f"epoch {epoch} shows the end of its membership: {event}")

    async def _send(self, group: Group, epoch: int) -> None:
        while True:
            await group.send_and_wait(b"%d %d" % (epoch, self._seen[1] + 1))
            await trio.sleep(_PAUSE)

    async def _observe(self, task_status: trio.TaskStatus[None]) -> None:
        joined = False
        async with triocoro.open_group(GROUP, endpoint=self.cluster[2].endpoint) as group:
            task_status.started()
            async for event in group:
                if isinstance(event, ConfigChange):
                    joined = joined or any(it.address.nodeid == 1 for it in event.joined)
                    self._leaves += any(it.address.nodeid == 1 for it in event.left)
                elif isinstance(event, Message) and event.sender.nodeid == 1:
                    epoch, number = _parse(event)
                    if epoch < self._seen[0] or (epoch > self._seen[0] and not joined):
                        self.violations.append(f"the observer sees {event} after epoch {self._seen[0]}, without a join")
                    joined = False
                    self._seen = epoch, max(number, self._seen[1])
                self._changed.set()
                self._changed = trio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()


def _parse(message: Message) -> tuple[int, int]:
    epoch, number = map(int, message.payload.split())
    return epoch, number


@contextmanager
def _first_on_path(folder: str) -> Generator[None, None, None]:
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join(filter(None, [folder, path]))
    try:
        yield
    finally:
        os.environ["PATH"] = path


async def _run(number: int, upgrades: Sequence[str]) -> list[str]:
    async with NetnsCluster(nodes=2) as cluster:
        restarts = Restarts(cluster, upgrades)
        began = trio.current_time()

        def progress(usage: Usage) -> None:
            held = ", ".join(f"{value} {name}" for name, value in attrs.asdict(usage).items())
            seconds = trio.current_time() - began
            print(f"{restarts.done} faults, {restarts.losses} losses in {seconds:.0f} s: {held}", flush=True)

        await restarts.run(number, every=5 if number < 100 else 25, progress=progress)
    return restarts.violations


def main() -> int:
    parser = argparse.ArgumentParser(description="Let a member live through restarts and faults of its daemon.")
    parser.add_argument("--number", type=int, default=10, help="how many of them")
    parser.add_argument(
        "--upgrade", action="append", default=[], help="a folder with another corosync; may be given several times"
    )
    options = parser.parse_args()
    violations = trio.run(_run, options.number, options.upgrade)
    print(*violations or ["no violation"], sep="\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
