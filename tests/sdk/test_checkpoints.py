"""Every public async function is a checkpoint whenever it succeeds, even where it has nothing to wait for."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio
from support.checkpoint_cases import checked, clusters, lowlevel, on_loop_only, on_worker, recipes, services

import triocoro
import triocoro.lowlevel
import triocoro.recipes
import triocoro.testing
from triocoro.testing import Cluster, Node
from triocoro.testing._fake.cluster import FakeNode
from triocoro.testing._netns.node import NetnsNode

_CASES = services.CASES | lowlevel.CASES | recipes.CASES | clusters.CASES


_RUNS = Path(__file__).parents[2] / "docs/reference/runs.json"
"""Where each function runs: on the event loop, on a worker thread, or either, as the reference has it."""


@pytest.mark.corosync(nodes=1, votes={1: 2}, qdevice_votes=1)
@pytest.mark.deadline(300)  # there are many
async def test_every_public_async_function_is_a_checkpoint(
    corosync_cluster: Cluster, corosync_mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All on one cluster, since the order of the cases lets each find a daemon at work."""
    run_sync = trio.to_thread.run_sync

    async def noting_run_sync(*args: Any, **options: Any) -> Any:
        on_worker.append(trio.lowlevel.current_task())
        return await run_sync(*args, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", noting_run_sync)
    failed: list[str] = []
    runs: dict[str, str] = {}
    for name, function in _CASES.items():
        on_loop_only.clear()
        with trio.fail_after(20):  # noqa: ASYNC912 - whether it is one is the question
            try:
                await function(corosync_cluster)
            except AssertionError as exc:
                failed.append(f"{name}: {exc}")
        if on_loop_only and not name.startswith("testing."):
            runs[name] = "either" if len(set(on_loop_only)) > 1 else "loop" if on_loop_only[0] else "thread"
    assert failed == []
    if corosync_mode == "real":
        documented = json.loads(_RUNS.read_text(encoding="utf-8"))
        assert [item for item in runs.items() if documented.get(item[0]) != item[1]] == []


def _is_async(function: object) -> bool:
    """Whether it is an async function, or makes an async context manager (of an async generator)."""
    function = inspect.unwrap(function) if callable(function) else function
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _public_async_functions() -> set[str]:
    """Of all public modules, and of classes and what they are the public bases of; methods under their base's name."""
    found: set[str] = set()
    for module, prefix in (
        (triocoro, ""),
        (triocoro.lowlevel, "lowlevel."),
        (triocoro.recipes, "recipes."),
        (triocoro.testing, "testing."),
    ):
        public = _public(module)
        for name, value in public.items():
            if not inspect.isclass(value):
                found.update([prefix + name] if _is_async(value) else [])
                continue
            for cls in (value, *(cls for cls in (FakeNode, NetnsNode) if value is Node)):
                found.update(f"{prefix}{_home(cls, method).__name__}.{method}" for method in _async_methods(cls))
    return found


def _async_methods(cls: type) -> set[str]:
    return {
        name
        for base in cls.__mro__
        if base.__module__.startswith("triocoro")
        for name, value in vars(base).items()
        if _is_async(value) and (not name.startswith("_") or name.startswith("__a"))
    }


def _home(cls: type, method: str) -> type:
    """The most basic class that has the method, of those that have a public name."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("triocoro") and hasattr(base, method)]
    return next(base for base in reversed(bases) if "._" not in base.__module__)


def _public(module: ModuleType) -> dict[str, object]:
    names: list[str] = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    return {name: vars(module)[name] for name in names if not inspect.ismodule(vars(module)[name])}


def test_every_public_async_function_has_a_case() -> None:
    public = _public_async_functions()
    assert len(public) > 40
    assert public - _CASES.keys() == set()
    assert _CASES.keys() - public == set()


async def test_the_check_sees_a_function_that_is_none() -> None:
    async def no_checkpoint() -> None:
        pass

    with pytest.raises(AssertionError, match="assert_checkpoints"):
        await checked(no_checkpoint())
