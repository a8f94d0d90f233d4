"""Rounds of hostile calls: each opens everything, makes calls, and then checks that honest calls work."""

from __future__ import annotations

import contextlib
import faulthandler
import inspect
import random
import sys
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, cast

import attrs
import trio

import triocoro
from triocoro.testing import Cluster

from .documented import is_allowed
from .subjects import GRACE, closed_objects, everything, mend, use
from .targets import LAST, SPOILING, Target, of_modules, of_object
from .values import HostileError, honest, hostile, knows

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

CALLS = 60
"""How many calls a round has."""
_PATIENCE = 0.05
"""Seconds that a call may wait before it is cancelled, as many rightly wait for ever."""
_ASKS = 0.2
"""How many rounds have a request to agree to a shutdown of node 1."""
_STUCK = 120
"""Seconds of real time after which a call that lets nothing else run ends the process."""


@attrs.define
class Findings:
    """What was found, each kind once."""

    calls: int = 0
    """How many calls had a hostile argument."""
    honest: int = 0
    """How many had none, such as those that take no argument."""
    outcomes: dict[str, Counter[str]] = attrs.field(factory=lambda: defaultdict[str, Counter[str]](Counter))
    """How often each public call ended in which way."""
    found: dict[str, str] = attrs.field(factory=dict[str, str])
    latest: list[str] = attrs.field(factory=list[str])
    """The calls that were made last."""

    def count(self, name: str, outcome: str) -> None:
        """Count how a call ended."""
        self.outcomes[name][outcome] += 1

    def summary(self) -> str:
        """How often calls ended in which way, all together."""
        total = sum(self.outcomes.values(), Counter[str]())
        ends = ", ".join(f"{outcome} {number}" for outcome, number in sorted(total.items()))
        return f"{self.calls} hostile calls and {self.honest} honest ones of {len(self.outcomes)} targets: {ends}"

    def add(self, kind: str, text: str) -> None:
        """Note a finding."""
        if kind not in self.found:
            self.found[kind] = text
            print(f"hostile: {kind}\n    {text}".replace("\n", "\n    "), flush=True)


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
        self._buffer: memoryview = memoryview(b"")
        self._is_hostile = False
        self._ending = False

    async def run(self) -> None:
        """Open everything, make the calls, check, and mend what the last calls may have done."""
        with trio.fail_after(10 * GRACE):
            self._closed = await closed_objects(self._cluster)
            try:
                async with everything(self._cluster, asks=self._chance.random() < _ASKS) as subjects:
                    await self._call_all(subjects)
            except triocoro.CorosyncError as error:
                # The last calls may end the daemon; before, only messages may have been lost.
                if not (self._ending or isinstance(error, triocoro.MessageLostError)):
                    raise
                self._findings.count("the block of a round", type(error).__name__)
            if not self.spoilt:
                await mend(self._cluster)

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
        self._buffer = subjects.pop("buffer")
        targets = list(of_modules())
        for name, subject in subjects.items():
            # A tracker that leaves while a shutdown is negotiated agrees to it.
            if not ("request" in subjects and name in {"cfg", "cfg_handle"}):
                targets += of_object(name, subject)
        target = targets[0]
        first = [target for target in targets if target.last_name not in LAST]
        chosen = self._chance.choices(first, [target.weight for target in first], k=CALLS)
        for number, target in enumerate(chosen):
            await self._call(target)
            if number % 20 == 0:
                await self._check(subjects, target)
        await self._check(subjects, target)
        self._ending = True
        for target in self._chance.sample([target for target in targets if target.last_name in LAST], 3):
            await self._call(target)

    async def _call(self, target: Target) -> None:
        self._is_hostile = False
        args, kwargs = self._arguments(target)
        line = f"{target.name} {_show(args)} {_show(kwargs)}"
        self._last.write_text(line, encoding="utf-8", errors="replace")
        self._findings.latest = [*self._findings.latest[-11:], line]
        self._findings.calls += self._is_hostile
        self._findings.honest += not self._is_hostile
        self.spoilt = self.spoilt or target.last_name in SPOILING
        faulthandler.dump_traceback_later(_STUCK, exit=True)
        try:
            with trio.move_on_after(2 * GRACE) as grace:
                # Verbs of clusters complete in the background if they are cancelled, and disturb what follows.
                is_verb = target.name.startswith(("cluster.", "node."))
                with trio.move_on_after(GRACE if is_verb else _PATIENCE, shield=is_verb):
                    result = target.call(*args, **kwargs)
                    await use(result, new=inspect.isclass(target.call))
            if grace.cancelled_caught:
                self._findings.add(f"{target.name} hangs", f"{_show(args)} {_show(kwargs)}")
            self._findings.count(target.name, "returned")
        except BaseException as error:  # noqa: ASYNC103 - a cancellation is raised
            if isinstance(error, KeyboardInterrupt) or _has_cancelled(error):
                raise  # the block that the call is in has ended
            self._findings.count(target.name, type(error).__name__)
            if not is_allowed(target, [*args, *kwargs.values()], error):
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
            return [self._hostile() for _ in range(chance.randint(0, 4))], {}
        # Mostly one hostile argument among honest ones, so that it gets far.
        bad = chance.choice(parameters).name if parameters and chance.random() < 0.75 else None
        for parameter in parameters:
            has_default = parameter.default is not inspect.Parameter.empty
            name = parameter.name
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                values = [self._value(name, bad=name == bad or bad is None) for _ in range(chance.randint(0, 2))]
                args += values
                continue
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                if chance.random() < 0.3:
                    kwargs[chance.choice(("nodes", "token", "votes", "x", "two_node"))] = self._hostile()
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
        if not bad and name == "buffer":
            return self._buffer
        if not bad and knows(name):
            return honest(name, self._chance)
        return self._hostile()

    def _hostile(self) -> Any:
        self._is_hostile = True
        return hostile(self._chance, self._closed)

    async def _check(self, subjects: dict[str, Any], last: Target) -> None:
        """The next honest calls work."""
        try:
            with trio.fail_after(GRACE):
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


def _show(value: object) -> str:
    try:
        return repr(value)[:300]
    except HostileError:
        return "<a hostile object>"
    except Exception as error:  # noqa: BLE001 - a bad repr of a value
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"
