"""The states of nodes and of the network, as the page draws them: bands along the axis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from .._history.entries import Entry, Fault
from . import words
from .story import NodeSpan, Story


def node_bands(story: Story, axis: Sequence[float]) -> Iterator[dict[str, Any]]:
    """What each node is: in a ring, with or without quorum, frozen, or without a daemon.

    Yields:
        a band with its node. The hue stands for the nodes of the ring: all nodes have 0.
    """
    hues = {story.nodes: 0}
    by_node: dict[int, list[NodeSpan]] = defaultdict(list)
    for span in story.node_spans:
        by_node[span.node].append(span)
    for node, spans in by_node.items():
        for span in _merged(spans):
            state = span.state
            yield {
                "node": node,
                "from": axis[span.first],
                "to": axis[span.end],
                "ring": None if state.ring_id is None else words.ring_in_words(state.ring_id),
                "nodes": words.nodes_in_words(state.members) if state.members else "",
                "quorate": state.quorate,
                "condition": state.condition.value,
                "hue": None if state.ring_id is None else hues.setdefault(state.members, len(hues)),
            }


def _merged(spans: Sequence[NodeSpan]) -> list[NodeSpan]:
    """Without the moments in which a ring is known and its quorum is not."""
    merged: list[NodeSpan] = []
    for span in spans:
        last = merged[-1] if merged else span
        alike = attrs.evolve(last.state, quorate=None) == attrs.evolve(span.state, quorate=None)
        if merged and alike and last.state.quorate in {None, span.state.quorate}:
            merged[-1] = attrs.evolve(span, first=last.first, began=last.began)
        else:
            merged.append(span)
    return merged


def network_bands(entries: Sequence[Entry], axis: Sequence[float]) -> list[list[Any]]:
    """The network while it is not whole: from where to where, and what is wrong."""
    bands: list[list[Any]] = []
    cuts: list[str] = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, Fault) or entry.verb not in {"partition", "isolate", "cut", "lose", "heal"}:
            continue
        if cuts:
            bands[-1][1] = axis[index]
        if entry.verb in {"heal", "partition"}:
            cuts = []
        if entry.verb != "heal":
            node = words.node_of_fault(entry)
            cuts.append(f"{'' if node is None else f'node {node} '}{words.fault_in_words(entry)}")
            bands.append([axis[index], axis[-1], "; ".join(cuts)])
    return bands
