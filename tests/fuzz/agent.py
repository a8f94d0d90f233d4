"""What a client process does: it is a member of groups, sends, and tracks, as it is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

import triocoro
from triocoro import ConfigChange, GroupEvent, MessageLost, lowlevel
from triocoro.lowlevel import Dispatch
from triocoro.testing import RecordingEndpoint

ANSWERS = (triocoro.CorosyncError, trio.ClosedResourceError)
"""Errors that are an answer; others are a bug, which ends the client."""
OBJECTIONS = (*ANSWERS, ValueError, TypeError, RuntimeError)
"""Those that are one to a mistake."""
TRACKED_KEYS = "fuzz."
NOBODY = "nobody"
"""A group without members."""


class Agent:
    """Does what a program says, by way of one endpoint; several things at a time. Others see it by what is recorded."""

    def __init__(self, endpoint: RecordingEndpoint, nursery: trio.Nursery) -> None:
        self._endpoint = endpoint
        self._nursery = nursery
        self._members: dict[str, _Member] = {}
        self._trackers: dict[str, tuple[trio.CancelScope, trio.Event]] = {}

    async def do(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Do it; returns what came of it: an error's name, or whatever the verb gives."""
        try:
            return await getattr(self, f"_do_{verb}")(**arguments)
        except ANSWERS as error:
            return name_of(error)

    async def _do_join(self, group: str, way: str) -> None:
        member = _Member(self._endpoint, group)
        await self._nursery.start(member.be_one, way)
        self._members[group] = member

    async def _do_send(self, group: str, payloads: list[list[int]]) -> None:
        await self._members[group].send([contents(number, size) for number, size in payloads])

    async def _do_mark(self, group: str, marker: str) -> None:
        await self._members[group].send([marker.encode()])

    async def _do_leave(self, group: str, *, leaves: bool = True) -> None:
        member = self._members.pop(group)
        member.leaves = leaves
        member.end.set()
        await member.gone.wait()

    async def _do_lose(self, group: str) -> None:
        """Wait until the connection is known to be lost."""
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
        """Wait until that connection is known to be lost."""
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
        """Calls that cannot succeed, and what each says."""
        handle = await lowlevel.cpg_initialize(endpoint=self._endpoint)
        try:
            calls: Iterable[Callable[[], Awaitable[object]]] = (
                lambda: handle.mcast_joined(b"too early"),
                lambda: handle.leave("no member"),
                lambda: handle.join("x" * 200),
                lambda: handle.join(""),
                lambda: handle.membership_get(NOBODY),
                lambda: handle.dispatch(Dispatch.ONE_NONBLOCKING),
            )
            cpg = [await _outcome(call) for call in calls]
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await handle.finalize()
        calls = (
            lambda: handle.join("after the end"),
            self._ask_votequorum(lambda votequorum: votequorum.info(99)),
            self._ask_votequorum(lambda votequorum: votequorum.qdevice_unregister("no device")),
            self._ask_votequorum(lambda votequorum: votequorum.qdevice_master_wins("no device", allow=True)),
            self._ask_cmap(lambda cmap: cmap.get("fuzz.none")),
            self._ask_cmap(lambda cmap: cmap.set("runtime.services.x", 1)),
            self._ask_cmap(lambda cmap: cmap.set("x", 1)),
            self._ask_cmap(lambda cmap: cmap.set("fuzz.with space", 1)),
            self._ask_cmap(lambda cmap: cmap.set("fuzz." + "x" * 300, 1)),
            self._ask_cmap(lambda cmap: cmap.increment("totem.version")),
            self._ask_cmap(lambda cmap: cmap.increment("cluster_name")),
        )
        return cpg + [await _outcome(call) for call in calls]

    def _ask_votequorum(self, question: Callable[[Any], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        async def ask() -> object:
            async with triocoro.open_votequorum(endpoint=self._endpoint) as votequorum:
                return await question(votequorum)

        return ask

    def _ask_cmap(self, question: Callable[[Any], Awaitable[object]]) -> Callable[[], Awaitable[object]]:
        async def ask() -> object:
            async with triocoro.open_cmap(endpoint=self._endpoint) as cmap:
                return await question(cmap)

        return ask


def contents(number: int, size: int) -> bytes:
    """A payload of that many bytes, and those that say which it is."""
    return f"{number}:".encode() + b"x" * size


def name_of(error: BaseException) -> str:
    """Its class, and its code if it has one."""
    name = type(error).__name__
    return f"{name} {error.code.name}" if isinstance(error, triocoro.CorosyncError) else name


async def _outcome(call: Callable[[], Awaitable[object]]) -> str:
    try:
        return repr(await call())
    except OBJECTIONS as error:
        return name_of(error)


class _Member:
    """A member of a group."""

    def __init__(self, endpoint: RecordingEndpoint, group: str) -> None:
        self._endpoint = endpoint
        self._group = group
        self.send: Callable[[list[bytes]], Awaitable[None]]
        self.end = trio.Event()
        self.leaves = True
        self.gone = trio.Event()
        self._left = trio.Event()

    async def be_one(  # noqa: ASYNC128 - it hands it on
        self, way: str, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Be one until told to go, or until the daemon goes."""
        try:
            if way == "sdk":
                await self._be_member(task_status)
            else:
                await self._be_raw_member(Dispatch[way], task_status)
        finally:
            self.gone.set()

    async def _be_member(self, task_status: trio.TaskStatus[None]) -> None:
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
        async for event in group:
            await self._handle(event)

    async def _handle(self, event: GroupEvent) -> None:
        await trio.lowlevel.checkpoint()
        if isinstance(event, MessageLost):
            self._endpoint.lost(event.payload)

    async def _be_raw_member(self, dispatch: Dispatch, task_status: trio.TaskStatus[None]) -> None:
        async def handle_change(event: ConfigChange) -> None:
            await trio.lowlevel.checkpoint()
            if any(change.address.pid == self._endpoint.pid for change in event.left):
                self._left.set()

        handle = await lowlevel.cpg_initialize(
            deliver=_ignore, confchg=handle_change, totem_confchg=_ignore, endpoint=self._endpoint
        )

        async def send(payloads: list[bytes]) -> None:
            for payload in payloads:
                await _insist(handle.mcast_joined, payload)

        self.send = send
        try:
            await _insist(handle.join, self._group)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_dispatch, handle, dispatch, nursery.cancel_scope)
                task_status.started()
                await self.end.wait()
                if self.leaves:
                    await _insist(handle.leave, self._group)
                    await self._left.wait()
                nursery.cancel_scope.cancel()
        finally:
            # It is given up in any case; with a frozen daemon, in the background.
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


async def _insist(call: Callable[[Any], Awaitable[None]], argument: bytes | str) -> None:
    """Call again and again while Corosync says so."""
    while True:
        try:
            await call(argument)
        except triocoro.TryAgainError:
            await trio.sleep(0.005)
        else:
            return
