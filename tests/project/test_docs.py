"""The documentation names files and tests that exist, and its links lead somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("tests/*/README.md")])
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
        if not (_ROOT / path).exists():
            dead.append(path)
        elif test and test not in functions(_ROOT / path):
            dead.append(f"{path}::{test}")
    return dead + [link for link in _LINK.findall(_BLOCK.sub("", text)) if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
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


def programs() -> Iterator[tuple[str, str]]:
    """The programs in the pages, with their names."""
    for page in _PAGES:
        found = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for number, program in enumerate(program for program in found if "\ntrio.run(" in program):
            yield f"{page.relative_to(_ROOT)}-{number}", program


@pytest.mark.parametrize("program", [pytest.param(program, id=name) for name, program in programs()])
def test_programs_run(program: str) -> None:
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
