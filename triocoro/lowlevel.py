"""The C API of Corosync one to one, in Trio's idiom: handles, callbacks, and the four dispatch types.

Functions that block in C are async here, and functions that return an error code in C raise. Nothing is retried:
`TryAgainError` is raised. There is no queue between a handle and its callbacks. An event is taken from the daemon when
its callback is about to start, so the handle's `fd` is readable exactly while events wait. An event whose callback has
not started stays for the next dispatch; a callback that raises or is cancelled has consumed its event.
"""

from ._enums import (
    Dispatch as Dispatch,
    FlowControlState as FlowControlState,
    IterationType as IterationType,
    Track as Track,
)
from ._lowlevel._cfg import CfgHandle as CfgHandle, cfg_initialize as cfg_initialize
from ._lowlevel._cmap import CmapHandle as CmapHandle, cmap_initialize as cmap_initialize
from ._lowlevel._cpg import (
    CpgHandle as CpgHandle,
    CpgModelFlag as CpgModelFlag,
    cpg_initialize as cpg_initialize,
)
from ._lowlevel._quorum import QuorumHandle as QuorumHandle, quorum_initialize as quorum_initialize
from ._lowlevel._votequorum import (
    VotequorumHandle as VotequorumHandle,
    votequorum_initialize as votequorum_initialize,
)
from ._public import show_public_path

show_public_path(__name__, globals())
