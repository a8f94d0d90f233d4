"""The buffers of zero-copy multicasts: memory that the daemon sees, too."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, final

from ._shim import ffi

if TYPE_CHECKING:
    from ._shim import CData


@final
class SharedBuffer:
    """What `cpg_zcb_alloc` gave. It may be unmapped only when nobody can look at it any more.

    Attributes:
        address: where it is.
        size: how many bytes it has.
        view: what the caller got.
        given_back: whether it is being freed.
    """

    def __init__(self, address: CData, size: int) -> None:
        memory = ffi.buffer(address, size)
        self.address = address
        self.size = size
        self.view = memoryview(memory)
        self.given_back = False
        # Every slice of the view keeps this alive, and nothing else does.
        self._memory = weakref.ref(memory)

    def give_back(self) -> None:
        """Release the view, after which only slices of it could still be in use; they are a `BufferError`."""
        self.view.release()
        if self._memory() is not None:
            raise BufferError("slices of the buffer are in use: free it again once they are gone")
        self.given_back = True
