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
    deaf_to = [
        addresses.of(source)[link]
        for source in sorted(network.nodeids)
        for link in range(network.links)
        if network.is_cut(source, nodeid, link)
    ]
    loss = round(network.loss.get(nodeid, 0) * _SHARES / ALL)
    # The numbers drawn are below _SHARES, so nft takes no comparison with it: the loss of all packets needs no draw.
    chance = f"numgen random mod {_SHARES} < {loss} " if loss < _SHARES else ""
    return [
        # Only a table that exists can be deleted.
        "add table inet triocoro",
        "delete table inet triocoro",
        "add table inet triocoro",
        "add chain inet triocoro input { type filter hook input priority 0; }",
        # Like ARP, which this chain does not see. Once it failed, the kernel would wait for a second to try again.
        "add rule inet triocoro input icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
        *(
            f"add rule inet triocoro input {'ip6' if ':' in address else 'ip'} saddr {address} counter drop"
            for address in deaf_to
        ),
        *([f"add rule inet triocoro input iif != lo {chance}counter drop"] if loss else []),
    ]
