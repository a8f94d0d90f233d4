"""Structured concurrency for the Corosync Cluster Engine, on Trio."""

from ._cfg import Cfg as Cfg, ShutdownRequest as ShutdownRequest, open_cfg as open_cfg
from ._cmap import Cmap as Cmap, open_cmap as open_cmap
from ._cpg import (
    Cpg as Cpg,
    Group as Group,
    GroupStatistics as GroupStatistics,
    open_cpg as open_cpg,
    open_group as open_group,
)
from ._endpoint import default_endpoint as default_endpoint
from ._enums import (
    CmapMap as CmapMap,
    CmapTrack as CmapTrack,
    CmapType as CmapType,
    CsError as CsError,
    NodeState as NodeState,
    QuorumType as QuorumType,
    Reason as Reason,
    ShutdownFlag as ShutdownFlag,
    VotequorumFlag as VotequorumFlag,
)
from ._errors import (
    AccessError as AccessError,
    BadFlagsError as BadFlagsError,
    BadHandleError as BadHandleError,
    BadOperationError as BadOperationError,
    BusyError as BusyError,
    ConnectionLostError as ConnectionLostError,
    ContextNotFoundError as ContextNotFoundError,
    CorosyncError as CorosyncError,
    CorosyncTimeoutError as CorosyncTimeoutError,
    CorosyncUnavailableError as CorosyncUnavailableError,
    ExistError as ExistError,
    FailedOperationError as FailedOperationError,
    InitError as InitError,
    InterruptedSendError as InterruptedSendError,
    InterruptError as InterruptError,
    InvalidParamError as InvalidParamError,
    KeyNotFoundError as KeyNotFoundError,
    LibraryError as LibraryError,
    MessageError as MessageError,
    MessageLostError as MessageLostError,
    NameNotFoundError as NameNotFoundError,
    NameTooLongError as NameTooLongError,
    NoMemoryError as NoMemoryError,
    NoResourcesError as NoResourcesError,
    NoSectionsError as NoSectionsError,
    NoSpaceError as NoSpaceError,
    NotExistError as NotExistError,
    NotSupportedError as NotSupportedError,
    QueueFullError as QueueFullError,
    QueueNotAvailableError as QueueNotAvailableError,
    SecurityError as SecurityError,
    SlowConsumerError as SlowConsumerError,
    TooBigError as TooBigError,
    TooManyGroupsError as TooManyGroupsError,
    TryAgainError as TryAgainError,
    VersionError as VersionError,
)
from ._public import show_public_path
from ._quorum import Quorum as Quorum, open_quorum as open_quorum
from ._services import Endpoint as Endpoint, ServiceSpec as ServiceSpec
from ._sessions import Session as Session, sessions as sessions
from ._stream import EventStream as EventStream, StreamStatistics as StreamStatistics
from ._types import (
    Address as Address,
    CmapChange as CmapChange,
    CmapValue as CmapValue,
    ConfigChange as ConfigChange,
    ExpectedVotesChange as ExpectedVotesChange,
    GroupEvent as GroupEvent,
    GroupMember as GroupMember,
    IPAddress as IPAddress,
    LinkStatus as LinkStatus,
    MemberChange as MemberChange,
    Message as Message,
    MessageLost as MessageLost,
    NodelistChange as NodelistChange,
    NodeStatus as NodeStatus,
    QdeviceExtraInfo as QdeviceExtraInfo,
    QuorumChange as QuorumChange,
    QuorumEvent as QuorumEvent,
    RingId as RingId,
    RingStatus as RingStatus,
    TotemChange as TotemChange,
    TypedValue as TypedValue,
    VotequorumChange as VotequorumChange,
    VotequorumEvent as VotequorumEvent,
    VotequorumInfo as VotequorumInfo,
    VotequorumNode as VotequorumNode,
    VotequorumNodelist as VotequorumNodelist,
)
from ._votequorum import Votequorum as Votequorum, open_votequorum as open_votequorum

show_public_path(__name__, globals())
