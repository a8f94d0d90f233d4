"""The public calls, found by looking: new ones are included by themselves."""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from enum import Enum
from types import ModuleType
from typing import Any

import attrs

import triocoro
from triocoro import lowlevel, recipes, testing

MODULES: tuple[ModuleType, ...] = (triocoro, lowlevel, testing, recipes)

LEFT_OUT = {
    "end_with_parent": "it would end this process with its parent",
    "keep": "the cluster would outlive this process",
    **dict.fromkeys(("put", "filling", "hold"), "the side of a stream that its connection uses"),
    **dict.fromkeys(("boot", "crash", "read_configuration", "check_caller"), "the side of a fake that its nodes use"),
}
"""Public calls that are not made, and why."""
SPOILING = frozenset(("kill_node", "try_shutdown", "reply", "replyto_shutdown", "add_node", "remove_node", "give_back"))
"""Calls after which the cluster is not used any more: a daemon may end later, or the nodes are others."""
LAST = frozenset(
    (
        *SPOILING,
        *("aclose", "close", "finalize", "leave", "reload_config"),
        *("stop", "kill", "start", "restart", "freeze", "thaw", "settled"),
        *("partition", "isolate", "cut", "lose", "heal"),
    )
)
"""Calls after which the next one may rightly fail, or which take long: made at the end of a round."""
IN_A_THREAD = frozenset(("seeded_run",))
"""Calls that make a run of their own."""
_SLOW = 0.05
"""How likely a call is that starts a real cluster, or reads what is installed, compared with another one."""
_PLAIN = 0.1
"""How likely a call is that takes no argument, or builds a value, compared with another one."""
_SLOW_ONES = frozenset(("borrow", "describe_daemon", "describe_libraries", "missing_requirements"))


@attrs.frozen
class Target:
    """A public call."""

    name: str
    call: Callable[..., Any] = attrs.field(eq=False, repr=False)
    documented: Any = attrs.field(eq=False, repr=False)
    """What has the docstring of the call."""
    owner: type | None = attrs.field(eq=False, repr=False, default=None)
    """The class of the object whose method it is."""

    @property
    def last_name(self) -> str:
        """The name of the function or method alone."""
        return self.name.rpartition(".")[2]

    @property
    def weight(self) -> float:
        """How likely the call is, compared with others."""
        if self.last_name in _SLOW_ONES:
            return _SLOW
        is_value = inspect.isclass(self.call) and (issubclass(self.call, (Enum, Exception)) or attrs.has(self.call))
        return _PLAIN if is_value or not self.parameters else 1

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """Its parameters, as far as it tells of them."""
        if inspect.isclass(self.call) and issubclass(self.call, Enum):
            return [inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY)]  # more would make another class
        try:
            return list(inspect.signature(self.call).parameters.values())
        except (TypeError, ValueError):
            return []


def of_modules() -> Iterator[Target]:
    """The public functions and classes, and the public context variable."""
    yield Target("triocoro.default_endpoint", _open_by_default, triocoro.open_cpg)
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            if name in LEFT_OUT or not callable(value):
                continue
            if inspect.isclass(value) and not _has_constructor(value):
                continue
            call = _in_a_thread(value) if name in IN_A_THREAD else value
            yield Target(f"{module.__name__}.{name}", call, value)


@asynccontextmanager
async def _open_by_default(endpoint: Any) -> AsyncGenerator[None, None]:
    token = triocoro.default_endpoint.set(endpoint)
    try:
        async with triocoro.open_cpg():
            yield
    finally:
        triocoro.default_endpoint.reset(token)


def _has_constructor(kind: type[Any]) -> bool:
    """Whether objects of a class are made by calling it."""
    made_elsewhere = re.search(r"Objects of this class come from|made by|in its own right", kind.__doc__ or "")
    return not (inspect.isabstract(kind) or getattr(kind, "_is_protocol", False) or made_elsewhere)


def of_object(name: str, subject: object) -> Iterator[Target]:
    """The public methods of an object, and its properties, which are calls without arguments."""
    for attribute in sorted(set(dir(type(subject)))):
        if attribute.startswith("_") and attribute not in {"__repr__", "__eq__", "__getitem__", "__hash__"}:
            continue
        if attribute in LEFT_OUT:
            continue
        kind = type(subject)
        documented = getattr(kind, attribute)
        call = getattr(subject, attribute) if callable(documented) else _getter(subject, attribute)
        yield Target(f"{name}.{attribute}", call, documented, kind)


def _in_a_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        # Waits without letting anything else run, as virtual time would run on otherwise.
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            return threads.submit(function, *args, **kwargs).result()

    return call


def _getter(subject: object, attribute: str) -> Callable[[], Any]:
    return lambda: getattr(subject, attribute)
