"""Call functions in a forked child process."""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import warnings
from collections.abc import Awaitable, Callable

import trio


def in_child(function: Callable[[], object]) -> object:
    """What `function` returns in a forked child."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Forking a process with threads is what an application may do, wisely or not.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        try:
            os.write(writer, pickle.dumps(function()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        # It says all at once; unless it hangs, on a lock that was held when it was forked.
        if not select.select([pipe], [], [], 20)[0]:
            os.kill(pid, signal.SIGKILL)
        data = pipe.read()
    os.waitpid(pid, 0)
    return pickle.loads(data) if data else "the child said nothing"  # noqa: S301


def run_in_child(function: Callable[[], Awaitable[object]]) -> object:
    """What an async function returns in a forked child, on a thread of its own, where no Trio run is under way."""

    def child() -> object:
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(trio.run(function)))
        thread.start()
        thread.join()
        return results[0]

    return in_child(child)


async def outcome_of(call: Callable[[], Awaitable[object]]) -> str:
    """What a call returns within a second, or its error, as text that can be sent to the parent."""
    try:
        with trio.fail_after(1):
            return f"returned {await call()!r}"
    except Exception as exc:  # noqa: BLE001 - the parent judges
        return f"{type(exc).__name__}: {exc}"
