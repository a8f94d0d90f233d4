"""Cases that call every public async function, one module for each part of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar

import trio
from trio.testing import assert_checkpoints

from triocoro.testing import Cluster

T = TypeVar("T")

on_worker: list[trio.lowlevel.Task] = []
"""The tasks that have used a worker thread, once for each use, if a test notes it."""
on_loop_only: list[bool] = []
"""For each call that was checked, whether it has used none; not of calls to a fake where the cluster is real."""
Case: TypeAlias = Callable[[Cluster], Awaitable[None]]


def registrar(cases: dict[str, Case]) -> Callable[[str], Callable[[Case], Case]]:
    """A decorator that adds a case to `cases` under the name of the function that it calls."""

    def case(name: str) -> Callable[[Case], Case]:
        def register(function: Case) -> Case:
            assert name not in cases
            cases[name] = function
            return function

        return register

    return case


async def checked(awaitable: Awaitable[T], *, noted: bool = True) -> T:
    before = len(on_worker)
    with assert_checkpoints():
        result = await awaitable
    if noted:
        on_loop_only.append(trio.lowlevel.current_task() not in on_worker[before:])
    return result


async def entered_and_left(manager: AbstractAsyncContextManager[object]) -> None:
    await checked(manager.__aenter__())
    await checked(manager.__aexit__(None, None, None))
