"""What applications need above a process group, built on the public names of `triocoro` alone.

Corosync delivers in agreed order: a member that is being cut off may deliver its own last messages to itself alone.
Safe groups, replicas and locks build what is missing, and keep their state in memory, on all members.
"""

from ._bootstrap import bootstrap
from ._calls import Calls, open_calls
from ._calls_replies import Answer, Failure, Replies, Reply, Request, Unknown
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
from ._member import MemberStatus, Status
from ._replica import Machine, Replica, open_replica
from ._safe_group import Commit, Delivery, Missed, SafeEvent, SafeGroup, open_safe_group

__all__ = [
    "Answer",
    "Calls",
    "CommandFailedError",
    "Commit",
    "Delivery",
    "ElectorateError",
    "Failure",
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
    "Replies",
    "Reply",
    "Request",
    "SafeEvent",
    "SafeGroup",
    "Status",
    "Token",
    "UncertainError",
    "Unknown",
    "bootstrap",
    "open_calls",
    "open_leadership",
    "open_lock",
    "open_replica",
    "open_safe_group",
    "shortest_lock_delay",
]

for _value in list(globals().values()):
    # Reprs, tracebacks, pickles and the documentation show this module's name.
    if getattr(_value, "__module__", "").startswith("triocoro.recipes._"):
        setattr(_value, "__module__", __name__)  # noqa: B010 - not every object is known to have one
