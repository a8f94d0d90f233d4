"""Cases that call every public async function, one module for each part of the API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias, TypeVar

from trio.testing import assert_checkpoints

from triocoro.testing import Cluster

T = TypeVar("T")
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


async def checked(awaitable: Awaitable[T]) -> T:
    with assert_checkpoints():
        return await awaitable


async def entered_and_left(manager: AbstractAsyncContextManager[object]) -> None:
    await checked(manager.__aenter__())
    await checked(manager.__aexit__(None, None, None))
