"""Wrong versions of recipes, in this process: their modules are imported again, one of them changed.

`changed` gives the bus, the schedules and the directed tests that use the changed modules. The ones that are imported
already stay as they are.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
from mutants.hook import mutated

import triocoro.recipes

PACKAGE = "triocoro.recipes"
FOLDER = Path(triocoro.recipes.__file__).parent
_TESTS = (
    "recipes.bus",
    "recipes.schedules",
    "recipes.test_directed",
    "recipes.test_lock_queue",
    "recipes.test_command_ids",
)


@attrs.frozen
class Change:
    """A text of a module and what replaces it."""

    module: str
    """Without its underscore."""
    old: str
    """It occurs exactly once in the module."""
    new: str

    def applied(self, source: str) -> str:
        """The source of the module with the change."""
        return mutated(source, self.old, self.new)


class _Finder(MetaPathFinder):
    """Finds the changed modules."""

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = changes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        changes = [it for it in self._changes if fullname == f"{PACKAGE}._{it.module}"]
        found = PathFinder.find_spec(fullname, path, target) if changes else None
        if found is None or found.origin is None:
            return None
        return ModuleSpec(fullname, _Loader(Path(found.origin), changes), origin=found.origin)


class _Loader(Loader):
    def __init__(self, path: Path, changes: Sequence[Change]) -> None:
        self._path = path
        self._changes = changes

    def exec_module(self, module: ModuleType) -> None:
        source = self._path.read_text(encoding="utf-8")
        for change in self._changes:
            source = change.applied(source)
        exec(compile(source, str(self._path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102


@attrs.frozen
class Changed:
    """The modules that use the changed ones."""

    schedules: Any
    directed: Any
    lock_queue: Any
    command_ids: Any

    @property
    def tests(self) -> tuple[Any, ...]:
        """The modules with directed tests."""
        return self.directed, self.lock_queue, self.command_ids


@contextmanager
def changed(changes: Sequence[Change]) -> Generator[Changed, None, None]:
    """Import the modules again, with changes, and the tests that use them."""

    def ours(name: str) -> bool:
        return name == PACKAGE or name.startswith(f"{PACKAGE}.") or name in _TESTS

    before = {name: module for name, module in sys.modules.items() if ours(name)}
    for name in before:
        del sys.modules[name]
    # An empty package: most of it is not needed, and takes long to import.
    package = module_from_spec(ModuleSpec(PACKAGE, None, is_package=True))
    package.__path__ = [str(FOLDER)]
    sys.modules[PACKAGE] = package
    finder = _Finder(changes)
    sys.meta_path.insert(0, finder)
    try:
        yield Changed(*(importlib.import_module(name) for name in _TESTS[1:]))
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if ours(name)]:
            del sys.modules[name]
        sys.modules.update(before)
        for name in _TESTS:
            if name in before:
                setattr(sys.modules["recipes"], name.partition(".")[2], before[name])
