"""Clients of the replicated store of tests/downstream, and the check whether what they were told can be true."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import trio
from replicated_store import NoQuorumError, Store

import triocoro
from triocoro.testing import Cluster, History, Violation, check_linearizable, models


async def use_store(cluster: Cluster, *, seconds: float) -> list[Violation]:
    """Let a client on each node write and read a key for that time, and check the history of it."""
    if cluster.history is None:
        cluster.record(History())
    assert cluster.history is not None
    values = itertools.count(1)
    with trio.move_on_after(seconds):  # noqa: ASYNC912 - a cluster has nodes
        async with trio.open_nursery() as nursery:
            for nodeid, node in cluster.nodes.items():
                store = Store("settings")
                with node.as_default():
                    await nursery.start(store.run)
                nursery.start_soon(_use, store, nodeid, cluster.history, values)
    return check_linearizable(cluster.history.operations(), models.Map())


async def _use(store: Store, nodeid: int, history: History, values: Iterator[int]) -> None:
    client = f"client {nodeid}"
    while True:
        try:
            if random.random() < 0.5:
                value = str(next(values))
                with history.operation("put", "key", value, client=client, node=nodeid, refused=(NoQuorumError,)):
                    await store.set("key", value)
            else:
                with history.operation("get", "key", client=client, node=nodeid, refused=(NoQuorumError,)) as operation:
                    await store.set("mark", "")  # after which this replica has all earlier writes
                    operation.result = store.data.get("key")
        except (NoQuorumError, triocoro.CorosyncError):
            pass
        await trio.sleep(random.uniform(0.05, 0.15))
