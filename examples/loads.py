"""The load of all nodes, every two seconds, on each of them.

    python examples/loads.py [SECONDS]

Run it on each node. Each asks all, and answers when it is asked. A node that leaves while it is asked is shown as
unknown. A program that is stopped stays in the group and does not answer, so each round takes a second at most.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

import trio

import triocoro
from triocoro.recipes import Answer, Calls, Failure, Request, open_calls


async def load(request: Request) -> bytes:  # noqa: ASYNC124 - handlers are async
    """Answer a request: the load of this machine."""
    if request.payload != b"load":
        raise ValueError(f"unknown request {request.payload!r}")
    return f"{os.getloadavg()[0]:.2f}".encode()


async def ask_all(calls: Calls) -> list[str]:
    """What the nodes answer within a second, a line for each."""
    lines: list[str] = []
    async with calls.call(b"load") as replies:
        with trio.move_on_after(1):
            async for reply in replies:
                text = "unknown: it has left"
                if isinstance(reply, Answer):
                    text = reply.payload.decode()
                elif isinstance(reply, Failure):
                    text = f"failed: {reply.text}"
                lines.append(f"node {reply.member.nodeid}  {text}")
        lines += [f"node {member.nodeid}  no answer" for member in replies.awaited]
    return sorted(lines)


async def run(show: Callable[[str], None], seconds: float = 2) -> None:
    """Show a table again and again, until cancelled; when the daemon dies, go on when it is back."""
    async for session in triocoro.sessions(open_calls, "loads", load):
        async with session as calls:
            while True:
                show("\n".join(await ask_all(calls)))
                await trio.sleep(seconds)


if __name__ == "__main__":
    logging.basicConfig(format="* %(message)s")  # such as that it waits for the daemon
    trio.run(run, print, float((sys.argv[1:] or ["2"])[0]))
