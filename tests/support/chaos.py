"""A cluster to which everything happens while clients use it, recorded."""

from __future__ import annotations

import itertools
from contextlib import suppress
from functools import partial

import trio

import triocoro
from support.observers import again, quorum, votes
from triocoro.testing import Cluster, FakeCluster, History, NetnsCluster, RecordingEndpoint

_PACE = {FakeCluster: 0.01, NetnsCluster: 0.06}
"""Seconds between two messages of a member, or two questions: a real ring takes much longer to form."""
_LIFE = 50
"""Messages that a member of group b sends before it leaves, and comes again; those of a stay, if they can."""
_LOAD = 0.1
"""Seconds for which things are left as they are once they have settled."""

_numbers = itertools.count(1)


async def chaos(cluster: Cluster) -> History:
    """Partition, isolate, kill, freeze, stop and restart nodes, while two members and two observers live on each node.

    The cluster has three nodes or more. `cut` and `lose` are left out, since real nodes may not settle in time then. In
    the end the cluster is whole again.
    """
    history = History()
    cluster.record(history)
    pace = next(seconds for kind, seconds in _PACE.items() if isinstance(cluster, kind))
    async with trio.open_nursery() as nursery:
        for nodeid, node in cluster.nodes.items():
            for group in ("a", "b"):
                member = history.endpoint(node, client=f"{group}{nodeid}")
                nursery.start_soon(again, partial(_member, member, group, pace))
            for role, observe in (("v", votes), ("q", quorum)):
                observer = history.endpoint(node, client=f"{role}{nodeid}")
                nursery.start_soon(again, partial(observe, observer, lambda: pace))
        await _faults(cluster)
        nursery.cancel_scope.cancel()
    return history


async def _faults(cluster: Cluster) -> None:
    async def do(verb: str, nodeid: int) -> None:
        await getattr(cluster[nodeid], verb)()

    async def settled() -> None:
        await cluster.settled()
        await trio.sleep(_LOAD)

    await settled()
    await cluster.partition({1}, {2, 3})
    await settled()
    await do("kill", 3)
    await cluster.heal()
    await do("start", 3)
    await settled()
    await do("freeze", 2)
    await settled()
    await do("thaw", 2)
    # If a node is lost in the middle of a transition, its members can remain listed as ghosts (docs/divergences.md),
    # which the checkers rightly find.
    await settled()
    await cluster.isolate(3)
    await settled()
    await do("stop", 1)
    await do("start", 1)
    await settled()
    await cluster.heal()
    await do("restart", 2)
    await settled()


async def _member(endpoint: RecordingEndpoint, group: str, pace: float) -> None:
    with suppress(triocoro.MessageLostError):
        async with triocoro.open_group(group, endpoint=endpoint) as member:
            for number in itertools.islice(_numbers, None if group == "a" else _LIFE):
                await member.send(f"message {number}".encode())
                with trio.move_on_after(pace):
                    async for _ in member:
                        pass
