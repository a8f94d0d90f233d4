"""The state at the end of a story in words: the network, the nodes, and the calls that wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .._cluster.network import Network
from . import words
from .story import Condition, End, NodeState


def state_at_the_end(end: End) -> list[str]:
    """Lines that say in what state the cluster is at the end."""
    if not end.states:
        return []
    views: dict[int, list[str]] = {node: [] for node in end.states}
    for view in end.views:
        name = words.client_in_words(view.client)
        client = f" (as {name} sees it)" if name == view.client else ""
        text = f"{words.group_in_words(view.group)}: {words.members_in_words(view.members)}{client}"
        if text not in views[view.node]:
            views[view.node].append(text)
    pending = [
        f"  {words.client_in_words(call.client)} waits in {words.call_in_words(call.function, call.arguments)}"
        for call in end.pending
    ]
    return [
        f"  network     {network_in_words(end.network)}",
        *nodes_in_lines(end.states, {node: "; ".join(texts) for node, texts in views.items()}),
        *pending,
    ]


def nodes_in_lines(states: Mapping[int, NodeState], views: Mapping[int, str]) -> Iterator[str]:
    """A line for each state, with the nodes that are in it."""
    alike: dict[str, list[int]] = {}
    for node, state in states.items():
        text = state_in_words(state)
        view = views.get(node, "")
        alike.setdefault(f"{text}; {view}" if view and state.condition is Condition.UP else text, []).append(node)
    for text, nodes in alike.items():
        yield f"  {words.nodes_in_words(nodes, states):<11} {text}"


def state_in_words(state: NodeState) -> str:
    """Such as "up, ring of nodes 2, 3, quorate"."""
    if state.condition is not Condition.UP:
        return str(state.condition.value).upper()
    ring = ""
    if state.members:
        ring = f", ring of {words.nodes_in_words(state.members)}" if len(state.members) > 1 else ", alone in its ring"
    return f"up{ring}{words.quorum_in_words(quorate=state.quorate)}"


def network_in_words(network: Network) -> str:
    """Such as "cut: 1 | 2, 3"."""
    parts: list[str] = []
    left = sorted(network.nodeids)
    sides: list[list[int]] = []
    while left:
        side = [node for node in left if network.linked(left[0], node)]
        sides.append(side)
        left = [node for node in left if node not in side]
    expected = network.partition(sides).cut if len(sides) > 1 else frozenset[tuple[int, int]]()
    if network.cut == expected and not network.cut_links:
        parts += [f"CUT: {words.sides_in_words(sides)}"] if expected else []
    else:
        parts += [f"CUT: node {source} is not heard by node {target}" for source, target in sorted(network.cut)]
        parts += [
            f"CUT: node {source} is not heard by node {target} on link {link}"
            for source, target, link in sorted(network.cut_links)
        ]
    parts += [f"{loss:g} % of the packets to node {node} are lost" for node, loss in network.loss.items() if loss]
    return "; ".join(parts) or "whole"
