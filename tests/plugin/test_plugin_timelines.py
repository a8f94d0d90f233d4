"""--corosync-timeline: a page for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fixtures.inner_runs import Run
from support.timeline_pages import data_of

SOURCE = """
import pytest
import trio
import triocoro

def chat(cluster):
    async def main():
        async with triocoro.open_group("chat") as group:
            await group.send_and_wait(b"hello")
            await cluster.isolate(2)
    trio.run(main)
"""
TESTS = """
def test_passes(corosync_cluster):
    chat(corosync_cluster)

class TestIt:
    @pytest.mark.parametrize("text", ["a b", "a/b", "</script>"])
    def test_fails(self, corosync_cluster, text):
        chat(corosync_cluster)
        colour = "blue"
        assert colour == "red", text

@pytest.mark.xfail
def test_known(corosync_cluster):
    raise KeyError

def test_without_a_cluster():
    assert False
"""


def pages(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("args", [(), ("-n1", "-pno:cacheprovider")])
def test_each_test_has_a_page(pytester: pytest.Pytester, run: Run, args: tuple[str, ...]) -> None:
    outcome = run(SOURCE + TESTS, "--corosync-timeline=pages", *args, mode="fake")
    outcome.assert_outcomes(passed=1, failed=4, xfailed=1)
    folder = pytester.path / "pages"
    found = pages(folder)
    module = "test_each_test_has_a_page"
    assert len(found) == 5
    assert {f"{module}.py/test_passes.html", f"{module}.py/test_known.html"} <= set(found)
    failed = [name for name in found if "TestIt.test_fails-" in name]
    assert len(failed) == 3

    # The failed ones are named in the report of each, and at the end.
    text = outcome.stdout.str()
    assert "corosync timelines" in text
    for name in failed:
        assert text.count(f"{folder}/{name}") == 2
    outcome.stdout.fnmatch_lines([f"2 of tests that did not fail in {folder}"])

    page = data_of((folder / f"{module}.py/test_passes.html").read_text(encoding="utf-8"))
    assert (page["title"], page["outcome"], page["failure"]) == (f"{module}.py::test_passes", "passed", None)
    assert [row[5] for row in page["events"] if row[4] in {"send", "fault"}] == ["hello", "is cut off from all others"]
    page = data_of((folder / f"{module}.py/test_known.html").read_text(encoding="utf-8"))
    assert (page["outcome"], page["failure"]["short"]) == ("xfailed", "FAILS in line 24: KeyError")
    page = data_of((folder / failed[0]).read_text(encoding="utf-8"))
    assert page["outcome"] == "failed"
    assert page["failure"]["short"].startswith("FAILS in line 20: AssertionError: ")
    assert ">       assert colour == " in page["failure"]["text"]


def test_from_the_ini_file(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makeini("[pytest]\ncorosync_timeline = pages")
    pytester.mkdir("elsewhere")
    pytester.chdir()
    run(SOURCE + "def test_it(corosync_cluster): chat(corosync_cluster)", mode="fake").assert_outcomes(passed=1)
    assert pages(pytester.path / "pages") == ["test_from_the_ini_file.py/test_it.html"]
    (pytester.path / "pages/test_from_the_ini_file.py/test_it.html").unlink()
    run("", "--corosync-timeline=", "-pno:cacheprovider", mode="fake")
    assert pages(pytester.path / "pages") == []


def test_a_failure_of_the_clean_up_is_shown(pytester: pytest.Pytester, run: Run) -> None:
    source = """
@pytest.fixture
def left(corosync_cluster):
    yield
    raise RuntimeError("something is left")

def test_it(corosync_cluster, left):
    chat(corosync_cluster)
"""
    run(SOURCE + source, "--corosync-timeline=pages", mode="fake").assert_outcomes(passed=1, errors=1)
    (page,) = (pytester.path / "pages").rglob("*.html")
    data = data_of(page.read_text(encoding="utf-8"))
    assert data["outcome"] == "failed in teardown"
    assert data["failure"]["short"] == "FAILS in line 15: RuntimeError: something is left"


def test_without_the_option_there_is_nothing(pytester: pytest.Pytester, run: Run) -> None:
    outcome = run(SOURCE + TESTS, mode="fake")
    assert "corosync timeline" not in outcome.stdout.str()
    assert list(pytester.path.rglob("*.html")) == []


def test_a_page_that_cannot_be_written_fails_no_test(pytester: pytest.Pytester, run: Run) -> None:
    (pytester.path / "pages").touch()
    outcome = run(SOURCE + TESTS, "--corosync-timeline=pages", mode="fake")
    outcome.assert_outcomes(passed=1, failed=4, xfailed=1)
    outcome.stdout.fnmatch_lines(["--corosync-timeline: it cannot be written: *"])
