"""What applications need above a raw group: safe delivery, replicated state, locks and leadership.

Corosync delivers in agreed order: a member that is being cut off may deliver its own last messages to itself alone.
Recipes build what is missing on the public API alone. They keep their state in memory, on all members.
"""

from ._bootstrap import bootstrap
from ._errors import (
    CommandFailedError,
    ElectorateError,
    LeaseLostError,
    NotCommittedError,
    NotPrimaryError,
    ProtocolError,
    RecipeError,
    UncertainError,
)
from ._lock import Held, Leadership, Lock, Token, open_leadership, open_lock, shortest_lock_delay
from ._member import Commit, Delivery, MemberStatus, Status
from ._replica import Machine, Replica, open_replica
from ._safe_group import Missed, SafeEvent, SafeGroup, open_safe_group

__all__ = [
    "CommandFailedError",
    "Commit",
    "Delivery",
    "ElectorateError",
    "Held",
    "Leadership",
    "LeaseLostError",
    "Lock",
    "Machine",
    "MemberStatus",
    "Missed",
    "NotCommittedError",
    "NotPrimaryError",
    "ProtocolError",
    "RecipeError",
    "Replica",
    "SafeEvent",
    "SafeGroup",
    "Status",
    "Token",
    "UncertainError",
    "bootstrap",
    "open_leadership",
    "open_lock",
    "open_replica",
    "open_safe_group",
    "shortest_lock_delay",
]
