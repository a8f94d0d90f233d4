"""The work of a client process: it joins groups, sends and tracks as the driver tells it to."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

import triocoro
from triocoro import ConfigChange, lowlevel
from triocoro.lowlevel import Dispatch
from triocoro.testing import RecordingEndpoint

COROSYNC_ERRORS = (triocoro.CorosyncError, trio.ClosedResourceError)
"""Errors that count as a result, to be compared. Any other error is a bug, and ends the client."""
INPUT_ERRORS = (*COROSYNC_ERRORS, ValueError, TypeError, RuntimeError)
"""Errors that count as a result where the arguments may be invalid."""
TRACKED_KEYS = "fuzz."
"""The prefix of all keys that programs use."""
EMPTY_GROUP = "nobody"
"""A group without members."""


class Agent:
    """Carries out the steps of one client, several at a time, through one endpoint that records."""

    def __init__(self, endpoint: RecordingEndpoint, nursery: trio.Nursery) -> None:
        self._endpoint = endpoint
        self._nursery = nursery
        self._members: dict[str, _GroupMember] = {}
        self._trackers: dict[str, tuple[trio.CancelScope, trio.Event]] = {}

    async def do(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Carry out a verb; returns its result, or the name of the error."""
        try:
            return await getattr(self, f"_do_{verb}")(**arguments)
        except COROSYNC_ERRORS as error:
            return name_of(error)

    async def _do_join(self, group: str, api: str) -> None:
        member = _GroupMember(self._endpoint, group)
        await self._nursery.start(member.run, api)
        self._members[group] = member

    async def _do_send(self, group: str, payloads: list[list[int]]) -> None:
        await self._members[group].send([contents(number, size) for number, size in payloads])

    async def _do_mark(self, group: str, marker: str) -> None:
        await self._members[group].send([marker.encode()])

    async def _do_leave(self, group: str, *, leave_first: bool = True) -> None:
        member = self._members.pop(group)
        member.leave_first = leave_first
        member.end.set()
        await member.gone.wait()

    async def _do_lose(self, group: str) -> None:
        """Wait until the member notices that its connection is lost."""
        await self._members.pop(group).gone.wait()

    async def _do_track(self, service: str) -> None:
        await self._nursery.start(self._track, service)

    async def _do_untrack(self, service: str) -> None:
        scope, ended = self._trackers.pop(service)
        if ended.is_set():
            raise RuntimeError(f"tracking of {service} ended, although its daemon did not")
        scope.cancel()
        await ended.wait()

    async def _do_lose_track(self, service: str) -> None:
        """Wait until the tracker notices that its connection is lost."""
        _, ended = self._trackers.pop(service)
        await ended.wait()

    async def _track(self, service: str, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as scope:
            ended = trio.Event()
            try:
                async with self._changes(service) as changes:
                    self._trackers[service] = scope, ended
                    task_status.started()
                    async for _ in changes:
                        pass
            except triocoro.ConnectionLostError:
                await trio.lowlevel.checkpoint()
            finally:
                ended.set()

    @asynccontextmanager
    async def _changes(self, service: str) -> AsyncGenerator[AsyncIterable[object], None]:
        if service == "quorum":
            async with triocoro.open_quorum(endpoint=self._endpoint) as quorum, quorum.track() as changes:
                yield changes
        elif service == "votequorum":
            async with triocoro.open_votequorum(endpoint=self._endpoint) as votequorum, votequorum.track() as changes:
                yield changes
        else:
            async with (
                triocoro.open_cmap(endpoint=self._endpoint) as cmap,
                cmap.track(TRACKED_KEYS, prefix=True) as changes,
            ):
                yield changes

    async def _do_mistake(self) -> list[Any]:
        """Make calls that cannot succeed; returns the error of each."""
        handle = await lowlevel.cpg_initialize(endpoint=self._endpoint)
        try:
            calls: Iterable[Callable[[], Awaitable[object]]] = (
                lambda: handle.mcast_joined(b"too early"),
                lambda: handle.leave("no member"),
                lambda: handle.join("x" * 200),
                lambda: handle.join(""),
                lambda: handle.membership_get(EMPTY_GROUP),
                lambda: handle.dispatch(Dispatch.ONE_NONBLOCKING),
            )
            cpg = [await _outcome(call) for call in calls]
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await handle.finalize()
        calls = (
            lambda: handle.join("after the end"),
            self._votequorum_call(lambda votequorum: votequorum.info(99)),
            self._votequorum_call(lambda votequorum: votequorum.qdevice_unregister("no device")),
            self._votequorum_call(lambda votequorum: votequorum.qdevice_master_wins("no device", allow=True)),
            self._cmap_call(lambda cmap: cmap.get("fuzz.none")),
            self._cmap_call(lambda cmap: cmap.set("runtime.services.x", 1)),
            self._cmap_call(lambda cmap: cmap.set("x", 1)),
            self._cmap_call(lambda cmap: cmap.set("fuzz.with space", 1)),
            self._cmap_call(lambda cmap: cmap.set("fuzz." + "x" * 300, 1)),
            self._cmap_call(lambda cmap: cmap.increment("totem.version")),
            self._cmap_call(lambda cmap: cmap.increment("cluster_name")),
        )
        return cpg + [await _outcome(call) for call in calls]

    def _votequorum_call(self, call: Callable[[Any], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        async def connect_and_call() -> object:
            async with triocoro.open_votequorum(endpoint=self._endpoint) as votequorum:
                return await call(votequorum)

        return connect_and_call

    def _cmap_call(self, call: Callable[[Any], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        async def connect_and_call() -> object:
            async with triocoro.open_cmap(endpoint=self._endpoint) as cmap:
                return await call(cmap)

        return connect_and_call


def contents(number: int, size: int) -> bytes:
    """Return a payload of `size` bytes after a prefix with its number."""
    return f"{number}:".encode() + b"x" * size


def name_of(error: BaseException) -> str:
    """Return the name of an error's class, with its code if it has one."""
    name = type(error).__name__
    return f"{name} {error.code.name}" if isinstance(error, triocoro.CorosyncError) else name


async def _outcome(call: Callable[[], Awaitable[object]]) -> str:
    try:
        return repr(await call())
    except INPUT_ERRORS as error:
        return name_of(error)


class _GroupMember:
    """A member of a group."""

    def __init__(self, endpoint: RecordingEndpoint, group: str) -> None:
        self._endpoint = endpoint
        self._group = group
        self.send: Callable[[list[bytes]], Awaitable[None]]
        self.end = trio.Event()
        self.leave_first = True
        self.gone = trio.Event()
        self._left = trio.Event()

    async def run(  # noqa: ASYNC128 - the task status is passed on
        self, api: str, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Be a member until `end` is set or the daemon is gone."""
        try:
            if api == "sdk":
                await self._run_sdk(task_status)
            else:
                await self._run_lowlevel(Dispatch[api], task_status)
        finally:
            self.gone.set()

    async def _run_sdk(self, task_status: trio.TaskStatus[None]) -> None:
        started = False
        try:
            async with (
                triocoro.open_group(self._group, totem_changes=True, endpoint=self._endpoint) as group,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._receive, group)
                self.send = group.send_batch
                started = True
                task_status.started()
                await self.end.wait()
                nursery.cancel_scope.cancel()
        except triocoro.ConnectionLostError:
            if not started:
                raise

    async def _receive(self, group: triocoro.Group) -> None:
        async for _ in group:
            await trio.lowlevel.checkpoint()

    async def _run_lowlevel(self, dispatch: Dispatch, task_status: trio.TaskStatus[None]) -> None:
        async def handle_change(event: ConfigChange) -> None:
            await trio.lowlevel.checkpoint()
            if any(change.address.pid == self._endpoint.pid for change in event.left):
                self._left.set()

        handle = await lowlevel.cpg_initialize(
            deliver=_ignore, confchg=handle_change, totem_confchg=_ignore, endpoint=self._endpoint
        )

        async def send(payloads: list[bytes]) -> None:
            for payload in payloads:
                await _retry(handle.mcast_joined, payload)

        self.send = send
        try:
            await _retry(handle.join, self._group)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_dispatch, handle, dispatch, nursery.cancel_scope)
                task_status.started()
                await self.end.wait()
                if self.leave_first:
                    await _retry(handle.leave, self._group)
                    await self._left.wait()
                nursery.cancel_scope.cancel()
        finally:
            # The handle is closed in any case; if the daemon is frozen, in the background.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await handle.finalize()


async def _ignore(_: object) -> None:
    await trio.lowlevel.checkpoint()


async def _dispatch(handle: lowlevel.CpgHandle, dispatch: Dispatch, member: trio.CancelScope) -> None:
    try:
        while True:
            if dispatch in {Dispatch.ALL, Dispatch.ONE_NONBLOCKING}:
                await trio.lowlevel.wait_readable(handle.fd)
            try:
                await handle.dispatch(dispatch)
            except triocoro.TryAgainError:
                await trio.lowlevel.checkpoint()
    except triocoro.ConnectionLostError:
        member.cancel()


async def _retry(call: Callable[[Any], Awaitable[None]], argument: bytes | str) -> None:
    """Repeat a call for as long as Corosync answers that it should be tried again."""
    while True:
        try:
            await call(argument)
        except triocoro.TryAgainError:
            await trio.sleep(0.005)
        else:
            return
