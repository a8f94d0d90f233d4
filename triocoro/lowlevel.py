"""The C API of Corosync one to one, in Trio's idiom: handles, callbacks, and the four dispatch types.

Functions that block in C are async here, and functions that return an error code in C raise. Nothing is retried:
`TryAgainError` is raised. There is no queue between a handle and its callbacks. An event is taken from the daemon when
its callback is about to start, so the handle's `fd` is readable exactly while events wait. An event whose callback has
not started stays for the next dispatch; a callback that raises or is cancelled has consumed its event.
"""

from ._enums import (
    Dispatch,
    FlowControlState,
    IterationType,
    Track,
)
from ._lowlevel._cfg import CfgHandle, cfg_initialize
from ._lowlevel._cmap import CmapHandle, cmap_initialize
from ._lowlevel._cpg import (
    CpgHandle,
    CpgModelFlag,
    cpg_initialize,
)
from ._lowlevel._quorum import QuorumHandle, quorum_initialize
from ._lowlevel._votequorum import (
    VotequorumHandle,
    votequorum_initialize,
)
from ._public import show_public_path as _show_public_path

__all__ = [
    "CfgHandle",
    "CmapHandle",
    "CpgHandle",
    "CpgModelFlag",
    "Dispatch",
    "FlowControlState",
    "IterationType",
    "QuorumHandle",
    "Track",
    "VotequorumHandle",
    "cfg_initialize",
    "cmap_initialize",
    "cpg_initialize",
    "quorum_initialize",
    "votequorum_initialize",
]

_show_public_path(__name__, globals())
