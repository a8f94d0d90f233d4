"""The enumerations of Corosync's C headers.

Names are those of corosync/cpg.h, votequorum.h, quorum.h, cmap.h and cfg.h, without their prefixes.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


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
    QDEVICE_HAS_EXTRA_INFO = 1024
    """Newer than Corosync 3.1."""


class QuorumType(IntEnum):
    """Whether quorum is counted at all (`QUORUM_*`)."""

    FREE = 0
    """No quorum provider is configured: every partition is quorate."""
    SET = 1
    """A provider, such as votequorum, decides."""


class CmapMap(IntEnum):
    """The maps of a node (`cmap_map_t`)."""

    ICMAP = 0
    """Configuration and run-time state."""
    STATS = 1
    """Statistics; read only."""


class CmapType(IntEnum):
    """The types of values in a map (`cmap_value_types_t`)."""

    INT8 = 1
    UINT8 = 2
    INT16 = 3
    UINT16 = 4
    INT32 = 5
    UINT32 = 6
    INT64 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    STRING = 11
    BINARY = 12


class CmapTrack(IntFlag):
    """What is tracked of a key, and what has happened to it (`CMAP_TRACK_*`)."""

    DELETE = 1
    MODIFY = 2
    ADD = 4
    PREFIX = 8
    """For all keys that begin with the given one."""


class ShutdownFlag(IntEnum):
    """How a node is asked to shut down (`corosync_cfg_shutdown_flags_t`)."""

    REQUEST = 0
    """Whoever tracks shutdowns on that node is asked, and may refuse."""
    REGARDLESS = 1
    """They are asked, and what they say does not count."""
    IMMEDIATE = 2
    """Nobody is asked."""
