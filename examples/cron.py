"""Jobs that run on one node of a cluster at a time; every node knows the results.

    python examples/cron.py SECONDS COMMAND [ARGUMENT...]

Run it on each node. One of them runs the command every so many seconds, until it dies or is cut off; then another one
does. All of them show each run when it begins and when it ends.

What this cannot do: on a machine that was paused, a job may still run when another node begins. The list of runs takes
nothing from a former leader; what the job changes should check the token too (docs/recipes/lock.md).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from socket import gethostname
from typing import NamedTuple

import trio

from triocoro import recipes


class Run(NamedTuple):
    """A run of a job. Its outcome is None until it is known, and stays so if the leader dies."""

    job: str
    node: str
    outcome: str | None


class Runs:
    """The replicated state: all runs. The node of the last one leads, or did."""

    def __init__(self) -> None:
        self.token, self.runs = [0, 0], list[Run]()

    def apply(self, command: bytes) -> bytes:
        """Note that a run begins, which has no number yet, or how it has ended. Return its number."""
        token, number, *run = json.loads(command)
        if token >= self.token:
            self.token, number = token, number or len(self.runs) + 1
            self.runs[number - 1 : number] = [Run(*run)]
            print(number, *run)
        return b"%d" % number

    def snapshot(self) -> Iterable[bytes]:
        """Return the state for another node."""
        return [json.dumps([self.token, self.runs]).encode()]

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Take the state of another node."""
        self.token, runs = json.loads(b"".join(chunks))
        self.runs = [Run(*run) for run in runs]


class Cron:
    """A node's part. Start `run` in a nursery; it goes on whatever becomes of the daemon."""

    def __init__(self, node: str, jobs: Mapping[str, Callable[[], Awaitable[str]]], interval: float = 1) -> None:
        self._node, self._jobs, self._interval = node, jobs, interval
        self.replica: recipes.Replica[Runs]
        self.leader: recipes.Held | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the jobs while this node leads, until cancelled."""
        async with recipes.open_replica("cron", Runs()) as self.replica, recipes.open_leadership("cron-leader") as us:
            task_status.started()
            while True:
                async with us.lead() as self.leader:
                    while True:
                        for name, job in self._jobs.items():
                            number = await self._note(self.leader, 0, name, None)
                            await self._note(self.leader, number, name, await job())
                        await trio.sleep(self._interval)

    async def _note(self, leader: recipes.Held, number: int, job: str, outcome: str | None) -> int:
        token = [leader.token.epoch, leader.token.index]
        command = json.dumps([token, number, job, self._node, outcome]).encode()
        number = int(await self.replica.ensure(command))
        leader.check()  # else it may have been ignored
        return number


async def run_command() -> str:
    """Run the command of this program's arguments."""
    return f"exit status {(await trio.run_process(sys.argv[2:], check=False)).returncode}"


if __name__ == "__main__":
    trio.run(Cron(gethostname(), {sys.argv[2]: run_command}, float(sys.argv[1])).run)
