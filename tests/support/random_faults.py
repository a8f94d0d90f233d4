"""A cluster to which things happen by chance while clients use it, recorded. The same seed has the same happen."""

from __future__ import annotations

import random
from functools import partial

import trio

import triocoro
from support.observers import again, quorum, votes
from triocoro.testing import FakeCluster, History, RecordingEndpoint


async def random_faults(cluster: FakeCluster, seed: int, *, seconds: float = 3) -> History:
    """That many seconds of it; in the end the cluster is whole again, and has been so for a while."""
    history = History()
    async with trio.open_nursery() as nursery:
        for nodeid, node in cluster.nodes.items():
            for group in ("a", "b"):
                member = history.endpoint(node, client=f"{group}{nodeid}", via=node.client())
                chance = random.Random(f"{seed} {nodeid} {group}")
                nursery.start_soon(again, partial(_member, member, group, chance))
            for role, observe in (("v", votes), ("q", quorum)):
                observer = history.endpoint(node, client=f"{role}{nodeid}", via=node.client())
                chance = random.Random(f"{seed} {nodeid} {role}")
                nursery.start_soon(again, partial(observe, observer, partial(chance.expovariate, 10)))
        await faults(cluster, history, random.Random(seed), seconds)
        nursery.cancel_scope.cancel()
    return history


async def faults(cluster: FakeCluster, history: History, chance: random.Random, seconds: float) -> None:
    """Let faults happen for that many seconds; in the end the cluster is whole, and has been so for a while."""
    with trio.move_on_after(seconds):
        while True:
            await trio.sleep(chance.expovariate(20))
            await _fault(cluster, history, chance)
    await cluster.heal()
    for node in cluster.nodes.values():
        await node.thaw()
        await node.start()
    await cluster.settled()
    await trio.sleep(0.1)


async def _fault(cluster: FakeCluster, history: History, chance: random.Random) -> None:
    nodeid = chance.choice(sorted(cluster.nodes))
    verb = chance.choice(("partition", "heal", "heal", "isolate", "kill", "stop", "start", "freeze", "thaw", "thaw"))
    if verb == "partition":
        sides = [[other for other in cluster.nodes if chance.random() < 0.5], []]
        sides[1] = [other for other in cluster.nodes if other not in sides[0]]
        await cluster.partition(*sides)
        history.fault(verb, sides=sides)
    elif verb in {"heal", "isolate"}:
        await getattr(cluster, verb)(*([nodeid] if verb == "isolate" else []))
        history.fault(verb, node=nodeid)
    elif verb != "freeze" or cluster[nodeid].running:
        await getattr(cluster[nodeid], verb)()
        history.fault(verb, node=nodeid)


async def _member(endpoint: RecordingEndpoint, group: str, chance: random.Random) -> None:
    async with triocoro.open_group(group, endpoint=endpoint) as member:
        for number in range(chance.randint(1, 100)):
            await member.send(f"{number} {chance.random()}".encode())
            with trio.move_on_after(chance.expovariate(50)):
                async for _event in member:
                    pass
