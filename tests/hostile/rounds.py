"""Rounds of hostile calls: each opens everything, makes calls, and then checks that honest calls work."""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import random
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import attrs
import trio

import triocoro
from triocoro import lowlevel
from triocoro.testing import Cluster, FakeCluster, History

from .targets import LAST, RARE, SPOILING, Target, of_modules, of_object
from .values import HostileError, honest, hostile, knows

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

CALLS = 60
"""How many calls a round has."""
_PATIENCE = 0.05
"""Seconds that a call may wait before it is cancelled, as many rightly wait for ever."""
_GRACE = 20.0
"""Seconds that a cancelled call, an honest call, or the opening of everything may take."""
_STUCK = 120
"""Seconds of real time after which a call that lets nothing else run ends the process."""
_ALLOWED = (
    TypeError,
    ValueError,
    triocoro.CorosyncError,
    trio.ClosedResourceError,
    trio.BusyResourceError,
    trio.BrokenResourceError,
    trio.WouldBlock,
    trio.EndOfChannel,
    trio.TooSlowError,
    HostileError,
    NotImplementedError,  # what iteration over a scattered buffer raises
)
_OF_FILES = ("history.save", "history.load", "History.load")


@attrs.define
class Findings:
    """What was found, each kind once."""

    calls: int = 0
    outcomes: dict[str, int] = attrs.field(factory=dict[str, int])
    found: dict[str, str] = attrs.field(factory=dict[str, str])
    latest: list[str] = attrs.field(factory=list[str])
    """The calls that were made last."""

    def count(self, outcome: str) -> None:
        """Count how a call ended."""
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def add(self, kind: str, text: str) -> None:
        """Note a finding."""
        if kind not in self.found:
            self.found[kind] = text
            print(f"hostile: {kind}\n    {text}".replace("\n", "\n    "), flush=True)


def is_allowed(target: Target, error: BaseException) -> bool:
    """Whether a call may raise this error."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return all(is_allowed(target, one) for one in group.exceptions)
    if isinstance(error, OSError):
        return target.name.endswith(_OF_FILES)
    if target.last_name == "__getitem__" and isinstance(error, LookupError):
        return True
    if isinstance(error, RuntimeError) and type(error) is RuntimeError:
        # With our own text, or Trio's.
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        return "/triocoro/" in files[-1] or "/trio/" in files[-1] or files[-1].endswith("contextlib.py")
    return isinstance(error, _ALLOWED)


class Round:
    """One round on a cluster.

    Args:
        cluster: a cluster that runs and is whole.
        chance: chooses calls and arguments.
        findings: what was found.
        last: the file where each call is noted before it is made, in case the process does not survive it.
    """

    def __init__(self, cluster: Cluster, chance: random.Random, findings: Findings, last: Path) -> None:
        self._cluster = cluster
        self._chance = chance
        self._findings = findings
        self._last = last
        self.spoilt = False
        """Whether the cluster should not be used any more."""
        self._closed: tuple[Any, ...] = ()

    async def run(self) -> None:
        """Open everything, make the calls, check, and mend what the last calls may have done."""
        with trio.fail_after(10 * _GRACE):
            self._closed = await _closed_objects(self._cluster)
            try:
                async with _everything(self._cluster) as subjects:
                    await self._call_all(subjects)
            except triocoro.CorosyncError as error:
                self._findings.count(f"the block: {type(error).__name__}")
            if not self.spoilt:
                await _mend(self._cluster)

    def damaged(self, error: BaseException) -> None:
        """Note that the round came to a bad end."""
        last = traceback.extract_tb(error.__traceback__)[-1]
        logs = [
            f"the end of the log of node {number}:\n{node.log[-500:]}" for number, node in self._cluster.nodes.items()
        ]
        self._findings.add(
            f"a round ended with {type(error).__name__} at {Path(last.filename).name}:{last.lineno}",
            "\n".join([*self._findings.latest, *logs, "".join(traceback.format_exception(error))[-1500:]]),
        )

    async def _call_all(self, subjects: dict[str, Any]) -> None:
        targets = list(of_modules())
        for name, subject in subjects.items():
            targets += of_object(name, subject)
        target = targets[0]
        first = [target for target in targets if target.last_name not in LAST]
        # Of each module and object as often, however many calls it has.
        for number in range(CALLS):
            target = self._chance.choice(first)
            if target.last_name in RARE and self._chance.random() < 0.9:
                continue
            await self._call(target)
            if number % 20 == 0:
                await self._check(subjects, target)
        await self._check(subjects, target)
        for target in self._chance.sample([target for target in targets if target.last_name in LAST], 3):
            await self._call(target)

    async def _call(self, target: Target) -> None:
        args, kwargs = self._arguments(target)
        line = f"{target.name} {_show(args)} {_show(kwargs)}"
        self._last.write_text(line, encoding="utf-8", errors="replace")
        self._findings.latest = [*self._findings.latest[-11:], line]
        self._findings.calls += 1
        self.spoilt = self.spoilt or target.last_name in SPOILING
        faulthandler.dump_traceback_later(_STUCK, exit=True)
        try:
            with trio.move_on_after(2 * _GRACE) as grace:
                # Verbs of clusters complete in the background if they are cancelled, and disturb what follows.
                is_verb = target.name.startswith(("cluster.", "node."))
                with trio.move_on_after(_GRACE if is_verb else _PATIENCE, shield=is_verb):
                    result = target.call(*args, **kwargs)
                    await _use(result)
            if grace.cancelled_caught:
                self._findings.add(f"{target.name} hangs", f"{_show(args)} {_show(kwargs)}")
            self._findings.count("returned")
        except BaseException as error:  # noqa: ASYNC103 - a cancellation is raised
            if isinstance(error, KeyboardInterrupt) or _has_cancelled(error):
                raise  # the block that the call is in has ended
            self._findings.count(type(error).__name__)
            if not is_allowed(target, error):
                where = traceback.extract_tb(error.__traceback__)[-1]
                kind = f"{target.name}: {type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
                self._findings.add(
                    kind, f"{_show(args)} {_show(kwargs)}\n{''.join(traceback.format_exception(error))[-700:]}"
                )
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _arguments(self, target: Target) -> tuple[list[Any], dict[str, Any]]:
        chance = self._chance
        parameters = target.parameters
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if parameters and chance.random() < 0.03 and not inspect.isclass(target.call):
            return [hostile(chance, self._closed) for _ in range(chance.randint(0, 4))], {}
        # Mostly one hostile argument among honest ones, so that it gets far.
        bad = chance.choice(parameters).name if parameters and chance.random() < 0.6 else None
        for parameter in parameters:
            has_default = parameter.default is not inspect.Parameter.empty
            name = parameter.name
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                values = [self._value(name, bad=name == bad or bad is None) for _ in range(chance.randint(0, 2))]
                args += values
                continue
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                if chance.random() < 0.3:
                    kwargs[chance.choice(("nodes", "token", "votes", "x", "two_node"))] = hostile(chance, self._closed)
                continue
            if has_default and name != bad and (name == "endpoint" or chance.random() < 0.7):
                continue
            value = self._value(name, bad=name == bad or bad is None)
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY or len(args) < parameters.index(parameter):
                kwargs[name] = value
            else:
                args.append(value)
        return args, kwargs

    def _value(self, name: str, *, bad: bool) -> Any:
        if not bad and knows(name):
            return honest(name, self._chance)
        return hostile(self._chance, self._closed)

    async def _check(self, subjects: dict[str, Any], last: Target) -> None:
        """The next honest calls work."""
        try:
            with trio.fail_after(_GRACE):
                with contextlib.suppress(triocoro.MessageLostError):  # so many megabytes before
                    await subjects["group"].send_and_wait(b"honest")
                await subjects["cpg"].members("hostile")
                await subjects["votequorum"].info()
                await subjects["quorum"].is_quorate()
                await subjects["cmap"].get("totem.cluster_name")
                await subjects["cfg"].local_nodeid()
                await subjects["cpg_handle"].local_get()
                async with triocoro.open_group("newcomer") as group:
                    await group.send_and_wait(b"honest")
        except (triocoro.CorosyncError, trio.TooSlowError, AssertionError, LookupError, RuntimeError) as error:
            self._findings.add(
                f"after {last.name} or one of the 20 calls before it: {type(error).__name__}",
                "".join(traceback.format_exception(error))[-1500:],
            )
            raise


def _has_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return any(map(_has_cancelled, group.exceptions))
    return isinstance(error, trio.Cancelled)


async def _use(result: Any) -> None:
    """Await a result, enter a context manager, or iterate a little."""
    if inspect.isawaitable(result):
        result = await result
    if isinstance(result, FakeCluster) or (
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
            await _use(one)
            break


def _show(value: object) -> str:
    try:
        return repr(value)[:300]
    except HostileError:
        return "<a hostile object>"
    except Exception as error:  # noqa: BLE001 - a bad repr of a value
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


@asynccontextmanager
async def _everything(cluster: Cluster) -> AsyncGenerator[dict[str, Any], None]:
    """Open every kind of object on node 1, which is the default endpoint."""
    node = cluster[1]
    history = History()
    async with AsyncExitStack() as stack:
        stack.enter_context(node.as_default())
        subjects: dict[str, Any] = {
            "group": await stack.enter_async_context(triocoro.open_group("hostile", max_buffered_bytes=2**28)),
            "deaf": await stack.enter_async_context(triocoro.open_group("deaf", receive=False)),
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
        subjects |= {
            "cluster": cluster,
            "node": node,
            "options": cluster.options,
            "history": history,
            "recording": history.endpoint(node, client="recorded"),
            "message": triocoro.Message(triocoro.Address(1, 1), b"payload"),
            "ring_id": triocoro.RingId(1, 1),
            "error": triocoro.TryAgainError("text", function="function"),
            "view": subjects["group"].view,
        }
        yield subjects


async def _finalize(handle: Any) -> None:
    with trio.move_on_after(_GRACE, shield=True):
        await handle.finalize()


async def _closed_objects(cluster: Cluster) -> tuple[Any, ...]:
    """Objects that are over, and an endpoint of a cluster that is over."""
    async with triocoro.open_group("closed", endpoint=cluster[1].endpoint) as group:
        pass
    async with FakeCluster(nodes=1) as other:
        endpoint = other[1].endpoint
    return group, endpoint, other, other[1]


async def _mend(cluster: Cluster) -> None:
    await cluster.heal()
    for node in cluster.nodes.values():
        await node.thaw()
        await node.start()
    await cluster.settled()
