"""Tables that are made of the package itself: async functions, errors, and what the pytest plugin adds."""

from __future__ import annotations

import inspect
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import _pytest.config
import pytest
from docstrings import MODULES, linked
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import pytest_corosync._fixtures as fixtures
import pytest_corosync._options as options
import triocoro

RUNS = json.loads((Path(__file__).parent / "reference" / "runs.json").read_text(encoding="utf-8"))
"""Where each async function runs, as tests/sdk/test_checkpoints.py has measured."""
WHERE = {"loop": "loop", "thread": "thread", "either": "loop or thread"}

NOT_LISTED = ("RecordingEndpoint",)
"""Classes whose methods the SDK calls for the user."""


class Table(SphinxDirective, ABC):
    """A table of rows of reStructuredText."""

    columns: tuple[str, ...]
    widths: tuple[int, ...]

    @abstractmethod
    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of each row."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, self.widths))}", ""]
        for row in (self.columns, *self.rows()):
            lines += [
                f"   {'- ' if i else '* - '}{' '.join(cell.split())}".replace("   - ", "     - ", 1)
                for i, cell in enumerate(row)
            ]
        return self.parse_text_to_nodes("\n".join([*lines, ""]))


class AsyncFunctions(Table):
    """Every public async function of a module."""

    required_arguments = 1
    columns = ("function", "runs on", "if cancelled", "manual page")
    widths = (27, 13, 32, 28)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of each row."""
        module = next(module for module in MODULES if module.__name__ == self.arguments[0])
        for name, function, cls in async_functions(module):
            short = f"{module.__name__}.{name}".removeprefix("triocoro.")
            path = f"{module.__name__}.{name}"
            scope = path.rpartition(".")[0]
            doc = inspect.getdoc(function) or ""
            cancelled = field("Cancelled", doc) or default_when_cancelled(cls)
            pages = dict.fromkeys(re.findall(r"\b[a-z_-]+\([1-9]\)", field("Source", doc) or doc))
            yield (
                f":py:obj:`{name} <{path}>`",
                WHERE.get(RUNS.get(short, ""), "\\-"),
                linked(cancelled, scope),
                ", ".join(f":manpage:`{page}`" for page in pages) or "\\-",
            )


def async_functions(module: ModuleType) -> Iterator[tuple[str, Any, type | None]]:
    """The public async functions of a module, and the methods of its classes, with the class.

    A method that a class has from another class of the module is a method of that one alone.
    """
    classes = [vars(module)[name] for name in module.__all__ if inspect.isclass(vars(module)[name])]
    for name in module.__all__:
        value = vars(module)[name]
        if not inspect.isclass(value):
            if is_async(value):
                yield name, value, None
            continue
        inherited = {attribute for cls in classes if cls in value.__mro__[1:] for attribute in dir(cls)}
        attributes = dict.fromkeys(attribute for cls in value.__mro__ for attribute in vars(cls))
        for attribute in (attribute for attribute in attributes if attribute not in inherited):
            method = inspect.getattr_static(value, attribute)
            ours = str(getattr(inspect.unwrap(method) if callable(method) else method, "__module__", "")).startswith(
                "triocoro"
            )
            if ours and is_async(method) and not attribute.startswith("_") and name not in NOT_LISTED:
                yield f"{name}.{attribute}", method, value


def is_async(function: object) -> bool:
    """Whether it is an async function, or makes an async context manager."""
    function = inspect.unwrap(function) if callable(function) else function
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def field(name: str, doc: str) -> str:
    """The text of a section of a docstring that has it in the same line."""
    found = re.search(rf"^(?:Raises, )?{name}: (.*?)(?:\n\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""


def default_when_cancelled(cls: type | None) -> str:
    """What the documentation of a class says of those of its methods that do not say it themselves."""
    return field("Cancelled", inspect.getdoc(cls) or "").partition(", unless ")[0] if cls else ""


class Errors(Table):
    """Every error, with the code in C, the cause and the remedy."""

    columns = ("error", "what it means", "what to do")
    widths = (30, 36, 34)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of each row."""
        for name in triocoro.__all__:
            cls = vars(triocoro)[name]
            if inspect.isclass(cls) and issubclass(cls, triocoro.CorosyncError) and cls is not triocoro.CorosyncError:
                doc = " ".join((inspect.getdoc(cls) or "").partition("\n\nAttributes:")[0].split())
                remedy = re.search(r" ?Remedy: (.*?\.)(?= |$)", doc)
                if remedy is None:
                    raise ValueError(f"{name} has no remedy in its documentation")
                cause = doc.replace(remedy[0], "")
                yield tuple(linked(cell, f"triocoro.{name}") for cell in (f"`{name}`", cause, remedy[1]))


class PluginOptions(Table):
    """The options of the command line, and the values of the ini file."""

    columns = ("option", "effect")
    widths = (30, 70)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of each row."""
        parser = _pytest.config.Parser(_ispytest=True)
        options.add_options(parser)
        for option in parser.getgroup("corosync").options:
            name, settings = option.names()[0], option.attrs()
            values = "|".join(settings.get("choices") or ()) or settings.get("metavar", "")
            ini = settings["dest"] if settings["dest"] in parser._inidict else ""  # noqa: SLF001 - there is no other way
            text = re.sub(r" ?; (--corosync|a test's).*", "", settings["help"])
            yield (
                f"``{name}{'=' + values if values else ''}``" + (f" (ini: ``{ini}``)" if ini else ""),
                linked(text, ""),
            )


class PluginMarkers(Table):
    """The markers."""

    columns = ("marker", "effect")
    widths = (40, 60)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of each row."""
        for marker, text in options.MARKERS.items():
            yield f"``@pytest.mark.{marker}``", linked(text, "")


class PluginFixtures(Table):
    """The fixtures."""

    columns = ("fixture", "what it is", "scope")
    widths = (26, 62, 12)

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of each row."""
        for name, value in sorted(vars(fixtures).items()):
            if isinstance(value, pytest.FixtureDef) or type(value).__name__ == "FixtureFunctionDefinition":
                if name.startswith("_"):
                    continue
                doc = inspect.getdoc(value) or ""
                yield f"``{name}``", linked(" ".join(doc.split()), ""), value._fixture_function_marker.scope  # noqa: SLF001


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    directives: Iterable[type[Table]] = (AsyncFunctions, Errors, PluginOptions, PluginMarkers, PluginFixtures)
    for directive in directives:
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", directive.__name__).lower()
        app.add_directive(name, directive)
    return {"parallel_read_safe": True}
