"""The buffers of zero-copy multicasts: memory that is shared with the daemon."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, final

from ._shim import ffi

if TYPE_CHECKING:
    from ._shim import CData


@final
class SharedBuffer:
    """A buffer from `cpg_zcb_alloc`. It must not be unmapped while a memoryview of it is alive.

    Attributes:
        address: its address.
        size: its size in bytes.
        view: the caller's view of it.
        given_back: whether it is being freed.
    """

    def __init__(self, address: CData, size: int) -> None:
        memory = ffi.buffer(address, size)
        self.address = address
        self.size = size
        self.view = memoryview(memory)
        self.given_back = False
        # Only views keep this alive, slices included, so it tells whether there are any.
        self._memory = weakref.ref(memory)

    def give_back(self) -> None:
        """Release the view. Raises `BufferError` if slices of it are still in use."""
        self.view.release()
        if self._memory() is not None:
            raise BufferError("slices of the buffer are in use: free it again once they are gone")
        self.given_back = True
