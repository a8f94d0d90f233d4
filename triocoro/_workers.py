"""Calls on worker threads, which may be out of reach for a moment.

A process may be at its limit of threads: that of its user, or that of its container. A call that a program makes then
raises `NoResourcesError`. What ends or undoes something must not fail for that: it waits in a queue, and its thread is
started as soon as one can be.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import outcome
import trio

from ._backoff import Backoff
from ._errors import NoResourcesError

T = TypeVar("T")

_Job = tuple[Callable[[], object], Callable[[], object] | None]

_waiting: Final[deque[_Job]] = deque()
"""Background calls that have no thread yet, of all runs: if one run ends before it can start them, the next one that
has such a call does."""

# They end what is the parent's.
os.register_at_fork(after_in_child=_waiting.clear)


async def on_worker(call: Callable[[], T], lane: trio.CapacityLimiter) -> T:
    """Run `call` on a worker thread, once the lane is free, and return its result.

    Raises:
        NoResourcesError: no thread can be started; `call` was not run.

    Cancelled: returns at once; `call` goes on.
    """
    began = False

    def run() -> T:
        nonlocal began
        began = True
        return call()

    try:
        return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=lane)
    except RuntimeError as exc:
        if began:
            raise
        raise no_thread(exc) from exc


def no_thread(cause: RuntimeError) -> NoResourcesError:
    """The error that tells that this process cannot start a thread."""
    return NoResourcesError(
        "cannot start a thread to wait for the daemon: this process, its user or its container is at the limit of"
        f" threads; end some, or raise the limit (ulimit -u, or pids.max of the cgroup), then try again ({cause})"
    )


def in_background(
    call: Callable[[], object],
    done: Callable[[], object] | None = None,
    *,
    if_delayed: Callable[[], object] | None = None,
) -> None:
    """Run `call`, then `done`, on a worker thread that may outlive the run. Errors are dropped.

    Args:
        call: the call.
        done: called afterwards, on the worker as well.
        if_delayed: called here, before this returns, if no thread can be started now.
    """
    _waiting.append((call, done))
    try:
        _start_waiting()
    except RuntimeError:
        if if_delayed is not None:
            if_delayed()
        trio.lowlevel.spawn_system_task(_keep_starting)


def _start_waiting() -> None:
    """Start the calls that wait.

    Raises:
        RuntimeError: no thread can be started for the next one.
    """
    with suppress(IndexError):  # other runs, in other threads, take from the queue, too
        while True:
            job = _waiting.popleft()
            try:
                _start(*job)
            except RuntimeError:
                _waiting.appendleft(job)
                raise


def _start(call: Callable[[], object], done: Callable[[], object] | None) -> None:
    def deliver(_: outcome.Outcome[object]) -> None:
        if done is not None:
            done()

    trio.lowlevel.start_thread_soon(call, deliver, "triocoro")


async def _keep_starting() -> None:  # noqa: ASYNC910 - a task of its own
    backoff = Backoff.of_requests()
    while _waiting:
        await trio.sleep(backoff.next_pause())
        with suppress(RuntimeError):
            _start_waiting()
