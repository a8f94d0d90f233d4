"""The enumerations of Corosync's C headers.

Names are those of corosync/corotypes.h, cpg.h, votequorum.h, quorum.h, cmap.h and cfg.h, without their prefixes.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class CsError(IntEnum):
    """The error codes of Corosync: `cs_error_t` without its prefix (corosync/corotypes.h)."""

    OK = 1
    LIBRARY = 2
    VERSION = 3
    INIT = 4
    TIMEOUT = 5
    TRY_AGAIN = 6
    INVALID_PARAM = 7
    NO_MEMORY = 8
    BAD_HANDLE = 9
    BUSY = 10
    ACCESS = 11
    NOT_EXIST = 12
    NAME_TOO_LONG = 13
    EXIST = 14
    NO_SPACE = 15
    INTERRUPT = 16
    NAME_NOT_FOUND = 17
    NO_RESOURCES = 18
    NOT_SUPPORTED = 19
    BAD_OPERATION = 20
    FAILED_OPERATION = 21
    MESSAGE_ERROR = 22
    QUEUE_FULL = 23
    QUEUE_NOT_AVAILABLE = 24
    BAD_FLAGS = 25
    TOO_BIG = 26
    NO_SECTIONS = 27
    CONTEXT_NOT_FOUND = 28
    TOO_MANY_GROUPS = 30
    SECURITY = 100


class Reason(IntEnum):
    """Why a member joined or left (`cpg_reason_t`)."""

    UNDEFINED = 0
    """No reason is known."""
    JOIN = 1
    """The process joined the group."""
    LEAVE = 2
    """The process left the group."""
    NODEDOWN = 3
    """The node of the process left the ring: it failed, was cut off, or Corosync stopped there."""
    NODEUP = 4
    """The node of the process joined the ring, with the process already in the group."""
    PROCDOWN = 5
    """The process ended, or closed its connection, without leaving."""


class IterationType(IntEnum):
    """What `cpg_iteration_initialize` walks over (`cpg_iteration_type_t`)."""

    NAME_ONLY = 1
    """The names of all groups."""
    ONE_GROUP = 2
    """The members of one group."""
    ALL = 3
    """The members of all groups."""


class FlowControlState(IntEnum):
    """Whether flow control holds up senders (`cpg_flow_control_state_t`)."""

    DISABLED = 0
    ENABLED = 1


class Dispatch(IntEnum):
    """How many callbacks one `dispatch` calls (`cs_dispatch_flags_t`; cpg_dispatch(3), votequorum_dispatch(3))."""

    ONE = 1
    """Wait until one callback has been dispatched."""
    ALL = 2
    """Dispatch the callbacks that are waiting, without waiting for more."""
    BLOCKING = 3
    """Dispatch until the handle is finalized."""
    ONE_NONBLOCKING = 4
    """Dispatch at most one callback; `TryAgainError` if none is waiting."""


class Track(IntFlag):
    """What `trackstart` subscribes to (`CS_TRACK_*`)."""

    CURRENT = 0x01
    """Send the present state once."""
    CHANGES = 0x02
    """Send the present state, and then each change."""
    CHANGES_ONLY = 0x04
    """Send changes without the present state."""


class NodeState(IntEnum):
    """The state of a node in votequorum (`VOTEQUORUM_NODESTATE_*`)."""

    MEMBER = 1
    DEAD = 2
    LEAVING = 3


class VotequorumFlag(IntFlag):
    """Options that are configured, and conditions that hold, in votequorum (`VOTEQUORUM_INFO_*`; votequorum(5))."""

    TWONODE = 1
    """The option two_node is set."""
    QUORATE = 2
    """The partition is quorate."""
    WAIT_FOR_ALL = 4
    """The option wait_for_all is set."""
    LAST_MAN_STANDING = 8
    """The option last_man_standing is set."""
    AUTO_TIE_BREAKER = 16
    """The option auto_tie_breaker is set."""
    ALLOW_DOWNSCALE = 32
    """The option allow_downscale is set."""
    QDEVICE_REGISTERED = 64
    """A quorum device is registered."""
    QDEVICE_ALIVE = 128
    """The quorum device polls in time."""
    QDEVICE_CAST_VOTE = 256
    """The quorum device votes for this partition."""
    QDEVICE_MASTER_WINS = 512
    """The partition that the quorum device votes for wins."""
    QDEVICE_HAS_EXTRA_INFO = 1024
    """The quorum device has extra information. Newer than Corosync 3.1."""


class QuorumType(IntEnum):
    """Whether a quorum provider is configured (`QUORUM_*`)."""

    FREE = 0
    """No quorum provider: every partition is quorate."""
    SET = 1
    """A quorum provider, such as votequorum, decides."""


class CmapMap(IntEnum):
    """The maps of a node (`cmap_map_t`)."""

    ICMAP = 0
    """Configuration and run-time state."""
    STATS = 1
    """Statistics. All keys are read-only, except those that reset statistics."""


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
    """Which changes of a key are tracked, and which one a `CmapChange` reports (`CMAP_TRACK_*`)."""

    DELETE = 1
    """The key was deleted."""
    MODIFY = 2
    """The key got another value."""
    ADD = 4
    """The key was added."""
    PREFIX = 8
    """Track all keys that begin with the given one."""


class ShutdownFlag(IntEnum):
    """Whom to ask before a shutdown of a node's daemon (`corosync_cfg_shutdown_flags_t`)."""

    REQUEST = 0
    """Ask the programs that track shutdowns on that node. Each of them may refuse."""
    REGARDLESS = 1
    """Ask those programs, and shut down whatever they answer."""
    IMMEDIATE = 2
    """Shut down without asking."""
