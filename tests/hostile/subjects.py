"""The objects whose methods are called: one of each kind that a program can hold, and some that are over."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import trio

import triocoro
from triocoro import lowlevel, recipes
from triocoro.testing import (
    Call,
    Cluster,
    ClusterLoan,
    FakeCluster,
    FakeClusterSource,
    History,
    NetnsClusterPool,
)

from .values import Machine

GRACE = 20.0
"""Seconds that a cancelled call, an honest call, or the opening of everything may take."""

_Handle: TypeAlias = (
    "lowlevel.CpgHandle | lowlevel.VotequorumHandle | lowlevel.QuorumHandle | lowlevel.CmapHandle | lowlevel.CfgHandle"
)


@asynccontextmanager
async def everything(cluster: Cluster, *, asks: bool) -> AsyncGenerator[dict[str, Any], None]:
    """Open every kind of object on node 1, which is the default endpoint.

    Args:
        cluster: a cluster that runs.
        asks: whether a shutdown of node 1 is being negotiated.
    """
    node = cluster[1]
    history = History()
    async with AsyncExitStack() as stack:
        stack.enter_context(node.as_default())
        subjects: dict[str, Any] = {
            "group": await stack.enter_async_context(triocoro.open_group("hostile", max_buffered_bytes=2**28)),
            "deaf": await stack.enter_async_context(triocoro.open_group("deaf", receive=False)),
            "views": await stack.enter_async_context(triocoro.open_views("views", max_buffered_bytes=2**28)),
            "cpg": await stack.enter_async_context(triocoro.open_cpg()),
            "votequorum": await stack.enter_async_context(triocoro.open_votequorum()),
            "quorum": await stack.enter_async_context(triocoro.open_quorum()),
            "cmap": await stack.enter_async_context(triocoro.open_cmap()),
            "stats": await stack.enter_async_context(triocoro.open_cmap(triocoro.CmapMap.STATS)),
            "cfg": await stack.enter_async_context(triocoro.open_cfg()),
        }
        subjects["votequorum_stream"] = await stack.enter_async_context(subjects["votequorum"].track())
        subjects["quorum_stream"] = await stack.enter_async_context(subjects["quorum"].track())
        subjects["cmap_stream"] = await stack.enter_async_context(subjects["cmap"].track("hostile.", prefix=True))
        for service in ("cpg", "votequorum", "quorum", "cmap", "cfg"):
            handle = await getattr(lowlevel, f"{service}_initialize")()
            subjects[f"{service}_handle"] = handle
            stack.push_async_callback(_finalize, handle)
        subjects["buffer"] = await _shared_buffer(stack, subjects["cpg_handle"])
        if asks:
            subjects["request"] = await _shutdown_request(stack)
        subjects |= {
            "session": await anext(triocoro.sessions("session")),
            "cluster": cluster,
            "node": node,
            "options": cluster.options,
            "source": FakeClusterSource() if isinstance(cluster, FakeCluster) else NetnsClusterPool(None),
            "loan": ClusterLoan(cluster),
            "history": history,
            "recording": history.endpoint(node, client="recorded"),
            "entry": Call(time=0.0, client="client", node=1, handle=1, number=1, function="function", arguments={}),
            "message": triocoro.Message(triocoro.Address(1, 1), b"payload"),
            "ring_id": triocoro.RingId(1, 1),
            "error": triocoro.TryAgainError("text", function="function"),
            "view": subjects["group"].view,
        }
        subjects |= await _recipes(stack)
        stack.callback(subjects["source"].close)  # a pool watches the clusters that it has lent
        yield subjects


async def _recipes(stack: AsyncExitStack) -> dict[str, Any]:
    """Recipes whose electorate is node 1 alone, so that they are primary."""
    subjects: dict[str, Any] = {
        "safe_group": await stack.enter_async_context(recipes.open_safe_group("safe", nodes=[1])),
        "replica": await stack.enter_async_context(recipes.open_replica("replica", Machine(), nodes=[1])),
        "lock": await stack.enter_async_context(recipes.open_lock("lock", nodes=[1])),
        "calls": await stack.enter_async_context(recipes.open_calls("calls", answer)),
    }
    subjects["held"] = await stack.enter_async_context(subjects["lock"].hold())
    subjects["leadership"] = await stack.enter_async_context(recipes.open_leadership("leadership", nodes=[1]))
    subjects["leader"] = await stack.enter_async_context(subjects["leadership"].lead())
    subjects["replies"] = await stack.enter_async_context(subjects["calls"].call(b"question"))
    return subjects


async def answer(request: recipes.Request) -> bytes:
    """Answer a call with its payload."""
    await trio.lowlevel.checkpoint()
    return request.payload


async def _shared_buffer(stack: AsyncExitStack, handle: lowlevel.CpgHandle) -> memoryview:
    """A buffer of `zcb_alloc`, or one like it where the library has none."""
    try:
        return await stack.enter_async_context(handle.zcb_alloc(64))
    except triocoro.NotSupportedError:
        return memoryview(bytearray(64))


async def _shutdown_request(stack: AsyncExitStack) -> triocoro.ShutdownRequest:
    """A request to agree to a shutdown, which is refused in the end."""

    async def try_shutdown() -> None:
        with contextlib.suppress(triocoro.CorosyncError):
            async with triocoro.open_cfg() as cfg:
                await cfg.try_shutdown()

    async def refuse() -> None:
        with trio.move_on_after(GRACE, shield=True), contextlib.suppress(*_OVER):
            await request.reply(accept=False)

    cfg = await stack.enter_async_context(triocoro.open_cfg())
    requests = await stack.enter_async_context(cfg.track_shutdown())
    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)  # a frozen daemon does not answer
    nursery.start_soon(try_shutdown)
    request = await requests.receive()
    stack.push_async_callback(refuse)
    return request


_OVER = (RuntimeError, triocoro.CorosyncError, trio.ClosedResourceError)
"""What a reply raises that comes too late."""


async def use(result: Any, *, new: bool) -> None:
    """Await a result, enter a context manager, iterate a little, or let a handle call its callbacks.

    Args:
        result: what a call has returned.
        new: whether the call is a constructor, so that a cluster has not been entered.
    """
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, _HANDLES):
        try:
            await _call_callbacks(result)
        finally:
            await _finalize(result)
    elif isinstance(result, ClusterLoan) and isinstance(
        result.cluster,
        Cluster,  # pyright: ignore[reportUnnecessaryIsInstance] - it may have been given something else
    ):
        FakeClusterSource().give_back(result.cluster)
    elif (isinstance(result, FakeCluster) and new) or (
        isinstance(result, contextlib.AbstractAsyncContextManager) and not isinstance(result, Cluster)
    ):
        async with result:
            await trio.lowlevel.checkpoint()
    elif isinstance(result, contextlib.AbstractContextManager) and not isinstance(
        result, (Cluster, trio.CancelScope, memoryview)
    ):
        with result:
            pass
    elif isinstance(result, AsyncIterator) and not isinstance(result, trio.abc.ReceiveChannel):
        async for one in result:  # pyright: ignore[reportUnknownVariableType] - whatever it yields
            await use(one, new=False)
            break


_HANDLES = (
    lowlevel.CpgHandle,
    lowlevel.VotequorumHandle,
    lowlevel.QuorumHandle,
    lowlevel.CmapHandle,
    lowlevel.CfgHandle,
)


async def _call_callbacks(handle: _Handle) -> None:
    """Cause events of a new handle, and dispatch them: its callbacks may be hostile."""
    if isinstance(handle, lowlevel.CpgHandle):
        await handle.join("callbacks")
        await handle.mcast_joined(b"callback")
    elif isinstance(handle, (lowlevel.VotequorumHandle, lowlevel.QuorumHandle)):
        await handle.trackstart(lowlevel.Track.CURRENT | lowlevel.Track.CHANGES)
    await handle.dispatch(lowlevel.Dispatch.ONE)


async def _finalize(handle: _Handle) -> None:
    with trio.move_on_after(GRACE, shield=True):
        await handle.finalize()


async def closed_objects(cluster: Cluster) -> tuple[Any, ...]:
    """Objects that are over, and an endpoint of a cluster that is over."""
    async with triocoro.open_group("closed", endpoint=cluster[1].endpoint) as group:
        pass
    async with FakeCluster(nodes=1) as other:
        endpoint = other[1].endpoint
    return group, endpoint, other, other[1]


async def mend(cluster: Cluster) -> None:
    """Undo what calls may have done to a cluster."""
    await cluster.heal()
    for node in cluster.nodes.values():
        await node.thaw()
        await node.start()
    await cluster.settled()
