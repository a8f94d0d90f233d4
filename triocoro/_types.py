"""The values of triocoro: what calls return and streams yield. No behaviour, no I/O.

Names are those of the C headers (corosync/cpg.h, corosync/votequorum.h), without their prefixes.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final, TypeAlias

import attrs

Buffer: TypeAlias = "bytes | bytearray | memoryview"
"""What a payload may be given as."""


_SHOWN: Final = 64


def _show(payload: bytes) -> str:
    """A payload as a repr shows it: a message may have megabytes."""
    return repr(payload) if len(payload) <= _SHOWN else f"<{len(payload)} bytes: {payload[:_SHOWN]!r}...>"


class Reason(IntEnum):
    """Why a member joined or left (`cpg_reason_t`)."""

    UNDEFINED = 0
    JOIN = 1
    LEAVE = 2
    NODEDOWN = 3
    NODEUP = 4
    PROCDOWN = 5


class IterationType(IntEnum):
    """What `cpg_iteration_initialize` walks over (`cpg_iteration_type_t`)."""

    NAME_ONLY = 1
    ONE_GROUP = 2
    ALL = 3


class FlowControlState(IntEnum):
    """What `cpg_flow_control_state_get` says (`cpg_flow_control_state_t`)."""

    DISABLED = 0
    ENABLED = 1


class Dispatch(IntEnum):
    """How much one `dispatch` does (`cs_dispatch_flags_t`; cpg_dispatch(3), votequorum_dispatch(3))."""

    ONE = 1
    """Wait until one callback has been dispatched."""
    ALL = 2
    """Dispatch what is waiting, without waiting for more."""
    BLOCKING = 3
    """Dispatch until the handle is finalized."""
    ONE_NONBLOCKING = 4
    """Dispatch at most one callback; `TryAgainError` if none is waiting."""


class Track(IntFlag):
    """What a `trackstart` asks for (`CS_TRACK_*`)."""

    CURRENT = 0x01
    CHANGES = 0x02
    CHANGES_ONLY = 0x04


class NodeState(IntEnum):
    """The state of a node in votequorum (`VOTEQUORUM_NODESTATE_*`)."""

    MEMBER = 1
    DEAD = 2
    LEAVING = 3


class VotequorumFlag(IntFlag):
    """What is configured, and what holds (`VOTEQUORUM_INFO_*`)."""

    TWONODE = 1
    QUORATE = 2
    WAIT_FOR_ALL = 4
    LAST_MAN_STANDING = 8
    AUTO_TIE_BREAKER = 16
    ALLOW_DOWNSCALE = 32
    QDEVICE_REGISTERED = 64
    QDEVICE_ALIVE = 128
    QDEVICE_CAST_VOTE = 256
    QDEVICE_MASTER_WINS = 512


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
    payload: bytes = attrs.field(repr=_show)
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

    payload: bytes = attrs.field(repr=_show)
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


VotequorumEvent: TypeAlias = "VotequorumChange | VotequorumNodelist | ExpectedVotesChange"
"""What `Votequorum.track` yields."""
