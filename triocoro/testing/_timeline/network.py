"""The network that recorded faults have left."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress

from .._cluster.network import Network
from .._history.entries import Entry, Fault
from . import words


def network_after(nodes: Collection[int], entries: Iterable[Entry]) -> Network:
    """The network after all faults of a history. Faults that Corosync's clusters do not know count for nothing."""
    faults = [entry for entry in entries if isinstance(entry, Fault)]
    links = [fault.arguments["link"] for fault in faults if isinstance(fault.arguments.get("link"), int)]
    network = Network(frozenset(nodes), 1 + max(links, default=0))
    for fault in faults:
        # Anybody may have noted a fault in words of their own.
        with suppress(KeyError, TypeError, ValueError):
            network = _after(network, fault)
    return network


def _after(network: Network, fault: Fault) -> Network:
    arguments = fault.arguments
    match fault.verb:
        case "partition":
            return network.partition(arguments["sides"])
        case "isolate":
            node = words.node_of_fault(fault)
            return network if node is None else network.isolate(node)
        case "cut":
            return network.cut_off(arguments["source"], arguments["target"], arguments.get("link"))
        case "lose":
            return network.lose(arguments["percent"], arguments.get("nodes") or network.nodeids)
        case "heal":
            return network.healed()
        case _:
            return network
