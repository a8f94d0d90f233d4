"""docs/api.md: every function of the C libraries has a name in Python, or a reason for having none."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import cast

import attrs
import pytest
from support import installed

import triocoro
import triocoro.lowlevel

_MAP = Path(__file__).parents[2] / "docs" / "api.md"


@attrs.frozen
class _Row:
    function: str
    lowlevel: str
    services: str
    notes: str

    @property
    def newer(self) -> bool:
        return self.notes.startswith("newer")


def _read_map() -> dict[str, list[_Row]]:
    """The rows of each library's table."""
    tables: dict[str, list[_Row]] = {}
    for section in re.split(r"^## ", _MAP.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition("\n")
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
        tables[title] = [_Row(function.strip("`"), *rest) for function, *rest in rows[2:]]
    return tables


_TABLES = _read_map()
_ROWS = [row for rows in _TABLES.values() for row in rows]


def _exists(module: ModuleType, name: str) -> bool:
    owner, _, attribute = name.rpartition(".")
    if not owner:
        return hasattr(module, attribute)
    kinds = cast("type[object]", getattr(module, owner)).__mro__
    return any(attribute in vars(kind) or attribute in inspect.get_annotations(kind) for kind in kinds)


@pytest.mark.corosync_real_only(reason="it reads the installed libraries")
@pytest.mark.parametrize("library", installed.LIBRARIES)
def test_every_exported_function_is_mapped(library: str) -> None:
    mapped = {row.function for row in _TABLES[library]}
    exported = installed.functions(library)
    assert exported, "the library was not read"
    assert exported - mapped == set(), "docs/api.md lacks them"
    assert mapped - exported <= {row.function for row in _TABLES[library] if row.newer}, "the library lacks them"


def test_no_function_is_mapped_twice() -> None:
    functions = [row.function for row in _ROWS]
    assert len(functions) == len(set(functions))


def test_the_libraries_are_all_there() -> None:
    assert [title for title, rows in _TABLES.items() if rows] == [*installed.LIBRARIES]


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.function)
def test_names_exist_and_gaps_have_a_reason(row: _Row) -> None:
    for cell, module in ((row.lowlevel, triocoro.lowlevel), (row.services, triocoro)):
        names = re.findall(r"`([^`]+)`", cell)
        assert ", ".join(f"`{name}`" for name in names) == cell or cell == "-"
        for name in names:
            assert _exists(module, name), f"{module.__name__} has no {name}"
        assert names or row.notes, f"{row.function} has no name in {module.__name__}, and no reason"
