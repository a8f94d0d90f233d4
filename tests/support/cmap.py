"""Keys and changes of cmap in tests."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence

import pytest

from triocoro import (
    Cmap,
    CmapChange,
    CmapTrack,
    CmapType,
    CmapValue,
    EventStream,
)

ADD, MODIFY, DELETE, PREFIX = CmapTrack.ADD, CmapTrack.MODIFY, CmapTrack.DELETE, CmapTrack.PREFIX
ALL = ADD | MODIFY | DELETE
U8, U32, U64 = CmapType.UINT8, CmapType.UINT32, CmapType.UINT64
STRING = CmapType.STRING
INTEGER_RANGES: Mapping[CmapType, tuple[int, int]] = {
    CmapType.INT8: (-128, 127),
    CmapType.UINT8: (0, 255),
    CmapType.INT16: (-32768, 32767),
    CmapType.UINT16: (0, 65535),
    CmapType.INT32: (-(2**31), 2**31 - 1),
    CmapType.UINT32: (0, 2**32 - 1),
    CmapType.INT64: (-(2**63), 2**63 - 1),
    CmapType.UINT64: (0, 2**64 - 1),
}
FLT_MAX = 3.4028234663852886e38
DBL_MAX = 1.7976931348623157e308
MAX_VALUE_SIZE = 16 * 1024
VALUES: Mapping[CmapType, Sequence[CmapValue]] = {
    **{type_: (lowest, 1, highest) for type_, (lowest, highest) in INTEGER_RANGES.items()},
    CmapType.FLOAT: (-FLT_MAX, -0.0, 0.5, 1.401298464324817e-45, FLT_MAX, math.inf),
    CmapType.DOUBLE: (-DBL_MAX, -0.0, 0.1, 5e-324, DBL_MAX, -math.inf),
    CmapType.STRING: ("", "text", "é €", "x" * MAX_VALUE_SIZE),
    CmapType.BINARY: (b"", b"\0", bytes(range(256)), b"\xff" * MAX_VALUE_SIZE),
}


def change(
    event: CmapTrack,
    key: str,
    new: tuple[CmapType, CmapValue] | None = None,
    old: tuple[CmapType, CmapValue] | None = None,
) -> CmapChange:
    return CmapChange(
        event,
        key,
        new=None if new is None else new[1],
        old=None if old is None else old[1],
        new_type=None if new is None else new[0],
        old_type=None if old is None else old[0],
    )


async def receive(changes: EventStream[CmapChange], count: int) -> list[CmapChange]:
    return [await changes.receive() for _ in range(count)]


async def ignore(event: CmapChange) -> None:
    """A callback that does nothing."""


async def refused(
    error: type[BaseException], words: str, call: Callable[[], Awaitable[object]], cmap: Cmap
) -> BaseException:
    """It is a clear error, and the connection is as good as before."""
    with pytest.raises(error, match=re.escape(words)) as info:
        await call()
    assert await cmap.items("no.such.key") == []
    return info.value
