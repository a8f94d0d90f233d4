"""Imports point one way: there is no cycle, none under TYPE_CHECKING or inside a function, and no import upwards."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import pytest

ROOT = Path(__file__).parent.parent.parent

Graph: TypeAlias = Mapping[str, frozenset[str]]
"""Modules, each with the modules that it imports."""

LAYERS: Final = (
    (
        "values",
        "triocoro._backoff",
        "triocoro._enums",
        "triocoro._errors",
        "triocoro._forks",
        "triocoro._log",
        "triocoro._runs",
        "triocoro._types",
        "triocoro._validate",
        "triocoro._version",
        "triocoro._problem",
        "triocoro._public",
        "triocoro._reached",
        "triocoro._workers",
    ),
    ("the seam", "triocoro._raw", "triocoro._services"),
    ("the C libraries", "triocoro._corosync"),
    (
        "one connection",
        "triocoro._connection",
        "triocoro._lifetime",
        "triocoro._requests",
        "triocoro._membership",
        "triocoro._endpoint",
        "triocoro._gathering",
        "triocoro._outstanding",
        "triocoro._sending",
        "triocoro._settling",
        "triocoro._stream",
        "triocoro._tracking",
        "triocoro._window",
    ),
    ("services", "triocoro"),
    ("recipes", "triocoro.recipes"),
    ("histories", "triocoro.testing._history"),
    ("what clusters share", "triocoro.testing._cluster"),
    ("checkers", "triocoro.testing._checkers", "triocoro.testing._linearizability"),
    ("timelines", "triocoro.testing._timeline"),
    ("clusters", "triocoro.testing._fake", "triocoro.testing._netns"),
    ("reuse of clusters", "triocoro.testing._pool"),
    (
        "seeds and faults by chance",
        "triocoro.testing._seeded",
        "triocoro.testing._stuck",
        "triocoro.testing._tasks",
        "triocoro.testing._exploring",
    ),
    ("testing", "triocoro.testing"),
    ("the command line", "triocoro._cli", "triocoro.__main__"),
    ("the plugin", "pytest_corosync"),
)
"""The layers from the bottom up, and the modules of each. A package stands for all its modules, unless the table
has them too.

A module may import from its own layer and from those below. A new module of `triocoro` counts as a service until it has
an entry.
"""

SEAM: Final = (
    "triocoro._enums",
    "triocoro._errors",
    "triocoro._forks",
    "triocoro._problem",
    "triocoro._runs",
    "triocoro._types",
    "triocoro._raw",
    "triocoro._services",
)
MAY_KNOW: Final = {
    "triocoro._corosync": (*SEAM, "triocoro._backoff", "triocoro._workers"),
    "triocoro.testing._fake": (*SEAM, "triocoro.testing._cluster"),
}
"""The two packages that implement `_raw`, and all that they may import besides their own modules."""


def paths_of(root: Path, *packages: str) -> dict[str, Path]:
    """The modules of packages in the folder `root`; an extension module counts by its stub."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for package in packages
        for path in (root / package).rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }


def names_imported(module: str, path: Path) -> Iterator[str]:
    """The full name of everything that a module imports, wherever in the source the import is."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            source = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def import_graph(paths: Mapping[str, Path]) -> Graph:
    """Which modules import which.

    An import of a module also runs the `__init__.py` of its packages, but only an import from the package itself makes
    an edge to that.
    """

    def module_of(name: str) -> str | None:
        # `name` is a module, or something in one.
        return next((module for module in (name, name.rpartition(".")[0]) if module in paths), None)

    return {
        module: frozenset(filter(None, map(module_of, names_imported(module, path)))) - {module}
        for module, path in paths.items()
    }


def find_cycle(graph: Graph) -> list[str]:
    """The modules of one cycle in order, with the first one again at the end; empty if there is no cycle."""
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module not in done:
            for imported in sorted(graph[module]):
                if cycle := visit(imported, [*trail, module]):
                    return cycle
            done.add(module)
        return []

    return next(filter(None, (visit(module, []) for module in sorted(graph))), list[str]())


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def layer_of(module: str) -> tuple[int, str]:
    """The layer of a module: its number and its name. The longest entry of the table that fits decides."""
    fitting = [
        (len(entry), number, name)
        for number, (name, *entries) in enumerate(LAYERS)
        for entry in entries
        if is_in(module, entry)
    ]
    return max(fitting)[1:]


def wrong_imports(graph: Graph) -> list[str]:
    """Each import that points upwards, or that the importing package must not know."""
    complaints: list[str] = []
    for module, imports in sorted(graph.items()):
        layer, layer_name = layer_of(module)
        for imported in sorted(imports):
            other, other_name = layer_of(imported)
            if other > layer:
                complaints.append(f"{module} ({layer_name}) imports {imported} ({other_name}), which is above it")
            for package, known in MAY_KNOW.items():
                if is_in(module, package) and not any(is_in(imported, entry) for entry in (package, *known)):
                    complaints.append(f"{module} imports {imported}, which {package} must not know")
    return complaints


@pytest.fixture(scope="module")
def graph() -> Graph:
    return import_graph(paths_of(ROOT, "triocoro", "pytest_corosync"))


def test_no_import_cycle(graph: Graph) -> None:
    assert find_cycle(graph) == []


def test_no_import_points_upwards(graph: Graph) -> None:
    assert wrong_imports(graph) == []


def private_names(imported: Iterable[str], packages: Sequence[str]) -> list[str]:
    """Those of the imported names that are private to the packages, or in a private module of theirs."""
    return [
        name
        for name in imported
        if any(is_in(name, package) for package in packages) and any(part[0] == "_" for part in name.split("."))
    ]


def test_the_plugin_imports_public_names_only() -> None:
    """It shows that a test framework can be built on `triocoro.testing`."""
    paths = paths_of(ROOT, "pytest_corosync")
    assert "pytest_corosync.plugin" in paths
    imported = {module: private_names(names_imported(module, path), ["triocoro"]) for module, path in paths.items()}
    assert {module: names for module, names in imported.items() if names} == {}


def test_recipes_import_public_names_only() -> None:
    """Each is what a user could have written; their own modules may be private."""
    paths = paths_of(ROOT, "triocoro/recipes")
    found = {
        module: [
            name
            for name in private_names(names_imported(module, path), ["triocoro"])
            if not is_in(name, "triocoro.recipes")
        ]
        for module, path in paths.items()
    }
    assert "triocoro.recipes._calls" in found
    assert {module: names for module, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "statement, private",
    [
        ("from triocoro.testing import Cluster", []),
        ("import triocoro.testing", []),
        ("import _thread, os.path", []),
        ("from . import _options", []),
        ("def late():\n    from triocoro.testing._pool import pool", ["triocoro.testing._pool.pool"]),
        ("from triocoro import _cpg", ["triocoro._cpg"]),
        ("from triocoro import _secret as open_secret", ["triocoro._secret"]),
        ("import triocoro._cpg", ["triocoro._cpg"]),
    ],
)
def test_an_import_of_a_private_name_is_found(statement: str, private: list[str], tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(statement, encoding="utf-8")
    assert private_names(names_imported("pytest_corosync.plugin", path), ["triocoro"]) == private


def test_each_entry_of_the_tables_exists(graph: Graph) -> None:
    entries = {entry for _, *entries in LAYERS for entry in entries}
    assert entries <= set(graph)
    assert {entry for package, known in MAY_KNOW.items() for entry in (package, *known)} <= entries


# The test itself.


def graph_of(folder: Path, sources: Mapping[str, str]) -> Graph:
    """The graph of a package `made` with these sources."""
    for name, source in {"__init__.py": "", **sources}.items():
        path = folder / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return import_graph(paths_of(folder, "made"))


@pytest.mark.parametrize(
    "statement",
    [
        "import made.a",
        "import os, made.a as other",
        "from made import a",
        "from made.a import *",
        "from . import a",
        "from .a import X as Y",
        "if TYPE_CHECKING:\n    from .a import X",
        "def function():\n    class Inner:\n        from .a import X",
        "try:\n    import c_module\nexcept ImportError:\n    from .a import X",
    ],
)
@pytest.mark.parametrize("importing", ["b.py", "b/__init__.py", "b.pyi"])
def test_a_cycle_is_found_wherever_it_hides(statement: str, importing: str, tmp_path: Path) -> None:
    if importing == "b/__init__.py":
        statement = statement.replace("from .", "from ..")
    graph = graph_of(tmp_path, {"a.py": "from .c import Z", "c.py": "import made.b", importing: statement})
    assert find_cycle(graph) == ["made.a", "made.c", "made.b", "made.a"]


def test_a_cycle_through_a_package_is_found(tmp_path: Path) -> None:
    sources = {
        "inner/__init__.py": "from .deep import X",
        "inner/deep.py": "from ..a import X",
        "a.py": "from . import inner",
    }
    assert find_cycle(graph_of(tmp_path, sources)) == ["made.a", "made.inner", "made.inner.deep", "made.a"]


def test_without_a_cycle_none_is_found(tmp_path: Path) -> None:
    """Neither is a module's own package one, nor two ways to the same module."""
    sources = {
        "__init__.py": "from .a import X",
        "a.py": "from . import b, c",
        "b.py": "from .c import X",
        "c.py": "import os",
    }
    graph = graph_of(tmp_path, sources)
    assert find_cycle(graph) == []
    assert graph["made.a"] == {"made.b", "made.c"}


@pytest.mark.parametrize(
    "module, imported, complaint",
    [
        ("triocoro._raw", "triocoro._connection", "(the seam) imports triocoro._connection (one connection)"),
        ("triocoro._stream", "triocoro", "(one connection) imports triocoro (services)"),
        ("triocoro._cpg", "triocoro.testing", "(services) imports triocoro.testing (testing)"),
        ("triocoro.testing._cluster.options", "triocoro.testing._fake.cluster", "imports"),
        ("triocoro.testing", "pytest_corosync.plugin", "(testing) imports pytest_corosync.plugin (the plugin)"),
        ("triocoro._corosync._cpg", "triocoro._validate", "which triocoro._corosync must not know"),
        ("triocoro.testing._fake.lib.cpg", "triocoro._sending", "which triocoro.testing._fake must not know"),
        ("triocoro.testing._fake.cluster", "triocoro.testing._netns", "which triocoro.testing._fake must not know"),
    ],
)
def test_a_wrong_import_is_found(module: str, imported: str, complaint: str) -> None:
    (found,) = wrong_imports({module: frozenset({imported}), imported: frozenset()})
    assert found.startswith(f"{module} ")
    assert complaint in found


@pytest.mark.parametrize(
    "module, imported",
    [
        ("triocoro._endpoint", "triocoro._corosync"),
        ("triocoro._connection", "triocoro._endpoint"),
        ("triocoro.testing._fake.exec.cpg", "triocoro.testing._fake.exec.ring"),
        ("triocoro.testing._netns.node_processes", "triocoro._corosync"),
        ("pytest_corosync.plugin", "triocoro.testing"),
    ],
)
def test_an_import_downwards_or_within_a_layer_is_right(module: str, imported: str) -> None:
    assert wrong_imports({module: frozenset({imported}), imported: frozenset()}) == []
