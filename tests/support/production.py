"""Looks at clusters with the options of production clusters."""

from __future__ import annotations

from contextlib import AsyncExitStack

import triocoro
from triocoro import Message, VotequorumNodelist
from triocoro.testing import Cluster, Node


async def nodes_seen_by(node: Node) -> tuple[int, ...]:
    """The nodes of a node's ring."""
    async with triocoro.open_votequorum(endpoint=node.endpoint) as votequorum, votequorum.track() as changes:
        nodelist = await changes.receive()
        assert isinstance(nodelist, VotequorumNodelist)
        return nodelist.nodes


async def messages_get_around(cluster: Cluster) -> None:
    """A large message from each node arrives at the others."""
    payload = bytes(range(256)) * 400
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(triocoro.open_group("around", endpoint=node.endpoint))
            for node in cluster.nodes.values()
        ]
        for sender in groups:
            await sender.send_and_wait(payload)
        for receiver in groups:
            heard = await next_messages(receiver, len(groups))
            assert {message.sender.nodeid for message in heard} == set(cluster.nodes)
            assert all(message.payload == payload for message in heard)


async def next_messages(group: triocoro.Group, number: int) -> list[Message]:
    """The next messages of a group."""
    messages: list[Message] = []
    while len(messages) < number:
        event = await group.receive()
        if isinstance(event, Message):
            messages.append(event)
    return messages
