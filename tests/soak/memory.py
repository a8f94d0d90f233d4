"""What of this process's memory is in use, and what for. The rest is free, and malloc(3) keeps it for what comes next.

For this, Python has to allocate with malloc(3) as well: PYTHONMALLOC=malloc. It takes the functions of glibc 2.33.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import sys
from typing import Any, Final

_NAMES: Final = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
_libc: Final = ctypes.CDLL(None)


class _Mallinfo(ctypes.Structure):
    """See mallinfo2(3)."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _NAMES.split())


_libc.mallinfo2.restype = _Mallinfo


def clear() -> None:
    """Drop objects that only each other refer to, and give free memory back to the kernel."""
    gc.collect()
    _libc.malloc_trim(0)


def in_use() -> int:
    """The KiB that malloc(3) has handed out, in all of its arenas."""
    info: Any = _libc.mallinfo2()
    used: int = info.uordblks + info.hblkhd
    return used // 1024


def of_objects() -> int:
    """The KiB of all Python objects that the garbage collector knows, and of those that they refer to."""
    known = gc.get_objects()
    objects = {id(found): found for found in itertools.chain(known, gc.get_referents(*known))}
    return sum(map(sys.getsizeof, objects.values())) // 1024
