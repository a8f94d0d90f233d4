"""The steps of the tutorial: their tests pass, and the pages show their code as it is."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "docs/start/tutorial"
PAGES = [
    path for path in sorted(ROOT.glob("docs/**/*.md")) if "<!-- not run: a part of " in path.read_text(encoding="utf-8")
]
PART = re.compile(r"^<!-- not run: a part of (\S+) -->\n+```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("step", sorted(path.name for path in STEPS.iterdir()))
def test_the_tests_of_a_step_pass(pytester: pytest.Pytester, corosync_mode: str, step: str) -> None:
    shutil.copytree(STEPS / step, pytester.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\ntrio_mode = true\n")
    result = pytester.runpytest(f"--corosync={corosync_mode}", "-p", "no:cacheprovider")
    assert result.ret == 0
    assert result.parseoutcomes().keys() == {"passed"}  # nothing else, such as skipped ones


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_shows_the_code_of_its_step(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    shown = PART.findall(text)
    assert len(shown) == text.count("<!-- not run: a part of")
    for name, part in shown:
        code = (page.parent / name).read_text(encoding="utf-8")
        # A part of a class or of a function begins at the margin.
        assert any(textwrap.indent(part, indent) in code for indent in ("", " " * 4, " " * 12)), (
            f"not in {name}:\n{part}"
        )
