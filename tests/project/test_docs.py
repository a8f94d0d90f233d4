"""The documentation names files and tests that exist, and its links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from support.pages import PAGES, ROOT

_PATH = re.compile(r"`((?:tests|triocoro|pytest_corosync|tools|docs)/[\w./]*?)(?:::(\w+)(?:\[.*?\])?)?`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def dead_references(page: Path) -> list[str]:
    """The files, tests and links in a page that are not there."""
    text = page.read_text(encoding="utf-8")
    dead: list[str] = []
    for path, test in _PATH.findall(text):
        if not (ROOT / path).exists():
            dead.append(path)
        elif test and test not in functions(ROOT / path):
            dead.append(f"{path}::{test}")
    return dead + [link for link in _LINK.findall(_BLOCK.sub("", text)) if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_tests_and_links_that_a_page_names_exist(page: Path) -> None:
    assert not dead_references(page)


def test_a_dead_reference_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`tests/project/test_docs.py::test_gone`, `triocoro/_gone.py`, `tests/project/test_docs.py`,"
        " [gone](gone.md), [here](page.md#top), [web](https://example.org/gone.md)",
        encoding="utf-8",
    )
    assert dead_references(page) == ["tests/project/test_docs.py::test_gone", "triocoro/_gone.py", "gone.md"]
