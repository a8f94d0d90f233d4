"""The documentation names files and tests that exist, and its links lead somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from support.pages import PAGES, ROOT

_PATH = re.compile(r"`((?:tests|triocoro|pytest_corosync|tools|docs)/[\w./]*?)(?:::(\w+)(?:\[.*?\])?)?`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_EXTRAS_OF_DEVELOPERS = {"bench", "docs", "test", "lint", "package", "sbom"}
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


@pytest.mark.parametrize("page", ["README.md", "docs/start/installing.md"])
def test_what_a_page_installs_is_enough_for_what_it_runs(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    installed = [set(extras.split(",")) for extras in re.findall(r'pip install "triocoro\[(.*?)\] @', text)]
    needed = {"trio"} if "$ pytest" in text else set[str]()
    if re.search(r"^\$ (python -m )?triocoro ", text, re.MULTILINE):
        needed.add("cli")
    assert installed
    assert needed
    assert all(needed <= extras for extras in installed)


def test_the_pages_list_the_extras_of_users() -> None:
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = settings.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    of_users = set(re.findall(r"^(\w+) = ", section, re.MULTILINE)) - _EXTRAS_OF_DEVELOPERS
    for page in ("README.md", "docs/start/installing.md"):
        listed = re.findall(r"^\| `triocoro\[(\w+)\]` \|", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert set(listed) == of_users
