"""The values of triocoro: what calls return and streams yield. No behaviour, no I/O.

Names are those of the C headers (corosync/cpg.h, votequorum.h, quorum.h, cmap.h, cfg.h), without their prefixes.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

import attrs

from ._enums import CmapTrack, CmapType, NodeState, Reason, VotequorumFlag

Buffer: TypeAlias = "bytes | bytearray | memoryview"
"""What a payload may be given as."""


_SHOWN: Final = 64


def show_payload(payload: bytes) -> str:
    """A payload as a repr shows it: a message may have megabytes."""
    return repr(payload) if len(payload) <= _SHOWN else f"<{len(payload)} bytes: {payload[:_SHOWN]!r}...>"


@attrs.frozen(order=True)
class Address:
    """A member of a process group: a process on a node."""

    nodeid: int
    """The node's id."""
    pid: int
    """The process's own idea of its pid: processes in other pid namespaces may share it."""


@attrs.frozen
class MemberChange:
    """A member that joined or left."""

    address: Address
    """Who."""
    reason: Reason
    """Why."""


@attrs.frozen
class Message:
    """A message that was multicast to the group."""

    sender: Address
    """Who sent it; possibly we ourselves."""
    payload: bytes = attrs.field(repr=show_payload)
    """What was sent, byte for byte."""


@attrs.frozen
class ConfigChange:
    """The membership of the group changed. Compare `members` between nodes, never `joined` or `left`."""

    members: tuple[Address, ...]
    """Who is in the group now, sorted by node and pid."""
    joined: tuple[MemberChange, ...]
    """Who came."""
    left: tuple[MemberChange, ...]
    """Who went."""


@attrs.frozen
class RingId:
    """The identity of a totem membership."""

    nodeid: int
    """The node that represents the ring."""
    seq: int
    """Grows with each membership."""


@attrs.frozen
class TotemChange:
    """The membership of nodes, below any group, changed. It closes the configuration changes before it."""

    ring_id: RingId
    """The new ring."""
    members: tuple[int, ...]
    """The nodes in it."""


@attrs.frozen
class MessageLost:
    """A message of ours that the daemon accepted and then dropped: nobody has received it."""

    payload: bytes = attrs.field(repr=show_payload)
    """What we had sent."""


CpgEvent: TypeAlias = "Message | ConfigChange | TotemChange"
"""What the C library hands out."""

GroupEvent: TypeAlias = "Message | ConfigChange | TotemChange | MessageLost"
"""What `Group.receive` returns."""


@attrs.frozen
class GroupMember:
    """One entry of `Cpg.groups`."""

    group: bytes
    """The group's name."""
    address: Address | None
    """The member; `None` where only names were asked for."""


@attrs.frozen
class VotequorumInfo:
    """What votequorum knows of a node (`struct votequorum_info`)."""

    nodeid: int
    """The node that this is about."""
    state: NodeState
    """Its state."""
    votes: int
    """Its votes."""
    expected_votes: int
    """The expected votes that it was told."""
    highest_expected: int
    """The highest such number among the members."""
    total_votes: int
    """The votes that are present."""
    quorum: int
    """The votes needed."""
    flags: VotequorumFlag
    """What is configured, and whether the cluster is quorate."""
    qdevice_votes: int
    """The quorum device's votes."""
    qdevice_name: str
    """Its name; empty if there is none."""

    @property
    def quorate(self) -> bool:
        """Whether the partition of the node that answered is quorate."""
        return VotequorumFlag.QUORATE in self.flags


@attrs.frozen
class VotequorumNode:
    """A node in a `VotequorumChange`."""

    nodeid: int
    """Its id; 0 is the quorum device."""
    state: NodeState
    """Its state."""


@attrs.frozen
class VotequorumChange:
    """Quorum was counted anew, at the end of a transition or after a change of votes."""

    quorate: bool
    """Whether our partition is quorate."""
    nodes: tuple[VotequorumNode, ...]
    """Every node that votequorum has ever seen, in no order that one can rely on; the quorum device last."""


@attrs.frozen
class VotequorumNodelist:
    """A transition has begun: these nodes are in the new ring."""

    ring_id: RingId
    """The new ring."""
    nodes: tuple[int, ...]
    """The nodes in it."""


@attrs.frozen
class ExpectedVotesChange:
    """Somebody set the expected votes, or a node's votes raised them."""

    expected_votes: int
    """The new number."""


@attrs.frozen
class QdeviceExtraInfo:
    """What a node's quorum device tells of itself; Corosync newer than 3.1.10 only.

    It comes when it is set, and again in each transition, whether it has changed or not.
    """

    nodeid: int
    """The node."""
    extra_info: bytes
    """The extra information; empty if there is none any longer."""


VotequorumEvent: TypeAlias = "VotequorumChange | VotequorumNodelist | ExpectedVotesChange | QdeviceExtraInfo"
"""What `Votequorum.track` yields."""


@attrs.frozen
class QuorumChange:
    """Quorum was decided anew, at the end of a transition or after a change of votes."""

    quorate: bool
    """Whether our partition is quorate."""
    ring_id: RingId
    """The ring that this is about."""
    members: tuple[int, ...]
    """The nodes in it."""


@attrs.frozen
class NodelistChange:
    """The membership of nodes changed. A `QuorumChange` of the same ring follows."""

    ring_id: RingId
    """The new ring."""
    members: tuple[int, ...]
    """The nodes in it."""
    joined: tuple[int, ...]
    """Who came; empty in the present state that tracking begins with."""
    left: tuple[int, ...]
    """Who went; a node that was away for a moment is in `joined` too."""


QuorumEvent: TypeAlias = "QuorumChange | NodelistChange"
"""What `Quorum.track` yields."""

CmapValue: TypeAlias = "int | float | str | bytes"
"""What is in a map: `int` for the eight integer types, `float` for two, `str` for STRING, `bytes` for BINARY."""


@attrs.frozen
class TypedValue:
    """A value of a map together with its type."""

    type: CmapType
    """Its type in the map."""
    value: CmapValue
    """The value."""


@attrs.frozen
class CmapChange:
    """A key of a map was added, modified or deleted."""

    event: CmapTrack
    """`CmapTrack.ADD`, `MODIFY` or `DELETE`."""
    key: str
    """The key."""
    new: CmapValue | None
    """Its value now; `None` after a delete."""
    old: CmapValue | None
    """Its value before; `None` before an add."""
    new_type: CmapType | None = None
    """The type of `new`."""
    old_type: CmapType | None = None
    """The type of `old`."""


@attrs.frozen
class CmapNotification:
    """What the C library hands out: a change, and for which of the handle's trackers."""

    tracker: int
    """The number that was given to `track_add`."""
    change: CmapChange
    """What has changed."""


IPAddress: TypeAlias = "IPv4Address | IPv6Address"
"""An address of a node."""


@attrs.frozen
class LinkStatus:
    """A link to a node (`struct corosync_knet_link_status_v1`)."""

    number: int
    """The link's number, 0 to 7."""
    enabled: bool
    """It is configured, and may carry traffic."""
    connected: bool
    """It carries traffic, as this side sees it."""
    dynconnected: bool
    """It was activated by a packet from the other side's changing address."""
    mtu: int
    """The bytes that a packet on it may have, as detected; 0 while unknown."""
    source: str
    """Our address on it."""
    destination: str
    """The other side's address on it."""


@attrs.frozen
class NodeStatus:
    """How totem sees a node (`struct corosync_cfg_node_status_v1`)."""

    nodeid: int
    """The node."""
    reachable: bool
    """Some link to it is connected."""
    remote: bool
    """It is reached by way of another node."""
    external: bool
    """It is outside of the cluster's network."""
    onwire_min: int
    """The lowest version of knet's protocol that it speaks."""
    onwire_max: int
    """The highest one."""
    onwire_version: int
    """The one in use."""
    links: tuple[LinkStatus, ...]
    """The links that are configured, in the order of their numbers."""


@attrs.frozen
class RingStatus:
    """A link of our own node, and how it fares towards all others (`corosync_cfg_ring_status_get`)."""

    name: str
    """The link's number and our address on it, such as ``"0 192.0.2.1"``."""
    status: str
    """``"OK"``, or a letter for each node as corosync-cfgtool(8) explains them."""
