"""The steps of the tutorial: their tests pass, or find what they should, and the pages show their code as it is."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "docs/start/tutorial"
BUG = STEPS / "6"
PAGES = [
    path for path in sorted(ROOT.glob("docs/**/*.md")) if "<!-- not run: a part of " in path.read_text(encoding="utf-8")
]
PART = re.compile(r"^<!-- not run: a part of (\S+) -->\n+```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("step", sorted(path.name for path in STEPS.iterdir() if path != BUG))
def test_the_tests_of_a_step_pass(pytester: pytest.Pytester, corosync_mode: str, step: str) -> None:
    shutil.copytree(STEPS / step, pytester.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\ntrio_mode = true\n")
    result = pytester.runpytest(f"--corosync={corosync_mode}", "-p", "no:cacheprovider")
    assert result.ret == 0
    assert result.parseoutcomes().keys() == {"passed"}  # nothing else, such as skipped ones


@pytest.fixture
def bug(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the files of the last step, which looks for a bug in the store as it is."""
    shutil.copytree(BUG, pytester.path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    pytester.makepyprojecttoml("[tool.pytest.ini_options]\ntrio_mode = true\n")
    return pytester


def shown(command: str) -> list[str]:
    """What the page shows of the output of a command."""
    text = (ROOT / "docs/start/tutorial-6.md").read_text(encoding="utf-8")
    blocks: list[str] = re.findall(rf"^```console\n\$ {command}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (block,) = blocks
    return block.splitlines()


@pytest.mark.corosync_fake_only(reason="real nodes rarely lose a write")
@pytest.mark.deadline(60)
def test_the_bug_is_found(bug: pytest.Pytester) -> None:
    """By seeds; the report is as the page shows it. The search for the simplest faults takes too long for a test."""
    result = bug.runpytest("-k", "test_writes_are_kept", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines([line.replace("[", "[[]") for line in shown("pytest -k test_writes_are_kept")])


@pytest.mark.corosync_fake_only(reason="as above")
def test_the_faults_that_were_found_show_the_bug(bug: pytest.Pytester) -> None:
    result = bug.runpytest("-k", "test_the_found_faults", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines([line.replace("[", "[[]") for line in shown("pytest -k test_the_simplest_faults")])


def test_the_faults_that_were_found_play_on_both_kinds(bug: pytest.Pytester, corosync_mode: str) -> None:
    result = bug.runpytest(f"--corosync={corosync_mode}", "-k", "test_on_real_nodes", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, deselected=3)


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
