"""Gathering payloads from buffers: what is large is copied a piece at a time, and other tasks run in between."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from . import _validate
from ._types import Buffer

PIECE: Final = 2**20
"""How many bytes are copied at once, which takes well below a millisecond."""


async def gather(buffers: Sequence[Buffer]) -> bytes:  # noqa: ASYNC910 - a checkpoint only if there is much to copy
    """Join buffers into one payload. They must not change meanwhile."""
    whole = io.BytesIO()  # in the end it hands out its memory, without another copy
    for piece in _pieces(buffers):
        whole.write(piece)
        await trio.lowlevel.checkpoint()
    return whole.getvalue()  # noqa: ASYNC910


async def gather_each(messages: Sequence[Buffer]) -> list[bytes]:  # noqa: ASYNC910 - as above
    """Return messages as payloads, one for each buffer."""
    if _validate.only_bytes(messages):
        return messages  # noqa: ASYNC910
    payloads: list[bytes] = []
    copied = 0
    for message in messages:
        payload = _validate.payload((message,))
        payloads.append(await gather((message,)) if payload is None else payload)
        copied += len(payloads[-1]) if payload is not message else 0
        if copied > PIECE:
            copied = 0
            await trio.lowlevel.checkpoint()
    return payloads  # noqa: ASYNC910


def _pieces(buffers: Sequence[Buffer]) -> Iterator[Buffer]:
    for buffer in buffers:
        view = memoryview(buffer)
        if view.c_contiguous:
            view = view.cast("B")
        elif view.ndim != 1:
            view = memoryview(view.tobytes())  # it cannot be sliced
        step = max(PIECE // view.itemsize, 1)
        for start in range(0, len(view), step):
            piece = view[start : start + step]
            yield piece if piece.c_contiguous else piece.tobytes()
