"""Wait until started daemons are ready, or report why they are not."""

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
from .._cluster.options import ClusterOptions
from .._cluster.waits import stretched
from .node_processes import NodeProcesses

LIMIT = 30.0
"""Seconds that a start may take, even on a machine under load, with the usual options."""

_RETRY = 0.01
_LOG_LINES = 20
_COMPLAINT = re.compile(r"^\w{3} \d+ [\d:.]+ (?:error|crit|alert|emerg)\s+(.*)$", re.MULTILINE)


def describe_status(status: int | None) -> str:
    """How a process ended, in words, from its wait(2) status."""
    if status is None:
        return "for an unknown reason"
    code = os.waitstatus_to_exitcode(status)
    return f"with exit status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"


def describe_log(log: str) -> str:
    """The errors in a daemon's log, and its last lines."""
    complaints = "".join(f"  it said: {complaint}\n" for complaint in dict.fromkeys(_COMPLAINT.findall(log)))
    lines = "".join(f"\n    {line}" for line in log.splitlines()[-_LOG_LINES:])
    return f"{complaints}  its log ends:{lines}" if lines else "  its log is empty"


class Readiness:
    """Waits for daemons that have just been started."""

    def __init__(
        self, nodes: Sequence[NodeProcesses], status: Callable[[int], int | None], options: ClusterOptions
    ) -> None:
        self._nodes = nodes
        self._limit = stretched(LIMIT, options)
        self._status = status
        self._sees = dict.fromkeys((node.nodeid for node in nodes), "no client can connect to it")
        self._refusals: dict[int, str] = {}
        self._failures: dict[str, None] = {}

    async def wait(self, members: frozenset[int] | None) -> None:
        """Wait until clients can connect to each daemon and, with `members`, until its cluster has these members.

        Its votes have been counted by then; whether they are enough depends on the configuration.

        Raises:
            CorosyncUnavailableError: a daemon ended, or it all took too long.
        """
        async with trio.open_nursery() as watchers:
            everything = watchers.cancel_scope
            everything.deadline = trio.current_time() + self._limit
            for node in self._nodes:
                watchers.start_soon(self._watch, node, everything)
            async with trio.open_nursery() as nursery:
                for node in self._nodes:
                    nursery.start_soon(self._wait_one, node, members, everything)
            everything.cancel()
        if self._failures:
            raise CorosyncUnavailableError("\n".join(self._failures))
        if self._sees:
            goal = "clients connect" if members is None else f"every node is in a cluster of {sorted(members)}"
            findings = [
                f"{node.label}: {self._sees.get(node.nodeid, 'ready')}\n{self._refusals.get(node.nodeid, '')}"
                f"{describe_log(node.latest_log)}"
                for node in self._nodes
            ]
            raise CorosyncUnavailableError("\n".join([f"not so after {self._limit:g} seconds: {goal}", *findings]))

    async def _watch(self, node: NodeProcesses, everything: trio.CancelScope) -> None:  # noqa: ASYNC910 - it is a task of its own
        try:
            await node.ended()
            how = describe_status(self._status(node.nodeid))
        except CorosyncError as error:
            # The supervisor has ended, and all daemons with it, or we cannot watch. That says nothing about this node.
            self._fail(str(error), everything)
        else:
            self._fail_node(node, f"corosync ended during the start, {how}", everything)

    async def _wait_one(  # noqa: ASYNC910 - it is a task of its own
        self, node: NodeProcesses, members: frozenset[int] | None, everything: trio.CancelScope
    ) -> None:
        try:
            while not await self._is_ready(node, members):  # noqa: ASYNC110 - a daemon does not announce it
                await trio.sleep(_RETRY)
        except CorosyncError as error:
            self._fail_node(node, str(error), everything)
        else:
            del self._sees[node.nodeid]

    async def _is_ready(self, node: NodeProcesses, members: frozenset[int] | None) -> bool:
        """Connect, and wait for the membership; False if the daemon does not accept connections yet.

        Raises:
            CorosyncError: waiting does not help, for example because we lack a library or file descriptors.
        """
        try:
            async with open_votequorum(endpoint=node.endpoint) as votequorum:
                self._refusals.pop(node.nodeid, None)
                if members is not None:
                    await self._wait_members(node.nodeid, votequorum, members)
                    # votequorum may announce it in the middle of the transition. CPG answers after that.
                    async with open_cpg(endpoint=node.endpoint) as cpg:
                        await cpg.local_nodeid()
        except (CorosyncUnavailableError, ConnectionLostError) as error:
            # A daemon that is starting does not answer yet, or gives up a connection. If its namespaces have gone, the
            # supervisor has ended, and `_watch` says why. All else stays as it is.
            passes = isinstance(error, ConnectionLostError) or isinstance(error.__cause__, CorosyncError)
            if not passes and error.function != "setns":
                raise
            self._refusals[node.nodeid] = f"  the last attempt failed: {error}\n"
            return False  # noqa: ASYNC910 - connecting is a checkpoint
        return True  # noqa: ASYNC910 - connecting is a checkpoint

    async def _wait_members(self, nodeid: int, votequorum: Votequorum, members: frozenset[int]) -> None:
        ring: list[int] = []
        async with votequorum.track() as changes:
            async for change in changes:
                if isinstance(change, VotequorumNodelist):
                    ring = sorted(change.nodes)
                    self._sees[nodeid] = f"its cluster is {ring}"
                elif ring == sorted(members):
                    return

    def _fail_node(self, node: NodeProcesses, text: str, everything: trio.CancelScope) -> None:
        self._fail(f"{node.label}: {text}\n{describe_log(node.latest_log)}", everything)

    def _fail(self, text: str, everything: trio.CancelScope) -> None:
        self._failures[text] = None
        everything.cancel()
