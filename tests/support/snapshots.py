"""A snapshot of a cluster, for tests of what commands show."""

from __future__ import annotations

from triocoro import Address, LinkStatus, NodeState, RingId, VotequorumFlag, VotequorumInfo
from triocoro._cli.snapshot import NodeSnapshot, Snapshot


def link(number: int, destination: str, **fields: bool) -> LinkStatus:
    values = {"enabled": True, "connected": True, "dynconnected": False, **fields}
    return LinkStatus(number=number, mtu=1446, source="", destination=destination, **values)


VOTES = VotequorumInfo(
    nodeid=1,
    state=NodeState.MEMBER,
    votes=1,
    expected_votes=3,
    highest_expected=3,
    total_votes=2,
    quorum=2,
    flags=VotequorumFlag.QUORATE,
    qdevice_votes=0,
    qdevice_name="",
)
LINKS = (link(0, "192.0.2.2"), link(1, "2001:db8::2", connected=False))
SNAPSHOT = Snapshot(
    cluster_name="shop",
    transport="knet",
    nodeid=1,
    provider="corosync_votequorum",
    quorate=True,
    ring_id=RingId(1, 0x2C),
    members=(1, 2),
    votes=VOTES,
    nodes=(
        NodeSnapshot(1, "anna", NodeState.MEMBER, 1, VotequorumFlag.QUORATE, reachable=True, links=()),
        NodeSnapshot(
            2,
            "bert",
            NodeState.MEMBER,
            1,
            VotequorumFlag.QUORATE,
            reachable=True,
            links=(link(0, "192.0.2.2"), link(1, "2001:db8::2", connected=False)),
        ),
        NodeSnapshot(
            3,
            "",
            None,
            None,
            VotequorumFlag(0),
            reachable=False,
            links=(link(0, "192.0.2.3", enabled=False, connected=False),),
        ),
    ),
    groups={b"chat\0": [Address(1, 4711), Address(2, 12)], "grüße".encode(): [Address(2, 12)]},
)
