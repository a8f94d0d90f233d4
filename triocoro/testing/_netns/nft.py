"""The nftables rules that cut links and lose packets; see nft(8)."""

from __future__ import annotations

from typing import Final

from .._cluster.addresses import Addresses
from .._cluster.network import ALL, Network

_SHARES: Final = 100 * ALL
"""nft counts off packets, so a loss in per cent becomes one in hundredths of a per cent."""


def filter_rules(network: Network, addresses: Addresses, nodeid: int) -> list[str]:
    """The input of `nft -f` that drops what a node does not hear.

    It replaces the rules from before in one transaction, so that no packet passes between old and new rules.
    """
    deaf_to = [source for source, target in sorted(network.cut) if target == nodeid]
    loss = round(network.loss.get(nodeid, 0) * _SHARES / ALL)
    # The numbers drawn are below _SHARES, so nft takes no comparison with it: the loss of all packets needs no draw.
    chance = f"numgen random mod {_SHARES} < {loss} " if loss < _SHARES else ""
    return [
        # Only a table that exists can be deleted.
        "add table ip triocoro",
        "delete table ip triocoro",
        "add table ip triocoro",
        "add chain ip triocoro input { type filter hook input priority 0; }",
        *(f"add rule ip triocoro input ip saddr {addresses.of(source)} counter drop" for source in deaf_to),
        *([f"add rule ip triocoro input iif eth0 {chance}counter drop"] if loss else []),
    ]
