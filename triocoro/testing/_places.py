"""Which places of the program has this process reached, and which could it have reached?"""

from __future__ import annotations

import ast
import inspect
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, final

from .._reached import listeners, reached


@final
class Places:
    """Counts the places that the program reaches while the block of `counting` lasts; see `triocoro.reached`."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """How often each place was reached."""

    @contextmanager
    def counting(self) -> Generator[None, None, None]:
        """Count within a `with` block."""
        listeners.append(self._count)
        try:
            yield
        finally:
            listeners.remove(self._count)

    def _count(self, place: str, node: int | None) -> None:
        del node
        self.counts[str(place)] += 1  # whatever it is, the run goes on

    @staticmethod
    def in_source() -> dict[str, str]:
        """The places in the modules that have been imported, each with its file and line.

        These are the calls of `reached` with a literal text. Modules without source are left out.
        """
        return {place: where for module in _modules() for place, where in _places(module)}


def _modules() -> list[ModuleType]:
    # Programs may put other things there.
    return [module for module in list[object](sys.modules.values()) if isinstance(module, ModuleType)]


def _places(module: ModuleType) -> Iterator[tuple[str, str]]:
    names = vars(module)
    values = list(names.values())
    has_it = any(value is reached for value in values)
    if not has_it and not any(map(_leads_to_it, values)):
        return
    try:
        source = inspect.getsource(module)
        if not has_it and reached.__name__ not in source:  # most modules that use triocoro
            return
        tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=called, args=[ast.Constant(value=str(place)), *_]) if _value(called, names) is reached:
                yield place, f"{module.__file__}:{node.lineno}"
            case _:
                pass


def _leads_to_it(value: object) -> bool:
    return isinstance(value, ModuleType) and value.__name__ in {"triocoro", "triocoro.testing"}


def _value(expression: ast.expr, names: dict[str, Any]) -> object:
    """What a name, or an attribute of one, stands for in a module."""
    match expression:
        case ast.Name(id=name):
            return names.get(name)
        case ast.Attribute(value=inner, attr=name):
            module = _value(inner, names)
            return vars(module).get(name) if isinstance(module, ModuleType) else None
        case _:
            return None
