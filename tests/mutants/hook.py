"""Imports a mutant in place of a module, if an environment variable names one; a plugin for `pytest -p mutants.hook`.

This module imports nothing of triocoro, which must not be imported before it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Final

import pytest

VARIABLE = "TRIOCORO_MUTANT"
"""The environment variable: a JSON list of the module, the old text and the new text."""

_DEADLINE: Final = 8.0
"""Seconds that a test may take, which passes within one if there is no mutant."""


def mutated(source: str, old: str, new: str) -> str:
    """Replace the text of a mutant in the source of its module.

    Raises:
        ValueError: the old text is not in the source, or more than once, since the module has changed.
    """
    if (times := source.count(old)) != 1:
        raise ValueError(f"the text of a mutant must be in its module once, and is there {times} times:\n{old}")
    return source.replace(old, new)


class _Loader(SourceFileLoader):
    def __init__(self, module: str, path: str, old: str, new: str) -> None:
        super().__init__(module, path)
        self._texts = old, new

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - the loader is for one module
        # Compiled from the source: the cached bytecode is that of the unchanged module, and must stay so.
        source = self.get_data(self.path).decode()
        code: CodeType = compile(mutated(source, *self._texts), self.path, "exec", dont_inherit=True)
        return code


class _Finder(MetaPathFinder):
    def __init__(self, module: str, old: str, new: str) -> None:
        self._module = module
        self._texts = old, new

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is None or found.origin is None:
            return None
        return importlib.util.spec_from_loader(fullname, _Loader(fullname, found.origin, *self._texts))


def install() -> None:
    """Install the import hook if the environment variable is set."""
    if VARIABLE not in os.environ:
        return
    module, old, new = json.loads(os.environ[VARIABLE])
    if module in sys.modules:
        raise RuntimeError(f"{module} was imported before its mutant could take its place")
    sys.meta_path.insert(0, _Finder(module, old, new))


def pytest_addoption() -> None:
    """Install the mutant. This is the first hook that pytest calls, before anything imports triocoro."""
    install()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Do not wait long for a test that hangs because of a mutant, nor for what it leaves behind."""
    if VARIABLE in os.environ:
        for item in session.items:
            item.add_marker(pytest.mark.deadline(_DEADLINE), append=False)
        sys.modules["support.fixtures.leaks"].__dict__["GRACE"] = 0.0
