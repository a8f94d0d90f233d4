"""A task beside the caller's block."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import trio

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@asynccontextmanager
async def running_beside(run: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Run a task beside the block, and cancel it at the block's end. If the task fails, the block is cancelled.

    An exception of the block comes out as itself, and otherwise that of the task: never in a group.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            try:
                yield
            except BaseException as exc:  # noqa: BLE001, ASYNC103 - raised below
                failure = exc
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        _, told = group.split(trio.Cancelled)
        if failure is None or (told is not None and _is_cancelled(failure)):
            error = _only(group if told is None else told)
            raise error from error.__cause__
    if failure is not None:
        raise failure


def _inner(error: BaseException) -> Sequence[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return ()
    return cast("BaseExceptionGroup[BaseException]", error).exceptions


def _only(error: BaseException) -> BaseException:
    inner = _inner(error)
    return _only(inner[0]) if len(inner) == 1 else error


def _is_cancelled(error: BaseException) -> bool:
    inner = _inner(error)
    return all(map(_is_cancelled, inner)) if inner else isinstance(error, trio.Cancelled)
