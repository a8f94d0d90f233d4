"""Wait until daemons do what they were started for, or say why they do not."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence

import trio

from ..._cpg import open_cpg
from ..._errors import ConnectionLostError, CorosyncError, CorosyncUnavailableError
from ..._types import VotequorumNodelist
from ..._votequorum import Votequorum, open_votequorum
from .machine import Machine

LIMIT = 30.0
"""Seconds that a start may take; a machine under load is slow, yet not that slow."""

_RETRY = 0.01
_LOG_LINES = 20
_COMPLAINT = re.compile(r"^\w{3} \d+ [\d:.]+ (?:error|crit|alert|emerg)\s+(.*)$", re.MULTILINE)


def describe_status(status: int | None) -> str:
    """How a process ended, from its wait(2) status."""
    if status is None:
        return "for an unknown reason"
    code = os.waitstatus_to_exitcode(status)
    return f"with exit status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


def describe_log(log: str) -> str:
    """The daemon's own complaints, and the end of its log."""
    complaints = "".join(f"  it said: {complaint}\n" for complaint in dict.fromkeys(_COMPLAINT.findall(log)))
    lines = "".join(f"\n    {line}" for line in log.splitlines()[-_LOG_LINES:])
    return f"{complaints}  its log ends:{lines}" if lines else "  its log is empty"


class Readiness:
    """Waits for daemons that have just been started."""

    def __init__(self, machines: Sequence[Machine], status: Callable[[int], int | None]) -> None:
        self._machines = machines
        self._status = status
        self._sees = dict.fromkeys((machine.nodeid for machine in machines), "no client can connect to it")
        self._failures: dict[str, None] = {}

    async def wait(self, members: frozenset[int] | None) -> None:
        """Wait until clients can connect to each daemon and, if `members` are given, until it is in a cluster of these.

        Votes have been counted by then. Whether there are enough of them is a matter of the configuration.

        Raises:
            CorosyncUnavailableError: a daemon ended, or it all took too long.
        """
        async with trio.open_nursery() as watchers:
            everything = watchers.cancel_scope
            everything.deadline = trio.current_time() + LIMIT
            for machine in self._machines:
                watchers.start_soon(self._watch, machine, everything)
            async with trio.open_nursery() as nursery:
                for machine in self._machines:
                    nursery.start_soon(self._wait_one, machine, members, everything)
            everything.cancel()
        if self._failures:
            raise CorosyncUnavailableError("\n".join(self._failures))
        if self._sees:
            goal = "clients connect" if members is None else f"every node is in a cluster of {sorted(members)}"
            findings = [
                f"node {machine.nodeid}: {self._sees.get(machine.nodeid, 'ready')}\n{describe_log(machine.latest_log)}"
                for machine in self._machines
            ]
            raise CorosyncUnavailableError("\n".join([f"not so after {LIMIT:g} seconds: {goal}", *findings]))

    async def _watch(self, machine: Machine, everything: trio.CancelScope) -> None:
        await machine.ended()
        try:
            how = describe_status(self._status(machine.nodeid))
        except CorosyncUnavailableError as error:
            # The supervisor has ended, and all daemons with it: that is no matter of this node.
            self._fail(str(error), everything)
        else:
            self._fail_node(machine, f"corosync ended during the start, {how}", everything)

    async def _wait_one(  # noqa: ASYNC910 - a task of our own
        self, machine: Machine, members: frozenset[int] | None, everything: trio.CancelScope
    ) -> None:
        try:
            while not await self._is_ready(machine, members):  # noqa: ASYNC110 - the daemon tells nobody
                await trio.sleep(_RETRY)
        except CorosyncError as error:
            self._fail_node(machine, str(error), everything)
        else:
            del self._sees[machine.nodeid]

    async def _is_ready(self, machine: Machine, members: frozenset[int] | None) -> bool:
        """Connect, and wait for the membership; False if the daemon is not there yet."""
        try:
            async with open_votequorum(endpoint=machine.endpoint) as votequorum:
                if members is not None:
                    await self._wait_members(machine.nodeid, votequorum, members)
                    # We may have been told in the middle of the transition. CPG answers after it.
                    async with open_cpg(endpoint=machine.endpoint) as cpg:
                        await cpg.local_nodeid()
        except (CorosyncUnavailableError, ConnectionLostError):
            return False  # noqa: ASYNC910 - connecting is a checkpoint
        return True  # noqa: ASYNC910 - as above

    async def _wait_members(self, nodeid: int, votequorum: Votequorum, members: frozenset[int]) -> None:
        ring: list[int] = []
        async with votequorum.track() as changes:
            async for change in changes:
                if isinstance(change, VotequorumNodelist):
                    ring = sorted(change.nodes)
                    self._sees[nodeid] = f"its cluster is {ring}"
                elif ring == sorted(members):
                    return

    def _fail_node(self, machine: Machine, text: str, everything: trio.CancelScope) -> None:
        self._fail(f"node {machine.nodeid}: {text}\n{describe_log(machine.latest_log)}", everything)

    def _fail(self, text: str, everything: trio.CancelScope) -> None:
        self._failures[text] = None
        everything.cancel()
