"""Turns the project's docstrings into what Sphinx reads, and shows signatures as users write them."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

import triocoro
import triocoro.lowlevel
import triocoro.recipes
import triocoro.testing

MODULES = (triocoro, triocoro.lowlevel, triocoro.recipes, triocoro.testing)

_CODE = re.compile(r"(?<![`:\w])`([^`\n]+)`(?![`_])")
_OPTION = re.compile(r"(?<![\w`-])(--[a-z]+[\w=-]*|-x)(?![\w`])")
_SECTION = re.compile(r"^(Cancelled|Source|Raises|Raises, Cancelled): (?=\S)", re.MULTILINE)
_ATTRIBUTES = ("attribute", "data", "property")
_attributes: dict[str, list[str]] = {}
_MANUAL = re.compile(r"\b([a-z_-]+(?:\.conf)?)\(([1-9])\)")


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", process_docstring, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", restore_attribute, priority=900)
    app.connect("autodoc-process-signature", process_signature)
    app.connect("missing-reference", resolve_alias)
    for module in MODULES:
        ModuleAnalyzer.cache["module", module.__name__] = analyzer(module)
    return {"parallel_read_safe": True}


def analyzer(module: ModuleType) -> ModuleAnalyzer:
    """Reads all modules that define the public names of a module. Sphinx seeks them in the module itself."""
    found: dict[str, None] = {}
    for name, candidate in list(sys.modules.items()):
        if name.startswith("triocoro.") and (file := candidate.__file__):
            source = Path(file).read_text(encoding="utf-8")
            for public in set(module.__all__) & defined(source):
                if vars(candidate)[public] is vars(module)[public]:
                    found[source] = None
    return ModuleAnalyzer.for_string("\n".join(found), module.__name__, str(module.__file__))


def defined(source: str) -> set[str]:
    """The names that are defined at the top level of a module."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def process_docstring(_: Sphinx, what: str, name: str, __: object, ___: object, lines: list[str]) -> None:
    """Translate a docstring, in place."""
    scope = name if what == "class" else name.rpartition(".")[0]
    lines[:] = [linked(line, scope) for line in fields(lines)]
    if what in _ATTRIBUTES:
        _attributes[name] = lines.copy()


def restore_attribute(_: Sphinx, __: str, name: str, ___: object, ____: object, lines: list[str]) -> None:
    """Undo what napoleon does to an attribute whose first sentence has a colon: what is before it is no type."""
    lines[:] = _attributes.pop(name, lines)


def fields(lines: list[str]) -> list[str]:
    """The sections that have their text in the same line become fields, which end at the next empty line."""
    result: list[str] = []
    inside = False
    for line in lines:
        found = _SECTION.match(line)
        inside = bool(found) or (inside and bool(line.strip()))
        if found:
            if result and result[-1].strip():
                result.append("")
            result.append(f":{found[1]}: {line[found.end() :]}")
        else:
            result.append("   " + line if inside else line)
    return result


def linked(line: str, scope: str) -> str:
    """A line in which what is in backticks has become a link, if it is public, or code."""

    def role(match: re.Match[str]) -> str:
        path = public_path(match[1], scope)
        return f":py:obj:`{match[1]} <{path}>`" if path else f"``{match[1]}``"

    line = _OPTION.sub(r"``\1``", _CODE.sub(role, line))
    return _MANUAL.sub(r":manpage:`\1(\2)`", line)


def public_path(name: str, scope: str) -> str | None:
    """The full name of what is meant by a name in the documentation of `scope`, if it is public."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*", name):
        return None
    for prefix in (scope, scope.rpartition(".")[0], *(module.__name__ for module in MODULES), ""):
        path = documented(f"{prefix}.{name}".strip("."))
        if path and (path != scope or name == scope.rpartition(".")[2]):
            return path
    return None


def documented(path: str) -> str | None:
    """Where an object of that full name, or an attribute of one, is documented; `None` if it is not public."""
    for module in reversed(MODULES):
        first, _, attribute = path.removeprefix(f"{module.__name__}.").partition(".")
        if path.startswith(f"{module.__name__}.") and first in module.__all__:
            obj = getattr(module, first)
            return home(obj, attribute, path) if attribute else next(public_names(obj))
    return None


def home(obj: object, attribute: str, path: str) -> str | None:
    """Where an attribute of a class is documented: with the class that has it, if that is public."""
    if attribute.startswith("_"):
        return None
    for cls in getattr(obj, "__mro__", ()):
        if attribute in vars(cls) or attribute in inspect.get_annotations(cls):
            return next((f"{public}.{attribute}" for public in public_names(cls)), path)
    return None


def public_names(obj: object) -> Iterator[str]:
    """The full names of an object in the public modules."""
    for module in MODULES:
        yield from (f"{module.__name__}.{name}" for name in module.__all__ if vars(module)[name] is obj)


def process_signature(
    _: Sphinx, what: str, __: str, obj: object, ___: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Show no constructor where there is none for users, and of context managers what their blocks get."""
    if what == "class" and "bjects of this class come from" in (obj.__doc__ or ""):
        return "", None
    if returns:
        returns = re.sub(r"^~?(?:collections\.abc\.)?(?:Async)?Generator\[(.*?)(?:, None)+\]$", r"\1", returns)
    if signature:
        # The repr of no flags is no expression, and Sphinx breaks no signature that it cannot parse.
        signature = re.sub(r"<(\w+): 0>", r"\1(0)", signature)
    return signature, returns


def resolve_alias(
    app: Sphinx, environment: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Find the alias of a type, which Sphinx seeks among the classes. Private types and type variables are no links."""
    if node.get("refdomain") != "py" or node.get("reftype") == "obj":
        return None
    if re.match(r"triocoro\..*\b_", node["reftarget"]):
        return content
    path = public_path(node["reftarget"], node.get("py:module") or "")
    domain = environment.get_domain("py")
    found = path and domain.resolve_xref(environment, node["refdoc"], app.builder, "obj", path, node, content)
    return found or None
