"""The recipes."""

from __future__ import annotations

import trio

from triocoro.recipes import Request, open_calls
from triocoro.testing import Cluster

from . import Case, checked, entered_and_left, registrar

CASES: dict[str, Case] = {}
"""The cases, by the name of the function that each calls; a case may depend on those before it."""

case = registrar(CASES)


async def _echo(request: Request) -> bytes:
    await trio.lowlevel.checkpoint()
    return request.payload


@case("recipes.open_calls")
async def _(_: Cluster) -> None:
    await entered_and_left(open_calls("g"))
    await entered_and_left(open_calls("g", _echo))


@case("recipes.Calls.call")
async def _(_: Cluster) -> None:
    async with open_calls("g", _echo) as calls:
        for payload in (b"x", bytes(1_047_553)):
            call = calls.call(payload)
            await checked(call.__aenter__())
            await call.__aexit__(None, None, None)


@case("recipes.Calls.send")
async def _(_: Cluster) -> None:
    async with open_calls("g") as calls:
        await checked(calls.send(b"x"))
        await checked(calls.send(bytes(1_047_553)))


@case("recipes.Calls.receive")
async def _(_: Cluster) -> None:
    async with open_calls("g", receive=True) as calls:
        await checked(calls.receive())
        await calls.send(b"x")
        await checked(calls.receive())


@case("recipes.Calls.__anext__")
async def _(_: Cluster) -> None:
    async with open_calls("g", receive=True) as calls:
        await checked(anext(calls))


@case("recipes.Replies.receive")
async def _(_: Cluster) -> None:
    async with open_calls("g", _echo) as calls, calls.call(b"x") as replies:
        await checked(replies.receive())


@case("recipes.Replies.aclose")
async def _(_: Cluster) -> None:
    async with open_calls("g", _echo) as calls, calls.call(b"x") as replies:
        await checked(replies.aclose())
        await checked(replies.aclose())
